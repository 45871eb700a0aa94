"""``echonode explain`` with an ECG, and ``--check`` of a pack for ECGs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from models.ecg.explain.methods import EcgMethod
from models.ecg.recording import LEADS
from models.packs import Pack, load_pack, write_manifest
from node.cli import explain
from node.cli.app import main
from tests.unit.pack_makers import manifest, output

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RATE, SAMPLES = 100.0, 512
REAL = str(get_testdata_file("waveform_ecg.dcm"))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """It knows the highest voltages of V5 and of II; one has been tested on patients."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("pack")
    given = keras.Input((SAMPLES, 12))
    x = layers.Activation("relu", name="last_block")(layers.Conv1D(2, 1, use_bias=False)(given))
    x = layers.Flatten()(layers.MaxPooling1D(SAMPLES)(x))
    network = keras.Model(given, layers.Dense(2)(x))
    kernel = np.zeros((1, 12, 2), np.float32)
    kernel[0, LEADS.index("V5"), 0] = kernel[0, LEADS.index("II"), 1] = 1.0
    network.set_weights([kernel, np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    network.save(folder / "model.keras")
    write_manifest(
        folder,
        manifest(
            name="known",
            kind="waveform",
            input={"samples": SAMPLES, "rate_hz": RATE},
            outputs=[
                output("r_amplitude", "mV", low_error=-0.3, high_error=0.3, evidence="patients"),
                output("atrial_fibrillation", "{score}", kind="score", threshold=0.5),
            ],
        ),
    )
    return load_pack(folder)


@pytest.fixture
def run(pack: Pack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(explain, "load_packs", lambda _context: (pack,))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(("explain", *arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_real_ecg_is_explained_on_a_page_for_what_may_speak(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(REAL, "--out", str(tmp_path), "--json")
    assert code == 0
    (one,) = json.loads(out)["explanations"]  # the score has only seen the simulator
    assert (one["output"], one["method"]) == ("r_amplitude", "integrated-gradients")
    assert one["by_lead"]["V5"] == 1.0
    assert one["relevance_unit"] == "mV a sample"
    ((begin, end),) = one["spans_ms"]
    assert 0 <= begin < end <= 10_000
    with Image.open(one["png"]) as page:
        assert page.size[0] == 1600
    assert "waveform_ecg" not in one["png"]


@pytest.mark.parametrize("method", list(EcgMethod))
def test_whoever_names_an_output_sees_it_by_any_method(
    run: Run, tmp_path: Path, method: EcgMethod
) -> None:
    code, out, _ = run(
        REAL, "--output", "atrial_fibrillation", "--method", method.value,
        "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert code == 0
    (one,) = json.loads(out)["explanations"]
    assert one["evidence"] == "simulated"
    assert Path(one["png"]).name.endswith(f"-atrial_fibrillation-{method.value}.png")


def test_a_table_of_text_is_explained_too(run: Run, tmp_path: Path) -> None:
    times = np.arange(1000) / 100.0
    beat = np.exp(-(((times % 1.0) - 0.4) ** 2) / (2 * 0.02**2))
    size = np.linspace(0.5, 1.5, 8)
    lead = dict(zip(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), size, strict=True))
    lines = ["time_s," + ",".join(lead)]
    lines += [
        f"{time:.2f}," + ",".join(f"{at * height:.4f}" for height in lead.values())
        for time, at in zip(times, beat, strict=True)
    ]
    table = tmp_path / "somebody.csv"
    table.write_text("\n".join(lines) + "\n")
    code, out, err = run(str(table), "--out", str(tmp_path / "out"))
    assert code == 0, err
    assert "R-wave amplitude" in out
    assert "Research use only" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--output", "ef"], "no output 'ef' of ECGs"),
        (["--method", "occlusion"], "no method 'occlusion' for ECGs"),
        (["--dicom"], "`echonode analyze` writes the DICOM picture"),
    ],
)
def test_what_is_wrong_is_said(run: Run, tmp_path: Path, more: list[str], words: str) -> None:
    code, _, err = run(REAL, "--out", str(tmp_path), *more)
    assert code != 0
    assert words in err


def test_checks_of_a_pack_for_ecgs_go_into_its_folder(
    pack: Pack, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pack.folder, tmp_path / "known")
    monkeypatch.setattr(explain, "load_packs", lambda _context: (load_pack(tmp_path / "known"),))
    where = "simulated-ecg:records=4,rate_hz=100,duration_s=6"
    code, out, err = run("--check", "known", "--dataset", where)
    assert code == 0, err
    assert "## Wave blocking" in out
    assert (tmp_path / "known" / "explanations.json").is_file()
    code, _, err = run("--check", "known", "--dataset", "simulated:clips=1")
    assert code != 0
    assert "no data set of ECGs" in err
