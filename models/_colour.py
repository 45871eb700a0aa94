"""What the samples of a frame mean, and their way to grey and to RGB.

Labels and JPEG markers lie in both directions ("green" images), so the pixels are asked: on an
ultrasound screen most are black or grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models._header import UNREADABLE, ClipError
from models._limits import MOST_PALETTE

_CHANNELS: Final = ("Red", "Green", "Blue")


class Planes(StrEnum):
    """What the samples of a pixel mean."""

    GREY = "grey"
    INVERTED = "inverted grey"
    PALETTE = "palette"
    RGB = "rgb"
    YBR = "ybr"


def read_palette(header: Dataset, *, size: int, little: bool) -> NDArray[np.uint8]:
    """The palette (PS3.3 C.7.6.3.1.5) as a table of ``size`` RGB values of 8 bits.

    Entries of 16 bits give their upper byte; some machines write 8-bit values into 16-bit
    entries, and those are taken as they are. Values before the first mapped one have the first
    entry, those behind the last have the last.

    Raises:
        ClipError: the palette is missing or broken.
    """
    values = np.arange(size)
    try:
        wide = np.stack([_channel(header, c, values, little) for c in _CHANNELS], axis=-1)
    except UNREADABLE as error:
        raise ClipError("the colour palette is missing or broken") from error
    return (wide >> 8 if int(wide.max()) > 255 else wide).astype(np.uint8)


def _channel(
    header: Dataset, channel: str, values: NDArray[Any], little: bool
) -> NDArray[np.uint16]:
    descriptor = header[f"{channel}PaletteColorLookupTableDescriptor"].value
    count = int(descriptor[0]) or 65536
    first = int(descriptor[1])
    segmented = header.get(f"Segmented{channel}PaletteColorLookupTableData")
    if segmented is not None and "RedPaletteColorLookupTableData" not in header:
        deep = int(descriptor[2]) > 8
        table = _unsegmented(bytes(segmented), ("<u2" if little else ">u2") if deep else "u1")
    else:
        data = bytes(header[f"{channel}PaletteColorLookupTableData"].value)
        # Entries of 8 bits may take 16 each, whatever the descriptor says: the length tells.
        wide = len(data) > count + 1
        kind = ("<u2" if little else ">u2") if wide else "u1"
        table = np.frombuffer(data[: len(data) // (1 + wide) * (1 + wide)], kind)
    table = table[:count]
    if not len(table):
        raise ValueError("empty palette")
    found: NDArray[np.uint16] = table[np.clip(values - first, 0, len(table) - 1)].astype(np.uint16)
    return found


def _unsegmented(data: bytes, kind: str) -> NDArray[np.uint16]:
    """A segmented palette, written out (PS3.3 C.7.9.2).

    Raises:
        ValueError: it is broken, or would be longer than a palette can be.
    """
    size = np.dtype(kind).itemsize
    words = np.frombuffer(data[: len(data) // size * size], kind).astype(np.int64).tolist()
    table: list[int] = []
    place = segments = 0
    while place + 1 < len(words):  # one more may pad
        if words[place] == 2:  # so many earlier segments again
            count, place = words[place + 1], place + 2
            parts = words[place : place + 4 // size]
            earlier = sum(part << (8 * size * n) for n, part in enumerate(parts))
            for _ in range(min(count, MOST_PALETTE)):
                earlier = _segment(words, earlier, table)
            place += len(parts)
        else:
            place = _segment(words, place, table)
        segments += 1
        if segments > MOST_PALETTE:
            raise ValueError("the segments of a palette are too many")
    return np.asarray(table, np.uint16)


def _segment(words: Sequence[int], place: int, table: list[int]) -> int:
    """Add what the segment at ``place`` says; gives the place behind it."""
    kind, length = words[place], words[place + 1]
    if len(table) + length > MOST_PALETTE:
        raise ValueError("the segments of a palette are too long")
    if kind == 0:  # as they stand
        table += words[place + 2 : place + 2 + length]
        return place + 2 + length
    if kind == 1:  # a line from the last one
        steps = np.linspace(table[-1], words[place + 2], length + 1)[1:]
        table += np.rint(steps).astype(np.int64).tolist()
        return place + 3
    raise ValueError("a segment of a palette is of no known kind")


def tell_planes(samples: NDArray[Any]) -> Planes | None:
    """Whether three planes are RGB or YBR, as the grey and black pixels show; None: unclear.

    A grey pixel is (g, g, g) in RGB and (g, 128, 128) in YBR. Pixels near 128 are both, and so
    do not count.
    """
    y, b, r = (samples[::2, ::2, plane].astype(np.int16) for plane in range(3))
    telling = np.abs(y - 128) > 24
    ybr = int((telling & (np.abs(b - 128) < 8) & (np.abs(r - 128) < 8)).sum())
    rgb = int((telling & (np.abs(b - y) < 8) & (np.abs(r - y) < 8)).sum())
    if max(ybr, rgb) < 0.02 * y.size:
        return None
    if ybr > 4 * rgb:
        return Planes.YBR
    return Planes.RGB if rgb > 4 * ybr else None


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R BT.601 luma in 16-bit fixed point, rounded, as libjpeg has it."""
    red, green, blue = (rgb[..., c].astype(np.uint32) for c in range(3))
    grey: NDArray[Any] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    eight: NDArray[np.uint8] = grey.astype(np.uint8)
    return eight


def ybr_to_rgb(ybr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PS3.3 C.7.6.3.1.2."""
    y = ybr[..., 0].astype(np.float32)
    b, r = ybr[..., 1].astype(np.float32) - 128, ybr[..., 2].astype(np.float32) - 128
    rgb = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], axis=-1)
    eight: NDArray[np.uint8] = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return eight


def expand_422(flat: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Y1 Y2 B R for each pair of pixels -> (rows, columns, 3) (PS3.3 C.7.6.3.1.2)."""
    pairs = flat.reshape(rows, columns // 2, 4)
    out = np.empty((rows, columns, 3), flat.dtype)
    out[:, 0::2, 0], out[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    out[..., 1] = np.repeat(pairs[..., 2], 2, axis=1)
    out[..., 2] = np.repeat(pairs[..., 3], 2, axis=1)
    return out
