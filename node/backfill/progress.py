"""How far a backfill is, when it will be done, and what that is reckoned from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from node.fetching.limits import Hours, read_hours
from storage import catalog
from storage.catalog import BackfillProgress, BackfillRecord, BackfillState

LEASE_S = 60.0  #: a runner without a sign for so long counts as dead
_LONGEST = timedelta(days=36_500)
_LEAST_WINDOW_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What is left of one of the two, and how much of it was done in an hour."""

    left: float
    per_hour: float | None

    @property
    def needs_s(self) -> float | None:
        """How long that takes; None where nothing of it was done lately."""
        if self.left <= 0:
            return 0.0
        return self.left / self.per_hour * 3600 if self.per_hour else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """When all will be fetched and analysed: as the slower of the two goes."""

    basis: str  #: what it is reckoned from, or why there is none
    fetching: Share | None = None  #: in studies
    analysing: Share | None = None  #: in clips
    slower: str | None = None  #: "fetching" or "analysing"
    remaining_s: float | None = None
    ends_at: datetime | None = None


def estimate(
    record: BackfillRecord, progress: BackfillProgress, now: datetime | None = None
) -> Estimate:
    """Reckon by what was done in the last hour, of fetching and of analysing."""
    now = now or datetime.now(UTC)
    if record.state is BackfillState.GIVEN_UP:
        return Estimate(basis="it was given up")
    if record.from_folder and progress.days_listed < progress.days:
        return Estimate(basis="the folder is still looked through")
    hours = _hours(record)
    fetching = Share(left=_studies_left(progress), per_hour=_studies_per_hour(progress, hours))
    analysing = Share(
        left=_clips_left(progress, fetching.left), per_hour=_clips_per_hour(record, progress, now)
    )
    waits_s, works_s = fetching.needs_s, analysing.needs_s
    if waits_s is None or works_s is None:
        what = "no study was fetched" if waits_s is None else "no clip of it was analysed"
        return Estimate(basis=f"{what} in the last hour", fetching=fetching, analysing=analysing)
    # Nothing is fetched outside of the hours; workers go on.
    fetched_s = (_after(hours, now, waits_s) - now).total_seconds()
    slower = "fetching" if fetched_s >= works_s else "analysing"
    remaining_s = max(fetched_s, works_s)
    return Estimate(
        basis=_basis(progress, fetching, analysing, slower, hours),
        fetching=fetching,
        analysing=analysing,
        slower=slower,
        remaining_s=remaining_s,
        ends_at=now + min(timedelta(seconds=remaining_s), _LONGEST),
    )


def runs(record: BackfillRecord, now: datetime | None = None) -> bool:
    """Whether a process is at it, by its last sign."""
    if record.runner is None or record.signed_at is None:
        return False
    silent_s = ((now or datetime.now(UTC)) - record.signed_at).total_seconds()
    return abs(silent_s) < LEASE_S


def as_json(
    record: BackfillRecord, progress: BackfillProgress, reckoned: Estimate, now: datetime
) -> dict[str, Any]:
    """As `echonode backfill status --json` prints it."""
    return {
        "source": record.source,
        "from_folder": record.from_folder,
        "first_day": record.first_day,
        "last_day": record.last_day,
        "newest_first": record.newest_first,
        "modalities": list(record.modalities),
        "state": record.state,
        "running": runs(record, now),
        "doing": record.doing,
        "terms": dict(record.terms),
        "begun_at": record.begun_at,
        "ended_at": record.ended_at,
        "signed_at": record.signed_at,
        "days": {
            "all": progress.days,
            "done": progress.days_done,
            "listed": progress.days_listed,
            "not_listed": progress.days_refused,
            "newest_done": progress.newest_done,
            "oldest_done": progress.oldest_done,
        },
        "studies": {
            "found": progress.studies,
            "settled": progress.settled,
            **{
                name: progress.by_state.get(name, 0)
                for name in ("waiting", "fetching", "taken", "here", "partly")
            },
        },
        "objects": progress.objects,
        "bytes": progress.size_bytes,
        "clips": {
            "taken": progress.clips,
            "analysed": progress.clips_analysed,
            "waiting": progress.clips_waiting,
        },
        "files": {"looked_at": record.files, "unreadable": record.unreadable},
        "failures": dict(progress.reasons),
        "last_hour": {
            "from": progress.window_from,
            "to": progress.window_to,
            "studies": progress.window_studies,
            "objects": progress.window_objects,
            "bytes": progress.window_bytes,
            "clips_analysed": progress.window_clips,
        },
        "estimate": {
            "ends_at": reckoned.ends_at,
            "remaining_s": reckoned.remaining_s,
            "slower": reckoned.slower,
            "basis": reckoned.basis,
            "studies_left": None if reckoned.fetching is None else round(reckoned.fetching.left),
            "studies_per_hour": None if reckoned.fetching is None else reckoned.fetching.per_hour,
            "clips_left": None if reckoned.analysing is None else round(reckoned.analysing.left),
            "clips_per_hour": None if reckoned.analysing is None else reckoned.analysing.per_hour,
        },
    }


