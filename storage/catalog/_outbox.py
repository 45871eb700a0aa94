"""The outbox: taking what is due, and what the destinations answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

from storage.catalog._commitment import close_interrupted_commitments
from storage.catalog._holders import check_holds, check_lives, is_void
from storage.catalog._moves import CatalogError, add_event, counted, delivery_by_id, utc_now
from storage.catalog._records import DeliveryRecord, DueDelivery, NewResult, ResultRecord
from storage.catalog._results import (
    add_stand_in,
    new_delivery,
    requeue_delivery,
    settle_deliveries,
)
from storage.catalog._rows import delivery_record, result_record
from storage.states import DeliveryState, EventKind, Promise, Silence, StudyState
from storage.tables import Delivery, Result, Study


def claim_due_deliveries(
    session: Session,
    now: datetime | None = None,
    destination: str | None = None,
    limit: int = 10,
    *,
    holder: str = "",
) -> tuple[DueDelivery, ...]:
    """Take deliveries that are due, urgent studies first and else in the order they were queued.

    Each goes to SENDING with its attempt counted. Those of held studies stay where they are. No
    two callers ever get the same one. While another holder sends to ``destination`` there is
    nothing to take: what goes there goes in its order, the pictures before the report of them.

    What waits only because its destination was not reached goes with whatever is due for it: when
    an archive comes back it gets everything in the order of the queue. An object at which the
    association broke goes last, so that one that breaks it each time keeps no other waiting.
    """
    now = now or utc_now()
    check_lives(session, holder)
    waiting = (
        select(Delivery)
        .join(Delivery.result)
        .join(Result.study)
        .where(Delivery.state == DeliveryState.WAITING, Study.state != StudyState.HELD)
    )
    if destination is not None:
        waiting = waiting.where(Delivery.destination == destination)
    is_due = Delivery.next_attempt_at <= now
    if session.scalar(waiting.where(is_due).limit(1)) is None:
        return ()
    if destination is not None and _others_send(session, destination, holder):
        return ()
    if destination is not None:
        is_due = or_(is_due, Delivery.silence == Silence.NOT_REACHED)
    query = (
        waiting.where(is_due)
        .order_by(
            Study.urgency.desc(),
            case((Delivery.silence == Silence.NO_ANSWER, 1), else_=0),
            Delivery.queued_at,
            Delivery.id,
        )
        .limit(limit)
        .with_for_update(of=Delivery, skip_locked=True)
    )
    due = []
    for delivery in session.scalars(query):
        delivery.state = DeliveryState.SENDING
        delivery.holder = holder or None
        delivery.attempts += 1
        delivery.last_attempt_at = now
        due.append(
            DueDelivery(
                delivery_id=delivery.id,
                destination=delivery.destination,
                attempts=delivery.attempts,
                queued_at=delivery.queued_at,
                silence=delivery.silence,
                study_instance_uid=delivery.result.study.study_instance_uid,
                result=result_record(delivery.result),
                holder=holder,
            )
        )
    session.flush()
    return tuple(due)


def anything_due(session: Session, destination: str, now: datetime | None = None) -> bool:
    """Whether :func:`claim_due_deliveries` may find something."""
    due = select(Delivery.id).where(
        Delivery.state == DeliveryState.WAITING,
        Delivery.destination == destination,
        Delivery.next_attempt_at <= (now or utc_now()),
    )
    return session.scalar(due.limit(1)) is not None


def record_delivered(
    session: Session,
    delivery_id: int,
    answer: str,
    status: int | None,
    now: datetime | None = None,
    *,
    holder: str = "",
) -> None:
    """Note that the destination has the result, by its status; the study may be done by it."""
    now = now or utc_now()
    delivery = _being_sent(session, delivery_id, holder)
    delivery.state = DeliveryState.DELIVERED
    delivery.stored_at = now
    delivery.delivered_at = now
    delivery.promise = Promise.STATUS
    _answered(session, delivery, answer, status, now, kind=EventKind.DELIVERED, word="has")
    settle_deliveries(session, delivery.result.study, now)


def record_stored(
    session: Session,
    delivery_id: int,
    answer: str,
    status: int | None,
    now: datetime | None = None,
    *,
    holder: str = "",
) -> None:
    """Note that the destination has stored the result, by its status; it is asked for a promise."""
    now = now or utc_now()
    delivery = _being_sent(session, delivery_id, holder)
    delivery.state = DeliveryState.SENT
    delivery.stored_at = now
    delivery.asks = 0
    delivery.next_attempt_at = now
    _answered(session, delivery, answer, status, now, kind=EventKind.STORED, word="has stored")


def record_delivery_retry(
    session: Session,
    delivery_id: int,
    answer: str,
    status: int | None,
    now: datetime | None = None,
    *,
    next_attempt_at: datetime,
    silence: Silence | None = None,
    holder: str = "",
) -> None:
    """Note that a delivery did not succeed and when it is to be tried again.

    That an earlier sending had no answer stays known until the destination is reached again.
    """
    now = now or utc_now()
    delivery = _being_sent(session, delivery_id, holder)
    before = delivery.silence
    delivery.state = DeliveryState.WAITING
    delivery.next_attempt_at = next_attempt_at
    _answered(
        session, delivery, answer, status, now, kind=EventKind.DELIVERY_AGAIN, word="did not take"
    )
    in_doubt = silence is Silence.NOT_REACHED and before is Silence.NO_ANSWER
    delivery.silence = before if in_doubt else silence


def record_delivery_failed(
    session: Session,
    delivery_id: int,
    answer: str,
    status: int | None,
    now: datetime | None = None,
    *,
    holder: str = "",
) -> None:
    """Note that a delivery is given up; the study fails when none of its others still waits."""
    now = now or utc_now()
    delivery = _being_sent(session, delivery_id, holder)
    delivery.state = DeliveryState.FAILED
    _answered(
        session, delivery, answer, status, now, kind=EventKind.DELIVERY_FAILED, word="never took"
    )
    settle_deliveries(session, delivery.result.study, now)


def put_back_deliveries(
    session: Session,
    delivery_ids: Sequence[int],
    now: datetime | None = None,
    *,
    holder: str = "",
) -> None:
    """Give back deliveries that were taken and not tried: due at once, and no attempt counted."""
    now = now or utc_now()
    for delivery_id in delivery_ids:
        delivery = _being_sent(session, delivery_id, holder)
        delivery.state = DeliveryState.WAITING
        delivery.attempts -= 1
        delivery.next_attempt_at = now
    session.flush()


def send_instead(
    session: Session,
    delivery_id: int,
    results: Sequence[NewResult],
    reason: str,
    now: datetime | None = None,
    *,
    holder: str = "",
) -> None:
    """Send a destination other objects in place of one whose class it does not take.

    The delivery is REPLACED, and each of ``results`` has one of its own, due at once. A result
    whose SOP instance UID is there already stays as it was first kept; the very result that
    another one stood for may be among them, where the destination takes it now.

    Raises
    ------
    CatalogError
        If the delivery is not being sent, or nothing is given in its place.
    """
    now = now or utc_now()
    delivery = _being_sent(session, delivery_id, holder)
    if not results:
        raise CatalogError(f"delivery {delivery_id}: there is nothing to send in its place")
    refused = delivery.result
    original = _original(session, refused)
    delivery.state = DeliveryState.REPLACED
    rows = [add_stand_in(original, new, now) for new in results]
    for row in rows:
        there = next((d for d in row.deliveries if d.destination == delivery.destination), None)
        if there is None:
            row.deliveries.append(new_delivery(delivery.destination, now))
        elif there.state not in (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT):
            requeue_delivery(there, now)
    add_event(
        session,
        refused.study_id,
        EventKind.SENT_INSTEAD,
        f"{delivery.destination} gets the {refused.kind.upper()} in another form, as "
        f"{counted(len(rows), 'object', 'objects')}: {reason}",
        at=now,
        details={
            "destination": delivery.destination,
            "sop_instance_uid": refused.sop_instance_uid,
            "instead": [row.sop_instance_uid for row in rows],
        },
    )
    session.flush()


def sent_instead(
    session: Session, study_id: int, destination: str
) -> Mapping[str, tuple[ResultRecord, ...]]:
    """What a destination has, or is to have, in place of results of a study, by their UIDs."""
    deliveries = session.scalars(
        select(Delivery)
        .join(Delivery.result)
        .where(Result.study_id == study_id, Delivery.destination == destination)
        .order_by(Delivery.result_id)
    ).all()
    replaced = {
        delivery.result.sop_instance_uid
        for delivery in deliveries
        if delivery.state is DeliveryState.REPLACED
    }
    instead: dict[str, tuple[ResultRecord, ...]] = {}
    for delivery in deliveries:
        of = delivery.result.stands_for
        if of in replaced and delivery.state is not DeliveryState.REPLACED:
            instead[of] = (*instead.get(of, ()), result_record(delivery.result))
    return instead


def original_of(session: Session, result_id: int) -> ResultRecord:
    """Return the result that one stands for; the result itself where it stands for none."""
    result = session.get(Result, result_id)
    if result is None:
        raise CatalogError(f"no result with row {result_id}")
    return result_record(_original(session, result))


def requeue_interrupted_deliveries(
    session: Session, *, why: str = "the node stopped", now: datetime | None = None
) -> int:
    """Put back what was being sent and is held by no node that lives.

    The destination may have it already: sending the same bytes again does no harm. Returns how
    many were put back. Requests for a promise that were on the wire are made anew, too.
    """
    now = now or utc_now()
    close_interrupted_commitments(session, now)
    interrupted = session.scalars(
        select(Delivery)
        .where(Delivery.state == DeliveryState.SENDING, is_void(Delivery.holder))
        .order_by(Delivery.id)
    ).all()
    for delivery in interrupted:
        delivery.state = DeliveryState.WAITING
        delivery.holder = None
        delivery.next_attempt_at = now
        delivery.silence = Silence.NO_ANSWER
        add_event(
            session,
            delivery.result.study_id,
            EventKind.INTERRUPTED,
            f"{why} while it sent to {delivery.destination}; it sends again",
            at=now,
            details={"sop_instance_uid": delivery.result.sop_instance_uid},
        )
    session.flush()
    return len(interrupted)


def deliveries_of(session: Session, study_id: int) -> tuple[DeliveryRecord, ...]:
    """List a study's deliveries, those of earlier revisions too."""
    deliveries = session.scalars(
        select(Delivery)
        .join(Delivery.result)
        .where(Result.study_id == study_id)
        .order_by(Delivery.id)
    )
    return tuple(delivery_record(delivery) for delivery in deliveries)


