"""Figures of agreement, each with a bootstrap interval over patients.

A figure is a plain function of arrays whose first axis is patients, so that a bootstrap can draw
patients, not frames: frames of one patient are no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def mean_absolute_error(truth: Numbers, value: Numbers) -> float:
    """Mean of |value - truth|."""
    return float(np.mean(np.abs(value - truth)))


def r_squared(truth: Numbers, value: Numbers) -> float:
    """1 - squared error over the truth's own spread; negative when worse than the mean."""
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return 1.0 - float(np.sum((value - truth) ** 2)) / spread if spread else float("nan")


def bias(truth: Numbers, value: Numbers) -> float:
    """Mean of value - truth."""
    return float(np.mean(value - truth))


def correlation(truth: Numbers, value: Numbers) -> float:
    """Pearson's r; NaN where one of them does not vary."""
    if np.ptp(truth) == 0 or np.ptp(value) == 0:
        return float("nan")
    return float(np.corrcoef(truth, value)[0, 1])


def limits_of_agreement(truth: Numbers, value: Numbers) -> tuple[float, float]:
    """Bland-Altman: bias less and plus 1.96 standard deviations of value - truth."""
    apart = value - truth
    half = 1.96 * float(np.std(apart, ddof=1))
    return float(np.mean(apart)) - half, float(np.mean(apart)) + half


def dice(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    """Overlap of two masks; 1.0 where both are empty."""
    whole = int(one.sum()) + int(two.sum())
    return 2.0 * int((one & two).sum()) / whole if whole else 1.0


def auc(truth: NDArray[np.bool_], score: Numbers) -> float:
    """Area under the ROC curve: the chance that a case scores above a control, ties half."""
    cases, controls = score[truth], score[~truth]
    if not len(cases) or not len(controls):
        return float("nan")
    above = (cases[:, np.newaxis] > controls).mean()
    return float(above + 0.5 * (cases[:, np.newaxis] == controls).mean())


def coverage(truth: Numbers, low: Numbers, high: Numbers) -> float:
    """Share of truths within their intervals."""
    return float(np.mean((low <= truth) & (truth <= high)))


def error_quantiles(truth: Numbers, value: Numbers) -> tuple[float, float]:
    """2.5 % and 97.5 % quantiles of truth - value, wide enough for a new patient.

    The order statistics of split-conformal prediction: of n errors, the ones at ranks
    (n + 1) * 0.025 and (n + 1) * 0.975. Too few patients for such a rank (fewer than 39) give
    the smallest and the largest error.
    """
    errors = np.sort(truth - value)
    count = len(errors)
    low = int(np.floor((count + 1) * 0.025)) - 1
    high = int(np.ceil((count + 1) * 0.975)) - 1
    return float(errors[max(low, 0)]), float(errors[min(high, count - 1)])


def bootstrap(
    figure: Callable[..., float], *arrays: NDArray[np.generic], draws: int = 2000, seed: int = 0
) -> Estimate:
    """A figure over patients with its 95 % percentile interval.

    Parameters
    ----------
    figure
        Called with the arrays, and with patients drawn from them with replacement.
    arrays
        All of the same first axis.
    """
    count = len(arrays[0])
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        chosen = rng.integers(0, count, count)
        drawn.append(figure(*(array[chosen] for array in arrays)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(value=figure(*arrays), low=float(low), high=float(high))


def agreement(truth: Numbers, value: Numbers, *, seed: int = 0) -> dict[str, object]:
    """The papers' figures of a measurement, ready for JSON.

    MAE (beside that of giving everyone the mean of these truths), R squared, bias, limits of
    agreement and r; each interval by bootstrap over patients.
    """
    figures: dict[str, object] = {"patients": len(truth)}
    named: tuple[tuple[str, Callable[..., float]], ...] = (
        ("mae", mean_absolute_error),
        ("r2", r_squared),
        ("bias", bias),
        ("r", correlation),
    )
    for name, figure in named:
        found = bootstrap(figure, truth, value, seed=seed)
        figures[name] = [round(number, 3) for number in (found.value, found.low, found.high)]
    low, high = limits_of_agreement(truth, value)
    figures["limits_of_agreement"] = [round(low, 2), round(high, 2)]
    mean = np.full(len(truth), float(np.mean(truth)))
    figures["mae_of_predicting_the_mean"] = round(mean_absolute_error(truth, mean), 3)
    return figures
