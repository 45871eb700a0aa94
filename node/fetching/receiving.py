"""Takes what an archive sends: to a file in the store, to the intake, and only then a yes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import cast

import structlog
from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE

from node.doors.incoming import IncomingFile
from node.doors.taking import OpenIntake
from node.fetching.limits import Pace
from node.fetching.model import Archive
from node.intake import LATER, Arrival, Receipt, Status
from node.watch import study_key
from storage import catalog

log = structlog.get_logger(__name__)

_DOOR = "fetch"
_MOST_TITLE = 16
_LONGEST_ANSWER_S = 2.0  # an archive waits for the answer to its C-STORE, and not for long


class Receiver:
    """Takes the objects of one study after another.

    Parameters
    ----------
    opened
        The way in.
    source
        Whom they come from.
    ae_title
        Our own.
    pace
        Asked after every object.
    told
        Called with the size of every object that was taken.
    """

    def __init__(
        self,
        opened: OpenIntake,
        source: Archive,
        ae_title: str,
        pace: Pace,
        *,
        told: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._opened = opened
        self._source = source
        self._ae_title = ae_title
        self._pace = pace
        self._told = told
        self._lock = threading.Lock()
        self._files: list[IncomingFile] = []
        self._study = ""
        self._wanted: frozenset[str] | None = None
        self.kept: set[str] = set()
        self.refused: dict[str, str] = {}  #: SOP instance UID to the reason
        self.classes: dict[str, None] = {}
        self.size_bytes = 0
        self.unasked = 0
        self.repeated = 0  #: of those kept, were here already

    def begin(self, study_instance_uid: str, wanted: Collection[str] | None) -> None:
        """A study; ``wanted`` are its instances, None where the archive does not list them."""
        self._study = study_instance_uid
        self._wanted = None if wanted is None else frozenset(wanted)
        self.kept, self.refused, self.classes = set(), {}, {}
        self.size_bytes = self.unasked = self.repeated = 0

    @property
    def settled(self) -> frozenset[str]:
        """The instances that came and found their place."""
        return frozenset(self.kept) | frozenset(self.refused)

    @property
    def progress_bytes(self) -> int:
        """What has come of the objects that are under way; it grows while an archive sends."""
        with self._lock:
            return self.size_bytes + sum(file.written_bytes for file in self._files)

    def new_file(self) -> IncomingFile:
        """A file for an object that comes. Called by the thread that receives it."""
        file = IncomingFile(self._opened.files.incoming_folder, self._opened.refusing, _DOOR)
        with self._lock:
            self._files.append(file)
        return file

    def drop_files(self) -> None:
        """Remove what was half received when an association ended."""
        with self._lock:
            files, self._files = self._files, []
        for file in files:
            file.discard()

    def on_store(self, event: evt.Event) -> int | Dataset:
        """The answer to a C-STORE on an association of ours (C-GET)."""
        request = cast(C_STORE, event.request)
        file = cast(IncomingFile, request._dataset_file)
        receipt = self.take(
            file,
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            sop_class_uid=str(request.AffectedSOPClassUID),
        )
        self._pace.wait(_LONGEST_ANSWER_S)
        if receipt.status == Status.SUCCESS:
            return int(receipt.status)
        answer = Dataset()
        answer.Status = int(receipt.status)
        answer.ErrorComment = _COMMENTS.get(receipt.status, "not taken")
        return answer

    def take(
        self,
        file: IncomingFile,
        *,
        sop_instance_uid: str | None = None,
        sop_class_uid: str | None = None,
    ) -> Receipt:
        """An object has come to its end; what it was announced as, where it was."""
        file.close()
        size = file.written_bytes
        try:
            receipt = self._receive(file, sop_instance_uid, sop_class_uid)
        finally:
            file.discard()  # where the intake has not taken it over
            with self._lock:
                self._files = [one for one in self._files if one is not file]
        uid = sop_instance_uid or ""
        if receipt.status == Status.SUCCESS and receipt.refused is None:
            self.kept.add(uid or f"{len(self.kept)}")
            self.classes[sop_class_uid or ""] = None
            self.repeated += receipt.repeated
            self.size_bytes += size
            self._told(size)
        elif receipt.refused is not None and receipt.status != Status.OUT_OF_RESOURCES:
            self.refused[uid or f"{len(self.refused)}"] = _why(receipt)
        self._pace.took(size)
        return receipt

    def _receive(self, file: IncomingFile, uid: str | None, sop_class: str | None) -> Receipt:
        reason = file.problem or self._opened.refusing()
        if reason is not None:
            log.warning("object-refused", reason=reason, study=study_key(self._study))
            return Receipt(status=Status.OUT_OF_RESOURCES, comment=reason)
        if self._wanted is not None and uid is not None and uid not in self._wanted:
            self.unasked += 1
            return Receipt(status=Status.DOES_NOT_MATCH_CLASS, comment="not asked for")
        arrival = Arrival(
            path=file.path,
            door=_DOOR,
            calling_ae=(self._source.peer.ae_title or self._source.name)[:_MOST_TITLE],
            called_ae=self._ae_title,
            peer_host=self._source.peer.host,
            announced_class_uid=sop_class,
            announced_instance_uid=uid,
            announced_study_uid=self._study,
            urgency=LATER,
        )
        try:
            return self._opened.intake.receive(arrival)
        except Exception:
            # The edge of a request: the archive gets a failure, and the study is not whole.
            log.exception("intake-failed", study=study_key(self._study))
            return Receipt(status=Status.PROCESSING_FAILURE, comment="internal error")

    def look(self, wanted: Collection[str] | None, before: int) -> None:
        """Settle what came by another door: the node's own, in a C-MOVE.

        ``before`` is how many instances of the study were here, where it is not known which come.
        """
        with self._opened.database.read() as session:
            here = catalog.study_here(session, self._study)
        if wanted is None:
            for number in range(before, len(here.received)):
                self._came(f"{number}", 0)
            return
        for uid in wanted:
            known = here.received.get(uid)
            if known is not None and known.file_state is catalog.FileState.KEPT:
                self._came(uid, known.size_bytes)
            elif uid in here.quarantined:
                self.refused[uid] = "in quarantine"

    def count_here(self) -> int:
        """How many instances of the study are here."""
        with self._opened.database.read() as session:
            return len(catalog.study_here(session, self._study).received)

    def _came(self, uid: str, size_bytes: int) -> None:
        if uid not in self.kept:
            self.kept.add(uid)
            self.size_bytes += size_bytes
            self._pace.took(size_bytes)
            self._told(size_bytes)


_COMMENTS = {
    Status.OUT_OF_RESOURCES: "cannot be kept now",
    Status.CANNOT_UNDERSTAND: "it cannot be read",
    Status.DOES_NOT_MATCH_CLASS: "it is not what was asked for",
}


def _why(receipt: Receipt) -> str:
    # What a reader says of a broken object may quote it.
    if receipt.status == Status.CANNOT_UNDERSTAND:
        return "it cannot be read"
    return receipt.comment