def glance(session: Session) -> list[dict[str, Any]]:
    """What `echonode status` shows of backfills that are under way, or whose clips still wait."""
    found = []
    for record in catalog.list_backfills(session):
        waiting = catalog.backfilled_clips_waiting(session, record.backfill_id)
        if record.state is not BackfillState.OPEN and not waiting:
            continue
        counts = catalog.backfill_counts(session, record.backfill_id)
        found.append(
            {
                "source": record.source,
                "state": record.state.value,
                "running": runs(record),
                "doing": record.doing,
                "days": counts["days"],
                "days_done": counts["days_done"],
                "studies": counts["settled"],
                "bytes": counts["size_bytes"],
                "clips_waiting": waiting,
                "expected_at": None
                if record.expected_at is None
                else record.expected_at.isoformat(),
            }
        )
    return found


def _studies_left(progress: BackfillProgress) -> float:
    known = max(0, progress.studies - progress.settled)
    unlisted = progress.days - progress.days_listed - progress.days_refused
    if not unlisted or not progress.days_listed:
        return float(known)
    return known + unlisted * progress.studies / progress.days_listed


def _clips_left(progress: BackfillProgress, studies_left: float) -> float:
    each = progress.clips / progress.settled if progress.settled else 0.0
    return progress.clips_waiting + studies_left * each


def _studies_per_hour(progress: BackfillProgress, hours: Hours | None) -> float | None:
    begin, end = progress.window_from, progress.window_to
    if begin is None or end is None or not progress.window_studies:
        return None
    open_s = _open_s(hours, begin, end)
    return progress.window_studies / max(open_s, _LEAST_WINDOW_S) * 3600


def _clips_per_hour(
    record: BackfillRecord, progress: BackfillProgress, now: datetime
) -> float | None:
    if not progress.window_clips:
        return None
    spent_s = min(3600.0, (now - record.begun_at).total_seconds())
    return progress.window_clips / max(spent_s, _LEAST_WINDOW_S) * 3600


def _hours(record: BackfillRecord) -> Hours | None:
    text = record.terms.get("hours")
    return None if not text else read_hours(str(text))


def _open_s(hours: Hours | None, begin: datetime, end: datetime) -> float:
    """How much of a time lies within the hours, which are of this machine's clock."""
    if hours is None:
        return (end - begin).total_seconds()
    at, open_s = begin.astimezone(), 0.0
    while at < end:
        pause_s = hours.wait_s(at)
        if pause_s <= 0:
            pause_s = min(hours.left_s(at), (end - at).total_seconds())
            open_s += pause_s
        at += timedelta(seconds=pause_s)
    return open_s


def _after(hours: Hours | None, begin: datetime, needs_s: float) -> datetime:
    """When so much time within the hours will have passed."""
    if hours is None or needs_s <= 0:
        return begin + min(timedelta(seconds=needs_s), _LONGEST)
    at, a_day_s = begin.astimezone(), _open_s(hours, begin, begin + timedelta(days=1))
    whole_days = min(int(needs_s // a_day_s), _LONGEST.days)
    at += timedelta(days=whole_days)
    left_s = max(0.0, needs_s - whole_days * a_day_s) if whole_days < _LONGEST.days else 0.0
    while left_s > 0:
        pause_s = hours.wait_s(at)
        if pause_s <= 0:
            pause_s = min(hours.left_s(at), left_s)
            left_s -= pause_s
        at += timedelta(seconds=pause_s)
    return at


def _basis(
    progress: BackfillProgress, fetching: Share, analysing: Share, slower: str, hours: Hours | None
) -> str:
    parts = []
    if fetching.left > 0:
        unlisted = progress.days - progress.days_listed - progress.days_refused
        words = f"{fetching.left:.0f} studies to fetch at {fetching.per_hour or 0:.1f} an hour"
        if unlisted:
            words += f" ({unlisted} days not asked for yet, as the {progress.days_listed} others)"
        parts.append(words)
    if analysing.left > 0:
        parts.append(
            f"{analysing.left:.0f} clips to analyse at {analysing.per_hour or 0:.1f} an hour"
        )
    if not parts:
        return "nothing is left"
    within = "" if hours is None else f", fetching within {hours} alone"
    return f"{' and '.join(parts)}, as in the last hour{within}; {slower} is slower"
