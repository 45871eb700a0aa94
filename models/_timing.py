"""When the frames of a clip were taken.

Machines state the frame rate in five places and agree with themselves in few. They are asked in
a fixed order, and an answer that no echo machine could mean is passed over for the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models._header import number, numbers

SLOWEST_FPS: Final = 5.0
FASTEST_FPS: Final = 200.0
ASSUMED_FPS: Final = 30.0
LONGEST_STEP_MS: Final = 600_000.0
"""Between two frames of a stress examination; a longer one is no time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeAxis:
    """The time of every frame, in ms from the first.

    ``times_ms`` has shape ``(n,)`` and never falls. ``source`` is the attribute that it came
    from, "still" for a single frame, or "assumed"; only an assumed one is not ``trusted``.
    """

    times_ms: NDArray[np.float64]
    source: str
    trusted: bool

    @property
    def frame_time_ms(self) -> float:
        """The median time from a frame to the next; 0.0 for a still."""
        return float(np.median(np.diff(self.times_ms))) if len(self.times_ms) > 1 else 0.0

    def sample(self, interval_ms: float, count: int) -> tuple[int, ...]:
        """The frames nearest to 0, 1, 2 ... ``interval_ms`` after the first, ``count`` of them.

        Ghorbani et al. 2020 take 20 frames, one every 100 ms, from the first frame on. They do
        not say what becomes of a shorter clip. Our rule: an instant that lies more than half a
        frame behind the last frame has no frame, and no frame is taken twice; so a short or
        slow clip gives fewer frames, but always the first. Of two frames equally near, the
        earlier is taken.

        Raises:
            ValueError: ``interval_ms`` is not positive, or ``count`` is less than one.
        """
        if not interval_ms > 0 or count < 1:
            raise ValueError(f"cannot take {count} frames every {interval_ms} ms: take at least 1")
        instants = np.arange(count) * float(interval_ms)
        instants = instants[instants <= self.times_ms[-1] + self.frame_time_ms / 2]
        after = np.searchsorted(self.times_ms, instants).clip(1, max(1, len(self.times_ms) - 1))
        before = after - 1
        after = np.minimum(after, len(self.times_ms) - 1)
        nearer_before = instants - self.times_ms[before] <= self.times_ms[after] - instants
        return tuple(int(i) for i in dict.fromkeys(np.where(nearer_before, before, after)))


def time_axis(header: Dataset, frame_count: int) -> TimeAxis:
    """The time axis by the first source that makes sense (PS3.3 C.7.6.5, C.8.5.6).

    The order: Frame Time Vector (if it fits the frame count), Frame Time, Cine Rate,
    Recommended Display Frame Rate, Effective Duration over the frame count; else 30 frames a
    second are assumed. A rate outside 5 to 200 frames a second is passed over.
    """
    if frame_count == 1:
        return TimeAxis(times_ms=_freeze(np.zeros(1)), source="still", trusted=True)
    for source, increments in _SOURCES.items():
        steps = increments(header, frame_count)
        if steps is not None and _plausible(steps):
            times = np.concatenate([np.zeros(1), np.cumsum(steps)])
            return TimeAxis(times_ms=_freeze(times), source=source, trusted=True)
    times = np.arange(frame_count, dtype=np.float64) * (1000.0 / ASSUMED_FPS)
    return TimeAxis(times_ms=_freeze(times), source="assumed", trusted=False)


def _freeze(times: NDArray[np.float64]) -> NDArray[np.float64]:
    times.setflags(write=False)
    return times


def _plausible(steps: NDArray[np.float64]) -> bool:
    if not bool(np.isfinite(steps).all()) or bool((steps < 0).any()):
        return False
    if float(steps.max(initial=0.0)) > LONGEST_STEP_MS:
        return False
    return 1000.0 / FASTEST_FPS <= float(np.median(steps)) <= 1000.0 / SLOWEST_FPS


def _vector(header: Dataset, frame_count: int) -> NDArray[np.float64] | None:
    """Increments before each frame; that of the first counts as 0 (Acuson writes it filled).

    Some writers leave the first out.
    """
    vector = numbers(header, "FrameTimeVector")
    if len(vector) == frame_count:
        return np.asarray(vector[1:], np.float64)
    return np.asarray(vector, np.float64) if len(vector) == frame_count - 1 else None


def _constant(step_ms: float | None, frame_count: int) -> NDArray[np.float64] | None:
    return None if step_ms is None else np.full(frame_count - 1, step_ms)


def _frame_time(header: Dataset, frame_count: int) -> NDArray[np.float64] | None:
    return _constant(number(header, "FrameTime"), frame_count)


def _cine_rate(header: Dataset, frame_count: int) -> NDArray[np.float64] | None:
    return _constant(_per_second(number(header, "CineRate")), frame_count)


def _display_rate(header: Dataset, frame_count: int) -> NDArray[np.float64] | None:
    return _constant(_per_second(number(header, "RecommendedDisplayFrameRate")), frame_count)


def _duration(header: Dataset, frame_count: int) -> NDArray[np.float64] | None:
    seconds = number(header, "EffectiveDuration")
    return None if seconds is None else _constant(1000.0 * seconds / frame_count, frame_count)


def _per_second(rate: float | None) -> float | None:
    return 1000.0 / rate if rate is not None and rate > 0 else None


_SOURCES: Final[dict[str, Callable[[Dataset, int], NDArray[np.float64] | None]]] = {
    "FrameTimeVector": _vector,
    "FrameTime": _frame_time,
    "CineRate": _cine_rate,
    "RecommendedDisplayFrameRate": _display_rate,
    "EffectiveDuration": _duration,
}
