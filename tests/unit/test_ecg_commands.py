"""Packs of ECGs are checked, evaluated and trained by the commands that clips have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from models.networks import build_network  # noqa: E402
from models.packs import Pack, WaveformInput, write_pack  # noqa: E402
from models.packs.inspection import inspect_pack  # noqa: E402
from node.cli.app import main  # noqa: E402
from tests.unit.pack_makers import output  # noqa: E402

_SPEC = WaveformInput(samples=1024, rate_hz=100.0, highpass_hz=0.5)
_SETTINGS = {"outputs": 2, "width": 0.0625}
_DATA = "simulated-ecg:records=6,seed=3,rate_hz=250,duration_s=8"


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    manifest = {
        "name": "tiny",
        "version": "1.0.0",
        "kind": "waveform",
        "title": "tiny",
        "network": {"name": "ribeiro", "settings": _SETTINGS},
        "input": _SPEC.model_dump(),
        "outputs": [
            output("heart_rate", "/min", offset=80.0),
            output("sex", "{score}", kind="score", threshold=0.5),
        ],
        "licence": "none",
        "trained_on": "nothing",
        "training_command": "none",
    }
    return write_pack(tmp_path / "tiny", manifest, build_network("ribeiro", _SPEC, _SETTINGS))


def test_a_pack_of_ecgs_is_tried_on_a_simulated_one(pack: Pack) -> None:
    found = inspect_pack(pack.folder)
    assert found.problems == ()
    assert found.trial is not None
    assert found.trial.input_shape == (None, 1024, 12)
    assert [words.split(":")[0] for words in found.trial.said] == ["heart_rate", "sex"]


def test_weights_that_give_no_number_are_a_problem(pack: Pack) -> None:
    network = build_network("ribeiro", _SPEC, _SETTINGS)
    network.layers[-1].bias.assign(np.full(2, np.nan, np.float32))
    write_pack(pack.folder, pack.manifest.model_dump(exclude={"weights_sha256"}), network)
    assert any(
        "gives NaN or infinity for a simulated ECG" in words
        for words in inspect_pack(pack.folder).problems
    )


def test_evaluate_opens_recordings_for_a_pack_of_ecgs(
    pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main(["evaluate", str(pack.folder), _DATA, "--out", str(out)]) == 0
    assert "On Simulated ECGs: 6 in each split, seed 3" in capsys.readouterr().out
    page = (out / "evaluation.md").read_text()
    assert '6 simulated patients, 6 recordings, split "valid"' in page
    held = json.loads((out / "evaluation.json").read_text())
    assert held["reports"][0]["kind"] == "waveform"


@pytest.mark.parametrize("words", ["simulated:clips=1,frames=2", "/nowhere"])
def test_clips_are_no_data_for_a_pack_of_ecgs(
    pack: Pack, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(pack.folder), words]) == 2
    assert "no data set of ECGs" in capsys.readouterr().err


def test_train_opens_recordings_for_a_recipe_of_ecgs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "tensorflow" if name == "KERAS_BACKEND" else "3")
    words = ["train", "ecg-rhythm", "--work", str(tmp_path), "--dataset"]
    assert main([*words, "simulated:clips=1,frames=2"]) == 2
    assert "no data set of ECGs" in capsys.readouterr().err
