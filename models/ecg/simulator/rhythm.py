"""When the heart beats, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from models.ecg.simulator.wanted import EcgWanted, Rhythm

_SHORTEST_S = 0.24
_CORRECTIONS = 3  # of few irregular intervals the mean is not that of many


class Origin(IntEnum):
    """Where a beat comes from."""

    USUAL = 0
    ATRIAL = 1  #: premature, from elsewhere in the atria
    VENTRICULAR = 2  #: from the ventricles


@dataclass(frozen=True, kw_only=True, eq=False)
class Beats:
    """(n,) each: onsets of QRS in s, the interval before each, its origin, the breath at it."""

    onsets_s: NDArray[np.float64]
    before_s: NDArray[np.float64]
    origins: NDArray[np.int64]
    breath: NDArray[np.float64]


def draw_beats(
    rng: np.random.Generator, wanted: EcgWanted, heart_rate_bpm: float, around_s: float
) -> Beats:
    """Beats of a recording, and ``around_s`` before and after it, with the wanted mean rate."""
    mean_s = 60 / heart_rate_bpm
    count = int((wanted.duration_s + 2 * around_s) / mean_s * 1.4) + 8
    breath_hz, turn = rng.uniform(0.15, 0.36), rng.uniform(0, 2 * np.pi)
    intervals = _intervals(rng, wanted, mean_s, count, breath_hz, turn)
    origins = _draw_origins(rng, wanted, count)
    _make_premature(rng, wanted, intervals, origins)
    intervals *= mean_s / intervals.mean()
    np.maximum(intervals, _SHORTEST_S, out=intervals)
    begin_s = -around_s - rng.uniform(0, mean_s)
    onsets = begin_s + np.cumsum(intervals)
    for _ in range(_CORRECTIONS):
        seen = (onsets >= 0) & (onsets < wanted.duration_s)
        if seen.sum() < 3:
            break
        intervals *= mean_s / np.diff(onsets[seen]).mean()
        onsets = begin_s + np.cumsum(intervals)
    inside = onsets < wanted.duration_s + around_s
    return Beats(
        onsets_s=onsets[inside],
        before_s=intervals[inside],
        origins=origins[inside],
        breath=np.sin(2 * np.pi * breath_hz * onsets[inside] + turn),
    )


def _intervals(
    rng: np.random.Generator,
    wanted: EcgWanted,
    mean_s: float,
    count: int,
    breath_hz: float,
    turn: float,
) -> NDArray[np.float64]:
    if wanted.rhythm is Rhythm.ATRIAL_FIBRILLATION:
        # Of intervals in fibrillation each is almost free of the one before; none is very short.
        spread = rng.uniform(0.10, 0.38) * min(1.0, 0.55 + 0.6 * mean_s)
        shape = rng.uniform(2.0, 8.0)
        drawn = rng.gamma(shape, 1.0, count)
        return np.asarray(mean_s * (1 + spread * (drawn - shape) / np.sqrt(shape)))
    if wanted.rhythm is Rhythm.ATRIAL_FLUTTER:
        if rng.random() < 0.6:
            return np.asarray(mean_s * (1 + rng.normal(0, 0.006, count)))
        return np.asarray(mean_s * rng.choice([0.67, 1.0, 1.33], count, p=[0.25, 0.5, 0.25]))
    share = wanted.sinus_arrhythmia
    if share is None:
        share = float(np.clip(rng.lognormal(np.log(0.016), 0.7) * min(1.6, mean_s / 0.8), 0, 0.12))
    times = np.arange(count) * mean_s
    slow = np.cumsum(rng.normal(0, 1, count))
    slow -= np.linspace(slow[0], slow[-1], count)
    slow *= rng.uniform(0.003, 0.02) / max(float(slow.std()), 1e-9)
    swing = share * np.sin(2 * np.pi * breath_hz * times + turn + rng.uniform(-1, 1))
    jitter = rng.normal(0, rng.uniform(0.003, 0.012), count)
    return np.asarray(mean_s * (1 + swing + slow + jitter))


def _draw_origins(rng: np.random.Generator, wanted: EcgWanted, count: int) -> NDArray[np.int64]:
    chance = rng.random(count)
    if wanted.rhythm is Rhythm.VENTRICULAR:
        return np.full(count, Origin.VENTRICULAR, np.int64)
    origins = np.zeros(count, np.int64)
    if wanted.rhythm is Rhythm.SINUS:
        origins[chance < wanted.premature_atrial] = Origin.ATRIAL
    origins[chance > 1 - wanted.premature_ventricular] = Origin.VENTRICULAR
    # The first sets the pace; two premature ones do not follow each other here.
    origins[0] = Origin.USUAL
    origins[1:][(origins[1:] > 0) & (origins[:-1] > 0)] = Origin.USUAL
    return origins


def _make_premature(
    rng: np.random.Generator,
    wanted: EcgWanted,
    intervals: NDArray[np.float64],
    origins: NDArray[np.int64],
) -> None:
    early = np.flatnonzero(origins)
    if not len(early) or wanted.rhythm is Rhythm.VENTRICULAR:
        return
    mean = intervals.mean()
    coupling = rng.uniform(0.52, 0.82) + rng.normal(0, 0.03, len(early))
    shortened = np.maximum(intervals[early] * coupling, min(0.34, 0.8 * mean))
    lost = intervals[early] - shortened
    intervals[early] = shortened
    after = early + 1
    inside = after < len(intervals)
    # After a beat of the ventricles the pause makes up for it; one of the atria resets the node.
    full = np.where(origins[early] == Origin.VENTRICULAR, 1.0, rng.uniform(0.1, 0.5))
    if wanted.rhythm is Rhythm.SINUS:
        intervals[after[inside]] += (full * lost)[inside]
