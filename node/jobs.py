"""The timed jobs, by APScheduler, in the node's one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from node.delivery.outbox import Outbox
from node.lifecycle import Lifecycle

log = structlog.get_logger(__name__)

_TICK_S = 1.0
_HEARTBEAT_S = 5.0
_SWEEP_S = 600.0


class Jobs:
    """What happens by the clock: completion, reports, deliveries, the heartbeat, sweeping.

    A job that is still running is not started a second time; a slow destination has a job of its
    own and holds up no other.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        outbox: Outbox,
        *,
        heartbeat: Callable[[], None],
        sweep: Callable[[], None],
    ) -> None:
        destinations = outbox.destinations
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(4 + len(destinations))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        self._every(_TICK_S, "complete-studies", lifecycle.complete_quiet)
        self._every(_TICK_S, "report-studies", lifecycle.report_ready)
        self._every(_HEARTBEAT_S, "heartbeat", heartbeat)
        self._every(_SWEEP_S, "sweep-incoming", sweep)
        for name in destinations:
            self._every(_TICK_S, f"deliver:{name}", partial(outbox.deliver_due, name))

    def _every(self, seconds: float, name: str, work: Callable[[], object]) -> None:
        def run() -> None:
            try:
                work()
            except Exception:
                # The edge of a job: a locked database or a missing disk must not end the clock.
                log.exception("job-failed", job=name)

        self._scheduler.add_job(run, "interval", seconds=seconds, id=name, name=name)

    def start(self) -> None:
        """Start the clock."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop the clock and wait for what runs."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
