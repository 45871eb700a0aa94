"""What archives promise: sent is not delivered.

An archive that has stored a result by its status is asked whether it keeps it: by storage
commitment (PS3.4 Annex J), and by a query where it does not offer that or stays silent. Each
request is written down before it is sent, each answer in a transaction of its own, so that an
answer may come at any time, twice, from another association, or after a restart.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
)
from sqlalchemy.orm import Session

from node.delivery.asking import Archive, Asked, Kept, Reply, Seen
from node.delivery.pauses import growing_pause, spread
from node.sections import DeliverySettings
from node.watch.transfers import Peer
from storage import catalog
from storage.database import Database, DatabaseError
from storage.states import Promise

log = structlog.get_logger(__name__)

_BATCH = 50  # objects in one transaction or query; the rest goes with the next
_ASKED_OFTEN = 4  # silent to so many requests: not just now, but for good
_SUCCESSFUL, _WITH_FAILURES = 1, 2  # PS3.4 Table J.3-3, event type IDs

# Of N-EVENT-REPORT, PS3.7 10.1.1.1.8.
_TAKEN = 0x0000
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_INSTANCE = 0x0112
_NO_SUCH_EVENT_TYPE = 0x0113
_INVALID_VALUE = 0x0115

# PS3.3 C.14.1.1.
_CLASS_NOT_SUPPORTED = 0x0122
_DUPLICATE_TRANSACTION = 0x0131
FAILURE_REASONS: Mapping[int, str] = {
    0x0110: "processing failure",
    0x0112: "it has no such object",
    0x0119: "the object and its class do not fit",
    _CLASS_NOT_SUPPORTED: "it promises nothing for this class",
    _DUPLICATE_TRANSACTION: "the transaction was asked for before",
    0x0213: "it has not enough resources",
}
"""Why an archive does not promise to keep an object, in words."""

_COMMIT = str(StorageCommitmentPushModel)
_FIND = str(StudyRootQueryRetrieveInformationModelFind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """How one destination is asked."""

    archive: Archive
    required: bool = False  #: only storage commitment counts
    timeout_s: float = 600.0  #: in which it is to promise or to show what it stored
    ae_title: str = ""  #: whose reports are believed


class Promises:
    """Asks destinations for what they have stored, and hears what they report.

    Parameters
    ----------
    terms
        How each destination is asked, by name. One that is not here is not asked.
    settings
        Pauses, and the age at which to give up.
    holder
        What this node's claims bear now: see :mod:`node.membership`.
    """

    def __init__(
        self,
        database: Database,
        terms: Mapping[str, Terms],
        settings: DeliverySettings,
        *,
        holder: Callable[[], str] = lambda: "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._terms = dict(terms)
        self._settings = settings
        self._holder = holder
        self._clock = clock

    @property
    def destinations(self) -> tuple[str, ...]:
        """Those that are asked."""
        return tuple(self._terms)

    def awaited(self, destination: str) -> bool:
        """Whether what this destination stores waits for its promise."""
        return destination in self._terms

    def settle_unasked(self, among: Collection[str] | None = None) -> int:
        """Deliver by its status what waits for a destination that is not asked any more.

        Call once, at a start: the settings have changed since it was stored. Returns how many.

        Parameters
        ----------
        among
            The destinations that this node knows, where others are another node's to ask.
        """
        with self._database.write() as session:
            waiting = catalog.awaiting_others(session, self.destinations, among=among)
            for delivery_id in waiting:
                catalog.record_promised(
                    session,
                    delivery_id,
                    Promise.STATUS,
                    "by its status alone; the settings say no more to ask it for a promise",
                    self._clock(),
                )
        return len(waiting)

    def found(self, destination: str, objects: Sequence[catalog.DueDelivery]) -> frozenset[str]:
        """Which objects a destination shows although no answer to their sending came."""
        terms = self._terms.get(destination)
        if terms is None or not objects or _FIND in self._refused(destination):
            return frozenset()
        return self._look(destination, terms, [_kept(item) for item in objects]).found

    def ask_due(self, destination: str) -> int:
        """Ask one destination for what it has stored; returns how many objects it was about.

        Of several nodes one asks it at a time.
        """
        with self._database.alone(f"ask {destination}") as alone:
            return self._ask_due(destination) if alone else 0

    def _ask_due(self, destination: str) -> int:
        terms = self._terms[destination]
        now = self._clock()
        with self._database.write() as session:
            due = catalog.promises_due(session, destination, now, _BATCH)
        if not due:
            return 0
        refused = self._refused(destination)
        to_commit: list[catalog.PromiseDue] = []
        to_look: list[catalog.PromiseDue] = []
        for item in due:
            by_commitment = self._by_commitment(terms, item, refused)
            (to_commit if by_commitment else to_look).append(item)
        why = {item.delivery_id: _why_no_promise(item, refused) for item in to_look}
        if to_commit:
            left, text = self._commit(destination, terms, to_commit)
            to_look += left
            why |= {item.delivery_id: text for item in left}
        if to_look:
            self._show(destination, terms, to_look, why, refused)
        return len(due)

    def reported(self, peer: Peer, event_type: int, information: Dataset) -> int:
        """Take an archive's report on a transaction; returns the status of N-EVENT-REPORT."""
        if event_type not in (_SUCCESSFUL, _WITH_FAILURES):
            return _NO_SUCH_EVENT_TYPE
        transaction_uid = str(information.get("TransactionUID", None) or "")
        if not transaction_uid:
            log.warning("report-without-transaction", calling_ae=peer.ae_title)
            return _INVALID_VALUE
        try:
            kept, refused = _read_report(information)
        except (AttributeError, TypeError, ValueError) as error:
            log.warning("report-not-read", calling_ae=peer.ae_title, reason=type(error).__name__)
            return _INVALID_VALUE
        try:
            return self._take(peer, event_type, transaction_uid, kept, refused)
        except DatabaseError as error:
            # The archive may report again; if not, the transaction is overdue one day.
            log.error("report-not-noted", reason=str(error))  # noqa: TRY400 - says all
            return _PROCESSING_FAILURE

    def _take(
        self,
        peer: Peer,
        event_type: int,
        transaction_uid: str,
        kept: frozenset[str],
        refused: Mapping[str, int],
    ) -> int:
        now = self._clock()
        with self._database.write() as session:
            known = catalog.find_commitment(session, transaction_uid)
            terms = None if known is None else self._terms.get(known.destination)
            if known is None or terms is None or terms.ae_title != peer.ae_title.strip():
                log.warning(
                    "report-not-ours",
                    calling_ae=peer.ae_title,
                    peer=peer.host,
                    reason="unknown transaction" if known is None else "not the archive asked",
                )
                return _NO_SUCH_INSTANCE
            if event_type == _SUCCESSFUL and not kept and not refused:
                kept = frozenset(known.sop_instance_uids)  # that is what the event means
            moved = catalog.note_commitment_answer(session, transaction_uid, kept, refused, now)
            off = spread()
            for due, reason in moved:
                self._move(session, terms, due, reason, now, off)
        log.info(
            "report-taken",
            destination=known.destination,
            promised=sum(reason is None for _due, reason in moved),
            refused=sum(reason is not None for _due, reason in moved),
            late=known.closed_at is not None,
        )
        return _TAKEN

    def _move(
        self,
        session: Session,
        terms: Terms,
        due: catalog.PromiseDue,
        reason: int | None,
        now: datetime,
        off: float,
    ) -> None:
        if reason is None:
            catalog.record_promised(
                session,
                due.delivery_id,
                Promise.COMMITTED,
                "it has promised to keep it (storage commitment)",
                now,
            )
            return
        words = f"0x{reason:04X} {FAILURE_REASONS.get(reason, 'no reason that we know')}"
        if reason == _DUPLICATE_TRANSACTION:
            # Nothing is said of the object: it is asked for anew.
            pause = off * growing_pause(self._settings, due.asks)
            catalog.ask_again(session, [due.delivery_id], words, next_ask_at=now + pause)
            return
        if reason == _CLASS_NOT_SUPPORTED and not terms.required:
            catalog.ask_again(session, [due.delivery_id], words, next_ask_at=now)  # by a query
            return
        self._not_kept(
            session, due, f"{words}, as it said to the request for its promise", now, off
        )

    def _not_kept(
        self, session: Session, due: catalog.PromiseDue, why: str, now: datetime, off: float
    ) -> None:
        """It is sent again, or has failed at its age."""
        if self._too_old(due, now):
            catalog.record_promise_failed(session, due.delivery_id, why, now)
        else:
            catalog.record_not_kept(
                session,
                due.delivery_id,
                why,
                now,
                next_attempt_at=now + off * growing_pause(self._settings, due.attempts),
            )
        log.warning(
            "result-not-kept", destination=due.destination, attempt=due.attempts, reason=why
        )

    def _by_commitment(
        self, terms: Terms, item: catalog.PromiseDue, refused: Mapping[str, str]
    ) -> bool:
        if terms.required:
            return True
        return not (item.overdue or _COMMIT in refused or _CLASS_NOT_SUPPORTED in item.refusals)

    def _commit(
        self, destination: str, terms: Terms, items: Sequence[catalog.PromiseDue]
    ) -> tuple[list[catalog.PromiseDue], str]:
        """Ask in one transaction; returns what is to be looked for at once instead, and why."""
        # Not to be guessed: whoever names it is the archive, or has it from there.
        transaction_uid = f"2.25.{uuid.UUID(bytes=secrets.token_bytes(16), version=4).int}"
        now = self._clock()
        with self._database.write() as session:
            items = self._in_time(session, terms, items, now)
            if not items:
                return [], ""
            # The row is there before the request is on the wire.
            catalog.open_commitment(
                session,
                destination,
                transaction_uid,
                [item.delivery_id for item in items],
                now,
                due_at=now + timedelta(seconds=terms.timeout_s),
                holder=self._holder(),
            )

        def taken() -> None:
            with self._database.write() as session:
                catalog.commitment_taken(session, transaction_uid, self._clock())

        asked = terms.archive.ask(
            transaction_uid, [_kept(item) for item in items], taken=taken, report=self.reported
        )
        if asked.reply is Reply.TAKEN:
            return [], ""
        log.warning("promise-not-asked", destination=destination, reason=asked.text)
        if asked.reply is Reply.NOT_OFFERED:
            self._remember(destination, _COMMIT, asked.text)
        return self._not_taken(transaction_uid, terms, items, asked), asked.text

    def _in_time(
        self,
        session: Session,
        terms: Terms,
        items: Sequence[catalog.PromiseDue],
        now: datetime,
    ) -> list[catalog.PromiseDue]:
        """Those that still wait; one that only a promise can deliver has failed at its age."""
        still = catalog.awaiting_promise(session, [item.delivery_id for item in items])
        left = []
        for item in items:
            if item.delivery_id not in still:
                continue
            if terms.required and item.overdue and self._too_old(item, now):
                catalog.record_promise_failed(
                    session,
                    item.delivery_id,
                    "it was asked for its promise and never answered",
                    now,
                )
            else:
                left.append(item)
        return left

    def _not_taken(
        self,
        transaction_uid: str,
        terms: Terms,
        items: Sequence[catalog.PromiseDue],
        asked: Asked,
    ) -> list[catalog.PromiseDue]:
        now = self._clock()
        left = []
        with self._database.write() as session:
            catalog.commitment_not_taken(
                session, transaction_uid, asked.text, now, next_ask_at=now + self._pause(items)
            )
            still = catalog.awaiting_promise(session, [item.delivery_id for item in items])
            for item in items:
                if item.delivery_id not in still:
                    continue
                enough = asked.reply is Reply.NOT_OFFERED or (
                    asked.reply is Reply.NOT_NOW and _is_late(terms, item, now)
                )
                if enough and not terms.required:
                    left.append(item)
                elif self._too_old(item, now):
                    catalog.record_promise_failed(
                        session,
                        item.delivery_id,
                        f"stored, but never asked for its promise: {asked.text}",
                        now,
                    )
        return left

    def _show(
        self,
        destination: str,
        terms: Terms,
        items: Sequence[catalog.PromiseDue],
        why: Mapping[int, str],
        refused: Mapping[str, str],
    ) -> None:
        """Look for objects by a query, and note what it shows. ``why``: there is no promise."""
        if _FIND in refused:
            seen = Seen(reply=Reply.NOT_OFFERED, text=refused[_FIND])
        else:
            seen = self._look(destination, terms, [_kept(item) for item in items])
        now = self._clock()
        off = spread()
        with self._database.write() as session:
            still = catalog.awaiting_promise(session, [item.delivery_id for item in items])
            for item in items:
                if item.delivery_id in still:
                    self._seen(session, terms, item, seen, why[item.delivery_id], now, off)

    def _seen(
        self,
        session: Session,
        terms: Terms,
        item: catalog.PromiseDue,
        seen: Seen,
        why: str,
        now: datetime,
        off: float,
    ) -> None:
        late = _is_late(terms, item, now)
        silent = seen.reply is Reply.NOT_NOW and late and item.asks >= _ASKED_OFTEN
        if item.result.sop_instance_uid in seen.found:
            words = f"a query shows it (no storage commitment: {why})"
            catalog.record_promised(session, item.delivery_id, Promise.FOUND, words, now)
        elif seen.reply is Reply.NOT_OFFERED or silent:
            words = (
                "by its status alone: it could not be asked for a promise "
                f"(storage commitment: {why}; query: {seen.text})"
            )
            catalog.record_promised(session, item.delivery_id, Promise.STATUS, words, now)
        elif seen.reply is Reply.TAKEN and late:
            self._not_kept(session, item, "a query does not show it", now, off)
        elif seen.reply is not Reply.TAKEN and self._too_old(item, now):
            words = f"stored, but it cannot be asked for it: {seen.text}"
            catalog.record_promise_failed(session, item.delivery_id, words, now)
        else:
            catalog.ask_again(
                session,
                [item.delivery_id],
                seen.text or "stored, but a query does not show it yet",
                next_ask_at=now + off * growing_pause(self._settings, item.asks + 1),
            )

    def _look(self, destination: str, terms: Terms, objects: Sequence[Kept]) -> Seen:
        seen = terms.archive.look(objects)
        if seen.reply is Reply.NOT_OFFERED:
            self._remember(destination, _FIND, seen.text)
        if seen.reply is not Reply.TAKEN:
            log.warning("not-queried", destination=destination, reason=seen.text)
        return seen

    def _refused(self, destination: str) -> dict[str, str]:
        """The services that a destination is known not to offer, and what it said."""
        since = self._clock() - timedelta(seconds=self._settings.ask_again_after_s)
        with self._database.read() as session:
            known = catalog.refused_classes(session, destination, since=since)
        return {item.sop_class_uid: item.answer for item in known}

    def _remember(self, destination: str, service: str, answer: str) -> None:
        with self._database.write() as session:
            catalog.note_refused_class(session, destination, service, answer, self._clock())
        log.info(
            "service-not-offered",
            destination=destination,
            service=UID(service).name,
            answer=answer,
        )

    def _too_old(self, item: catalog.PromiseDue, now: datetime) -> bool:
        return now - item.queued_at >= timedelta(seconds=self._settings.give_up_after_s)

    def _pause(self, items: Sequence[catalog.PromiseDue]) -> timedelta:
        return spread() * growing_pause(self._settings, max(item.asks for item in items) + 1)


