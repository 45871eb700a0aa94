"""How the summary page of a study is drawn: white on black, for a screen at its own size.

Only words of ours and pixels of saliency cines come here, in which everything outside the sector
was blanked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.explain import ink
from models.explain.box import Box
from models.explain.curve import CurvePlot
from models.explain.shown import Curve
from node.results.objects import RESEARCH_WORDS

WIDTH = 1300
"""Of a page, in pixels: as wide as a saliency cine."""

TALLEST = 2000
"""A page that would be taller ends with a line that says so."""

_GAP = 16
_THIRD = (WIDTH - 4 * _GAP) // 3
_HEADER, _FOOTER, _STRIP = 50, 34, 30
_HUGE, _BIG, _MIDDLE, _SMALL = 64, 20, 16, 15
_ROW, _LINE = 24, 20
_CURVE = 150
_STILL = 340  # height at most


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The value to read first: ``value`` with its unit, and lines of words below it."""

    name: str
    value: str
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Still:
    """A frame with its tracing: (rows, columns, 3) RGB."""

    title: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ClipCurve:
    """The cavity over one clip, with times of end diastole and end systole."""

    title: str
    curve: Curve
    diastoles_ms: tuple[float, ...]
    systoles_ms: tuple[float, ...]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table of values: one cell for each clip."""

    name: str
    by: str
    cells: tuple[str, ...]
    tested_on: str
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that stands on a page."""

    headline: Headline
    stills: tuple[Still, ...] = ()
    curves: tuple[ClipCurve, ...] = ()
    clips: tuple[str, ...] = ()  # heads of the table's columns
    rows: tuple[Row, ...] = ()
    notes: tuple[tuple[str, tuple[str, ...]], ...] = ()  # a heading, and lines below it
    footer: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """Every word on it, in order: two pages that say the same say it with the same words."""
        return (
            self.headline.name,
            self.headline.value,
            *self.headline.lines,
            *self.headline.warnings,
            *(still.title for still in self.stills),
            *(word for curve in self.curves for word in (curve.title, *curve.lines)),
            *self.clips,
            *(word for row in self.rows for word in (row.name, row.by, *row.cells, row.tested_on)),
            *(word for heading, lines in self.notes for word in (heading, *lines)),
            self.footer,
        )


def draw_page(page: Page) -> NDArray[np.uint8]:
    """The page as (rows, columns, 3) RGB, both even; as tall as it needs, up to :data:`TALLEST`."""
    sheet = _Sheet()
    _draw_top(sheet, page)
    for curve in page.curves:
        _draw_curve(sheet, curve)
    if page.rows:
        _draw_table(sheet, page)
    for heading, lines in page.notes:
        _draw_note(sheet, heading, lines)
    return sheet.finished(page.footer)


