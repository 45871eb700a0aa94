"""What those who keep watch ask: how destinations do, and what failed lately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.catalog._moves import utc_now
from storage.catalog._records import DestinationWatch
from storage.states import DeliveryState, EventKind
from storage.tables import Delivery, TimelineEvent

#: What ended badly and does not go on by itself.
_FAILURES = (
    EventKind.STUDY_FAILED,
    EventKind.RECORDING_FAILED,
    EventKind.DELIVERY_FAILED,
    EventKind.RESULT_QUARANTINED,
)


def watch_destinations(
    session: Session, now: datetime | None = None
) -> tuple[DestinationWatch, ...]:
    """How each destination does that has something waiting, in the order of their names."""
    now = now or utc_now()
    rows = session.execute(
        select(
            Delivery.destination,
            func.count(),
            func.min(Delivery.queued_at),
            func.min(Delivery.last_attempt_at).filter(Delivery.attempts > 0),
        )
        .where(Delivery.state == DeliveryState.WAITING)
        .group_by(Delivery.destination)
        .order_by(Delivery.destination)
    ).all()
    return tuple(
        DestinationWatch(
            destination=name,
            waiting=count,
            oldest_age_s=max(0.0, (now - oldest).total_seconds()),
            silent_s=0.0 if tried is None else _silent_s(session, name, now),
        )
        for name, count, oldest, tried in rows
    )


def failures_since(session: Session, since: datetime) -> Mapping[str, int]:
    """How many things failed since then, by the kind of the timeline's event."""
    return count_events(session, _FAILURES, since)


def count_events(
    session: Session, kinds: Iterable[EventKind], since: datetime
) -> Mapping[str, int]:
    """How many events of these kinds stand in the timelines since then."""
    rows = session.execute(
        select(TimelineEvent.kind, func.count())
        .where(TimelineEvent.kind.in_([kind.value for kind in kinds]), TimelineEvent.at >= since)
        .group_by(TimelineEvent.kind)
    )
    return {str(kind): count for kind, count in rows}


def _silent_s(session: Session, destination: str, now: datetime) -> float:
    """For how long a destination has taken nothing although it was tried."""
    tried = session.scalar(
        select(func.min(Delivery.queued_at)).where(
            Delivery.destination == destination,
            Delivery.state == DeliveryState.WAITING,
            Delivery.attempts > 0,
        )
    )
    # By its index, the last of which is found at once, however many were stored.
    taken = session.scalar(
        select(func.max(Delivery.stored_at)).where(Delivery.destination == destination)
    )
    since = max(at for at in (tried, taken) if at is not None)
    return max(0.0, (now - since).total_seconds())
