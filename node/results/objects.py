"""What goes into results and what comes out, and how an object of ours is known again.

UIDs are derived, never drawn: the same inputs give the same UIDs on every machine and on every
run, so that a result exists once however often it is made (PS3.5 B.2, UUID-derived UIDs).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, Comprehensive3DSRStorage

from models.finding import Finding, PackRef, Refusal
from models.packs.manifest import Signal
from models.views import ViewCall

MANUFACTURER = "echonode"
MODEL_NAME = "echonode"
RESEARCH_WORDS = "RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE"

# Group, creator and element of the mark that our objects bear besides their equipment.
PRIVATE_GROUP = 0x4EC1
PRIVATE_CREATOR = "ECHONODE RESULT"
_MARK_ELEMENT = 0x01

IMPLEMENTATION_CLASS_UID = UID("2.25.272236838838160571480219377293254213493")


class ResultError(ValueError):
    """A result cannot be made from these inputs; the message says which one and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectRef:
    """Which object: enough to refer to it from another."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedObject:
    """An object as the bytes of a Part-10 file: exactly these are kept and sent."""

    ref: ObjectRef
    transfer_syntax_uid: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ClipResult:
    """All that is known of one clip of the study.

    ``header`` has no pixels. ``not_analysed`` says in words why no model for measurements ran.
    ``capture`` is the saliency cine of this clip. ``packs`` are those that ran on it.
    """

    header: Dataset
    view: ViewCall | None = None
    findings: tuple[Finding, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    not_analysed: str | None = None
    capture: ObjectRef | None = None
    packs: tuple[PackRef, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EcgReading:
    """What a pack read of an ECG.

    ``group`` is the multiplex group of the object, from 1 on, and ``channels`` are those of the
    leads that the network saw, from 1 on (PS3.3 C.10.9). ``begin_ms`` and ``end_ms`` count from
    the group's first sample. ``group`` 0: a strip that stands in no object, such as a median beat
    that was made here.
    """

    pack: PackRef
    signal: Signal
    group: int
    channels: tuple[int, ...]
    begin_ms: float
    end_ms: float


@dataclass(frozen=True, kw_only=True)
class EcgResult:
    """All that is known of one ECG of the study.

    ``header`` has no samples. ``troubles`` are what cannot be trusted of the recording, in words.
    ``not_analysed`` says in words why no model ran. ``capture`` is the picture of this ECG and
    ``pages`` the output that each of its pages explains, in their order. ``packs`` are those that
    ran on it, ``readings`` what each of them read.
    """

    header: Dataset
    findings: tuple[Finding, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    troubles: tuple[str, ...] = ()
    not_analysed: str | None = None
    capture: ObjectRef | None = None
    pages: tuple[str, ...] = ()
    packs: tuple[PackRef, ...] = ()
    readings: tuple[EcgReading, ...] = ()


def _software_version() -> str:
    return version("echonode")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSettings:
    """What a site sets about its results.

    ``device_serial`` names this node among others and stays the same over its life.
    ``simulated_evidence`` lets outputs into a report that have only seen the simulator,
    ``demographic_estimates`` names those of age, sex, weight and height that it may hold.
    ``sop_class_uid`` is Comprehensive 3D SR, or Comprehensive SR for an archive without it.
    """

    device_serial: str = "echonode-1"
    institution: str = ""
    software_version: str = field(default_factory=_software_version)
    sop_class_uid: str = Comprehensive3DSRStorage
    report_series_number: int = 901
    report_series_description: str = "AI Echo SR (RESEARCH)"
    text_series_number: int = 903
    text_series_description: str = "AI Echo report as text (RESEARCH)"
    capture_series_number: int = 902
    capture_series_description: str = "AI saliency (RESEARCH)"
    page_series_number: int = 904
    page_series_description: str = "AI summary (RESEARCH)"
    key_series_number: int = 905
    key_series_description: str = "AI key images (RESEARCH)"
    capture_modality: str = "US"
    ecg_report_series_number: int = 911
    ecg_report_series_description: str = "AI ECG SR (RESEARCH)"
    ecg_text_series_number: int = 913
    ecg_text_series_description: str = "AI ECG report as text (RESEARCH)"
    ecg_capture_series_number: int = 912
    ecg_capture_series_description: str = "AI ECG (RESEARCH)"
    ecg_capture_modality: str = "OT"
    ecg_key_series_number: int = 915
    ecg_key_series_description: str = "AI ECG key images (RESEARCH)"
    simulated_evidence: bool = False
    demographic_estimates: frozenset[str] = frozenset()

    @property
    def device_uid(self) -> str:
        """The node's own UID, for the observer of a report (TID 1004)."""
        return derive_uid("node", self.device_serial)


