"""Years of studies out of an archive or a folder: what is to be done, and what came of it.

A backfill is held by one process, its *runner*, which signs again and again. Whoever writes down
an outcome says who he is, and is refused (:class:`BackfillLostError`) where another goes on with
it. What is done stands in the rows of days and studies, so a process that was killed is gone on
with by the next one.

What came of a study is counted by the rows of its instances and not by who fetched them: what came
before a kill counts, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import CursorResult, delete, func, insert, select, update
from sqlalchemy.orm import Session

from storage.catalog._moves import CatalogError, utc_now
from storage.states import (
    BackfillDayState,
    BackfilledState,
    BackfillState,
    EventKind,
    RecordingState,
    StudyState,
)
from storage.tables import (
    Backfill,
    BackfillDay,
    BackfillFile,
    BackfillStudy,
    Instance,
    Recording,
    Study,
    TimelineEvent,
)

BACKFILL_URGENCY = -10_000
"""Of studies that a backfill brings: under every one that a rule may give."""

_WAITING = (
    RecordingState.RECEIVED,
    RecordingState.TO_VIEW,
    RecordingState.VIEWING,
    RecordingState.QUEUED,
    RecordingState.ANALYSING,
)
#: A clip may have come to an end.
_CLIP_ENDS = (
    EventKind.VIEW_NAMED,
    EventKind.RECORDING_DONE,
    EventKind.RECORDING_SKIPPED,
    EventKind.RECORDING_REFUSED,
    EventKind.RECORDING_FAILED,
)
_SETTLED = (BackfilledState.TAKEN, BackfilledState.HERE, BackfilledState.PARTLY)
_UNSETTLED = (BackfilledState.WAITING, BackfilledState.FETCHING)
_MOST_REASONS = 20
_MOST_TEXT = 500
_AT_ONCE = 200  # values in one question
Value = TypeVar("Value")


class BackfillLostError(CatalogError):
    """Another process goes on with the backfill: stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewBackfill:
    """What is to be taken, and from where."""

    source: str
    from_folder: bool = False
    first_day: date | None = None
    last_day: date | None = None
    newest_first: bool = True
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillRecord:
    """A backfill as its row has it."""

    backfill_id: int
    source: str
    from_folder: bool
    first_day: date | None
    last_day: date | None
    newest_first: bool
    modalities: tuple[str, ...]
    state: BackfillState
    doing: str
    terms: Mapping[str, Any]
    begun_at: datetime
    ended_at: datetime | None
    files: int
    unreadable: int
    runner: str | None
    running_since: datetime | None
    signed_at: datetime | None
    expected_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillDayRecord:
    """A day whose turn it is."""

    day_id: int
    day: date | None
    state: BackfillDayState


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfilledStudy:
    """A study of a backfill."""

    row_id: int
    study_instance_uid: str
    day: date | None
    listed: int | None = None
    attempts: int = 0
    broken_off: bool = False  #: whoever was at it last was killed


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillProgress:
    """How far a backfill is, by its rows.

    ``window_*`` is what ended between ``window_from`` and ``window_to``.
    """

    days: int = 0
    days_done: int = 0  #: each of their studies has an end
    days_listed: int = 0  #: their studies are known
    days_refused: int = 0
    newest_done: date | None = None
    oldest_done: date | None = None
    studies: int = 0  #: found
    settled: int = 0
    by_state: Mapping[str, int] = field(default_factory=dict)
    objects: int = 0
    size_bytes: int = 0
    clips: int = 0  #: that came
    clips_waiting: int = 0  #: of these, not at an end
    reasons: Mapping[str, int] = field(default_factory=dict)  #: why not all came, and how often
    window_from: datetime | None = None
    window_to: datetime | None = None
    window_studies: int = 0
    window_objects: int = 0
    window_bytes: int = 0
    window_clips: int = 0  #: that came to an end

    @property
    def clips_analysed(self) -> int:
        """How many of those that came are at an end."""
        return max(0, self.clips - self.clips_waiting)


# Whose it is.


