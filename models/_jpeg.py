"""What the head of a JPEG, JPEG-LS or JPEG 2000 code stream says, without decoding it.

Two things are needed before a decoder runs: how much memory and time it will take, and whether
libjpeg will hold the three planes for YCbCr or for RGB. A decoder believes the head, which may
have been made to ask for gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from models._limits import MOST_BLOCKS, MOST_COMPONENTS, MOST_PACKETS, MOST_SCANS, MOST_TILES

Colour = Literal["ybr", "rgb"]

# ITU-T T.81 Table B.1; F7 is JPEG-LS (ITU-T T.87 C.1.1).
_FRAME_HEADS: Final = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xF7))
_BARE: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_LIBJPEG_HEADS: Final = frozenset((0xC0, 0xC1, 0xC2))


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegHead:
    """A JPEG or JPEG-LS stream's frame head and colour marks."""

    kind: int  #: the SOFn marker's second byte: C0 baseline, C1 extended, C3 lossless ...
    precision: int
    rows: int
    columns: int
    component_ids: tuple[int, ...]
    sampling: tuple[int, ...]
    jfif: bool
    adobe_transform: int | None

    @property
    def components(self) -> int:
        """The number of planes."""
        return len(self.component_ids)

    @property
    def subsampled(self) -> bool:
        """Whether the planes differ in resolution."""
        return len(set(self.sampling)) > 1

    @property
    def by_libjpeg(self) -> bool:
        """Whether an 8-bit libjpeg decodes it."""
        return self.kind in _LIBJPEG_HEADS and self.precision == 8

    @property
    def marked(self) -> Colour | None:
        """The colour space that the stream itself states; None where it states none."""
        if self.components != 3:
            return None
        if self.jfif:
            return "ybr"
        if self.adobe_transform is not None:
            return "rgb" if self.adobe_transform == 0 else "ybr"
        return "rgb" if self.component_ids in (tuple(b"RGB"), tuple(b"rgb")) else None

    @property
    def libjpeg_view(self) -> Colour:
        """What libjpeg takes three planes for (default_decompress_parms in jdapimin.c)."""
        if self.jfif:
            return "ybr"
        if self.adobe_transform is not None:
            return "rgb" if self.adobe_transform == 0 else "ybr"
        return "rgb" if self.component_ids == tuple(b"RGB") else "ybr"


def jpeg_head(data: bytes) -> JpegHead | None:
    """The head of a JPEG or JPEG-LS stream; None where this is no such stream."""
    if data[:2] != b"\xff\xd8":
        return None
    place, jfif, adobe = 2, False, None
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            place = data.find(b"\xff", place)  # as libjpeg does
            if place < 0:
                return None
            continue
        marker = data[place + 1]
        if marker == 0xFF or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, place + 2)[0]
        if length < 2:
            return None
        body = data[place + 4 : place + 2 + length]
        if marker in _FRAME_HEADS:
            return _frame_head(marker, body, jfif=jfif, adobe=adobe)
        if marker in (0xD9, 0xDA):
            return None
        if marker == 0xE0 and body.startswith(b"JFIF\x00"):
            jfif = True
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        place += 2 + length
    return None


def absurd_jpeg(head: JpegHead, data: bytes) -> str:
    """Why a JPEG or JPEG-LS stream is not worth decoding; "" where it is."""
    if head.components > MOST_COMPONENTS:
        return f"{head.components} planes"
    if data.count(b"\xff\xda") > MOST_SCANS:
        return f"more than {MOST_SCANS} passes over the picture"
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Jpeg2000Head:
    """A JPEG 2000 code stream's size, and what a decoder has to keep for it."""

    rows: int
    columns: int
    components: int
    absurd: str  #: why it is not worth decoding; "" where it is


def jpeg_2000_stream(data: bytes) -> bytes:
    """The bare code stream: some writers leave it in a JP2 file, against PS3.5 A.4.4.

    What else is in such a file may make a decoder take memory. Empty where there is none.
    """
    if data.startswith(b"\xff\x4f\xff\x51"):
        return data
    if not data.startswith(b"\x00\x00\x00\x0cjP"):
        return b""
    place = 0
    while place + 16 <= len(data):
        length, kind, wide = struct.unpack_from(">L4sQ", data, place)
        if kind == b"jp2c":
            return data[place + (16 if length == 1 else 8) :]
        length = wide if length == 1 else length
        if length < 8:
            break
        place += length
    return b""


