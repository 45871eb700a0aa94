"""The picture of an explained clip: a cine of panels that a cardiologist can judge at a glance.

From the left and the top: the clip as the models saw it, the tracing drawn over it, what was
found in words and the cavity's volume over time; below, one panel for each explained output with
its map over the frame, strong places in bright colours. Only pixels of the scanning sector come
into it, so no name can. :func:`draw_clip` lays it out and :func:`encode` makes JPEG frames of it,
one after another, so that a long clip needs no more memory than a short one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.explain.sheet import (
    Curve,
    FrameMark,
    MarkKind,
    Painter,
    Shown,
    ShownMap,
    ShownTracing,
)

__all__ = [
    "MOST_FRAMES",
    "Curve",
    "EncodedPicture",
    "FrameMark",
    "MarkKind",
    "Picture",
    "Shown",
    "ShownMap",
    "ShownTracing",
    "draw_clip",
    "encode",
    "poster",
]

MOST_FRAMES = 300
"""A picture shows the first frames of a clip up to this many: ten seconds at 30 a second."""

_QUALITY = 90


class Frames(Protocol):
    """Frames that are drawn when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        """(rows, columns, 3) RGB."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A cine, not yet encoded.

    ``frames`` are drawn when indexed, each (rows, columns, 3) RGB with even rows and columns.
    ``frame_times_ms`` is when each is shown, counted from the clip's first frame; ``source_frames``
    the zero-based frames of the clip that they show; ``poster_position`` the frame among them
    that tells most; ``marks`` those worth looking at alone. ``curve`` is the cavity over time, and
    ``tracing_box`` the left, top, width and height of the panel with the tracing.
    """

    frames: Frames = field(repr=False)
    rows: int
    columns: int
    frame_times_ms: tuple[float, ...]
    source_frames: tuple[int, ...]
    title: str
    poster_position: int = 0
    marks: tuple[FrameMark, ...] = ()
    curve: Curve | None = None
    tracing_box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class EncodedPicture:
    """A cine as JPEG frames (baseline, YCbCr 4:2:2), ready for a secondary capture.

    The fields mean what they do in :class:`Picture`.
    """

    jpeg_frames: tuple[bytes, ...] = field(repr=False)
    rows: int
    columns: int
    frame_times_ms: tuple[float, ...]
    source_frames: tuple[int, ...]
    title: str
    poster_position: int = 0
    marks: tuple[FrameMark, ...] = ()
    curve: Curve | None = None
    tracing_box: tuple[int, int, int, int] | None = None

    @property
    def raw_bytes(self) -> int:
        """Size before compression: 8-bit RGB."""
        return self.rows * self.columns * 3 * len(self.jpeg_frames)


def draw_clip(frames: NDArray[np.uint8], shown: Shown) -> Picture:
    """Lay out the picture of a clip.

    Parameters
    ----------
    frames
        (n, rows, columns) grey frames of the sector, zero outside it; those after
        :data:`MOST_FRAMES` are left out.
    shown
        What to draw over and beside them.

    Raises
    ------
    ValueError
        If frames, times, masks or maps do not fit together.
    """
    frames = frames[:MOST_FRAMES]
    painter = Painter(frames, shown)
    return Picture(
        frames=painter,
        rows=painter.rows,
        columns=painter.columns,
        frame_times_ms=shown.frame_times_ms[: len(frames)],
        source_frames=shown.source_frames[: len(frames)],
        title=painter.title,
        poster_position=painter.poster_position,
        marks=painter.marks,
        curve=painter.curve,
        tracing_box=painter.tracing_box,
    )


def encode(picture: Picture) -> EncodedPicture:
    """Draw and compress every frame: JPEG baseline 4:2:2, quality 90 (PS3.5 8.2.1)."""
    return EncodedPicture(
        jpeg_frames=tuple(_jpeg(picture.frames[at]) for at in range(len(picture.frames))),
        rows=picture.rows,
        columns=picture.columns,
        frame_times_ms=picture.frame_times_ms,
        source_frames=picture.source_frames,
        title=picture.title,
        poster_position=picture.poster_position,
        marks=picture.marks,
        curve=picture.curve,
        tracing_box=picture.tracing_box,
    )


def poster(picture: Picture | EncodedPicture) -> bytes:
    """The frame that tells most, as PNG."""
    if isinstance(picture, EncodedPicture):
        image: Image.Image = Image.open(io.BytesIO(picture.jpeg_frames[picture.poster_position]))
    else:
        image = Image.fromarray(picture.frames[picture.poster_position])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=_QUALITY, subsampling="4:2:2")
    return file.getvalue()
