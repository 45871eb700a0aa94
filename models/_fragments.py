"""Which bytes belong to which frame of encapsulated Pixel Data (PS3.5 A.4).

Only the eight bytes at the head of each fragment are read. Offset tables are often empty and
sometimes wrong, so they are believed only where every entry points at a fragment's head.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, Final

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from models._header import ClipError, PixelElement
from models._limits import MOST_FRAGMENTS, MOST_FRAMES

_ITEM: Final = 0xE000FFFE
_SEQUENCE_END: Final = 0xE0DDFFFE


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragment:
    """One item: where its head lies, relative to the first fragment, and its value's bytes."""

    head: int
    start: int
    length: int


Frame = tuple[Fragment, ...]


def index_frames(
    stream: BinaryIO, pixels: PixelElement, *, size: int, frame_count: int, syntax: UID
) -> tuple[Frame, ...]:
    """The fragments of each frame, in order; more than ``frame_count`` are left out.

    Raises:
        ClipError: there is no fragment, one is cut off, or there are fewer frames than stated.
    """
    table, fragments = _walk(stream, pixels, size=size)
    if not fragments:
        raise ClipError("the pixel data are empty: there is no encoded frame")
    if frame_count == 1:
        return (fragments,)
    if len(fragments) == frame_count:
        return tuple((fragment,) for fragment in fragments)
    frames = _by_table(fragments, pixels.offsets or table, frame_count)
    if frames is None:
        frames = _by_start(fragments, _starts(stream, syntax))
    if len(frames) < frame_count:
        raise ClipError(
            f"the header states {frame_count} frames, but the pixel data hold {len(frames)}: "
            "the file is cut off or its header is wrong"
        )
    return frames[:frame_count]


def read_frame(stream: BinaryIO, frame: Frame, *, most: int) -> bytes:
    """The encoded bytes of one frame, its fragments joined; no more than ``most``."""
    parts = []
    for fragment in frame:
        stream.seek(fragment.start)
        part = stream.read(min(fragment.length, most))
        parts.append(part)
        most -= len(part)
        if most <= 0:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _walk(
    stream: BinaryIO, pixels: PixelElement, *, size: int
) -> tuple[tuple[int, ...], tuple[Fragment, ...]]:
    """The Basic Offset Table and all fragments."""
    end = size if pixels.length is None else min(size, pixels.offset + pixels.length)
    place = pixels.offset
    table: tuple[int, ...] | None = None
    first_head = place
    fragments: list[Fragment] = []
    while place + 8 <= end:
        stream.seek(place)
        tag, length = struct.unpack("<LL", stream.read(8))
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM:
            raise ClipError(
                f"the pixel data are broken: no fragment starts at byte {place}; send it again"
            )
        if place + 8 + length > end:
            raise ClipError(
                f"the file is cut off: a fragment of {length} bytes starts at byte {place}, "
                f"and the file ends at {end}; send it again"
            )
        if table is None:  # the first item is always the table, often empty
            raw = stream.read(length // 4 * 4) if length <= 4 * MOST_FRAMES else b""
            table = struct.unpack(f"<{len(raw) // 4}L", raw)
            first_head = place + 8 + length
        else:
            fragments.append(Fragment(head=place - first_head, start=place + 8, length=length))
            if len(fragments) > MOST_FRAGMENTS:
                raise ClipError(
                    f"the pixel data are in more than {MOST_FRAGMENTS} fragments: they are not read"
                )
        place += 8 + length
    return table or (), tuple(fragments)


def _by_table(
    fragments: Sequence[Fragment], table: Sequence[int], frame_count: int
) -> tuple[Frame, ...] | None:
    """Frames by an offset table; None where the table cannot be right."""
    rising = all(a < b for a, b in pairwise(table))
    if len(table) != frame_count or not rising or table[0] != 0:
        return None
    heads = {fragment.head: place for place, fragment in enumerate(fragments)}
    if not all(offset in heads for offset in table):
        return None
    places = [heads[offset] for offset in table]
    return _cut(fragments, places)


def _by_start(
    fragments: Sequence[Fragment], starts: Callable[[Fragment], bool] | None
) -> tuple[Frame, ...]:
    """Frames by what a code stream begins with; one fragment a frame where nothing tells."""
    if starts is None:
        return tuple((fragment,) for fragment in fragments)
    places = [place for place, fragment in enumerate(fragments) if starts(fragment)]
    return _cut(fragments, places) if places else ()


def _cut(fragments: Sequence[Fragment], places: Sequence[int]) -> tuple[Frame, ...]:
    ends = [*places[1:], len(fragments)]
    return tuple(tuple(fragments[a:b]) for a, b in zip(places, ends, strict=True))


def _starts(stream: BinaryIO, syntax: UID) -> Callable[[Fragment], bool] | None:
    if syntax in JPEG2000TransferSyntaxes:
        marks: tuple[bytes, ...] = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0c\x6a\x50")
    elif syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        marks = (b"\xff\xd8\xff",)
    else:
        return None  # PS3.5 A.4.2: an RLE frame is one fragment

    def begins(fragment: Fragment) -> bool:
        stream.seek(fragment.start)
        return stream.read(6).startswith(marks)

    return begins
