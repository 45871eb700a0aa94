"""The one way in. Every door hands an object here; nothing else writes one.

The order is the promise (PS3.4 B.2.3 and our own): the object's file and its folder are on disk,
then its row is committed, and only then does the sender hear "success".
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from models.clip import ClipError, bytes_beside_pixels, read_header
from node.doors.contexts import CAPTURE_CLASSES, ECG_CLASSES, STORAGE_CLASSES, ULTRASOUND_CLASSES
from node.doors.glance import Glance, glance, glance_of, plain
from node.duplicates import difference
from node.rules import facts_of, rule_on_urgency
from node.sections import Rule
from node.watch import study_key
from node.watch.transfers import Handled
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import Area, FileStore, FileStoreError
from storage.states import FileState, RecordingKind

log = structlog.get_logger(__name__)

_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
_CLASSES = {str(uid): name for uid, name in STORAGE_CLASSES.items()}
_MOST_COMPARED_BYTES = 1024**2
_MOST_COMPARED_FILE_BYTES = 256 * 1024**2

LATER = -10
"""The urgency of studies that were fetched for a retrospective run: today's patients go first."""


class Status(IntEnum):
    """The answers of a storage SCP (PS3.4 Table B.2-1, PS3.7 Annex C)."""

    SUCCESS = 0x0000  #: kept: file and row are on disk
    PROCESSING_FAILURE = 0x0110  #: an error of ours; the sender may try again
    CLASS_NOT_SUPPORTED = 0x0122  #: a class that slipped through negotiation
    OUT_OF_RESOURCES = 0xA700  #: the disk or the database does not take it now; try again
    DOES_NOT_MATCH_CLASS = 0xA900  #: the data set is not what was announced, or has no identity
    CANNOT_UNDERSTAND = 0xC001  #: not a DICOM data set that can be parsed


