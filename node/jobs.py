"""The timed jobs, by APScheduler, in the node's one process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from node.delivery.outbox import Outbox
from node.doors.folder import FolderDoor
from node.lifecycle import Lifecycle
from storage.catalog import ClaimLostError
from storage.database import DatabaseError
from storage.files import FileStoreError

log = structlog.get_logger(__name__)

_TICK_S = 1.0
_HEARTBEAT_S = 5.0
_SWEEP_S = 600.0
_WATCH_S = 2.0
_RETENTION_S = 60.0
_ALIVE_S = 10.0
_GRACE_S = 20.0  # at a stop, for what destinations have not answered yet


class Jobs:
    """What happens by the clock: completion, reports, deliveries, the heartbeat, sweeping.

    A job that is still running is not started a second time; a slow destination has a job of its
    own and holds up no other.

    Parameters
    ----------
    alive
        Called while the clock runs, whatever else hangs.
    hang_up
        Ends the connections to destinations: called at a stop, when what is on the wire has had
        ``grace_s``.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        outbox: Outbox,
        *,
        heartbeat: Callable[[], None],
        heartbeat_s: float = _HEARTBEAT_S,
        sweep: Callable[[], None],
        watch: Callable[[], object] = lambda: None,
        retention: Callable[[], object] = lambda: None,
        unreadable: Callable[[], str | None] = lambda: None,
        promises: Callable[[], object] = lambda: None,
        alive: Callable[[], object] = lambda: None,
        folders: Sequence[FolderDoor] = (),
        hang_up: Callable[[], object] = lambda: None,
        grace_s: float = _GRACE_S,
    ) -> None:
        destinations = outbox.destinations
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(8 + 2 * len(destinations) + len(folders))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        self._hang_up = hang_up
        self._grace_s = grace_s
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep_pace, name="keep-pace", daemon=True)
        self._every(_TICK_S, "complete-studies", lifecycle.complete_quiet)
        self._every(_TICK_S, "report-studies", lifecycle.report_ready)
        self._every(_WATCH_S, "watch-disk", watch)
        self._every(_TICK_S, "report-promises", promises)
        self._every(_RETENTION_S, "retention", retention)
        self._every(heartbeat_s, "heartbeat", heartbeat)
        self._every(_SWEEP_S, "sweep-incoming", sweep)
        self._every(_ALIVE_S, "alive", alive)
        for number, folder in enumerate(folders, start=1):
            self._every(folder.every_s, f"folder:{number}", folder.look)
        for name in destinations:
            deliver = partial(_unless, unreadable, partial(outbox.deliver_due, name))
            self._every(_TICK_S, f"deliver:{name}", deliver)
        for name in outbox.asked:
            self._every(_TICK_S, f"ask:{name}", partial(outbox.ask_due, name))

    def _every(self, seconds: float, name: str, work: Callable[[], object]) -> None:
        def run() -> None:
            try:
                work()
            except (DatabaseError, FileStoreError, ClaimLostError) as error:
                # What is to be done stays in the rows, and the next turn comes.
                log.error("job-waits", job=name, reason=str(error))  # noqa: TRY400 - says all
            except Exception:
                # The edge of a job: a locked database or a missing disk must not end the clock.
                log.exception("job-failed", job=name)

        self._scheduler.add_job(run, "interval", seconds=seconds, id=name, name=name)

    def start(self) -> None:
        """Start the clock."""
        # A job that takes longer than its beat is meant to: the library would warn each second.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler.start()
        self._keeper.start()

    def _keep_pace(self) -> None:
        """Go on when the machine's clock was set back: the scheduler's next times are by it."""
        while not self._stopping.wait(_TICK_S):
            now = datetime.now(UTC)
            for job in self._scheduler.get_jobs():
                due = job.next_run_time
                if due is not None and due > now + 2 * job.trigger.interval:
                    job.modify(next_run_time=now)

    def stop(self) -> None:
        """Stop the clock and wait for what runs, for silent destinations not for long."""
        self._stopping.set()
        if self._scheduler.running:
            hanging_up = threading.Timer(self._grace_s, self._hang_up)
            hanging_up.daemon = True
            hanging_up.start()
            self._scheduler.shutdown(wait=True)
            hanging_up.cancel()


def _unless(reason: Callable[[], str | None], work: Callable[[], object]) -> None:
    """Do a piece of work, but not while there is a reason against it."""
    if reason() is None:
        work()
