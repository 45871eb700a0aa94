"""What stands before the pixels of a DICOM file, and where the pixels lie.

Real machines write stray delimiters, broken character sets, values that are no values, and
hundreds of megabytes of private data. So the walk here is guarded at every step: what cannot be
read is left out, and only what makes the whole file unreadable is a :class:`ClipError`.
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

LARGEST_BYTES: Final = 2 * 1024**3
"""No clip may take more memory than this, inflated or decoded."""

UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    EOFError,
    OSError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)
"""What pydicom raises on values that are not what they say they are."""

_PIXEL_DATA: Final = 0x7FE00010
_PIXEL_TAGS: Final = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_LENGTHS: Final = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN")
_ITEM_DELIMITER: Final = (b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d")

_quiet = threading.RLock()
_pydicom_log = logging.getLogger("pydicom")


class ClipError(Exception):
    """The object cannot be read as a clip; the message is a plain reason for an operator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelElement:
    """Where the value of Pixel Data lies in the stream. ``length``: None where undefined."""

    offset: int
    length: int | None
    vr: str | None
    offsets: tuple[int, ...] = ()  #: Extended Offset Table (7FE0,0001), empty where absent


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An object's bytes, opened anew for each use. Deflated ones are held inflated."""

    place: Path | bytes

    def open(self) -> BinaryIO:
        """The stream, at its start."""
        if isinstance(self.place, bytes):
            return BytesIO(self.place)
        try:
            return self.place.open("rb")
        except OSError as error:
            raise ClipError(f"the file cannot be opened: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A header with the way to its pixels; ``pixels`` is None where the object has none."""

    header: Dataset
    transfer_syntax: UID
    source: Source
    size: int
    pixels: PixelElement | None


@contextmanager
def quietly() -> Iterator[None]:
    """Keep pydicom's warnings in, and its log lines, which quote the values: names too.

    Files of real machines are full of what it warns of. The filters of :mod:`warnings` and the
    level of a logger belong to the process, so threads take turns.
    """
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = _pydicom_log.level
        _pydicom_log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            _pydicom_log.setLevel(level)


def open_object(place: Path | bytes) -> Opened:
    """Read everything before the pixels and find where these lie.

    Private elements, group lengths, stray delimiters and values that cannot be read are left
    out of the header. Nothing after Pixel Data is read: GE writes its private movie (7FE1)
    there.

    Raises:
        ClipError: this is not a DICOM object, or its header cannot be read.
    """
    with quietly(), Source(place=place).open() as stream:
        meta = _read_meta(stream)
        syntax = _transfer_syntax(meta, stream)
        source = Source(place=place)
        if syntax == DeflatedExplicitVRLittleEndian:
            source = Source(place=_inflate(stream))
            stream = BytesIO(source.place)  # type: ignore[arg-type]
        implicit = syntax == ImplicitVRLittleEndian
        little = syntax != ExplicitVRBigEndian
        header = _read_to_pixels(stream, implicit=implicit, little=little)
        offsets = _extended_offsets(header)
        pixels = _pixel_element(stream, implicit=implicit, little=little, offsets=offsets)
        size = stream.seek(0, 2)
        settle(header)
    header.file_meta = meta
    return Opened(header=header, transfer_syntax=syntax, source=source, size=size, pixels=pixels)


def settle(dataset: Dataset) -> None:
    """Keep in place only the standard elements whose values can be read, at every depth.

    Afterwards a walk over the dataset neither raises nor warns.
    """
    for tag in list(dataset.keys()):
        odd = tag.group % 2 == 1
        if odd or tag.group in (0x0000, 0x7FE0, 0xFFFE) or tag.element == 0x0000:
            del dataset[tag]
            continue
        try:
            _settle_element(dataset[tag])
        except UNREADABLE:
            del dataset[tag]


def _settle_element(element: DataElement) -> None:
    value = element.value
    if element.VR == "SQ":
        for item in value:
            settle(item)
    elif element.VR == "PN":
        str(value)  # names are decoded when first looked at
    elif element.VR in ("IS", "DS"):
        values = value if element.VM > 1 else [value]
        if any(isinstance(one, str) and one for one in values):
            raise ValueError(f"{element.tag} is no number")


def text(header: Dataset, keyword: str) -> str:
    """The attribute as text; "" where it is absent or empty."""
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def number(header: Dataset, keyword: str) -> float | None:
    """The attribute as a finite number, the first of several; None where it is not one."""
    values = numbers(header, keyword)
    return values[0] if values else None


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """The attribute's values as finite numbers; empty where any of them is not one."""
    value = header.get(keyword)
    if value is None or isinstance(value, str | bytes):
        return ()
    try:
        found = tuple(float(v) for v in (value if hasattr(value, "__iter__") else (value,)))
    except (ValueError, TypeError, OverflowError):
        return ()
    return found if all(abs(v) < float("inf") for v in found) else ()


def _read_meta(stream: BinaryIO) -> FileMetaDataset:
    """The file meta information; the stream is left at the first element after it."""
    start = stream.read(132)
    if start[128:] != b"DICM":
        # Some old exports lack the 128 bytes of preamble; they start with group 2 or group 8.
        if start[:2] not in (b"\x02\x00", b"\x08\x00"):
            raise ClipError("this is not a DICOM file: the mark DICM is missing at byte 128")
        stream.seek(0)
    try:
        meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
        settle(meta)
        return FileMetaDataset(meta)
    except UNREADABLE as error:
        raise ClipError("the file meta information cannot be read: the file is broken") from error


def _transfer_syntax(meta: FileMetaDataset, stream: BinaryIO) -> UID:
    stated = meta.get("TransferSyntaxUID")
    if stated:
        return UID(str(stated))
    # Without a statement there are two that old files use; a value representation tells them.
    place = stream.tell()
    first = stream.read(6)
    stream.seek(place)
    return ExplicitVRLittleEndian if first[4:6].isalpha() else ImplicitVRLittleEndian


def _inflate(stream: BinaryIO) -> bytes:
    """The dataset behind a deflated transfer syntax (PS3.5 A.5), bounded in size."""
    inflator = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflator.decompress(stream.read(), LARGEST_BYTES)
    except zlib.error as error:
        raise ClipError("the deflated dataset cannot be inflated: the file is broken") from error
    if inflator.unconsumed_tail:
        raise ClipError("the deflated dataset grows beyond 2 GiB: it is not read")
    return inflated


def _read_to_pixels(stream: BinaryIO, *, implicit: bool, little: bool) -> Dataset:
    """All elements before the pixels. The stream is left at the pixel element, or its end."""

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tag in _PIXEL_TAGS or (tag.group > 0x7FE0 and tag.group != 0xFFFE)

    header: Dataset | None = None
    place = -1
    while place < stream.tell():
        place = stream.tell()
        try:
            part = read_dataset(stream, implicit, little, stop_when=at_pixels)
        except UNREADABLE as error:
            raise ClipError("the header cannot be read: the file is broken") from error
        if header is None:
            header = part
        else:
            header.update(part)
        # pydicom takes a stray item delimiter for the end of the dataset: go on behind it.
        end = stream.tell()
        stream.seek(max(0, end - 8))
        if stream.read(end - stream.tell())[:4] not in _ITEM_DELIMITER:
            break
    if not header:
        raise ClipError("the file holds no DICOM elements")
    return header


def _extended_offsets(header: Dataset) -> tuple[int, ...]:
    try:
        table = header.get("ExtendedOffsetTable")
        return struct.unpack(f"<{len(table) // 8}Q", table) if table else ()
    except UNREADABLE:
        return ()


def _pixel_element(
    stream: BinaryIO, *, implicit: bool, little: bool, offsets: tuple[int, ...]
) -> PixelElement | None:
    order = "<" if little else ">"
    place = stream.tell()
    head = stream.read(12)
    if len(head) < 8:
        return None
    group, element = struct.unpack(f"{order}HH", head[:4])
    if (group << 16 | element) != _PIXEL_DATA:
        return None
    # What the elements are encoded in counts, not what the transfer syntax says of them.
    if not head[4:6].isalpha() or (implicit and head[4:6] not in _LONG_LENGTHS):
        vr, start, length = None, place + 8, struct.unpack(f"{order}L", head[4:8])[0]
    elif head[4:6] in _LONG_LENGTHS:
        if len(head) < 12:
            return None
        vr, start = head[4:6].decode(), place + 12
        length = struct.unpack(f"{order}L", head[8:12])[0]
    else:
        vr, start = head[4:6].decode(), place + 8
        length = struct.unpack(f"{order}H", head[6:8])[0]
    return PixelElement(
        offset=start, length=None if length == _UNDEFINED else length, vr=vr, offsets=offsets
    )
