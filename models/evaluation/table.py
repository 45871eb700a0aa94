"""The README's one table: what was measured on what, beside the papers' figures.

    python -m models.evaluation.table

It prints Markdown made from the shipped packs' ``evaluation.json``; the README holds it between
:data:`BEGIN` and :data:`END`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.evaluation.ecg import FIGURES_OF_RIBEIRO
from models.evaluation.page import unit_words
from models.packs import PackKind, shipped_packs
from models.tasks import TASKS

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
"""The marks in the README around the table."""

RIBEIRO = "Ribeiro et al. 2020, 827 recordings of the telehealth network of Minas Gerais"
HICKS = "Hicks et al. 2021"
GHORBANI = "Ghorbani et al. 2020, 337 patients of Stanford"
MADANI = "Madani et al. 2018, 267 studies of one hospital"

PAPER: Mapping[str, str] = {
    "ef": "MAE 7.0 points, mean's 9.9, R² 0.50",
    "edv": "MAE 20.5 mL, mean's 35.4, R² 0.70",
    "esv": "MAE 13.3 mL, mean's 25.4, R² 0.74",
    "age": "MAE 9.8 years, mean's 13.4, R² 0.46",
    "weight": "MAE 10.7 kg, mean's 15.4, R² 0.56",
    "height": "MAE 7 cm, mean's 9, R² 0.33",
    "lead": "AUC 0.89, F1 0.73",
    "la_dilation": "AUC 0.86, F1 0.68",
    "lvh": "AUC 0.75, F1 0.57",
    "sex": "AUC 0.88",
}
"""Ghorbani et al. 2020 (npj Digital Medicine 3:10), test patients, from frames of A4C clips."""

PAPER_OF_ECGS: Mapping[str, str] = {
    **{name: f"F1 {figure:.2f}" for name, figure in FIGURES_OF_RIBEIRO.items()},
    "sex": "AUC 0.96",
}
"""Ribeiro et al. 2020 (Nature Communications 11:1760); sex: Hicks et al. 2021 (Scientific Reports
11:10949)."""

MADANI_CLIPS = "97.8 % of clips, 12 views"
MADANI_IMAGES = "91.7 % of images, 15 views"
MADANI_TOP_TWO = "97.3 % of images, 15 views"

_UNLIKE = (
    (
        "The two right-hand columns are not a race. The papers tested on their own patients, "
        "EchoNet against the reports of the clinic. CAMUS is one hospital and one maker; its "
        "truth is a tracing of one plane, and the pictures are the two frames that were traced, "
        "or cines made from them."
    ),
    (
        "Look at an error beside that of saying the mean: the more patients differ, the larger "
        "both, and a data set with more alike patients makes a small error cheap."
    ),
    (
        "`lv` traces and measures; the paper's network, and `echonet`, give the number directly. "
        "The paper's figures stand beside both."
    ),
    (
        "SIMULATED: clips and truth of the simulator. Such a figure says that the parts work, and "
        "nothing of patients; what a paper measured on patients stands there only to say that "
        "somebody did."
    ),
)

_UNLIKE_ECGS = (
    "ECG packs learned from simulated recordings alone. The real ones are few, so each is told by "
    "name in the packs' own reports; a figure with less than five recordings on one side says "
    "nothing."
)

_COLUMNS = (
    "output",
    "pack",
    "tested on",
    "n",
    "measured (95 % interval)",
    "the paper's, on its own",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of the table."""

    output: str
    pack: str
    on: str
    count: str
    measured: str
    paper: str

    def cells(self) -> tuple[str, ...]:
        """In the order of the columns."""
        return self.output, self.pack, self.on, self.count, self.measured, self.paper


def table(folders: Sequence[Path] | None = None) -> str:
    """The table and the words under it, in Markdown, of packs in these folders or the shipped."""
    rows: list[Row] = []
    sets: dict[str, str] = {}
    of_ecgs: set[str] = set()
    for folder in shipped_packs() if folders is None else folders:
        held = _held(folder)
        reports: list[dict[str, Any]] = held.get("reports", [])
        rows += _rows(reports, _not_shown(held))
        sets |= {one["dataset"]["name"]: one["dataset"]["title"] for one in reports}
        of_ecgs |= {one["pack"] for one in reports if one.get("kind") == PackKind.WAVEFORM}
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    papers = f"{GHORBANI}; for views {MADANI}"
    if of_ecgs:
        papers += f"; for ECGs {RIBEIRO}, and for sex {HICKS}"
    lines += ["", f"The papers: {papers}."]
    if sets:
        lines += ["", "Data sets here:", ""]
        lines += [f"- `{name}`: {title}" for name, title in sets.items()]
    unlike = (*_UNLIKE, _UNLIKE_ECGS) if of_ecgs else _UNLIKE
    lines += ["", "Before you compare:", "", *(f"- {words}" for words in unlike), ""]
    return "\n".join(lines)


