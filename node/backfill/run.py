"""The loop of a backfill: day after day, study after study, behind all else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from node.backfill.limits import Limits
from node.backfill.model import Came, Guard, Source, Watcher
from node.backfill.progress import estimate
from node.doors.taking import OpenIntake
from node.fetching.model import RefusedError
from node.watch import study_key
from storage import catalog
from storage.catalog import (
    BackfillDayRecord,
    BackfillDayState,
    BackfilledStudy,
    BackfillLostError,
    BackfillProgress,
    BackfillRecord,
    BackfillState,
)
from storage.database import DatabaseError

log = structlog.get_logger(__name__)

_SIGN_EVERY_S = 5.0
_RECKON_EVERY_S = 60.0
_LOOK_EVERY_S = 5.0  # at what holds it back
_LONGEST_SLEEP_S = 60.0
_LONGEST_WITHOUT_DATABASE_S = 3600.0
_MOST_BROKEN_OFF = 3  # times that a study may have been in the making when its process died
_MARGIN = 2  # of what the node keeps free is to be free before a study begins
_DAYS_SAID = 30.0  # seconds between two lines about days
Result = TypeVar("Result")


class Backfill:
    """A backfill that this process goes on with.

    Parameters
    ----------
    opened
        The way in.
    record, runner
        As :func:`storage.catalog.take_backfill` gave and got them.
    source
        Where from.
    node_runs
        Whether a node works off what waits: only for what is said.
    guard
        See :data:`node.backfill.model.Guard`.
    sleep, clock
        For tests; the clock gives the time here, with its zone.
    """

    def __init__(
        self,
        opened: OpenIntake,
        record: BackfillRecord,
        runner: str,
        source: Source,
        limits: Limits,
        watcher: Watcher,
        *,
        node_runs: Callable[[], bool] = lambda: True,
        guard: Guard = nullcontext,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
    ) -> None:
        self._opened = opened
        self._record = record
        self._id = record.backfill_id
        self._runner = runner
        self._source = source
        self._limits = limits
        self._watcher = watcher
        self._node_runs = node_runs
        self._guard = guard
        self._sleep = sleep
        self._clock = clock
        self._doing = "begins"
        self._told = ""
        self._lost = threading.Event()
        self._free_at = 0.0  # of the wall clock: what a study owes outlives this process
        self._day_told = time.monotonic()

    def says(self, words: str) -> None:
        """What goes on now, for the terminal and for the row."""
        self._doing, self._told = words, ""
        self._watcher.says(words)

    def waits(self, words: str) -> None:
        """Why nothing goes on now; told once until something does."""
        self._doing = f"waits: {words}"
        if words.partition(":")[0] != self._told:
            self._told = words.partition(":")[0]
            self._watcher.tells(self._doing)

    def run(self) -> BackfillProgress:
        """Go on until all is done. What was done until an exception stands in the rows.

        Raises
        ------
        BackfillLostError
            If another process goes on with it, or an operator gave it up.
        Broken, FetchError
            If there is no way to fetch.
        DatabaseError
            If the database is away for long.
        """
        why = "stopped; the same command goes on"
        done = False
        with self._signing():
            try:
                progress = self._run()
                why, done = _ended(progress), True
            except BackfillLostError:
                raise
            except Exception as error:
                why = f"stopped: {error}; the same command goes on"
                raise
            finally:
                self._leave(why, done=done)
        return progress

    def _run(self) -> BackfillProgress:
        self._owe()
        self._source.look_through()
        self._days()
        if self._write(lambda session: catalog.refused_days_again(session, self._id, self._runner)):
            self._days()
        since = datetime.now(UTC)
        while True:  # what did not come whole gets one more try in each run
            again = self._read(
                lambda session: catalog.studies_to_try_again(session, self._id, since)
            )
            for study in again:
                self._study(study)
            if not again:
                return self._read(lambda session: catalog.backfill_progress(session, self._id))

    def _days(self) -> None:
        while True:
            day = self._read(lambda session: catalog.next_backfill_day(session, self._id))
            if day is None:
                return
            if day.state is BackfillDayState.WAITING:
                self._list(day)
            else:
                self._day(day)

    def _list(self, day: BackfillDayRecord) -> None:
        self._hold_back(queue=False)
        self.says(f"asks for {day.day or 'what has no date'}")
        try:
            found = self._source.find(day.day)
        except RefusedError as error:
            reason = str(error)
            self._watcher.tells(f"{day.day}: not listed: {reason}")
            log.warning("day-not-listed", day=str(day.day), reason=reason)
            self._write(
                lambda session: catalog.backfill_day_refused(
                    session, self._id, self._runner, day.day_id, reason
                )
            )
            return
        self._write(
            lambda session: catalog.backfill_day_listed(
                session, self._id, self._runner, day.day_id, found
            )
        )
        if not found:  # most days of a small archive: no second look
            self._day_done(day)

    def _day(self, day: BackfillDayRecord) -> None:
        for study in self._read(lambda session: catalog.studies_of_day(session, day.day_id)):
            self._study(study)
        self._day_done(day)

    def _day_done(self, day: BackfillDayRecord) -> None:
        self._write(
            lambda session: catalog.backfill_day_done(session, self._id, self._runner, day.day_id)
        )
        if time.monotonic() - self._day_told >= _DAYS_SAID:
            self._day_told = time.monotonic()
            counts = self._read(lambda session: catalog.backfill_counts(session, self._id))
            self._watcher.tells(
                f"{day.day or 'no date'} is done: {counts['days_done']} of {counts['days']} days, "
                f"{counts['settled']} studies, {counts['size_bytes'] / 1e9:.1f} GB"
            )

    def _study(self, study: BackfilledStudy) -> None:
        self._hold_back()
        if study.broken_off and study.attempts >= _MOST_BROKEN_OFF:
            words = f"{study.attempts} attempts broke off in the middle of it; passed over"
            self._end(study, Came(whole=False, reason=words))
            return
        self._write(
            lambda session: catalog.backfill_study_begins(
                session, self._id, self._runner, study.row_id
            )
        )
        try:
            came = self._came(study)
        except BaseException:
            # Stopped, or there is no way to fetch: that was no attempt at this study.
            with suppress(DatabaseError, BackfillLostError):
                self._write_once(
                    lambda session: catalog.backfill_study_put_back(
                        session, self._id, self._runner, study.row_id
                    )
                )
            raise
        self._end(study, came)

    def _came(self, study: BackfilledStudy) -> Came:
        from node.fetching.model import FetchError
        from node.fetching.run import Broken

        waited_s = 0.0
        while True:
            try:
                return self._source.take(study)
            except DatabaseError as error:
                waited_s = self._wait_for_database(error, waited_s)
            except (Broken, FetchError, BackfillLostError):
                raise
            except Exception as error:
                # The edge of a study: weeks of work must not end with one that nobody foresaw.
                key = study_key(study.study_instance_uid)
                log.exception("study-not-taken", study=key)
                words = f"an error of echonode's own ({type(error).__name__})"
                return Came(whole=False, reason=words)

    def _end(self, study: BackfilledStudy, came: Came) -> None:
        state = self._write(
            lambda session: catalog.backfill_study_ended(
                session,
                self._id,
                self._runner,
                study.row_id,
                whole=came.whole,
                reason=came.reason or "it did not come whole",
            )
        )
        self._owe(pause=came.taken > 0 or not came.whole)
        self._watcher.ended(study, came, state)

    # How gently.

    def _owe(self, *, pause: bool = False) -> None:
        """What the last study owes: also one that came before this process began."""
        last = self._read(lambda session: catalog.last_backfilled(session, self._id))
        if last is None:
            return
        ended_at, objects, size_bytes = last
        owed_s = self._limits.hourly.cost_s(objects, size_bytes) if objects else 0.0
        if pause:
            owed_s = max(owed_s, self._limits.pause_s)
        self._free_at = min(ended_at.timestamp(), self._clock().timestamp()) + owed_s

    def _hold_back(self, *, queue: bool = True) -> None:
        while True:
            if self._lost.is_set():
                raise BackfillLostError("another process goes on with this backfill")
            why = self._why_not_now(queue=queue)
            if why is None:
                return
            words, wait_s = why
            if wait_s is not None and wait_s <= _LOOK_EVERY_S:
                self._doing = f"waits: {words}"  # between two studies it always does
            else:
                self.waits(words)
            self._sleep(min(_LOOK_EVERY_S if wait_s is None else wait_s, _LONGEST_SLEEP_S))

    def _why_not_now(self, *, queue: bool) -> tuple[str, float | None] | None:
        limits = self._limits
        if limits.hours is not None:
            wait_s = limits.hours.wait_s(self._clock())
            if wait_s > 0:
                return f"until {limits.hours.begin:%H:%M}, when the hours begin", wait_s
        refusing = self._opened.refusing()
        if refusing is not None:
            return f"here {refusing}", None
        if not queue:
            return None
        owed_s = self._free_at - self._clock().timestamp()
        if owed_s > 0:
            return f"as slowly as was wished for: {owed_s:.0f} s", owed_s
        return self._too_full()

    def _too_full(self) -> tuple[str, None] | None:
        """Whether the node has enough to do, or little space: live studies must find theirs."""
        limits = self._limits
        for volume in self._opened.disk.state.volumes:
            least = limits.keep_free_bytes
            if least is None:
                least = _MARGIN * volume.mark_bytes
            if volume.free_bytes < least:
                words = (
                    f"for space here: {volume.free_bytes / 1e9:.1f} GB are free and "
                    f"{least / 1e9:.1f} GB are to be; [retention] makes some"
                )
                return words, None
        if limits.queue_below is None:
            return None
        waiting = self._read(catalog.count_waiting)
        if waiting < limits.queue_below:
            return None
        without = "" if self._node_runs() else ", and no node runs that would: start it"
        return f"clips wait here to be analysed: {waiting}{without}", None

    # Rows.

    def _read(self, ask: Callable[[Session], Result]) -> Result:
        waited_s = 0.0
        while True:
            try:
                with self._opened.database.read() as session:
                    return ask(session)
            except DatabaseError as error:
                waited_s = self._wait_for_database(error, waited_s)

    def _write(self, change: Callable[[Session], Result]) -> Result:
        waited_s = 0.0
        while True:
            try:
                return self._write_once(change)
            except DatabaseError as error:
                waited_s = self._wait_for_database(error, waited_s)

    def _write_once(self, change: Callable[[Session], Result]) -> Result:
        with self._guard(), self._opened.database.write() as session:
            return change(session)

    def _wait_for_database(self, error: DatabaseError, waited_s: float) -> float:
        if waited_s >= _LONGEST_WITHOUT_DATABASE_S:
            raise error
        self.waits(f"the database cannot be used: {error}")
        self._sleep(_LOOK_EVERY_S)
        return waited_s + _LOOK_EVERY_S

    def _leave(self, why: str, *, done: bool) -> None:
        state = BackfillState.DONE if done else BackfillState.OPEN
        with suppress(DatabaseError, BackfillLostError):
            self._write_once(
                lambda session: catalog.leave_backfill(
                    session, self._id, self._runner, why, state=state
                )
            )

    @contextmanager
    def _signing(self) -> Iterator[None]:
        """Signs that this process lives, whatever the loop waits for."""
        over = threading.Event()
        thread = threading.Thread(target=self._sign, args=(over,), name="signs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=_SIGN_EVERY_S)

    def _sign(self, over: threading.Event) -> None:
        reckoned_at = float("-inf")
        while not over.wait(_SIGN_EVERY_S):
            try:
                with self._opened.database.write() as session:
                    catalog.sign_backfill(session, self._id, self._runner, self._doing)
                if time.monotonic() - reckoned_at >= _RECKON_EVERY_S:
                    reckoned_at = time.monotonic()
                    self._reckon()
            except BackfillLostError:
                self._lost.set()
                return
            except DatabaseError as error:
                log.warning("sign-not-written", reason=str(error))
            except Exception:
                # The edge of a thread: the next sign may be written.
                log.exception("sign-not-written")

    def _reckon(self) -> None:
        """When it will be done: for a glance, which does not reckon itself."""
        with self._opened.database.read() as session:
            progress = catalog.backfill_progress(session, self._id)
        ends_at = estimate(self._record, progress).ends_at
        with self._opened.database.write() as session:
            catalog.expect_backfill(session, self._id, self._runner, ends_at)


def _ended(progress: BackfillProgress) -> str:
    failed = progress.by_state.get("partly", 0)
    words = f"done: {progress.settled} studies"
    if failed:
        words += f", {failed} not whole"
    if progress.days_refused:
        words += f", {progress.days_refused} days not listed"
    return words
