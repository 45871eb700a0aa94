"""The sheet that :mod:`models.explain.panels` shows: where things stand, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from models.explain import ink
from models.finding import Evidence, Finding, PackRef, Refusal
from models.tasks import TASKS

RESEARCH_USE = "RESEARCH USE ONLY – NOT FOR DIAGNOSTIC USE"
PERCENTILE = 99.5
"""Each output's maps are scaled so that this percentile over the clip's sector is full strength."""

SHORT_SIDE, LONG_SIDE = 384, 560  # of a panel: the short side is this, the long side at most that
_GAP = 16
_HEADER, _STRIP, _LEGEND, _FOOTER = 52, 30, 44, 34
_BIG, _MIDDLE, _SMALL = 20, 16, 14
_ROW = 20
_LEAST_CURVE, _MOST_CURVE = 84, 150
_SMOOTHING = 0.008  # of the panel's short side: takes the grain out of a map, not its shape

_SHORT_NAMES = {
    "ef": "Ejection fraction",
    "edv": "End-diastolic volume",
    "esv": "End-systolic volume",
    "la_dilation": "Left-atrial dilation",
    "lvh": "LV hypertrophy",
    "lead": "Pacemaker or ICD lead",
    "ra_length": "Right-atrial length",
    "la_area": "Left-atrial area",
}
_CLASS_COLOURS = {"cavity": ink.SKY, "myocardium": ink.ORANGE, "atrium": ink.PINK}
_UNITS = {"%": " %", "mL": " mL", "cm2": " cm2", "cm": " cm", "kg": " kg", "a": " years"}
_DECIMALS = {"%": 0, "mL": 0, "cm2": 1, "cm": 1, "kg": 0, "a": 0}


@dataclass(frozen=True, kw_only=True)
class ShownTracing:
    """Tracings over the clip.

    ``masks`` is (m, rows, columns), an index into ``classes`` for each pixel, for the source
    frames ``frames``. ``volumes_ml`` is (m,), or None where no scale can be trusted.
    """

    masks: NDArray[np.uint8]
    frames: tuple[int, ...]
    classes: tuple[str, ...]
    ed_frames: tuple[int, ...] = ()
    es_frames: tuple[int, ...] = ()
    volumes_ml: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class ShownMap:
    """An output's maps over the clip: (m, rows, columns) for the source frames ``frames``.

    They are over the sector frame (:meth:`models.preprocess.Fit.map_to_source`), not over the
    network's input.
    """

    finding: Finding
    maps: NDArray[np.float32]
    frames: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that is drawn over and beside the frames.

    ``clip_frames`` is how many frames the clip has, which may be more than are shown; ``method``
    says how the maps were made; ``cautions`` are lines that stand below the findings.
    """

    frame_times_ms: tuple[float, ...]
    source_frames: tuple[int, ...]
    clip_frames: int
    findings: tuple[Finding, ...]
    refusals: tuple[Refusal, ...] = ()
    cautions: tuple[str, ...] = ()
    tracing: ShownTracing | None = None
    maps: tuple[ShownMap, ...] = ()
    method: str = "SmoothGrad"


class MarkKind(StrEnum):
    """Why a frame of the picture is worth looking at alone (terms as in PS3.3 C.7.6.9)."""

    END_DIASTOLE = "ENDDIASTOLE"  #: the cavity is largest
    END_SYSTOLE = "ENDSYSTOLE"  #: the cavity is smallest
    STRONGEST = "STRONGEST"  #: its own map is the strongest one


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameMark:
    """A frame worth looking at alone: its position in the picture, from 0."""

    position: int
    kind: MarkKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The cavity over the clip: ``values`` in ``unit`` at ``times_ms`` from the first frame.

    ``unit`` is "mL", or "%" of the largest area where no scale can be trusted.
    """

    times_ms: tuple[float, ...]
    values: tuple[float, ...]
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def centred(self, image: Image.Image) -> tuple[int, int]:
        """Where the image's left upper corner comes when it stands in the middle."""
        return (
            self.left + (self.width - image.width) // 2,
            self.top + (self.height - image.height) // 2,
        )

    def strip(self) -> tuple[int, int, int]:
        """Left, right and middle height of the line of words over a panel."""
        return self.left, self.right, self.top - _STRIP // 2


