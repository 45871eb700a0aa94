"""Figures of agreement, each with a bootstrap interval over patients.

A figure is a plain function of arrays whose first axis is cases. A bootstrap draws patients, not
frames or clips: those of one patient are no independent witnesses. Where a figure cannot be had (a
set with one class only, one patient) it is NaN, and nothing warns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

DRAWS = 2000
"""Samples of patients in a bootstrap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; NaN where it cannot be measured."""

    value: float
    low: float
    high: float

    @property
    def measured(self) -> bool:
        """Whether there is a figure at all."""
        return math.isfinite(self.value)

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
    """Bland-Altman: bias less and plus 1.96 standard deviations of value - truth.

    NaN for a single case.
    """
    apart = value - truth
    if len(apart) < 2:
        return float("nan"), float("nan")
    half = 1.96 * float(np.std(apart, ddof=1))
    return float(np.mean(apart)) - half, float(np.mean(apart)) + half


def error_of_the_mean(truth: Numbers) -> float:
    """Mean absolute error of giving everyone the mean of these truths."""
    return float(np.mean(np.abs(truth - truth.mean())))


def dice(one: Flags, two: Flags) -> float:
    """Overlap of two masks; 1.0 where both are empty."""
    whole = int(one.sum()) + int(two.sum())
    return 2.0 * int((one & two).sum()) / whole if whole else 1.0


def auc(truth: Flags, score: Numbers) -> float:
    """Area under the ROC curve: the chance that a case scores above a control, ties half.

    NaN where one class is missing.
    """
    cases, controls = score[truth], np.sort(score[~truth])
    if not len(cases) or not len(controls):
        return float("nan")
    below = np.searchsorted(controls, cases, "left").sum()
    not_above = np.searchsorted(controls, cases, "right").sum()
    return float(below + not_above) / (2 * len(cases) * len(controls))


def roc_curve(truth: Flags, score: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """False positive rate, true positive rate and threshold, from (0, 0) to (1, 1).

    A score counts as positive from the threshold on; the first threshold is infinite. Both
    classes must be there.
    """
    thresholds, positives, negatives = _above(truth, score)
    return (
        np.concatenate([[0.0], negatives / negatives[-1]]),
        np.concatenate([[0.0], positives / positives[-1]]),
        np.concatenate([[np.inf], thresholds]),
    )


def precision_recall(truth: Flags, score: Numbers) -> tuple[Numbers, Numbers]:
    """Precision and recall at each distinct score as the threshold, recall rising."""
    _, positives, negatives = _above(truth, score)
    return positives / (positives + negatives), positives / positives[-1]


def average_precision(truth: Flags, score: Numbers) -> float:
    """Area under the precision-recall curve, as the sum of its steps; NaN without a positive."""
    if not truth.any():
        return float("nan")
    precision, recall = precision_recall(truth, score)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def sensitivity(truth: Flags, positive: Flags) -> float:
    """Share of those with the finding that are called positive."""
    return _ratio((truth & positive).sum(), truth.sum())


def specificity(truth: Flags, positive: Flags) -> float:
    """Share of those without the finding that are called negative."""
    return _ratio((~truth & ~positive).sum(), (~truth).sum())


def positive_predictive_value(truth: Flags, positive: Flags) -> float:
    """Share of the positive calls that are right. It goes with how common the finding is."""
    return _ratio((truth & positive).sum(), positive.sum())


def negative_predictive_value(truth: Flags, positive: Flags) -> float:
    """Share of the negative calls that are right. It goes with how common the finding is."""
    return _ratio((~truth & ~positive).sum(), (~positive).sum())


def f1(truth: Flags, positive: Flags) -> float:
    """2 TP / (2 TP + FP + FN); NaN where nobody has the finding and nobody is called positive."""
    hits = (truth & positive).sum()
    return _ratio(2 * hits, truth.sum() + positive.sum())


def f1_of_always_yes(truth: Flags) -> float:
    """F1 of calling everyone positive: what F1 must be set against."""
    return f1(truth, np.ones(len(truth), np.bool_))


def youden_threshold(truth: Flags, score: Numbers) -> float:
    """The threshold with the greatest sensitivity + specificity - 1 (Youden 1950).

    Midway between the score that it still takes and the next one below, so that it does not hang
    on one case's last digit; of equals the highest. NaN where one class is missing.
    """
    if truth.all() or not truth.any():
        return float("nan")
    false, true, thresholds = roc_curve(truth, score)
    best = int(np.argmax((true - false)[1:])) + 1
    return _midway(thresholds, best)


def f1_threshold(truth: Flags, score: Numbers) -> float:
    """The threshold with the greatest F1, placed as in :func:`youden_threshold`."""
    if truth.all() or not truth.any():
        return float("nan")
    thresholds, positives, negatives = _above(truth, score)
    scores = 2 * positives / (positives + negatives + positives[-1])
    best = int(np.argmax(scores)) + 1
    return _midway(np.concatenate([[np.inf], thresholds]), best)


def top_k(chances: Numbers, label: NDArray[np.int64], k: int) -> Flags:
    """Whether the label is among the ``k`` likeliest of (n, classes) chances."""
    best = np.argsort(-chances, axis=1, kind="stable")[:, :k]
    return np.asarray((best == label[:, np.newaxis]).any(axis=1))


def confusion(
    truth: NDArray[np.int64], given: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts (classes, classes): rows are the truth, columns what was given."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, given), 1)
    return table


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Cases whose confidence lies in a range: their mean confidence, and how often it was so."""

    count: int
    confidence: float
    share: float


