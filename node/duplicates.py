"""What differs between two objects under one UID, said without a value of either."""

from __future__ import annotations

import mmap
from pathlib import Path

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from models.clip import ClipError, read_header

_NAMED = 6
_PIECE_BYTES = 1 << 20
_PIXEL_DATA = b"\xe0\x7f\x10\x00O"  # (7FE0,0010) with VR OB or OW, little endian


def difference(kept: Path, other: Path) -> str:
    """Name the attributes that differ, and tell whether the pixel data do.

    An archive that corrects a patient's name sends the object again under its UID: then the name
    differs and the pixel data are the same, and that is what an operator wants to know.
    """
    try:
        words = _attributes(read_header(kept), read_header(other))
    except ClipError:
        return "what differs cannot be told"
    pixels = _same_pixels(kept, other)
    if pixels is not None:
        words += ["the pixel data are the same" if pixels else "the pixel data differ"]
    return "; ".join(words) or "only in private attributes or in the encoding"


def _attributes(first: Dataset, second: Dataset) -> list[str]:
    tags = sorted({element.tag for header in (first, second) for element in header})
    names = [
        keyword_for_tag(tag) or f"{tag:08X}" for tag in tags if first.get(tag) != second.get(tag)
    ]
    if not names:
        return []
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return [f"it differs in {listed}"]


def _same_pixels(kept: Path, other: Path) -> bool | None:
    """Whether all from the pixel data on is the same; None where there are none to compare."""
    with (
        kept.open("rb") as first_file,
        other.open("rb") as second_file,
        mmap.mmap(first_file.fileno(), 0, access=mmap.ACCESS_READ) as first,
        mmap.mmap(second_file.fileno(), 0, access=mmap.ACCESS_READ) as second,
    ):
        at, there = first.find(_PIXEL_DATA), second.find(_PIXEL_DATA)
        if at < 0 or there < 0:
            return None
        if len(first) - at != len(second) - there:
            return False
        return all(
            first[at + offset : at + offset + _PIECE_BYTES]
            == second[there + offset : there + offset + _PIECE_BYTES]
            for offset in range(0, len(first) - at, _PIECE_BYTES)
        )