class Painter:
    """Draws any frame of the sheet; what never changes is drawn once."""

    def __init__(self, frames: NDArray[np.uint8], shown: Shown) -> None:
        _check(frames, shown)
        shown = _cut(shown, len(frames))
        self._frames = frames
        self._shown = shown
        self._maps = tuple(_scaled(item, frames) for item in shown.maps)
        self._place_boxes(*frames.shape[1:])
        self._curve = _curve_of(shown.tracing)
        self.title = _title(shown)
        self.poster_position = self._telling()
        self.marks = tuple(self._marks())
        self._sheet = self._draw_sheet()
        # A map and a tracing may stand for several frames that follow one another.
        self._overlay = lru_cache(maxsize=len(self._maps) + 1)(self._draw_overlay)
        self._outlines = lru_cache(maxsize=2)(self._draw_outlines)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        if not 0 <= position < len(self):
            raise IndexError(position)
        source = self._shown.source_frames[position]
        sheet = self._sheet.copy()
        grey = _resized(self._frames[position], self._clip_box).convert("RGB")
        sheet.paste(grey, self._clip_box.centred(grey))
        if self._shown.tracing is not None and self._tracing_box is not None:
            place = self._tracing_box.centred(grey)
            sheet.paste(grey, place)
            over, opacity = self._outlines(_nearest(source, self._shown.tracing.frames))
            sheet.paste(over, place, opacity)
        for number, box in enumerate(self._map_boxes):
            place = box.centred(grey)
            sheet.paste(grey, place)
            over, opacity = self._overlay(number, _nearest(source, self._maps[number].frames))
            sheet.paste(over, place, opacity)
        self._draw_moment(ImageDraw.Draw(sheet), position)
        return np.asarray(sheet)

    # Where things stand.

    def _place_boxes(self, source_rows: int, source_columns: int) -> None:
        scale = SHORT_SIDE / min(source_rows, source_columns)
        height = min(LONG_SIDE, max(SHORT_SIDE, round(source_rows * scale)))
        width = min(LONG_SIDE, max(SHORT_SIDE, round(source_columns * scale)))
        across, down = width + _GAP, height + _STRIP + _GAP
        traced = self._shown.tracing is not None
        traced, mapped = self._shown.tracing is not None, len(self._maps)
        cells = 2 + traced + mapped
        columns = 2 if cells == 4 else 3

        def cell(number: int) -> _Box:
            row, column = divmod(number, columns)
            return _Box(
                left=_GAP + column * across,
                top=_HEADER + _STRIP + row * down,
                width=width,
                height=height,
            )

        few = cells <= 4  # then the words come last; otherwise the maps have rows of their own
        first_map = 1 + traced if few else columns
        self._clip_box = cell(0)
        self._tracing_box = cell(1) if traced else None
        self._words_box = cell(cells - 1 if few else 1 + traced)
        self._map_boxes = [cell(first_map + number) for number in range(mapped)]
        # Both even: JPEG 4:2:2 has one colour for two pixels of a row.
        self.columns = _even(_GAP + columns * across)
        lowest = max(box.bottom for box in (self._words_box, self._clip_box, *self._map_boxes))
        self._legend_top = lowest + _GAP * 3 // 4
        self._footer_top = self._legend_top + (_LEGEND if self._maps else 0)
        self.rows = _even(self._footer_top + _FOOTER)

    def _telling(self) -> int:
        """The frame to show alone: end diastole where it is known, and one that has its own map."""
        sources = self._shown.source_frames
        tracing = self._shown.tracing
        wanted = sources[len(sources) // 2]
        if tracing is not None and tracing.ed_frames:
            wanted = tracing.ed_frames[len(tracing.ed_frames) // 2]
        mapped = [frame for item in self._maps[:1] for frame in item.frames if frame in sources]
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
        if self._maps:
            first = self._maps[0]
            own = [at for at, frame in enumerate(first.frames) if frame in sources]
            if own:
                strongest = max(own, key=lambda at: float(first.maps[at].sum()))
                position = _nearest(first.frames[strongest], sources)
                yield FrameMark(position=position, kind=MarkKind.STRONGEST)

    @property
    def curve(self) -> Curve | None:
        """The cavity over the frames that are shown, as it is drawn."""
        shown = self._shown
        if self._curve is None or shown.tracing is None:
            return None
        times = np.interp(shown.tracing.frames, shown.source_frames, shown.frame_times_ms)
        return Curve(
            times_ms=tuple(round(float(time), 3) for time in times),
            values=tuple(round(float(value), 3) for value in self._curve),
            unit="%" if shown.tracing.volumes_ml is None else "mL",
        )

    @property
    def tracing_box(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of the panel with the tracing."""
        box = self._tracing_box
        return None if box is None else (box.left, box.top, box.width, box.height)

    # What never changes.

    def _draw_sheet(self) -> Image.Image:
        shown = self._shown
        sheet = Image.new("RGB", (self.columns, self.rows), ink.PAPER)
        draw = ImageDraw.Draw(sheet)
        middle = _HEADER // 2
        right = self.columns - _GAP
        ink.write(draw, (_GAP, middle), self.title, size=_BIG)
        ink.write(draw, (right, middle), RESEARCH_USE, size=_BIG, colour=ink.WARNING, anchor="rm")
        draw.line((_GAP, _HEADER - 6, right, _HEADER - 6), fill=ink.LINE)
        self._draw_strip(draw, self._clip_box, "Clip, as the models see it")
        if self._tracing_box is not None and shown.tracing is not None:
            self._draw_tracing_strip(draw, self._tracing_box, shown.tracing.classes)
        for item, box in zip(self._maps, self._map_boxes, strict=True):
            self._draw_map_strip(draw, box, item.finding)
        self._draw_words(draw)
        if self._maps:
            self._draw_legend(sheet, draw)
        packs = dict.fromkeys(
            [_pack(finding.pack) for finding in shown.findings]
            + [_pack(refusal.pack) for refusal in shown.refusals]
        )
        room = self.columns * 0.55
        words = ink.shortened(" · ".join(("echonode", *packs)), _SMALL, room)
        middle = self._footer_top + _FOOTER // 2
        ink.write(draw, (right, middle), words, size=_SMALL, colour=ink.QUIET, anchor="rm")
        return sheet

    @staticmethod
    def _draw_strip(draw: ImageDraw.ImageDraw, box: _Box, words: str) -> None:
        left, _, middle = box.strip()
        ink.write(draw, (left, middle), words, size=_MIDDLE)
        draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), fill=ink.PANEL)

    def _draw_tracing_strip(
        self, draw: ImageDraw.ImageDraw, box: _Box, classes: Sequence[str]
    ) -> None:
        self._draw_strip(draw, box, "Tracing")
        _, right, middle = box.strip()
        for name in reversed([name for name in classes if name in _CLASS_COLOURS]):
            colour = _CLASS_COLOURS[name]
            ink.write(draw, (right, middle), name, size=_SMALL, colour=colour, anchor="rm")
            right -= round(ink.width_of(name, _SMALL)) + 14

    def _draw_map_strip(self, draw: ImageDraw.ImageDraw, box: _Box, finding: Finding) -> None:
        self._draw_strip(draw, box, "")
        left, right, middle = box.strip()
        value = _value(finding)
        room = box.width - ink.width_of(value, _MIDDLE) - 12
        name = ink.shortened(_name(finding.output), _MIDDLE, room)
        ink.write(draw, (left, middle), name, size=_MIDDLE)
        simulated = finding.evidence is Evidence.SIMULATED
        ink.write(
            draw, (right, middle), value, size=_MIDDLE, anchor="rm",
            colour=ink.WARNING if simulated else ink.TEXT,
        )  # fmt: skip

    def _draw_words(self, draw: ImageDraw.ImageDraw) -> None:
        """The findings by pack with interval and evidence, what was not given, and the curve."""
        box = self._words_box
        ink.write(draw, (box.left, box.strip()[2]), "Findings", size=_MIDDLE)
        ink.write(
            draw, (box.right, box.strip()[2]), "95 % interval · tested on", size=_SMALL,
            colour=ink.QUIET, anchor="rm",
        )  # fmt: skip
        lines = _Lines(draw, box, box.bottom - (_LEAST_CURVE if self._curve is not None else 0))
        for pack, findings in _by_pack(self._shown.findings).items():
            lines.heading(pack, findings)
            for finding in findings:
                lines.finding(finding)
        for caution in self._shown.cautions:
            lines.paragraph(caution, ink.WARNING)
        lines.refusals(self._shown.refusals)
        self._curve_box = None
        if self._curve is not None:
            height = min(_MOST_CURVE, box.bottom - lines.bottom - 8)
            self._curve_box = _Box(
                left=box.left + 44, top=box.bottom - height + 18,
                width=box.width - 46, height=height - 24,
            )  # fmt: skip
            self._draw_curve(draw, self._curve_box)

    def _draw_curve(self, draw: ImageDraw.ImageDraw, box: _Box) -> None:
        assert self._curve is not None and self._shown.tracing is not None  # noqa: S101, PT018
        tracing = self._shown.tracing
        known = tracing.volumes_ml is not None
        name = "Cavity volume, mL" if known else "Cavity area, % of its largest"
        ink.write(draw, (box.left, box.top - 10), name, size=_SMALL, colour=ink.QUIET)
        for value in (self._lowest, self._highest):
            ink.write(
                draw, (box.left - 8, self._height_of(value)), f"{value:.0f}", size=_SMALL,
                colour=ink.QUIET, anchor="rm",
            )  # fmt: skip
        draw.line((box.left, box.bottom, box.right, box.bottom), fill=ink.LINE)
        points = [
            (self._across(frame), self._height_of(value))
            for frame, value in zip(tracing.frames, self._curve, strict=True)
        ]
        if len(points) > 1:
            draw.line(points, fill=ink.SKY, width=2, joint="curve")
        for frames, label in ((tracing.ed_frames, "ED"), (tracing.es_frames, "ES")):
            for frame in frames:
                _dot(draw, points[_nearest(frame, tracing.frames)], label)
        if tracing.ed_frames or tracing.es_frames:
            for label, left in (("ED", box.right - 72), ("ES", box.right - 28)):
                _dot(draw, (left - 8, box.top - 10), label)
                ink.write(draw, (left, box.top - 10), label, size=_SMALL, colour=ink.QUIET)

    @property
    def _lowest(self) -> float:
        assert self._curve is not None  # noqa: S101
        return float(self._curve.min())

    @property
    def _highest(self) -> float:
        assert self._curve is not None  # noqa: S101
        return max(float(self._curve.max()), self._lowest + 1e-6)

    def _height_of(self, value: float) -> float:
        assert self._curve_box is not None  # noqa: S101
        box = self._curve_box
        part = (value - self._lowest) / (self._highest - self._lowest)
        return box.bottom - 8 - part * (box.height - 16)

    def _across(self, source_frame: int) -> float:
        assert self._curve_box is not None  # noqa: S101
        sources, times = self._shown.source_frames, self._shown.frame_times_ms
        time = np.interp(source_frame, sources, times)
        whole = max(times[-1] - times[0], 1e-6)
        return self._curve_box.left + float((time - times[0]) / whole) * self._curve_box.width

    def _draw_legend(self, sheet: Image.Image, draw: ImageDraw.ImageDraw) -> None:
        middle = self._legend_top + _LEGEND // 4
        words = f"{self._shown.method}: how strongly each pixel moves the output"
        ink.write(draw, (_GAP, middle), words, size=_SMALL)
        middle += _LEGEND // 2
        scale = f"{PERCENTILE:g}th percentile over the clip, for each output"
        ink.write(draw, (_GAP, middle), "0", size=_SMALL, colour=ink.QUIET)
        ink.write(draw, (_GAP + 224, middle), scale, size=_SMALL, colour=ink.QUIET)
        strength = np.linspace(0, 1, 200)[np.newaxis].repeat(12, axis=0)
        bar, opacity = _layer(ink.palette(strength), ink.opacity(strength))
        draw.rectangle((_GAP + 16, middle - 6, _GAP + 215, middle + 5), fill=(70, 70, 70))
        sheet.paste(bar, (_GAP + 16, middle - 6), opacity)

    # What changes from frame to frame.

    def _draw_moment(self, draw: ImageDraw.ImageDraw, position: int) -> None:
        shown = self._shown
        source = shown.source_frames[position]
        words = (
            f"Frame {source + 1} of {shown.clip_frames} · "
            f"{shown.frame_times_ms[position] / 1000:.2f} s"
        )
        if self._maps:
            frames = self._maps[0].frames
            words += f" · maps of frame {frames[_nearest(source, frames)] + 1}"
        middle = self._footer_top + _FOOTER // 2
        ink.write(draw, (_GAP, middle), words, size=_SMALL, colour=ink.TEXT)
        if shown.tracing is None:
            return
        box = self._curve_box
        if box is not None:
            x = self._across(source)
            draw.line((x, box.top, x, box.bottom), fill=ink.TEXT)
        for frames, label in (
            (shown.tracing.ed_frames, "ED"),
            (shown.tracing.es_frames, "ES"),
        ):
            if source in frames and self._tracing_box is not None:
                _tag(draw, self._tracing_box, label)

    def _draw_overlay(self, number: int, at: int) -> tuple[Image.Image, Image.Image]:
        values = self._maps[number].maps[at]
        rows, columns = _inner(values.shape, self._map_boxes[number])
        image = Image.fromarray(values).resize((columns, rows), Image.Resampling.BILINEAR)
        strength = np.asarray(image)
        return _layer(ink.palette(strength), ink.opacity(strength))

    def _draw_outlines(self, at: int) -> tuple[Image.Image, Image.Image]:
        tracing, box = self._shown.tracing, self._tracing_box
        assert tracing is not None and box is not None  # noqa: S101, PT018
        rows, columns = _inner(tracing.masks.shape[1:], box)
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
            if not inside.any():
                continue
            line = ink.contour(inside, rows, columns)
            colours[line >= np.maximum(alpha, 0.01)] = _CLASS_COLOURS[name]
            alpha = np.maximum(alpha, line)
        return _layer(colours, alpha)


class _Lines:
    """Lines of words from the top of a box down, as many as fit."""

    def __init__(self, draw: ImageDraw.ImageDraw, box: _Box, limit: int) -> None:
        self._draw = draw
        self._box = box
        self._limit = limit
        self.bottom = box.top
        self._value_right = box.left + round(box.width * 0.53)
        self._interval_right = box.left + round(box.width * 0.77)

    def _next(self, height: int = _ROW) -> int | None:
        """The middle of the next line, or None where none fits."""
        if self.bottom + height > self._limit:
            return None
        self.bottom += height
        return self.bottom - height // 2

    def heading(self, pack: PackRef, findings: Sequence[Finding]) -> None:
        if self.bottom > self._box.top:
            self.bottom += 6
        middle = self._next(_ROW + 2)
        if middle is None:
            return
        methods = " and ".join(dict.fromkeys(finding.method.value for finding in findings))
        words = ink.shortened(f"{_pack(pack)}: {methods}", _SMALL, self._box.width)
        ink.write(self._draw, (self._box.left, middle), words, size=_SMALL, colour=ink.QUIET)

    def finding(self, finding: Finding) -> None:
        middle = self._next()
        if middle is None:
            return
        value = _value(finding)
        room = self._value_right - self._box.left - ink.width_of(value, _MIDDLE) - 10
        name = ink.shortened(_short_name(finding.output), _SMALL, room)
        write, draw = ink.write, self._draw
        write(draw, (self._box.left, middle), name, size=_SMALL)
        write(draw, (self._value_right, middle), value, size=_MIDDLE, anchor="rm")
        if finding.low is not None and finding.high is not None:
            low, high = _number(finding.low, finding), _number(finding.high, finding)
            write(
                draw, (self._interval_right, middle), f"{low} to {high}", size=_SMALL,
                colour=ink.QUIET, anchor="rm",
            )  # fmt: skip
        simulated = finding.evidence is Evidence.SIMULATED
        write(
            draw, (self._box.right, middle), "simulator" if simulated else "patients",
            size=_SMALL, anchor="rm", colour=ink.WARNING if simulated else ink.QUIET,
        )  # fmt: skip

    def refusals(self, refusals: Sequence[Refusal]) -> None:
        """What was not given and why: one paragraph for each reason."""
        reasons: dict[str, list[str]] = {}
        for refusal in refusals:
            reasons.setdefault(refusal.reason, []).append(_short_name(refusal.output))
        for reason, names in reasons.items():
            self.paragraph(f"Not given: {', '.join(dict.fromkeys(names))}: {reason}", ink.QUIET)

    def paragraph(self, words: str, colour: ink.Colour) -> None:
        """Words over as many lines as they need, or as there is room for."""
        self.bottom += 6
        for line in ink.wrapped(words, _SMALL, self._box.width):
            middle = self._next(_ROW - 2)
            if middle is None:
                return
            ink.write(self._draw, (self._box.left, middle), line, size=_SMALL, colour=colour)


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


def _scaled(item: ShownMap, frames: NDArray[np.uint8]) -> ShownMap:
    """Smooth a map's grain and scale it to 0 to 1 over the clip."""
    sigma = _SMOOTHING * min(frames.shape[1:])
    maps = ndimage.gaussian_filter(item.maps.astype(np.float32), (0, sigma, sigma))
    inside = frames.any(axis=0)
    full = float(np.percentile(maps[:, inside] if inside.any() else maps, PERCENTILE))
    scaled = np.clip(maps / full, 0, 1) if full > 0 else np.zeros_like(maps)
    return ShownMap(finding=item.finding, maps=scaled, frames=item.frames)


def _curve_of(tracing: ShownTracing | None) -> NDArray[np.float64] | None:
    """The cavity over time: its volume, or without a scale its area as a share of the largest."""
    if tracing is None or "cavity" not in tracing.classes:
        return None
    if tracing.volumes_ml is not None:
        return tracing.volumes_ml
    areas = (tracing.masks == tracing.classes.index("cavity")).sum(axis=(1, 2))
    return 100.0 * areas / areas.max() if areas.any() else None


def _title(shown: Shown) -> str:
    if shown.maps:
        return "Where the models looked"
    return "What was traced" if shown.tracing is not None else "What was found"


def _by_pack(findings: Sequence[Finding]) -> dict[PackRef, list[Finding]]:
    packs: dict[PackRef, list[Finding]] = {}
    for finding in findings:
        packs.setdefault(finding.pack, []).append(finding)
    return packs


def _pack(pack: PackRef) -> str:
    return f"{pack.name} {pack.version}"


def _name(output: str) -> str:
    title = TASKS[output].title if output in TASKS else output
    return title.replace("Left ventricular", "LV")


def _short_name(output: str) -> str:
    return _SHORT_NAMES.get(output) or _name(output)


def _number(value: float, finding: Finding) -> str:
    return f"{value:.{_DECIMALS.get(finding.unit, 2)}f}"


def _value(finding: Finding) -> str:
    if finding.score is not None:
        return f"score {finding.score:.2f}"
    if finding.value is None:
        return "-"
    return _number(finding.value, finding) + _UNITS.get(finding.unit, f" {finding.unit}")


def _nearest(frame: int, frames: Sequence[int]) -> int:
    """Position of the frame number that is nearest, the earlier one of two."""
    return int(np.argmin(np.abs(np.asarray(frames) - frame)))


def _tag(draw: ImageDraw.ImageDraw, box: _Box, label: str) -> None:
    """Says in a panel's corner that this frame is end diastole or end systole."""
    fill, letters = (ink.TEXT, ink.PANEL) if label == "ED" else (ink.PANEL, ink.TEXT)
    left, top = box.right - 54, box.top + 10
    draw.rounded_rectangle(
        (left, top, left + 44, top + 26), radius=5, fill=fill, outline=ink.TEXT, width=2
    )
    ink.write(draw, (left + 22, top + 13), label, size=_MIDDLE, colour=letters, anchor="mm")


def _dot(draw: ImageDraw.ImageDraw, place: tuple[float, float], label: str) -> None:
    """The mark of a frame on the curve: end diastole filled, end systole hollow."""
    x, y = place
    fill = ink.TEXT if label == "ED" else ink.PAPER
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=fill, outline=ink.TEXT, width=2)


def _inner(shape: tuple[int, ...], box: _Box) -> tuple[int, int]:
    """Rows and columns of a frame of this shape where it just fits into the box."""
    scale = min(box.height / shape[0], box.width / shape[1])
    return min(box.height, round(shape[0] * scale)), min(box.width, round(shape[1] * scale))


def _resized(frame: NDArray[np.uint8], box: _Box) -> Image.Image:
    rows, columns = _inner(frame.shape, box)
    return Image.fromarray(frame).resize((columns, rows), Image.Resampling.LANCZOS)


def _layer(
    colours: NDArray[np.uint8], opacity: NDArray[np.float32]
) -> tuple[Image.Image, Image.Image]:
    """Colours (rows, columns, 3) and how much they cover, ready to be pasted."""
    return Image.fromarray(colours), Image.fromarray(np.rint(opacity * 255).astype(np.uint8))


def _even(number: int) -> int:
    return number + number % 2