#: Why an object was not taken, as those who count name it; see docs/metrics.md.
_WHY_REFUSED = {
    Status.SUCCESS: "other-content",
    Status.CLASS_NOT_SUPPORTED: "class-not-supported",
    Status.DOES_NOT_MATCH_CLASS: "does-not-match",
    Status.CANNOT_UNDERSTAND: "cannot-be-read",
    Status.OUT_OF_RESOURCES: "not-kept",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """An object at a door: a complete Part-10 file in the store's incoming folder."""

    path: Path
    door: str
    calling_ae: str = ""
    called_ae: str = ""
    peer_host: str = ""
    announced_class_uid: str | None = None  #: what the sender's command said it is
    announced_instance_uid: str | None = None
    announced_study_uid: str | None = None
    urgency: int = 0  #: of its study, where no rule says another
    comes_again: bool = False  #: whoever brings it may bring the same once more, from its start
    begin: bytes = field(default=b"", repr=False)  #: of the file, where the door has it in memory
    content_sha256: str | None = None  #: as :func:`content_digest`, where the door counted along


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What became of an object: the status for the sender, and words for both sides."""

    status: Status
    comment: str = ""
    study_instance_uid: str | None = None
    new: bool = False  #: kept now for the first time
    refused: str | None = None  #: not taken, or in quarantine: why, in a word
    repeated: bool = False  #: it was kept already


class _UnacceptableError(Exception):
    """An object that cannot be taken: the status to answer, and the reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Intake:
    """Takes objects in, from any thread.

    Parameters
    ----------
    database, files
        Where rows and files go.
    handled
        Told what became of each object.
    rules
        Say how urgent an object makes its study.
    clock
        The time of arrival; for tests.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        *,
        handled: Callable[[Handled], None] = lambda _handled: None,
        rules: Sequence[Rule] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._handled = handled
        self._rules = tuple(rules)
        self._clock = clock

    def receive(self, arrival: Arrival) -> Receipt:
        """Keep one object, or say why not.

        The file at ``arrival.path`` is moved away when it is kept or quarantined; otherwise it is
        left to the door. A disk or database that does not take it gives OUT_OF_RESOURCES, so that
        the sender keeps its copy and tries again.
        """
        began, size = time.monotonic(), _size_bytes(arrival.path)
        try:
            receipt = self._receive(arrival)
        except (OSError, FileStoreError, DatabaseError) as error:
            log.error(  # noqa: TRY400 - the message of the store says all; a trace would not help
                "object-not-kept", door=arrival.door, peer=arrival.peer_host, error=str(error)
            )
            receipt = Receipt(
                status=Status.OUT_OF_RESOURCES,
                comment="cannot be kept now, try again",
                refused=_WHY_REFUSED[Status.OUT_OF_RESOURCES],
            )
        self._handled(
            Handled(
                door=arrival.door,
                calling_ae=arrival.calling_ae,
                size_bytes=size,
                took_s=time.monotonic() - began,
                refused=receipt.refused,
                repeated=receipt.repeated,
            )
        )
        return receipt

    def foresee(self, arrival: Arrival) -> Receipt:
        """What :meth:`receive` would say now. Nothing is written, nor the file moved."""
        try:
            digest = arrival.content_sha256 or content_digest(arrival.path)
            header = _identified(arrival)
            with self._database.read() as session:
                known = catalog.find_instance(session, header.values["SOPInstanceUID"])
            if known is not None and self._is_there(known):
                same = self._same(arrival, header, digest, known)
                return same or _refusal(self._different(arrival, known))
        except _UnacceptableError as unacceptable:
            return _refusal(unacceptable)
        except (OSError, FileStoreError, DatabaseError):
            comment = "cannot be looked at now, try again"
            return Receipt(status=Status.OUT_OF_RESOURCES, comment=comment)
        uid = header.values["StudyInstanceUID"]
        return Receipt(status=Status.SUCCESS, study_instance_uid=uid, new=known is None)

    def _receive(self, arrival: Arrival) -> Receipt:
        digest = arrival.content_sha256 or content_digest(arrival.path)
        try:
            header = _identified(arrival)
        except _UnacceptableError as unacceptable:
            return self._quarantine(arrival, digest, unacceptable, header=None)
        uid = header.values["SOPInstanceUID"]
        study_uid = header.values["StudyInstanceUID"]
        known = None
        if catalog.is_known(self._database, uid):
            with self._database.read() as session:
                known = catalog.find_instance(session, uid)
        if known is not None and self._is_there(known):
            return self._known(arrival, header, digest, known)
        came_again = known is not None  # and its file is gone, or not whole
        size = _size_bytes(arrival.path)
        key = self._files.adopt(arrival.path, Area.OBJECTS, _file_digest(uid, digest))
        new = None if came_again else self._new(arrival, header, digest, key, size)
        known = None
        if new is None or not self._database.together(partial(catalog.add_plain, new=new)):
            with self._database.write() as session:
                # Another association may have brought the same object in the meantime.
                known = catalog.find_instance(session, uid)
                if known is not None and self._files.size_bytes(key) is None:
                    # Retention gave up an earlier copy, the same file, at this very moment.
                    raise FileStoreError(
                        f"{key} was removed while it was kept again; send it again"
                    )
                if known is None:
                    new = new or self._new(arrival, header, digest, key, size)
                    catalog.add_instance(session, new, looked=True)
                elif came_again or _is_gone(known):
                    came_again = True
                    catalog.keep_again(
                        session,
                        known.id,
                        file_key=key,
                        content_sha256=digest,
                        size_bytes=size,
                        transfer_syntax_uid=header.values["TransferSyntaxUID"],
                        now=self._clock(),
                    )
        if known is not None and not came_again and known.content_sha256 != digest:
            return self._kept_beside(arrival, header, digest, known, key)
        log.info(
            "object-kept",
            study=study_key(study_uid),
            sop_class=_CLASSES[header.values["SOPClassUID"]],
            size_bytes=size,
            calling_ae=arrival.calling_ae,
        )
        return Receipt(
            status=Status.SUCCESS,
            study_instance_uid=study_uid,
            new=known is None,
            repeated=known is not None and not came_again,
        )

    def _new(
        self, arrival: Arrival, header: Glance, digest: str, key: str, size: int
    ) -> catalog.NewInstance:
        own = header.own
        urgency, reason = (arrival.urgency, "") if own else self._urgency(arrival, header)
        return catalog.NewInstance(
            study_instance_uid=header.values["StudyInstanceUID"],
            series_instance_uid=header.values["SeriesInstanceUID"],
            sop_instance_uid=header.values["SOPInstanceUID"],
            sop_class_uid=header.values["SOPClassUID"],
            transfer_syntax_uid=header.values["TransferSyntaxUID"],
            content_sha256=digest,
            size_bytes=size,
            file_key=key,
            calling_ae=arrival.calling_ae,
            called_ae=arrival.called_ae,
            peer_host=arrival.peer_host,
            door=arrival.door,
            received_at=self._clock(),
            own=own,
            recording_kind=None if own else _kind(header),
            urgency=urgency,
            urgency_reason=reason,
            study_date=_date(header),
            accession_number=_text(header, "AccessionNumber"),
            description=_text(header, "StudyDescription"),
        )

    def _urgency(self, arrival: Arrival, header: Glance) -> tuple[int, str]:
        if arrival.urgency == LATER:
            with self._database.read() as session:
                backfilled = catalog.is_backfilled(session, header.values["StudyInstanceUID"])
            if backfilled:
                # Also where a rule would lift it: years of archive must not stand before anybody.
                return catalog.BACKFILL_URGENCY, "brought by a backfill: behind all else"
        facts = facts_of(
            header,
            calling_ae=arrival.calling_ae,
            called_ae=arrival.called_ae,
            door=arrival.door,
        )
        urgency, reason = rule_on_urgency(self._rules, facts)
        return (urgency, reason) if reason else (arrival.urgency, "")

    def _is_there(self, known: catalog.InstanceRecord | None) -> bool:
        """Whether an object is kept whole: a row may outlive its file."""
        if known is None or _is_gone(known):
            return False
        return self._files.size_bytes(known.file_key) == known.size_bytes

    def _known(
        self, arrival: Arrival, header: Glance, digest: str, known: catalog.InstanceRecord
    ) -> Receipt:
        """An object whose UID is here already: the same again, or something else under its name."""
        same = self._same(arrival, header, digest, known)
        return same or self._quarantine(arrival, digest, self._different(arrival, known), header)

    def _kept_beside(
        self,
        arrival: Arrival,
        header: Glance,
        digest: str,
        known: catalog.InstanceRecord,
        key: str,
    ) -> Receipt:
        """An object whose UID another association has brought while it was kept."""
        again = self._files.copy_out(key)
        try:
            receipt = self._known(replace(arrival, path=again), header, digest, known)
        finally:
            again.unlink(missing_ok=True)
        with self._database.write() as session:
            if not catalog.is_named(session, key):
                self._files.delete(key)
        return receipt

    def _same(
        self, arrival: Arrival, header: Glance, digest: str, known: catalog.InstanceRecord
    ) -> Receipt | None:
        if digest != known.content_sha256:
            with self._files.local(known.file_key) as kept:
                if not _same_content(kept, arrival.path):
                    return None
        return Receipt(
            status=Status.SUCCESS,
            comment="already kept",
            study_instance_uid=header.values["StudyInstanceUID"],
            repeated=True,
        )

    def _different(self, arrival: Arrival, known: catalog.InstanceRecord) -> _UnacceptableError:
        with self._files.local(known.file_key) as kept:
            what = difference(kept, arrival.path)
        return _UnacceptableError(
            Status.SUCCESS,
            f"the UID is already kept with other content ({what}); the first was left as it is",
        )

    def _quarantine(
        self, arrival: Arrival, digest: str, why: _UnacceptableError, header: Glance | None
    ) -> Receipt:
        size = _size_bytes(arrival.path)
        key = self._files.adopt(arrival.path, Area.QUARANTINE, digest)
        with self._database.write() as session:
            if arrival.comes_again and catalog.is_quarantined(session, key, why.reason):
                return _refusal(why)
            catalog.add_quarantined(
                session,
                catalog.NewQuarantined(
                    received_at=self._clock(),
                    reason=why.reason,
                    status_sent=int(why.status),
                    sop_class_uid=_uid_or_nothing(arrival.announced_class_uid),
                    sop_instance_uid=_uid_or_nothing(_text(header, "SOPInstanceUID"))
                    or _uid_or_nothing(arrival.announced_instance_uid),
                    study_instance_uid=_uid_or_nothing(_text(header, "StudyInstanceUID")),
                    calling_ae=arrival.calling_ae,
                    peer_host=arrival.peer_host,
                    file_key=key,
                    size_bytes=size,
                    sha256=digest,
                ),
            )
        log.warning(
            "object-quarantined",
            reason=why.reason,
            status=f"0x{why.status:04X}",
            calling_ae=arrival.calling_ae,
            peer=arrival.peer_host,
        )
        return _refusal(why)


def _refusal(why: _UnacceptableError) -> Receipt:
    return Receipt(
        status=why.status, comment=why.reason, refused=_WHY_REFUSED.get(why.status, "other")
    )


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_gone(known: catalog.InstanceRecord) -> bool:
    return known.file_state is not FileState.KEPT


def recording_kind(header: Dataset) -> RecordingKind | None:
    """What kind of recording an object is; None if no model may look at it."""
    return _kind(glance_of(header))


def _kind(header: Glance) -> RecordingKind | None:
    sop_class = cast(UID, header.values["SOPClassUID"])  # equal to one, and not checked again
    if sop_class in ULTRASOUND_CLASSES:
        return RecordingKind.ULTRASOUND
    if sop_class in CAPTURE_CLASSES and header.get("Modality") == "US":
        return RecordingKind.ULTRASOUND
    if sop_class in ECG_CLASSES:
        return RecordingKind.ECG
    return None


def content_digest(source: Path | BinaryIO) -> str:
    """SHA-256 of a file's data set: the file meta information is the door's, not the sender's."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return content_digest(file)
    source.seek(0)
    source.seek(data_set_start(source))
    digest = hashlib.sha256()
    while chunk := source.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def data_set_start(file: BinaryIO) -> int:
    """Where the data set of a Part-10 file begins; 0 where the file is none.

    A length in the file meta information that lies must not hide a part of the data set.
    """
    head = file.read(144)
    # PS3.10 7.1: preamble, "DICM", then (0002,0000) UL with the length of the rest.
    if head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        return 0
    start = place = 144
    stated = start + int.from_bytes(head[140:144], "little")
    while place < stated:
        file.seek(place)
        element = file.read(12)
        if len(element) < 8 or element[:2] != b"\x02\x00":
            return 0
        long = element[4:6] in (b"OB", b"UN", b"UT", b"OW", b"SQ")
        size = int.from_bytes(element[8:12] if long else element[6:8], "little")
        place += size + (12 if long else 8)
    file.seek(place)
    return place if place == stated and file.read(2) != b"\x02\x00" else 0


def _file_digest(sop_instance_uid: str, content: str) -> str:
    # Two objects may have the same content but for their UID's encoding; the name tells them apart.
    return hashlib.sha256(f"{sop_instance_uid}\n{content}".encode()).hexdigest()


def _identified(arrival: Arrival) -> Glance:
    """The header of an object that says what it is; raises _UnacceptableError otherwise."""
    header = glance(arrival.begin, _size_bytes(arrival.path)) if arrival.begin else None
    if header is None:
        try:
            header = glance_of(read_header(arrival.path))
        except ClipError as error:
            raise _UnacceptableError(
                Status.CANNOT_UNDERSTAND, f"cannot be parsed: {error}"
            ) from error
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        value = header.get(keyword)
        if not value:
            raise _UnacceptableError(Status.DOES_NOT_MATCH_CLASS, f"{keyword} is missing")
        if not _UID.fullmatch(value):
            raise _UnacceptableError(Status.DOES_NOT_MATCH_CLASS, f"{keyword} is not a UID")
    if not _UID.fullmatch(header.get("TransferSyntaxUID") or ""):
        raise _UnacceptableError(Status.CANNOT_UNDERSTAND, "the transfer syntax is not a UID")
    if header.values["SOPClassUID"] not in _CLASSES:
        raise _UnacceptableError(
            Status.CLASS_NOT_SUPPORTED,
            f"SOP class {header.values['SOPClassUID']} is not accepted here",
        )
    for keyword, announced in (
        ("SOPClassUID", arrival.announced_class_uid),
        ("SOPInstanceUID", arrival.announced_instance_uid),
        ("StudyInstanceUID", arrival.announced_study_uid),
    ):
        if announced is not None and header.values[keyword] != announced:
            raise _UnacceptableError(
                Status.DOES_NOT_MATCH_CLASS, f"{keyword} is not the one that the sender announced"
            )
    return header


def _same_content(kept: Path, other: Path) -> bool:
    """Whether two files hold the same data set in different uncompressed encodings.

    A sender may choose another uncompressed transfer syntax the second time. Compressed pixel data
    is never unpacked for this: other bytes are other content. Nor is what would need much memory.
    """
    try:
        for path in (kept, other):
            if path.stat().st_size > _MOST_COMPARED_FILE_BYTES:
                return False
            if read_header(path).file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
                return False
            if bytes_beside_pixels(path) > _MOST_COMPARED_BYTES:
                return False
        first, second = dcmread(kept), dcmread(other)
        syntaxes = {first.file_meta.TransferSyntaxUID, second.file_meta.TransferSyntaxUID}
        if len(syntaxes) == 1 or any(syntax.is_encapsulated for syntax in syntaxes):
            return False
        return _plainest_bytes(first) == _plainest_bytes(second)
    except Exception:  # noqa: BLE001 - a foreign data set may fail in any way; it is not the same
        log.warning("duplicate-not-comparable")
        return False


def _plainest_bytes(dataset: Dataset) -> bytes:
    """A data set in Implicit VR Little Endian, where value representations make no difference."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def _uid_or_nothing(value: str | None) -> str:
    """What stands in place of a UID may be a name, which the database does not keep."""
    return value if value is not None and _UID.fullmatch(value) else ""


def _text(header: Glance | None, keyword: str) -> str | None:
    value = None if header is None else header.get(keyword)
    return plain(value or "") or None


def _date(header: Glance) -> date | None:
    """Study Date where it is one; what machines write there is not always a date."""
    try:
        return datetime.strptime(_text(header, "StudyDate") or "", "%Y%m%d").date()  # noqa: DTZ007 - a date
    except ValueError:
        return None
