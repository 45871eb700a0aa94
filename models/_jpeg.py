"""What the head of a JPEG, JPEG-LS or JPEG 2000 code stream says, without decoding it.

Two things are needed before a decoder runs: the size that it will take memory for, and whether
libjpeg will hold the three planes for YCbCr or for RGB.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

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
            return None
        marker = data[place + 1]
        if marker == 0xFF or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, place + 2)[0]
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


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns that a code stream states; None where it states none (RLE)."""
    head = jpeg_head(data)
    if head is not None:
        return head.rows, head.columns
    # JPEG 2000 (ITU-T T.800 A.5.1), bare or in a JP2 box.
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(data) < start + 24 or (start > 0 and data[4:8] != b"jP  "):
        return None
    width, height, left, top = struct.unpack_from(">4L", data, start + 8)
    return height - top, width - left


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
