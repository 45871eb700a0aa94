"""All checks of a pack's maps run, and their figures come to stand in the pack's folder."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.data import simulated
from models.data.dataset import open_dataset
from models.explain import battery
from models.explain.battery import Asked, QualityReport, check_pack, write_report
from models.explain.methods import MapMethod
from models.explain.summary import read_summary, summary
from models.explain.target import explained
from models.finding import Evidence
from models.packs import InputSpec, Pack, load_pack, write_pack
from node.cli.map_checks import print_map_checks


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A tracing of an untrained network."""
    import keras

    from models.networks import build_network

    keras.utils.set_random_seed(3)
    settings = {"classes": 4, "widths": [4, 4]}
    manifest = {
        "name": "tiny", "version": "0.0.1", "title": "for tests", "licence": "Apache-2.0",
        "trained_on": "nothing", "training_command": "none", "kind": "tracing",
        "network": {"name": "unet", "settings": settings}, "input": {"rows": 64, "columns": 64},
        "classes": ["background", "cavity", "myocardium", "atrium"],
        "outputs": [{"name": name, "kind": "measurement", "unit": unit, "pixel_power": power,
                     "evidence": "simulated", "tested_on": "nothing"}
                    for name, unit, power in (("ef", "%", 0), ("edv", "mL", 3),
                                              ("la_area", "cm2", 2))],
    }  # fmt: skip
    network = build_network("unet", InputSpec(rows=64, columns=64), settings)
    return write_pack(tmp_path_factory.mktemp("packs") / "tiny", manifest, network)


@pytest.fixture(scope="module")
def report(pack: Pack) -> QualityReport:
    datasets = [
        simulated.open_dataset(f"simulated:clips={clips},frames=1,size=120x160,seed={seed}")
        for clips, seed in ((3, 0), (2, 1))
    ]
    patients = replace(datasets[1], name="some", evidence=Evidence.PATIENTS)
    return check_pack(pack, (datasets[0], patients), methods=(MapMethod.GRADIENT,), few=2)


def test_every_check_has_a_figure_for_every_map_on_every_data_set(report: QualityReport) -> None:
    first, second = report.on
    assert (first.clips, second.clips) == (3, 2)
    for checked in report.on:
        # Volume and its logarithm have one map between them.
        assert [one.outputs for one in checked.maps] == [("ef", "edv"), ("la_area",)]
        for one in checked.maps:
            assert one.insertion.n == one.outside.n == checked.clips
            assert one.noise.n == 2
            assert [share for share, _, _ in one.randomised] == [0.25, 0.5, 0.75, 1.0]
            # An untrained network's weights say as little shuffled, but its maps are others.
            assert one.randomised[-1][1].value < 0.95
            assert 0 <= one.energy.value <= 1
        for out in checked.outputs:
            assert out.by_structure.n == out.by_text.n == checked.clips
            assert out.completeness_gap.n == 2


def test_a_network_is_as_it_was_after_its_weights_were_shuffled(
    pack: Pack, report: QualityReport
) -> None:
    assert report.on
    stored = load_pack(pack.folder).network.get_weights()
    for one, two in zip(stored, pack.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_page_the_figures_and_examples_stand_in_the_folder(
    report: QualityReport, tmp_path: Path
) -> None:
    page, figures, examples = write_report(report, tmp_path)
    words = page.read_text()
    for check in ("D1", "D2", "D3", "D4", "D5", "D6", "D7"):
        assert f"## {check}" in words
    assert "nothing here was tested on patients" in words
    assert "**some**: 2 patients" in words
    assert "explanations.png" in words
    held = json.loads(figures.read_text())
    assert held["on"][1]["maps"][0]["method"] == "gradient"
    with Image.open(examples) as sheet:
        assert sheet.width > 500
    short = read_summary(tmp_path)
    assert short is not None
    assert [row[:2] for row in short.rows] == [
        ("ef, edv", "3 simulated"), ("la_area", "3 simulated"),
        ("ef, edv", "2 patients"), ("la_area", "2 patients"),
    ]  # fmt: skip
    assert any("(D" in remark for remark in short.remarks)  # an untrained network passes little


def test_a_network_that_letters_move_is_told_of(report: QualityReport) -> None:
    figures = report.as_json()
    (one, *_), few = figures["on"][0]["outputs"], {"value": 0.1, "n": 3}
    one["by_structure"], one["by_text"] = {"value": 1.0, "n": 3}, few
    words = "letters outside the sector move it by 0.9, covering the structure by 1"
    assert not any(words in remark for remark in summary(figures).remarks)
    one["by_text"] = few | {"value": 0.9}
    assert any(words in remark for remark in summary(figures).remarks)


def test_whoever_shows_a_pack_is_told_of_its_maps(
    report: QualityReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_map_checks(tmp_path)
    assert "were not checked" in capsys.readouterr().out
    write_report(report, tmp_path)
    print_map_checks(tmp_path)
    said = capsys.readouterr().out
    assert "D7 outside" in said
    assert "not passed" in said
    print_map_checks(tmp_path, whole=True)
    assert "Insertion and deletion" in capsys.readouterr().out


def test_of_patients_no_picture_is_drawn(report: QualityReport, tmp_path: Path) -> None:
    assert len(report.examples) == 4  # two of each map, of simulated clips
    only = replace(report, on=report.on[1:], examples=())
    assert [file.suffix for file in write_report(only, tmp_path)] == [".md", ".json"]
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("held", ["", "[]", "{}", '{"on": [{"maps": [], "outputs": []}]}'])
def test_what_is_no_summary_gives_none(held: str, tmp_path: Path) -> None:
    (tmp_path / "explanations.json").write_text(held)
    assert read_summary(tmp_path) is None
    assert read_summary(tmp_path / "nowhere") is None


def test_a_view_is_asked_for_the_label_that_each_frame_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from models.networks import build_network

    classes = ["a4c", "psla", "other"]
    settings = {"classes": 3, "widths": [4, 4], "dense": [4]}
    keras.utils.set_random_seed(5)
    manifest = {
        "name": "views", "version": "0.0.1", "title": "for tests", "licence": "Apache-2.0",
        "trained_on": "nothing", "training_command": "none", "kind": "view",
        "network": {"name": "view_cnn", "settings": settings},
        "input": {"rows": 32, "columns": 40}, "classes": classes, "outputs": [],
        "certain_from": 0.5,
    }  # fmt: skip
    network = build_network("view_cnn", InputSpec(rows=32, columns=40), settings)
    pack = write_pack(tmp_path / "views", manifest, network)
    monkeypatch.setattr(
        battery, "numbers_of", lambda *_: np.array([[0, 1, 0], [2, 0, 0]], np.float32)
    )
    clips = [
        Asked.of(case, pack)
        for case in open_dataset("simulated:clips=2,frames=1,views=a4c+psla,size=96x128").cases(
            "held"
        )
    ]
    (question,) = battery._questions(pack, explained(pack), clips)
    assert question.outputs == ("view",)
    assert question.targets == (1, 0)