def _original(session: Session, result: Result) -> Result:
    if result.stands_for is None:
        return result
    found = session.scalar(select(Result).where(Result.sop_instance_uid == result.stands_for))
    return found or result


def _others_send(session: Session, destination: str, holder: str) -> bool:
    sending = select(Delivery.id).where(
        Delivery.state == DeliveryState.SENDING,
        Delivery.destination == destination,
        func.coalesce(Delivery.holder, "") != holder,
    )
    return session.scalar(sending.limit(1)) is not None


def _being_sent(session: Session, delivery_id: int, holder: str) -> Delivery:
    """The row of a delivery whose outcome is now told, and which nobody holds from here on."""
    delivery = delivery_by_id(session, delivery_id)
    if holder or delivery.state is DeliveryState.SENDING:
        check_holds(delivery.holder, holder, f"delivery {delivery_id}")
    if delivery.state is not DeliveryState.SENDING:
        raise CatalogError(f"delivery {delivery_id} is {delivery.state}, not being sent")
    delivery.holder = None
    return delivery


def _answered(
    session: Session,
    delivery: Delivery,
    answer: str,
    status: int | None,
    now: datetime,
    *,
    kind: EventKind,
    word: str,
) -> None:
    delivery.last_answer = answer
    delivery.last_status = status
    delivery.silence = None
    result = delivery.result
    add_event(
        session,
        result.study_id,
        kind,
        f"{delivery.destination} {word} the {result.kind.upper()} "
        f"(attempt {delivery.attempts}): {answer}",
        at=now,
        details={
            "destination": delivery.destination,
            "sop_instance_uid": result.sop_instance_uid,
            "status": status,
        },
    )
    session.flush()