class _Sheet:
    """Grows downwards; what was asked for is drawn at the end, when its height is known."""

    def __init__(self) -> None:
        self.top = _HEADER + 6
        self.full = False
        self._steps: list[Callable[[Image.Image, ImageDraw.ImageDraw], None]] = []

    def take(self, height: int) -> int | None:
        """The top of so much room, or None where the page has no more."""
        if self.full or self.top + height > TALLEST - _FOOTER - _ROW:
            self.full = True
            return None
        top = self.top
        self.top += height
        return top

    def text(
        self,
        place: tuple[float, float],
        words: str,
        *,
        size: int = _SMALL,
        colour: ink.Colour = ink.TEXT,
        anchor: str = "lm",
    ) -> None:
        """Words at a place."""
        self._steps.append(
            lambda _, draw: ink.write(draw, place, words, size=size, colour=colour, anchor=anchor)
        )

    def line(self, left: int, top: int, right: int) -> None:
        """A rule."""
        self._steps.append(lambda _, draw: draw.line((left, top, right, top), fill=ink.LINE))

    def image(self, place: tuple[int, int], image: Image.Image) -> None:
        """A picture."""
        self._steps.append(lambda sheet, _: sheet.paste(image, place))

    def plot(self, plot: CurvePlot) -> None:
        """A curve."""
        self._steps.append(lambda _, draw: plot.draw(draw))

    def finished(self, footer: str) -> NDArray[np.uint8]:
        """All of it, with header and footer."""
        if self.full:
            words = "The page is full: more stands in the report."
            self.text((_GAP, self.top + _ROW // 2), words, colour=ink.WARNING)
            self.top += _ROW
        rows = self.top + _FOOTER
        sheet = Image.new("RGB", (WIDTH, rows + rows % 2), ink.PAPER)
        draw = ImageDraw.Draw(sheet)
        right, middle = WIDTH - _GAP, _HEADER // 2 - 2
        ink.write(draw, (_GAP, middle), "Summary of the study", size=_BIG)
        ink.write(draw, (right, middle), RESEARCH_WORDS, size=_BIG, colour=ink.WARNING, anchor="rm")
        draw.line((_GAP, _HEADER - 6, right, _HEADER - 6), fill=ink.LINE)
        for step in self._steps:
            step(sheet, draw)
        words = ink.shortened(footer, _SMALL, WIDTH - 2 * _GAP)
        ink.write(draw, (_GAP, sheet.height - _FOOTER // 2), words, size=_SMALL, colour=ink.QUIET)
        return np.asarray(sheet)


def _draw_top(sheet: _Sheet, page: Page) -> None:
    """The headline, and beside it frames with their tracings."""
    stills = page.stills[:2]
    width = _THIRD if stills else WIDTH - 2 * _GAP
    lines = [
        (line, colour)
        for words, colour in (
            *((words, ink.TEXT) for words in page.headline.lines),
            *((words, ink.WARNING) for words in page.headline.warnings),
        )
        for line in ink.wrapped(words, _SMALL, width)
    ]
    images = [_fitted(still.pixels, _THIRD, _STILL) for still in stills]
    words_height = _STRIP + _HUGE + 14 + len(lines) * _LINE
    images_height = max((_STRIP + image.height for image in images), default=0)
    top = sheet.take(max(words_height, images_height) + _GAP)
    if top is None:
        return
    middle = top + _STRIP // 2
    sheet.text((_GAP, middle), page.headline.name, size=_MIDDLE)
    value = page.headline.value
    size = _HUGE if ink.width_of(value, _HUGE) <= width else _BIG
    sheet.text((_GAP - 2, top + _STRIP + _HUGE // 2), value, size=size)
    for number, (line, colour) in enumerate(lines):
        at = top + _STRIP + _HUGE + 14 + number * _LINE + _LINE // 2
        sheet.text((_GAP, at), line, colour=colour)
    for place, (still, image) in enumerate(zip(stills, images, strict=True), start=1):
        left = _GAP + place * (_THIRD + _GAP)
        sheet.text((left, middle), ink.shortened(still.title, _MIDDLE, _THIRD), size=_MIDDLE)
        sheet.image((left + (_THIRD - image.width) // 2, top + _STRIP), image)


def _draw_curve(sheet: _Sheet, shown: ClipCurve) -> None:
    """The cavity over a clip, and beside it words about the clip."""
    top = sheet.take(_CURVE + _GAP)
    if top is None:
        return
    box = Box(left=_GAP, top=top, width=2 * _THIRD + _GAP, height=_CURVE)
    sheet.plot(CurvePlot(box, shown.curve, shown.diastoles_ms, shown.systoles_ms))
    left = box.right + _GAP
    sheet.text((left, top + 12), ink.shortened(shown.title, _MIDDLE, _THIRD), size=_MIDDLE)
    lines = [line for words in shown.lines for line in ink.wrapped(words, _SMALL, _THIRD)]
    for number, line in enumerate(lines[: (_CURVE - 24) // _LINE]):
        sheet.text((left, top + 36 + number * _LINE), line, colour=ink.QUIET)


_NAME, _BY, _WIDEST, _TESTED = 236, 150, 250, 150  # widths of columns


def _draw_table(sheet: _Sheet, page: Page) -> None:
    """Values by output and model, a column for each clip."""
    top = sheet.take(_STRIP)
    if top is None:
        return
    first = _GAP + _NAME + _BY
    width = min((WIDTH - _GAP - _TESTED - first) // max(len(page.clips), 1), _WIDEST)
    right = first + len(page.clips) * width + _TESTED
    middle = top + _STRIP // 2
    sheet.text((_GAP, middle), "Values (95 % interval)", size=_MIDDLE)
    for place, clip in enumerate(page.clips, start=1):
        sheet.text(
            (first + place * width - _GAP, middle), ink.shortened(clip, _SMALL, width - _GAP),
            colour=ink.QUIET, anchor="rm",
        )  # fmt: skip
    sheet.text((right, middle), "tested on", colour=ink.QUIET, anchor="rm")
    sheet.line(_GAP, top + _STRIP - 2, right)
    for row in page.rows:
        line = sheet.take(_ROW)
        if line is None:
            return
        middle = line + _ROW // 2
        sheet.text((_GAP, middle), ink.shortened(row.name, _SMALL, _NAME - 8))
        sheet.text((_GAP + _NAME, middle), ink.shortened(row.by, _SMALL, _BY - 8), colour=ink.QUIET)
        for place, cell in enumerate(row.cells, start=1):
            words = ink.shortened(cell, _MIDDLE, width - _GAP)
            sheet.text((first + place * width - _GAP, middle), words, size=_MIDDLE, anchor="rm")
        sheet.text(
            (right, middle), ink.shortened(row.tested_on, _SMALL, _TESTED - 8), anchor="rm",
            colour=ink.WARNING if row.warning else ink.QUIET,
        )  # fmt: skip
    sheet.take(_GAP)


def _draw_note(sheet: _Sheet, heading: str, lines: Sequence[str]) -> None:
    """A heading with lines below it."""
    top = sheet.take(_STRIP)
    if top is None:
        return
    sheet.text((_GAP, top + _STRIP // 2), heading, size=_MIDDLE)
    for words in lines:
        for number, part in enumerate(ink.wrapped(words, _SMALL, WIDTH - 3 * _GAP)):
            line = sheet.take(_LINE)
            if line is None:
                return
            left = _GAP + (0 if number == 0 else _GAP)
            sheet.text((left, line + _LINE // 2), part, colour=ink.QUIET)
    sheet.take(_GAP // 2)


def _fitted(pixels: NDArray[np.uint8], width: int, height: int) -> Image.Image:
    rows, columns = Box(left=0, top=0, width=width, height=height).fitted(pixels.shape)
    image = Image.fromarray(pixels)
    if image.size == (columns, rows):
        return image
    return image.resize((columns, rows), Image.Resampling.LANCZOS)
