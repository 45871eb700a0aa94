"""Whether relevance of an ECG can be trusted: checks as functions of arrays.

They are those of :mod:`models.explain.quality`, where they make sense for signals, and wave
blocking (:mod:`models.ecg.explain.waves`). What is taken out of a signal becomes the isoelectric
line, zero, the baseline of integrated gradients too. Maps are compared without their
grain, by strength, and where it is said with their signs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

Map = NDArray[np.float32]
Run = Callable[[NDArray[np.float32]], NDArray[np.floating]]

GRAIN_S = 0.02
"""Standard deviation of the smoothing before places are ranked."""

NOISE = 0.02
"""Of the check of stability, as a share of the recording's standard deviation."""

SHIFT_S = 0.01
"""Of the check of stability: a recording that begins 10 ms later."""

_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)  # of the places, at insertion and deletion


def strength(relevance: NDArray[np.floating], rate_hz: float) -> NDArray[np.float64]:
    """(samples, leads) of a map without signs and grain."""
    return _smooth(np.abs(relevance), rate_hz)


def _smooth(values: NDArray[np.floating], rate_hz: float) -> NDArray[np.float64]:
    known = np.asarray(values, np.float64)
    return np.asarray(ndimage.gaussian_filter1d(known, GRAIN_S * rate_hz, axis=0))


def likeness(
    one: NDArray[np.floating],
    two: NDArray[np.floating],
    signal: Map,
    rate_hz: float,
    *,
    signed: bool = False,
) -> float:
    """Rank correlation of two maps where there is a signal and no padding.

    Of strengths; ``signed`` of the maps as they are, as a reader sees them. NaN where the first map
    is the same everywhere, for there is nothing to compare; 0 where only the second is.
    """
    there = signal.any(axis=-1)
    first, second = (
        (_smooth(maps, rate_hz) if signed else strength(maps, rate_hz))[there].ravel()
        for maps in (one, two)
    )
    if not len(first) or np.ptp(first) == 0:
        return float("nan")
    return 0.0 if np.ptp(second) == 0 else float(stats.spearmanr(first, second).statistic)


def insertion_deletion(
    run: Run, signal: Map, maps: Sequence[NDArray[np.floating]], rate_hz: float
) -> NDArray[np.float64]:
    """Areas under both curves, 0 to 1 (Petsiuk et al. 2018, arXiv:1806.07421).

    The strongest places (samples of leads) are kept alone, or taken out. At each step it is asked
    how much is there of what sets the whole signal's number apart from that of a flat line. High
    insertion and low deletion are good. A signal is asked once, whatever outputs are of interest.

    Returns
    -------
    (maps, 2, outputs), insertion and deletion; NaN where the flat line has the same number, or the
    map is the same everywhere.
    """
    pictures = [signal, np.zeros_like(signal)]
    there = np.broadcast_to(signal.any(axis=-1, keepdims=True), signal.shape)
    for relevance in maps:
        order = np.full(signal.shape, np.inf)
        ranks = stats.rankdata(-strength(relevance, rate_hz)[there], method="ordinal")
        order[there] = ranks / max(int(there.sum()), 1)
        for share in _SHARES:
            first = order <= share
            pictures += [np.where(first, signal, 0.0), np.where(first, 0.0, signal)]
    numbers = np.asarray(run(np.stack(pictures).astype(np.float32)), np.float64)
    whole, flat = numbers[:2]
    apart = np.abs(flat - whole)
    apart[apart <= 1e-6 * np.maximum(1.0, np.abs(whole))] = np.nan
    kept = np.maximum(0.0, 1.0 - np.abs(numbers[2:] - whole) / apart)
    kept = kept.reshape(len(maps), len(_SHARES), 2, -1)
    kept[[np.ptp(relevance) == 0 for relevance in maps]] = np.nan
    inserted, deleted = (np.pad(kept[:, :, side], ((0, 0), (1, 1), (0, 0))) for side in (0, 1))
    inserted[:, -1], deleted[:, 0] = 1.0, 1.0
    shares = (0.0, *_SHARES, 1.0)
    return np.stack([np.trapezoid(each, shares, axis=1) for each in (inserted, deleted)], axis=1)


def random_map(shape: tuple[int, ...], rate_hz: float, seed: int) -> NDArray[np.float64]:
    """A map that knows nothing: smooth noise, with a grain of 40 ms."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(ndimage.gaussian_filter1d(noise, 2 * GRAIN_S * rate_hz, axis=0))


def disturbed(signal: Map, rate_hz: float, seed: int) -> tuple[Map, Map]:
    """A signal (samples, leads) with a little noise, and the same a few ms later."""
    there = np.asarray(signal.any(axis=-1))
    spread = float(signal[there].std()) if there.any() else 0.0
    noise = np.random.default_rng(seed).normal(size=signal.shape) * NOISE * spread
    noisy = (signal + noise * there[:, np.newaxis]).astype(np.float32)
    return noisy, np.roll(signal, _shift(rate_hz), axis=0)


def moved_back(relevance: Map, rate_hz: float) -> Map:
    """A map of the later signal, where the signal was."""
    return np.roll(relevance, -_shift(rate_hz), axis=0)


def _shift(rate_hz: float) -> int:
    return max(1, round(SHIFT_S * rate_hz))
