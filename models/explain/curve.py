"""The cavity over time as a line, with end diastole and end systole marked on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import ImageDraw

from models.explain import ink
from models.explain.box import Box
from models.explain.shown import Curve

_LEFT, _TOP, _BOTTOM = 46, 24, 22  # room for the numbers, the name and the times
_SIZE = 14
_MARK = 14  # room within the plot for the words beside a mark


class CurvePlot:
    """A curve in a box: drawn once, and a cursor that follows the frames.

    Parameters
    ----------
    box
        Where it stands, its numbers included; at least 60 pixels high.
    diastoles_ms, systoles_ms
        Times of end diastole (filled marks) and end systole (hollow ones).
    """

    def __init__(
        self,
        box: Box,
        curve: Curve,
        diastoles_ms: Sequence[float] = (),
        systoles_ms: Sequence[float] = (),
    ) -> None:
        self._curve = curve
        self._marks = [(time, "ED") for time in diastoles_ms]
        self._marks += [(time, "ES") for time in systoles_ms]
        self._plot = Box(
            left=box.left + _LEFT,
            top=box.top + _TOP,
            width=box.width - _LEFT - 4,
            height=box.height - _TOP - _BOTTOM,
        )
        self._lowest = float(min(curve.values))
        self._highest = max(float(max(curve.values)), self._lowest + 1e-6)

    @property
    def _name(self) -> str:
        return "Cavity volume, mL" if self._curve.unit == "mL" else "Cavity area, % of its largest"

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        """The line, its marks and its numbers."""
        plot, curve = self._plot, self._curve
        ink.write(
            draw, (plot.left - _LEFT, plot.top - 13), self._name, size=_SIZE, colour=ink.QUIET
        )
        for value in (self._lowest, self._highest):
            ink.write(
                draw, (plot.left - 8, self._height_of(value)), f"{value:.0f}", size=_SIZE,
                colour=ink.QUIET, anchor="rm",
            )  # fmt: skip
        draw.line((plot.left, plot.bottom, plot.right, plot.bottom), fill=ink.LINE)
        last = curve.times_ms[-1]
        for time, anchor in ((curve.times_ms[0], "lm"), (last, "rm")):
            ink.write(
                draw, (self.across(time), plot.bottom + 12), f"{time / 1000:.2f} s", size=_SIZE,
                colour=ink.QUIET, anchor=anchor,
            )  # fmt: skip
        points = [
            (self.across(time), self._height_of(value))
            for time, value in zip(curve.times_ms, curve.values, strict=True)
        ]
        if len(points) > 1:
            draw.line(points, fill=ink.SKY, width=2, joint="curve")
        for time, label in self._marks:
            x, y = points[int(np.argmin(np.abs(np.asarray(curve.times_ms) - time)))]
            mark(draw, (x, y), label)
            # Above a peak and below a valley, where the line is not.
            place = max(x, plot.left + 12), y + (-13 if label == "ED" else 14)
            ink.write(draw, place, label, size=_SIZE, anchor="mm")

    def cursor(self, draw: ImageDraw.ImageDraw, time_ms: float) -> None:
        """A line at the moment that the frames show."""
        x = self.across(time_ms)
        draw.line((x, self._plot.top, x, self._plot.bottom), fill=ink.TEXT)

    def across(self, time_ms: float) -> float:
        """Where a time stands, in pixels from the left."""
        first, last = self._curve.times_ms[0], self._curve.times_ms[-1]
        share = (time_ms - first) / max(last - first, 1e-6)
        return self._plot.left + min(max(share, 0.0), 1.0) * self._plot.width

    def _height_of(self, value: float) -> float:
        share = (value - self._lowest) / (self._highest - self._lowest)
        margin = min(_MARK + 6, self._plot.height / 4) if self._marks else 6
        return self._plot.bottom - margin - share * (self._plot.height - 2 * margin)


def mark(draw: ImageDraw.ImageDraw, place: tuple[float, float], label: str) -> None:
    """The mark of a frame on a curve: end diastole filled, end systole hollow."""
    x, y = place
    fill = ink.TEXT if label == "ED" else ink.PAPER
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=fill, outline=ink.TEXT, width=2)
