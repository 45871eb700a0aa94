"""``echonode explain`` with a tiny pack: pictures, what is named on them, refusals in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.examples
import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.explain import sidebyside
from models.explain.clips import ExplainedOutput, Read
from models.explain.methods import MapMethod
from models.explain.target import Quantity, Target
from models.packs import InputSpec, Pack, write_pack
from node.cli import explain
from node.cli.app import main

A4C_CINE = str(pydicom.examples.get_path("ybr_color"))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Says about 50 % whatever it sees; one output has only seen the simulator."""
    import keras

    from models.networks import build_network

    settings = {"classes": 2, "widths": [4, 4], "dense": [4]}
    spec = {"rows": 32, "columns": 32, "frames": 3, "interval_ms": 100.0}
    keras.utils.set_random_seed(3)
    manifest = {
        "name": "tiny", "version": "0.0.1", "title": "for tests", "licence": "Apache-2.0",
        "trained_on": "nothing", "training_command": "none", "kind": "regression",
        "network": {"name": "view_cnn", "settings": settings}, "input": spec,
        "outputs": [
            {"name": "ef", "kind": "measurement", "unit": "%", "offset": 50.0, "low_error": -8.0,
             "high_error": 8.0, "evidence": "patients", "tested_on": "nothing"},
            {"name": "lead", "kind": "score", "unit": "{score}", "evidence": "simulated",
             "threshold": 0.5, "tested_on": "nothing"},
        ],
    }  # fmt: skip
    network = build_network("view_cnn", InputSpec.model_validate(spec), settings)
    return write_pack(tmp_path_factory.mktemp("packs") / "tiny", manifest, network)


@pytest.fixture
def run(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr(explain, "load_packs", lambda _context: (pack,))
    monkeypatch.setattr(explain, "_why_no_heart", lambda _clip, _packs: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(("explain", *arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_what_may_speak_is_explained_in_a_picture_and_a_cine(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = run(A4C_CINE, "--method", "gradient", "--out", str(tmp_path), "--json")
    assert code == 0
    (one,) = json.loads(out)["explanations"]  # the lead has only seen the simulator
    assert (one["output"], one["pack"], one["method"]) == ("ef", "tiny", "gradient")
    assert one["interval"] == "42.0 to 58.0 %" or "%" in one["interval"]
    assert 0.0 <= one["outside_share"] <= 1.0
    with Image.open(one["png"]) as png, Image.open(one["gif"]) as gif:
        assert png.size == gif.size
        assert getattr(gif, "n_frames", 1) == 30
    assert "patient" not in Path(one["png"]).name.lower()


def test_an_output_that_is_named_is_shown_and_marked(
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[sidebyside.SideBySide] = []
    drawn = sidebyside.draw

    def draw(what: sidebyside.SideBySide) -> object:
        shown.append(what)
        return drawn(what)

    monkeypatch.setattr(sidebyside, "draw", draw)
    code, out, _ = run(
        A4C_CINE, "--output", "lead", "--method", "occlusion", "--dicom", "--out", str(tmp_path)
    )
    assert code == 0
    assert "Pacemaker or defibrillator lead" in out
    assert "Research use only" in out
    assert shown[0].warning.startswith("FOR DEMONSTRATION")
    assert shown[0].signed
    assert len(list(tmp_path.glob("*.dcm"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((A4C_CINE, "--output", "mass"), 3, "there are ef, lead, and 'view'"),
        ((A4C_CINE, "--method", "guided"), 2, "no method 'guided'"),
        ((A4C_CINE, "--pack", "other"), 3, "no pack 'other'"),
        (("/nowhere.dcm",), 3, "no such file"),
        ((), 2, "name a file"),
        (("--check", "--dataset", "nothing"), 2, "no data set"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_words(
    run: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], code: int, words: str
) -> None:
    got, _, err = run(*arguments)
    assert got == code
    assert words in err


def test_a_clip_of_another_view_is_refused_in_words(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "the models read apical four-chamber clips, not plax"
    monkeypatch.setattr(explain, "_why_no_heart", lambda _clip, _packs: why)
    code, _, err = run(A4C_CINE, "--output", "ef")
    assert code == 1
    assert why in err
    assert "--output view" in err


@pytest.mark.parametrize(("method", "alarm"), [("smoothgrad", True), ("grad-cam", False)])
def test_relevance_outside_is_an_alarm_where_the_limit_was_measured(
    pack: Pack, method: str, alarm: bool
) -> None:
    one = ExplainedOutput(
        target=Target(name="ef", quantity=Quantity.NUMBER, place=0),
        maps=np.zeros((1, 4, 4), np.float32), frames=(0,), numbers=np.zeros(1, np.float32),
        unit="", outside_share=0.9,
    )  # fmt: skip
    read = Read(findings=(), frames=(0,), reasons={})
    words = explain._words(pack, read, one, MapMethod(method))
    assert ("DO NOT RELY ON IT: 90 %" in words["warning"]) == alarm


def test_zero_is_seen_as_zero_and_the_bar_has_numbers() -> None:
    frames = np.full((2, 60, 80), 90, np.uint8)
    maps = np.zeros((1, 60, 80), np.float32)
    shown = sidebyside.SideBySide(
        frames=frames, frame_times_ms=(0.0, 40.0), source_frames=(0, 1), maps=maps,
        map_frames=(1,), title="Ejection fraction", value="55 %", method="SmoothGrad", unit="%",
    )  # fmt: skip
    picture = sidebyside.draw(shown)
    page = picture.frames[1].astype(int)
    assert shown.telling == 1
    assert (page.shape[0] % 2, page.shape[1] % 2) == (0, 0)
    middle = page[84 + 28 + 190]
    third = page.shape[1] // 3
    assert abs(middle[third // 2] - 90).max() <= 1  # the frame
    assert middle[third + third // 2].max() <= 4  # the map: black
    assert abs(middle[2 * third + third // 2] - 90).max() <= 1  # the overlay: the frame
    for signed in (False, True):
        assert sidebyside.colours_of(np.zeros(1), signed=signed).max() <= 4
