"""The report's pictures: one sheet for each output, one for views, one for tracings.

Drawn with matplotlib's object interface on the Agg canvas, in few colours and without a date, so
that the same figures give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from models.evaluation import metrics
from models.evaluation.figures import ByFrames, Interval, Measurement, Score, Structure, Views
from models.evaluation.metrics import Bin, Numbers
from models.evaluation.page import unit_words
from models.evaluation.report import Report
from models.finding import Evidence
from models.views import View

_INK, _QUIET, _GRID = "#222222", "#6b7280", "#e5e7eb"
_BLUE, _PALE, _RED = "#2563a8", "#c7dbf0", "#b3402e"
_DPI = 100
_COLOURS = 256
_BAND_DRAWS = 500
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}

Panel = Callable[[Axes], None]


def write_pictures(folder: Path, report: Report, slug: str) -> dict[str, str]:
    """Write the sheets ``evaluation-SLUG-OUTPUT.png``; file names by output.

    "views", "ranking", "votes" and "structures" name those that belong to no single output.
    """
    written = {}
    with rc_context(_STYLE):
        for name, sheet in _sheets(report):
            file = f"evaluation-{slug}-{name.replace('_', '-')}.png"
            (folder / file).write_bytes(_png(sheet))
            written[name] = file
    return written


def _sheets(report: Report) -> list[tuple[str, Figure]]:
    sheets = [
        (one.output, _sheet(one.title, report, _measurement_panels(one)))
        for one in report.measurements
    ]
    sheets += [(one.output, _sheet(one.title, report, _score_panels(one))) for one in report.scores]
    if report.structures:
        sheets.append(("structures", _structures(report)))
    if report.views:
        sheets.append(("views", _confusion(report.views, report)))
        if report.views.mean_auc.measured:
            sheets.append(
                ("ranking", _sheet("Views, each against the rest", report, _ranking(report.views)))
            )
        sheets.append(("votes", _sheet("Views", report, _vote_panels(report.views))))
    return sheets


def _sheet(title: str, report: Report, panels: Sequence[Panel]) -> Figure:
    """Panels two beside each other under a title that says whose data it is."""
    down = (len(panels) + 1) // 2
    tall = 0.75 + 3.9 * down
    figure = Figure(figsize=(9.6, tall), dpi=_DPI)
    figure.subplots_adjust(
        left=0.085, right=0.985, bottom=0.5 / tall, top=1 - 0.9 / tall, wspace=0.22, hspace=0.33
    )
    grid = figure.subplots(down, 2, squeeze=False)
    places = list(grid.flat)
    for panel, axes in zip(panels, places, strict=False):
        panel(axes)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    _title(figure, title, report)
    return figure


def _title(figure: Figure, title: str, report: Report) -> None:
    simulated = report.dataset.evidence is Evidence.SIMULATED
    whom = "simulated patients, NOT tested on patients" if simulated else "patients"
    figure.suptitle(
        f"{report.pack} {report.version}: {title}\n"
        f"{report.dataset.name}, split {report.dataset.split}, {report.dataset.patients} {whom}; "
        "research use only",
        x=0.012,
        y=1 - 0.1 / figure.get_figheight(),
        ha="left",
        fontsize=11,
        color=_RED if simulated else _INK,
    )


def _measurement_panels(one: Measurement) -> list[Panel]:
    panels: list[Panel] = [lambda axes: _scatter(axes, one), lambda axes: _bland_altman(axes, one)]
    if one.interval is not None:
        interval = one.interval
        panels.append(lambda axes: _intervals(axes, interval, one.unit))
    if one.by_frames:
        label = f"mean absolute error, {unit_words(one.unit)}"
        guess = one.mae_of_predicting_the_mean
        panels.append(lambda axes: _frames(axes, one.by_frames, label, ("saying the mean", guess)))
    else:
        panels.append(lambda axes: _errors(axes, one))
    return panels


def _score_panels(one: Score) -> list[Panel]:
    both = one.auc.measured
    panels: list[Panel] = []
    if both:
        panels += [lambda axes: _roc(axes, one), lambda axes: _precision_recall(axes, one)]
    panels.append(lambda axes: _score_spread(axes, one))
    panels.append(
        lambda axes: _reliability(axes, one.reliability, "score", "share with the finding")
    )
    if one.by_frames:
        panels.append(lambda axes: _frames(axes, one.by_frames, "AUC", ("chance", 0.5)))
    return panels


def _ranking(one: Views) -> list[Panel]:
    """ROC curves, the corner that matters larger, and what the threshold does to A4C labels."""
    panels: list[Panel] = [
        lambda axes: _rocs(axes, one, corner=False),
        lambda axes: _rocs(axes, one, corner=True),
        lambda axes: _aucs(axes, one),
    ]
    if _is_a4c(one).any():
        panels.append(lambda axes: _a4c_by_threshold(axes, one))
    return panels


def _vote_panels(one: Views) -> list[Panel]:
    panels: list[Panel] = [
        lambda axes: _reliability(axes, one.reliability, "score of the label", "share right")
    ]
    if one.by_frames:
        panels.append(lambda axes: _frames(axes, one.by_frames, "share of clips right", None))
    return panels


def _scatter(axes: Axes, one: Measurement) -> None:
    truth, value = one.rows.truth, one.rows.value
    low, high = _range(truth, value)
    axes.plot([low, high], [low, high], color=_QUIET, lw=1, label="equal")
    axes.scatter(truth, value, s=16, color=_BLUE, alpha=0.65, lw=0)
    axes.set(
        title=f"Against the truth: n = {len(truth)}",
        xlabel=f"truth, {_unit(one.unit)}",
        ylabel=f"model, {_unit(one.unit)}",
        xlim=(low, high),
        ylim=(low, high),
    )
    axes.set_aspect("equal")
    lines = [f"MAE {one.mae.value:.1f}" if one.mae.value >= 1 else f"MAE {one.mae.value:.2f}"]
    if one.r2.measured:
        lines.append(f"R² {one.r2.value:.2f} ({one.r2.low:.2f} to {one.r2.high:.2f})")
    _note(axes, "\n".join(lines))


def _bland_altman(axes: Axes, one: Measurement) -> None:
    truth, value = one.rows.truth, one.rows.value
    axes.axhline(0, color=_QUIET, lw=0.8)
    axes.scatter((truth + value) / 2, value - truth, s=16, color=_BLUE, alpha=0.65, lw=0)
    axes.axhline(one.bias.value, color=_INK, lw=1.2)
    axes.margins(y=0.15)
    for limit in (one.lower_limit, one.upper_limit):
        if limit.measured:
            axes.axhspan(limit.low, limit.high, color=_PALE, alpha=0.5, lw=0, zorder=0.5)
            axes.axhline(limit.value, color=_BLUE, lw=1, ls="--")
    words = [f"bias {one.bias.value:+.2f}"]
    if one.lower_limit.measured:
        words.append(f"95 % limits {one.lower_limit.value:.1f} to {one.upper_limit.value:.1f}")
    axes.set(
        title="Agreement: " + ", ".join(words),
        xlabel=f"mean of model and truth, {_unit(one.unit)}",
        ylabel=f"model - truth, {unit_words(one.unit)}",
    )


def _intervals(axes: Axes, one: Interval, unit: str) -> None:
    order = np.argsort(one.truth, kind="stable")
    place = np.arange(len(order))
    truth, low, high = one.truth[order], one.low[order], one.high[order]
    inside = (low <= truth) & (truth <= high)
    axes.vlines(place, low, high, color=_PALE, lw=max(0.6, min(4.0, 220 / len(order))), zorder=1.5)
    axes.scatter(
        place[inside], truth[inside], s=10, color=_BLUE, lw=0, zorder=3, label="truth, held"
    )
    axes.scatter(
        place[~inside], truth[~inside], s=18, color=_RED, lw=0, zorder=3, label="truth, missed"
    )
    share = one.coverage
    axes.set(
        title=f"95 % intervals held {100 * share.value:.0f} % "
        f"({100 * share.low:.0f} to {100 * share.high:.0f})",
        xlabel="clips, by the truth",
        ylabel=_unit(unit),
    )
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper left")


def _errors(axes: Axes, one: Measurement) -> None:
    apart = np.sort(np.abs(one.rows.value - one.rows.truth))
    guess = np.sort(np.abs(one.rows.truth - one.rows.truth.mean()))
    share = 100 * np.arange(1, len(apart) + 1) / len(apart)
    axes.step(guess, share, where="post", color=_QUIET, lw=1, label="saying the mean")
    axes.step(apart, share, where="post", color=_BLUE, lw=1.6, label="model")
    axes.set(
        title="How many are off by at most so much",
        xlabel=f"error, {unit_words(one.unit)}",
        ylabel="% of examinations",
        ylim=(0, 102),
    )
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")


def _frames(
    axes: Axes, by_frames: Sequence[ByFrames], label: str, against: tuple[str, float] | None
) -> None:
    count = [one.frames for one in by_frames]
    first = [one.first for one in by_frames]
    axes.fill_between(
        count, [one.low for one in first], [one.high for one in first], color=_PALE, alpha=0.6, lw=0
    )
    axes.plot(count, [one.value for one in first], "o-", color=_BLUE, ms=3.5, lw=1.4)
    axes.plot(count, [one.random for one in by_frames], color=_INK, lw=1, ls=":")
    handles = ["95 % interval", "the first frames", "as many at random"]
    if against is not None:
        axes.axhline(against[1], color=_QUIET, lw=1, ls="--")
        handles.append(against[0])
    axes.legend(handles, loc="best")
    axes.set(title="By number of frames", xlabel="frames of a clip", ylabel=label)
    axes.set_xticks([k for k in count if k == 1 or k % 5 == 0 or len(count) <= 10])


def _roc(axes: Axes, one: Score) -> None:
    truth, score = one.rows.truth > 0.5, one.rows.value
    false, true, _ = metrics.roc_curve(truth, score)
    grid = np.linspace(0, 1, 101)
    low, high = _band(truth, score, one.rows.patient, grid)
    axes.fill_between(grid, low, high, color=_PALE, alpha=0.6, lw=0, label="95 % interval")
    axes.plot([0, 1], [0, 1], color=_QUIET, lw=0.8, label="chance")
    axes.plot(false, true, color=_BLUE, lw=1.6)
    if one.threshold is not None and one.sensitivity.measured and one.specificity.measured:
        axes.plot(1 - one.specificity.value, one.sensitivity.value, "o", color=_RED, ms=6)
        axes.annotate(
            f"threshold {one.threshold:.2g}",
            (1 - one.specificity.value, one.sensitivity.value),
            xytext=(8, -12),
            textcoords="offset points",
            color=_RED,
            fontsize=8,
        )
    axes.set(
        title=f"ROC: AUC {one.auc.value:.2f} ({one.auc.low:.2f} to {one.auc.high:.2f})",
        xlabel="1 - specificity",
        ylabel="sensitivity",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.set_aspect("equal")
    axes.legend(loc="lower right")
    _note(axes, f"{one.positives} with, {len(truth) - one.positives} without", place=(0.98, 0.30))


def _band(
    truth: NDArray[np.bool_], score: Numbers, patient: NDArray[np.str_], grid: Numbers
) -> tuple[Numbers, Numbers]:
    """Pointwise 95 % interval of the ROC curve, by bootstrap over patients."""
    curves = []
    for rows in metrics.draws_of(len(truth), patient, _BAND_DRAWS, np.random.default_rng(0)):
        drawn = truth[rows]
        if drawn.any() and not drawn.all():
            false, true, _ = metrics.roc_curve(drawn, score[rows])
            curves.append(np.interp(grid, false, true))
    if not curves:
        return np.zeros_like(grid), np.ones_like(grid)
    low, high = np.percentile(curves, [2.5, 97.5], axis=0)
    return low, high


def _precision_recall(axes: Axes, one: Score) -> None:
    precision, recall = metrics.precision_recall(one.rows.truth > 0.5, one.rows.value)
    axes.axhline(one.prevalence, color=_QUIET, lw=0.8, label=f"chance, {one.prevalence:.2f}")
    axes.step([0, *recall], [precision[0], *precision], where="pre", color=_BLUE, lw=1.6)
    average = one.average_precision
    axes.set(
        title=f"Precision and recall: average {average.value:.2f} "
        f"({average.low:.2f} to {average.high:.2f})",
        xlabel="recall (sensitivity)",
        ylabel="precision (PPV)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.set_aspect("equal")
    axes.legend(loc="lower left")


def _score_spread(axes: Axes, one: Score) -> None:
    truth, score = one.rows.truth > 0.5, one.rows.value
    rng = np.random.default_rng(0)
    for row, (which, colour) in enumerate(((~truth, _QUIET), (truth, _BLUE))):
        aside = row + rng.uniform(-0.28, 0.28, int(which.sum()))
        axes.scatter(score[which], aside, s=12, color=colour, alpha=0.6, lw=0)
    if one.threshold is not None:
        axes.axvline(one.threshold, color=_RED, lw=1, label=f"threshold {one.threshold:.2g}")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.0))
    axes.set(title="Scores of those without and with", xlabel="score", xlim=(-0.02, 1.02))
    axes.set_yticks([0, 1], [f"without\n({(~truth).sum()})", f"with\n({truth.sum()})"])
    axes.set_ylim(-0.6, 1.9)
    axes.grid(visible=False, axis="y")


def _reliability(axes: Axes, bins: Sequence[Bin], label: str, share: str) -> None:
    axes.plot([0, 1], [0, 1], color=_QUIET, lw=0.8)
    confidence = [one.confidence for one in bins]
    axes.plot(confidence, [one.share for one in bins], color=_BLUE, lw=1)
    most = max(one.count for one in bins)
    axes.scatter(
        confidence,
        [one.share for one in bins],
        s=[12 + 110 * one.count / most for one in bins],
        color=_BLUE,
        alpha=0.75,
        lw=0,
    )
    for one in bins:
        below = one.share > 0.9
        axes.annotate(
            str(one.count),
            (one.confidence, one.share),
            xytext=(0, -15 if below else 8),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=_QUIET,
        )
    axes.set(
        title="Calibration (numbers: cases)",
        xlabel=label,
        ylabel=share,
        xlim=(-0.04, 1.04),
        ylim=(-0.04, 1.08),
    )
    axes.set_aspect("equal")


def _confusion(one: Views, report: Report) -> Figure:
    """Counts: rows are the truth; the colour is the share of the row."""
    names = [view.value for view in one.classes]
    counts = np.array(one.confusion)
    kept = np.flatnonzero(counts.sum(axis=1) > 0)
    table = counts[kept]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    tall = max(2.6, 1.75 + 0.38 * len(kept))
    figure = Figure(figsize=(9.2, tall), dpi=_DPI)
    figure.subplots_adjust(left=0.1, right=0.985, bottom=0.85 / tall, top=1 - 0.65 / tall)
    axes = figure.subplots()
    axes.imshow(np.where(table, shares, np.nan), cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for row, column in np.argwhere(table):
        right = kept[row] == column
        axes.text(
            column,
            row,
            str(table[row, column]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 0.6 else (_INK if right else _RED),
        )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(kept)), [names[index] for index in kept])
    axes.set(xlabel="named", ylabel="truth")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    _title(figure, "views of clips, counts", report)
    return figure


def _is_a4c(one: Views) -> NDArray[np.bool_]:
    a4c = one.classes.index(View.A4C) if View.A4C in one.classes else -1
    return np.asarray(one.rows.label == a4c)


def _rocs(axes: Axes, one: Views, *, corner: bool) -> None:
    rows = one.rows
    # A4C last, over the others: the node measures what is called so.
    views = sorted((each.view for each in one.by_view), key=lambda view: view is View.A4C)
    for view in views:
        place = one.classes.index(view)
        truth, score = rows.label == place, rows.means[:, place]
        if truth.all() or not truth.any():
            continue
        false, true, _ = metrics.roc_curve(truth, score)
        if view is not View.A4C:
            axes.plot(false, true, color=_QUIET, lw=0.8, alpha=0.6)
            continue
        grid = np.linspace(0, 1, 501)
        low, high = _band(truth, score, rows.patient, grid)
        axes.fill_between(grid, low, high, color=_PALE, alpha=0.6, lw=0, label="a4c, 95 % interval")
        axes.plot(false, true, color=_BLUE, lw=1.8, label="a4c")
    axes.plot([], [], color=_QUIET, lw=0.8, label="other views")
    if corner:
        axes.set(title="The corner", xlim=(-0.004, 0.2), ylim=(0.8, 1.004))
    else:
        axes.plot([0, 1], [0, 1], color=_QUIET, lw=0.8, ls=":")
        mean = one.mean_auc
        axes.set(
            title=f"ROC by picture: mean AUC {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_aspect("equal")
    axes.legend(loc="lower right")


def _aucs(axes: Axes, one: Views) -> None:
    each = [view for view in one.by_view if view.auc.measured]
    place = np.arange(len(each))[::-1]
    low, high = [view.auc.low for view in each], [view.auc.high for view in each]
    colours = [_BLUE if view.view is View.A4C else _QUIET for view in each]
    axes.hlines(place, low, high, color=colours, lw=2)
    axes.scatter([view.auc.value for view in each], place, color=colours, s=20, zorder=3)
    axes.set_yticks(place, [view.view.value for view in each], fontsize=8)
    axes.set(title="AUC by view, 95 % intervals", xlabel="AUC, against the rest")
    lowest = min([*low, 0.99])
    axes.set_xlim(lowest - 0.02 * (1 - lowest), 1 + 0.02 * (1 - lowest))
    axes.grid(visible=False, axis="y")


def _a4c_by_threshold(axes: Axes, one: Views) -> None:
    rows = one.rows
    called, score = rows.means.argmax(axis=1), rows.means.max(axis=1)
    is_a4c = _is_a4c(one)
    said = called == one.classes.index(View.A4C)
    limits = np.linspace(0.3, 0.99, 70)
    taken = [said & (score >= limit) for limit in limits]
    right = [is_a4c[some].mean() if some.any() else np.nan for some in taken]
    found = [some[is_a4c].mean() for some in taken]
    axes.plot(limits, right, color=_BLUE, lw=1.6, label="are a4c, of those called so")
    axes.plot(limits, found, color=_INK, lw=1.2, ls="--", label="called so, of the a4c clips")
    if rows.certain_from:
        axes.axvline(
            rows.certain_from, color=_RED, lw=1, label=f"certain from {rows.certain_from:.2f}"
        )
    axes.set(
        title="A4C labels by the score they need",
        xlabel="lowest score, by picture alone",
        ylabel="share of clips",
        ylim=(-0.02, 1.03),
    )
    axes.legend(loc="lower left")


def _structures(report: Report) -> Figure:
    found: Sequence[Structure] = report.structures
    tall = 1.6 + 0.75 * len(found)
    figure = Figure(figsize=(9.6, tall), dpi=_DPI)
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.5 / tall, top=1 - 0.65 / tall)
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, one in enumerate(reversed(found)):
        aside = row + rng.uniform(-0.25, 0.25, len(one.by_frame))
        axes.scatter(one.by_frame, aside, s=12, color=_BLUE, alpha=0.45, lw=0)
        axes.plot(
            [one.dice.low, one.dice.high], [row, row], color=_INK, lw=3, solid_capstyle="butt"
        )
        axes.plot(one.dice.value, row, "|", color=_RED, ms=22, mew=2)
    axes.set_yticks(
        range(len(found)),
        [f"{one.name}\n{one.dice.value:.3f}" for one in reversed(found)],
    )
    axes.set(xlabel="Dice: dots are frames, red the mean over patients, black its 95 % interval")
    axes.set_xlim(right=1.0)
    axes.grid(visible=False, axis="y")
    _title(figure, "tracings", report)
    return figure


def _range(one: Numbers, two: Numbers) -> tuple[float, float]:
    low, high = float(min(one.min(), two.min())), float(max(one.max(), two.max()))
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _unit(unit: str) -> str:
    return {"a": "years", "cm2": "cm²"}.get(unit, unit)


def _note(axes: Axes, words: str, *, place: tuple[float, float] = (0.04, 0.96)) -> None:
    axes.text(
        *place,
        words,
        transform=axes.transAxes,
        va="top",
        ha="left" if place[0] < 0.5 else "right",
        fontsize=8.5,
    )


def _png(figure: Figure) -> bytes:
    """The figure in a small palette, without a date or a program's name."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    with Image.open(drawn) as held:
        image = held.convert("RGB")
    few = image.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small = io.BytesIO()
    few.save(small, "PNG", optimize=True)
    return small.getvalue()
