"""The DIMSE door: C-ECHO, C-STORE and storage commitment as SCP.

The network library writes each arriving data set straight to a file in the store's incoming folder
(chunked receive), so memory does not grow with the object; :mod:`node.intake` does the rest.
:mod:`node.doors.transport` keeps callers within bounds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, evt, register_uid
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE, N_ACTION
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.service_class import StorageServiceClass

from node.doors.callers import Addresses, TurnedAwayBook
from node.doors.contexts import (
    COMMITMENT_CLASS,
    COMMITMENT_SYNTAXES,
    RETIRED_KEYWORDS,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION_CLASS,
)
from node.doors.incoming import IncomingFile
from node.doors.lane import StoreRequest
from node.doors.promises import NO_SUCH_INSTANCE, RESOURCE_LIMITATION, PromiseKeeper
from node.doors.transport import Bounds, Connection, DoorServer
from node.intake import LATER, Arrival, Intake, Receipt, Status
from node.sections import DimseSettings
from node.tls import server_context
from node.watch.transfers import Direction, Peer, Transfer, TurnedAway

log = structlog.get_logger(__name__)

_TRANSIENT, _BY_PRESENTATION = 2, 3  # PS3.8 9.3.4: "come again later", ...
_CONGESTION, _LIMIT_EXCEEDED = 1, 2  # ... and why
_REJECTIONS = {
    3: "calling AE title is not in allowed_calling_aes",
    7: "called AE title is not ours",
}
_POLL_S = 0.1
# A machine that asks for a promise and releases at once does so within this; a report that crosses
# its release would only confuse it.
_STAYS_AFTER_S = 0.5
_TRY_AGAIN = "cannot be kept now, try again"


@dataclass(slots=True)
class _Tally:
    """What one association brought of one study."""

    classes: dict[str, None] = field(default_factory=dict)
    count: int = 0
    accepted: bool = True


class DimseDoor:
    """Listens for echo machines.

    Parameters
    ----------
    settings
        Address, AE title, limits, and who may come in.
    intake
        Takes the objects.
    incoming_folder
        On the volume of the store, so that keeping an object is a rename.
    released
        Called with the study UIDs of an association that its sender released. An aborted one is no
        sign that a study is whole.
    refusing
        Gives a reason while nothing may be taken, such as a disk that is nearly full: new
        associations are rejected for now, objects on open ones are answered with 0xA700.
    commitment_reported
        Called with the event type and the event information when an archive reports on a storage
        commitment that we asked for; gives the DIMSE status to answer.
    promises
        Takes machines' requests for storage commitment; without it they are refused.
    transferred
        Told at the end of each association what it brought, study by study.
    turned_away
        Told of callers that were not let in.
    refused
        Called with the door and the reason where an object is not even handed in.
    counted_away
        Called with the door and the reason of every caller that was not let in.
    """

    def __init__(
        self,
        settings: DimseSettings,
        intake: Intake,
        incoming_folder: str,
        *,
        released: Callable[[frozenset[str]], None] = lambda _studies: None,
        refusing: Callable[[], str | None] = lambda: None,
        commitment_reported: Callable[[Peer, int, Dataset], int] = (
            lambda _peer, _event_type, _information: NO_SUCH_INSTANCE
        ),
        promises: PromiseKeeper | None = None,
        transferred: Callable[[Transfer], None] = lambda _transfer: None,
        turned_away: Callable[[TurnedAway], None] = lambda _turned_away: None,
        refused: Callable[[str, str], None] = lambda _door, _reason: None,
        counted_away: Callable[[str, str], None] = lambda _door, _reason: None,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._incoming = Path(incoming_folder)
        self._released = released
        self._refusing = refusing
        self._commitment_reported = commitment_reported
        self._promises = promises
        self._transferred = transferred
        self._refused = refused
        self._book = TurnedAwayBook("dimse", turned_away, counted_away)
        self._tallies: dict[Association, dict[str, _Tally]] = {}
        self._owed: dict[Connection, list[tuple[float, int]]] = {}
        self._lock = threading.Lock()
        self._server: DoorServer | None = None

    def start(self) -> None:
        """Bind the port and serve from threads of its own.

        Raises
        ------
        OSError
            If the port cannot be bound.
        TlsError
            If a certificate, a key or the list of authorities cannot be used.
        """
        settings = self._settings
        for uid, keyword in RETIRED_KEYWORDS.items():
            register_uid(uid, keyword, StorageServiceClass)
        bounds = _bounds(settings)
        entity = AE(settings.ae_title)
        for sop_class in STORAGE_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        entity.add_supported_context(VERIFICATION_CLASS)
        # In both roles: machines ask us for a promise, archives report on theirs (PS3.4 J.3.3).
        entity.add_supported_context(
            COMMITMENT_CLASS, list(COMMITMENT_SYNTAXES), scu_role=True, scp_role=True
        )
        # The library counts every thread, also of callers that are gone: ours counts instead.
        entity.maximum_associations = 10 * bounds.connections
        entity.maximum_pdu_size = settings.maximum_pdu_size
        entity.network_timeout = settings.network_timeout_s
        entity.acse_timeout = settings.acse_timeout_s
        entity.dimse_timeout = settings.dimse_timeout_s
        entity.require_calling_aet = list(settings.allowed_calling_aes)
        entity.require_called_aet = settings.check_called_ae
        server: Any = entity.make_server(  # the library does not know that it is a DoorServer
            (settings.host, settings.port),
            evt_handlers=[
                (evt.EVT_C_STORE, self._store_by_library),
                (evt.EVT_C_ECHO, lambda _event: int(Status.SUCCESS)),
                (evt.EVT_N_ACTION, self._promise_asked),
                (evt.EVT_N_EVENT_REPORT, self._reported),
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_REJECTED, self._rejected),
                (evt.EVT_RELEASED, self._end_of_transfer),
            ],
            server_class=DoorServer,
            bounds=bounds,
            tls=None if settings.tls is None else server_context(settings.tls),
            admits=Addresses(settings.allowed_addresses).refuse,
            turned_away=self._book.enter,
            new_file=partial(IncomingFile, self._incoming, self._refusing),
            store=self._store,
            ticking=self._report_here,
            ended=self._ended,
        )
        entity._servers.append(server)  # its shutdown takes it out of there
        threading.Thread(
            target=server.serve_forever, args=(_POLL_S,), name="dimse-door", daemon=True
        ).start()
        self._server = server

    @property
    def port(self) -> int:
        """The port that is bound: the one in settings, or a free one where that says 0."""
        if self._server is None:
            return self._settings.port
        return int(self._server.server_address[1])

    @property
    def associations(self) -> int:
        """How many associations are open now."""
        connections = () if self._server is None else self._server.connections
        return sum(connection.has_place for connection in connections)

    @property
    def turned_away(self) -> int:
        """How many callers were not let in since the start."""
        return self._book.count

    def stop(self) -> None:
        """Stop listening and end open associations; what was acknowledged is kept."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _requested(self, event: evt.Event) -> None:
        association = event.assoc
        request = association.requestor.primitive
        connection = self._connection(association)
        if not isinstance(request, A_ASSOCIATE) or connection is None:
            return  # it aborted before we looked
        connection.peer = replace(connection.peer, ae_title=str(request.calling_ae_title))
        diagnostic = _CONGESTION
        reason = self._refusing()
        if reason is None:
            diagnostic = _LIMIT_EXCEEDED
            reason = cast(DoorServer, self._server).take_place(connection)
        if reason is not None:
            self._book.enter(connection.peer, reason)
            association.acse.send_reject(_TRANSIENT, _BY_PRESENTATION, diagnostic)
            association.kill()  # waits until the answer is out

    def _rejected(self, event: evt.Event) -> None:
        answer = event.assoc.acceptor.primitive
        reason = _REJECTIONS.get(getattr(answer, "diagnostic", 0), "rejected")
        self._book.enter(self._peer(event.assoc), reason)

    def _promise_asked(self, event: evt.Event) -> tuple[int, Dataset | None]:
        connection = self._connection(event.assoc)
        if self._promises is None or connection is None:
            return RESOURCE_LIMITATION, None
        try:
            information = event.action_information
        except Exception:  # noqa: BLE001 - a foreign data set may fail in any way
            information = None
        request = cast(N_ACTION, event.request)
        status, number = self._promises.asked(
            connection.peer,
            event.action_type or 0,
            str(request.RequestedSOPInstanceUID),
            information,
        )
        if number is not None:
            with self._lock:
                self._owed.setdefault(connection, []).append((time.monotonic(), number))
        return status, None

    def _report_here(self, connection: Connection) -> None:
        """Report on the association on which it was asked, where the machine stays for it."""
        if self._promises is None:
            return
        now = time.monotonic()
        with self._lock:
            owed = self._owed.get(connection, [])
            ready = [number for at, number in owed if now - at >= _STAYS_AFTER_S]
        for number in ready:
            report = self._promises.report_here(number)
            if report is not None:
                answered = partial(self._promises.answered, report)
                if not connection.report(report.event_type, report.information, answered):
                    self._promises.put_back(report)  # for the next time, or for the end
                    return
            with self._lock:
                self._owed[connection] = [one for one in self._owed[connection] if one[1] != number]

    def _reported(self, event: evt.Event) -> tuple[int, Dataset | None]:
        status = self._commitment_reported(
            self._peer(event.assoc), event.event_type or 0, event.event_information
        )
        return status, None

    def _store(
        self, connection: Connection, request: StoreRequest, file: IncomingFile
    ) -> tuple[int, str]:
        association = cast(Association, connection.association)
        arrival = Arrival(
            path=file.path,
            door="dimse",
            calling_ae=connection.peer.ae_title,
            called_ae=str(association.acceptor.ae_title),
            peer_host=connection.peer.host,
            announced_class_uid=request.sop_class_uid,
            announced_instance_uid=request.sop_instance_uid,
            # An archive sends because we asked it to: `echonode fetch --by move`.
            urgency=LATER if request.move_originator == self._settings.ae_title else 0,
            begin=file.begin,
            content_sha256=file.content_sha256,
        )
        receipt = self._receive(arrival, file)
        with self._lock:
            studies = self._tallies.setdefault(association, {})
            tally = studies.setdefault(receipt.study_instance_uid or "", _Tally())
            tally.classes[request.sop_class_uid] = None
            tally.count += 1
            tally.accepted &= receipt.status == Status.SUCCESS
        return _answer(receipt)

    def _store_by_library(self, event: evt.Event) -> Dataset | int:
        """An object whose request was put in an unusual way; see :mod:`node.doors.lane`."""
        connection = self._connection(event.assoc)
        request = cast(C_STORE, event.request)
        if connection is None:
            return int(Status.OUT_OF_RESOURCES)  # the door is closing
        stated = StoreRequest(
            context_id=event.context.context_id,
            message_id=cast(int, request.MessageID),
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            move_originator=str(request.MoveOriginatorApplicationEntityTitle or ""),
        )
        status, comment = self._store(connection, stated, cast(IncomingFile, request._dataset_file))
        answer = Dataset()
        answer.Status = status
        if comment:
            answer.ErrorComment = comment
        return answer

    def _receive(self, arrival: Arrival, file: IncomingFile) -> Receipt:
        reason = file.problem or self._refusing()
        if reason is not None:
            log.warning("object-refused", reason=reason, calling_ae=arrival.calling_ae)
            self._refused(arrival.door, "not-kept" if file.problem else "node-refuses")
            return Receipt(status=Status.OUT_OF_RESOURCES, comment=_TRY_AGAIN)
        try:
            return self._intake.receive(arrival)
        except Exception:
            # The edge of a request: the sender gets a failure and keeps its copy.
            log.exception("intake-failed", calling_ae=arrival.calling_ae)
            self._refused(arrival.door, "internal-error")
            return Receipt(status=Status.PROCESSING_FAILURE, comment="internal error")

    def _end_of_transfer(self, event: evt.Event) -> None:
        with self._lock:
            studies = frozenset(study for study in self._tallies.get(event.assoc, ()) if study)
        if studies:
            try:
                self._released(studies)
            except Exception:
                # Only a hint that a study may be complete sooner: the quiet time completes it.
                log.exception("release-not-noted")

    def _ended(self, connection: Connection) -> None:
        if connection.association is None:
            return
        with self._lock:
            studies = self._tallies.pop(connection.association, {})
            owed = self._owed.pop(connection, [])
        for _, number in owed:
            cast(PromiseKeeper, self._promises).left_without(number)
        for study, tally in studies.items():
            transfer = Transfer(
                direction=Direction.IN,
                peer=connection.peer,
                door="dimse",
                study_instance_uid=study,
                sop_class_uids=tuple(tally.classes),
                count=tally.count,
                accepted=tally.accepted,
            )
            try:
                self._transferred(transfer)
            except Exception:
                log.exception("not-told", what="Transfer")  # those who watch hold up no one

    def _connection(self, association: Association) -> Connection | None:
        return None if self._server is None else self._server.connection_of(association)

    def _peer(self, association: Association) -> Peer:
        connection = self._connection(association)
        if connection is not None:
            return connection.peer
        requestor = association.requestor  # the door is closing
        return Peer(host=str(requestor.address), ae_title=str(requestor.ae_title))


def _bounds(settings: DimseSettings) -> Bounds:
    return Bounds(
        associations=settings.max_associations,
        associations_per_host=min(settings.max_associations, settings.max_associations_per_peer),
        pdu_bytes=settings.maximum_pdu_size,
        set_up_s=settings.acse_timeout_s,
        pdu_s=settings.pdu_timeout_s,
        silence_s=settings.network_timeout_s,
    )


def _answer(receipt: Receipt) -> tuple[int, str]:
    """The status and the comment for the sender."""
    if receipt.status == Status.SUCCESS:
        return int(receipt.status), ""
    # What a reader says of a broken object may quote it: such words are for the quarantine.
    unread = receipt.status == Status.CANNOT_UNDERSTAND
    comment = "it cannot be read" if unread else receipt.comment
    return int(receipt.status), comment[:64]  # LO, PS3.7 Annex E
