"""A pack's figures at the terminal: tables from what ``evaluation.json`` holds.

Narrow enough for a terminal of eighty columns; the whole report is ``evaluation.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from node.cli.output import print_table, print_text

_SHOWN_FRAMES = (1, 2, 3, 5, 10, 15, 20)
_UNITS = {"%": "points", "a": "years", "cm2": "cm²"}

Part = Mapping[str, Any]


def print_evaluation(evaluation: Part) -> None:
    """Every report of ``evaluation.json``, of the present schema, and what must be said of it."""
    for report in evaluation["reports"]:
        print_report(report)
    for line in _cautions(evaluation):
        print_text(line)


def can_be_printed(evaluation: Any) -> bool:
    """Whether this has the form of ``evaluation.json``: a pack from outside may hold anything."""
    try:
        list(_cautions(evaluation))
        for report in evaluation["reports"]:
            list(_tables(report, simulated=report["dataset"]["evidence"] == "simulated"))
            list(_lines(report))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return False
    return True


def print_report(report: Part) -> None:
    """A pack's report on one data set."""
    dataset = report["dataset"]
    simulated = dataset["evidence"] == "simulated"
    whom = "simulated patients: NOT tested on patients" if simulated else "patients"
    print_text("")
    print_text(f"On {dataset['title']}")
    print_text(
        f"  {dataset['patients']} {whom}, {dataset['clips']} {_what(report)}, "
        f"split {dataset['split']}; "
        "in brackets 95 % intervals over patients"
    )
    print_text("")
    for title, columns, rows in _tables(report, simulated=simulated):
        print_table(title, columns, rows, long=columns[1:])
    for line in _lines(report):
        print_text(line)


def print_markdown(page: str) -> None:
    """A page of Markdown: drawn on a terminal, as it is elsewhere."""
    from rich.markdown import Markdown

    if sys.stdout.isatty():
        Console(file=sys.stdout).print(Markdown(page))
    else:
        print_text(page)


def _tables(
    report: Part, *, simulated: bool
) -> Iterator[tuple[str, Sequence[str], list[Sequence[object]]]]:
    measured, scored = report["measurements"], report["scores"]
    mark = ", SIMULATED" if simulated else ""
    if measured:
        columns = ("output", "tested on", "n", "MAE", "mean's", "R²")
        yield (
            "Error, beside that of saying the mean",
            columns,
            [
                (
                    f"{one['output']}, {_UNITS.get(one['unit'], one['unit'])}",
                    _tested(one, simulated=simulated),
                    one["counts"]["patients"],
                    _figure(one["mae"]),
                    _number(one["mae_of_predicting_the_mean"]),
                    _figure(one["r2"]),
                )
                for one in measured
            ],
        )
        columns = ("output", "bias", "limits of agreement", "interval held", "wide", "refused")
        yield (
            "Agreement, and how often the 95 % interval held the truth",
            columns,
            [
                (
                    one["output"] + mark,
                    _figure(one["bias"]),
                    f"{_number(one['lower_limit'][0], 1)} to {_number(one['upper_limit'][0], 1)}",
                    _percent(one["interval"]["coverage"]) if one["interval"] else None,
                    _number(one["interval"]["width"], 1) if one["interval"] else None,
                    sum(one["counts"]["refused"].values()),
                )
                for one in measured
            ],
        )
    if scored:
        columns = ("output", "tested on", "with/n", "AUC", "F1", "yes's F1")
        yield (
            "Ranking, and F1 beside that of always saying yes",
            columns,
            [
                (
                    one["output"],
                    _tested(one, simulated=simulated),
                    f"{one['positives']}/{one['counts']['examinations']}",
                    _figure(one["auc"]),
                    _figure(one["f1"]),
                    _number(one["f1_of_always_yes"]),
                )
                for one in scored
            ],
        )
        columns = ("output", "threshold", "sensitivity", "specificity", "PPV", "NPV")
        yield (
            "At the threshold",
            columns,
            [
                (
                    one["output"] + mark,
                    _number(one["threshold"]),
                    *(_percent(one[key]) for key in columns[2:4]),
                    *(_percent(one[key.lower()]) for key in columns[4:]),
                )
                for one in scored
            ],
        )
    if report["structures"]:
        columns = ("structure", "frames", "Dice", "ED", "ES", "Hausdorff 95 %, mm")
        yield (
            "Tracings",
            columns,
            [
                (
                    one["name"] + mark,
                    one["frames"],
                    _figure(one["dice"], 3),
                    _number(one["dice_largest"][0], 3),
                    _number(one["dice_smallest"][0], 3),
                    _figure(one["hausdorff_mm"], 1),
                )
                for one in report["structures"]
            ],
        )
    if report["views"]:
        yield from _views(report["views"], simulated=simulated)
    yield from _by_frames(report, mark)