def add_backfill(
    session: Session, new: NewBackfill, *, now: datetime | None = None
) -> BackfillRecord:
    """Begin one. Of an archive the days stand there from the first on; a folder's are found.

    Raises
    ------
    CatalogError
        If another of this source is not finished.
    """
    now = now or utc_now()
    if find_backfill(session, new.source) is not None:
        raise CatalogError(f"a backfill of {new.source} is not finished")
    row = Backfill(
        source=new.source,
        from_folder=new.from_folder,
        first_day=new.first_day,
        last_day=new.last_day,
        newest_first=new.newest_first,
        modalities=" ".join(new.modalities),
        state=BackfillState.OPEN,
        terms={},
        begun_at=now,
    )
    session.add(row)
    session.flush()
    if new.first_day is not None and new.last_day is not None and not new.from_folder:
        count = (new.last_day - new.first_day).days + 1
        session.execute(
            insert(BackfillDay),
            [
                {
                    "backfill_id": row.id,
                    "day": new.first_day + timedelta(days=number),
                    "state": BackfillDayState.WAITING,
                }
                for number in range(count)
            ],
        )
    return _record(row)


def find_backfill(session: Session, source: str) -> BackfillRecord | None:
    """The backfill of a source that is not finished."""
    row = session.scalar(
        select(Backfill)
        .where(Backfill.source == source, Backfill.state == BackfillState.OPEN)
        .order_by(Backfill.id.desc())
        .limit(1)
    )
    return None if row is None else _record(row)


def read_backfill(session: Session, backfill_id: int) -> BackfillRecord:
    """One by its row; raises :class:`CatalogError` where there is none."""
    return _record(_row(session, backfill_id))


def list_backfills(session: Session, *, only_open: bool = False) -> tuple[BackfillRecord, ...]:
    """Of each source the last backfill, the newest first."""
    last = select(func.max(Backfill.id)).group_by(Backfill.source)
    query = select(Backfill).where(Backfill.id.in_(last)).order_by(Backfill.id.desc())
    if only_open:
        query = query.where(Backfill.state == BackfillState.OPEN)
    return tuple(_record(row) for row in session.scalars(query))


def take_backfill(
    session: Session,
    backfill_id: int,
    runner: str,
    *,
    seat: str,
    terms: Mapping[str, Any],
    lease_s: float,
    now: datetime | None = None,
) -> BackfillRecord:
    """Go on with a backfill from now on.

    Parameters
    ----------
    seat
        Tells where the runner is: nobody else of this seat can be at it, as its caller has made
        sure, so one that was killed there is followed at once. Of another seat it is followed
        after ``lease_s`` without a sign.

    Raises
    ------
    CatalogError
        If another process is at it.
    """
    now = now or utc_now()
    row = _row(session, backfill_id, lock=True)
    if row.runner is not None and row.seat != seat and row.signed_at is not None:
        silent_s = (now - row.signed_at).total_seconds()
        if abs(silent_s) < lease_s:
            raise CatalogError(
                f"another backfill of {row.source} runs on {row.runner.partition('/')[0]} (last "
                f"sign {max(0.0, silent_s):.0f} s ago); two would be no gentle one. Where that one "
                f"has died, wait {lease_s:.0f} s"
            )
    row.runner, row.seat, row.terms = runner, seat, dict(terms)
    row.running_since = row.signed_at = now
    row.doing = "begins"
    session.flush()
    return _record(row)


def sign_backfill(
    session: Session, backfill_id: int, runner: str, doing: str, *, now: datetime | None = None
) -> None:
    """Say that the runner lives, and what it does.

    Raises
    ------
    BackfillLostError
        If another goes on with it.
    """
    row = _held(session, backfill_id, runner)
    row.signed_at = now or utc_now()
    row.doing = doing[:_MOST_TEXT]


def expect_backfill(
    session: Session, backfill_id: int, runner: str, expected_at: datetime | None
) -> None:
    """When it will be done, as it goes now."""
    _held(session, backfill_id, runner).expected_at = expected_at


def leave_backfill(
    session: Session,
    backfill_id: int,
    runner: str,
    why: str,
    *,
    state: BackfillState = BackfillState.OPEN,
    now: datetime | None = None,
) -> None:
    """Stop being at it: since all is done, or for now, and why.

    Raises
    ------
    BackfillLostError
        If another goes on with it.
    """
    now = now or utc_now()
    row = _held(session, backfill_id, runner)
    row.runner, row.doing, row.signed_at = None, why[:_MOST_TEXT], now
    _end(session, row, state, now)


def give_up_backfill(session: Session, backfill_id: int, *, now: datetime | None = None) -> None:
    """An operator wants no more of it. What came stays; a runner stops at its next step."""
    now = now or utc_now()
    row = _row(session, backfill_id, lock=True)
    row.runner, row.doing = None, "given up by an operator"
    _end(session, row, BackfillState.GIVEN_UP, now)


