"""Content items of a report: thin, typed makers over highdicom's value types.

highdicom checks each item as it is made. What it leaves open is settled here: text is plain
ASCII (so it can be written in every character set that a study may have), containers are
SEPARATE, numbers carry no more digits than they mean.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    ScoordContentItem,
    TcoordContentItem,
    TextContentItem,
    UIDRefContentItem,
    WaveformContentItem,
)

from node.results.codes import Concept

Item: TypeAlias = Any  # a highdicom content item, which has no types

CONTAINS = RelationshipTypeValues.CONTAINS
HAS_CONCEPT_MOD = RelationshipTypeValues.HAS_CONCEPT_MOD
HAS_OBS_CONTEXT = RelationshipTypeValues.HAS_OBS_CONTEXT
HAS_ACQ_CONTEXT = RelationshipTypeValues.HAS_ACQ_CONTEXT
HAS_PROPERTIES = RelationshipTypeValues.HAS_PROPERTIES
INFERRED_FROM = RelationshipTypeValues.INFERRED_FROM
SELECTED_FROM = RelationshipTypeValues.SELECTED_FROM

_OFFSET_DECIMALS = 3  # of seconds: no electrocardiograph takes much more than 1000 samples a second

_ASCII = str.maketrans(
    {
        "–": "-",
        "—": "-",
        "−": "-",
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "…": "...",
        "≥": ">=",
        "≤": "<=",
        "×": "x",
        "·": "*",
        "µ": "u",
        "μ": "u",
        "°": " deg",
        "ß": "ss",
        "ø": "o",
        "æ": "ae",
        "\\": "/",
    }
)


def plain(text: str) -> str:
    """The text in printable ASCII, without the backslash that would split a value."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_ASCII))
    kept = "".join(char for char in decomposed if not unicodedata.combining(char))
    return "".join(char if " " <= char <= "~" else "?" for char in kept).strip()


def container(
    name: Concept,
    items: Iterable[Item],
    relationship: RelationshipTypeValues | None = CONTAINS,
    *,
    template: str | None = None,
) -> Item:
    """A container whose parts are separate: a continuous one hides its names in viewers."""
    item = ContainerContentItem(
        name=name.code,
        is_content_continuous=False,
        template_id=template,
        relationship_type=relationship,
    )
    return with_children(item, items)


def text(name: Concept, value: str, relationship: RelationshipTypeValues = CONTAINS) -> Item:
    """A text."""
    return TextContentItem(name=name.code, value=plain(value), relationship_type=relationship)


def code(name: Concept, value: Concept, relationship: RelationshipTypeValues = CONTAINS) -> Item:
    """A coded value."""
    return CodeContentItem(name=name.code, value=value.code, relationship_type=relationship)


def uid(name: Concept, value: str, relationship: RelationshipTypeValues) -> Item:
    """A UID."""
    return UIDRefContentItem(name=name.code, value=value, relationship_type=relationship)


def number(
    name: Concept,
    value: float,
    unit: Concept,
    decimals: int,
    children: Iterable[Item] = (),
    relationship: RelationshipTypeValues = CONTAINS,
) -> Item:
    """A measured value, rounded."""
    item = NumContentItem(
        name=name.code,
        value=round(float(value), decimals),
        unit=unit.code,
        relationship_type=relationship,
    )
    measured = item.MeasuredValueSequence[0]
    # Only for values that a decimal string cannot hold (PS3.3 C.18.1); a rounded one fits.
    measured.pop("FloatingPointValue", None)
    if decimals == 0:
        measured.NumericValue = str(round(value))  # a count, without a point
    return with_children(item, children)


def image(
    name: Concept,
    sop_class_uid: str,
    sop_instance_uid: str,
    relationship: RelationshipTypeValues,
    *,
    frame: int | None = None,
    children: Iterable[Item] = (),
) -> Item:
    """A reference to an image; ``frame`` is one-based, as in DICOM."""
    item = ImageContentItem(
        name=name.code,
        referenced_sop_class_uid=sop_class_uid,
        referenced_sop_instance_uid=sop_instance_uid,
        referenced_frame_numbers=frame,
        relationship_type=relationship,
    )
    return with_children(item, children)


def point(name: Concept, column: float, row: float, selected_from: Item) -> Item:
    """A point in an image, in pixels from its top left corner."""
    item = ScoordContentItem(
        name=name.code,
        graphic_type="POINT",
        graphic_data=np.array([[column, row]]),
        relationship_type=CONTAINS,
    )
    return with_children(item, (selected_from,))


def waveform(
    name: Concept,
    sop_class_uid: str,
    sop_instance_uid: str,
    relationship: RelationshipTypeValues,
    *,
    channels: Sequence[tuple[int, int]] = (),
) -> Item:
    """A reference to a waveform: multiplex group and channel of each trace, both from 1 on.

    Without ``channels`` all of it is meant (PS3.3 C.18.5).
    """
    return WaveformContentItem(
        name=name.code,
        referenced_sop_class_uid=sop_class_uid,
        referenced_sop_instance_uid=sop_instance_uid,
        referenced_waveform_channels=list(channels) or None,
        relationship_type=relationship,
    )


def stretch(
    name: Concept,
    begin_s: float,
    end_s: float,
    selected_from: Item,
    relationship: RelationshipTypeValues = CONTAINS,
) -> Item:
    """A stretch of a waveform, in seconds from its first sample (PS3.3 C.18.7)."""
    item = TcoordContentItem(
        name=name.code,
        temporal_range_type="SEGMENT",
        referenced_time_offsets=[
            round(float(begin_s), _OFFSET_DECIMALS),
            round(float(end_s), _OFFSET_DECIMALS),
        ],
        relationship_type=relationship,
    )
    return with_children(item, (selected_from,))


def with_children(item: Item, children: Iterable[Item]) -> Item:
    """The item with these items below it."""
    below = tuple(children)
    if below:
        item.ContentSequence = ContentSequence(below)
    return item
