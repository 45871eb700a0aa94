"""From a user's network and manifest to a pack that reads a real cine, by the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.examples
import pytest

from models.clip import Clip, read_clip
from models.packs import load_pack
from models.readers import RegressionReader
from node.cli import main
from tests.unit.pack_makers import loaded

_DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _example() -> dict[str, Any]:
    """The manifest that docs/packs.md shows."""
    (block,) = re.findall(r"```json\n(.*?)```", (_DOCS / "packs.md").read_text(), re.DOTALL)
    fields: dict[str, Any] = json.loads(block)
    return fields


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of 32 frames of 112 x 112 in three channels, and the manifest beside it."""
    import keras
    from keras import layers

    clip = keras.Input((32, 112, 112, 3))
    each = layers.Conv3D(4, (3, 8, 8), strides=(2, 8, 8), activation="relu")(clip)
    network = keras.Model(clip, layers.Dense(1)(layers.GlobalAveragePooling3D()(each)))
    folder = tmp_path_factory.mktemp("made")
    network.save(folder / "model.keras")
    (folder / "manifest.json").write_text(json.dumps(_example()))
    (folder / "LICENSE").write_text("ours")
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _import(model: Path, name: str = "model.keras", **fields: Any) -> int:
    manifest = model / "manifest.json"
    if fields:
        manifest = model / "changed.json"
        manifest.write_text(json.dumps({**_example(), **fields}))
    arguments = ["packs", "import", str(model / name), "--manifest", str(manifest)]
    return main([*arguments, "--out", "my-ef", "--json"])


def test_the_example_of_the_documents_reads_a_real_cine(
    model: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _import(model) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["usable"] is True
    assert told["trial"]["input_shape"] == [None, 112, 112, 1]
    assert any("no MODEL_CARD.md" in note for note in told["notes"])
    assert (site / "my-ef" / "LICENSE").read_text() == "ours"
    assert not [path for path in site.iterdir() if path.name.startswith(".my-ef")]

    pack = load_pack(site / "my-ef")
    reader = RegressionReader(pack)
    clip = read_clip(Path(pydicom.examples.get_path("ybr_color")))
    reading = reader.read(clip)
    assert reader.batch == 32
    assert 5 <= len(reading.frames) == len(reading.per_frame["ef"]) < 32
    assert len(set(reading.per_frame["ef"])) == 1, "shorter than a window, it fills one"
    said = [*reading.findings, *reading.refusals]
    assert [(one.output, one.pack) for one in said] == [("ef", pack.ref)]

    assert main(["packs", "check", "my-ef"]) == 0
    assert "takes        n x 112 x 112 x 1" in capsys.readouterr().out


def test_what_cannot_be_used_is_not_written(
    model: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _import(model, outputs=[{**_example()["outputs"][0], "unit": "mL"}], input={}) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == [
        "manifest.json, input.rows: Field required",
        "manifest.json, input.columns: Field required",
    ]
    spec = {**_example()["input"], "rows": 111}
    assert _import(model, input=spec, weights_sha256="0" * 64) == 1
    assert "has SHA-256" in capsys.readouterr().err
    assert _import(model, input=spec) == 1
    out, err = capsys.readouterr()
    assert "manifest.json, input: it says (n, 32, 111, 112, 3), and the network takes" in out
    assert "my-ef: not written" in err
    assert _import(model, name="manifest.json") == 1
    assert "a .keras file or a SavedModel folder is wanted" in capsys.readouterr().err
    assert _import(model, name="nothing.keras") == 1
    assert not list(site.iterdir())


def test_check_lists_every_problem_of_a_folder_or_a_name(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["packs", "check", "nobody"]) == 3
    assert "no pack 'nobody'" in capsys.readouterr().err
    (site / "broken").mkdir()
    fields = {**_example(), "kind": "magic", "licence": 3}
    (site / "broken" / "manifest.json").write_text(json.dumps(fields))
    (site / "echonode.toml").write_text('[analysis]\npacks = ["broken"]\n')
    for pack in ("broken", "my-ef"):
        assert main(["packs", "check", pack, "--json"]) == 1
        out, err = capsys.readouterr()
        places = [line.partition(": ")[0] for line in json.loads(out)["problems"]]
        assert places == [
            "manifest.json, kind",
            "manifest.json, network",
            "manifest.json, weights_sha256",
            "manifest.json, licence",
        ]
        assert "broken: 4 problems; the pack cannot be used" in err


def test_the_commands_are_documented() -> None:
    text = (_DOCS / "commands.md").read_text()
    assert "packs import MODEL --manifest FILE --out DIR" in text
    assert "packs check FOLDER" in text


def test_windows_follow_each_other_and_the_last_is_filled_by_repeating(tmp_path: Path) -> None:
    import keras
    from keras import layers

    clip = keras.Input((4, 16, 16, 1))
    middle = layers.Cropping3D(((0, 0), (8, 7), (8, 7)))(clip)
    network = keras.Model(clip, layers.Flatten()(middle))  # the middle pixel of its four frames
    network.save(tmp_path / "model.keras")
    spec = {"rows": 16, "columns": 16, "window": 4}
    outputs = [
        {**_example()["outputs"][0], "head": 3, "scale": 100.0, "offset": 0.0, "range": None}
    ]
    reader = RegressionReader(loaded(tmp_path, input=spec, outputs=outputs))
    frames = np.repeat(np.arange(10, 21, dtype=np.float32), 256).reshape(11, 16, 16, 1)
    raw = reader.run(frames)
    assert reader.batch == 8
    assert raw.shape == (11, 4)
    assert raw[:4].tolist() == [[10, 11, 12, 13]] * 4
    assert raw[4:8].tolist() == [[14, 15, 16, 17]] * 4
    assert raw[8:].tolist() == [[18, 19, 20, 20]] * 3
    assert np.array_equal(raw, reader.network(frames)), "alike for whoever calls it whole"

    speckle = np.random.default_rng(0).integers(60, 180, (6, 60, 60)).astype(np.uint8)
    reading = reader.read(Clip.from_frames(speckle, frame_time_ms=40.0))
    values = reading.per_frame["ef"]
    assert len(set(values[:4])) == 1
    assert values[4] == values[5] != values[0]
    (found,) = reading.findings
    assert found.value == pytest.approx(values.mean())


def test_three_channels_are_three_times_the_grey(tmp_path: Path) -> None:
    import keras
    from keras import layers

    picture = keras.Input((16, 16, 3))
    network = keras.Model(picture, layers.GlobalAveragePooling2D()(picture))
    network.save(tmp_path / "model.keras")
    spec = {"rows": 16, "columns": 16, "channels": 3}
    outputs = [{**_example()["outputs"][0], "head": 2}]
    pack = loaded(tmp_path, input=spec, outputs=outputs)
    answer = np.asarray(pack.network(np.full((2, 16, 16, 1), 0.5, np.float32)))
    assert answer.tolist() == [[0.5, 0.5, 0.5]] * 2
