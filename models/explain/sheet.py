"""The sheet that :mod:`models.explain.panels` shows: where things stand, and how they are drawn.

It is about 1300 pixels wide, so that it fits on a common screen at its own size. One explained
output stands beside its frame: frame, map, overlay. Several stand below frame and tracing, each as
map and overlay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from models.explain import ink
from models.explain.box import Box
from models.explain.curve import CurvePlot
from models.explain.shown import Curve, FrameMark, MarkKind, Shown, ShownMap
from models.explain.words import (
    MIDDLE,
    SMALL,
    Lines,
    interval_words,
    long_name,
    pack_words,
    short_name,
    value_words,
)
from models.finding import Evidence, Finding
from models.threads import lanes, side_by_side

RESEARCH_USE = "RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE"
PERCENTILE = 99.5
"""Each output's maps are scaled so that this percentile over the clip's sector is full strength."""

WIDTH = 1300
"""Of the sheet, in pixels."""

_GAP = 16
_HEADER, _STRIP, _LEGEND, _FOOTER = 50, 30, 30, 32
_BIG = 20
_LARGE, _SMALLER = (WIDTH - 4 * _GAP) // 3, (WIDTH - 5 * _GAP) // 4  # panels: three, four in a row
_FLATTEST, _TALLEST = 0.45, 1.15  # a panel's height as a share of its width
_LEAST_CURVE, _MOST_CURVE = 116, 250  # height
_MOST_WORDS = 470  # height
_SMOOTHING = 0.008  # of the panel's short side: takes the grain out of a map, not its shape

_ABBREVIATED = {"ef": "EF", "edv": "EDV", "esv": "ESV"}
_CLASS_COLOURS = {"cavity": ink.SKY, "myocardium": ink.ORANGE, "atrium": ink.PINK}


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A map, and all the outputs that it explains: those that are one number of the network."""

    map: ShownMap
    findings: tuple[Finding, ...]


