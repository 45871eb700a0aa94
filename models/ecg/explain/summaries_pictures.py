"""Plots of the summaries, and average beats on ECG paper.

Drawn with matplotlib's object interface on the Agg canvas, so that the same figures give the same
picture. Colours are those of Okabe and Ito (2008), and each outcome has a mark of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image

from models.ecg.explain.paper import EcgShown, draw_ecg
from models.ecg.explain.summaries import (
    Outcome,
    OutputSummary,
    Summaries,
    average_beat,
    mean_by_lead,
)
from models.ecg.recording import LEADS, Ecg, Strip
from models.finding import Evidence, Kind
from models.tasks import TASKS

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}
_MARKS = {
    Outcome.TRUE_POSITIVE: ("#e69f00", "o"),
    Outcome.FALSE_POSITIVE: ("#d55e00", "X"),
    Outcome.FALSE_NEGATIVE: ("#56b4e9", "P"),
    Outcome.TRUE_NEGATIVE: ("#0072b2", "v"),
    Outcome.UNKNOWN: ("#777777", "."),
}
_ACROSS, _DPI = 3, 110
_MOST_GROUPS = 2  # of beats, for each output: those with and without the finding


def draw_means(summaries: Summaries, folder: Path) -> dict[str, Path]:
    """Each recording's mean relevance against its score, a panel for each output."""
    return _sheet(
        summaries, [one for one in summaries.outputs if one.kind is Kind.SCORE], _means_panel,
        folder / "mean-relevance.png", "means",
    )  # fmt: skip


def draw_leads(summaries: Summaries, folder: Path) -> dict[str, Path]:
    """The mean relevance of each lead with its interval, a panel for each output."""
    return _sheet(
        summaries, list(summaries.outputs), _leads_panel, folder / "relevance-by-lead.png", "leads"
    )


def draw_beats(summaries: Summaries, folder: Path) -> dict[str, Path]:
    """The average beat with its relevance, on ECG paper, by output and what is true."""
    drawn = {}
    for one in summaries.outputs:
        groups = one.groups
        if one.kind is Kind.SCORE:
            groups = {
                outcome.value: one.of(outcome)
                for outcome in (Outcome.TRUE_POSITIVE, Outcome.TRUE_NEGATIVE)
            }
            if not any(groups.values()):
                groups = one.groups
        for name, records in list(groups.items())[:_MOST_GROUPS]:
            found = average_beat(records)
            if found is None:
                continue
            title = f"{TASKS[one.output].title}, {name}"
            page = _beat_page(summaries, one, title, len(records), *found)
            path = folder / f"beat-{one.output.replace('_', '-')}-{name.replace(' ', '-')}.png"
            Image.fromarray(page).save(path, "PNG", optimize=True)
            drawn[title] = path
    return drawn


def _beat_page(
    summaries: Summaries,
    one: OutputSummary,
    title: str,
    count: int,
    beat: NDArray[np.float64],
    parts: NDArray[np.float64],
) -> NDArray[np.uint8]:
    millivolts = np.full((len(LEADS), beat.shape[1]), np.nan, np.float32)
    relevance = np.zeros((len(LEADS), beat.shape[1]), np.float32)
    for place, lead in enumerate(summaries.leads):
        row = LEADS.index(lead)
        millivolts[row], relevance[row] = beat[place], parts[place]
    strip = Strip(millivolts=millivolts, rate_hz=summaries.rate_hz)
    return draw_ecg(
        Ecg(rhythm=strip),
        EcgShown(
            cautions=(_whom(summaries),),
            relevance=relevance,
            method=summaries.method.words,
            unit=f"{one.unit} a sample",
            beat=strip,
            title=f"Average beat: {summaries.pack} {summaries.version}",
            subject=f"{title}: the mean of {count} recordings",
        ),
    )


def _sheet(
    summaries: Summaries, outputs: list[OutputSummary], panel: Any, path: Path, name: str
) -> dict[str, Path]:
    """Panels beside each other under words that say whose data it is; none without outputs."""
    if not outputs:
        return {}
    across = min(_ACROSS, len(outputs))
    down = -(-len(outputs) // across)
    with rc_context(_STYLE):
        tall = 0.9 + 3.3 * down
        layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.6 / tall))  # room for the words
        figure = Figure(figsize=(4.4 * across, tall), dpi=_DPI, layout=layout)
        grid = figure.subplots(down, across, squeeze=False)
        for axes, one in zip(grid.flat, outputs, strict=False):
            panel(axes, one, summaries)
        for axes in list(grid.flat)[len(outputs) :]:
            axes.set_axis_off()
        figure.suptitle(
            f"{summaries.pack} {summaries.version}, {summaries.method.words}\n{_whom(summaries)}",
            x=0.01, y=1 - 0.08 / tall, ha="left", fontsize=10,
        )  # fmt: skip
        figure.savefig(path, metadata={"Software": None})
    return {name: path}


def _means_panel(axes: Axes, one: OutputSummary, _: Summaries) -> None:
    for outcome, (colour, mark) in _MARKS.items():
        records = one.of(outcome)
        if records:
            axes.scatter(
                [record.score for record in records],
                [1000 * record.mean for record in records],
                s=26, color=colour, marker=mark, alpha=0.85, linewidths=0,
                label=f"{len(records)} {outcome.value}",
            )  # fmt: skip
    axes.axhline(0, color="#777777", linewidth=0.8)
    axes.axvline(one.threshold, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_xlim(-0.03, 1.03)
    axes.set_title(f"{TASKS[one.output].title}\nrank correlation {one.correlation}")
    axes.set_xlabel("score")
    axes.set_ylabel(f"mean relevance, 1/1000 {one.unit}")
    axes.legend(loc="best")


def _leads_panel(axes: Axes, one: OutputSummary, summaries: Summaries) -> None:
    groups = [
        (name, records)
        for name, records in one.groups.items()
        if name in (Outcome.TRUE_POSITIVE.value, Outcome.TRUE_NEGATIVE.value)
    ] or list(one.groups.items())[:_MOST_GROUPS]
    places = np.arange(len(summaries.leads))
    width = 0.8 / max(1, len(groups))
    for number, (name, records) in enumerate(groups):
        means = mean_by_lead(records)
        values = np.array([mean.value for mean in means])
        away = np.array([[mean.value - mean.low, mean.high - mean.value] for mean in means]).T
        colour = "#0072b2" if name == Outcome.TRUE_NEGATIVE.value else "#e69f00"
        axes.bar(
            places + (number - (len(groups) - 1) / 2) * width, 1000 * values, width,
            color=colour, yerr=1000 * np.maximum(away, 0), ecolor="#222222",
            error_kw={"linewidth": 0.8}, label=f"{len(records)} {name}",
        )  # fmt: skip
    axes.axhline(0, color="#777777", linewidth=0.8)
    axes.set_xticks(places, summaries.leads, rotation=60)
    axes.set_title(TASKS[one.output].title)
    axes.set_ylabel(f"mean relevance, 1/1000 {one.unit}")
    axes.legend(loc="best")


def _whom(summaries: Summaries) -> str:
    simulated = summaries.evidence is Evidence.SIMULATED
    whom = "SIMULATED, never tested on patients" if simulated else "patients"
    return f"{summaries.title}, split {summaries.split}: {whom}; research use only"
