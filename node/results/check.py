"""The gate: what an object of ours must be before it may leave, checked without any tool.

It holds what the public validators do not notice (a wrong code, a group without tracking or
coordinates, a picture called original), and what an archive or a viewer would stumble over. An
object with a fault goes to quarantine with the fault's words. Nothing here judges what was
copied from the source: its patient and study stay as they came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from node.results import codes
from node.results.codes import Concept
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from node.results.jpeg import read_jpeg_layout
from node.results.objects import MANUFACTURER, RESEARCH_WORDS, EncodedObject, is_own_object
from node.results.report import MAX_MEASUREMENTS

_REPORTS = frozenset((Comprehensive3DSRStorage, ComprehensiveSRStorage))
_CAPTURES = frozenset(
    (MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing wrong. ``rule`` is a short name that does not change, for counting."""

    rule: str
    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem} [{self.rule}]"


def check_object(made: EncodedObject | bytes) -> tuple[Fault, ...]:
    """All faults of a report or a capture; empty where it may leave.

    Parameters
    ----------
    made
        An object, or the bytes of its Part-10 file.
    """
    data = made.data if isinstance(made, EncodedObject) else made
    try:
        dataset = dcmread(BytesIO(data))
    except (InvalidDicomError, EOFError, ValueError, KeyError, OSError) as error:
        return (_fault("readable", "file", f"cannot be read back: {error}"),)
    faults = list(_check_common(dataset))
    if isinstance(made, EncodedObject):
        faults += _check_reference(dataset, made)
    sop_class = dataset.get("SOPClassUID")
    if sop_class in _REPORTS:
        faults += _check_report(dataset)
    elif sop_class in _CAPTURES:
        faults += _check_capture(dataset)
    else:
        faults.append(_fault("class", "SOPClassUID", f"{sop_class} is no class that we make"))
    return tuple(faults)


def _fault(rule: str, where: str, problem: str) -> Fault:
    return Fault(rule=rule, where=where, problem=problem)


# What holds for every object.

_NEVER_EMPTY = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "SeriesDescription",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ContentDate",
    "ContentTime",
)
_ALWAYS_THERE = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)


def _check_common(dataset: Dataset) -> Iterator[Fault]:
    for keyword in _NEVER_EMPTY:
        if not _filled(dataset, keyword):
            yield _fault("required", keyword, "missing or empty")
    for keyword in _ALWAYS_THERE:
        if keyword not in dataset:
            yield _fault("required", keyword, "missing (it may be empty)")
    meta = dataset.file_meta
    for keyword, in_meta in (
        ("SOPClassUID", "MediaStorageSOPClassUID"),
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
    ):
        if dataset.get(keyword) != meta.get(in_meta):
            yield _fault("meta", in_meta, f"differs from {keyword}")
    if "RESEARCH" not in str(dataset.get("SeriesDescription") or ""):
        yield _fault("research", "SeriesDescription", "does not say RESEARCH")
    if not is_own_object(dataset):
        yield _fault("own", "Manufacturer", "the node would not know its own object")
    yield from _check_equipment(dataset)
    yield from _check_lengths(dataset)


def _check_equipment(dataset: Dataset) -> Iterator[Fault]:
    if str(dataset.get("Manufacturer") or "") != MANUFACTURER:
        yield _fault("equipment", "Manufacturer", f"is not {MANUFACTURER}")
    items = dataset.get("ContributingEquipmentSequence")
    if not items and ("ContributingEquipmentSequence" in dataset or _speaks_for_a_model(dataset)):
        yield _fault("equipment", "ContributingEquipmentSequence", "missing or empty")
    for index, item in enumerate(items or (), start=1):
        where = f"ContributingEquipmentSequence item {index}"
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            if not _filled(item, keyword):
                yield _fault("equipment", where, f"no {keyword}")
        purpose = item.get("PurposeOfReferenceCodeSequence")
        if not purpose or not _is(purpose[0], codes.PROCESSING_EQUIPMENT):
            yield _fault("equipment", where, "its purpose is not Processing Equipment")


def _speaks_for_a_model(dataset: Dataset) -> bool:
    """Whether it holds what a model gave: a picture, or a measurement."""
    return dataset.get("SOPClassUID") in _CAPTURES or any(True for _ in _groups(dataset))


