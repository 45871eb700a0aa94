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
from typing import BinaryIO, Final, Protocol

from pydicom._dicom_dict import DicomDictionary
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
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

from models._limits import (
    LARGE_VALUE,
    MIB,
    MOST_BINARY_BYTES,
    MOST_BROKEN_BYTES,
    MOST_DEPTH,
    MOST_ELEMENTS,
    MOST_FRAMES,
    MOST_HEADER_BYTES,
    MOST_HEADS,
    MOST_INFLATED,
    MOST_META_BYTES,
    MOST_NUMBERS,
    MOST_STRAYS,
    MOST_VALUE_BYTES,
    MOST_WORDS,
)

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
_FIRST_PIXEL_TAG: Final = 0x7FE00008
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_LENGTHS: Final = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN")
_LONG_VRS: Final = (*_LONG_LENGTHS, b"SQ", b"SV", b"UC", b"UR", b"UT", b"UV")
_BINARY: Final = ("OB", "OD", "OF", "OL", "OV", "OW", "UN", "UT", "LT", "ST", "UR")
_ITEM_DELIMITER: Final = (b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHUNK_BYTES: Final = 64 * 1024
_FIRST_BYTES: Final = 256 * 1024  # of a file elsewhere: nearly every header is shorter
_MOST_AHEAD_BYTES: Final = 32 * MIB

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


def open_object(place: Path | bytes | BinaryIO, *, with_pixels: bool = True) -> Opened:
    """Read everything before the pixels and find where these lie.

    Private elements, group lengths, stray delimiters, values that cannot be read and those of
    absurd size are left out of the header. Nothing after Pixel Data is read: GE writes its
    private movie (7FE1) there. Memory is taken for the header alone, whatever the file's size; a
    deflated dataset is inflated beyond it only ``with_pixels``.

    Of an open file, which may lie on another machine, as much is read as the header needs; the way
    to its pixels is not given.

    Raises:
        ClipError: this is not a DICOM object, or its header cannot be read.
    """
    if isinstance(place, bytes | Path):
        with quietly(), Source(place=place).open() as stream:
            return _opened(stream, Source(place=place), with_pixels=with_pixels)
    count = _FIRST_BYTES
    while count < _MOST_AHEAD_BYTES:
        # Nothing is read while others wait for their turn: a file elsewhere may be slow to come.
        place.seek(0)
        beginning = _Beginning(place.read(count))
        has_all = beginning.seek(0, 2) < count
        beginning.seek(0)
        try:
            with quietly():
                opened = _opened(beginning, Source(place=b""), with_pixels=False)
        except ClipError:
            if has_all or not beginning.fell_short:
                raise
        else:
            if has_all or not beginning.fell_short:
                return opened
        count *= 8
    place.seek(0)
    with quietly():
        return _opened(place, Source(place=b""), with_pixels=False)


class _Beginning(BytesIO):
    """The first bytes of a file, which remembers whether more was asked for."""

    fell_short = False

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.fell_short |= size is None or size < 0 or len(found) < size
        return found


def _opened(stream: BinaryIO, source: Source, *, with_pixels: bool) -> Opened:
    meta = _read_meta(stream)
    syntax = _transfer_syntax(meta, stream)
    if "TransferSyntaxUID" not in meta:
        meta.TransferSyntaxUID = syntax
    implicit = syntax == ImplicitVRLittleEndian
    little = syntax != ExplicitVRBigEndian
    if syntax == DeflatedExplicitVRLittleEndian:
        inflating = _Inflating(stream, most=MOST_HEADER_BYTES)
        header, pixels = _read_header(inflating, implicit=False, little=True)
        inflated = b""
        if with_pixels and pixels is not None:
            inflated = _inflated(inflating, pixels)
        source, size = Source(place=inflated), len(inflated)
    else:
        header, pixels = _read_header(stream, implicit=implicit, little=little)
        size = stream.seek(0, 2)
    settle(header)
    header.file_meta = meta
    return Opened(header=header, transfer_syntax=syntax, source=source, size=size, pixels=pixels)


def settle(dataset: Dataset) -> None:
    """Keep in place only the standard elements whose values can be read, at every depth.

    Afterwards a walk over the dataset neither raises nor warns.
    """
    for tag in list(dataset.keys()):
        group, element = divmod(int(tag), 0x10000)
        if group % 2 == 1 or group in (0x0000, 0x7FE0, 0xFFFE) or element == 0x0000:
            del dataset[tag]
            continue
        try:
            if _is_too_many(dataset.get_item(tag)):
                del dataset[tag]
            else:
                _settle_element(dataset[tag])
        except UNREADABLE:
            del dataset[tag]


def _is_too_many(element: object) -> bool:
    """Whether a value would become more numbers or words than anything means."""
    if not isinstance(element, RawDataElement) or element.length <= MOST_WORDS:
        return False
    vr, value = element.VR, element.value or b""
    if vr is None:
        try:
            vr = dictionary_VR(element.tag)
        except KeyError:
            return False
    if vr in _BINARY or vr == "SQ":
        return False
    return value.count(b"\\") >= (MOST_NUMBERS if vr in ("DS", "IS") else MOST_WORDS)


def _settle_element(element: DataElement) -> None:
    value = element.value
    known = DicomDictionary.get(element.tag)
    if known is not None and (element.VR == "SQ") != (known[0] == "SQ"):
        raise ValueError(f"{element.tag} is no sequence, or should be one")
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


def shown(value: str) -> str:
    """A value as it may stand in a reason: a file's bytes may be anything."""
    return "".join(one if one.isprintable() else "?" for one in value[:64])


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
    bounded = _Bounded(stream, most=MOST_META_BYTES)
    try:
        meta = read_dataset(
            bounded,  # type: ignore[arg-type]  # as much of a stream as is asked of one
            False,
            True,
            stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
        )
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


class _Stream(Protocol):
    """As much of a binary stream as is asked of one here."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


class _Inflating:
    """The dataset behind a deflated transfer syntax (PS3.5 A.5), inflated as far as it is read."""

    def __init__(self, packed: BinaryIO, *, most: int) -> None:
        self.most = most
        self._packed: Final = packed
        self._inflator: Final = zlib.decompressobj(-zlib.MAX_WBITS)
        self._held = bytearray()
        self._place = 0
        self._done = False

    def read(self, size: int, /) -> bytes:
        """So many bytes from where it stands; fewer at the end."""
        found = bytes(self.until(self._place + size)[self._place : self._place + size])
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, counted from the start (0) or from here (1)."""
        self._place = offset + (self._place if whence else 0)
        return self._place

    def tell(self) -> int:
        """The place where it stands."""
        return self._place

    def until(self, end: int) -> bytearray:
        """What is inflated, with everything before ``end``."""
        while len(self._held) < end and not self._done:
            if len(self._held) >= self.most:
                raise ClipError(
                    f"the deflated dataset grows beyond {self.most // MIB} MiB: it is not read"
                )
            chunk = self._inflator.unconsumed_tail or self._packed.read(_CHUNK_BYTES)
            try:
                self._held += self._inflator.decompress(chunk, min(self.most, MIB))
            except zlib.error as error:
                raise ClipError(
                    "the deflated dataset cannot be inflated: the file is broken"
                ) from error
            self._done = not chunk or self._inflator.eof
        return self._held


def _inflated(stream: _Inflating, pixels: PixelElement) -> bytes:
    """The dataset up to the end of its pixels."""
    end = MOST_INFLATED if pixels.length is None else pixels.offset + pixels.length
    if end > MOST_INFLATED:
        raise ClipError(
            f"the deflated dataset grows beyond {MOST_INFLATED // MIB} MiB: it is not read"
        )
    stream.most = max(stream.most, MOST_INFLATED)
    return bytes(stream.until(end)[:end])


class _Bounded:
    """A stream that gives out so many bytes in all and no more."""

    def __init__(self, stream: _Stream, *, most: int) -> None:
        self._stream: Final = stream
        self._left = most
        self._read: Final = stream.read
        self.seek: Final = stream.seek
        self.tell: Final = stream.tell
        self.peek: Final = stream.read  #: for heads that are only looked at

    def tighten(self, most: int) -> None:
        """Give out no more than this from here on."""
        self._left = min(self._left, most)

    def read(self, size: int, /) -> bytes:
        """So many bytes from where it stands; fewer at the end.

        A length that lies takes no memory: what is asked for beyond the bound is not tried.
        """
        if size > self._left:
            found = self._stream.read(self._left + 1)
            if len(found) > self._left:
                raise ClipError("what stands before the pixels is too large to be read")
        else:
            found = self._read(size)
        self._left -= len(found)
        return found


def _read_header(
    stream: _Stream, *, implicit: bool, little: bool
) -> tuple[Dataset, PixelElement | None]:
    """All elements before the pixels, and where the pixels lie."""
    header = _read_to_pixels(stream, implicit=implicit, little=little)
    offsets = _extended_offsets(header)
    return header, _pixel_element(stream, implicit=implicit, little=little, offsets=offsets)


class _Gate:
    """Asked by pydicom before it reads an element: the pixels end the header.

    So does what is not worth its memory; then ``skip`` is where to go on.
    """

    def __init__(self, stream: _Bounded, *, implicit: bool, little: bool) -> None:
        self._stream = stream
        self._implicit = implicit
        self._order = "<" if little else ">"
        self._count = 0
        self.skip: int | None = None

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        number = int(tag)  # pydicom's own comparisons of tags are slow
        if number >= _FIRST_PIXEL_TAG and (
            number in _PIXEL_TAGS or 0x7FE10000 <= number < 0xFFFE0000 or number > 0xFFFEFFFF
        ):
            return True
        self._count += 1
        if self._count > MOST_ELEMENTS:
            raise ClipError(f"the header holds more than {MOST_ELEMENTS} elements: it is not read")
        if length > LARGE_VALUE:
            place = self._stream.tell()
            self.skip = self._beyond(tag, vr, length, place)
            self._stream.seek(place)
        return self.skip is not None

    def _beyond(self, tag: BaseTag, vr: str | None, length: int, start: int) -> int | None:
        """Where a value ends that is to be passed over; None for one that is to be read."""
        end = None if length == _UNDEFINED else start + length
        if vr is None:
            try:
                vr = dictionary_VR(tag)
            except KeyError:
                vr = "UN"
        private = tag.group % 2 == 1
        if end is not None:
            if private:
                return end
            if vr != "SQ":
                return end if length > _most_bytes(vr) else None
        found, sane = _measure(
            self._stream,
            start,
            end,
            implicit=self._implicit,
            order=self._order,
            flat=vr in ("OB", "OW"),
        )
        if end is not None:
            return end if found is None or not sane or length > MOST_VALUE_BYTES else None
        if found is None:
            # pydicom looks for the end itself, and may find more on its way than is good.
            self._stream.tighten(LARGE_VALUE if not sane else MOST_BROKEN_BYTES)
            return None
        return found if private or not sane or found - start > MOST_VALUE_BYTES else None


def _most_bytes(vr: str) -> int:
    return MOST_BINARY_BYTES if vr in _BINARY else MOST_VALUE_BYTES


def _measure(
    stream: _Bounded, start: int, end: int | None, *, implicit: bool, order: str, flat: bool
) -> tuple[int | None, bool]:
    """Where a sequence ends, by the heads in it alone, and whether it is worth reading.

    That is: whether it holds no more than :data:`MOST_ELEMENTS` and no deeper than
    :data:`MOST_DEPTH`. The end is None where it is broken. The items of a ``flat`` one are bytes.
    """
    # Open sequences and, in turn, their items: the end where it is stated, and the encoding.
    opened: list[tuple[int | None, bool]] = [(end, implicit)]
    place, count, deepest = start, 0, 1
    while opened:
        limit, plain = opened[-1]
        in_item = len(opened) % 2 == 0
        if limit is not None and place >= limit:
            if place > limit:
                return None, False
            opened.pop()
            continue
        count += 1
        sane = count <= MOST_ELEMENTS and deepest <= MOST_DEPTH
        if count > (MOST_ELEMENTS if end is not None else MOST_HEADS):
            return None, False
        stream.seek(place)
        head = stream.peek(12)
        if len(head) < 8:
            return None, sane
        group, element, length = struct.unpack_from(f"{order}HHL", head)
        tag = group << 16 | element
        place += 8
        if tag == (_ITEM_END if in_item else _SEQUENCE_END):
            opened.pop()
        elif not in_item:
            if tag != _ITEM or (flat and length == _UNDEFINED):
                return None, sane
            if flat:
                place += length
            else:
                opened.append((None if length == _UNDEFINED else place + length, plain))
        elif group == 0xFFFE:
            return None, sane
        else:
            vr = b"" if plain else head[4:6]
            if vr in _LONG_VRS and len(head) == 12:
                length = struct.unpack_from(f"{order}L", head, 8)[0]
                place += 4
            elif vr.isalpha():
                length = struct.unpack_from(f"{order}H", head, 6)[0]
            if length == _UNDEFINED:
                opened.append((None, plain or vr == b"UN"))
            elif vr == b"SQ":
                opened.append((place + length, plain))
            else:
                place += length
        deepest = max(deepest, len(opened) // 2)
    return place, count <= MOST_ELEMENTS and deepest <= MOST_DEPTH


def _read_to_pixels(stream: _Stream, *, implicit: bool, little: bool) -> Dataset:
    """All elements before the pixels. The stream is left at the pixel element, or its end."""
    bounded = _Bounded(stream, most=MOST_HEADER_BYTES)
    gate = _Gate(bounded, implicit=implicit, little=little)
    header: Dataset | None = None
    place, strays = -1, 0
    while place < stream.tell():
        place = stream.tell()
        gate.skip = None
        try:
            part = read_dataset(
                bounded,  # type: ignore[arg-type]  # as much of a stream as is asked of one
                implicit,
                little,
                stop_when=gate,
                parent_encoding=(header and header.original_character_set) or default_encoding,
            )
        except UNREADABLE as error:
            raise ClipError("the header cannot be read: the file is broken") from error
        if header is None:
            header = part
        else:
            header.update(part)
        if gate.skip is not None:
            stream.seek(gate.skip)
            continue
        # pydicom takes a stray item delimiter for the end of the dataset: go on behind it.
        end = stream.tell()
        stream.seek(max(0, end - 8))
        if stream.read(end - stream.tell())[:4] not in _ITEM_DELIMITER:
            break
        strays += 1
        if strays > MOST_STRAYS:
            raise ClipError("the header is full of stray delimiters: the file is broken")
    if not header:
        raise ClipError("the file holds no DICOM elements")
    return header


def _extended_offsets(header: Dataset) -> tuple[int, ...]:
    try:
        table = header.get("ExtendedOffsetTable")
        if not table or len(table) > 8 * MOST_FRAMES:
            return ()
        return struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8])
    except UNREADABLE:
        return ()


def _pixel_element(
    stream: _Stream, *, implicit: bool, little: bool, offsets: tuple[int, ...]
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
