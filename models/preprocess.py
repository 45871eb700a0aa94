"""Grey sector frames to network input, and network pixels back to the sector.

This is the whole of the preprocessing, to the byte. A clip hands over frames that are cropped to
the scanning sector and zero outside it (:meth:`models.clip.Clip.frames`). From there:

1. The frame is scaled with an antialiased triangle filter (Pillow's ``BILINEAR`` with its support
   widened when shrinking) on 8-bit grey. With ``letterbox`` both sides are scaled by the factor
   that just fits, each side rounded to a whole pixel; otherwise each side fills the input.
2. With ``letterbox`` it is centred on black (grey 0), an odd pixel going to the bottom or right.
3. ``(grey / 255 - mean) / std`` in float32.

Training goes through the very same functions. Golden values in the tests pin them: a change that
alters a number needs a new :data:`VERSION`, and packs name the version they were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.packs.manifest import InputSpec

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Where a sector frame lies in a network's input.

    Coordinates are (row, column) with whole numbers at pixel centres, on both sides.
    ``scale_row`` and ``scale_column`` are network pixels per source pixel; ``top`` and ``left``
    are the first network row and column that show the frame, ``height`` and ``width`` how many do.
    """

    rows: int
    columns: int
    source_rows: int
    source_columns: int
    top: int
    left: int
    height: int
    width: int

    @property
    def scale_row(self) -> float:
        """Network rows per source row."""
        return self.height / self.source_rows

    @property
    def scale_column(self) -> float:
        """Network columns per source column."""
        return self.width / self.source_columns

    def to_source(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n, 2) network (row, column) to sector (row, column)."""
        scale = np.array([self.scale_row, self.scale_column])
        corner = np.array([self.top, self.left], dtype=np.float64)
        return np.asarray((points - corner + 0.5) / scale - 0.5, np.float64)

    def to_network(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n, 2) sector (row, column) to network (row, column)."""
        scale = np.array([self.scale_row, self.scale_column])
        corner = np.array([self.top, self.left], dtype=np.float64)
        return np.asarray((points + 0.5) * scale - 0.5 + corner, np.float64)

    def map_to_source(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Maps over the input to maps over the sector frame, bilinear.

        (n, rows, columns) of any float type to (n, source rows, source columns) float32.
        """
        shown = values[:, self.top : self.top + self.height, self.left : self.left + self.width]
        size = (self.source_columns, self.source_rows)
        out = np.empty((len(values), self.source_rows, self.source_columns), np.float32)
        for index, value in enumerate(shown):
            image = Image.fromarray(np.ascontiguousarray(value, np.float32))
            out[index] = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        return out


def fit_to(source_rows: int, source_columns: int, spec: InputSpec) -> Fit:
    """Where a frame of this size comes to lie in the input that ``spec`` describes."""
    if source_rows < 1 or source_columns < 1:
        raise ValueError(f"a frame of {source_rows} x {source_columns} pixels shows nothing")
    height, width = spec.rows, spec.columns
    if spec.letterbox:
        scale = min(spec.rows / source_rows, spec.columns / source_columns)
        height = min(spec.rows, max(1, round(source_rows * scale)))
        width = min(spec.columns, max(1, round(source_columns * scale)))
    return Fit(
        rows=spec.rows,
        columns=spec.columns,
        source_rows=source_rows,
        source_columns=source_columns,
        top=(spec.rows - height) // 2,
        left=(spec.columns - width) // 2,
        height=height,
        width=width,
    )


def fit_frames(frames: NDArray[np.uint8], spec: InputSpec) -> tuple[NDArray[np.float32], Fit]:
    """Scale, pad and normalise sector frames.

    Parameters
    ----------
    frames
        (n, rows, columns) 8-bit grey, cropped to the sector, zero outside it.

    Returns
    -------
    (n, spec.rows, spec.columns, 1) float32, and where the frames lie in it.

    Raises
    ------
    ValueError
        If ``frames`` has another shape or type: that is a mistake of the caller.
    """
    grey, fit = fit_grey(frames, spec)
    return normalise(grey, spec), fit


def fit_grey(frames: NDArray[np.uint8], spec: InputSpec) -> tuple[NDArray[np.uint8], Fit]:
    """Steps 1 and 2 alone: (n, spec.rows, spec.columns) 8-bit grey, for training sets."""
    if frames.ndim != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"frames must be (n, rows, columns) uint8, not {frames.shape} {frames.dtype}"
        )
    fit = fit_to(frames.shape[1], frames.shape[2], spec)
    out = np.zeros((len(frames), spec.rows, spec.columns), np.uint8)
    for index, frame in enumerate(frames):
        image = Image.fromarray(np.ascontiguousarray(frame))
        scaled = image.resize((fit.width, fit.height), Image.Resampling.BILINEAR)
        out[index, fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = np.asarray(
            scaled
        )
    return out, fit


def normalise(grey: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Step 3 alone: (n, rows, columns) 8-bit grey to (n, rows, columns, 1) float32."""
    scaled = grey.astype(np.float32) / np.float32(255)
    return ((scaled - np.float32(spec.mean)) / np.float32(spec.std))[..., np.newaxis]