_LIMITS = {"SH": 16, "LO": 64, "CS": 16, "DS": 16, "IS": 12, "ST": 1024, "UI": 64}  # PS3.5 6.2
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_CS = re.compile(r"[A-Z0-9 _]*")
_PATTERNS = {
    "UI": _UID,
    "CS": _CS,
    "DA": re.compile(r"(\d{8})?"),
    "TM": re.compile(r"(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?"),
    "DS": re.compile(r"\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)?\s*"),
    "IS": re.compile(r"\s*([+-]?\d+)?\s*"),
}
_REFERRING = (  # to objects of others, whose UIDs are as they are
    "ReferencedSOPInstanceUID",
    "CurrentRequestedProcedureEvidenceSequence",
    "LossyImageCompressionMethod",
)
_COPIED = frozenset(
    tag_for_keyword(keyword)
    for keyword in ("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES, *_REFERRING)
)


def _check_lengths(dataset: Dataset) -> Iterator[Fault]:
    """Lengths and forms of values (PS3.5 6.2), except what was copied."""
    for tag in dataset.keys():  # noqa: SIM118 (iterating would decode what was copied)
        if tag in _COPIED:
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                yield from _check_lengths(item)
            continue
        where = element.keyword or str(element.tag)
        values = element.value if element.VM > 1 else [element.value]
        for value in values if element.VR in _LIMITS or element.VR in _PATTERNS else ():
            said = "" if value is None else _as_written(value)
            limit = _LIMITS.get(element.VR)
            if limit is not None and len(said) > limit:
                yield _fault("length", where, f"{len(said)} characters, {element.VR} has {limit}")
            pattern = _PATTERNS.get(element.VR)
            if pattern is not None and said and not pattern.fullmatch(said):
                yield _fault("form", where, f"{said[:40]!r} is no {element.VR}")


def _as_written(value: object) -> str:
    return str(getattr(value, "original_string", value))


def _check_reference(dataset: Dataset, made: EncodedObject) -> Iterator[Fault]:
    for keyword, said in (
        ("SOPClassUID", made.ref.sop_class_uid),
        ("SOPInstanceUID", made.ref.sop_instance_uid),
        ("SeriesInstanceUID", made.ref.series_instance_uid),
        ("StudyInstanceUID", made.ref.study_instance_uid),
    ):
        if str(dataset.get(keyword)) != said:
            yield _fault("reference", keyword, "differs from the object's reference")
    if dataset.file_meta.get("TransferSyntaxUID") != made.transfer_syntax_uid:
        yield _fault("reference", "TransferSyntaxUID", "differs from the object's reference")


# Reports.

_FLAGS = {
    "Modality": "SR",
    "CompletionFlag": "COMPLETE",
    "VerificationFlag": "UNVERIFIED",
    "PreliminaryFlag": "PRELIMINARY",
}

# PS3.3 A.35.13.3.1.2, as far as our reports go: what may stand below what, and how.
_RELATIONSHIPS: dict[str, dict[str, frozenset[str]]] = {
    "CONTAINER": {
        "CONTAINS": frozenset(("CODE", "NUM", "TEXT", "IMAGE", "SCOORD", "CONTAINER")),
        "HAS OBS CONTEXT": frozenset(("CODE", "TEXT", "UIDREF")),
        "HAS CONCEPT MOD": frozenset(("CODE", "TEXT")),
    },
    "NUM": {
        "HAS CONCEPT MOD": frozenset(("CODE", "TEXT")),
        "HAS PROPERTIES": frozenset(("NUM",)),
    },
    "CODE": {"HAS CONCEPT MOD": frozenset(("CODE", "TEXT"))},
    "IMAGE": {"HAS ACQ CONTEXT": frozenset(("CODE", "TEXT", "NUM"))},
    "SCOORD": {"SELECTED FROM": frozenset(("IMAGE",))},
}
_VALUE_OF = {
    "CODE": "ConceptCodeSequence",
    "NUM": "MeasuredValueSequence",
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "IMAGE": "ReferencedSOPSequence",
    "SCOORD": "GraphicData",
    "CONTAINER": "ContinuityOfContent",
}


def _check_report(dataset: Dataset) -> Iterator[Fault]:
    for keyword, value in _FLAGS.items():
        if dataset.get(keyword) != value:
            yield _fault("flags", keyword, f"is not {value}")
    for keyword in ("PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence"):
        if keyword not in dataset:
            yield _fault("required", keyword, "missing (it may be empty)")
    if dataset.file_meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
        yield _fault("syntax", "TransferSyntaxUID", "is not Explicit VR Little Endian")
    schemes = {
        item.get("CodingSchemeDesignator")
        for item in dataset.get("CodingSchemeIdentificationSequence") or ()
    }
    if codes.PRIVATE_SCHEME not in schemes:
        yield _fault(
            "scheme", "CodingSchemeIdentificationSequence", f"{codes.PRIVATE_SCHEME} is missing"
        )
    yield from _check_item(dataset, "root")
    yield from _check_root(dataset)
    yield from _check_evidence(dataset)
    groups = list(_groups(dataset))
    tracking: set[str] = set()
    for number, group in enumerate(groups, start=1):
        yield from _check_group(group, f"measurement group {number}")
        uid = _child(group, codes.TRACKING_UID)
        said = str(uid.get("UID")) if uid is not None else ""
        if said and said in tracking:
            yield _fault("tracking", f"measurement group {number}", "shares its tracking UID")
        tracking.add(said)


def _check_item(item: Dataset, where: str) -> Iterator[Fault]:
    """A content item and all below it."""
    value_type = str(item.get("ValueType") or "")
    name = item.get("ConceptNameCodeSequence")
    if not name:
        yield _fault("code", where, "no concept name")
    keyword = _VALUE_OF.get(value_type)
    if keyword is None:
        yield _fault("relationship", where, f"value type {value_type!r} does not belong here")
    elif not _filled(item, keyword):
        yield _fault("value", where, f"no {keyword}")
    if value_type == "CONTAINER" and item.get("ContinuityOfContent") != "SEPARATE":
        yield _fault("separate", where, "the container is not SEPARATE")
    for sequence in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
        for concept in item.get(sequence) or ():
            yield from _check_code(concept, where)
    if value_type == "NUM":
        yield from _check_number(item, where)
    if value_type == "SCOORD" and (
        item.get("GraphicType") != "POINT"
        or len(item.get("GraphicData") or ()) != 2
        or not item.get("ContentSequence")
    ):
        yield _fault("coordinates", where, "is not one point in an image")
    for index, child in enumerate(item.get("ContentSequence") or (), start=1):
        place = f"{where}.{index}"
        relationship = str(child.get("RelationshipType") or "")
        allowed = _RELATIONSHIPS.get(value_type, {}).get(relationship, frozenset())
        if child.get("ValueType") not in allowed:
            yield _fault(
                "relationship",
                place,
                f"{value_type} {relationship} {child.get('ValueType')} is not allowed",
            )
        yield from _check_item(child, place)


def _check_code(concept: Dataset, where: str) -> Iterator[Fault]:
    key = (str(concept.get("CodeValue")), str(concept.get("CodingSchemeDesignator")))
    words = f"({key[0]}, {key[1]})"
    if key in codes.DEMOGRAPHIC_CODES:
        yield _fault("demographics", where, f"{words} is the patient's own data")
    elif key not in codes.TABLE:
        yield _fault("code", where, f"{words} is not in our table of codes")
    elif codes.TABLE[key].meaning != concept.get("CodeMeaning"):
        yield _fault("code", where, f"{words} does not mean {concept.get('CodeMeaning')!r}")


def _check_number(item: Dataset, where: str) -> Iterator[Fault]:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return
    written = _as_written(measured[0].get("NumericValue"))
    if not _PATTERNS["DS"].fullmatch(written) or not written.strip():
        yield _fault("value", where, f"NumericValue {written!r} is no number")
    units = measured[0].get("MeasurementUnitsCodeSequence")
    if not units:
        yield _fault("units", where, "a number without units")
    for unit in units or ():
        yield from _check_code(unit, where)
        if unit.get("CodingSchemeDesignator") != "UCUM":
            yield _fault("units", where, "the unit is not UCUM")


def _check_root(dataset: Dataset) -> Iterator[Fault]:
    template = dataset.get("ContentTemplateSequence")
    if not template or template[0].get("TemplateIdentifier") != "1500":
        yield _fault("template", "root", "is not TID 1500")
    title = dataset.get("ConceptNameCodeSequence")
    if not title or not _is(title[0], codes.IMAGING_MEASUREMENT_REPORT):
        yield _fault("template", "root", "is not an Imaging Measurement Report")
    for name, value in (
        (codes.LANGUAGE, codes.ENGLISH_US),
        (codes.OBSERVER_TYPE, codes.DEVICE),
        (codes.PROCEDURE_REPORTED, codes.TRANSTHORACIC_ECHO),
    ):
        item = _child(dataset, name)
        said = item.get("ConceptCodeSequence") if item is not None else None
        if not said or not _is(said[0], value):
            yield _fault("context", "root", f"{name.meaning} is not {value.meaning}")
    for name in (codes.DEVICE_UID, codes.IMAGE_LIBRARY, codes.QUALITATIVE_EVALUATIONS):
        if _child(dataset, name) is None:
            yield _fault("context", "root", f"{name.meaning} is missing")


def _check_evidence(dataset: Dataset) -> Iterator[Fault]:
    listed: dict[str, str] = {}
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                listed[str(item.ReferencedSOPInstanceUID)] = str(item.ReferencedSOPClassUID)
    if not listed:
        yield _fault("evidence", "CurrentRequestedProcedureEvidenceSequence", "missing or empty")
    for item in _walk(dataset):
        for reference in item.get("ReferencedSOPSequence") or ():
            uid = str(reference.get("ReferencedSOPInstanceUID"))
            if uid not in listed:
                yield _fault("evidence", uid, "is referred to, but not listed as evidence")
            elif listed[uid] != str(reference.get("ReferencedSOPClassUID")):
                yield _fault("evidence", uid, "is listed as evidence with another class")


def _check_group(group: Dataset, where: str) -> Iterator[Fault]:
    for name in (
        codes.TRACKING_IDENTIFIER,
        codes.TRACKING_UID,
        codes.FINDING,
        codes.ALGORITHM_NAME,
        codes.ALGORITHM_VERSION,
        codes.ALGORITHM_PARAMETERS,
    ):
        if _child(group, name) is None:
            rule = (
                "tracking" if name in (codes.TRACKING_IDENTIFIER, codes.TRACKING_UID) else "group"
            )
            yield _fault(rule, where, f"no {name.meaning}")
    children = group.get("ContentSequence") or ()
    if not any(child.get("ValueType") == "SCOORD" for child in children):
        yield _fault("coordinates", where, "no spatial coordinates: OHIF would fail on it")
    count = sum(child.get("ValueType") == "NUM" for child in children)
    if not 1 <= count <= MAX_MEASUREMENTS:
        yield _fault("group", where, f"{count} measurements instead of 1 to {MAX_MEASUREMENTS}")
    comments = [
        str(child.get("TextValue") or "") for child in children if child.get("ValueType") == "TEXT"
    ]
    if not any(RESEARCH_WORDS in comment for comment in comments):
        yield _fault("research", where, f"does not say {RESEARCH_WORDS!r}")
    parameters = [
        str(child.get("TextValue") or "")
        for child in children
        if _named(child, codes.ALGORITHM_PARAMETERS)
    ]
    if not any(re.fullmatch(r"weights_sha256=[0-9a-f]{64}", each) for each in parameters):
        yield _fault("group", where, "the digest of the weights is missing")


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence") or ():
        if _named(item, codes.IMAGING_MEASUREMENTS):
            yield from item.get("ContentSequence") or ()


def _walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence") or ():
        yield from _walk(child)


def _child(item: Dataset, name: Concept) -> Dataset | None:
    for child in item.get("ContentSequence") or ():
        if _named(child, name):
            found: Dataset = child
            return found
    return None


def _named(item: Dataset, name: Concept) -> bool:
    sequence = item.get("ConceptNameCodeSequence")
    return bool(sequence) and _is(sequence[0], name)


def _is(item: Dataset, concept: Concept) -> bool:
    return (item.get("CodeValue"), item.get("CodingSchemeDesignator")) == (
        concept.value,
        concept.scheme,
    )


def _filled(item: Dataset, keyword: str) -> bool:
    value = item.get(keyword)
    return value is not None and (not isinstance(value, str | Sequence) or len(value) > 0)


# Captures.

_CAPTURE_VALUES: dict[str, object] = {
    "ImageType": ["DERIVED", "SECONDARY"],
    "ConversionType": "WSD",
    "BurnedInAnnotation": "NO",
    "BodyPartExamined": "HEART",
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "YBR_FULL_422",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
    "LossyImageCompression": "01",
}


def _check_capture(dataset: Dataset) -> Iterator[Fault]:
    if dataset.get("Modality") not in ("US", "OT"):
        yield _fault("modality", "Modality", f"{dataset.get('Modality')} is neither US nor OT")
    for keyword, value in _CAPTURE_VALUES.items():
        said = dataset.get(keyword)
        plain = list(said) if isinstance(value, list) and said is not None else said
        if plain != value:
            yield _fault("image", keyword, f"is {plain!r} instead of {value!r}")
    if "PatientOrientation" not in dataset:
        yield _fault("required", "PatientOrientation", "missing (it may be empty)")
    if RESEARCH_WORDS not in str(dataset.get("DerivationDescription") or ""):
        yield _fault("research", "DerivationDescription", f"does not say {RESEARCH_WORDS!r}")
    if dataset.file_meta.get("TransferSyntaxUID") != JPEGBaseline8Bit:
        yield _fault("syntax", "TransferSyntaxUID", "is not JPEG Baseline")
    yield from _check_source_image(dataset)
    yield from _check_compression(dataset)
    yield from _check_cine(dataset)
    yield from _check_frames(dataset)


def _check_source_image(dataset: Dataset) -> Iterator[Fault]:
    where = "SourceImageSequence"
    items = dataset.get(where)
    if not items:
        yield _fault("source", where, "missing: the picture would come from nowhere")
    for item in items or ():
        for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"):
            if not _filled(item, keyword):
                yield _fault("source", where, f"no {keyword}")
        purpose = item.get("PurposeOfReferenceCodeSequence")
        if not purpose or not _is(purpose[0], codes.SOURCE_IMAGE):
            yield _fault("source", where, "its purpose is not that of a source image")


def _check_compression(dataset: Dataset) -> Iterator[Fault]:
    keywords = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    counts = [dataset[keyword].VM if keyword in dataset else 0 for keyword in keywords]
    if 0 in counts or counts[0] != counts[1]:
        yield _fault("compression", keywords[0], "not one ratio for each method")


def _check_cine(dataset: Dataset) -> Iterator[Fault]:
    if dataset.get("SOPClassUID") == SecondaryCaptureImageStorage:
        for keyword in ("NumberOfFrames", "FrameIncrementPointer"):
            if keyword in dataset:
                yield _fault("cine", keyword, "stands in a class of one frame")
        return
    count = int(dataset.get("NumberOfFrames") or 0)
    if count < 1:
        yield _fault("cine", "NumberOfFrames", "missing")
    if count <= 1:
        return
    pointer = dataset.get("FrameIncrementPointer")
    keyword = "" if pointer is None else keyword_for_tag(pointer)
    if keyword == "FrameTime":
        if not float(dataset.get("FrameTime") or 0.0) > 0.0:
            yield _fault("cine", "FrameTime", "missing or not positive")
    elif keyword == "FrameTimeVector":
        times = dataset["FrameTimeVector"].VM if "FrameTimeVector" in dataset else 0
        if times != count:
            yield _fault("cine", "FrameTimeVector", "not one time for each frame")
    else:
        yield _fault("cine", "FrameIncrementPointer", "points at no frame times")


def _check_frames(dataset: Dataset) -> Iterator[Fault]:
    """Whether the pixels are what their labels say."""
    count = int(dataset.get("NumberOfFrames") or 1)
    if "PixelData" not in dataset:
        yield _fault("pixels", "PixelData", "missing")
        return
    try:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    except (ValueError, EOFError) as error:
        yield _fault("pixels", "PixelData", f"cannot be taken apart: {error}")
        return
    if len(frames) != count:
        yield _fault("pixels", "PixelData", f"{len(frames)} frames instead of {count}")
    size = (dataset.get("Rows"), dataset.get("Columns"))
    for number, frame in enumerate(frames, start=1):
        layout = read_jpeg_layout(frame)
        if layout is None or not layout.is_baseline_422:
            yield _fault("pixels", f"frame {number}", "is not JPEG baseline in colour, 4:2:2")
        elif (layout.rows, layout.columns) != size:
            yield _fault("pixels", f"frame {number}", f"is {layout.rows} x {layout.columns} pixels")