def _end(session: Session, row: Backfill, state: BackfillState, now: datetime) -> None:
    row.state = state
    if state is BackfillState.OPEN:
        return
    row.ended_at = now
    if state is BackfillState.GIVEN_UP or not failed_backfilled(session, row.id, limit=1):
        # Only whoever goes on would want to know which files were looked into.
        session.execute(delete(BackfillFile).where(BackfillFile.backfill_id == row.id))


def reopen_backfill(session: Session, backfill_id: int) -> BackfillRecord:
    """Go on with one that was done: what did not come whole is to be tried again."""
    row = _row(session, backfill_id, lock=True)
    row.state, row.ended_at, row.expected_at = BackfillState.OPEN, None, None
    session.flush()
    return _record(row)


# Days and studies.


def next_backfill_day(session: Session, backfill_id: int) -> BackfillDayRecord | None:
    """The day whose turn it is: one whose studies are known first, else by the order wished for."""
    row = _row(session, backfill_id)
    turn = BackfillDay.day.desc() if row.newest_first else BackfillDay.day.asc()
    for states in ((BackfillDayState.LISTED,), (BackfillDayState.WAITING,)):
        day = session.scalar(
            select(BackfillDay)
            .where(BackfillDay.backfill_id == backfill_id, BackfillDay.state.in_(states))
            .order_by(BackfillDay.day.is_(None), turn, BackfillDay.id)  # without a date: the last
            .limit(1)
        )
        if day is not None:
            return BackfillDayRecord(day_id=day.id, day=day.day, state=day.state)
    return None


def backfill_day_listed(
    session: Session,
    backfill_id: int,
    runner: str,
    day_id: int,
    studies: Mapping[str, int | None],
) -> None:
    """These studies are of that day, each with its number of instances where that is known."""
    _held(session, backfill_id, runner)
    day = _day(session, day_id)
    known = _rows_of(session, backfill_id, studies)
    new = {uid: listed for uid, listed in studies.items() if uid not in known}
    _add_studies(session, backfill_id, day, new)
    day.state, day.reason = BackfillDayState.LISTED, ""
    session.flush()


def backfill_day_refused(
    session: Session, backfill_id: int, runner: str, day_id: int, reason: str
) -> None:
    """The archive would not say what it has of that day."""
    _held(session, backfill_id, runner)
    day = _day(session, day_id)
    day.state, day.reason = BackfillDayState.REFUSED, reason[:_MOST_TEXT]


def backfill_day_done(session: Session, backfill_id: int, runner: str, day_id: int) -> None:
    """Each study of that day has an end."""
    _held(session, backfill_id, runner)
    _day(session, day_id).state = BackfillDayState.DONE


def refused_days_again(session: Session, backfill_id: int, runner: str) -> int:
    """Let days that were refused be asked for once more; gives how many."""
    _held(session, backfill_id, runner)
    changed = session.execute(
        update(BackfillDay)
        .where(
            BackfillDay.backfill_id == backfill_id, BackfillDay.state == BackfillDayState.REFUSED
        )
        .values(state=BackfillDayState.WAITING)
        .execution_options(synchronize_session=False)
    )
    return _count(changed)


def studies_of_day(session: Session, day_id: int) -> tuple[BackfilledStudy, ...]:
    """Those of a day that are not settled, in the order in which they were found."""
    return _studies(session, BackfillStudy.day_id == day_id, BackfillStudy.state.in_(_UNSETTLED))


def studies_to_try_again(
    session: Session, backfill_id: int, before: datetime, limit: int = 100
) -> tuple[BackfilledStudy, ...]:
    """Those of which something did not come, and which were last tried before that time."""
    return _studies(
        session,
        BackfillStudy.backfill_id == backfill_id,
        BackfillStudy.state == BackfilledState.PARTLY,
        BackfillStudy.ended_at < before,
        limit=limit,
    )


def backfill_study_begins(
    session: Session, backfill_id: int, runner: str, row_id: int, *, now: datetime | None = None
) -> None:
    """It comes now."""
    _held(session, backfill_id, runner)
    row = _study(session, row_id)
    if row.state in _SETTLED:
        _day(session, row.day_id).settled -= 1
    row.state = BackfilledState.FETCHING
    row.attempts += 1
    row.begun_at = row.begun_at or now or utc_now()