def jpeg_2000_head(stream: bytes) -> Jpeg2000Head | None:
    """The head of a JPEG 2000 code stream (ITU-T T.800 Annex A); None where it is broken."""
    try:
        (
            _,
            _,
            right,
            bottom,
            left,
            top,
            tile_width,
            tile_height,
            tile_left,
            tile_top,
            components,
        ) = struct.unpack_from(">HH8LH", stream, 4)
        if not (left < right and top < bottom and tile_width and tile_height):
            return None
        if tile_left > left or tile_top > top:
            return None
        across = -(-(right - tile_left) // tile_width)
        down = -(-(bottom - tile_top) // tile_height)
        absurd = f"{components} planes" if components > MOST_COMPONENTS else ""
        if across * down > MOST_TILES:
            absurd = f"{across * down} tiles"
        width, height = min(right - left, tile_width), min(bottom - top, tile_height)
        for at, short in _codings(stream, components) if not absurd else ():
            blocks, packets = _work(stream, at, width, height, short=short)
            share = across * down * (1 if short else components)
            if blocks * share > MOST_BLOCKS or packets * share > MOST_PACKETS:
                absurd = "too many pieces"
        return Jpeg2000Head(
            rows=bottom - top, columns=right - left, components=components, absurd=absurd
        )
    except (struct.error, IndexError):
        return None


def _codings(stream: bytes, components: int) -> Iterator[tuple[int, bool]]:
    """The body of every COD and (True) COC, in the main head and those of tile-parts."""
    place, end_of_part, parts = 2, 0, 0
    while place + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, place)
        if marker == 0xFF93:  # the tile-part's data begin
            if end_of_part <= place:
                return
            place = end_of_part
            continue
        if marker == 0xFFD9 or length < 2:
            return
        if marker == 0xFF90:
            parts += 1
            if parts > 255 * MOST_TILES:
                return
            size = struct.unpack_from(">L", stream, place + 6)[0]
            end_of_part = place + size if size else len(stream)
        elif marker == 0xFF52:
            yield place + 4, False
        elif marker == 0xFF53:
            yield place + (5 if components < 257 else 6), True
        place += 2 + length


def _work(stream: bytes, place: int, width: int, height: int, *, short: bool) -> tuple[int, int]:
    """Code-blocks and packets of one component of one tile, by a COD or a COC."""
    own_precincts = stream[place] & 1
    layers = 1 if short else struct.unpack_from(">H", stream, place + 2)[0]
    place += 1 if short else 5
    levels, block_width, block_height = (stream[place + n] for n in range(3))
    area = 1 << min(30, (block_width & 15) + 2 + (block_height & 15) + 2)
    blocks = packets = 0
    for level in range(min(levels, 32) + 1):
        shrunk = levels - level
        wide, high = (width >> shrunk) + 1, (height >> shrunk) + 1
        size = stream[place + 5 + level] if own_precincts else 0xFF
        across, down = (wide >> (size & 15)) + 1, (high >> (size >> 4)) + 1
        packets += across * down * layers
        # A code-block ends where its precinct does.
        smallest = min(area, 1 << max(0, (size & 15) + (size >> 4) - 2))
        blocks += wide * high // smallest + across * down
    return blocks, packets


def _frame_head(marker: int, body: bytes, *, jfif: bool, adobe: int | None) -> JpegHead | None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        return None
    precision, rows, columns, count = struct.unpack_from(">BHHB", body)
    parts = [body[6 + 3 * c : 9 + 3 * c] for c in range(count)]
    return JpegHead(
        kind=marker,
        precision=precision,
        rows=rows,
        columns=columns,
        component_ids=tuple(part[0] for part in parts),
        sampling=tuple(part[1] for part in parts),
        jfif=jfif,
        adobe_transform=adobe,
    )
