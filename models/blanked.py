"""An object's frames as they are stored, with all but the sector blanked: for passing them on.

:mod:`models.clip` gives a model grey of 8 bits; here depth and colour stay, so that what is passed
on can be measured as before. Outside the sector nothing is left: not a pixel, and no bit above
the stored ones, where old machines hid overlays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models._colour import Planes, tell_planes, ybr_to_rgb
from models._header import ClipError, number
from models._pixels import FrameReader
from models.clip import Clip

__all__ = ["BlankedFrames", "blanked_frames"]

_NAMES: Final = {
    Planes.GREY: "MONOCHROME2",
    Planes.INVERTED: "MONOCHROME1",
    Planes.RGB: "RGB",
    Planes.YBR: "YBR_FULL",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class BlankedFrames:
    """Frames of one shape and kind, made one at a time.

    ``photometric`` is MONOCHROME2, MONOCHROME1, RGB or YBR_FULL: a palette is painted, and
    subsampled colour is spread out. ``blank`` is the stored value of what is blanked, a number a
    sample. ``mask`` is True in the sector, of the shape of a frame.
    """

    photometric: str
    rows: int
    columns: int
    frame_count: int
    samples: int
    bits_stored: int
    signed: bool
    mask: NDArray[np.bool_]
    blank: tuple[int, ...]
    _reader: FrameReader = field(repr=False)
    _planes: Planes = field(repr=False)

    @property
    def bits_allocated(self) -> int:
        """8 or 16: as few as hold the stored ones."""
        return 8 if self.bits_stored <= 8 else 16

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """All frames in their order, ``(rows, columns[, 3])``, decoded as they are asked for.

        Raises
        ------
        ClipError
            A frame cannot be decoded, or is of another kind than the first.
        """
        fill = np.array(self.blank if self.samples == 3 else self.blank[0], self._kind)
        seen = self.mask[..., np.newaxis] if self.samples == 3 else self.mask
        for place, (samples, planes) in enumerate(self._reader.stored(range(self.frame_count))):
            whole = self._alike(samples, planes, place)
            frame = np.empty(whole.shape, self._kind)
            frame[...] = fill
            np.copyto(frame, whole, where=seen)
            yield frame

    def as_rgb(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame of three samples as RGB."""
        return ybr_to_rgb(frame) if self._planes is Planes.YBR else frame

    @property
    def _kind(self) -> np.dtype[Any]:
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    def _alike(self, samples: NDArray[Any], planes: Planes, place: int) -> NDArray[Any]:
        """A frame in the colours and the depth of all."""
        if self._planes is Planes.PALETTE:
            return self._reader.painted(samples)
        if (samples.ndim == 3) != (self.samples == 3):
            raise ClipError(f"frame {place} has other colours than the first")
        if self.samples == 1:
            return self._stored_bits(samples)
        if planes is not self._planes and tell_planes(samples) is planes:
            return ybr_to_rgb(samples) if planes is Planes.YBR else _rgb_to_ybr(samples)
        return samples

    def _stored_bits(self, samples: NDArray[Any]) -> NDArray[Any]:
        """The stored bits alone; the sign, if any, in those above."""
        values = samples.astype(np.int32) & ((1 << self.bits_stored) - 1)
        if self.signed:
            values -= (values >> (self.bits_stored - 1)) << self.bits_stored
        return values.astype(self._kind)


def blanked_frames(clip: Clip) -> BlankedFrames:
    """The frames of a clip that :func:`models.clip.read_clip` read, blanked outside its sector.

    Raises
    ------
    ClipError
        No sector was found, or the pixels are of a kind that is not passed on.
    """
    reader = clip._frames
    if not isinstance(reader, FrameReader):
        raise ClipError("these frames never were a file")
    sector, layout = clip.sector, reader.layout
    if not sector.mask.any():
        raise ClipError("no ultrasound sector is found in its pixels")
    highest = number(clip.header, "HighBit")
    if highest is not None and int(highest) != layout.bits_stored - 1:
        raise ClipError(f"the stored bits end at bit {int(highest)}, of {layout.bits_stored}")
    mask = np.zeros((layout.rows, layout.columns), bool)
    mask[sector.top : sector.bottom, sector.left : sector.right] = sector.mask
    mask.setflags(write=False)
    first, planes = next(reader.stored((0,)))
    blank: tuple[int, ...]
    coloured = planes in (Planes.RGB, Planes.YBR) and first.ndim == 3
    if coloured and (first.dtype != np.uint8 or layout.bits_stored != 8):
        raise ClipError("colour of other than 8 bits is not passed on")
    if planes is Planes.PALETTE:
        name, blank, stored, signed = "RGB", (0, 0, 0), 8, False
    elif coloured:
        name, stored, signed = _NAMES[planes], 8, False
        blank = (0, 128, 128) if planes is Planes.YBR else (0, 0, 0)
    else:
        planes = planes if planes is Planes.INVERTED else Planes.GREY
        name, stored, signed = _NAMES[planes], layout.bits_stored, layout.signed
        lowest = -(1 << (stored - 1)) if signed else 0
        blank = (lowest if planes is Planes.GREY else lowest + (1 << stored) - 1,)
    return BlankedFrames(
        photometric=name,
        rows=layout.rows,
        columns=layout.columns,
        frame_count=layout.frame_count,
        samples=len(blank),
        bits_stored=stored,
        signed=signed,
        mask=mask,
        blank=blank,
        _reader=reader,
        _planes=planes,
    )


def _rgb_to_ybr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PS3.3 C.7.6.3.1.2."""
    r, g, b = (rgb[..., c].astype(np.float32) for c in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    out = np.stack([y, 128 + 0.564334 * (b - y), 128 + 0.713267 * (r - y)], axis=-1)
    eight: NDArray[np.uint8] = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return eight
