"""From a pack's answers to the papers' figures: one record for each output, views, and tracings.

A row is an examination: the clips of a patient that share a truth, their values averaged, since a
patient's value is the mean over clips (Ghorbani et al. 2020). Intervals are bootstraps over
patients. Arrays are kept beside the figures for the pictures; they are not written to JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evaluation import metrics
from models.evaluation.metrics import Bin, Estimate, Flags, Numbers
from models.evaluation.overlap import FrameOverlap, StructureOverlap
from models.evaluation.reading import Answer, view_of
from models.finding import Evidence
from models.packs import OutputSpec
from models.tasks import TASKS
from models.views import View

FEWEST_FRAMES = 5
"""Clips of fewer frames show nothing of how many frames are needed."""

MOST_FRAMES = 20
WORST = 5

_HIDDEN = {"drawn": True}  # for the pictures: not for JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """An output over examinations: whose, the truth, the value, and a name to find it again."""

    patient: NDArray[np.str_]
    truth: Numbers
    value: Numbers
    name: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """How often the pack's 95 % intervals held the truth, over clips, and how wide they are."""

    clips: int
    coverage: Estimate
    width: float
    truth: Numbers = field(metadata=_HIDDEN, repr=False)
    low: Numbers = field(metadata=_HIDDEN, repr=False)
    high: Numbers = field(metadata=_HIDDEN, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ByFrames:
    """A figure when so many frames of a clip are used: the first ones, and ones at random."""

    frames: int
    first: Estimate
    random: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """A case that the pack got most wrong."""

    name: str
    truth: float
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How much there was of it. ``refused`` are clips without a value, by reason."""

    patients: int
    examinations: int
    clips: int
    refused: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A measurement output against the truth, in its unit."""

    output: str
    title: str
    unit: str
    evidence: Evidence
    counts: Counts
    mae: Estimate
    mae_of_predicting_the_mean: float
    r2: Estimate
    r: Estimate
    bias: Estimate
    lower_limit: Estimate
    upper_limit: Estimate
    interval: Interval | None
    by_frames: tuple[ByFrames, ...]
    worst: tuple[Worst, ...]
    rows: Rows = field(metadata=_HIDDEN, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A score output against yes or no. Figures at a threshold are NaN where the pack has none."""

    output: str
    title: str
    evidence: Evidence
    counts: Counts
    positives: int
    threshold: float | None
    auc: Estimate
    average_precision: Estimate
    prevalence: float
    f1: Estimate
    f1_of_always_yes: float
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    calibration_error: Estimate
    reliability: tuple[Bin, ...]
    by_frames: tuple[ByFrames, ...]
    worst: tuple[Worst, ...]
    rows: Rows = field(metadata=_HIDDEN, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneView:
    """One view against the rest."""

    view: View
    clips: int
    sensitivity: Estimate
    ppv: Estimate
    auc: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Confidence:
    """Median and quartiles of the scores of calls."""

    calls: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewRows:
    """Clips of known view that the network looked at, one a row.

    ``means`` is (clips, classes): the mean chances of each clip's frames, by the picture alone;
    ``label`` the place of the truth among the classes. ``certain_from`` is the pack's threshold.
    """

    patient: NDArray[np.str_]
    label: NDArray[np.int64]
    means: Numbers
    certain_from: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """Views of clips. ``accuracy`` is of the calls as the node makes them, header first.

    ``a4c_right`` is the share of four-chamber clips among those that were called so with
    certainty, which the node goes on to measure; ``a4c_found`` how many of the four-chamber clips
    are among them.
    """

    evidence: Evidence
    counts: Counts
    classes: tuple[View, ...]
    accuracy: Estimate
    accuracy_by_picture: Estimate
    accuracy_of_frames: Estimate
    top_two: Estimate
    top_two_of_frames: Estimate
    certain: Estimate
    accuracy_when_certain: Estimate
    a4c_right: Estimate
    a4c_found: Estimate
    mean_auc: Estimate
    by_view: tuple[OneView, ...]
    confidence_right: Confidence
    confidence_wrong: Confidence
    calibration_error: Estimate
    reliability: tuple[Bin, ...]
    by_frames: tuple[ByFrames, ...]
    confusion: tuple[tuple[int, ...], ...]
    worst: tuple[str, ...]
    rows: ViewRows = field(metadata=_HIDDEN, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """A traced structure: means over patients of the means over a patient's frames."""

    name: str
    patients: int
    frames: int
    dice: Estimate
    dice_largest: Estimate
    dice_smallest: Estimate
    dice_lowest_twentieth: float
    dice_lowest: float
    surface_mm: Estimate
    hausdorff_mm: Estimate
    not_traced: int
    by_frame: Numbers = field(metadata=_HIDDEN, repr=False)


def measurement(output: OutputSpec, answers: Sequence[Answer], *, draws: int) -> Measurement | None:
    """An output's figures; None where no clip has both a truth and a value."""
    known = [one for one in answers if output.name in one.case.truths]
    given = [one for one in known if output.name in one.said]
    if not given:
        return None
    rows = examinations(output.name, given)

    def over(figure: Callable[..., float]) -> Estimate:
        return metrics.bootstrap(figure, rows.truth, rows.value, groups=rows.patient, draws=draws)

    return Measurement(
        output=output.name,
        title=title_of(output),
        unit=output.unit,
        evidence=output.evidence,
        counts=_counts(output.name, known, rows),
        mae=over(metrics.mean_absolute_error),
        mae_of_predicting_the_mean=metrics.error_of_the_mean(rows.truth),
        r2=over(metrics.r_squared),
        r=over(metrics.correlation),
        bias=over(metrics.bias),
        lower_limit=over(lambda truth, value: metrics.limits_of_agreement(truth, value)[0]),
        upper_limit=over(lambda truth, value: metrics.limits_of_agreement(truth, value)[1]),
        interval=_interval(output.name, given, draws=draws),
        by_frames=_by_frames(output.name, given, metrics.mean_absolute_error, draws=draws),
        worst=_worst(rows),
        rows=rows,
    )


def score(output: OutputSpec, answers: Sequence[Answer], *, draws: int) -> Score | None:
    """An output's figures; None where no clip has both a truth and a value."""
    known = [one for one in answers if output.name in one.case.truths]
    given = [one for one in known if output.name in one.said]
    if not given:
        return None
    rows = examinations(output.name, given)
    truth, value = rows.truth > 0.5, rows.value
    limit = output.threshold
    # Without a threshold nothing is positive or negative.
    positive = value >= limit if limit is not None else np.zeros(0, np.bool_)

    def at_threshold(figure: Callable[[Flags, Flags], float]) -> Estimate:
        if limit is None:
            return _NOT_MEASURED
        return metrics.bootstrap(figure, truth, positive, groups=rows.patient, draws=draws)

    def rate(which: Flags, right: Flags) -> Estimate:
        if limit is None:
            return _NOT_MEASURED
        return metrics.share(right[which], groups=rows.patient[which], draws=draws)

    def over(figure: Callable[..., float]) -> Estimate:
        return metrics.bootstrap(figure, truth, value, groups=rows.patient, draws=draws)

    both = bool(truth.any() and not truth.all())
    return Score(
        output=output.name,
        title=title_of(output),
        evidence=output.evidence,
        counts=_counts(output.name, known, rows),
        positives=int(truth.sum()),
        threshold=limit,
        auc=over(metrics.auc),
        average_precision=over(metrics.average_precision) if both else _NOT_MEASURED,
        prevalence=float(truth.mean()),
        f1=at_threshold(metrics.f1) if both else _NOT_MEASURED,
        f1_of_always_yes=metrics.f1_of_always_yes(truth),
        sensitivity=rate(truth, positive),
        specificity=rate(~truth, ~positive),
        ppv=rate(positive, truth) if both else _NOT_MEASURED,
        npv=rate(~positive, ~truth) if both else _NOT_MEASURED,
        calibration_error=over(metrics.calibration_error),
        reliability=metrics.reliability(truth, value),
        by_frames=_by_frames(output.name, given, _auc_of_numbers, draws=draws) if both else (),
        worst=_worst(rows),
        rows=rows,
    )


def views(
    classes: Sequence[View],
    evidence: Evidence,
    answers: Sequence[Answer],
    *,
    draws: int,
    certain_from: float = 0.0,
) -> Views | None:
    """The figures of a view pack; None where no case has a view that the pack knows."""
    known = [one for one in answers if view_of(one.case) in classes]
    given = [one for one in known if one.call is not None]
    if not given:
        return None
    place = {view: index for index, view in enumerate(classes)}
    patient = np.array([one.case.patient for one in given])
    label = np.array([place[_view(one)] for one in given])
    calls = [one.call for one in given if one.call is not None]
    called = np.array([place.get(call.view, len(classes)) for call in calls])
    certain = np.array([call.certain for call in calls])
    confidence = np.array([call.score for call in calls])
    right = called == label
    seen = np.array([one.chances is not None for one in given])
    chances = [one.chances for one in given if one.chances is not None]
    frames = np.concatenate(chances) if chances else np.zeros((0, len(classes)))
    means = np.stack([each.mean(axis=0) for each in chances]) if chances else frames
    lengths = [len(each) for each in chances]
    frame_label, frame_patient = np.repeat(label[seen], lengths), np.repeat(patient[seen], lengths)

    def rate(flags: Flags, whose: NDArray[np.str_] = patient) -> Estimate:
        return metrics.share(flags, groups=whose, draws=draws)

    def ranking(index: int) -> Estimate:
        return metrics.bootstrap(
            metrics.auc,
            label[seen] == index,
            means[:, index],
            groups=patient[seen],
            draws=min(draws, _FEWER_DRAWS),
        )

    a4c = label == place.get(View.A4C, -1)
    said_a4c = certain & (called == place.get(View.A4C, -1))

    wrong = [
        f"{one.case.name}: {_view(one).value} called {call.view.value} ({call.score:.2f})"
        for one, call, ok in sorted(
            zip(given, calls, right, strict=True), key=lambda row: -row[1].score
        )
        if not ok
    ]
    table = metrics.confusion(label, called, len(classes) + 1)[: len(classes), : len(classes)]
    return Views(
        evidence=evidence,
        counts=Counts(
            patients=len(np.unique(patient)),
            examinations=len(given),
            clips=len(given),
            refused=_reasons(one.problem for one in known if one.call is None),
        ),
        classes=tuple(classes),
        accuracy=rate(right),
        accuracy_by_picture=rate(means.argmax(axis=1) == label[seen], patient[seen]),
        accuracy_of_frames=rate(frames.argmax(axis=1) == frame_label, frame_patient),
        top_two=rate(metrics.top_k(means, label[seen], 2), patient[seen]),
        top_two_of_frames=rate(metrics.top_k(frames, frame_label, 2), frame_patient),
        certain=rate(certain),
        accuracy_when_certain=rate(right[certain], patient[certain]),
        a4c_right=rate(a4c[said_a4c], patient[said_a4c]),
        a4c_found=rate(said_a4c[a4c], patient[a4c]),
        mean_auc=_mean_auc(means, label[seen], patient[seen], draws=draws),
        by_view=tuple(
            OneView(
                view=view,
                clips=int((label == index).sum()),
                sensitivity=rate(right[label == index], patient[label == index]),
                ppv=rate(right[called == index], patient[called == index]),
                auc=ranking(index),
            )
            for index, view in enumerate(classes)
            if (label == index).any()
        ),
        confidence_right=_confidence(confidence[right]),
        confidence_wrong=_confidence(confidence[~right]),
        calibration_error=metrics.bootstrap(
            metrics.calibration_error, right, confidence, groups=patient, draws=draws
        ),
        reliability=metrics.reliability(right, confidence),
        by_frames=_votes(chances, label[seen], patient[seen], draws=draws),
        confusion=tuple(tuple(int(count) for count in row) for row in table),
        worst=tuple(wrong[:WORST]),
        rows=ViewRows(
            patient=patient[seen], label=label[seen], means=means, certain_from=certain_from
        ),
    )


def structures(answers: Sequence[Answer], *, draws: int) -> tuple[Structure, ...]:
    """The figures of traced structures; empty where no frame has an expert's tracing."""
    traced = [one for one in answers if one.traced]
    if not traced:
        return ()
    return tuple(_structure(name, traced, draws=draws) for name in traced[0].traced[0].structures)


def examinations(name: str, given: Sequence[Answer]) -> Rows:
    """The rows of an output: clips of one patient with one truth are one examination."""
    each: dict[tuple[str, float], list[Answer]] = {}
    for one in given:
        each.setdefault((one.case.patient, round(one.case.truths[name], 6)), []).append(one)
    return Rows(
        patient=np.array([patient for patient, _ in each]),
        truth=np.array([truth for _, truth in each], np.float64),
        value=np.array([np.mean([one.said[name].value for one in some]) for some in each.values()]),
        name=tuple(some[0].case.name for some in each.values()),
    )


def title_of(output: OutputSpec) -> str:
    """An output's name for a reader."""
    task = TASKS.get(output.name)
    return task.title if task else output.name


_NOT_MEASURED = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))


