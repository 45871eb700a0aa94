"""What destinations have stored by their status, and what they promise to keep.

A delivery that waits for its destination's promise is SENT. It is due, to be asked for, at its
``next_attempt_at``; while a transaction is open that is the time at which its answer is overdue.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.catalog._holders import is_void
from storage.catalog._moves import CatalogError, add_event, counted, delivery_by_id, utc_now
from storage.catalog._records import CommitmentRecord, PromiseCounts, PromiseDue
from storage.catalog._results import settle_deliveries
from storage.catalog._rows import result_record
from storage.catalog._tallies import count_deliveries
from storage.states import CommitmentOutcome, DeliveryState, EventKind, Promise, StudyState
from storage.tables import Commitment, CommitmentItem, Delivery, Result, Study


def promises_due(
    session: Session, destination: str, now: datetime | None = None, limit: int = 50
) -> tuple[PromiseDue, ...]:
    """List what a destination has stored and is to be asked for now, in the order of sending.

    Those of held studies stay where they are. Transactions that are overdue are closed.
    """
    now = now or utc_now()
    overdue = session.scalars(
        select(Commitment).where(
            Commitment.destination == destination,
            Commitment.closed_at.is_(None),
            Commitment.due_at <= now,
        )
    )
    for commitment in overdue:
        _close(commitment, CommitmentOutcome.OVERDUE, now)
    session.flush()
    due = session.scalars(
        select(Delivery)
        .join(Delivery.result)
        .join(Result.study)
        .where(
            Delivery.state == DeliveryState.SENT,
            Delivery.destination == destination,
            Delivery.next_attempt_at <= now,
            Study.state != StudyState.HELD,
        )
        .order_by(Study.urgency.desc(), Delivery.queued_at, Delivery.id)
        .limit(limit)
    )
    return tuple(_promise_due(delivery) for delivery in due)


def awaiting_others(
    session: Session, asked: Collection[str], *, among: Collection[str] | None = None
) -> tuple[int, ...]:
    """The deliveries that wait for a promise of a destination that is not asked any more.

    ``among``: only these destinations; others are another node's to ask.
    """
    waiting = select(Delivery.id).where(
        Delivery.state == DeliveryState.SENT, Delivery.destination.not_in(asked)
    )
    if among is not None:
        waiting = waiting.where(Delivery.destination.in_(among))
    return tuple(session.scalars(waiting.order_by(Delivery.id)))


def awaiting_promise(session: Session, delivery_ids: Collection[int]) -> frozenset[int]:
    """Which of some deliveries still wait: a report or an operator may have moved the others."""
    return frozenset(
        session.scalars(
            select(Delivery.id).where(
                Delivery.id.in_(delivery_ids), Delivery.state == DeliveryState.SENT
            )
        )
    )


def open_commitment(
    session: Session,
    destination: str,
    transaction_uid: str,
    delivery_ids: Sequence[int],
    now: datetime | None = None,
    *,
    due_at: datetime,
    holder: str = "",
) -> None:
    """Note a transaction that is about to be asked for; see :func:`awaiting_promise`."""
    now = now or utc_now()
    commitment = Commitment(
        transaction_uid=transaction_uid,
        destination=destination,
        holder=holder or None,
        asked_at=now,
        due_at=due_at,
        answer="",
    )
    session.add(commitment)
    for delivery_id in delivery_ids:
        delivery = _stored(session, delivery_id)
        delivery.asks += 1
        delivery.next_attempt_at = due_at
        session.add(CommitmentItem(commitment=commitment, delivery=delivery))
    session.flush()


def commitment_taken(session: Session, transaction_uid: str, now: datetime | None = None) -> None:
    """Note that the destination took the request. Its answer may have come before that."""
    now = now or utc_now()
    commitment = _by_uid(session, transaction_uid)
    if commitment is None or commitment.accepted_at is not None:
        return
    commitment.accepted_at = now
    if commitment.closed_at is None:
        for study_id, count in _studies(commitment).items():
            add_event(
                session,
                study_id,
                EventKind.PROMISE_ASKED,
                f"{commitment.destination} was asked to promise that it keeps "
                f"{counted(count, 'result', 'results')}",
                at=now,
                details={
                    "destination": commitment.destination,
                    "transaction_uid": transaction_uid,
                },
            )
    session.flush()


def commitment_not_taken(
    session: Session,
    transaction_uid: str,
    answer: str,
    now: datetime | None = None,
    *,
    next_ask_at: datetime,
) -> None:
    """Note that the destination did not take the request, and when it is to be asked again."""
    now = now or utc_now()
    commitment = _by_uid(session, transaction_uid)
    if commitment is None or commitment.closed_at is not None:
        return
    _close(commitment, CommitmentOutcome.NOT_TAKEN, now)
    commitment.answer = answer
    for item in commitment.items:
        if item.delivery.state is DeliveryState.SENT:
            item.delivery.next_attempt_at = next_ask_at
    session.flush()


def find_commitment(session: Session, transaction_uid: str) -> CommitmentRecord | None:
    """Return a transaction, open or closed; None where there never was one of this UID."""
    commitment = _by_uid(session, transaction_uid)
    if commitment is None:
        return None
    return CommitmentRecord(
        transaction_uid=commitment.transaction_uid,
        destination=commitment.destination,
        asked_at=commitment.asked_at,
        due_at=commitment.due_at,
        accepted_at=commitment.accepted_at,
        closed_at=commitment.closed_at,
        outcome=commitment.outcome,
        sop_instance_uids=tuple(item.delivery.result.sop_instance_uid for item in commitment.items),
    )


def note_commitment_answer(
    session: Session,
    transaction_uid: str,
    kept: Collection[str],
    refused: Mapping[str, int],
    now: datetime | None = None,
) -> tuple[tuple[PromiseDue, int | None], ...]:
    """Note what a destination says of the objects of a transaction, by SOP instance UID.

    Each object is answered once: what comes a second time changes nothing. Returns the deliveries
    that the answer moves, each with the failure reason or None for a promise. A promise moves what
    waits for one, whenever it comes; a refusal only where no later request or sending followed. A
    refusal of what is delivered by now is told in the timeline and moves nothing.
    """
    now = now or utc_now()
    commitment = _by_uid(session, transaction_uid)
    if commitment is None:
        raise CatalogError(f"no transaction {transaction_uid}")
    moved: list[tuple[PromiseDue, int | None]] = []
    for item in commitment.items:
        uid = item.delivery.result.sop_instance_uid
        if item.answered_at is not None or (uid not in kept and uid not in refused):
            continue
        item.answered_at = now
        item.failure_reason = refused.get(uid)
        waits = item.delivery.state is DeliveryState.SENT
        last = (
            item is item.delivery.commitments[-1] and _since(item.delivery) <= commitment.asked_at
        )
        if waits and (item.failure_reason is None or last):
            moved.append((_promise_due(item.delivery), item.failure_reason))
        elif item.failure_reason is not None and item.delivery.state is DeliveryState.DELIVERED:
            _say_contradiction(session, item, now)
    answered = all(item.answered_at is not None for item in commitment.items)
    if answered and commitment.closed_at is None:
        _close(commitment, CommitmentOutcome.ANSWERED, now)
    session.flush()
    return tuple(moved)


def record_promised(
    session: Session,
    delivery_id: int,
    promise: Promise,
    answer: str,
    now: datetime | None = None,
) -> None:
    """Note how it is known that a destination has what it stored; the study may be done by it."""
    now = now or utc_now()
    delivery = _stored(session, delivery_id)
    delivery.state = DeliveryState.DELIVERED
    delivery.delivered_at = now
    delivery.promise = promise
    delivery.last_answer = answer
    _tell(session, delivery, EventKind.DELIVERED, "has", answer, now)
    settle_deliveries(session, delivery.result.study, now)


def record_not_kept(
    session: Session,
    delivery_id: int,
    answer: str,
    now: datetime | None = None,
    *,
    next_attempt_at: datetime,
) -> None:
    """Note that a destination does not have what it stored, and when it is sent again."""
    now = now or utc_now()
    delivery = _stored(session, delivery_id)
    delivery.state = DeliveryState.WAITING
    delivery.next_attempt_at = next_attempt_at
    delivery.last_answer = answer
    _tell(session, delivery, EventKind.NO_PROMISE, "stored, but does not keep,", answer, now)


def record_promise_failed(
    session: Session, delivery_id: int, answer: str, now: datetime | None = None
) -> None:
    """Note that a delivery is given up: stored by status, and never promised."""
    now = now or utc_now()
    delivery = _stored(session, delivery_id)
    delivery.state = DeliveryState.FAILED
    delivery.last_answer = answer
    _tell(session, delivery, EventKind.DELIVERY_FAILED, "never showed that it keeps", answer, now)
    settle_deliveries(session, delivery.result.study, now)


def ask_again(
    session: Session, delivery_ids: Sequence[int], answer: str, *, next_ask_at: datetime
) -> None:
    """Note that a destination gave no answer, and when it is to be asked again."""
    for delivery_id in delivery_ids:
        delivery = delivery_by_id(session, delivery_id)
        if delivery.state is DeliveryState.SENT:
            delivery.asks += 1
            delivery.next_attempt_at = next_ask_at
            delivery.last_answer = answer
    session.flush()


def close_interrupted_commitments(session: Session, now: datetime) -> int:
    """Ask anew for what a node was asking that lives no more; returns how many requests.

    Whether the destination took such a request is not known. One that it took stays open: its
    answer may still come.
    """
    interrupted = session.scalars(
        select(Commitment).where(
            Commitment.outcome.is_(None),  # not closed, by its index
            Commitment.accepted_at.is_(None),
            is_void(Commitment.holder),
        )
    ).all()
    for commitment in interrupted:
        _close(commitment, CommitmentOutcome.INTERRUPTED, now)
        for item in commitment.items:
            if item.delivery.state is DeliveryState.SENT and item.answered_at is None:
                item.delivery.next_attempt_at = now
    session.flush()
    return len(interrupted)


def promise_counts(session: Session) -> Mapping[str, PromiseCounts]:
    """What each destination has promised, shown and refused so far, and what is waited for."""
    deliveries = count_deliveries(session)
    names = {name for name, _, _ in deliveries}
    refused = _count(
        session,
        select(Commitment.destination, func.count())
        .join(Commitment.items)
        .where(CommitmentItem.failure_reason.is_not(None))
        .group_by(Commitment.destination),
    )
    overdue = _count(
        session,
        select(Commitment.destination, func.count())
        .where(Commitment.outcome == CommitmentOutcome.OVERDUE)
        .group_by(Commitment.destination),
    )
    taken = {name: _last_taken_at(session, name) for name in names}
    delivered = {
        (name, promise): number
        for (name, state, promise), number in deliveries.items()
        if state == DeliveryState.DELIVERED
    }

    def in_state(name: str, wanted: DeliveryState) -> int:
        return sum(
            number for (to, state, _), number in deliveries.items() if (to, state) == (name, wanted)
        )

    return {
        name: PromiseCounts(
            committed=delivered.get((name, Promise.COMMITTED), 0),
            found=delivered.get((name, Promise.FOUND), 0),
            by_status=delivered.get((name, Promise.STATUS), 0),
            waiting=in_state(name, DeliveryState.SENT),
            refused=refused.get(name, 0),
            overdue=overdue.get(name, 0),
            failed=in_state(name, DeliveryState.FAILED),
            last_taken_at=taken[name],
        )
        for name in sorted(names)
    }


def _last_taken_at(session: Session, destination: str) -> datetime | None:
    # One by one, each by its index: asked for at once, SQLite goes through every transaction.
    return session.scalar(
        select(func.max(Commitment.accepted_at)).where(Commitment.destination == destination)
    )


def _count(session: Session, query: object) -> dict[str, int]:
    return {row[0]: row[1] for row in session.execute(query)}  # type: ignore[call-overload]


def _by_uid(session: Session, transaction_uid: str) -> Commitment | None:
    return session.scalar(select(Commitment).where(Commitment.transaction_uid == transaction_uid))


def _close(commitment: Commitment, outcome: CommitmentOutcome, now: datetime) -> None:
    commitment.closed_at = now
    commitment.outcome = outcome


def _studies(commitment: Commitment) -> dict[int, int]:
    counts: dict[int, int] = {}
    for item in commitment.items:
        study_id = item.delivery.result.study_id
        counts[study_id] = counts.get(study_id, 0) + 1
    return counts


def _promise_due(delivery: Delivery) -> PromiseDue:
    stored_at = _since(delivery)
    asked = [item for item in delivery.commitments if item.commitment.asked_at >= stored_at]
    return PromiseDue(
        delivery_id=delivery.id,
        destination=delivery.destination,
        attempts=delivery.attempts,
        asks=delivery.asks,
        queued_at=delivery.queued_at,
        stored_at=stored_at,
        study_instance_uid=delivery.result.study.study_instance_uid,
        result=result_record(delivery.result),
        overdue=any(item.commitment.outcome is CommitmentOutcome.OVERDUE for item in asked),
        refusals=tuple(item.failure_reason for item in asked if item.failure_reason is not None),
    )


def _since(delivery: Delivery) -> datetime:
    return delivery.stored_at or delivery.queued_at


def _stored(session: Session, delivery_id: int) -> Delivery:
    delivery = delivery_by_id(session, delivery_id)
    if delivery.state is not DeliveryState.SENT:
        raise CatalogError(f"delivery {delivery_id} is {delivery.state}, not waiting for a promise")
    return delivery


def _tell(
    session: Session, delivery: Delivery, kind: EventKind, word: str, answer: str, now: datetime
) -> None:
    result = delivery.result
    add_event(
        session,
        result.study_id,
        kind,
        f"{delivery.destination} {word} the {result.kind.upper()}: {answer}",
        at=now,
        details={
            "destination": delivery.destination,
            "sop_instance_uid": result.sop_instance_uid,
        },
    )
    session.flush()


def _say_contradiction(session: Session, item: CommitmentItem, now: datetime) -> None:
    delivery = item.delivery
    add_event(
        session,
        delivery.result.study_id,
        EventKind.NO_PROMISE,
        f"{delivery.destination} says late that it does not keep the "
        f"{delivery.result.kind.upper()} (reason 0x{item.failure_reason:04X}), which counts as "
        f"delivered; `echonode resend` sends it again",
        at=now,
        details={
            "destination": delivery.destination,
            "sop_instance_uid": delivery.result.sop_instance_uid,
        },
    )
