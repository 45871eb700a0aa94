"""All checks of a pack's maps run, and their figures come to stand in the pack's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.data.dataset import open_dataset
from models.explain.battery import QualityReport, check_pack, write_report
from models.explain.methods import MapMethod
from models.packs import InputSpec, Pack, write_pack


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
        "outputs": [{"name": "edv", "kind": "measurement", "unit": "mL", "pixel_power": 3,
                     "evidence": "simulated", "tested_on": "nothing"}],
    }  # fmt: skip
    network = build_network("unet", InputSpec(rows=64, columns=64), settings)
    return write_pack(tmp_path_factory.mktemp("packs") / "tiny", manifest, network)


@pytest.fixture(scope="module")
def report(pack: Pack) -> QualityReport:
    dataset = open_dataset("simulated:clips=2,frames=1,size=120x160")
    return check_pack(pack, dataset, methods=(MapMethod.GRADIENT,))


def test_every_check_has_a_figure_for_every_output(report: QualityReport) -> None:
    assert [one.output for one in report.maps] == ["edv", "cavity", "myocardium", "atrium"]
    for one in report.maps:
        assert one.insertion.n == one.outside.n == one.noise.n == 2
        assert [share for share, _, _ in one.randomised] == [0.25, 0.5, 0.75, 1.0]
        # An untrained network's weights say as little shuffled, but its maps are others.
        assert one.randomised[-1][1].value < 0.95
        assert 0 <= one.energy.value <= 1
    for out in report.outputs:
        assert out.by_structure.n == 2
        assert out.completeness_gap.n == 2


def test_the_page_the_figures_and_examples_stand_in_the_folder(
    report: QualityReport, tmp_path: Path
) -> None:
    page, figures, examples = write_report(report, tmp_path)
    words = page.read_text()
    for check in ("D1", "D2", "D3", "D4", "D5", "D6", "D7"):
        assert check in words
    assert "nothing here was tested on patients" in words
    assert "explanations.png" in words
    assert json.loads(figures.read_text())["maps"][0]["method"] == "gradient"
    with Image.open(examples) as sheet:
        assert sheet.width > 500
