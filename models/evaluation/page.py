"""The report as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from models.evaluation.figures import ByFrames, Confidence, Counts, Measurement, Score, Views
from models.evaluation.metrics import Estimate
from models.finding import Evidence
from models.packs import PackKind

if TYPE_CHECKING:
    from models.evaluation.report import DatasetWords, Report

CANNOT = "cannot be measured"

_UNITS = {"%": "points", "a": "years", "cm2": "cm²"}
_PICTURES = (
    ("views", "Views"),
    ("ranking", "ROC"),
    ("votes", "Votes"),
    ("structures", "Tracings"),
)
_SPLITS = {
    "train": "These were trained on: this is no test.",
    "held": "Choices were made on these: this is no test.",
}
_CLIPS, _ECGS = "clips", "recordings"
_EXPLAINED = {
    _CLIPS: "stands in [explanations.md](explanations.md)",
    _ECGS: "is what `echonode explain --check` measures",
}


def page(reports: Sequence[Report], pictures: Sequence[Mapping[str, str]]) -> str:
    """A pack's whole report: each data set after another."""
    first = reports[0]
    lines = [
        f"# {first.pack} {first.version}: evaluation",
        "",
        f"Weights {first.weights_sha256[:12]}. Research use only, not for diagnosis.",
        "",
        (
            "In brackets: 95 % intervals, by bootstrap over patients. How far its explanations can "
            f"be trusted {_EXPLAINED[_what(first)]}."
        ),
        "",
    ]
    for report, drawn in zip(reports, pictures, strict=True):
        lines += section(report, drawn)
    return "\n".join(lines)


def _what(report: Report) -> str:
    """What the pack reads, in words."""
    return _ECGS if report.kind is PackKind.WAVEFORM else _CLIPS


def section(report: Report, pictures: Mapping[str, str]) -> list[str]:
    """One data set's part of the page."""
    dataset = report.dataset
    what = _what(report)
    lines = [f"## On {dataset.title}", "", *_whom(dataset, what)]
    if report.measurements:
        lines += ["", *_measurements(report.measurements, what, simulated=_simulated(report))]
    if report.scores:
        lines += ["", *_scores(report.scores, what, simulated=_simulated(report))]
    if report.structures:
        lines += ["", *_structures(report)]
    if report.views:
        lines += ["", *_views(report.views, simulated=_simulated(report))]
    for one in report.outputs:
        lines += ["", *_output(one, what, pictures.get(one.output))]
    for key, words in _PICTURES:
        if key in pictures:
            lines += ["", f"![{words}]({pictures[key]})"]
    lines += [*_left_out(report), "", "### Mind", ""]
    if _simulated(report):
        lines.append(f"- Simulated {what}: nothing here was tested on patients.")
    if dataset.split in _SPLITS:
        lines.append(f"- {_SPLITS[dataset.split]}")
    lines += [f"- {caveat}" for caveat in dataset.caveats]
    if dataset.citation:
        lines += ["", f"Data: {dataset.citation}. {dataset.licence}."]
    return [*lines, ""]


def unit_words(unit: str) -> str:
    """A unit for a reader: a fraction's error is in points."""
    return _UNITS.get(unit, unit)


def estimate(one: Estimate, digits: int = 2) -> str:
    """A figure with its interval, or that it cannot be measured."""
    if not one.measured:
        return CANNOT
    return f"{one.value:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"


def percent(one: Estimate, digits: int = 0) -> str:
    """A share with its interval, in percent, or that it cannot be measured."""
    if not one.measured:
        return CANNOT
    value, low, high = (f"{100 * part:.{digits}f}" for part in (one.value, one.low, one.high))
    return f"{value} % ({low} to {high})"


def number(value: float, digits: int = 2) -> str:
    """A figure without an interval."""
    return f"{value:.{digits}f}" if math.isfinite(value) else CANNOT


def evidence_words(output: Evidence, *, simulated: bool) -> str:
    """Which words stand on an output's line: on whom it was tested here."""
    if simulated:
        return "SIMULATED"
    return "patients" if output is Evidence.PATIENTS else "patients; trained on SIMULATED"