def backfill_study_put_back(session: Session, backfill_id: int, runner: str, row_id: int) -> None:
    """It was stopped in the middle by an operator: that was no attempt."""
    _held(session, backfill_id, runner)
    row = _study(session, row_id)
    row.state, row.attempts = BackfilledState.WAITING, max(0, row.attempts - 1)


def backfill_study_ended(
    session: Session,
    backfill_id: int,
    runner: str,
    row_id: int,
    *,
    whole: bool,
    reason: str = "",
    now: datetime | None = None,
) -> BackfilledState:
    """What came of a study: all of it or not, and why not. Gives what it counts as."""
    _held(session, backfill_id, runner)
    row = _study(session, row_id)
    day = _day(session, row.day_id)
    objects, size, clips = _came(session, row)
    day.objects += objects - row.objects
    day.size_bytes += size - row.size_bytes
    day.clips += clips - row.clips
    day.settled += 1
    row.objects, row.size_bytes, row.clips = objects, size, clips
    if not whole:
        row.state = BackfilledState.PARTLY
    else:
        row.state = BackfilledState.TAKEN if objects else BackfilledState.HERE
    row.reason = "" if whole else reason[:_MOST_TEXT]
    row.ended_at = now or utc_now()
    session.flush()
    return row.state


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillFailure:
    """A study of which something did not come."""

    study_instance_uid: str
    day: date | None
    reason: str
    attempts: int
    ended_at: datetime | None


def failed_backfilled(
    session: Session, backfill_id: int, *, limit: int = 1000
) -> tuple[BackfillFailure, ...]:
    """The studies of which something did not come, those tried last first."""
    rows = session.execute(
        select(BackfillStudy, BackfillDay.day)
        .join(BackfillDay, BackfillDay.id == BackfillStudy.day_id)
        .where(
            BackfillStudy.backfill_id == backfill_id,
            BackfillStudy.state == BackfilledState.PARTLY,
        )
        .order_by(BackfillStudy.ended_at.desc(), BackfillStudy.id)
        .limit(limit)
    )
    return tuple(
        BackfillFailure(
            study_instance_uid=row.study_instance_uid,
            day=day,
            reason=row.reason,
            attempts=row.attempts,
            ended_at=row.ended_at,
        )
        for row, day in rows
    )


def is_backfilled(session: Session, study_instance_uid: str) -> bool:
    """Whether a study comes by a backfill now."""
    query = select(BackfillStudy.id).where(
        BackfillStudy.study_instance_uid == study_instance_uid,
        BackfillStudy.state == BackfilledState.FETCHING,
    )
    return session.scalar(query.limit(1)) is not None


# The files of a folder.


