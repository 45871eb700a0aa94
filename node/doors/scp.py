"""The DIMSE door: C-ECHO and C-STORE as SCP.

The network library writes each arriving data set straight to a file in the store's incoming folder
(chunked receive), so memory does not grow with the object; :mod:`node.intake` does the rest.
"""

from __future__ import annotations

import functools
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, dimse_messages, evt, register_uid
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import ThreadedAssociationServer

from node.doors.contexts import (
    RETIRED_KEYWORDS,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION_CLASS,
)
from node.intake import Arrival, Intake, Receipt, Status
from node.sections import DimseSettings

log = structlog.get_logger(__name__)


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
    """

    def __init__(
        self,
        settings: DimseSettings,
        intake: Intake,
        incoming_folder: str,
        *,
        released: Callable[[frozenset[str]], None] = lambda _studies: None,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._incoming = incoming_folder
        self._released = released
        self._studies: defaultdict[Association, set[str]] = defaultdict(set)
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
        try:
            receipt = self._intake.receive(arrival)
        except Exception:
            # The edge of a request: the sender gets a failure and keeps its copy.
            log.exception("intake-failed", calling_ae=arrival.calling_ae)
            receipt = Receipt(status=Status.PROCESSING_FAILURE, comment="internal error")
        if receipt.study_instance_uid is not None:
            with self._lock:
                self._studies[event.assoc].add(receipt.study_instance_uid)
        return _answer(receipt)

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

    def _rejected(self, event: evt.Event) -> None:
        log.warning(
            "association-rejected",
            calling_ae=str(event.assoc.requestor.ae_title),
            peer=str(event.assoc.requestor.address),
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
