"""``echonode train``: what it asks for, what it writes, and how it goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from models.data.dataset import Dataset
from models.packs import Pack, load_pack, write_pack
from models.training import recipe
from models.training.recipe import Recipe, RecipeError, Trial, paper_grid
from node.cli.app import main

DATA = "simulated:clips=1,frames=2"


def _fit(datasets: Sequence[Dataset], trial: Trial) -> float:
    """Trains nothing: a line a call, and a score that is best at a rate of a thousandth."""
    if len(datasets) > 1:
        raise RecipeError("plain: one data set is wanted")
    with (trial.work.parent / "fitted").open("a") as lines:
        lines.write(f"{trial.rate} {trial.weight_decay} {trial.epochs}\n")
    if (trial.work.parent / "stop").exists():
        raise KeyboardInterrupt
    (trial.work / "training.jsonl").write_text('{"epoch": 1, "seconds": 2, "loss": 1.0}\n')
    return abs(math.log10(trial.rate or 1e-2) + 3)


def _pack(_datasets: Sequence[Dataset], trial: Trial, out: Path) -> Pack:
    from models.networks import build_network
    from models.packs import InputSpec

    spec = InputSpec(rows=8, columns=8)
    settings = {"classes": 4, "widths": [2, 2]}
    manifest = {
        "name": "plain",
        "version": "1.0",
        "kind": "tracing",
        "title": "none",
        "network": {"name": "unet", "settings": settings},
        "input": spec.model_dump(),
        "licence": "none",
        "trained_on": "nothing",
        "training_command": trial.command,
    }
    return write_pack(out, manifest, build_network("unet", spec, settings))


RECIPE = Recipe(
    name="plain",
    title="none",
    wants="one data set",
    fit=_fit,
    pack=_pack,
    grid=paper_grid((1e-4, 1e-3), (0.0, 1e-2)),
    knobs={"width": 3},
)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe above beside the real ones, and an environment that is put back."""
    recipes = {**recipe.RECIPES, "plain": f"{__name__}:RECIPE"}
    monkeypatch.setattr(recipe, "RECIPES", recipes)
    for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")


def _train(*words: str) -> int:
    return main(["train", "plain", "--dataset", DATA, *words])


def _fitted(folder: Path) -> list[str]:
    return (folder / "fitted").read_text().splitlines()


def test_a_pack_carries_what_repeats_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    words = ("--work", str(work), "--rate", "0.01", "--set", "width=5", "--seed", "7", "--json")
    assert _train(*words) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["score"], said["seed"], said["rate"]) == (pytest.approx(1.0), 7, 0.01)
    pack = load_pack(Path(said["out"]))
    about = json.loads((pack.folder / "training.json").read_text())
    assert about["asked"]["settings"] == {"width": 5}
    assert about["asked"]["seed"] == 7
    assert len(about["asked"]["datasets"][0]["fingerprint"]) == 64
    assert about["runs"][0]["versions"]["keras"]
    assert about["runs"][0]["code"]["echonode"]
    command = pack.manifest.training_command
    assert command == (
        f"echonode train plain --dataset {DATA} --rate 0.01 --seed 7 --set width=5 "
        "--backend tensorflow"
    )
    assert (pack.folder / "training.jsonl").is_file()


def test_a_finished_training_says_so_and_packs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, out = tmp_path / "work", tmp_path / "pack"
    words = ("--work", str(work), "--out", str(out))
    assert _train(*words) == 0
    (out / "left over").touch()
    assert _train(*words) == 0
    assert "trained to its end before" in capsys.readouterr().err
    assert len(_fitted(tmp_path)) == 1
    assert not (out / "left over").exists()
    assert load_pack(out).manifest.name == "plain"


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stop").touch()
    words = ("--work", str(tmp_path / "work"), "--epochs", "3")
    assert _train(*words) == 130
    said = capsys.readouterr().err
    assert "the same command goes on" in said
    assert f"--work {tmp_path / 'work'} --epochs 3" in said
    (tmp_path / "stop").unlink()
    assert _train(*words) == 0
    about = json.loads((tmp_path / "work" / "pack" / "training.json").read_text())
    assert len(about["runs"]) == 2


def test_a_grid_packs_its_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    assert _train("--work", str(work), "--grid", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rate"], said["weight_decay"], len(said["grid"])) == (1e-3, 0.0, 4)
    assert len(_fitted(work / "grid")) == 4
    about = json.loads((work / "pack" / "training.json").read_text())
    assert about["grid"] == said["grid"]
    assert (work / "pack" / "grid.png").is_file()


def test_a_grid_of_short_trials_trains_its_best_for_long(tmp_path: Path) -> None:
    work = tmp_path / "work"
    given = ("--grid", "--grid-epochs", "2", "--epochs", "9", "--rate", "0.1", "--rate", "0.01")
    assert _train("--work", str(work), *given, "--weight-decay", "0") == 0
    assert _fitted(work / "grid") == ["0.1 0.0 2", "0.01 0.0 2"]
    assert _fitted(tmp_path) == ["0.01 0.0 9"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nothing", "--dataset", DATA), 3, "there are ecg-intervals"),
        (("plain", "--dataset", "/nowhere"), 2, "no data set"),
        (("plain", "--dataset", DATA, "--dataset", DATA), 2, "one data set is wanted"),
        (("plain", "--dataset", DATA, "--set", "height=2"), 2, "no setting 'height'"),
        (("plain", "--dataset", DATA, "--set", "width"), 2, "KEY=VALUE is wanted"),
        (("plain", "--dataset", DATA, "--rate", "1", "--rate", "2"), 2, "go with --grid"),
        (("plain", "--dataset", DATA, "--pack-only", "--grid"), 2, "not trained to its end"),
        (
            ("lv", "--dataset", "simulated:clips=1,views=pw", "--epochs", "1"),
            2,
            "nothing is traced",
        ),
        (("lv", "--dataset", DATA, "--set", "sizes=[30]"), 2, "divisible by"),
        (("lv", "--dataset", DATA, "--pack-only"), 2, "train first"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    assert main(["train", *words, "--work", str(tmp_path / "work")]) == code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("echonode: ")
    assert said in line


def test_a_folder_that_is_no_pack_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").touch()
    assert _train("--work", str(tmp_path / "work"), "--out", str(tmp_path)) == 2
    assert "it is no pack" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_another_seed_in_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train("--work", str(tmp_path / "work")) == 0
    assert _train("--work", str(tmp_path / "work"), "--seed", "2") == 2
    assert "with seed 1, where 2 is asked for" in capsys.readouterr().err


def test_the_tracing_trains_on_simulated_hearts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--epochs", "2", "--set", "sizes=[32]", "--set", "widths=[2,4]", "--set", "batch=2"]
    where = ["--dataset", "simulated:clips=2,frames=3,size=96x96", "--work", str(tmp_path / "work")]
    assert main(["train", "lv", *where, *given, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    pack = load_pack(Path(said["out"]))
    assert pack.network.count_params() < 2000
    assert [one.name for one in pack.manifest.outputs][:3] == ["ef", "edv", "esv"]
    assert {one.evidence.value for one in pack.manifest.outputs} == {"simulated"}
    for name in ("training.jsonl", "loss.png", "training.json", "evaluation.md", "LICENSE"):
        assert (pack.folder / name).stat().st_size > 100, name
    lines = (pack.folder / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert 0.0 < json.loads(lines[-1])["held"] <= 1.0