def _counts(name: str, known: Sequence[Answer], rows: Rows) -> Counts:
    return Counts(
        patients=len(np.unique(rows.patient)),
        examinations=len(rows.truth),
        clips=sum(name in one.said for one in known),
        refused=_reasons(
            one.problem or one.refused.get(name, "no answer")
            for one in known
            if name not in one.said
        ),
    )


def _reasons(each: Iterable[str]) -> Mapping[str, int]:
    counted = Counter(each)
    return dict(counted.most_common())


def _worst(rows: Rows) -> tuple[Worst, ...]:
    apart = np.abs(rows.value - rows.truth)
    order = np.argsort(-apart, kind="stable")[:WORST]
    return tuple(
        Worst(name=rows.name[k], truth=float(rows.truth[k]), value=float(rows.value[k]))
        for k in order
    )


def _interval(name: str, given: Sequence[Answer], *, draws: int) -> Interval | None:
    with_one = [
        one for one in given if np.isfinite(one.said[name].low) and np.isfinite(one.said[name].high)
    ]
    if not with_one:
        return None
    truth = np.array([one.case.truths[name] for one in with_one])
    low = np.array([one.said[name].low for one in with_one])
    high = np.array([one.said[name].high for one in with_one])
    patient = np.array([one.case.patient for one in with_one])
    return Interval(
        clips=len(with_one),
        coverage=metrics.share((low <= truth) & (truth <= high), groups=patient, draws=draws),
        width=float(np.mean(high - low)),
        truth=truth,
        low=low,
        high=high,
    )