def reliability(was_so: Flags, confidence: Numbers, *, bins: int = 10) -> tuple[Bin, ...]:
    """Confidences (0 to 1) in bins of equal width, the empty ones left out."""
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    return tuple(
        Bin(
            count=int((place == each).sum()),
            confidence=float(confidence[place == each].mean()),
            share=float(was_so[place == each].mean()),
        )
        for each in range(bins)
        if (place == each).any()
    )


def calibration_error(was_so: Flags, confidence: Numbers, *, bins: int = 10) -> float:
    """Expected calibration error: |confidence - share| over the bins, weighted by their counts."""
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    apart = np.bincount(place, confidence - was_so, minlength=bins)
    return float(np.abs(apart).sum() / len(was_so))


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
    figure: Callable[..., float],
    *arrays: NDArray[np.generic],
    groups: NDArray[np.generic] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """A figure with its 95 % percentile interval.

    Parameters
    ----------
    figure
        Called with the arrays, and with rows drawn from them with replacement.
    arrays
        All of the same first axis.
    groups
        Whose each row is (n,): a draw takes all the rows of a patient, as often as it was drawn.
        None: each row is a patient.
    """
    value = figure(*arrays)
    if not math.isfinite(value):
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    rng = np.random.default_rng(seed)
    rows = draws_of(len(arrays[0]), groups, draws, rng)
    drawn = np.array([figure(*(array[some] for array in arrays)) for some in rows])
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return Estimate(value=value, low=float("nan"), high=float("nan"))
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))


def share(
    was_so: Flags,
    *,
    groups: NDArray[np.generic] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """The share of cases where something was so, with its 95 % interval.

    By bootstrap over patients; where all cases agree a bootstrap would give no width at all, and
    the exact binomial interval (Clopper and Pearson 1934) over patients stands instead.
    """
    if not len(was_so):
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    if was_so.all() or not was_so.any():
        patients = len(was_so) if groups is None else len(np.unique(groups))
        agree = patients if was_so.all() else 0
        exact = stats.binomtest(agree, patients).proportion_ci(0.95, method="exact")
        return Estimate(value=float(was_so.mean()), low=float(exact.low), high=float(exact.high))
    whose = np.arange(len(was_so)) if groups is None else np.unique(groups, return_inverse=True)[1]
    hits, cases = np.bincount(whose, was_so), np.bincount(whose)
    drawn = np.random.default_rng(seed).integers(0, len(cases), (draws, len(cases)))
    low, high = np.percentile(hits[drawn].sum(axis=1) / cases[drawn].sum(axis=1), [2.5, 97.5])
    return Estimate(value=float(was_so.mean()), low=float(low), high=float(high))


def draws_of(
    count: int,
    groups: NDArray[np.generic] | None,
    draws: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.intp]]:
    """The rows of each draw of patients with replacement; see :func:`bootstrap`."""
    if groups is None:
        for _ in range(draws):
            yield rng.integers(0, count, count)
        return
    names, whose = np.unique(groups, return_inverse=True)
    order = np.argsort(whose, kind="stable")
    if len(names) == count:
        for _ in range(draws):
            yield order[rng.integers(0, count, count)]
        return
    each = np.split(order, np.cumsum(np.bincount(whose))[:-1])
    for _ in range(draws):
        yield np.concatenate([each[one] for one in rng.integers(0, len(each), len(each))])


def _above(truth: Flags, score: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Distinct scores, falling, and how many positives and negatives score at least that."""
    order = np.argsort(-score, kind="stable")
    falling, positive = score[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    hits = np.cumsum(positive)[last].astype(np.float64)
    return falling[last], hits, (last + 1).astype(np.float64) - hits


def _midway(thresholds: Numbers, best: int) -> float:
    below = thresholds[best + 1] if best + 1 < len(thresholds) else thresholds[best]
    return float((thresholds[best] + below) / 2)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
