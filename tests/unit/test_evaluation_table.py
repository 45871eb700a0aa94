"""The README's table is the one that the packs' own evaluations give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.evaluation.table import BEGIN, END, PAPER, table
from models.tasks import TASKS

_README = Path(__file__).parents[2] / "README.md"


def _report(evidence: str = "patients", **parts: Any) -> dict[str, Any]:
    return {
        "pack": "tiny",
        "dataset": {"name": f"set-{evidence}", "title": "Some clips", "evidence": evidence},
        "measurements": [],
        "scores": [],
        "structures": [],
        "views": None,
        **parts,
    }


def _ef(mae: float) -> dict[str, Any]:
    return {
        "output": "ef",
        "unit": "%",
        "counts": {"patients": 50},
        "mae": [mae, mae - 1, mae + 1],
        "mae_of_predicting_the_mean": 12.07,
        "r2": [0.7, 0.6, 0.8],
    }


def _lead() -> dict[str, Any]:
    return {
        "output": "lead",
        "counts": {"patients": 40},
        "auc": [0.9, 0.8, 0.95],
        "f1": [0.7, 0.6, 0.8],
        "f1_of_always_yes": 0.4,
    }


def _folder(tmp_path: Path, *reports: dict[str, Any]) -> Path:
    (tmp_path / "evaluation.json").write_text(json.dumps({"reports": reports}))
    return tmp_path


def test_the_readme_holds_what_the_command_prints() -> None:
    page = _README.read_text()
    made = table()
    assert made.startswith("| output | pack |")
    # Until the README has the marks there is nothing to compare.
    if BEGIN in page or END in page:
        held = page.split(BEGIN, maxsplit=1)[1].split(END, maxsplit=1)[0]
        assert held.strip() == made.strip(), (
            "README.md's table is stale: put what `python -m models.evaluation.table` prints "
            f"between {BEGIN} and {END}"
        )


def test_an_error_stands_beside_the_mean_s_and_the_paper_s(tmp_path: Path) -> None:
    lines = table([_folder(tmp_path, _report(measurements=[_ef(6.3)]))]).splitlines()
    (row,) = [line for line in lines if line.startswith("| Left")]
    assert row == (
        "| Left ventricular ejection fraction | tiny | patients, `set-patients` | 50 patients | "
        "MAE 6.3 (5.3 to 7.3) points, mean's 12.1, R² 0.70 (0.60 to 0.80) | "
        f"{PAPER['ef']} |"
    )


def test_what_is_simulated_says_so_and_is_not_set_beside_the_paper(tmp_path: Path) -> None:
    lines = table([_folder(tmp_path, _report("simulated", scores=[_lead()]))]).splitlines()
    (row,) = [line for line in lines if line.startswith("| Pacemaker")]
    assert "SIMULATED" in row
    assert "40 simulated" in row
    assert f"(on patients: {PAPER['lead']})" in row


def test_the_first_report_that_measured_an_output_tells_it(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        _report(measurements=[_ef(6.3)]),
        _report("simulated", measurements=[_ef(2.2)], scores=[_lead()]),
    )
    rows = [line for line in table([folder]).splitlines() if line.startswith(("| Left", "| Pace"))]
    assert len(rows) == 2
    assert "MAE 6.3" in rows[0]


def test_an_output_not_shown_to_be_better_than_nothing_says_so_in_its_row(tmp_path: Path) -> None:
    folder = _folder(tmp_path, _report(scores=[_lead()], measurements=[_ef(6.3)]))
    held = json.loads((folder / "evaluation.json").read_text())
    words = "not shown to be better than chance: AUC 0.57 on 48 patients held out of training"
    held["sections"] = {"both_splits": {"lead": {"caution": words}, "ef": {"caution": ""}}}
    (folder / "evaluation.json").write_text(json.dumps(held))
    rows = {line.split(" | ")[0]: line for line in table([folder]).splitlines()}
    assert f". **N{words[1:]}** |" in rows["| Pacemaker or defibrillator lead"]
    assert "**" not in rows["| Left ventricular ejection fraction"]


def test_a_pack_without_such_a_report_has_no_row(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"two_real_frames": {}}')
    assert table([tmp_path]) == table([tmp_path / "nothing"])


def test_the_paper_s_figures_are_of_outputs_that_there_are() -> None:
    assert set(PAPER) <= set(TASKS)
