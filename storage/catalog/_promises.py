"""What echo machines asked us to promise, and what has been reported to them.

A request is open until its report has been taken by the machine, or was given up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.orm import Session, selectinload

from storage.catalog._holders import check_lives, is_void
from storage.catalog._moves import CatalogError, add_event, counted, utc_now
from storage.catalog._records import PromiseItem, PromiseRequestRecord
from storage.states import EventKind
from storage.tables import Instance, PromiseRequest, PromiseRequestItem

_REMEMBERED = timedelta(days=14)


def add_promise_request(
    session: Session,
    *,
    transaction_uid: str,
    calling_ae: str,
    peer_host: str,
    items: Iterable[PromiseItem],
    first_attempt_at: datetime,
    now: datetime | None = None,
) -> PromiseRequestRecord:
    """Keep a request; one that is asked again is answered again, for what it names now.

    Requests that ended long ago are forgotten on the way.
    """
    now = now or utc_now()
    session.execute(
        delete(PromiseRequest).where(
            or_(
                PromiseRequest.reported_at < now - _REMEMBERED,
                PromiseRequest.given_up_at < now - _REMEMBERED,
            )
        )
    )
    row = session.scalar(
        select(PromiseRequest).where(
            PromiseRequest.calling_ae == calling_ae,
            PromiseRequest.transaction_uid == transaction_uid,
        )
    )
    if row is None:
        row = PromiseRequest(transaction_uid=transaction_uid, calling_ae=calling_ae)
        session.add(row)
    row.peer_host = peer_host
    row.asked_at = now
    row.attempts = 0
    row.next_attempt_at = first_attempt_at
    row.last_answer = ""
    row.holder = None
    row.reported_at = row.given_up_at = None
    row.items = [
        PromiseRequestItem(sop_class_uid=item.sop_class_uid, sop_instance_uid=item.sop_instance_uid)
        for item in items
    ]
    session.flush()
    return _record(row)


def promise_requests_due(
    session: Session, now: datetime | None = None, limit: int = 20, *, holder: str = ""
) -> tuple[PromiseRequestRecord, ...]:
    """List the open requests that are to be reported on now, the oldest first.

    Those that another holder has are left out: see :func:`claim_promise_request`.
    """
    rows = session.scalars(
        select(PromiseRequest)
        .where(
            PromiseRequest.reported_at.is_(None),
            PromiseRequest.given_up_at.is_(None),
            PromiseRequest.next_attempt_at <= (now or utc_now()),
            func.coalesce(PromiseRequest.holder, holder) == holder,
        )
        .order_by(PromiseRequest.asked_at, PromiseRequest.id)
        .limit(limit)
        .options(selectinload(PromiseRequest.items))
    )
    return tuple(_record(row) for row in rows)


def claim_promise_request(
    session: Session, request_id: int, *, holder: str = ""
) -> PromiseRequestRecord | None:
    """Take an open request to report on it; None where it is none any more, or another has it.

    It is free again with what came of the report, or with :func:`hasten_promise_report`.

    Raises
    ------
    ClaimLostError
        If ``holder`` is void.
    """
    check_lives(session, holder)
    row = session.scalar(
        select(PromiseRequest)
        .where(
            PromiseRequest.id == request_id,
            PromiseRequest.reported_at.is_(None),
            PromiseRequest.given_up_at.is_(None),
            func.coalesce(PromiseRequest.holder, holder) == holder,
        )
        .with_for_update(skip_locked=True)
    )
    if row is None:
        return None
    row.holder = holder or None
    session.flush()
    return _record(row)


def promise_request(session: Session, request_id: int) -> PromiseRequestRecord | None:
    """Return a request, or None where it is not here any more."""
    row = session.get(PromiseRequest, request_id)
    return None if row is None else _record(row)


def free_promise_requests(session: Session, now: datetime) -> int:
    """Let go on what was being reported on by a node that lives no more; returns how many."""
    freed = session.execute(
        update(PromiseRequest)
        .where(PromiseRequest.holder.is_not(None), is_void(PromiseRequest.holder))
        .values(holder=None, next_attempt_at=now)
        .execution_options(synchronize_session=False)
    )
    return freed.rowcount if isinstance(freed, CursorResult) else 0


def open_promise_requests(session: Session, calling_ae: str) -> int:
    """How many requests of a machine wait for their report."""
    waiting = select(func.count()).where(
        PromiseRequest.calling_ae == calling_ae,
        PromiseRequest.reported_at.is_(None),
        PromiseRequest.given_up_at.is_(None),
    )
    return session.scalar(waiting) or 0


def list_promise_requests(session: Session, limit: int = 100) -> tuple[PromiseRequestRecord, ...]:
    """List requests, the newest first."""
    rows = session.scalars(
        select(PromiseRequest)
        .order_by(PromiseRequest.id.desc())
        .limit(limit)
        .options(selectinload(PromiseRequest.items))
    )
    return tuple(_record(row) for row in rows)


def promise_reported(
    session: Session,
    request_id: int,
    kept: Collection[str],
    *,
    answer: str,
    now: datetime | None = None,
) -> None:
    """Say that a machine has taken the report; ``kept`` are the UIDs that we promised to keep."""
    now = now or utc_now()
    row = _by_id(session, request_id)
    row.holder = None
    row.reported_at = now
    row.attempts += 1
    row.last_answer = answer
    studies: dict[int, int] = {}
    for uid in kept:
        study_id = session.scalar(select(Instance.study_id).where(Instance.sop_instance_uid == uid))
        if study_id is not None:
            studies[study_id] = studies.get(study_id, 0) + 1
    for study_id, count in studies.items():
        add_event(
            session,
            study_id,
            EventKind.PROMISE_GIVEN,
            f"promised {row.calling_ae} to keep {counted(count, 'object', 'objects')}",
            at=now,
            details={"transaction_uid": row.transaction_uid, "objects": count},
        )


def promise_report_retry(
    session: Session, request_id: int, *, answer: str, next_attempt_at: datetime
) -> None:
    """Say that a report was not taken, and when it is sent again."""
    row = _by_id(session, request_id)
    row.holder = None
    row.attempts += 1
    row.last_answer = answer
    row.next_attempt_at = next_attempt_at


def promise_report_given_up(
    session: Session, request_id: int, *, answer: str, now: datetime | None = None
) -> None:
    """Say that a report is not sent any more: the machine keeps its copies, or asks again."""
    row = _by_id(session, request_id)
    row.holder = None
    row.attempts += 1
    row.last_answer = answer
    row.given_up_at = now or utc_now()


def hasten_promise_report(session: Session, request_id: int, now: datetime | None = None) -> None:
    """Let an open request be reported on at once."""
    row = session.get(PromiseRequest, request_id)
    if row is not None:
        row.holder = None
        row.next_attempt_at = min(row.next_attempt_at, now or utc_now())


def _by_id(session: Session, request_id: int) -> PromiseRequest:
    row = session.get(PromiseRequest, request_id)
    if row is None:
        raise CatalogError(f"no promise request with row {request_id}")
    return row


def _record(row: PromiseRequest) -> PromiseRequestRecord:
    return PromiseRequestRecord(
        id=row.id,
        transaction_uid=row.transaction_uid,
        calling_ae=row.calling_ae,
        peer_host=row.peer_host,
        asked_at=row.asked_at,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_answer=row.last_answer,
        reported_at=row.reported_at,
        given_up_at=row.given_up_at,
        items=tuple(
            PromiseItem(sop_class_uid=item.sop_class_uid, sop_instance_uid=item.sop_instance_uid)
            for item in row.items
        ),
        holder=row.holder or "",
    )