def _mark(*, simulated: bool) -> str:
    return ", SIMULATED" if simulated else ""


def _simulated(report: Report) -> bool:
    return report.dataset.evidence is Evidence.SIMULATED


def _whom(dataset: DatasetWords, what: str) -> Iterator[str]:
    who = "simulated patients" if dataset.evidence is Evidence.SIMULATED else "patients"
    yield (
        f'{dataset.patients} {who}, {dataset.clips} {what}, split "{dataset.split}" of data set '
        f"`{dataset.name}` ({dataset.fingerprint[:12]})."
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _measurements(found: Sequence[Measurement], what: str, *, simulated: bool) -> list[str]:
    mark = _mark(simulated=simulated)
    errors = [
        (
            f"{one.title}, {unit_words(one.unit)}",
            evidence_words(one.evidence, simulated=simulated),
            str(one.counts.patients),
            estimate(one.mae),
            number(one.mae_of_predicting_the_mean),
            estimate(one.r2),
            estimate(one.r),
        )
        for one in found
    ]
    agreement = [
        (
            f"{one.title}, {unit_words(one.unit)}{mark}",
            estimate(one.bias),
            estimate(one.lower_limit, 1),
            estimate(one.upper_limit, 1),
            percent(one.interval.coverage) if one.interval else "no interval",
            number(one.interval.width, 1) if one.interval else "",
            str(sum(one.counts.refused.values())),
        )
        for one in found
    ]
    return [
        *_table(("output", "tested on", "patients", "MAE", "MAE of the mean", "R²", "r"), errors),
        "",
        *_table(
            (
                "output",
                "bias",
                "lower limit of agreement",
                "upper limit",
                "its 95 % interval held the truth in",
                "mean width",
                f"{what} refused",
            ),
            agreement,
        ),
    ]


def _scores(found: Sequence[Score], what: str, *, simulated: bool) -> list[str]:
    mark = _mark(simulated=simulated)
    ranks = [
        (
            one.title,
            evidence_words(one.evidence, simulated=simulated),
            str(one.counts.patients),
            f"{one.positives} of {one.counts.examinations}",
            estimate(one.auc),
            f"{estimate(one.average_precision)}, by chance {one.prevalence:.2f}",
            estimate(one.f1),
            number(one.f1_of_always_yes),
        )
        for one in found
    ]
    calls = [
        (
            one.title + mark,
            "none" if one.threshold is None else f"{one.threshold:.3g}",
            percent(one.sensitivity),
            percent(one.specificity),
            percent(one.ppv),
            percent(one.npv),
            estimate(one.calibration_error),
            str(sum(one.counts.refused.values())),
        )
        for one in found
    ]
    return [
        *_table(
            (
                "output",
                "tested on",
                "patients",
                "with the finding",
                "AUC",
                "average precision",
                "F1",
                "F1 of always yes",
            ),
            ranks,
        ),
        "",
        *_table(
            (
                "output",
                "threshold",
                "sensitivity",
                "specificity",
                "PPV",
                "NPV",
                "calibration error",
                f"{what} refused",
            ),
            calls,
        ),
    ]


def _structures(report: Report) -> list[str]:
    mark = _mark(simulated=_simulated(report))
    rows = [
        (
            one.name + mark,
            f"{one.patients}, {one.frames} frames",
            estimate(one.dice, 3),
            estimate(one.dice_largest, 3),
            estimate(one.dice_smallest, 3),
            f"{one.dice_lowest_twentieth:.3f}; {one.dice_lowest:.3f}",
            estimate(one.surface_mm),
            estimate(one.hausdorff_mm),
        )
        for one in report.structures
    ]
    return _table(
        (
            "structure",
            "patients",
            "Dice",
            "Dice, largest cavity (ED)",
            "Dice, smallest (ES)",
            "lowest 5 % of frames; lowest",
            "mean surface distance, mm",
            "Hausdorff 95 %, mm",
        ),
        rows,
    )


def _views(found: Views, *, simulated: bool) -> list[str]:
    on = evidence_words(found.evidence, simulated=simulated)
    rows = [
        ("label right, as the node gives it (header first)", percent(found.accuracy, 1)),
        ("label right, by the picture alone", percent(found.accuracy_by_picture, 1)),
        ("single image right", percent(found.accuracy_of_frames, 1)),
        ("among the two likeliest", percent(found.top_two, 1)),
        ("among the two likeliest, single image", percent(found.top_two_of_frames, 1)),
        ("called certain", percent(found.certain, 1)),
        ("right when called certain", percent(found.accuracy_when_certain, 1)),
        ("a4c, of those called a4c and certain", percent(found.a4c_right, 1)),
        ("called a4c and certain, of those that are", percent(found.a4c_found, 1)),
        ("AUC, mean over the views", estimate(found.mean_auc, 3)),
        ("calibration error", estimate(found.calibration_error, 3)),
        ("score when right, median and quartiles", _spread(found.confidence_right)),
        ("score when wrong, median and quartiles", _spread(found.confidence_wrong)),
    ]
    each = [
        (
            one.view.value,
            str(one.clips),
            percent(one.sensitivity),
            percent(one.ppv),
            estimate(one.auc, 3),
            _mistaken(found, one.view.value),
        )
        for one in found.by_view
    ]
    lines = _table((f"views, tested on {on}", f"{found.counts.clips} clips"), rows)
    lines += ["", *_table(("view", "clips", "right", "PPV", "AUC", "taken for"), each)]
    if found.by_frames:
        lines += ["", *_frames_table("share right", found.by_frames, 3)]
    if found.worst:
        lines += ["", "Most certain mistakes: " + "; ".join(found.worst) + "."]
    return lines


def _mistaken(found: Views, view: str) -> str:
    names = [one.value for one in found.classes]
    row = found.confusion[names.index(view)]
    wrong = sorted(
        ((count, name) for name, count in zip(names, row, strict=True) if count and name != view),
        key=lambda pair: (-pair[0], pair[1]),
    )
    return ", ".join(f"{name} {count}" for count, name in wrong)


def _spread(one: Confidence) -> str:
    if not one.calls:
        return "no such call"
    return f"{one.median:.3f} ({one.low:.3f} to {one.high:.3f})"


def _output(one: Measurement | Score, what: str, picture: str | None) -> Iterator[str]:
    yield f"### {one.title}"
    yield ""
    yield f"{_counted(one.counts, what)}"
    if picture:
        yield ""
        yield f"![{one.title}]({picture})"
    if one.by_frames:
        yield ""
        figure = f"MAE, {unit_words(one.unit)}" if isinstance(one, Measurement) else "AUC"
        yield from _frames_table(figure, one.by_frames, 2)
    yield ""
    far = ", ".join(f"{each.name} ({each.value:.3g}, truth {each.truth:.3g})" for each in one.worst)
    yield f"Farthest off: {far}."


def _frames_table(figure: str, by_frames: Sequence[ByFrames], digits: int) -> list[str]:
    rows = [
        (str(each.frames), estimate(each.first, digits), number(each.random, digits))
        for each in by_frames
    ]
    return _table(("frames", f"{figure}: the first ones", "as many at random"), rows)


def _counted(counts: Counts, what: str) -> str:
    return (
        f"{counts.patients} patients, {counts.examinations} examinations, {counts.clips} {what} "
        "with a value."
    )


def _left_out(report: Report) -> Iterator[str]:
    what = _what(report)
    refused: dict[str, list[str]] = {}
    for one in report.outputs:
        for reason, count in one.counts.refused.items():
            refused.setdefault(reason, []).append(f"{one.output} {count}")
    if refused:
        yield from ("", f"### {what.capitalize()} without a value", "")
        for reason, which in refused.items():
            yield f"- {reason}: {', '.join(which)}"
    if report.unreadable:
        yield from ("", f"### {what.capitalize()} that could not be read", "")
        for reason, count in report.unreadable.items():
            yield f"- {reason}: {count}"
    if report.untested:
        yield from ("", "### Not tested here", "")
        for each in report.untested:
            yield f"- {each.output}: {each.reason}"
