"""What a pack says of its own evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import models.packs
from models.packs import load_pack, shipped_packs
from models.packs.manifest import OutputSpec

SHIPPED = [
    pytest.param(output, id=f"{folder.name}-{output.name}")
    for folder in shipped_packs()
    for output in load_pack(folder).manifest.outputs
]


@pytest.mark.parametrize("output", SHIPPED)
def test_an_output_says_its_error_beside_that_of_saying_the_mean(output: OutputSpec) -> None:
    figures = output.figures["two_real_frames"]

    assert f"{figures['mae'][0]:.1f}" in output.tested_on
    assert f"{figures['mae_of_predicting_the_mean']:.1f}" in output.tested_on
    failed = figures["r2"][1] <= 0
    assert ("NOT SHOWN TO BE BETTER" in output.tested_on) == failed
    assert bool(output.caution) == failed


def test_the_words_are_those_of_the_evaluation_in_the_pack() -> None:
    for folder in shipped_packs():
        manifest = load_pack(folder).manifest
        if not manifest.outputs:
            continue
        report = json.loads((folder / "evaluation.json").read_text())
        assert report["weights_sha256"] == manifest.weights_sha256
        for output in manifest.outputs:
            assert output.figures["two_real_frames"] == report["two_real_frames"][output.name]


def test_all_packs_together_stay_within_the_weight_budget() -> None:
    folder = Path(models.packs.__file__).parent

    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= 25e6