def _by_frames(
    name: str, given: Sequence[Answer], figure: Callable[..., float], *, draws: int
) -> tuple[ByFrames, ...]:
    """Clips shorter than so many frames give all that they have."""
    counted = [one for one in given if name in one.by_frames]
    most = max((len(one.by_frames[name][0]) for one in counted), default=0)
    if most < FEWEST_FRAMES:
        return ()
    truth = np.array([one.case.truths[name] for one in counted])
    patient = np.array([one.case.patient for one in counted])
    found = []
    for k in range(1, min(most, MOST_FRAMES) + 1):
        first = np.array([_at(one.by_frames[name][0], k) for one in counted])
        random = np.stack([_at(one.by_frames[name][1], k) for one in counted], axis=-1)
        found.append(
            ByFrames(
                frames=k,
                first=metrics.bootstrap(
                    figure, truth, first, groups=patient, draws=min(draws, _FEWER_DRAWS)
                ),
                random=float(np.mean([figure(truth, values) for values in random])),
            )
        )
    return tuple(found)


_FEWER_DRAWS = 500  # a curve of twenty intervals needs no more


def _at(values: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    return np.asarray(values[..., min(frames, values.shape[-1]) - 1])


def _auc_of_numbers(truth: Numbers, value: Numbers) -> float:
    return metrics.auc(truth > 0.5, value)


def _votes(
    chances: Sequence[NDArray[np.float64]],
    label: NDArray[np.int64],
    patient: NDArray[np.str_],
    *,
    draws: int,
) -> tuple[ByFrames, ...]:
    """Accuracy by picture from the mean of the first k frames' chances, and of k at random."""
    most = max((len(each) for each in chances), default=0)
    if most < FEWEST_FRAMES:
        return ()
    rng = np.random.default_rng(0)
    mixed = [[rng.permutation(each) for each in chances] for _ in range(10)]
    found = []
    for k in range(1, min(most, MOST_FRAMES) + 1):
        first = np.array([each[:k].mean(axis=0).argmax() for each in chances]) == label
        at_random = [
            np.mean(np.array([each[:k].mean(axis=0).argmax() for each in one]) == label)
            for one in mixed
        ]
        found.append(
            ByFrames(
                frames=k,
                first=metrics.share(first, groups=patient, draws=min(draws, _FEWER_DRAWS)),
                random=float(np.mean(at_random)),
            )
        )
    return tuple(found)


def _mean_auc(
    means: Numbers, label: NDArray[np.int64], patient: NDArray[np.str_], *, draws: int
) -> Estimate:
    """Mean over the views that are there of each one's AUC against the rest."""

    def figure(chances: Numbers, truth: NDArray[np.int64]) -> float:
        each = [metrics.auc(truth == index, chances[:, index]) for index in np.unique(truth)]
        finite = [one for one in each if np.isfinite(one)]
        return float(np.mean(finite)) if finite else float("nan")

    return metrics.bootstrap(figure, means, label, groups=patient, draws=min(draws, _FEWER_DRAWS))


def _confidence(scores: Numbers) -> Confidence:
    if not len(scores):
        nan = float("nan")
        return Confidence(calls=0, median=nan, low=nan, high=nan)
    low, median, high = np.percentile(scores, [25, 50, 75])
    return Confidence(calls=len(scores), median=float(median), low=float(low), high=float(high))


def _view(answer: Answer) -> View:
    view = view_of(answer.case)
    if view is None:
        raise ValueError(f"{answer.case.name} has no view")
    return view


def _structure(name: str, traced: Sequence[Answer], *, draws: int) -> Structure:
    by_patient: dict[str, list[FrameOverlap]] = {}
    for one in traced:
        by_patient.setdefault(one.case.patient, []).extend(one.traced)
    frames = [frame.structures[name] for some in by_patient.values() for frame in some]
    dices = np.array([frame.dice for frame in frames])
    # The expert's largest and smallest cavity of each clip: end diastole and end systole, where
    # just these two frames were traced.
    ends = {
        "largest": [max(one.traced, key=_cavity).structures[name].dice for one in traced],
        "smallest": [min(one.traced, key=_cavity).structures[name].dice for one in traced],
    }
    whose = np.array([one.case.patient for one in traced])

    def mean(values: Sequence[float], groups: NDArray[np.str_] | None = None) -> Estimate:
        numbers = np.array(values)
        kept = np.isfinite(numbers)
        if not kept.any():
            return _NOT_MEASURED
        return metrics.bootstrap(
            _mean, numbers[kept], groups=None if groups is None else groups[kept], draws=draws
        )

    def of_patients(part: Callable[[StructureOverlap], float]) -> Estimate:
        each = [[part(frame.structures[name]) for frame in some] for some in by_patient.values()]
        kept = [[number for number in some if np.isfinite(number)] for some in each]
        return mean([float(np.mean(some)) for some in kept if some])

    return Structure(
        name=name,
        patients=len(by_patient),
        frames=len(frames),
        dice=of_patients(lambda one: one.dice),
        dice_largest=mean(ends["largest"], whose),
        dice_smallest=mean(ends["smallest"], whose),
        dice_lowest_twentieth=float(np.percentile(dices, 5)),
        dice_lowest=float(dices.min()),
        surface_mm=of_patients(lambda one: one.surface_mm),
        hausdorff_mm=of_patients(lambda one: one.hausdorff_mm),
        not_traced=int((dices == 0).sum()),
        by_frame=dices,
    )


def _mean(values: Numbers) -> float:
    return float(values.mean())


def _cavity(frame: FrameOverlap) -> int:
    return frame.cavity_pixels