def known_files(
    session: Session, backfill_id: int, digests: Collection[str]
) -> Mapping[str, tuple[tuple[int, int], ...]]:
    """Of files that were looked into, the places in them and the rows of the studies there."""
    found: dict[str, list[tuple[int, int]]] = {}
    for some in _in_pieces(digests):
        for digest, place, study_id in session.execute(
            select(BackfillFile.digest, BackfillFile.place, BackfillFile.study_id).where(
                BackfillFile.backfill_id == backfill_id, BackfillFile.digest.in_(some)
            )
        ):
            at = found.setdefault(digest, [])
            if study_id is not None:
                at.append((place, study_id))
    return {digest: tuple(sorted(at)) for digest, at in found.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFound:
    """A file of a folder: the objects in it that are wanted, each with its place, study and day."""

    digest: str
    objects: tuple[tuple[int, str, date | None], ...] = ()


def add_files(
    session: Session, backfill_id: int, runner: str, files: Sequence[FileFound]
) -> Mapping[str, int]:
    """Remember what was found in files; gives the rows of the studies, by their UIDs.

    A study is of the day that its first file says. One that was settled is to be tried again.
    """
    _held(session, backfill_id, runner)
    days: dict[str, date | None] = {}
    for file in files:
        for _place, uid, day in file.objects:
            days.setdefault(uid, day)
    rows = dict(_rows_of(session, backfill_id, days))
    _open_again(session, rows.values())
    by_day: dict[date | None, dict[str, int | None]] = {}
    for uid, day in days.items():
        if uid not in rows:
            by_day.setdefault(day, {})[uid] = None
    for day, new in by_day.items():
        _add_studies(session, backfill_id, _day_of(session, backfill_id, day), new)
    rows = dict(_rows_of(session, backfill_id, days))
    values: list[dict[str, Any]] = []
    for file in files:
        found: list[tuple[int, int | None]] = [(at, rows[uid]) for at, uid, _day in file.objects]
        values += [
            {"backfill_id": backfill_id, "digest": file.digest, "place": at, "study_id": study}
            for at, study in found or [(0, None)]
        ]
    if values:
        session.execute(insert(BackfillFile), values)
    return rows


def settled_studies(session: Session, backfill_id: int) -> frozenset[int]:
    """The rows of those of which nothing is missing."""
    query = select(BackfillStudy.id).where(
        BackfillStudy.backfill_id == backfill_id,
        BackfillStudy.state.in_((BackfilledState.TAKEN, BackfilledState.HERE)),
    )
    return frozenset(session.scalars(query))


def count_files(
    session: Session, backfill_id: int, runner: str, *, files: int, unreadable: int
) -> None:
    """How many files of the folder were looked at by now."""
    row = _held(session, backfill_id, runner)
    row.files, row.unreadable = files, unreadable


def folder_looked_through(session: Session, backfill_id: int, runner: str) -> None:
    """All files are known: days that wait have nothing that is not settled, or may begin."""
    _held(session, backfill_id, runner)
    session.execute(
        update(BackfillDay)
        .where(
            BackfillDay.backfill_id == backfill_id,
            BackfillDay.state == BackfillDayState.WAITING,
        )
        .values(state=BackfillDayState.LISTED)
        .execution_options(synchronize_session=False)
    )


# How far it is.


def backfill_progress(
    session: Session, backfill_id: int, *, window_s: float = 3600.0, now: datetime | None = None
) -> BackfillProgress:
    """How far a backfill is. What it reads grows with its days, not with all that is kept."""
    now = now or utc_now()
    row = _row(session, backfill_id)
    counts = backfill_counts(session, backfill_id)
    last = session.scalar(
        select(func.max(BackfillStudy.ended_at)).where(BackfillStudy.backfill_id == backfill_id)
    )
    to = now if row.runner is not None or last is None else last
    since = to - timedelta(seconds=window_s)
    if row.running_since is not None and row.running_since < to:
        since = max(since, row.running_since)
    studies, objects, size = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(BackfillStudy.objects), 0),
            func.coalesce(func.sum(BackfillStudy.size_bytes), 0),
        ).where(
            BackfillStudy.backfill_id == backfill_id,
            BackfillStudy.ended_at >= since,
            BackfillStudy.ended_at <= to,
        )
    ).one()
    clips_since = now - timedelta(seconds=window_s)
    by_state = {
        state.value: count
        for state, count in session.execute(
            select(BackfillStudy.state, func.count())
            .where(BackfillStudy.backfill_id == backfill_id)
            .group_by(BackfillStudy.state)
        )
    }
    of_studies = session.execute(
        select(BackfillStudy.reason, func.count())
        .where(
            BackfillStudy.backfill_id == backfill_id,
            BackfillStudy.state == BackfilledState.PARTLY,
        )
        .group_by(BackfillStudy.reason)
        .order_by(func.count().desc())
        .limit(_MOST_REASONS)
    ).all()
    reasons = {reason: count for reason, count in of_studies if reason}
    for reason, count in session.execute(
        select(BackfillDay.reason, func.count())
        .where(
            BackfillDay.backfill_id == backfill_id,
            BackfillDay.state == BackfillDayState.REFUSED,
        )
        .group_by(BackfillDay.reason)
        .limit(_MOST_REASONS)
    ):
        reasons[f"day not listed: {reason}"] = count
    return BackfillProgress(
        **counts,
        by_state=by_state,
        clips_waiting=backfilled_clips_waiting(session, backfill_id),
        reasons=reasons,
        window_from=since,
        window_to=to,
        window_studies=studies,
        window_objects=int(objects),
        window_bytes=int(size),
        window_clips=_clips_ended(session, backfill_id, clips_since),
    )


