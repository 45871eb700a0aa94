"""An explanation as the paper shows it: the frame, the map, and the map over the frame.

After Ghorbani et al. 2020, Fig. 3, with what a reader needs to judge it: which output, its value
with interval and unit, the method, a colour bar with numbers, and that it is for research only.
Maps that are never negative are drawn in inferno, whose lightness grows evenly; signed ones in
berlin (Crameri 2018), black at zero, blue below and red above. Both are safe for colour-blind
readers. Zero is black in the map and leaves the grey as it is in the overlay.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from models.explain import ink
from models.explain.panels import Picture

RESEARCH_WORDS = "Research use only, not for diagnosis"
PERCENTILE = 99.5
"""The colour bar ends at this percentile of the map's strength in the sector, over the clip."""

_SIDE = 380
_GAP, _HEADER, _STRIP, _BAR, _FOOTER = 16, 84, 28, 58, 34
_BIG, _MIDDLE, _SMALL = 20, 16, 14
_SMOOTHING = 0.008  # of the short side: takes the grain out of a map, not its shape
_VISIBLE_FROM, _STRONGEST = 0.25, 0.75  # of the overlay: the map itself stands beside it
_SHORTEST_MS = 20  # viewers play shorter GIF frames at a speed of their own


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What one picture shows.

    Parameters
    ----------
    frames
        (n, rows, columns) grey sector frames, zero outside the sector.
    frame_times_ms, source_frames
        Of each of them.
    maps
        (m, rows, columns) for the source frames ``map_frames``; a frame without a map of its own
        is shown with the nearest.
    title, value
        The output, and its value with unit and interval.
    method, of_what, unit
        How the map was made, what its numbers are and their unit (empty: relative).
    note
        A line more, such as who says it and what it was tested on.
    warning
        A line in a warning colour; empty where there is none.
    """

    frames: NDArray[np.uint8]
    frame_times_ms: tuple[float, ...]
    source_frames: tuple[int, ...]
    maps: NDArray[np.float32]
    map_frames: tuple[int, ...]
    title: str
    value: str
    method: str
    of_what: str = ""
    unit: str = ""
    signed: bool = False
    note: str = ""
    warning: str = ""

    def __post_init__(self) -> None:
        count = len(self.frames)
        if self.frames.ndim != 3 or not count or len(self.source_frames) != count:
            raise ValueError(f"{self.frames.shape} frames, {len(self.source_frames)} numbers")
        if self.maps.shape != (len(self.map_frames), *self.frames.shape[1:]) or not len(self.maps):
            raise ValueError(f"maps {self.maps.shape} do not lie over frames {self.frames.shape}")
        if len(self.frame_times_ms) != count:
            raise ValueError(f"{count} frames and {len(self.frame_times_ms)} times")

    @cached_property
    def strength(self) -> NDArray[np.float32]:
        """The maps without their grain, -1 to 1 of the colour bar's end."""
        sigma = _SMOOTHING * min(self.maps.shape[1:])
        smooth = ndimage.gaussian_filter(self.maps.astype(np.float32), (0, sigma, sigma))
        return np.clip(smooth / self.full, -1, 1) if self.full > 0 else np.zeros_like(smooth)

    @cached_property
    def full(self) -> float:
        """The end of the colour bar, in ``unit``."""
        sigma = _SMOOTHING * min(self.maps.shape[1:])
        smooth = np.abs(ndimage.gaussian_filter(self.maps.astype(np.float32), (0, sigma, sigma)))
        inside = self.frames.any(axis=0)
        return float(np.percentile(smooth[:, inside] if inside.any() else smooth, PERCENTILE))

    @cached_property
    def telling(self) -> int:
        """The position of the frame to show alone: that with the strongest map of its own."""
        sums = np.abs(self.strength).sum(axis=(1, 2))
        wanted = self.map_frames[int(np.argmax(sums))]
        return int(np.argmin(np.abs(np.asarray(self.source_frames) - wanted)))


