"""ECG paper: the grid, traces on it, and relevance as a ribbon of colour under a trace.

Colour and lightness tell the sign, thickness the strength: blue, the darker one, lowers a value,
orange raises it (Okabe and Ito 2008), so that colour-blind readers and grey prints tell them apart.
The ribbon is broad and the trace on it black, so that JPEG 4:2:2, which halves the resolution of
colour, takes nothing from the trace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from models.explain.ink import Colour

PIXELS_PER_MM = 6
SHEET: Colour = (255, 253, 250)
PEN: Colour = (12, 12, 16)
LOWERS: Colour = (0, 92, 170)
RAISES: Colour = (240, 150, 10)
PERCENTILE = 99.5
"""A recording's relevance is at full strength where it reaches this percentile of its strength."""

_MINOR: Colour = (243, 228, 225)
_MAJOR: Colour = (223, 184, 178)
_FINE = 2  # drawn so much larger, then reduced: thin lines come out smooth
_TRACE = 2.0  # pixels
_THINNEST, _THICKEST = 3.0, 17.0  # of the ribbon, pixels
_WEAKEST = 0.06  # of full strength: nothing is drawn below it
_PALEST = 0.3  # how much of its colour the weakest ribbon has
_GRAIN_S = 0.006  # standard deviation of the smoothing along a trace
_PULSE_MM = 5.0  # of the calibration: 200 ms at 25 mm/s


def strengths(relevance: NDArray[np.floating], rate_hz: float) -> tuple[NDArray[np.float32], float]:
    """A map without its grain and scaled, -1 to 1, and the value that is full strength.

    Parameters
    ----------
    relevance
        (12, samples), signed.

    Returns
    -------
    The scaled map, and 0.0 where there is no relevance at all.
    """
    known = np.nan_to_num(np.asarray(relevance, np.float64))
    smooth = ndimage.gaussian_filter1d(known, _GRAIN_S * rate_hz, axis=-1, mode="nearest")
    full = float(np.percentile(np.abs(smooth), PERCENTILE))
    if full <= 0:
        full = float(np.abs(smooth).max(initial=0.0))
    if full <= 0:
        return np.zeros(known.shape, np.float32), 0.0
    return np.clip(smooth / full, -1, 1).astype(np.float32), full


def colour_of(strength: float) -> Colour:
    """Of the ribbon where the strength, -1 to 1, is this."""
    share = _PALEST + (1 - _PALEST) * min(abs(strength), 1.0)
    full = RAISES if strength > 0 else LOWERS
    red, green, blue = (
        round(share * one + (1 - share) * sheet) for one, sheet in zip(full, SHEET, strict=True)
    )
    return red, green, blue


def thickness_of(strength: float) -> float:
    """Of the ribbon, in pixels; 0 where nothing is drawn."""
    if abs(strength) < _WEAKEST:
        return 0.0
    return _THINNEST + (_THICKEST - _THINNEST) * min(abs(strength), 1.0)


class Paper:
    """A sheet of ECG paper that traces are drawn on; places are its pixels.

    Parameters
    ----------
    width, height
        In pixels, :data:`PIXELS_PER_MM` for a millimetre.
    mm_per_s, mm_per_mv
        The scale.
    """

    def __init__(self, width: int, height: int, *, mm_per_s: float, mm_per_mv: float) -> None:
        self.width, self.height = width, height
        self._per_s = mm_per_s * PIXELS_PER_MM
        self._per_mv = mm_per_mv * PIXELS_PER_MM
        self._image = Image.new("RGB", (width * _FINE, height * _FINE), SHEET)
        self._draw = ImageDraw.Draw(self._image)
        self._traces: list[list[tuple[float, float]]] = []
        self._grid()

    def seconds(self, pixels: float) -> float:
        """How long a stretch of the paper is."""
        return pixels / self._per_s

    def pixels(self, seconds: float) -> float:
        """How wide a stretch of time is."""
        return seconds * self._per_s

    def lead(
        self,
        millivolts: NDArray[np.floating],
        rate_hz: float,
        left: float,
        baseline: float,
        strength: NDArray[np.floating] | None = None,
    ) -> None:
        """A trace from this place on; gaps where it is NaN.

        ``strength`` (samples,), -1 to 1, is its ribbon. Ribbons lie under all traces.
        """
        across = left + np.arange(len(millivolts)) * (self._per_s / rate_hz)
        down = baseline - np.asarray(millivolts, np.float64) * self._per_mv
        down = np.clip(down, -self.height, 2 * self.height)
        for begin, end in _runs(np.isfinite(down)):
            path = np.stack([across[begin:end], down[begin:end]], axis=-1)
            if strength is not None:
                self._ribbon(path, np.asarray(strength[begin:end], np.float64))
            self._traces.append([(x * _FINE, y * _FINE) for x, y in path.tolist()])

    def calibration(self, left: float, baseline: float) -> None:
        """The pulse of 1 mV at the beginning of a row."""
        width, height = _PULSE_MM * PIXELS_PER_MM, self._per_mv
        corners = [(-4, 0), (0, 0), (0, -height), (width, -height), (width, 0), (width + 4, 0)]
        self._traces.append([((left + x) * _FINE, (baseline + y) * _FINE) for x, y in corners])

    def tick(self, left: float, baseline: float) -> None:
        """A short upright line: another lead begins here."""
        high = 1.5 * PIXELS_PER_MM
        self._traces.append(
            [(left * _FINE, (baseline - high) * _FINE), (left * _FINE, (baseline + high) * _FINE)]
        )

    def picture(self) -> Image.Image:
        """Paper, ribbons and traces, at its own size."""
        for points in self._traces:
            self._draw.line(points, fill=PEN, width=round(_TRACE * _FINE), joint="curve")
        return self._image.reduce(_FINE)

    def _grid(self) -> None:
        for step, colour, width in ((1, _MINOR, 1), (5, _MAJOR, 1)):
            gap = step * PIXELS_PER_MM
            for left in range(0, self.width, gap):
                self._line(left, 0, left, self.height, colour, width)
            for top in range(0, self.height, gap):
                self._line(0, top, self.width, top, colour, width)

    def _line(
        self, left: int, top: int, right: int, bottom: int, colour: Colour, width: int
    ) -> None:
        # Whole pixels of the small picture: a line between two would be pale.
        self._draw.rectangle(
            (
                left * _FINE,
                top * _FINE,
                max(right, left + width) * _FINE - 1,
                max(bottom, top + width) * _FINE - 1,
            ),
            fill=colour,
        )

    def _ribbon(self, path: NDArray[np.float64], strength: NDArray[np.float64]) -> None:
        """Discs along the path, the strongest drawn last."""
        points, values = _evenly(path, strength)
        for at in np.argsort(np.abs(values), kind="stable").tolist():
            radius = thickness_of(float(values[at])) / 2 * _FINE
            if radius > 0:
                x, y = points[at] * _FINE
                self._draw.ellipse(
                    (x - radius, y - radius, x + radius, y + radius),
                    fill=colour_of(float(values[at])),
                )


def _evenly(
    path: NDArray[np.float64], strength: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points at every pixel of the path, as long as it is, and the strength there."""
    steps = np.hypot(*np.diff(path, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.arange(0.0, along[-1] + 1.0)
    points = np.stack([np.interp(wanted, along, axis) for axis in path.T], axis=-1)
    return points, np.interp(wanted, along, strength)


def _runs(known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each stretch of True with at least two samples."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [(begin, end) for begin, end in pairs if end - begin > 1]
