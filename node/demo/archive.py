"""A stand-in for an archive: takes what it is sent and keeps it in a folder."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from node.doors.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES

_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptObject:
    """An object that the archive has."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path


class Archive:
    """A storage SCP on loopback, at a free port.

    Parameters
    ----------
    folder
        Where objects are kept, as Part-10 files named by their SOP Instance UID.
    """

    ae_title = "ARCHIVE"
    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: list[KeptObject] = []
        self._lock = threading.Lock()
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Listen, from threads of its own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        entity = AE(self.ae_title)
        known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
        for sop_class in dict.fromkeys([*known, *STORAGE_CLASSES]):
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        entity.add_supported_context(Verification)
        self._server = entity.start_server(
            (self.host, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    @property
    def port(self) -> int:
        """The port that it listens on; 0 where it does not."""
        return 0 if self._server is None else int(self._server.server_address[1])

    @property
    def kept(self) -> tuple[KeptObject, ...]:
        """What it has, in order of arrival."""
        with self._lock:
            return tuple(self._kept)

    def stop(self) -> None:
        """Stop listening; what was kept stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)  # noqa: S101 - the event is one of C-STORE
        uid = str(request.AffectedSOPInstanceUID)
        path = self._folder / f"{uid}.dcm"
        try:
            path.write_bytes(event.encoded_dataset())
        except OSError:
            return _OUT_OF_RESOURCES
        kept = KeptObject(
            sop_class_uid=str(request.AffectedSOPClassUID), sop_instance_uid=uid, path=path
        )
        with self._lock:
            if all(item.sop_instance_uid != uid for item in self._kept):
                self._kept.append(kept)
        return _SUCCESS
