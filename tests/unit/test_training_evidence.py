"""What a pack says of its own evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models.packs
from models.finding import Evidence, Kind
from models.packs import load_pack, shipped_packs
from models.packs.manifest import OutputSpec
from models.tasks import ECG_TASKS

SHIPPED = [
    pytest.param(output, id=f"{folder.name}-{output.name}")
    for folder in shipped_packs()
    for output in load_pack(folder).manifest.outputs
]


MEASURED = [
    pytest.param(output, id=f"{folder.name}-{output.name}")
    for folder in shipped_packs()
    for output in load_pack(folder).manifest.outputs
    if output.kind is Kind.MEASUREMENT and output.figures
]


@pytest.mark.parametrize("output", MEASURED)
def test_an_output_says_its_error_beside_that_of_saying_the_mean(output: OutputSpec) -> None:
    figures = _first(output)

    assert any(words in output.tested_on for words in _near(figures["mae"][0]))
    assert any(words in output.tested_on for words in _near(figures["mae_of_predicting_the_mean"]))
    held = [each for name, each in output.figures.items() if name.endswith("-held")][:1]
    failed = any(
        each["r2"] is None
        or each["r2"][1] <= 0
        or each["mae"][0] >= each["mae_of_predicting_the_mean"]
        for each in (figures, *held)
    )
    assert ("NOT SHOWN TO BE BETTER" in output.tested_on) == failed
    # What learned from simulated ECGs says so beside each value.
    assert bool(output.caution) == (failed or output.name in ECG_TASKS)


def _near(figure: float) -> set[str]:
    """A figure was rounded once for the manifest, the words from what it was before."""
    digits = 1 if figure >= 1 else 2
    return {f"{figure + apart:.{digits}f}" for apart in (-0.0005, 0.0005)}


@pytest.mark.parametrize("output", SHIPPED)
def test_an_output_that_was_not_measured_says_that_it_was_not_tested(output: OutputSpec) -> None:
    assert output.figures or output.caution == "not tested"


@pytest.mark.parametrize("output", SHIPPED)
def test_what_has_only_seen_the_simulator_says_so(output: OutputSpec) -> None:
    if output.evidence is Evidence.SIMULATED:
        assert "simulated" in output.tested_on.lower() or output.tested_on == "not tested"


def test_the_words_are_those_of_the_evaluation_in_the_pack() -> None:
    for folder in shipped_packs():
        manifest = load_pack(folder).manifest
        if not manifest.outputs:
            continue
        report = json.loads((folder / "evaluation.json").read_text())
        assert report["weights_sha256"] == manifest.weights_sha256
        measured = {
            one["output"]: one["mae"]
            for part in reversed(report.get("reports", ()))
            for one in part["measurements"]
        }
        for output in manifest.outputs:
            if output.name in measured:
                # A manifest's figures have three decimals, which a J point's millivolts feel.
                near = pytest.approx(measured[output.name], rel=1e-3, abs=6e-4)
                assert _first(output)["mae"] == near


def _first(output: OutputSpec) -> dict[str, Any]:
    """The figures on the data set that tells the output."""
    figures: dict[str, Any] = next(iter(output.figures.values()))
    return figures


def test_all_packs_together_stay_within_the_weight_budget() -> None:
    folder = Path(models.packs.__file__).parent

    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= 25e6