def backfill_counts(session: Session, backfill_id: int) -> dict[str, Any]:
    """What the rows of the days say alone: for a glance."""
    found: dict[str, Any] = dict.fromkeys(("days", "days_done", "days_listed", "days_refused"), 0)
    sums = ("studies", "settled", "objects", "size_bytes", "clips")
    found |= dict.fromkeys(sums, 0)
    found |= {"newest_done": None, "oldest_done": None}
    for state, count, newest, oldest, *rest in session.execute(
        select(
            BackfillDay.state,
            func.count(),
            func.max(BackfillDay.day),
            func.min(BackfillDay.day),
            func.sum(BackfillDay.studies),
            func.sum(BackfillDay.settled),
            func.sum(BackfillDay.objects),
            func.sum(BackfillDay.size_bytes),
            func.sum(BackfillDay.clips),
        )
        .where(BackfillDay.backfill_id == backfill_id)
        .group_by(BackfillDay.state)
    ):
        found["days"] += count
        if state is BackfillDayState.DONE:
            found |= {"days_done": count, "newest_done": newest, "oldest_done": oldest}
        if state in (BackfillDayState.DONE, BackfillDayState.LISTED):
            found["days_listed"] += count
        if state is BackfillDayState.REFUSED:
            found["days_refused"] = count
        for name, value in zip(sums, rest, strict=True):
            found[name] += int(value or 0)
    return found


def last_backfilled(session: Session, backfill_id: int) -> tuple[datetime, int, int] | None:
    """When the last study ended, with its objects and bytes: whoever goes on owes their time."""
    row = session.execute(
        select(BackfillStudy.ended_at, BackfillStudy.objects, BackfillStudy.size_bytes)
        .where(BackfillStudy.backfill_id == backfill_id, BackfillStudy.ended_at.is_not(None))
        .order_by(BackfillStudy.ended_at.desc())
        .limit(1)
    ).first()
    return None if row is None or row[0] is None else (row[0], row[1], row[2])


def backfilled_clips_waiting(session: Session, backfill_id: int) -> int:
    """How many clips of what came are not at an end."""
    # In steps, from what waits, which the queue's limit keeps small, to whose it is: asked for at
    # once, SQLite goes through every study of the backfill.
    rows = session.execute(
        select(Recording.study_id, func.count())
        .join(Study, Study.id == Recording.study_id)
        .where(Recording.state.in_(_WAITING), Study.state != StudyState.HELD)
        .group_by(Recording.study_id)
    ).all()
    waiting = {row[0]: row[1] for row in rows}
    return sum(waiting[one] for one in _brought(session, backfill_id, waiting))


def _clips_ended(session: Session, backfill_id: int, since: datetime) -> int:
    # In steps again, from what happened lately to whose it is.
    lately = session.scalars(
        select(TimelineEvent.study_id)
        .where(
            TimelineEvent.kind.in_([kind.value for kind in _CLIP_ENDS]), TimelineEvent.at >= since
        )
        .distinct()
    ).all()
    ended = 0
    for some in _in_pieces(list(_brought(session, backfill_id, lately))):
        ended += (
            session.scalar(
                select(func.count())
                .select_from(Recording)
                .where(
                    Recording.study_id.in_(some),
                    Recording.finished_at >= since,
                    Recording.state.not_in(_WAITING),
                )
            )
            or 0
        )
    return ended


def _brought(session: Session, backfill_id: int, study_ids: Collection[int]) -> Iterable[int]:
    """Of some studies those that came by a backfill."""
    for some in _in_pieces(list(study_ids)):
        rows = session.execute(
            select(Study.study_instance_uid, Study.id).where(Study.id.in_(some))
        ).all()
        uids = {row[0]: row[1] for row in rows}
        for uid in session.scalars(
            select(BackfillStudy.study_instance_uid).where(
                BackfillStudy.backfill_id == backfill_id,
                BackfillStudy.study_instance_uid.in_(list(uids)),
                BackfillStudy.begun_at.is_not(None),
            )
        ):
            yield uids[uid]


# Rows.


def _row(session: Session, backfill_id: int, *, lock: bool = False) -> Backfill:
    row = session.get(Backfill, backfill_id, with_for_update=lock)
    if row is None:
        raise CatalogError(f"no backfill {backfill_id}")
    return row


def _held(session: Session, backfill_id: int, runner: str) -> Backfill:
    row = _row(session, backfill_id, lock=True)
    if row.runner != runner:
        why = row.doing if row.state is not BackfillState.OPEN else "another process goes on"
        raise BackfillLostError(f"the backfill of {row.source} is not this process's: {why}")
    return row


def _day(session: Session, day_id: int) -> BackfillDay:
    return session.get_one(BackfillDay, day_id)


