"""The sheet of a built data set: what is in it, for a reader, in words and pictures.

After Gebru et al. 2021 (Datasheets for Datasets, CACM 64(12)): what it is made of, how it was
collected and prepared, what is missing, what it must not be used for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.data.dataset import SPLITS
from models.finding import Kind
from models.tasks import TASKS

LABELS_PICTURE, CLIPS_PICTURE = "labels.png", "clips.png"

_COLOURS = dict(zip(SPLITS, ("#4477aa", "#ee7733", "#228833"), strict=True))
_INK, _FAINT = "#222222", "#cccccc"


def write_sheet(
    folder: Path,
    description: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    *,
    unreadable: Sequence[tuple[int, str]] = (),
) -> None:
    """Write ``DATASHEET.md`` and its pictures.

    Parameters
    ----------
    description
        What ``dataset.json`` holds.
    cases
        The lines of ``cases.jsonl``.
    unreadable
        The place in the order of the objects, from 1 on, and the reason, of each that could not
        be read. Their names are not written: files are often named after patients.
    """
    _draw_labels(folder / LABELS_PICTURE, description, cases)
    _draw_clips(folder / CLIPS_PICTURE, cases)
    lines = _lines(description, cases, unreadable)
    (folder / "DATASHEET.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(
    description: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    unreadable: Sequence[tuple[int, str]],
) -> Iterator[str]:
    yield f"# {description['title']}"
    yield ""
    yield f"Licence: {description['licence']}."
    if description["evidence"] != "patients":
        yield "Some or all of the clips are simulated: figures on them say nothing of patients."
    yield ""
    yield from _what(description)
    yield from _labels(description, cases)
    yield from _clips(cases)
    yield from _left_out(description, unreadable)
    yield from _caution()


def _what(description: Mapping[str, Any]) -> Iterator[str]:
    splits = description["splits"]
    yield "## What is in it"
    yield ""
    yield "| | " + " | ".join(SPLITS) + " | all |"
    yield "| --- |" + " ---: |" * (len(SPLITS) + 1)
    for kind in ("patients", "studies", "clips", "frames"):
        counts = [splits[split][kind] for split in SPLITS]
        yield f"| {kind} | " + " | ".join(map(str, [*counts, sum(counts)])) + " |"
    yield ""
    views = ", ".join(description["views"]) or "every view"
    shares = ", ".join(f"{share:g}" for share in description["shares"])
    sampling = description["sampling"]
    yield (
        f"Views: {views}. Patients, not clips, are split ({shares}; seed {description['seed']}): "
        "`train` for weights, `held` for choices, `valid` for the report at the end."
    )
    yield ""
    yield (
        f"Of each clip {sampling['frames']} frames are kept, {sampling['interval_ms']:g} ms apart "
        "from the first on (Ghorbani et al. 2020); of a clip too short for five of them, five "
        "spread over it. Everything outside the scanning sector is black. Frames are 8-bit grey, "
        f"lossless, at the machine's size. Preprocessing version {description['preprocessing']}. "
        f"Fingerprint {description['fingerprint']}."
    )
    yield ""


def _labels(description: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "## Labels"
    yield ""
    yield "From a table of reported values. Counts are of clips; the rest is not known."
    yield ""
    yield "| label | unit | split | known | missing | distribution |"
    yield "| --- | --- | --- | ---: | ---: | --- |"
    for name, label in description["labels"].items():
        for split in SPLITS:
            clips = [case for case in cases if case["split"] == split]
            values = [case["truths"][name] for case in clips if name in case["truths"]]
            unit = "" if TASKS[name].kind is Kind.SCORE else label["unit"]
            yield (
                f"| {_title(name)} (`{name}`) | {unit} | {split} | {len(values)} | "
                f"{len(clips) - len(values)} | {_spread(name, values)} |"
            )
    yield ""
    yield f"![Distribution of each label by split]({LABELS_PICTURE})"
    yield ""


def _title(name: str) -> str:
    """What was reported: the titles of tasks speak of a model's estimates."""
    title = TASKS[name].title
    for words in ("Model estimate of ", "Model score for "):
        title = title.removeprefix(words)
    return title[0].upper() + title[1:]


def _spread(name: str, values: Sequence[float]) -> str:
    if not values:
        return "-"
    if TASKS[name].kind is Kind.SCORE:
        return f"{sum(values):.0f} of {len(values)} ({100 * float(np.mean(values)):.0f} %)"
    low, middle, high = np.percentile(values, [5, 50, 95])
    mean, wide = float(np.mean(values)), float(np.std(values))
    return f"{mean:.4g} ± {wide:.3g}; 5, 50, 95 %: {low:.4g}, {middle:.4g}, {high:.4g}"


