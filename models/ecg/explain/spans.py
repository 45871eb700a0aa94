"""The stretches of a recording that moved a value most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MOST_SPANS = 5
"""A finding names no more stretches than this."""

_GRAIN_S = 0.02  # standard deviation of the smoothing: a wave holds together, beats stay apart
_EDGE, _WEAKEST = 0.5, 0.25  # of a span's own peak, and of the strongest peak


def spans_ms(relevance: NDArray[np.floating], rate_hz: float) -> tuple[tuple[float, float], ...]:
    """Begin and end of at most :data:`MOST_SPANS` stretches, the most telling first.

    A stretch is where the strength, summed over leads and without its grain, is at least half of
    its peak. How telling it is, is all strength in it. Peaks below a quarter of the strongest are
    left out.

    Parameters
    ----------
    relevance
        (12, samples), signed or not; NaN counts as nothing.
    rate_hz
        Samples in a second.

    Returns
    -------
    In ms from the first sample, to a tenth; none where there is no relevance.
    """
    strength = np.nansum(np.abs(np.asarray(relevance, np.float64)), axis=0)
    smooth = ndimage.gaussian_filter1d(strength, _GRAIN_S * rate_hz, mode="constant")
    strongest = float(smooth.max(initial=0.0))
    if strongest <= 0:
        return ()
    left = smooth.copy()
    found: list[tuple[float, int, int]] = []
    while len(found) < MOST_SPANS:
        peak = int(np.argmax(left))
        if left[peak] < _WEAKEST * strongest:
            break
        inside = left >= _EDGE * left[peak]
        begin, end = _around(inside, peak)
        found.append((float(strength[begin:end].sum()), begin, end))
        # The rest of this hill, down to where the next one begins, is no stretch of its own.
        left[_downhill(smooth, begin, -1) : _downhill(smooth, end - 1, 1) + 1] = 0.0
    found.sort(key=lambda span: -span[0])
    return tuple(
        (round(1000.0 * begin / rate_hz, 1), round(1000.0 * end / rate_hz, 1))
        for _, begin, end in found
    )


def _around(inside: NDArray[np.bool_], place: int) -> tuple[int, int]:
    """The run of True that holds this place: its first, and one after its last."""
    outside = np.flatnonzero(~inside)
    after = int(np.searchsorted(outside, place))
    begin = int(outside[after - 1]) + 1 if after else 0
    return begin, int(outside[after]) if after < len(outside) else len(inside)


def _downhill(smooth: NDArray[np.float64], place: int, step: int) -> int:
    """The foot of the hill on this side."""
    while 0 <= place + step < len(smooth) and smooth[place + step] < smooth[place]:
        place += step
    return place