def derive_uid(*parts: str) -> UID:
    """A UID from text: the same parts always give the same UID, other parts another.

    Each part goes in with its length before it, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256(b"".join(_length_prefixed(part.encode()) for part in parts)).digest()
    # PS3.5 B.2: 2.25. and a UUID as a decimal number. Version 8 is for digests (RFC 9562 5.8).
    number = bytearray(digest[:16])
    number[6] = (number[6] & 0x0F) | 0x80
    number[8] = (number[8] & 0x3F) | 0x80
    return UID(f"2.25.{uuid.UUID(bytes=bytes(number)).int}")


def series_uid(study_instance_uid: str, kind: str, settings: ReportSettings) -> UID:
    """The series of this node's results of one kind in a study: the same for every revision."""
    return derive_uid("series", study_instance_uid, kind, settings.device_uid)


def content_uid(dataset: Dataset, leave_out: Iterable[str]) -> UID:
    """A SOP Instance UID from all that an object says, less the attributes left out.

    Whatever differs in two objects beyond those gives them different UIDs, so an archive that
    keeps the first of two objects with one UID never drops a different answer.
    """
    copy = Dataset()
    copy.update({tag: dataset.get_item(tag) for tag in dataset.keys()})  # noqa: SIM118 (raw items)
    for keyword in leave_out:
        if keyword in copy:
            delattr(copy, keyword)
    _write_raw_values_as_they_are(copy)
    buffer = BytesIO()
    dcmwrite(buffer, copy, implicit_vr=False, little_endian=True)
    return derive_uid("instance", hashlib.sha256(buffer.getvalue()).hexdigest())


def mark_as_own(dataset: Dataset, kind: str) -> None:
    """Put the private mark on an object of ours. ``kind`` is "SR" or "SC"."""
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(_MARK_ELEMENT, "LO", kind)


def is_own_object(header: Dataset) -> bool:
    """Whether echonode made this object, on this node or another.

    Any one sign is enough, since archives strip private attributes and coerce equipment: the
    private mark, the manufacturer, or the contributing equipment. (The implementation in a
    file's meta information is no sign: it names whoever wrote the file, received ones too.)
    """
    return (
        _has_mark(header)
        or _is_own_equipment(header)
        or any(
            _is_own_equipment(item) for item in header.get("ContributingEquipmentSequence") or ()
        )
    )


def encode(dataset: Dataset, transfer_syntax_uid: UID) -> EncodedObject:
    """Write a finished data set as a Part-10 file in memory."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    dataset.file_meta.ImplementationVersionName = f"ECHONODE {_software_version()}"[:16]
    _write_raw_values_as_they_are(dataset)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return EncodedObject(
        ref=reference(dataset), transfer_syntax_uid=transfer_syntax_uid, data=buffer.getvalue()
    )


def reference(header: Dataset) -> ObjectRef:
    """The reference to an object with this header.

    Raises
    ------
    ResultError
        If one of the four UIDs is missing.
    """
    values: dict[str, str] = {}
    for name, keyword in (
        ("sop_class_uid", "SOPClassUID"),
        ("sop_instance_uid", "SOPInstanceUID"),
        ("series_instance_uid", "SeriesInstanceUID"),
        ("study_instance_uid", "StudyInstanceUID"),
    ):
        value = header.get(keyword)
        if not value:
            raise ResultError(f"a source object has no {keyword}: it cannot be referred to")
        values[name] = str(value)
    return ObjectRef(**values)


def _write_raw_values_as_they_are(dataset: Dataset) -> None:
    """Let pydicom write what was copied as bytes without decoding it to encode it again."""
    said = dataset.get("SpecificCharacterSet")
    charset = convert_encodings(said) if said else default_encoding
    dataset.set_original_encoding(False, True, charset)


def _length_prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part


def _has_mark(header: Dataset) -> bool:
    try:
        header.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    except KeyError:
        return False
    return True


def _is_own_equipment(dataset: Dataset) -> bool:
    manufacturer = str(dataset.get("Manufacturer") or "")
    return manufacturer.strip().casefold() == MANUFACTURER
