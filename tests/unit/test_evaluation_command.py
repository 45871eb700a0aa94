"""``echonode evaluate`` and ``packs show``: what they print and write, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models.evaluation.report
from models.data.dataset import Dataset
from models.evaluation.report import Report, report_of
from models.packs import Pack, load_pack, shipped_packs
from node.cli import main
from node.cli.figures import can_be_printed, print_evaluation, print_report
from node.cli.output import ExitCode

_SIMULATED = "simulated:clips=2,views=a4c+psla,frames=2"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "echonode.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n')
    return file


def test_it_prints_tables_and_writes_the_report(
    settings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    words = ["evaluate", "views", _SIMULATED, "--out", str(out)]

    assert main(["--config", str(settings), *words]) == ExitCode.OK

    printed = capfd.readouterr().out
    assert "SIMULATED clips" in printed
    assert "2 simulated patients: NOT tested on patients" in printed
    assert {path.name for path in out.iterdir()} == {
        "evaluation-simulated-ranking.png",
        "evaluation-simulated-views.png",
        "evaluation-simulated-votes.png",
        "evaluation.json",
        "evaluation.md",
    }
    held = json.loads((out / "evaluation.json").read_text())
    assert held["pack"] == "views"
    assert can_be_printed(held)
    assert sum(map(sum, held["reports"][0]["views"]["confusion"])) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nothing", "simulated"), ExitCode.NOT_FOUND, "no pack 'nothing'"),
        (("./nothing", "simulated"), ExitCode.NOT_FOUND, "./nothing: no such folder"),
        (("views", "/nothing"), ExitCode.USAGE, "/nothing: no data set"),
        (("views", "simulated:hats=3"), ExitCode.USAGE, "no option 'hats'"),
        (("views", "simulated", "--split", "test"), ExitCode.USAGE, "no split 'test'"),
    ],
)
def test_what_is_not_there_is_one_line(
    settings: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: ExitCode,
    said: str,
) -> None:
    assert main(["--config", str(settings), "evaluate", *words]) == code

    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_where_nothing_can_be_measured_it_says_so_and_fails(
    settings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(pack: Pack, dataset: Dataset, **more: Any) -> Report:
        return report_of(pack, dataset, (), split=more["split"])

    monkeypatch.setattr(models.evaluation.report, "evaluate_pack", nothing)
    out = tmp_path / "report"
    words = ["evaluate", "views", _SIMULATED, "--out", str(out), "--json"]

    assert main(["--config", str(settings), *words]) == ExitCode.FAILED

    printed, said = capsys.readouterr()
    held = json.loads(printed)
    assert held["untested"] == [{"output": "view", "reason": "the data set does not say the view"}]
    assert str(out / "evaluation.json") in held["files"]
    assert "nothing of pack 'views' could be measured" in said


@pytest.mark.parametrize("folder", shipped_packs(), ids=lambda folder: folder.name)
def test_a_pack_shows_its_own_evaluation(
    settings: Path, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert main(["--config", str(settings), "packs", "show", folder.name]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert load_pack(folder).manifest.weights_sha256 in shown
    assert "interval" in shown

    words = ["packs", "show", folder.name, "--report"]
    assert main(["--config", str(settings), *words]) == ExitCode.OK
    page = (folder / "evaluation.md").read_text().strip()
    assert capsys.readouterr().out.strip().startswith(page)

    words = ["packs", "show", folder.name, "--json"]
    assert main(["--config", str(settings), *words]) == ExitCode.OK
    held = json.loads(capsys.readouterr().out)
    assert held["evaluation"] == json.loads((folder / "evaluation.json").read_text())


@pytest.mark.parametrize(
    "held",
    [
        {},
        [],
        {"reports": 3},
        {"reports": [{}]},
        {"reports": [{"dataset": {"evidence": "patients"}, "measurements": [{"output": 1}]}]},
    ],
)
def test_what_a_pack_from_outside_holds_instead_of_a_report_is_not_printed_as_one(
    held: Any,
) -> None:
    assert not can_be_printed(held)


def test_an_output_that_one_split_does_not_bear_out_is_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "not shown to be better than chance: AUC 0.57 on 48 patients held out of training"
    both = {"lvh": {"caution": words}, "ef": {"caution": ""}}
    print_evaluation({"reports": [], "sections": {"both_splits": both}})

    assert capsys.readouterr().out == f"MIND: lvh was {words}\n"
    assert not can_be_printed({"reports": [], "sections": {"both_splits": {"lvh": 3}}})


def test_an_untested_output_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"title": "Clips", "evidence": "patients", "patients": 0, "clips": 0, "split": "valid"}
    report = {
        "dataset": {**words, "caveats": []},
        "measurements": [],
        "scores": [],
        "structures": [],
        "views": None,
        "unreadable": {"no pixels": 2},
        "untested": [{"output": "age", "reason": "no truth"}],
    }
    print_report(report)

    lines = capsys.readouterr().out.splitlines()
    assert "not read: 2 clips: no pixels" in lines
    assert "not tested here: age: no truth" in lines