def _clips(cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "## Clips"
    yield ""
    yield "| maker | " + " | ".join(SPLITS) + " |"
    yield "| --- |" + " ---: |" * len(SPLITS)
    for maker in sorted({case["maker"] for case in cases}):
        counts = [
            sum(case["maker"] == maker and case["split"] == split for case in cases)
            for split in SPLITS
        ]
        yield f"| {maker} | " + " | ".join(map(str, counts)) + " |"
    yield ""
    rates = [case["frames_per_second"] for case in cases if case["frames_per_second"]]
    if rates:
        low, middle, high = np.percentile(rates, [0, 50, 100])
        yield (
            f"Frames a second: {low:.3g} to {high:.3g}, median {middle:.3g}; not stated by "
            f"{len(cases) - len(rates)} of {len(cases)} clips, which count as 30."
        )
    else:
        yield "Frames a second: stated by no clip; 30 are assumed."
    trusted = sum(case["spacing_trusted"] for case in cases)
    lossy = sum(case["lossy"] for case in cases)
    few = sum(case["frames"] < 20 for case in cases)
    yield (
        f"A pixel spacing that can be trusted: {trusted} of {len(cases)} clips. Compressed with "
        f"loss by the machine: {lossy}. Shorter than twenty frames: {few}."
    )
    yield ""
    yield f"![Frame rates, makers, sizes]({CLIPS_PICTURE})"
    yield ""


def _left_out(
    description: Mapping[str, Any], unreadable: Sequence[tuple[int, str]]
) -> Iterator[str]:
    table = description["table"]
    yield "## What was left out, and why"
    yield ""
    if description["left_out"]:
        yield "| objects | reason |"
        yield "| ---: | --- |"
        for reason, count in description["left_out"].items():
            yield f"| {count} | {reason} |"
    else:
        yield "Nothing."
    yield ""
    if unreadable:
        yield (
            "Objects that could not be read, by their place in the order in which they were "
            "looked at (file names may name patients and are not kept):"
        )
        yield ""
        for number, reason in unreadable:
            yield f"- object {number}: {reason}"
        yield ""
    yield (
        f"The table has {table['lines']} usable lines, keyed by {table['key']}; "
        f"{table['lines_without_object']} of them belong to no object that was looked at."
    )
    if table["problems"]:
        yield ""
        yield "What was wrong with it:"
        yield ""
        for problem in table["problems"]:
            yield f"- {problem}"
    yield ""


def _caution() -> Iterator[str]:
    yield "## What a user must know"
    yield ""
    yield (
        "- Names, identifiers, dates and UIDs are not in this folder. Patients, studies and clips "
        "are named by keyed hashes whose key was thrown away: nobody can go back, and a set that "
        "is made again has other names."
    )
    yield (
        "- What stands inside the scanning sector stays, and on some machines that is text. Look "
        "at the frames before you hand them on. The pictures themselves are health data."
    )
    yield (
        "- Truth is what a report says of the whole study. It was measured from other clips too, "
        "and by the reader's own habit."
    )
    yield (
        "- Who is one patient is told by PatientID (or the table's column). Where an export gave "
        "all patients one identifier, all are in one split; where one patient has two, "
        "both splits may hold clips of that patient."
    )
    yield "- Not for diagnosis. Research use only."


def _draw_labels(
    path: Path, description: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]
) -> None:
    names = list(description["labels"])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        values = {
            split: [
                case["truths"][name]
                for case in cases
                if case["split"] == split and name in case["truths"]
            ]
            for split in SPLITS
        }
        _histogram(panel, name, values)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    _save(figure, path)


def _histogram(panel: Axes, name: str, values: Mapping[str, Sequence[float]]) -> None:
    task = TASKS[name]
    known = [value for each in values.values() for value in each]
    panel.set_title(_title(name), fontsize=9, color=_INK)
    if not known:
        panel.text(0.5, 0.5, "not known", ha="center", va="center", transform=panel.transAxes)
        panel.set_axis_off()
        return
    score = task.kind is Kind.SCORE
    edges = [-0.5, 0.5, 1.5] if score else _edges(known)
    panel.hist(
        [values[split] for split in SPLITS],
        bins=edges,
        stacked=True,
        color=[_COLOURS[split] for split in SPLITS],
        label=[f"{split} ({len(values[split])})" for split in SPLITS],
        rwidth=0.9,
    )
    if score:
        panel.set_xticks([0, 1], ["no", "yes"] if name != "sex" else ["female", "male"])
    else:
        panel.set_xlabel(task.unit, fontsize=8)
    _plain(panel)
    panel.legend(fontsize=7, frameon=False, loc="upper right")


def _edges(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    pad = max(0.0, (2.0 - (high - low)) / 2)
    return [float(edge) for edge in np.linspace(low - pad, high + pad, 21)]


def _draw_clips(path: Path, cases: Sequence[Mapping[str, Any]]) -> None:
    figure = Figure(figsize=(12.6, 3.1), layout="constrained")
    rate, maker, size = figure.subplots(1, 3)
    rates = [case["frames_per_second"] for case in cases if case["frames_per_second"]]
    rate.set_title("Frames a second", fontsize=9, color=_INK)
    if rates:
        rate.hist(rates, bins=_edges(rates), color=_COLOURS["train"], rwidth=0.9)
    _plain(rate)
    counts = Counter(case["maker"] for case in cases).most_common()
    maker.set_title("Makers", fontsize=9, color=_INK)
    names, numbers = [name for name, _ in counts], [number for _, number in counts]
    maker.barh(names, numbers, height=0.6, color=_COLOURS["train"])
    maker.set_ylim(max(3, len(names)) - 0.5, -0.5)
    _plain(maker, across=True)
    size.set_title("Sector, pixels", fontsize=9, color=_INK)
    size.scatter(
        [case["columns"] for case in cases],
        [case["rows"] for case in cases],
        s=8,
        color=_COLOURS["train"],
        alpha=0.5,
    )
    size.set_xlabel("columns", fontsize=8)
    size.set_ylabel("rows", fontsize=8)
    _plain(size, counts=False)
    _save(figure, path)


def _plain(panel: Axes, *, counts: bool = True, across: bool = False) -> None:
    panel.tick_params(labelsize=8, colors=_INK)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.set_axisbelow(True)
    if counts:
        panel.grid(axis="x" if across else "y", color=_FAINT, linewidth=0.5)
        axis = panel.xaxis if across else panel.yaxis
        axis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("clips", fontsize=8) if across else panel.set_ylabel("clips", fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    # Without these no version and no date stands in the file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
