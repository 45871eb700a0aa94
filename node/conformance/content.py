"""The template tree of a document, read from samples: one row for each kind of content item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

_MOST_VALUES = 3

Row = tuple[str, str, str, str, str]


@dataclass
class _Node:
    """All content items of one name, type and relationship below the same parent."""

    relationship: str
    value_type: str
    names: dict[str, None] = field(default_factory=dict)
    values: dict[str, None] = field(default_factory=dict)
    children: dict[tuple[str, ...], _Node] = field(default_factory=dict)


def template_rows(documents: Sequence[Dataset]) -> Iterator[Row]:
    """Level, relationship, value type, concept name and value, as PS3.2 asks for a template.

    Items that differ only in their value are one row. Measurements and evaluations of a group are
    one row for each set of items below, since they are many: the table of outputs names them.
    """
    root = _Node(relationship="", value_type="CONTAINER")
    for document in documents:
        _merge(root, document)
    yield from _rows(root, 0)


def _merge(node: _Node, item: Dataset) -> None:
    node.names[_triplet(item.get("ConceptNameCodeSequence"))] = None
    value = _value(item)
    if value:
        node.values[value] = None
    for child in item.get("ContentSequence") or ():
        key = _key(child)
        if key not in node.children:
            node.children[key] = _Node(
                relationship=str(child.RelationshipType), value_type=str(child.ValueType)
            )
        _merge(node.children[key], child)


def _key(item: Dataset) -> tuple[str, ...]:
    kind = (str(item.RelationshipType), str(item.ValueType))
    if kind in (("CONTAINS", "NUM"), ("CONTAINS", "CODE")) and not _is_finding(item):
        return kind
    return (*kind, _triplet(item.get("ConceptNameCodeSequence")))


def _is_finding(item: Dataset) -> bool:
    return _triplet(item.get("ConceptNameCodeSequence")).startswith("(121071, DCM")


def _rows(node: _Node, level: int) -> Iterator[Row]:
    yield (
        ">" * level or "root",
        node.relationship,
        node.value_type,
        _some(node.names, "an output: see the table of outputs"),
        _some(node.values, _OF_MANY.get(node.value_type, "")),
    )
    for child in node.children.values():
        yield from _rows(child, level + 1)


_OF_MANY = {
    "TEXT": "text of the node, in ASCII",
    "CODE": "one of the codes below",
    "UIDREF": "a UID",
    "NUM": "a number",
    "IMAGE": "an object of the study",
}


def _some(values: dict[str, None], otherwise: str) -> str:
    if not values:
        return ""
    if len(values) > _MOST_VALUES and otherwise:
        return otherwise
    return "; ".join(values)


def _value(item: Dataset) -> str:
    value_type = item.get("ValueType")
    if value_type == "CODE":
        return _triplet(item.ConceptCodeSequence)
    if value_type == "NUM":
        unit = item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
        return f"number in {unit.CodeValue}"
    if value_type == "TEXT":
        return "text of the node, in ASCII"
    if value_type == "UIDREF":
        return "UID, derived"
    if value_type == "IMAGE":
        framed = "ReferencedFrameNumber" in item.ReferencedSOPSequence[0]
        return "the image and the frame" if framed else "the image"
    if value_type == "WAVEFORM":
        of_channels = "ReferencedWaveformChannels" in item.ReferencedSOPSequence[0]
        return "the ECG and its channels" if of_channels else "the ECG"
    if value_type == "TCOORD":
        return f"{item.TemporalRangeType}: seconds from the first sample"
    if value_type == "SCOORD":
        return f"{item.GraphicType}: a place in the frame for viewers, not a measured one"
    return str(item.get("ContinuityOfContent") or "")


def _triplet(sequence: Sequence[Dataset] | None) -> str:
    if not sequence:
        return "none"
    code = sequence[0]
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'