def _held(folder: Path) -> dict[str, Any]:
    """A pack's evaluation; empty where it has none."""
    path = folder / "evaluation.json"
    held: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return held


def _not_shown(held: Mapping[str, Any]) -> Mapping[str, str]:
    """By output, the caution of those that were not shown to be better than knowing nothing."""
    both: Mapping[str, Any] = held.get("sections", {}).get("both_splits", {})
    return {output: one["caution"] for output, one in both.items() if one["caution"]}


def _rows(reports: Sequence[Mapping[str, Any]], not_shown: Mapping[str, str]) -> Iterator[Row]:
    """Each output by the first report that measured it: the most telling; views by each."""
    said: set[str] = set()
    for report in reports:
        for one in (*report["measurements"], *report["scores"]):
            if one["output"] not in said:
                said.add(one["output"])
                words = _measurement(one) if "mae" in one else _score(one)
                if one["output"] in not_shown:
                    words += f". **{_capital(not_shown[one['output']])}**"
                yield Row(
                    output=TASKS[one["output"]].title if one["output"] in TASKS else one["output"],
                    pack=report["pack"],
                    on=_on(report),
                    count=f"{one['counts']['patients']} {_who(report)}",
                    measured=words,
                    paper=_beside(report, _paper(report, one["output"])),
                )
        for one in report["structures"]:
            if one["name"] not in said:
                said.add(one["name"])
                yield Row(
                    output=f"Tracing of the {one['name']}",
                    pack=report["pack"],
                    on=_on(report),
                    count=f"{one['patients']} {_who(report)}",
                    measured=f"Dice {_figure(one['dice'], 3)}",
                    paper="",
                )
        if report["views"]:
            yield from _views(report)


def _views(report: Mapping[str, Any]) -> Iterator[Row]:
    views = report["views"]
    several = len(views["by_view"]) > 1
    for words, key, paper in (
        ("View of a clip", "accuracy", MADANI_CLIPS),
        ("View of a single image", "accuracy_of_frames", MADANI_IMAGES),
        ("View of a single image, of the two likeliest", "top_two_of_frames", MADANI_TOP_TWO),
    ):
        of = f"{len(views['by_view'])} classes" if several else f"all {views['by_view'][0]['view']}"
        yield Row(
            output=f"{words}, {of}",
            pack=report["pack"],
            on=_on(report),
            count=f"{views['counts']['clips']} clips",
            measured=f"{_percent(views[key])} right",
            paper=_beside(report, paper) if several else "",
        )
        if not several:
            return


def _paper(report: Mapping[str, Any], output: str) -> str:
    of_ecgs = report.get("kind") == PackKind.WAVEFORM
    return (PAPER_OF_ECGS if of_ecgs else PAPER).get(output, "")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _measurement(one: Mapping[str, Any]) -> str:
    unit = unit_words(one["unit"])
    digits = 1 if one["mae"][0] >= 1 else 2
    guess = one["mae_of_predicting_the_mean"]
    words = f"MAE {_figure(one['mae'], digits)} {unit}, mean's {guess:.{digits}f}"
    return words if one["r2"][0] is None else f"{words}, R² {_figure(one['r2'], 2)}"


def _score(one: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {_figure(one[key], 2)}"
        for name, key in (("AUC", "auc"), ("F1", "f1"))
        if one[key][0] is not None
    ]
    if not parts:
        return "cannot be measured: one class only"
    return ", ".join(parts) + f", always yes's F1 {one['f1_of_always_yes']:.2f}"


def _on(report: Mapping[str, Any]) -> str:
    name = f"`{report['dataset']['name']}`"
    return f"SIMULATED, {name}" if _simulated(report) else f"patients, {name}"


def _beside(report: Mapping[str, Any], paper: str) -> str:
    return f"(on patients: {paper})" if paper and _simulated(report) else paper


def _who(report: Mapping[str, Any]) -> str:
    return "simulated" if _simulated(report) else "patients"


def _simulated(report: Mapping[str, Any]) -> bool:
    return bool(report["dataset"]["evidence"] == "simulated")


def _figure(estimate: Sequence[float], digits: int) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in estimate)
    return f"{value} ({low} to {high})"


def _percent(estimate: Sequence[float | None]) -> str:
    if None in estimate:
        return "cannot be measured"
    value, low, high = (f"{100 * float(number or 0.0):.1f}" for number in estimate)
    return f"{value} % ({low} to {high})"


if __name__ == "__main__":
    print(table())  # noqa: T201 - this is what the command is for
