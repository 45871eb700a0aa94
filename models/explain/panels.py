"""The picture of an explained clip: a cine of panels that a cardiologist can judge at a glance.

From the left and the top: the clip as the models saw it, the tracing drawn over it, what was
found in words and the cavity's volume over time; below, one panel for each explained output with
its map over the frame, strong places in bright colours. Only pixels of the scanning sector come
into it, so no name can. :func:`draw_clip` lays it out and :func:`encode` makes JPEG frames of it,
one after another, so that a long clip needs no more memory than a short one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from models.explain.sheet import Painter
from models.explain.shown import Curve, FrameMark, MarkKind, Shown, ShownMap, ShownTracing
from models.threads import side_by_side

__all__ = [
    "MOST_FRAMES",
    "Curve",
    "EncodedPicture",
    "FrameMark",
    "MarkKind",
    "Picture",
    "PictureSettings",
    "Shown",
    "ShownMap",
    "ShownTracing",
    "draw_clip",
    "encode",
    "poster",
    "to_jpeg",
]

MOST_FRAMES = 300
"""A picture shows the first frames of a clip up to this many: ten seconds at 30 a second."""

_AT_ONCE = 6  # frames that one lane draws one after another
_SAME_MS = 0.5  # machines round frame times


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSettings:
    """How large a picture may become.

    ``quality`` is JPEG's, 1 to 95. At 70 the words look the same as at 90 and a frame takes 60 % of
    the room. Of a clip with more than ``frames_per_second`` not every frame is shown; those of end
    diastole and end systole always are.
    """

    quality: int = 70
    frames_per_second: float = 30.0


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


def draw_clip(
    frames: NDArray[np.uint8], shown: Shown, settings: PictureSettings | None = None
) -> Picture:
    """Lay out the picture of a clip.

    Parameters
    ----------
    frames
        (n, rows, columns) grey frames of the sector, zero outside it; those after
        :data:`MOST_FRAMES` are left out.
    shown
        What to draw over and beside them.
    settings
        Leave frames out accordingly; without them every frame is shown.

    Raises
    ------
    ValueError
        If frames, times, masks or maps do not fit together.
    """
    frames = frames[:MOST_FRAMES]
    if settings is not None and len(shown.frame_times_ms) >= len(frames):
        kept = _thinned(shown, len(frames), settings.frames_per_second)
        frames = frames[kept]
        shown = replace(
            shown,
            frame_times_ms=tuple(shown.frame_times_ms[at] for at in kept),
            source_frames=tuple(shown.source_frames[at] for at in kept),
        )
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


def encode(picture: Picture, settings: PictureSettings | None = None) -> EncodedPicture:
    """Draw and compress every frame: JPEG baseline 4:2:2 (PS3.5 8.2.1)."""
    quality = (settings or PictureSettings()).quality
    frames = picture.frames

    def some(begin: int) -> list[bytes]:
        # Neighbours share a map and a tracing: drawn by one lane, these are drawn once.
        places = range(begin, min(begin + _AT_ONCE, len(frames)))
        return [to_jpeg(frames[at], quality) for at in places]

    parts = side_by_side(some, range(0, len(frames), _AT_ONCE))
    return EncodedPicture(
        jpeg_frames=tuple(jpeg for part in parts for jpeg in part),
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


def to_jpeg(frame: NDArray[np.uint8], quality: int) -> bytes:
    """(rows, columns, 3) RGB as JPEG baseline 4:2:2."""
    # Code tables of its own would take some 3 % off a sheet, and more than twice the time.
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(frame),
        quality=quality,
        colorspace="RGB",
        colorsubsampling="422",
        fastdct=False,
    )
    return encoded


def _thinned(shown: Shown, count: int, most_per_second: float) -> list[int]:
    """Which of the first ``count`` frames to show, so that there are no more in a second."""
    times = np.asarray(shown.frame_times_ms[:count])
    least_ms = 1000.0 / most_per_second - _SAME_MS
    kept: list[int] = []
    for at, time in enumerate(times.tolist()):
        if not kept or time - times[kept[-1]] >= least_ms:
            kept.append(at)
    tracing = shown.tracing
    for frame in () if tracing is None else (*tracing.ed_frames, *tracing.es_frames):
        if frame in shown.source_frames[:count]:
            at = shown.source_frames.index(frame)
            kept[int(np.argmin(np.abs(np.asarray(kept) - at)))] = at  # in the nearest's place
    return sorted(set(kept))
