"""The gate's rules for documents: the content tree, its codes, its evidence, its groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

from node.results import codes
from node.results.check_values import DECIMAL, as_written
from node.results.faults import Fault, child_named, fault, filled, is_code, is_named, walk
from node.results.groups import MAX_MEASUREMENTS
from node.results.iods import WAVEFORM_CLASSES
from node.results.objects import RESEARCH_WORDS

_FLAGS = {
    "Modality": "SR",
    "CompletionFlag": "COMPLETE",
    "VerificationFlag": "UNVERIFIED",
    "PreliminaryFlag": "PRELIMINARY",
}

# PS3.3 A.35.13.3.1.2 and A.35.4.3.1.2, as far as our documents go: what may stand below what.
_RELATIONSHIPS: dict[str, dict[str, frozenset[str]]] = {
    "CONTAINER": {
        "CONTAINS": frozenset(
            ("CODE", "NUM", "TEXT", "IMAGE", "SCOORD", "WAVEFORM", "TCOORD", "CONTAINER")
        ),
        "HAS OBS CONTEXT": frozenset(("CODE", "TEXT", "UIDREF")),
        "HAS CONCEPT MOD": frozenset(("CODE", "TEXT")),
    },
    "NUM": {
        "HAS CONCEPT MOD": frozenset(("CODE", "TEXT")),
        "HAS PROPERTIES": frozenset(("NUM",)),
        "INFERRED FROM": frozenset(("TCOORD",)),
    },
    "CODE": {"HAS CONCEPT MOD": frozenset(("CODE", "TEXT"))},
    "IMAGE": {"HAS ACQ CONTEXT": frozenset(("CODE", "TEXT", "NUM"))},
    "SCOORD": {"SELECTED FROM": frozenset(("IMAGE",))},
    "TCOORD": {"SELECTED FROM": frozenset(("WAVEFORM",))},
}
_VALUE_OF = {
    "CODE": "ConceptCodeSequence",
    "NUM": "MeasuredValueSequence",
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "IMAGE": "ReferencedSOPSequence",
    "SCOORD": "GraphicData",
    "WAVEFORM": "ReferencedSOPSequence",
    "TCOORD": "TemporalRangeType",
    "CONTAINER": "ContinuityOfContent",
}

_NAMELESS = ("IMAGE", "WAVEFORM")  # of a key object have no name (TID 2010)
_NOT_IN_TEXT = ("NUM", "SCOORD", "SCOORD3D", "TCOORD")
_PROCEDURES = (codes.TRANSTHORACIC_ECHO, codes.TWELVE_LEAD_ECG)


def check_report(dataset: Dataset) -> Iterator[Fault]:
    """A report: TID 1500, or a text for people beside it."""
    for keyword, value in _FLAGS.items():
        if dataset.get(keyword) != value:
            yield fault("flags", keyword, f"is not {value}")
    yield from _check_document(dataset)
    schemes = {
        item.get("CodingSchemeDesignator")
        for item in dataset.get("CodingSchemeIdentificationSequence") or ()
    }
    if codes.PRIVATE_SCHEME not in schemes:
        yield fault(
            "scheme", "CodingSchemeIdentificationSequence", f"{codes.PRIVATE_SCHEME} is missing"
        )
    if dataset.get("SOPClassUID") == BasicTextSRStorage:
        for item in walk(dataset):
            if item.get("ValueType") in _NOT_IN_TEXT:
                yield fault(
                    "class", "root", f"Basic Text SR has no {item.ValueType} (PS3.3 A.35.1)"
                )
    if not any(RESEARCH_WORDS in str(item.get("TextValue") or "") for item in walk(dataset)):
        yield fault("research", "root", f"does not say {RESEARCH_WORDS!r}")
    if _is_template(dataset, "2000"):
        if not is_named(dataset, codes.ECHO_REPORT) and not is_named(dataset, codes.ECG_REPORT):
            yield fault("template", "root", "is TID 2000 without its title")
    elif is_named(dataset, codes.ECHO_REPORT):
        yield fault("template", "root", "is not TID 2000")
    else:
        yield from _check_measurement_report(dataset)


def check_key_object(dataset: Dataset) -> Iterator[Fault]:
    """A Key Object Selection (TID 2010) that points at clips, ECGs and pictures of them."""
    if dataset.get("Modality") != "KO":
        yield fault("modality", "Modality", f"{dataset.get('Modality')} is not KO")
    if not _is_template(dataset, "2010"):
        yield fault("template", "root", "is not TID 2010")
    yield from _check_document(dataset)
    if not any(item.get("ValueType") in _NAMELESS for item in walk(dataset)):
        yield fault("value", "root", "points at nothing")


def speaks_for_a_model(dataset: Dataset) -> bool:
    """Whether a document holds what a model gave."""
    return any(True for _ in _groups(dataset))


def _check_document(dataset: Dataset) -> Iterator[Fault]:
    if dataset.file_meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
        yield fault("syntax", "TransferSyntaxUID", "is not Explicit VR Little Endian")
    yield from _check_item(dataset, "root")
    yield from _check_evidence(dataset)


def _check_item(item: Dataset, where: str) -> Iterator[Fault]:
    """A content item and all below it."""
    value_type = str(item.get("ValueType") or "")
    if not item.get("ConceptNameCodeSequence") and value_type not in _NAMELESS:
        yield fault("code", where, "no concept name")
    keyword = _VALUE_OF.get(value_type)
    if keyword is None:
        yield fault("relationship", where, f"value type {value_type!r} does not belong here")
    elif not filled(item, keyword):
        yield fault("value", where, f"no {keyword}")
    if value_type == "CONTAINER" and item.get("ContinuityOfContent") != "SEPARATE":
        yield fault("separate", where, "the container is not SEPARATE")
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
        yield fault("coordinates", where, "is not one point in an image")
    if value_type == "TCOORD":
        yield from _check_stretch(item, where)
    if value_type == "WAVEFORM":
        yield from _check_waveform(item, where)
    for index, each in enumerate(item.get("ContentSequence") or (), start=1):
        place = f"{where}.{index}"
        relationship = str(each.get("RelationshipType") or "")
        allowed = _RELATIONSHIPS.get(value_type, {}).get(relationship, frozenset())
        if each.get("ValueType") not in allowed:
            yield fault(
                "relationship",
                place,
                f"{value_type} {relationship} {each.get('ValueType')} is not allowed",
            )
        yield from _check_item(each, place)


def _check_stretch(item: Dataset, where: str) -> Iterator[Fault]:
    """PS3.3 C.18.7: from a second to a later one of a recording."""
    written = item.get("ReferencedTimeOffsets")
    offsets = [float(each) for each in written] if isinstance(written, MultiValue) else []
    if (
        item.get("TemporalRangeType") != "SEGMENT"
        or len(offsets) != 2
        or not 0.0 <= offsets[0] < offsets[1]
        or len(item.get("ContentSequence") or ()) != 1
    ):
        yield fault("coordinates", where, "is not one stretch of a waveform")


def _check_waveform(item: Dataset, where: str) -> Iterator[Fault]:
    """PS3.3 C.18.5: an ECG, and pairs of its groups and channels, both from 1 on."""
    for reference in item.get("ReferencedSOPSequence") or ():
        if reference.get("ReferencedSOPClassUID") not in WAVEFORM_CLASSES:
            yield fault("value", where, "refers to no ECG as a waveform")
        channels = reference.get("ReferencedWaveformChannels")
        if channels is not None and (len(channels) % 2 or min(channels, default=0) < 1):
            yield fault("coordinates", where, "its channels are not pairs of numbers from 1 on")


def _check_code(concept: Dataset, where: str) -> Iterator[Fault]:
    key = (str(concept.get("CodeValue")), str(concept.get("CodingSchemeDesignator")))
    words = f"({key[0]}, {key[1]})"
    if key in codes.DEMOGRAPHIC_CODES:
        yield fault("demographics", where, f"{words} is the patient's own data")
    elif key not in codes.TABLE:
        yield fault("code", where, f"{words} is not in our table of codes")
    elif codes.TABLE[key].meaning != concept.get("CodeMeaning"):
        yield fault("code", where, f"{words} does not mean {concept.get('CodeMeaning')!r}")


def _check_number(item: Dataset, where: str) -> Iterator[Fault]:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return
    written = as_written(measured[0].get("NumericValue"))
    if not DECIMAL.fullmatch(written) or not written.strip():
        yield fault("value", where, f"NumericValue {written!r} is no number")
    units = measured[0].get("MeasurementUnitsCodeSequence")
    if not units:
        yield fault("units", where, "a number without units")
    for unit in units or ():
        yield from _check_code(unit, where)
        if unit.get("CodingSchemeDesignator") != "UCUM":
            yield fault("units", where, "the unit is not UCUM")


def _check_measurement_report(dataset: Dataset) -> Iterator[Fault]:
    """TID 1500; or the same groups as an ECG report, where no picture bears their points."""
    pictured = not is_named(dataset, codes.ECG_REPORT)
    yield from _check_root(dataset, pictured=pictured)
    groups = list(_groups(dataset))
    for number, group in enumerate(groups, start=1):
        yield from _check_group(group, f"measurement group {number}", pictured=pictured)
    items = (child_named(group, codes.TRACKING_UID) for group in groups)
    uids = Counter(str(item.get("UID")) for item in items if item is not None)
    for uid, count in uids.items():
        if count > 1:
            yield fault("tracking", uid, f"is the tracking UID of {count} groups")


def _check_root(dataset: Dataset, *, pictured: bool) -> Iterator[Fault]:
    if pictured and not _is_template(dataset, "1500"):
        yield fault("template", "root", "is not TID 1500")
    if pictured and not is_named(dataset, codes.IMAGING_MEASUREMENT_REPORT):
        yield fault("template", "root", "is not an Imaging Measurement Report")
    for name, values in (
        (codes.LANGUAGE, (codes.ENGLISH_US,)),
        (codes.OBSERVER_TYPE, (codes.DEVICE,)),
        (codes.PROCEDURE_REPORTED, _PROCEDURES),
    ):
        item = child_named(dataset, name)
        said = item.get("ConceptCodeSequence") if item is not None else None
        if not said or not any(is_code(said[0], value) for value in values):
            meanings = " or ".join(value.meaning for value in values)
            yield fault("context", "root", f"{name.meaning} is not {meanings}")
    needed = [codes.DEVICE_UID, codes.QUALITATIVE_EVALUATIONS]
    if not _of_ecgs(dataset):
        needed.append(codes.IMAGE_LIBRARY)
    for name in needed:
        if child_named(dataset, name) is None:
            yield fault("context", "root", f"{name.meaning} is missing")


def _of_ecgs(dataset: Dataset) -> bool:
    """Whether it reports ECGs: TID 1600 has nothing to say of what is no image."""
    item = child_named(dataset, codes.PROCEDURE_REPORTED) or Dataset()
    said = item.get("ConceptCodeSequence") or ()
    return any(is_code(each, codes.TWELVE_LEAD_ECG) for each in said)


def _check_evidence(dataset: Dataset) -> Iterator[Fault]:
    listed: dict[str, str] = {}
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or ():
        if study.get("StudyInstanceUID") != dataset.get("StudyInstanceUID"):
            yield fault("evidence", "StudyInstanceUID", "the evidence is of another study")
        for series in study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                uid = str(item.get("ReferencedSOPInstanceUID"))
                listed[uid] = str(item.get("ReferencedSOPClassUID"))
    if not listed:
        yield fault("evidence", "CurrentRequestedProcedureEvidenceSequence", "missing or empty")
    for item in walk(dataset):
        for reference in item.get("ReferencedSOPSequence") or ():
            uid = str(reference.get("ReferencedSOPInstanceUID"))
            if uid not in listed:
                yield fault("evidence", uid, "is referred to, but not listed as evidence")
            elif listed[uid] != str(reference.get("ReferencedSOPClassUID")):
                yield fault("evidence", uid, "is listed as evidence with another class")


_SOURCES = ("SCOORD", "TCOORD", "WAVEFORM")
_TRACKING = (codes.TRACKING_IDENTIFIER, codes.TRACKING_UID)
_GROUP_HEAD = (
    *_TRACKING,
    codes.FINDING,
    codes.ALGORITHM_NAME,
    codes.ALGORITHM_VERSION,
    codes.ALGORITHM_PARAMETERS,
)


def _check_group(group: Dataset, where: str, *, pictured: bool) -> Iterator[Fault]:
    for name in _GROUP_HEAD:
        if child_named(group, name) is None:
            rule = "tracking" if name in _TRACKING else "group"
            yield fault(rule, where, f"no {name.meaning}")
    items = group.get("ContentSequence") or ()
    if pictured and not any(item.get("ValueType") == "SCOORD" for item in items):
        yield fault("coordinates", where, "no spatial coordinates: OHIF would fail on it")
    if not any(item.get("ValueType") in _SOURCES for item in items):
        yield fault("coordinates", where, "does not say what was read")
    count = sum(item.get("ValueType") == "NUM" for item in items)
    if not 1 <= count <= MAX_MEASUREMENTS:
        yield fault("group", where, f"{count} measurements instead of 1 to {MAX_MEASUREMENTS}")
    texts = [str(item.get("TextValue") or "") for item in items if item.get("ValueType") == "TEXT"]
    if not any(RESEARCH_WORDS in text for text in texts):
        yield fault("research", where, f"does not say {RESEARCH_WORDS!r}")
    parameters = [
        str(item.get("TextValue") or "")
        for item in items
        if is_named(item, codes.ALGORITHM_PARAMETERS)
    ]
    if not any(re.fullmatch(r"weights_sha256=[0-9a-f]{64}", each) for each in parameters):
        yield fault("group", where, "the digest of the weights is missing")


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence") or ():
        if is_named(item, codes.IMAGING_MEASUREMENTS):
            yield from item.get("ContentSequence") or ()


def _is_template(dataset: Dataset, identifier: str) -> bool:
    template = dataset.get("ContentTemplateSequence")
    return bool(template) and template[0].get("TemplateIdentifier") == identifier