class Painter:
    """Draws any frame of the sheet; what never changes is drawn once."""

    def __init__(self, frames: NDArray[np.uint8], shown: Shown) -> None:
        _check(frames, shown)
        shown = _cut(shown, len(frames))
        self._frames = frames
        self._shown = shown
        self._groups = tuple(_grouped(shown.maps, frames))
        self.curve = _curve_of(shown)
        self._place_boxes(*frames.shape[1:])
        self.title = _title(shown)
        self.poster_position = self._telling()
        self.marks = tuple(self._marks())
        self._plot = self._new_plot()
        self._sheet = self._draw_sheet()
        # A map and a tracing may stand for several frames that follow one another; each lane is at
        # a frame of its own.
        self._overlay = lru_cache(maxsize=(len(self._groups) + 1) * lanes())(self._draw_overlay)
        self._outlines = lru_cache(maxsize=2 * lanes())(self._draw_outlines)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        if not 0 <= position < len(self):
            raise IndexError(position)
        source = self._shown.source_frames[position]
        sheet = self._sheet.copy()
        grey = _resized(self._frames[position], self._clip_box)
        sheet.paste(grey, self._clip_box.centred(grey))
        if self._shown.tracing is not None and self._tracing_box is not None:
            place = self._tracing_box.centred(grey)
            sheet.paste(grey, place)
            over, opacity = self._outlines(_nearest(source, self._shown.tracing.frames))
            sheet.paste(over, place, opacity)
        for number, (map_box, over_box) in enumerate(self._pair_boxes):
            if number == 0 and over_box.fitted(self._frames.shape[1:]) != (grey.height, grey.width):
                grey = _resized(self._frames[position], over_box)  # all pairs are of one size
            place = over_box.centred(grey)
            sheet.paste(grey, place)
            at = _nearest(source, self._groups[number].map.frames)
            colours, opacity = self._overlay(number, at)
            sheet.paste(colours, place, opacity)
            sheet.paste(colours, map_box.centred(grey))
        self._draw_moment(ImageDraw.Draw(sheet), position)
        return np.asarray(sheet)

    @property
    def tracing_box(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of the tracing's picture."""
        if self._tracing_box is None:
            return None
        rows, columns = self._tracing_box.fitted(self._frames.shape[1:])
        left = self._tracing_box.left + (self._tracing_box.width - columns) // 2
        return left, self._tracing_box.top + (self._tracing_box.height - rows) // 2, columns, rows

    # Where things stand.

    def _place_boxes(self, source_rows: int, source_columns: int) -> None:
        shape = source_rows / source_columns
        large, small = (
            round(width * min(max(shape, _FLATTEST), _TALLEST)) for width in (_LARGE, _SMALLER)
        )
        traced = self._shown.tracing is not None
        beside = len(self._groups) == 1
        self._pair_boxes: list[tuple[Box, Box]] = []
        self._tracing_box: Box | None = None
        self._curve_box: Box | None = None
        top = _HEADER + _STRIP
        self._clip_box = _cell(0, top, _LARGE, large)
        if beside:
            self._pair_boxes = [(_cell(1, top, _LARGE, large), _cell(2, top, _LARGE, large))]
            top += large + _STRIP + _GAP
            if traced:
                self._tracing_box = _cell(0, top, _LARGE, large)
            first, least = (1, large) if traced else (0, 0)
            self._words_box = self._place_words(top, first=first, least=least)
        else:
            if traced:
                self._tracing_box = _cell(1, top, _LARGE, large)
            self._words_box = self._place_words(top, first=2 if traced else 1, least=large)
            if self.curve is not None:  # below the clip and its tracing
                curve_top = top + large + _GAP // 2
                height = max(_LEAST_CURVE, self._words_box.bottom - curve_top)
                self._curve_box = Box(
                    left=_GAP, top=curve_top, width=2 * _LARGE + _GAP,
                    height=min(height, _MOST_CURVE),
                )  # fmt: skip
                self._words_box = replace(self._words_box, height=curve_top + height - top)
        bottom = self._words_box.bottom
        for number in range(0 if beside else len(self._groups)):
            row, place = divmod(number, 2)
            top = self._words_box.bottom + _GAP + _STRIP + row * (small + _STRIP + _GAP)
            map_box, over_box = (_cell(2 * place + each, top, _SMALLER, small) for each in range(2))
            self._pair_boxes.append((map_box, over_box))
            bottom = over_box.bottom
        # Both even: JPEG 4:2:2 has one colour for two pixels of a row.
        self.columns = _even(WIDTH)
        self._legend_top = bottom + _GAP // 2
        self._footer_top = self._legend_top + (_LEGEND if self._groups else 0)
        self.rows = _even(self._footer_top + _FOOTER)

    def _place_words(self, top: int, *, first: int, least: int) -> Box:
        """The words from this column to the right, at least so high; a curve beside, if wide."""
        left = _cell(first, top, _LARGE, 0).left
        width = WIDTH - _GAP - left
        beside = width > _LARGE and self.curve is not None
        self._lines = self._words(width - (_LARGE + _GAP if beside else 0))
        needed = max(self._lines.height + 6, _LEAST_CURVE if beside else 0)
        height = max(least, min(needed, _MOST_WORDS + 6))
        if beside:
            self._curve_box = Box(
                left=left + width - _LARGE,
                top=top,
                width=_LARGE,
                height=min(height, _MOST_CURVE),
            )
        return Box(left=left, top=top, width=width, height=height)

    def _words(self, width: int, *, warnings_first: bool = False) -> Lines:
        """What was found; where it is too much for its place, a warning is the last to be cut."""
        lines = Lines(width)
        if warnings_first:
            self._add_cautions(lines)
        lines.of_packs(self._shown.findings)
        if not warnings_first:
            self._add_cautions(lines)
        lines.refusals(self._shown.refusals)
        if lines.height > _MOST_WORDS and not warnings_first:
            return self._words(width, warnings_first=True)
        return lines

    def _add_cautions(self, lines: Lines) -> None:
        for caution in self._shown.cautions:
            lines.paragraph(caution, ink.WARNING)

    # Which frames tell most.

    def _telling(self) -> int:
        """The frame to show alone: end diastole where it is known, and one that has its own map."""
        sources = self._shown.source_frames
        tracing = self._shown.tracing
        wanted = sources[len(sources) // 2]
        if tracing is not None and tracing.ed_frames:
            wanted = tracing.ed_frames[len(tracing.ed_frames) // 2]
        mapped = [
            frame for item in self._groups[:1] for frame in item.map.frames if frame in sources
        ]
        if mapped:
            wanted = mapped[_nearest(wanted, mapped)]
        return _nearest(wanted, sources)

    def _marks(self) -> Iterator[FrameMark]:
        sources = self._shown.source_frames
        tracing = self._shown.tracing
        if tracing is not None:
            for frames, kind in (
                (tracing.ed_frames, MarkKind.END_DIASTOLE),
                (tracing.es_frames, MarkKind.END_SYSTOLE),
            ):
                for frame in frames:
                    yield FrameMark(position=_nearest(frame, sources), kind=kind)
        if self._groups:
            first = self._groups[0].map
            own = [at for at, frame in enumerate(first.frames) if frame in sources]
            if own:
                strongest = max(own, key=lambda at: float(first.maps[at].sum()))
                position = _nearest(first.frames[strongest], sources)
                yield FrameMark(position=position, kind=MarkKind.STRONGEST)

    # What never changes.

    def _new_plot(self) -> CurvePlot | None:
        if self.curve is None or self._curve_box is None or self._shown.tracing is None:
            return None
        diastoles, systoles = (
            [self._time_of(frame) for frame in frames]
            for frames in (self._shown.tracing.ed_frames, self._shown.tracing.es_frames)
        )
        return CurvePlot(self._curve_box, self.curve, diastoles, systoles)

    def _time_of(self, source_frame: int) -> float:
        shown = self._shown
        return float(np.interp(source_frame, shown.source_frames, shown.frame_times_ms))

    def _draw_sheet(self) -> Image.Image:
        shown = self._shown
        sheet = Image.new("RGB", (self.columns, self.rows), ink.PAPER)
        draw = ImageDraw.Draw(sheet)
        middle = _HEADER // 2 - 2
        right = self.columns - _GAP
        ink.write(draw, (_GAP, middle), self.title, size=_BIG)
        ink.write(draw, (right, middle), RESEARCH_USE, size=_BIG, colour=ink.WARNING, anchor="rm")
        draw.line((_GAP, _HEADER - 6, right, _HEADER - 6), fill=ink.LINE)
        _draw_panel(draw, self._clip_box, "Clip, as the models see it")
        if self._tracing_box is not None and shown.tracing is not None:
            _draw_panel(draw, self._tracing_box, "Tracing")
            _draw_classes(draw, self._tracing_box, shown.tracing.classes)
        for group, (map_box, over_box) in zip(self._groups, self._pair_boxes, strict=True):
            _draw_panel(draw, map_box, "")
            _draw_panel(draw, over_box, "")
            _draw_group(draw, map_box.left, over_box.right, map_box.top - _STRIP // 2, group)
        self._draw_words(draw)
        if self._groups:
            self._draw_legend(sheet, draw)
        packs = dict.fromkeys(
            [pack_words(finding.pack) for finding in shown.findings]
            + [pack_words(refusal.pack) for refusal in shown.refusals]
        )
        words = ink.shortened(" · ".join(("echonode", *packs)), SMALL, self.columns * 0.55)
        middle = self._footer_top + _FOOTER // 2
        ink.write(draw, (right, middle), words, size=SMALL, colour=ink.QUIET, anchor="rm")
        return sheet

    def _draw_words(self, draw: ImageDraw.ImageDraw) -> None:
        """The findings by pack with interval and evidence, what was not given, and the curve."""
        box = self._words_box
        middle = box.top - _STRIP // 2
        ink.write(draw, (box.left, middle), "Findings", size=MIDDLE)
        ink.write(
            draw, (box.left + self._lines.columns, middle), "95 % interval", size=SMALL,
            colour=ink.QUIET, anchor="rm",
        )  # fmt: skip
        self._lines.draw(draw, box)
        if self._plot is not None:
            self._plot.draw(draw)

    def _draw_legend(self, sheet: Image.Image, draw: ImageDraw.ImageDraw) -> None:
        middle = self._legend_top + _LEGEND // 2
        left = _GAP
        for words in ("Map", "0"):
            ink.write(draw, (left, middle), words, size=SMALL, colour=ink.QUIET)
            left += round(ink.width_of(words, SMALL)) + 8
        colours = ink.palette(np.linspace(0, 1, 200)[np.newaxis].repeat(14, axis=0))
        sheet.paste(Image.fromarray(colours), (left, middle - 7))
        draw.rectangle((left - 1, middle - 8, left + 200, middle + 7), outline=ink.LINE)
        words = (
            f"1 = {PERCENTILE:g}th percentile over the clip · {self._shown.method}: how strongly "
            "each pixel moves the output"
        )
        room = self.columns - _GAP - left - 210
        words = ink.shortened(words, SMALL, room)
        ink.write(draw, (left + 210, middle), words, size=SMALL, colour=ink.QUIET)

    # What changes from frame to frame.

    def _draw_moment(self, draw: ImageDraw.ImageDraw, position: int) -> None:
        shown = self._shown
        source = shown.source_frames[position]
        words = (
            f"Frame {source + 1} of {shown.clip_frames} · "
            f"{shown.frame_times_ms[position] / 1000:.2f} s"
        )
        if self._groups:
            frames = self._groups[0].map.frames
            words += f" · maps of frame {frames[_nearest(source, frames)] + 1}"
        middle = self._footer_top + _FOOTER // 2
        ink.write(draw, (_GAP, middle), words, size=SMALL)
        if shown.tracing is None:
            return
        if self._plot is not None:
            self._plot.cursor(draw, shown.frame_times_ms[position])
        for frames, label in ((shown.tracing.ed_frames, "ED"), (shown.tracing.es_frames, "ES")):
            for box in (self._clip_box, self._tracing_box):
                if source in frames and box is not None:
                    _tag(draw, box, label)

    def _draw_overlay(self, number: int, at: int) -> tuple[Image.Image, Image.Image]:
        values = self._groups[number].map.maps[at]
        rows, columns = self._pair_boxes[number][1].fitted(values.shape)
        image = Image.fromarray(values).resize((columns, rows), Image.Resampling.BILINEAR)
        strength = np.asarray(image)
        return _layer(ink.palette(strength), ink.opacity(strength))

    def _draw_outlines(self, at: int) -> tuple[Image.Image, Image.Image]:
        tracing, box = self._shown.tracing, self._tracing_box
        assert tracing is not None and box is not None  # noqa: S101, PT018
        rows, columns = box.fitted(tracing.masks.shape[1:])
        colours = np.zeros((rows, columns, 3), np.uint8)
        alpha = np.zeros((rows, columns), np.float32)
        mask = tracing.masks[at]
        for name in ("myocardium", "atrium", "cavity"):
            if name not in tracing.classes:
                continue
            inside = mask == tracing.classes.index(name)
            if name == "myocardium" and "cavity" in tracing.classes:
                # Its outer edge: the inner one is the cavity's.
                inside |= mask == tracing.classes.index("cavity")
            drawn = ink.line_of(inside, rows, columns)
            if drawn is not None:
                place, line = drawn
                below = alpha[place]
                colours[place][line >= np.maximum(below, 0.01)] = _CLASS_COLOURS[name]
                np.maximum(below, line, out=below)
        return _layer(colours, alpha)


def _cell(column: int, top: int, width: int, height: int) -> Box:
    return Box(left=_GAP + column * (width + _GAP), top=top, width=width, height=height)


def _check(frames: NDArray[np.uint8], shown: Shown) -> None:
    if frames.ndim != 3 or not len(frames):
        raise ValueError(f"frames must be (n, rows, columns) with n of 1 or more: {frames.shape}")
    if min(len(shown.frame_times_ms), len(shown.source_frames)) < len(frames):
        raise ValueError(f"{len(frames)} frames, fewer times or source frame numbers")
    stacks = [(item.maps, item.frames) for item in shown.maps]
    if shown.tracing is not None:
        stacks.append((shown.tracing.masks, shown.tracing.frames))  # type: ignore[arg-type]
    for stack, numbers in stacks:
        if stack.shape != (len(numbers), *frames.shape[1:]) or not numbers:
            raise ValueError(f"{stack.shape} over {len(numbers)} frames of {frames.shape[1:]}")


def _cut(shown: Shown, count: int) -> Shown:
    """The same without frames after the first ``count``, in the tracing too."""
    sources = shown.source_frames[:count]
    tracing = shown.tracing
    if tracing is not None:
        kept = [at for at, frame in enumerate(tracing.frames) if frame <= sources[-1]] or [0]
        volumes = tracing.volumes_ml
        tracing = replace(
            tracing,
            masks=tracing.masks[kept],
            frames=tuple(tracing.frames[at] for at in kept),
            ed_frames=tuple(frame for frame in tracing.ed_frames if frame <= sources[-1]),
            es_frames=tuple(frame for frame in tracing.es_frames if frame <= sources[-1]),
            volumes_ml=None if volumes is None else volumes[kept],
        )
    return replace(
        shown,
        frame_times_ms=shown.frame_times_ms[:count],
        source_frames=sources,
        tracing=tracing,
    )


def _grouped(maps: Sequence[ShownMap], frames: NDArray[np.uint8]) -> Iterator[_Group]:
    """Maps that are the same, such as those of a volume at both ends of a beat, once."""
    left = list(maps)
    while left:
        first = left[0]
        same = [
            item
            for item in left
            if item.frames == first.frames and np.array_equal(item.maps, first.maps)
        ]
        left = [item for item in left if not any(item is other for other in same)]
        yield _Group(map=_scaled(first, frames), findings=tuple(item.finding for item in same))


def _scaled(item: ShownMap, frames: NDArray[np.uint8]) -> ShownMap:
    """Smooth a map's grain and scale it to 0 to 1 over the clip."""
    sigma = _SMOOTHING * min(frames.shape[1:])
    each = item.maps.astype(np.float32)
    smooth = side_by_side(lambda one: np.asarray(ndimage.gaussian_filter(one, sigma)), each)
    maps = np.stack([*smooth]).astype(np.float32, copy=False)
    inside = frames.any(axis=0)
    full = float(np.percentile(maps[:, inside] if inside.any() else maps, PERCENTILE))
    scaled = np.clip(maps / full, 0, 1) if full > 0 else np.zeros_like(maps)
    return ShownMap(finding=item.finding, maps=scaled, frames=item.frames)


def _curve_of(shown: Shown) -> Curve | None:
    """The cavity over time: its volume, or without a scale its area as a share of the largest."""
    tracing = shown.tracing
    if tracing is None or "cavity" not in tracing.classes:
        return None
    values = tracing.volumes_ml
    if values is None:
        areas = (tracing.masks == tracing.classes.index("cavity")).sum(axis=(1, 2))
        if not areas.any():
            return None
        values = 100.0 * areas / areas.max()
    times = np.interp(tracing.frames, shown.source_frames, shown.frame_times_ms)
    return Curve(
        times_ms=tuple(times.round(3).tolist()),
        values=tuple(np.asarray(values, np.float64).round(3).tolist()),
        unit="%" if tracing.volumes_ml is None else "mL",
    )


def _title(shown: Shown) -> str:
    if shown.maps:
        return "Where the models looked"
    return "What was traced" if shown.tracing is not None else "What was found"


def _draw_panel(draw: ImageDraw.ImageDraw, box: Box, words: str) -> None:
    ink.write(draw, (box.left, box.top - _STRIP // 2), words, size=MIDDLE)
    draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), fill=ink.PANEL)


def _draw_classes(draw: ImageDraw.ImageDraw, box: Box, classes: Sequence[str]) -> None:
    """What the colours of the tracing mean."""
    right = box.right
    for name in reversed([name for name in classes if name in _CLASS_COLOURS]):
        colour = _CLASS_COLOURS[name]
        ink.write(
            draw, (right, box.top - _STRIP // 2), name, size=SMALL, colour=colour, anchor="rm"
        )
        right -= round(ink.width_of(name, SMALL)) + 14


def _draw_group(
    draw: ImageDraw.ImageDraw, left: int, right: int, middle: int, group: _Group
) -> None:
    """Over a map and its overlay: which outputs, with value, unit and interval."""
    first = group.findings[0]
    value = value_words(first)
    interval = interval_words(first)
    words = f"{long_name(first.output)}  {value}" + (f" ({interval})" if interval else "")
    others = [
        f"{_ABBREVIATED.get(each.output) or short_name(each.output)} {value_words(each)}"
        for each in group.findings[1:]
    ]
    also = f"same map: {', '.join(others)}" if others else ""
    simulated = any(finding.evidence is Evidence.SIMULATED for finding in group.findings)
    colour = ink.WARNING if simulated else ink.TEXT
    words = ink.shortened(words, MIDDLE, right - left)
    ink.write(draw, (left, middle), words, size=MIDDLE, colour=colour)
    room = right - left - ink.width_of(words, MIDDLE) - 16
    if also and room > 60:
        also = ink.shortened(also, SMALL, room)
        ink.write(draw, (right, middle), also, size=SMALL, colour=ink.QUIET, anchor="rm")


def _nearest(frame: int, frames: Sequence[int]) -> int:
    """Position of the frame number that is nearest, the earlier one of two."""
    return int(np.argmin(np.abs(np.asarray(frames) - frame)))


def _tag(draw: ImageDraw.ImageDraw, box: Box, label: str) -> None:
    """Says in a panel's corner that this frame is end diastole or end systole."""
    fill, letters = (ink.TEXT, ink.PANEL) if label == "ED" else (ink.PANEL, ink.TEXT)
    left, top = box.right - 54, box.top + 10
    draw.rounded_rectangle(
        (left, top, left + 44, top + 26), radius=5, fill=fill, outline=ink.TEXT, width=2
    )
    ink.write(draw, (left + 22, top + 13), label, size=MIDDLE, colour=letters, anchor="mm")


def _resized(frame: NDArray[np.uint8], box: Box) -> Image.Image:
    rows, columns = box.fitted(frame.shape)
    image = Image.fromarray(frame).resize((columns, rows), Image.Resampling.LANCZOS)
    return image.convert("RGB")


def _layer(
    colours: NDArray[np.uint8], opacity: NDArray[np.float32]
) -> tuple[Image.Image, Image.Image]:
    """Colours (rows, columns, 3) and how much they cover, ready to be pasted."""
    return Image.fromarray(colours), Image.fromarray(np.rint(opacity * 255).astype(np.uint8))


def _even(number: int) -> int:
    return number + number % 2