def _is_late(terms: Terms, item: catalog.PromiseDue, now: datetime) -> bool:
    """Whether it had the time to promise or to show what it stored."""
    return item.overdue or now - item.stored_at >= timedelta(seconds=terms.timeout_s)


def _why_no_promise(item: catalog.PromiseDue, refused: Mapping[str, str]) -> str:
    if _COMMIT in refused:
        return refused[_COMMIT]
    if _CLASS_NOT_SUPPORTED in item.refusals:
        return FAILURE_REASONS[_CLASS_NOT_SUPPORTED]
    return "it did not answer the request in time"


def _kept(item: catalog.PromiseDue | catalog.DueDelivery) -> Kept:
    return Kept(
        study_instance_uid=item.study_instance_uid,
        series_instance_uid=item.result.series_instance_uid,
        sop_instance_uid=item.result.sop_instance_uid,
        sop_class_uid=item.result.sop_class_uid,
    )


def _read_report(information: Dataset) -> tuple[frozenset[str], dict[str, int]]:
    """What a report names as kept and, with the reasons, as not kept (PS3.4 Table J.3-4)."""
    refused = {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason", _PROCESSING_FAILURE))
        for item in information.get("FailedSOPSequence", None) or ()
    }
    kept = frozenset(
        str(item.ReferencedSOPInstanceUID)
        for item in information.get("ReferencedSOPSequence", None) or ()
    )
    return kept - refused.keys(), refused
