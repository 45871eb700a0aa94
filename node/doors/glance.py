"""What the intake asks of an object's header, without the rest of it.

Parsing a whole header takes milliseconds, and an object is taken in while its sender waits. Here
only the attributes that are asked for are read, from the first bytes of a file. Whatever is not as
plain as it is in nearly all files is left to :func:`models.clip.read_header`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from node.doors.contexts import TRANSFER_SYNTAXES
from node.results import is_own_object
from node.results.objects import MANUFACTURER

_MOST_TEXT = 1024  # characters of an attribute
_UID = re.compile(rb"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64
_META_AT = 144
_META_BEGINS = b"DICM\x02\x00\x00\x00UL\x04\x00"
_PIXEL_DATA = 0x7FE00010
_FIRST_OF_PIXELS = 0x7FE00000
_ITEM, _ITEM_ENDS, _SEQUENCE_ENDS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_MOST_DEPTH = 8
_LARGE = 1 << 16
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN")
) | frozenset((b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"))
_LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SYNTAXES = frozenset(str(syntax) for syntax in TRANSFER_SYNTAXES) - {
    str(syntax)
    for syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian)
}
_CONTRIBUTING = 0x0018A001
_UIDS = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
_TEXTS = {
    0x00080020: "StudyDate",
    0x00080050: "AccessionNumber",
    0x00080060: "Modality",
    0x00080070: "Manufacturer",
    0x00081030: "StudyDescription",
    0x0008103E: "SeriesDescription",
    0x00081090: "ManufacturerModelName",
}
_META = {
    0x00020002: "MediaStorageSOPClassUID",
    0x00020003: "MediaStorageSOPInstanceUID",
    0x00020010: "TransferSyntaxUID",
}
_TAG = struct.Struct("<HH")
_HEAD = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<L")


@dataclass(frozen=True, kw_only=True, slots=True)
class Glance:
    """What an object says of itself: values as text, by keyword; none where there is none."""

    values: Mapping[str, str]
    own: bool  #: echonode made it, here or elsewhere

    def get(self, keyword: str, default: str | None = None) -> str | None:
        """The value of an attribute."""
        return self.values.get(keyword, default)


def glance_of(header: Dataset) -> Glance:
    """The same of a header that was read whole."""
    values = {}
    for keyword in (*_UIDS.values(), *_TEXTS.values()):
        value = header.get(keyword)
        if value is not None:
            values[keyword] = str(value) if keyword.endswith("UID") else plain(str(value))
    for keyword in _META.values():
        value = header.file_meta.get(keyword)
        if value is not None:
            values[keyword] = str(value)
    return Glance(values=values, own=is_own_object(header))


def glance(begin: bytes, size_bytes: int) -> Glance | None:
    """What stands in a Part-10 file that begins like this; None where the whole is to be read."""
    try:
        values = _meta(begin)
        if values is None or values.get("TransferSyntaxUID") not in _SYNTAXES:
            return None
        start = _META_AT + _LENGTH.unpack_from(begin, _META_AT - 4)[0]
        if not _header(begin, start, size_bytes, values):
            return None
    except (struct.error, UnicodeDecodeError, _NotPlainError):
        return None
    own = values.get("Manufacturer", "").casefold() == MANUFACTURER
    return Glance(values=values, own=own)


def plain(text: str) -> str:
    """A text as a database takes it: PostgreSQL refuses a NUL, and half a character."""
    return "".join(filter(str.isprintable, text[:_MOST_TEXT])).strip()


class _NotPlainError(Exception):
    """Something that is read by others."""


def _meta(begin: bytes) -> dict[str, str] | None:
    if begin[128:140] != _META_BEGINS:
        return None
    end = _META_AT + _LENGTH.unpack_from(begin, _META_AT - 4)[0]
    values: dict[str, str] = {}
    place, last = _META_AT, 0x00020000
    while place < end:
        tag, vr, start, length = _element(begin, place)
        if tag <= last or tag >> 16 != 2 or length == _UNDEFINED:
            return None
        place, last = start + length, tag
        if tag in _META:
            values[_META[tag]] = _uid(begin, vr, start, length)
    return values if place == end else None


def _header(begin: bytes, place: int, size_bytes: int, values: dict[str, str]) -> bool:
    """Go through the elements up to the pixels; whether all of them are plain."""
    last = 0x0002FFFF
    while place < size_bytes:
        tag, vr, start, length = _element(begin, place)
        if tag <= last or tag == _CONTRIBUTING:
            return False
        if tag >= _FIRST_OF_PIXELS:
            whole = length == _UNDEFINED or start + length <= size_bytes
            return tag == _PIXEL_DATA and vr in (b"OB", b"OW") and whole
        last = tag
        if length == _UNDEFINED:
            if vr != b"SQ":
                return False
            place = _behind_items(begin, start, 0)
        else:
            place = start + length
            if length > _LARGE or place > size_bytes:
                return False
        if tag in _UIDS:
            values[_UIDS[tag]] = _uid(begin, vr, start, length)
        elif tag in _TEXTS:
            values[_TEXTS[tag]] = _text(begin, vr, start, length)
    return place == size_bytes


def _element(begin: bytes, place: int) -> tuple[int, bytes, int, int]:
    """The tag of an element, its VR, and where and how long its value is (PS3.5 7.1.2)."""
    group, number, vr, length = _HEAD.unpack_from(begin, place)
    if vr in _SHORT:
        return group << 16 | number, vr, place + 8, length
    if vr not in _LONG or length:
        raise _NotPlainError
    return group << 16 | number, vr, place + 12, _LENGTH.unpack_from(begin, place + 8)[0]


def _behind_items(begin: bytes, place: int, depth: int) -> int:
    """Where a sequence without a stated length ends."""
    if depth > _MOST_DEPTH:
        raise _NotPlainError
    while True:
        tag, length = _item(begin, place)
        place += 8
        if tag == _SEQUENCE_ENDS and not length:
            return place
        if tag != _ITEM:
            raise _NotPlainError
        if length != _UNDEFINED:
            place += length
            continue
        while True:
            tag, length = _item(begin, place)
            if tag == _ITEM_ENDS and not length:
                place += 8
                break
            _, vr, start, length = _element(begin, place)
            if length != _UNDEFINED:
                place = start + length
            elif vr == b"SQ":
                place = _behind_items(begin, start, depth + 1)
            else:
                raise _NotPlainError


def _item(begin: bytes, place: int) -> tuple[int, int]:
    group, number = _TAG.unpack_from(begin, place)
    return group << 16 | number, _LENGTH.unpack_from(begin, place + 4)[0]


def _uid(begin: bytes, vr: bytes, start: int, length: int) -> str:
    value = begin[start : start + length].rstrip(b"\0")
    if vr != b"UI" or len(value) > _LONGEST_UID or not _UID.fullmatch(value):
        raise _NotPlainError
    return value.decode()


def _text(begin: bytes, vr: bytes, start: int, length: int) -> str:
    value = begin[start : start + length]
    # Other characters hang on the character set, and several values on what they are read for.
    if len(value) != length or length > _MOST_TEXT or vr not in _SHORT or b"\\" in value:
        raise _NotPlainError
    text = value.decode("ascii")
    if not text.rstrip(" \0").isprintable():
        raise _NotPlainError
    return text.rstrip("\0").strip()
