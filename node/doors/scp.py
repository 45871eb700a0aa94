"""The DIMSE door: C-ECHO, C-STORE and storage commitment as SCP.

The network library writes each arriving data set straight to a file in the store's incoming folder
(chunked receive), so memory does not grow with the object; :mod:`node.intake` does the rest.
"""

from __future__ import annotations

import functools
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, dimse_messages, evt, register_uid
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import ThreadedAssociationServer

from node.doors.contexts import (
    COMMITMENT_CLASS,
    COMMITMENT_SYNTAXES,
    RETIRED_KEYWORDS,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION_CLASS,
)
from node.intake import Arrival, Intake, Receipt, Status
from node.sections import DimseSettings
from node.watch.transfers import Direction, Peer, Transfer, TurnedAway

log = structlog.get_logger(__name__)

_Told = TypeVar("_Told", Transfer, TurnedAway)

_TRANSIENT, _BY_PRESENTATION, _CONGESTION = 2, 3, 1  # PS3.8 9.3.4: "come again later"
_NO_SUCH_INSTANCE = 0x0112  # PS3.7 C.5.10: of a report on a transaction that we do not know


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
        Address, AE title, limits.
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
    transferred
        Told at the end of each association what it brought, study by study.
    turned_away
        Told of each caller that was not let in.
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
            lambda _peer, _event_type, _information: _NO_SUCH_INSTANCE
        ),
        transferred: Callable[[Transfer], None] = lambda _transfer: None,
        turned_away: Callable[[TurnedAway], None] = lambda _turned_away: None,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._incoming = incoming_folder
        self._released = released
        self._refusing = refusing
        self._commitment_reported = commitment_reported
        self._transferred = transferred
        self._turned_away = turned_away
        self._studies: defaultdict[Association, set[str]] = defaultdict(set)
        self._tallies: defaultdict[Association, dict[str, _Tally]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Bind the port and serve from threads of its own.

        Raises
        ------
        OSError
            If the port cannot be bound.
        """
        _prepare_library(self._incoming)
        entity = AE(self._settings.ae_title)
        for sop_class in STORAGE_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        entity.add_supported_context(VERIFICATION_CLASS)
        # In both roles: machines ask us for a promise, archives report on theirs (PS3.4 J.3.3).
        entity.add_supported_context(
            COMMITMENT_CLASS, list(COMMITMENT_SYNTAXES), scu_role=True, scp_role=True
        )
        entity.maximum_associations = self._settings.max_associations
        entity.maximum_pdu_size = self._settings.maximum_pdu_size
        entity.network_timeout = self._settings.network_timeout_s
        entity.acse_timeout = self._settings.acse_timeout_s
        entity.dimse_timeout = self._settings.dimse_timeout_s
        entity.require_calling_aet = list(self._settings.allowed_calling_aes)
        self._server = entity.start_server(
            (self._settings.host, self._settings.port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, lambda _event: int(Status.SUCCESS)),
                (evt.EVT_N_EVENT_REPORT, self._reported),
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_RELEASED, self._end_of_transfer),
                (evt.EVT_CONN_CLOSE, self._closed),
                (evt.EVT_REJECTED, self._rejected),
            ],
        )

    @property
    def port(self) -> int:
        """The port that is bound: the one in settings, or a free one where that says 0."""
        if self._server is None:
            return self._settings.port
        return int(self._server.server_address[1])

    @property
    def associations(self) -> int:
        """How many associations are open now."""
        return 0 if self._server is None else len(self._server.active_associations)

    def stop(self) -> None:
        """Stop listening and end open associations; what was acknowledged is kept."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _requested(self, event: evt.Event) -> None:
        association = event.assoc
        if not isinstance(association.requestor.primitive, A_ASSOCIATE):
            return  # it aborted before we looked
        reason = self._refusing()
        if reason is not None:
            association.requestor.ae_title = association.requestor.primitive.calling_ae_title
            self._turn_away(association, reason)
            association.acse.send_reject(_TRANSIENT, _BY_PRESENTATION, _CONGESTION)
            association.kill()  # waits until the answer is out

    def _turn_away(self, association: Association, reason: str) -> None:
        peer = _peer(association)
        log.warning("caller-turned-away", reason=reason, calling_ae=peer.ae_title, peer=peer.host)
        self._tell(self._turned_away, TurnedAway(peer=peer, door="dimse", reason=reason))

    def _tell(self, told: Callable[[_Told], None], what: _Told) -> None:
        try:
            told(what)
        except Exception:
            log.exception("not-told", what=type(what).__name__)  # those who watch hold up no one

    def _reported(self, event: evt.Event) -> tuple[int, Dataset | None]:
        return self._commitment_reported(
            _peer(event.assoc), int(event.event_type), event.event_information
        ), None

    def _store(self, event: evt.Event) -> Dataset | int:
        requestor = event.assoc.requestor
        request = cast(C_STORE, event.request)
        arrival = Arrival(
            path=event.dataset_path,
            door="dimse",
            calling_ae=str(requestor.ae_title),
            called_ae=str(event.assoc.acceptor.ae_title),
            peer_host=str(requestor.address),
            announced_class_uid=str(request.AffectedSOPClassUID),
            announced_instance_uid=str(request.AffectedSOPInstanceUID),
        )
        receipt = self._receive(arrival)
        study = receipt.study_instance_uid or ""
        with self._lock:
            if study:
                self._studies[event.assoc].add(study)
            tally = self._tallies[event.assoc].setdefault(study, _Tally())
            tally.classes[arrival.announced_class_uid or ""] = None
            tally.count += 1
            tally.accepted &= receipt.status == Status.SUCCESS
        return _answer(receipt)

    def _receive(self, arrival: Arrival) -> Receipt:
        reason = self._refusing()
        if reason is not None:
            log.warning("object-refused", reason=reason, calling_ae=arrival.calling_ae)
            return Receipt(status=Status.OUT_OF_RESOURCES, comment="cannot be kept now, try again")
        try:
            return self._intake.receive(arrival)
        except Exception:
            # The edge of a request: the sender gets a failure and keeps its copy.
            log.exception("intake-failed", calling_ae=arrival.calling_ae)
            return Receipt(status=Status.PROCESSING_FAILURE, comment="internal error")

    def _end_of_transfer(self, event: evt.Event) -> None:
        with self._lock:
            studies = frozenset(self._studies.get(event.assoc, ()))
        if studies:
            try:
                self._released(studies)
            except Exception:
                # Only a hint that a study may be complete sooner: the quiet time completes it.
                log.exception("release-not-noted")

    def _closed(self, event: evt.Event) -> None:
        with self._lock:
            self._studies.pop(event.assoc, None)
            tallies = self._tallies.pop(event.assoc, {})
        for study, tally in tallies.items():
            transfer = Transfer(
                direction=Direction.IN,
                peer=_peer(event.assoc),
                door="dimse",
                study_instance_uid=study,
                sop_class_uids=tuple(tally.classes),
                count=tally.count,
                accepted=tally.accepted,
            )
            self._tell(self._transferred, transfer)

    def _rejected(self, event: evt.Event) -> None:
        self._turn_away(event.assoc, "AE title or number of associations")


def _peer(association: Association) -> Peer:
    requestor = association.requestor
    return Peer(
        host=str(requestor.address), ae_title=str(requestor.ae_title), port=int(requestor.port)
    )


def _answer(receipt: Receipt) -> Dataset | int:
    if receipt.status == Status.SUCCESS:
        return int(receipt.status)
    answer = Dataset()
    answer.Status = int(receipt.status)
    answer.ErrorComment = receipt.comment[:64]  # LO, PS3.7 Annex E
    return answer


def _prepare_library(incoming_folder: str) -> None:
    """Set what the network library only offers as module state."""
    _config.STORE_RECV_CHUNKED_DATASET = True
    # The library has no setting for the folder of its temporary files.
    in_the_store = functools.partial(
        tempfile.NamedTemporaryFile, dir=incoming_folder, prefix="dimse-"
    )
    setattr(dimse_messages, "NamedTemporaryFile", in_the_store)  # noqa: B010 - a name it imports
    for uid, keyword in RETIRED_KEYWORDS.items():
        register_uid(uid, keyword, StorageServiceClass)
