"""What destinations have refused for its class, so that nobody asks them with every result."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.catalog._moves import utc_now
from storage.catalog._records import RefusedClassRecord
from storage.tables import RefusedClass


def note_refused_class(
    session: Session,
    destination: str,
    sop_class_uid: str,
    answer: str,
    now: datetime | None = None,
) -> None:
    """Remember that a destination does not take objects of this class, and when it said so."""
    now = now or utc_now()
    row = session.scalar(
        select(RefusedClass).where(
            RefusedClass.destination == destination, RefusedClass.sop_class_uid == sop_class_uid
        )
    )
    if row is None:
        row = RefusedClass(destination=destination, sop_class_uid=sop_class_uid)
        session.add(row)
    row.refused_at = now
    row.answer = answer
    session.flush()


def refused_classes(
    session: Session, destination: str | None = None, *, since: datetime | None = None
) -> tuple[RefusedClassRecord, ...]:
    """List what was refused, by one destination or by all, and not before ``since``."""
    query = select(RefusedClass).order_by(RefusedClass.destination, RefusedClass.id)
    if destination is not None:
        query = query.where(RefusedClass.destination == destination)
    if since is not None:
        query = query.where(RefusedClass.refused_at >= since)
    return tuple(
        RefusedClassRecord(
            destination=row.destination,
            sop_class_uid=row.sop_class_uid,
            refused_at=row.refused_at,
            answer=row.answer,
        )
        for row in session.scalars(query)
    )


def forget_refused_classes(
    session: Session, destination: str, sop_class_uid: str | None = None
) -> int:
    """Let the next result ask the destination anew; returns how many classes were forgotten."""
    query = select(RefusedClass).where(RefusedClass.destination == destination)
    if sop_class_uid is not None:
        query = query.where(RefusedClass.sop_class_uid == sop_class_uid)
    rows = session.scalars(query).all()
    for row in rows:
        session.delete(row)
    session.flush()
    return len(rows)
