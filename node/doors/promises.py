"""Storage commitment as SCP: an echo machine asks, we promise what we have (PS3.4 annex J).

A request is kept before it is answered. Its report goes out on the association on which it was
asked, where that stays open; otherwise on one that we open to the machine's address in
``[[machines]]``, again and again, over restarts, until the machine has taken it.

An object is promised when its row and its file are there, the file at its size. The promise is that
the node keeps it until its results are delivered: nothing takes it away before (retention).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import structlog
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from pynetdicom import build_context, build_role
from sqlalchemy.orm import Session

from node.delivery.association import Caller
from node.delivery.lines import Lines
from node.delivery.pauses import growing_pause, spread
from node.doors.contexts import COMMITMENT_CLASS, COMMITMENT_INSTANCE, COMMITMENT_SYNTAXES
from node.sections import DeliverySettings, DimseDestination, Machine
from node.tls import TlsError
from node.watch.transfers import Peer
from storage import catalog
from storage.catalog import PromiseItem, PromiseRequestRecord
from storage.database import Database, DatabaseError
from storage.files import FileStore, FileStoreError
from storage.states import FileState

log = structlog.get_logger(__name__)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
CLASS_CONFLICT = 0x0119
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213

_ASK = 1  # PS3.4 J.3.2, Action Type ID
_ALL_KEPT, _SOME_NOT = 1, 2  # PS3.4 J.3.3, Event Type ID
_MOST_OBJECTS = 20_000
_MOST_OPEN = 500  # of one machine: it asks anew and anew and cannot be reached
_FIRST_ON_ANOTHER_S = 10.0  # so long the association on which it was asked has time
_REPORT_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a machine is told of its request."""

    request_id: int
    event_type: int
    information: Dataset
    kept: tuple[str, ...]  #: SOP instance UIDs that are promised


