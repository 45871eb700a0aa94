"""The gate's rules for values: what PS3.5 says of lengths, forms, VRs and characters, and the
attributes that PS3.3 asks for in the items of sequences.

What was copied from the source is passed over: its patient and study stay as they came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from node.results.faults import Fault, fault, filled
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from node.results.iods import CODE, ITEMS, ONE_ITEM

_LIMITS = {  # PS3.5 6.2, in characters
    "AE": 16, "CS": 16, "DA": 8, "DS": 16, "IS": 12, "LO": 64, "SH": 16, "ST": 1024, "UI": 64,
}  # fmt: skip
_PATTERNS = {
    "UI": re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+"),
    "CS": re.compile(r"[A-Z0-9 _]*"),
    "DA": re.compile(r"(\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))?"),
    "TM": re.compile(r"(([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?)?"),
    "DS": re.compile(r"\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)?\s*"),
    "IS": re.compile(r"\s*([+-]?\d+)?\s*"),
}
_OF_ONE_LINE = frozenset(("LO", "SH"))
_TEXT = frozenset(("LO", "LT", "SH", "ST", "UC", "UT"))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")  # PS3.5 6.1.3: TAB, LF, FF, CR may

_REFERRING = (  # to objects of others, whose UIDs and methods are as they are
    "ReferencedSOPClassUID",
    "ReferencedSOPInstanceUID",
    "LossyImageCompressionMethod",
)
COPIED = frozenset(
    tag_for_keyword(keyword) or 0
    for keyword in ("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES)
)
"""The tags of what came from the source."""
_FOREIGN = COPIED | {tag_for_keyword(keyword) for keyword in _REFERRING}
_FOREIGN_BELOW = _FOREIGN | {tag_for_keyword("SeriesInstanceUID")}  # of what is referred to

DECIMAL = _PATTERNS["DS"]
"""A decimal string, perhaps empty."""


def check_values(dataset: Dataset) -> Iterator[Fault]:
    """Faults in the values of a data set and of all items below, except what was copied."""
    plain_only = not dataset.get("SpecificCharacterSet")
    yield from _check_all(dataset, "", plain_only=plain_only)


def as_written(value: object) -> str:
    """A value in the characters that stand in the file."""
    return str(getattr(value, "original_string", value))


def _check_all(dataset: Dataset, where: str, *, plain_only: bool) -> Iterator[Fault]:
    for tag in dataset.keys():  # noqa: SIM118 (iterating would decode what was copied)
        if tag in COPIED and not where:
            continue
        raw = dataset.get_item(tag)
        keyword = keyword_for_tag(tag)
        place = f"{where}{keyword or tag}"
        if keyword:
            yield from _check_representation(raw, keyword, place)
        if raw is None or raw.VR == "OB":
            continue  # pixels: see check_capture
        element = dataset[tag]
        if element.VR == "SQ":
            yield from _check_items(element, keyword, place, plain_only=plain_only)
        elif tag not in (_FOREIGN_BELOW if where else _FOREIGN):
            yield from _check_value(element, keyword, place, plain_only=plain_only)


def _check_representation(
    raw: DataElement | RawDataElement | None, keyword: str, place: str
) -> Iterator[Fault]:
    """The VR in the file is that of PS3.6."""
    tag = tag_for_keyword(keyword)
    if raw is None or tag is None or raw.VR is None:
        return
    allowed = dictionary_VR(tag)
    if raw.VR not in allowed.split(" or "):
        yield fault("representation", place, f"has VR {raw.VR} instead of {allowed}")


def _check_items(
    element: DataElement, keyword: str, place: str, *, plain_only: bool
) -> Iterator[Fault]:
    items = element.value
    if keyword in ONE_ITEM and len(items) != 1:
        yield fault("items", place, f"{len(items)} items instead of one")
    if not items and keyword in ITEMS:
        yield fault("items", place, "no item")
    needed = CODE if keyword.endswith("CodeSequence") else ITEMS.get(keyword, ())
    for number, item in enumerate(items, start=1):
        inside = f"{place}.{number}" if len(items) > 1 else place
        for each in needed:
            if not filled(item, each):
                yield fault("items", inside, f"no {each}")
        yield from _check_all(item, f"{inside}.", plain_only=plain_only)


def _check_value(
    element: DataElement, keyword: str, place: str, *, plain_only: bool
) -> Iterator[Fault]:
    vr = element.VR
    limit, pattern = _LIMITS.get(vr), _PATTERNS.get(vr)
    several = element.VM > 1
    if several and keyword and dictionary_VM(element.tag) == "1":
        yield fault("multiplicity", place, f"{element.VM} values instead of one")
    if limit is None and pattern is None and vr not in _TEXT:
        return
    for value in element.value if several else [element.value]:
        said = "" if value is None else as_written(value)
        if limit is not None and len(said) > limit:
            yield fault("length", place, f"{len(said)} characters, {vr} has {limit}")
        if pattern is not None and said and not pattern.fullmatch(said):
            yield fault("form", place, f"{said[:40]!r} is no {vr}")
        if vr in _TEXT:
            yield from _check_characters(said, vr, place, plain_only=plain_only)


def _check_characters(said: str, vr: str, place: str, *, plain_only: bool) -> Iterator[Fault]:
    control = _CONTROL if vr in _OF_ONE_LINE else _CONTROL_IN_LINES
    if control.search(said):
        yield fault("characters", place, "has a control character")
    if plain_only and not said.isascii():
        yield fault("characters", place, "is not ASCII, and no character set is named")
