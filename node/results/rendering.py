"""A report as text for a terminal: short, in the order in which a reader wants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from node.results import codes
from node.results.codes import Concept

_INDENT = "  "

# In the heading of the report or of a group, or of use to machines only.
_NOT_LISTED = (
    codes.LANGUAGE, codes.OBSERVER_TYPE, codes.DEVICE_UID, codes.DEVICE_NAME,
    codes.DEVICE_MANUFACTURER, codes.DEVICE_MODEL, codes.DEVICE_SERIAL, codes.IMAGE_LIBRARY,
    codes.TRACKING_IDENTIFIER, codes.TRACKING_UID, codes.FINDING, codes.FINDING_SITE,
    codes.ALGORITHM_FAMILY, codes.ALGORITHM_NAME, codes.ALGORITHM_VERSION,
    codes.ALGORITHM_MANUFACTURER, codes.ALGORITHM_PARAMETERS, codes.INTERVAL,
)  # fmt: skip


def render_report(report: bytes | Dataset) -> str:
    """A Structured Report as indented lines.

    Parameters
    ----------
    report
        The bytes of a Part-10 file, or the data set.

    Raises
    ------
    ValueError
        If it is no Structured Report.
    """
    dataset = dcmread(BytesIO(report)) if isinstance(report, bytes) else report
    if "ContentSequence" not in dataset or "ConceptNameCodeSequence" not in dataset:
        raise ValueError("no Structured Report: it has no content tree")
    return "\n".join((*_heading(dataset), *_items(dataset, 0)))


def _heading(dataset: Dataset) -> Iterator[str]:
    yield f"{_name(dataset)} - {dataset.get('SeriesDescription') or ''}"
    date = str(dataset.get("ContentDate") or "")
    if len(date) == len("YYYYMMDD"):
        date = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    flags = ("CompletionFlag", "VerificationFlag", "PreliminaryFlag")
    state = ", ".join(str(dataset.get(flag)).lower() for flag in flags if dataset.get(flag))
    yield f"Revision {dataset.get('InstanceNumber')}, {date}, {state}"
    for study in dataset.get("PredecessorDocumentsSequence") or ():
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                yield f"Takes the place of {item.ReferencedSOPInstanceUID}"


def _items(parent: Dataset, depth: int) -> Iterator[str]:
    for item in _below(parent):
        if any(_has_name(item, concept) for concept in _NOT_LISTED) and not _is_sentence(item):
            continue
        if _has_name(item, codes.MEASUREMENT_GROUP):
            yield from _group(item, depth)
        elif item.get("ValueType") == "CONTAINER":
            if depth == 0:
                yield ""
            yield f"{_INDENT * depth}{_name(item)}"
            yield from _items(item, depth + 1)
        else:
            yield f"{_INDENT * depth}{_line(item)}"


def _is_sentence(item: Dataset) -> bool:
    """A finding in words, as a text report has it, and not in codes, as a group's heading does."""
    return _has_name(item, codes.FINDING) and item.get("ValueType") == "TEXT"


def _group(group: Dataset, depth: int) -> Iterator[str]:
    found = {
        concept: _value(item)
        for concept in (codes.TRACKING_IDENTIFIER, codes.FINDING, codes.ALGORITHM_VERSION)
        for item in _below(group)
        if _has_name(item, concept)
    }
    title = found.get(codes.TRACKING_IDENTIFIER) or found.get(codes.FINDING) or _name(group)
    version = found.get(codes.ALGORITHM_VERSION, "")
    yield f"{_INDENT * depth}{title} {version}".rstrip()
    yield from _items(group, depth + 1)


def _line(item: Dataset) -> str:
    """One item with what qualifies it."""
    if item.get("ValueType") in ("SCOORD", "TCOORD"):
        return f"From: {_place(item)}"
    line = f"{_name(item)}: {_value(item)}"
    bounds = [
        _number(child)
        for concept in (codes.INTERVAL_LOW, codes.INTERVAL_HIGH)
        for child in _below(item)
        if _has_name(child, concept)
    ]
    if len(bounds) == 2:
        line += f" (95 % interval {bounds[0]} to {bounds[1]})"
    moved = [_seconds(child) for child in _below(item) if _has_name(child, codes.MOVED_THE_VALUE)]
    if moved:
        line += f" (moved most by {', '.join(moved)})"
    modifiers = [
        _value(child)
        for child in _below(item)
        if child.get("RelationshipType") == "HAS CONCEPT MOD"
    ]
    return f"{line} [{', '.join(modifiers)}]" if modifiers else line


def _place(item: Dataset) -> str:
    """Where a point, or a stretch, lies."""
    sources = ", ".join(_value(child) for child in _below(item))
    return f"{_seconds(item)} of {sources}" if item.get("ValueType") == "TCOORD" else sources


def _seconds(item: Dataset) -> str:
    begin, end = (float(each) for each in item.ReferencedTimeOffsets)
    return f"{begin:g} to {end:g} s"


def _value(item: Dataset) -> str:
    value_type = item.get("ValueType")
    if value_type == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    if value_type == "NUM":
        if not item.get("MeasuredValueSequence"):
            return "no value"
        unit = str(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue)
        bare = unit == "1" or unit.startswith("{")
        return _number(item) if bare else f"{_number(item)} {unit}"
    if value_type == "IMAGE":
        reference = item.ReferencedSOPSequence[0]
        frame = reference.get("ReferencedFrameNumber")
        uid = str(reference.ReferencedSOPInstanceUID)
        return uid if frame is None else f"{uid}, frame {frame}"
    if value_type == "WAVEFORM":
        reference = item.ReferencedSOPSequence[0]
        channels = len(reference.get("ReferencedWaveformChannels") or ()) // 2
        uid = str(reference.ReferencedSOPInstanceUID)
        return f"{uid}, {channels} channels" if channels else uid
    return str(item.get("UID" if value_type == "UIDREF" else "TextValue") or "")


def _number(item: Dataset) -> str:
    return str(item.MeasuredValueSequence[0].NumericValue)


def _name(item: Dataset) -> str:
    sequence = item.get("ConceptNameCodeSequence")
    return str(sequence[0].CodeMeaning) if sequence else "Item"


def _has_name(item: Dataset, concept: Concept) -> bool:
    sequence = item.get("ConceptNameCodeSequence")
    return bool(sequence) and str(sequence[0].get("CodeValue")) == concept.value


def _below(item: Dataset) -> Iterable[Dataset]:
    children: Iterable[Dataset] = item.get("ContentSequence") or ()
    return children