def _study(session: Session, row_id: int) -> BackfillStudy:
    return session.get_one(BackfillStudy, row_id)


def _day_of(session: Session, backfill_id: int, day: date | None) -> BackfillDay:
    same = BackfillDay.day.is_(None) if day is None else BackfillDay.day == day
    row = session.scalar(select(BackfillDay).where(BackfillDay.backfill_id == backfill_id, same))
    if row is None:
        row = BackfillDay(backfill_id=backfill_id, day=day, state=BackfillDayState.WAITING)
        row.reason, row.studies, row.settled = "", 0, 0
        session.add(row)
        session.flush()
    elif row.state is BackfillDayState.DONE:
        row.state = BackfillDayState.WAITING  # a file of it came since
    return row


def _add_studies(
    session: Session, backfill_id: int, day: BackfillDay, studies: Mapping[str, int | None]
) -> None:
    if not studies:
        return
    session.execute(
        insert(BackfillStudy),
        [
            {
                "backfill_id": backfill_id,
                "day_id": day.id,
                "study_instance_uid": uid,
                "state": BackfilledState.WAITING,
                "listed": listed,
            }
            for uid, listed in studies.items()
        ],
    )
    day.studies += len(studies)
    session.flush()


def _open_again(session: Session, row_ids: Collection[int]) -> None:
    for row_id in row_ids:
        row = _study(session, row_id)
        if row.state in _SETTLED:
            row.state = BackfilledState.WAITING
            day = _day(session, row.day_id)
            day.settled -= 1
            day.state = BackfillDayState.WAITING
    session.flush()


def _rows_of(session: Session, backfill_id: int, uids: Iterable[str]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for some in _in_pieces(list(uids)):
        rows = session.execute(
            select(BackfillStudy.study_instance_uid, BackfillStudy.id).where(
                BackfillStudy.backfill_id == backfill_id,
                BackfillStudy.study_instance_uid.in_(some),
            )
        )
        found.update((uid, row_id) for uid, row_id in rows)
    return found


def _studies(
    session: Session, *conditions: Any, limit: int | None = None
) -> tuple[BackfilledStudy, ...]:
    query = (
        select(BackfillStudy, BackfillDay.day)
        .join(BackfillDay, BackfillDay.id == BackfillStudy.day_id)
        .where(*conditions)
        .order_by(BackfillStudy.id)
        .limit(limit)
    )
    return tuple(
        BackfilledStudy(
            row_id=row.id,
            study_instance_uid=row.study_instance_uid,
            day=day,
            listed=row.listed,
            attempts=row.attempts,
            broken_off=row.state is BackfilledState.FETCHING,
        )
        for row, day in session.execute(query)
    )


def _came(session: Session, row: BackfillStudy) -> tuple[int, int, int]:
    """Objects, bytes and clips of a study that came since it was first tried."""
    objects, size, clips = session.execute(
        select(
            func.count(Instance.id),
            func.coalesce(func.sum(Instance.size_bytes), 0),
            func.count(Recording.id),
        )
        .select_from(Instance)
        .join(Study, Study.id == Instance.study_id)
        .outerjoin(Recording, Recording.instance_id == Instance.id)
        .where(
            Study.study_instance_uid == row.study_instance_uid,
            Instance.received_at >= row.begun_at,
            Instance.own.is_(False),
        )
    ).one()
    return int(objects), int(size), int(clips)


def _in_pieces(values: Collection[Value]) -> Iterable[list[Value]]:
    listed = list(values)
    for first in range(0, len(listed), _AT_ONCE):
        yield listed[first : first + _AT_ONCE]


def _count(result: object) -> int:
    return result.rowcount if isinstance(result, CursorResult) else 0


def _record(row: Backfill) -> BackfillRecord:
    return BackfillRecord(
        backfill_id=row.id,
        source=row.source,
        from_folder=row.from_folder,
        first_day=row.first_day,
        last_day=row.last_day,
        newest_first=row.newest_first,
        modalities=tuple(row.modalities.split()),
        state=row.state,
        doing=row.doing,
        terms=row.terms,
        begun_at=row.begun_at,
        ended_at=row.ended_at,
        files=row.files or 0,
        unreadable=row.unreadable or 0,
        runner=row.runner,
        running_since=row.running_since,
        signed_at=row.signed_at,
        expected_at=row.expected_at,
    )
