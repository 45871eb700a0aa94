"""The outbox: results wait here until a destination has taken them.

Rows say what is due, files hold the exact bytes. Every answer is noted at once in a transaction of
its own, so a crash repeats at most the object that was on the wire, under the same UID.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from pydicom.uid import UID

from node.delivery.sending import Answer, Outgoing, Sender
from node.results import ObjectRef, ResultError
from node.results.alternatives import form_for
from node.results.store import FaultyResultError, keep_result, new_result
from node.sections import DeliverySettings
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import FileStore
from storage.states import ResultKind

log = structlog.get_logger(__name__)

_BATCH = 50  # objects on one association; the rest goes with the next
_DATABASE_PAUSE_S = 1.0
_JITTER = 0.2  # archives that come back are not met by everything at once


class Outbox:
    """Delivers what is due.

    Parameters
    ----------
    senders
        The way to each destination, by its name in settings.
    settings
        Pauses between attempts and the age at which to give up.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        senders: Mapping[str, Sender],
        settings: DeliverySettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._senders = senders
        self._settings = settings
        self._clock = clock
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Wait no longer for a database that does not answer; the next start sends again."""
        self._stopping.set()

    @property
    def destinations(self) -> tuple[str, ...]:
        """The names of the destinations."""
        return tuple(self._senders)

    def deliver_due(self, destination: str) -> int:
        """Send what is due to one destination; returns how many objects it took.

        What the destination is known not to take in its class goes in another form, and a class
        that it refuses now is remembered: see :mod:`node.results.alternatives`.
        """
        now = self._clock()
        with self._database.write() as session:
            due = catalog.claim_due_deliveries(session, now, destination=destination, limit=_BATCH)
            since = now - timedelta(seconds=self._settings.ask_again_after_s)
            known = catalog.refused_classes(session, destination, since=since) if due else ()
        if not due:
            return 0
        refused = {item.sop_class_uid for item in known}
        open_ids = {delivery.delivery_id for delivery in due}
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        taken = 0
        try:
            going = []
            for delivery in due:
                if self._replaced(delivery, refused):
                    open_ids.discard(delivery.delivery_id)
                else:
                    going.append(delivery)
            for delivery, answer in self._sent(destination, going):
                new = answer.class_refused and delivery.result.sop_class_uid not in refused
                if new:
                    refused.add(delivery.result.sop_class_uid)
                    self._remember(delivery, answer)
                if new and self._replaced(delivery, refused):
                    # What comes after it in the batch may point at it: it is looked at anew.
                    open_ids.discard(delivery.delivery_id)
                    with self._database.write() as session:
                        catalog.put_back_deliveries(session, sorted(open_ids), self._clock())
                    open_ids.clear()
                    break
                self._note(delivery, answer, spread)
                open_ids.discard(delivery.delivery_id)
                if answer.accepted and delivery.result.sop_class_uid in refused:
                    self._forget(delivery)
                taken += answer.accepted
        finally:
            # A sender that broke down leaves no delivery behind in "sending".
            for delivery in due:
                if delivery.delivery_id in open_ids:
                    silence = Answer(
                        delivery_id=delivery.delivery_id,
                        accepted=False,
                        status=None,
                        text=f"sending to {destination} broke off; see the node's log",
                    )
                    self._note(delivery, silence, spread)
        return taken

    def _sent(
        self, destination: str, deliveries: Sequence[catalog.DueDelivery]
    ) -> Iterator[tuple[catalog.DueDelivery, Answer]]:
        if not deliveries:
            return
        by_id = {delivery.delivery_id: delivery for delivery in deliveries}
        outgoing = [
            Outgoing(
                delivery_id=delivery.delivery_id,
                path=self._files.path(delivery.result.file_key),
                sop_class_uid=delivery.result.sop_class_uid,
                sop_instance_uid=delivery.result.sop_instance_uid,
                transfer_syntax_uid=delivery.result.transfer_syntax_uid,
            )
            for delivery in deliveries
        ]
        for answer in self._senders[destination].send(outgoing):
            yield by_id[answer.delivery_id], answer

    def _remember(self, delivery: catalog.DueDelivery, answer: Answer) -> None:
        with self._database.write() as session:
            catalog.note_refused_class(
                session,
                delivery.destination,
                delivery.result.sop_class_uid,
                answer.text,
                self._clock(),
            )
        log.warning(
            "class-refused",
            destination=delivery.destination,
            sop_class=UID(delivery.result.sop_class_uid).name,
            answer=answer.text,
        )

    def _forget(self, delivery: catalog.DueDelivery) -> None:
        """It takes the class after all, as it has just shown."""
        with self._database.write() as session:
            catalog.forget_refused_classes(
                session, delivery.destination, delivery.result.sop_class_uid
            )

    def _replaced(self, delivery: catalog.DueDelivery, refused: Collection[str]) -> bool:
        """Queue another form of a result where its destination needs one; tells whether it does."""
        result = delivery.result
        class_refused = result.sop_class_uid in refused
        if not class_refused and result.kind is ResultKind.SC:
            return False
        with self._database.read() as session:
            instead = catalog.sent_instead(session, result.study_id, delivery.destination)
            original = catalog.original_of(session, result.id)
        if not class_refused and not instead:
            return False
        try:
            forms = form_for(
                self._files.path(original.file_key).read_bytes(),
                refused,
                {
                    uid: [_reference(item, delivery.study_instance_uid) for item in items]
                    for uid, items in instead.items()
                },
            )
            if forms is None:
                return False
            wanted = [
                keep_result(
                    self._files, form, kind=original.kind, recording_id=original.recording_id
                )
                for form in forms
            ] or [new_result(original)]
        except (ResultError, OSError) as error:
            # It goes as it is, and the archive's refusal tells the operator.
            log.error(  # noqa: TRY400 - the message says all
                "no-other-form", destination=delivery.destination, reason=str(error)
            )
            if isinstance(error, FaultyResultError):
                with self._database.write() as session:
                    catalog.quarantine_result(session, error.quarantined)
            return False
        if result.sop_instance_uid in {item.sop_instance_uid for item in wanted}:
            return False
        reason = (
            f"it does not take {UID(result.sop_class_uid).name}"
            if class_refused
            else "what it points at went there in another form"
        )
        with self._database.write() as session:
            catalog.send_instead(session, delivery.delivery_id, wanted, reason, self._clock())
        return True

    def _note(self, delivery: catalog.DueDelivery, answer: Answer, spread: float) -> None:
        """Write an answer down, as soon as the database takes it."""
        while True:
            try:
                self._write_down(delivery, answer, spread)
            except DatabaseError as error:
                log.error(  # noqa: TRY400 - the message of the store says all
                    "answer-waits", destination=delivery.destination, reason=str(error)
                )
                if self._stopping.wait(_DATABASE_PAUSE_S):
                    return
            else:
                return

    def _write_down(self, delivery: catalog.DueDelivery, answer: Answer, spread: float) -> None:
        now = self._clock()
        with self._database.write() as session:
            if answer.accepted:
                catalog.record_delivered(
                    session, delivery.delivery_id, answer.text, answer.status, now
                )
            elif now - delivery.queued_at >= timedelta(seconds=self._settings.give_up_after_s):
                catalog.record_delivery_failed(
                    session, delivery.delivery_id, answer.text, answer.status, now
                )
            else:
                catalog.record_delivery_retry(
                    session,
                    delivery.delivery_id,
                    answer.text,
                    answer.status,
                    now,
                    next_attempt_at=now + spread * self._pause(delivery.attempts),
                )
        log.log(
            20 if answer.accepted else 30,
            "result-delivered" if answer.accepted else "result-not-delivered",
            destination=delivery.destination,
            kind=delivery.result.kind.value,
            answer=answer.text,
            attempt=delivery.attempts,
        )

    def _pause(self, attempts: int) -> timedelta:
        """Doubling pauses up to the longest.

        ``spread`` puts each batch a little off them: nodes must not march in step, but pictures
        must not fall behind the report that points at them.
        """
        growing = self._settings.first_pause_s * 2.0 ** min(attempts - 1, 30)
        return timedelta(seconds=min(growing, self._settings.longest_pause_s))


def _reference(result: catalog.ResultRecord, study_instance_uid: str) -> ObjectRef:
    return ObjectRef(
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        study_instance_uid=study_instance_uid,
    )