class _Painter:
    """Draws any frame; what never changes is drawn once."""

    def __init__(self, shown: SideBySide) -> None:
        self._shown = shown
        rows, columns = shown.frames.shape[1:]
        scale = _SIDE / min(rows, columns)
        self._size = min(560, round(columns * scale)), min(560, round(rows * scale))
        width, height = self._size
        self._lefts = [_GAP + place * (width + _GAP) for place in range(3)]
        self._top = _HEADER + _STRIP
        self.columns = _even(self._lefts[-1] + width + _GAP)
        self.rows = _even(self._top + height + _BAR + _FOOTER)
        self._sheet = self._draw_sheet()

    def __len__(self) -> int:
        return len(self._shown.frames)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        if not 0 <= position < len(self):
            raise IndexError(position)
        shown = self._shown
        source = shown.source_frames[position]
        nearest = int(np.argmin(np.abs(np.asarray(shown.map_frames) - source)))
        sheet = self._sheet.copy()
        grey = Image.fromarray(shown.frames[position]).resize(self._size, Image.Resampling.LANCZOS)
        image = Image.fromarray(shown.strength[nearest])
        strength = np.asarray(image.resize(self._size, Image.Resampling.BILINEAR))
        colours = Image.fromarray(colours_of(strength, signed=shown.signed))
        cover = np.rint(_opacity(np.abs(strength)) * 255).astype(np.uint8)
        over = grey.convert("RGB")
        over.paste(colours, (0, 0), Image.fromarray(cover))
        for left, part in zip(self._lefts, (grey.convert("RGB"), colours, over), strict=True):
            sheet.paste(part, (left, self._top))
        words = f"Frame {source + 1} · {shown.frame_times_ms[position] / 1000:.2f} s"
        if shown.map_frames[nearest] != source:
            words += f" · map of frame {shown.map_frames[nearest] + 1}"
        middle = self.rows - _FOOTER // 2
        ink.write(ImageDraw.Draw(sheet), (_GAP, middle), words, size=_SMALL)
        return np.asarray(sheet)

    def _draw_sheet(self) -> Image.Image:
        shown = self._shown
        sheet = Image.new("RGB", (self.columns, self.rows), ink.PAPER)
        draw = ImageDraw.Draw(sheet)
        right = self.columns - _GAP
        ink.write(draw, (right, 22), RESEARCH_WORDS, size=_MIDDLE, colour=ink.WARNING, anchor="rm")
        room = right - _GAP - ink.width_of(RESEARCH_WORDS, _MIDDLE) - 24
        ink.write(draw, (_GAP, 22), ink.shortened(shown.title, _BIG, room), size=_BIG)
        ink.write(draw, (_GAP, 48), ink.shortened(shown.value, _MIDDLE, right - _GAP), size=_MIDDLE)
        line, colour = (shown.warning, ink.WARNING) if shown.warning else (shown.note, ink.QUIET)
        line = ink.shortened(line, _SMALL, right - _GAP)
        ink.write(draw, (_GAP, 70), line, size=_SMALL, colour=colour)
        for left, name in zip(self._lefts, ("Frame", "Map", "Overlay"), strict=True):
            ink.write(draw, (left, _HEADER + _STRIP // 2), name, size=_MIDDLE)
        self._draw_bar(sheet, draw)
        words = ink.shortened(f"{shown.method} · echonode", _SMALL, self.columns * 0.6)
        middle = self.rows - _FOOTER // 2
        ink.write(draw, (right, middle), words, size=_SMALL, colour=ink.QUIET, anchor="rm")
        return sheet

    def _draw_bar(self, sheet: Image.Image, draw: ImageDraw.ImageDraw) -> None:
        shown = self._shown
        left, width = self._lefts[1], self._size[0]
        top = self._top + self._size[1] + 10
        steps = np.linspace(-1 if shown.signed else 0, 1, width, dtype=np.float32)
        bar = colours_of(np.repeat(steps[np.newaxis], 14, axis=0), signed=shown.signed)
        sheet.paste(Image.fromarray(bar), (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + 14), outline=ink.LINE)
        marks = (-1.0, 0.0, 1.0) if shown.signed else (0.0, 0.5, 1.0)
        for mark in marks:
            share = (mark + 1) / 2 if shown.signed else mark
            anchor = {0.0: "lm", 1.0: "rm"}.get(share, "mm")
            number = _number(mark * shown.full) if shown.unit else f"{mark:g}"
            ink.write(
                draw, (left + share * width, top + 26), number, size=_SMALL, anchor=anchor,
                colour=ink.QUIET,
            )  # fmt: skip
        words = f"{shown.of_what}, {shown.unit}" if shown.unit else "relative strength"
        words += "" if shown.full > 0 else " (zero everywhere)"
        place = self._lefts[2], top + 7
        ink.write(draw, place, words, size=_SMALL)
        end = f"bar ends at the {PERCENTILE:g}th percentile over the clip"
        ink.write(draw, (place[0], top + 26), end, size=_SMALL, colour=ink.QUIET)
        if shown.signed:
            signs = "blue lowers the output, red raises it"
            ink.write(draw, (_GAP, top + 7), signs, size=_SMALL, colour=ink.QUIET)


def draw(shown: SideBySide) -> Picture:
    """The cine: every frame with its map, drawn when it is asked for."""
    painter = _Painter(shown)
    return Picture(
        frames=painter,
        rows=painter.rows,
        columns=painter.columns,
        frame_times_ms=shown.frame_times_ms,
        source_frames=shown.source_frames,
        title=f"Where the model looked: {shown.title}",
        poster_position=shown.telling,
    )


def write_png(picture: Picture, path: Path) -> None:
    """The most telling frame."""
    Image.fromarray(picture.frames[picture.poster_position]).save(path, "PNG", optimize=True)


def write_gif(picture: Picture, path: Path) -> None:
    """The cine at the clip's own pace; a GIF counts in hundredths of a second."""
    times = list(picture.frame_times_ms)
    last = times[-1] - times[-2] if len(times) > 1 else 1000.0
    ends = [*times[1:], times[-1] + last]
    # Rounded as points in time and not as lengths, so that no error adds up.
    marks = [round(time / 10) for time in (times[0], *ends)]
    lengths = [max(_SHORTEST_MS, 10 * (b - a)) for a, b in pairwise(marks)]
    images = [Image.fromarray(picture.frames[at]) for at in range(len(picture.frames))]
    palette = _common_palette(images[picture.poster_position])
    small = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    file = io.BytesIO()
    small[0].save(
        file, "GIF", save_all=True, append_images=small[1:], duration=lengths, loop=0, disposal=1
    )
    path.write_bytes(file.getvalue())


def _opacity(strength: NDArray[np.floating]) -> NDArray[np.float32]:
    """How much of the map covers the frame: the frame stays visible under a map that is diffuse."""
    rise = np.clip((strength - _VISIBLE_FROM) / (1 - _VISIBLE_FROM), 0, 1)
    return np.asarray(_STRONGEST * rise, np.float32)


def colours_of(strength: NDArray[np.floating], *, signed: bool) -> NDArray[np.uint8]:
    """Any shape of values, 0 to 1 or signed -1 to 1, to RGB with black at zero."""
    if not signed:
        return ink.palette(strength)
    table = _berlin()
    steps = np.rint((np.clip(strength, -1, 1) + 1) / 2 * (len(table) - 1)).astype(int)
    return np.asarray(table[steps], np.uint8)


@lru_cache(maxsize=1)
def _berlin() -> NDArray[np.uint8]:
    from matplotlib import colormaps

    steps = np.linspace(0, 1, 255)
    table = np.asarray(colormaps["berlin"](steps), np.float64)[:, :3]
    # Its middle is nearly black; made quite so, that zero is seen as zero.
    dark = np.minimum(1, np.abs(steps - 0.5) * 2 / 0.06)[:, np.newaxis]
    return np.asarray(np.rint(table * dark * 255), np.uint8)


def _common_palette(image: Image.Image) -> Image.Image:
    """One table of colours for a whole cine: grey levels and those of the telling frame."""
    greys = Image.new("RGB", (256, image.height // 3 + 1))
    greys.paste(
        Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
        .convert("RGB")
        .resize(greys.size)
    )
    both = Image.new("RGB", (max(image.width, 256), image.height + greys.height))
    both.paste(image, (0, 0))
    both.paste(greys, (0, image.height))
    return both.quantize(colors=256, method=Image.Quantize.MEDIANCUT)


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}"


def _even(number: int) -> int:
    return number + number % 2
