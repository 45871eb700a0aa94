"""The outbox: results wait here until a destination has taken them.

Rows say what is due, files hold the exact bytes. Every answer is noted at once in a transaction of
its own, so a crash repeats at most the object that was on the wire, under the same UID. Stored is
not yet delivered: see :mod:`node.delivery.commitment`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import structlog
from pydicom.uid import UID
from sqlalchemy.orm import Session

from node.delivery.commitment import Promises
from node.delivery.pauses import growing_pause, spread
from node.delivery.sending import Answer, Outgoing, Sender
from node.kept import bytes_of
from node.results import ObjectRef, ResultError
from node.results.alternatives import form_for
from node.results.store import FaultyResultError, keep_result, new_result
from node.sections import DeliverySettings
from node.watch.transfers import Direction, Peer, Transfer
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import FileStore, FileStoreError
from storage.states import FileState, ResultKind, Silence

log = structlog.get_logger(__name__)

_BATCH = 50  # objects on one association; the rest goes with the next
_DATABASE_PAUSE_S = 1.0
_CHUNK_BYTES = 1 << 20


class Outbox:
    """Delivers what is due.

    Parameters
    ----------
    senders
        The way to each destination, by its name in settings.
    settings
        Pauses between attempts and the age at which to give up.
    promises
        Asks destinations whether they keep what they stored. Without it, or for a destination that
        it does not ask, a result is delivered by the status of its sending.
    peers
        Who is told to ``transferred``, by the name of the destination.
    transferred
        Told what went out in a batch, study by study.
    answered, stage_took
        Told of every answer in a word, and how long a result was on its way.
    holder
        What this node's claims bear now: see :mod:`node.membership`.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        senders: Mapping[str, Sender],
        settings: DeliverySettings,
        *,
        promises: Promises | None = None,
        peers: Mapping[str, Peer] = MappingProxyType({}),
        transferred: Callable[[Transfer], None] = lambda _transfer: None,
        answered: Callable[[str, str], None] = lambda _destination, _answer: None,
        stage_took: Callable[[str, float], None] = lambda _stage, _seconds: None,
        holder: Callable[[], str] = lambda: "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._senders = senders
        self._settings = settings
        self._promises = promises
        self._peers = peers
        self._transferred = transferred
        self._answered = answered
        self._stage_took = stage_took
        self._holder = holder
        self._clock = clock
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Begin no further object, and wait no longer for a database that does not answer."""
        self._stopping.set()

    @property
    def destinations(self) -> tuple[str, ...]:
        """The names of the destinations."""
        return tuple(self._senders)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the destinations that are asked for what they stored."""
        return () if self._promises is None else self._promises.destinations

    def ask_due(self, destination: str) -> int:
        """See :meth:`node.delivery.commitment.Promises.ask_due`."""
        return 0 if self._promises is None else self._promises.ask_due(destination)

    def deliver_due(self, destination: str) -> int:
        """Send what is due to one destination; returns how many objects it took.

        What the destination is known not to take in its class goes in another form, and a class
        that it refuses now is remembered: see :mod:`node.results.alternatives`. An object that it
        may have from a sending without an answer is looked for first, and one whose bytes are not
        those that were kept is not sent.
        """
        now = self._clock()
        with self._database.read() as session:
            if not catalog.anything_due(session, destination, now):
                return 0
        with self._database.write() as session:
            due = catalog.claim_due_deliveries(
                session, now, destination=destination, limit=_BATCH, holder=self._holder()
            )
            since = now - timedelta(seconds=self._settings.ask_again_after_s)
            known = catalog.refused_classes(session, destination, since=since) if due else ()
        if not due:
            return 0
        refused = {item.sop_class_uid for item in known}
        open_ids = {delivery.delivery_id for delivery in due}
        off = spread()
        taken = 0
        on_the_wire: list[tuple[catalog.DueDelivery, Answer]] = []
        held = ExitStack()
        try:
            going: list[tuple[catalog.DueDelivery, Path]] = []
            there = self._already_there(destination, due)
            for delivery in due:
                if delivery.delivery_id in there:
                    self._note(delivery, there[delivery.delivery_id], off)
                    taken += 1
                elif not self._replaced(delivery, refused):
                    path = self._whole(delivery, off, held)
                    if path is not None:
                        going.append((delivery, path))
                        continue
                open_ids.discard(delivery.delivery_id)
            for delivery, answer in self._sent(destination, going):
                self._answered(destination, _in_a_word(answer))
                if answer.silence is not Silence.NOT_REACHED:
                    on_the_wire.append((delivery, answer))
                new = answer.class_refused and delivery.result.sop_class_uid not in refused
                if new:
                    refused.add(delivery.result.sop_class_uid)
                    self._remember(delivery, answer)
                if new and self._replaced(delivery, refused):
                    # What comes after it in the batch may point at it: it is looked at anew.
                    open_ids.discard(delivery.delivery_id)
                    self._put_back(open_ids, due[0].holder)
                    break
                self._note(delivery, answer, off)
                open_ids.discard(delivery.delivery_id)
                if answer.accepted and delivery.result.sop_class_uid in refused:
                    self._forget(delivery)
                taken += answer.accepted
                if self._stopping.is_set():
                    self._put_back(open_ids, due[0].holder)
                    break
        finally:
            held.close()
            # A sender that broke down leaves no delivery behind in "sending".
            for delivery in due:
                if delivery.delivery_id in open_ids:
                    silence = Answer(
                        delivery_id=delivery.delivery_id,
                        accepted=False,
                        status=None,
                        text=f"sending to {destination} broke off; see the node's log",
                        silence=Silence.NO_ANSWER,
                    )
                    self._note(delivery, silence, off)
            self._tell(destination, on_the_wire)
        return taken

    def _already_there(
        self, destination: str, due: Sequence[catalog.DueDelivery]
    ) -> dict[int, Answer]:
        """What the destination has although no answer to its sending came."""
        in_doubt = [item for item in due if item.silence is Silence.NO_ANSWER]
        if self._promises is None or not in_doubt:
            return {}
        found = self._promises.found(destination, in_doubt)
        return {
            item.delivery_id: Answer(
                delivery_id=item.delivery_id,
                accepted=True,
                status=None,
                text="it has the object from a sending whose answer was lost, as a query shows",
            )
            for item in in_doubt
            if item.result.sop_instance_uid in found
        }

    def _whole(self, delivery: catalog.DueDelivery, off: float, held: ExitStack) -> Path | None:
        """The file of a delivery, as long as ``held`` is open; None where it is not to be sent.

        One whose bytes are missing, or not those that were kept, is given up.
        """
        result = delivery.result
        path = None
        try:
            path = held.enter_context(self._files.local(result.file_key))
            with path.open("rb") as file:
                same = _sha256(file) == result.sha256
            trouble = None if same else "are not those that were kept"
        except FileStoreError as error:
            if not error.is_lasting:
                # A store that is away, or a disk that fails now, may come back.
                self._note(delivery, _not_tried(delivery, str(error)), off)
                return None
            removed = result.file_state is FileState.REMOVED
            trouble = "were removed by retention" if removed else "are missing"
            if error.damaged:
                trouble = "are not those that were kept"
        if trouble is None:
            return path
        text = (
            f"not sent: its bytes in {result.file_key} {trouble}; restore this file from a backup, "
            f"then `echonode retry {delivery.study_instance_uid}`"
        )
        log.error("result-bytes-lost", destination=delivery.destination, file=result.file_key)
        with self._database.write() as session:
            catalog.record_delivery_failed(
                session, delivery.delivery_id, text, None, self._clock(), holder=delivery.holder
            )
        return None

    def _put_back(self, delivery_ids: set[int], holder: str) -> None:
        """Give back what was not tried."""
        with self._database.write() as session:
            catalog.put_back_deliveries(session, sorted(delivery_ids), self._clock(), holder=holder)
        delivery_ids.clear()

    def _tell(self, destination: str, went: Sequence[tuple[catalog.DueDelivery, Answer]]) -> None:
        """Tell of each study what went out in a batch."""
        studies: dict[str, list[tuple[catalog.DueDelivery, Answer]]] = {}
        for delivery, answer in went:
            studies.setdefault(delivery.study_instance_uid, []).append((delivery, answer))
        for study, objects in studies.items():
            classes = dict.fromkeys(delivery.result.sop_class_uid for delivery, _ in objects)
            transfer = Transfer(
                direction=Direction.OUT,
                peer=self._peers.get(destination, Peer(host="")),
                door=destination,
                study_instance_uid=study,
                sop_class_uids=tuple(classes),
                count=len(objects),
                accepted=all(answer.accepted for _, answer in objects),
            )
            try:
                self._transferred(transfer)
            except Exception:
                log.exception("transfer-not-told", destination=destination)

    def _sent(
        self, destination: str, deliveries: Sequence[tuple[catalog.DueDelivery, Path]]
    ) -> Iterator[tuple[catalog.DueDelivery, Answer]]:
        if not deliveries:
            return
        by_id = {delivery.delivery_id: delivery for delivery, _ in deliveries}
        outgoing = [
            Outgoing(
                delivery_id=delivery.delivery_id,
                path=path,
                sop_class_uid=delivery.result.sop_class_uid,
                sop_instance_uid=delivery.result.sop_instance_uid,
                transfer_syntax_uid=delivery.result.transfer_syntax_uid,
            )
            for delivery, path in deliveries
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
                bytes_of(self._files, original.file_key),
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
            catalog.send_instead(
                session,
                delivery.delivery_id,
                wanted,
                reason,
                self._clock(),
                holder=delivery.holder,
            )
        return True

    def _note(self, delivery: catalog.DueDelivery, answer: Answer, off: float) -> None:
        """Write an answer down, as soon as the database takes it."""
        while True:
            try:
                self._write_down(delivery, answer, off)
            except DatabaseError as error:
                log.error(  # noqa: TRY400 - the message of the store says all
                    "answer-waits", destination=delivery.destination, reason=str(error)
                )
                if self._stopping.wait(_DATABASE_PAUSE_S):
                    return
            except catalog.ClaimLostError as error:
                # Another node thought us dead and sends it: the same bytes, under the same UID.
                log.warning("answer-dropped", destination=delivery.destination, reason=str(error))
                return
            else:
                return

    def _write_down(self, delivery: catalog.DueDelivery, answer: Answer, off: float) -> None:
        now = self._clock()
        with self._database.write() as session:
            if answer.accepted:
                self._record_accepted(session, delivery, answer, now)
            elif now - delivery.queued_at >= timedelta(seconds=self._settings.give_up_after_s):
                catalog.record_delivery_failed(
                    session,
                    delivery.delivery_id,
                    answer.text,
                    answer.status,
                    now,
                    holder=delivery.holder,
                )
            else:
                # One spread for a batch: pictures must not fall behind the report that shows them.
                pause = off * growing_pause(self._settings, delivery.attempts)
                asked = timedelta(seconds=answer.retry_after_s or 0.0)
                catalog.record_delivery_retry(
                    session,
                    delivery.delivery_id,
                    answer.text,
                    answer.status,
                    now,
                    next_attempt_at=now + max(pause, asked),
                    silence=answer.silence,
                    holder=delivery.holder,
                )
        if answer.accepted:
            self._stage_took("deliver", (now - delivery.queued_at).total_seconds())
        log.log(
            20 if answer.accepted else 30,
            "result-stored" if answer.accepted else "result-not-stored",
            destination=delivery.destination,
            kind=delivery.result.kind.value,
            answer=answer.text,
            attempt=delivery.attempts,
        )

    def _record_accepted(
        self, session: Session, delivery: catalog.DueDelivery, answer: Answer, now: datetime
    ) -> None:
        if self._promises is not None and self._promises.awaited(delivery.destination):
            catalog.record_stored(
                session,
                delivery.delivery_id,
                answer.text,
                answer.status,
                now,
                holder=delivery.holder,
            )
            return
        text = answer.text
        if self._promises is not None:
            text += "; the settings say not to ask it for a promise"
        catalog.record_delivered(
            session, delivery.delivery_id, text, answer.status, now, holder=delivery.holder
        )


def _in_a_word(answer: Answer) -> str:
    """An answer as those who count name it; see docs/metrics.md."""
    if answer.accepted:
        return "stored"
    if answer.silence is not None:
        return "not-reached" if answer.silence is Silence.NOT_REACHED else "no-answer"
    return "class-refused" if answer.class_refused else "refused"


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _not_tried(delivery: catalog.DueDelivery, text: str) -> Answer:
    return Answer(
        delivery_id=delivery.delivery_id,
        accepted=False,
        status=None,
        text=f"not sent: {text}",
        silence=delivery.silence,
    )


def _reference(result: catalog.ResultRecord, study_instance_uid: str) -> ObjectRef:
    return ObjectRef(
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        study_instance_uid=study_instance_uid,
    )