class PromiseKeeper:
    """Takes requests for promises, judges them, and reports.

    Parameters
    ----------
    database, files
        Where the objects are.
    machines
        Where machines take reports on associations that we open.
    ae_title
        Our own.
    settings
        The pauses between tries, and when to give up: those of deliveries.
    lines
        Where a stop finds the associations that are open.
    holder
        What this node's claims bear now: see :mod:`node.membership`.
    clock
        For tests.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        machines: Sequence[Machine],
        ae_title: str,
        settings: DeliverySettings,
        *,
        lines: Lines | None = None,
        holder: Callable[[], str] = lambda: "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lines = lines
        self._database = database
        self._files = files
        self._ae_title = ae_title
        self._settings = settings
        self._holder = holder
        self._clock = clock
        self._machines: Mapping[str, Machine] = MappingProxyType(
            {machine.ae_title: machine for machine in machines}
        )
        self._lock = threading.Lock()
        self._on_their_way: set[int] = set()

    def asked(
        self, peer: Peer, action_type: int, instance_uid: str, information: Dataset | None
    ) -> tuple[int, int | None]:
        """Keep a request; gives the status to answer and, where it is taken, the request's number.

        Once this returns success the request outlives the node.
        """
        if action_type != _ASK:
            return NO_SUCH_ACTION, None
        if instance_uid != COMMITMENT_INSTANCE:
            return NO_SUCH_INSTANCE, None
        try:
            transaction, items = _read_request(information)
        except ValueError as error:
            log.warning("promise-request-refused", peer=peer.host, reason=str(error))
            return INVALID_ARGUMENT, None
        if len(items) > _MOST_OBJECTS:
            return RESOURCE_LIMITATION, None
        now = self._clock()
        try:
            with self._database.write() as session:
                waiting = catalog.open_promise_requests(session, peer.ae_title)
                if waiting >= _MOST_OPEN:
                    log.warning("promise-request-refused", peer=peer.host, waiting=waiting)
                    return RESOURCE_LIMITATION, None
                request = catalog.add_promise_request(
                    session,
                    transaction_uid=transaction,
                    calling_ae=peer.ae_title,
                    peer_host=peer.host,
                    items=items,
                    first_attempt_at=now + timedelta(seconds=_FIRST_ON_ANOTHER_S),
                    now=now,
                )
        except DatabaseError as error:
            log.error("promise-request-not-kept", error=str(error))  # noqa: TRY400 - says all
            return PROCESSING_FAILURE, None
        log.info("promise-asked", calling_ae=peer.ae_title, objects=len(items))
        return SUCCESS, request.id

    def report_here(self, request_id: int) -> Report | None:
        """The report for the association on which it was asked; None where it went elsewhere."""
        with self._lock:
            if request_id in self._on_their_way:
                return None
            self._on_their_way.add(request_id)
        report = None
        try:
            with self._database.read() as session:
                request = catalog.promise_request(session, request_id)
            if request is not None and not (request.reported_at or request.given_up_at):
                mine = self._claimed(request)
                report = None if mine is None else self._judge(mine)
        except (DatabaseError, catalog.ClaimLostError) as error:
            log.error("promise-report-waits", error=str(error))  # noqa: TRY400 - says all
        finally:
            if report is None:
                self._not_on_its_way(request_id)
        return report

    def answered(self, report: Report, status: int | None) -> None:
        """What the machine said to a report on its association; None where it said nothing."""
        try:
            with self._database.write() as session:
                if status == SUCCESS:
                    self._taken(session, report, "taken on the same association")
                else:
                    catalog.hasten_promise_report(session, report.request_id, self._clock())
        except DatabaseError as error:
            # The request stays open, and is reported on again.
            log.error("promise-report-not-noted", error=str(error))  # noqa: TRY400 - says all
        finally:
            self._not_on_its_way(report.request_id)

    def put_back(self, report: Report) -> None:
        """The report could not be sent on its association now."""
        self._not_on_its_way(report.request_id)

    def left_without(self, request_id: int) -> None:
        """The machine left before its report went out: the report follows at once."""
        try:
            with self._database.write() as session:
                catalog.hasten_promise_report(session, request_id, self._clock())
        except DatabaseError as error:
            log.error("promise-report-waits", error=str(error))  # noqa: TRY400 - until its time

    def report_due(self) -> int:
        """Report, on associations that we open, what is due; gives how many were taken."""
        with self._database.read() as session:
            due = catalog.promise_requests_due(session, self._clock(), holder=self._holder())
        taken = 0
        for request in due:
            with self._lock:
                if request.id in self._on_their_way:
                    continue
                self._on_their_way.add(request.id)
            try:
                mine = self._claimed(request)
                if mine is not None:
                    taken += self._report_there(mine)
            finally:
                self._not_on_its_way(request.id)
        return taken

    def _claimed(self, request: PromiseRequestRecord) -> PromiseRequestRecord | None:
        """The request as this node's; None where another node reports on it."""
        holder = self._holder()
        if request.holder == holder:
            return request
        with self._database.write() as session:
            return catalog.claim_promise_request(session, request.id, holder=holder)

    def _not_on_its_way(self, request_id: int) -> None:
        with self._lock:
            self._on_their_way.discard(request_id)

    def _report_there(self, request: PromiseRequestRecord) -> bool:
        machine = self._machines.get(request.calling_ae)
        report = self._judge(request)
        if machine is None:
            answer = (
                f"{request.calling_ae} ended its association before the report; add it to "
                "[[machines]] with the address at which it takes reports"
            )
        else:
            answer = self._send(machine, report)
        now = self._clock()
        with self._database.write() as session:
            if not answer:
                self._taken(session, report, f"taken by {request.calling_ae}")
            elif (now - request.asked_at).total_seconds() > self._settings.give_up_after_s:
                catalog.promise_report_given_up(session, request.id, answer=answer, now=now)
            else:
                pause = growing_pause(self._settings, request.attempts + 1) * spread()
                catalog.promise_report_retry(
                    session, request.id, answer=answer, next_attempt_at=now + pause
                )
        if answer:
            log.warning("promise-report-not-taken", calling_ae=request.calling_ae, reason=answer)
        return not answer

    def _send(self, machine: Machine, report: Report) -> str:
        """Report on a new association; gives why it was not taken, or nothing."""
        destination = DimseDestination(
            name=machine.ae_title,
            kind="dimse",
            host=machine.host,
            port=machine.port,
            ae_title=machine.ae_title,
            tls=machine.tls,
            timeout_s=_REPORT_TIMEOUT_S,
        )
        context = build_context(COMMITMENT_CLASS, list(COMMITMENT_SYNTAXES))
        try:
            caller = Caller(destination, self._ae_title, lines=self._lines)
            # PS3.4 J.3.3: whoever reports is the SCP, also on an association of its own.
            role = build_role(COMMITMENT_CLASS, scp_role=True)
            with caller.call([context], roles=[role]) as line:
                if not line.open:
                    return line.why_not()
                status, _ = line.association.send_n_event_report(
                    report.information, report.event_type, COMMITMENT_CLASS, COMMITMENT_INSTANCE
                )
        except (TlsError, RuntimeError, ValueError) as error:
            return str(error)
        if "Status" not in status:
            return "no answer: the association was lost or timed out"
        return "" if status.Status == SUCCESS else f"refused: 0x{status.Status:04X}"

    def _judge(self, request: PromiseRequestRecord) -> Report:
        kept, failed = [], []
        with self._database.read() as session:
            for item in request.items:
                reason = self._why_not_kept(
                    item, catalog.find_instance(session, item.sop_instance_uid)
                )
                reference = Dataset()
                reference.ReferencedSOPClassUID = UID(item.sop_class_uid)
                reference.ReferencedSOPInstanceUID = UID(item.sop_instance_uid)
                if reason is None:
                    kept.append(reference)
                else:
                    reference.FailureReason = reason
                    failed.append(reference)
        information = Dataset()
        information.TransactionUID = UID(request.transaction_uid)
        if kept:
            information.ReferencedSOPSequence = Items(kept)
        if failed:
            information.FailedSOPSequence = Items(failed)
        return Report(
            request_id=request.id,
            event_type=_SOME_NOT if failed else _ALL_KEPT,
            information=information,
            kept=tuple(str(reference.ReferencedSOPInstanceUID) for reference in kept),
        )

    def _why_not_kept(
        self, item: PromiseItem, instance: catalog.InstanceRecord | None
    ) -> int | None:
        if instance is None or instance.file_state in (FileState.REMOVING, FileState.REMOVED):
            return NO_SUCH_INSTANCE
        if instance.sop_class_uid != item.sop_class_uid:
            return CLASS_CONFLICT
        try:
            size = self._files.size_bytes(instance.file_key)
        except FileStoreError:
            return PROCESSING_FAILURE
        return None if size == instance.size_bytes else PROCESSING_FAILURE

    def _taken(self, session: Session, report: Report, answer: str) -> None:
        catalog.promise_reported(
            session, report.request_id, report.kept, answer=answer, now=self._clock()
        )


def _read_request(information: Dataset | None) -> tuple[str, list[PromiseItem]]:
    """Transaction UID and objects of an N-ACTION's data set; ValueError where they are none."""
    if information is None:
        raise ValueError("no data set")
    transaction = str(information.get("TransactionUID") or "")
    if not _is_uid(transaction):
        raise ValueError("no Transaction UID")
    items = []
    for reference in information.get("ReferencedSOPSequence") or ():
        sop_class = str(reference.get("ReferencedSOPClassUID") or "")
        instance = str(reference.get("ReferencedSOPInstanceUID") or "")
        if not (_is_uid(sop_class) and _is_uid(instance)):
            raise ValueError("a reference is no pair of UIDs")
        items.append(PromiseItem(sop_class_uid=sop_class, sop_instance_uid=instance))
    if not items:
        raise ValueError("no object is named")
    return transaction, items


def _is_uid(value: str) -> bool:
    return 0 < len(value) <= 64 and set(value) <= set("0123456789.")