def _views(
    views: Part, *, simulated: bool
) -> Iterator[tuple[str, Sequence[str], list[Sequence[object]]]]:
    named = (
        ("label right", "accuracy"),
        ("label right, by the picture alone", "accuracy_by_picture"),
        ("single image right", "accuracy_of_frames"),
        ("among the two likeliest", "top_two"),
        ("called certain", "certain"),
        ("right when called certain", "accuracy_when_certain"),
        ("a4c, of those called a4c and certain", "a4c_right"),
        ("called a4c and certain, of those that are", "a4c_found"),
    )
    title = f"Views, tested on {'SIMULATED clips' if simulated else 'patients'}"
    rows: list[Sequence[object]] = [(words, _percent(views[key])) for words, key in named]
    rows.append(("AUC, mean over views", _figure(views["mean_auc"], 3)))
    yield title, ("what", "result"), rows
    names = views["classes"]
    each: list[Sequence[object]] = []
    for one in views["by_view"]:
        row = views["confusion"][names.index(one["view"])]
        taken = [
            f"{name} {count}"
            for name, count in zip(names, row, strict=True)
            if count and name != one["view"]
        ]
        each.append(
            (
                one["view"],
                one["clips"],
                _percent(one["sensitivity"]),
                _number(one["auc"][0], 3),
                ", ".join(taken),
            )
        )
    yield "By view", ("view", "clips", "right", "AUC", "taken for"), each


def _by_frames(
    report: Part, mark: str
) -> Iterator[tuple[str, Sequence[str], list[Sequence[object]]]]:
    counted: list[tuple[str, Sequence[Part]]] = [
        (f"{one['output']}{mark}, {what}", one["by_frames"])
        for key, what in (("measurements", "MAE"), ("scores", "AUC"))
        for one in report[key]
        if one["by_frames"]
    ]
    if report["views"] and report["views"]["by_frames"]:
        counted.append((f"share of clips right{mark}", report["views"]["by_frames"]))
    if not counted:
        return
    there = {one["frames"] for _, each in counted for one in each}
    shown = [k for k in _SHOWN_FRAMES if k in there]
    rows: list[Sequence[object]] = []
    for name, each in counted:
        by_count = {one["frames"]: one["first"][0] for one in each}
        rows.append((name, *(_number(by_count.get(k)) for k in shown)))
    yield "By number of frames, the first of a clip", ("figure", *map(str, shown)), rows


def _what(report: Part) -> str:
    """What the pack reads, in words."""
    return "recordings" if report.get("kind") == "waveform" else "clips"


def _lines(report: Part) -> Iterator[str]:
    what = _what(report)
    for one in (*report["measurements"], *report["scores"]):
        for reason, count in one["counts"]["refused"].items():
            yield f"refused: {one['output']}, {count} {what}: {reason}"
    for reason, count in report["unreadable"].items():
        yield f"not read: {count} {what}: {reason}"
    for one in report["untested"]:
        yield f"not tested here: {one['output']}: {one['reason']}"
    for caveat in report["dataset"]["caveats"]:
        yield f"mind: {caveat}"


def _cautions(evaluation: Part) -> Iterator[str]:
    """Which outputs were not shown to be better than knowing nothing, and of what stays unknown."""
    for output, both in evaluation.get("sections", {}).get("both_splits", {}).items():
        if both["caution"]:
            yield f"MIND: {output} was {both['caution']}"


def _tested(one: Part, *, simulated: bool) -> str:
    if simulated:
        return "SIMULATED"
    # The output's own evidence: patients saw it here, but so far it rests on the simulator.
    return "patients" if one["evidence"] == "patients" else "patients (SIMULATED before)"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _figure(estimate: Sequence[float | None], digits: int = 2) -> str:
    value, low, high = estimate
    if value is None:
        return "cannot be measured"
    return f"{value:.{digits}f} ({_number(low, digits)} to {_number(high, digits)})"


def _percent(estimate: Sequence[float | None]) -> str:
    value, low, high = estimate
    if value is None or low is None or high is None:
        return "cannot be measured"
    return f"{100 * value:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
