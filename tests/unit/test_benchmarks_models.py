"""The benchmarks of the models measure what they say, at their smallest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.clip import read_clip
from models.packs import InputSpec, Pack, write_pack
from tests.benchmarks import clip, decode, forward
from tests.running_node import REAL_CINE


def test_the_benchmark_of_decoding_compares_the_same_frames() -> None:
    rows = decode.rows(REAL_CINE, number=1)

    assert [row.wanted for row in rows] == [">= 20x", "", ""]
    assert all(figure > 0 for row in rows for figure in (*row.ours, *row.theirs))


def test_arithmetic_is_two_operations_a_product() -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3)(inputs)  # 6 x 6 places
    inner = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(x)))
    network = keras.Model(inputs, inner(inputs))

    assert forward.arithmetic(network) == 2 * (6 * 6 * 3 * 3 * 4 + 6 * 6 * 4 * 5)


@pytest.fixture(scope="module")
def tiny_packs(tmp_path_factory: pytest.TempPathFactory) -> list[Pack]:
    """A tracing and a regression of the smallest kind, untrained."""
    keras = pytest.importorskip("keras")
    from models.networks import build_network

    keras.utils.set_random_seed(3)
    common: dict[str, Any] = {
        "version": "0.0.1", "title": "for tests", "licence": "Apache-2.0",
        "trained_on": "nothing", "training_command": "none",
    }  # fmt: skip
    sized = {"kind": "measurement", "evidence": "patients", "tested_on": "nothing"}
    manifests: list[dict[str, Any]] = [
        {
            "name": "tracer", "kind": "tracing",
            "network": {"name": "unet", "settings": {"classes": 4, "widths": [4, 4]}},
            "input": {"rows": 32, "columns": 32},
            "classes": ["background", "cavity", "myocardium", "atrium"],
            "outputs": [
                {"name": "ef", "unit": "%", "needs_motion": True, **sized},
                {"name": "edv", "unit": "mL", "pixel_power": 3, **sized},
            ],
        },
        {
            "name": "regressor", "kind": "regression",
            "network": {
                "name": "view_cnn", "settings": {"classes": 1, "widths": [4, 4], "dense": [4]}
            },
            "input": {"rows": 32, "columns": 32, "frames": 4, "interval_ms": 100.0},
            "outputs": [{"name": "ef", "unit": "%", "scale": 1.0, "offset": 50.0, **sized}],
        },
    ]  # fmt: skip
    packs = []
    for manifest in manifests:
        folder = tmp_path_factory.mktemp("packs") / manifest["name"]
        named = manifest["network"]
        spec = InputSpec(**manifest["input"])
        network = build_network(named["name"], spec, named["settings"])
        packs.append(write_pack(folder, {**common, **manifest}, network))
    return packs


def test_the_benchmark_of_a_clip_compares_ways_that_say_the_same(
    tiny_packs: list[Pack], tmp_path: Path
) -> None:
    path = clip.cine(tmp_path, 4)
    assert read_clip(path).frame_count == 4

    own, plain = (way(tiny_packs).read(path) for way in (clip.ours, clip.plain))

    assert list(own[0]) == ["regressor, ef"]  # no heart in that tracing
    assert {name: maps.shape for name, maps in own[1].items()} == {
        "tracer": (2, 1, 32, 32),
        "regressor": (1, 4, 32, 32),
    }
    by_values, by_maps = clip.apart(own, plain)
    assert by_values < 1e-4
    assert by_maps <= clip.MAPS_APART


def test_the_benchmark_of_a_clip_stops_where_the_answers_are_others() -> None:
    maps = {"pack": np.ones((1, 1, 2, 2), np.float32)}
    with pytest.raises(SystemExit, match="they differ"):
        clip.apart(({"ef": 50.0}, maps), ({"ef": 51.0}, maps))
    with pytest.raises(SystemExit, match="they differ"):
        clip.apart(({"ef": 50.0}, {"pack": maps["pack"] * 1.1}), ({"ef": 50.0}, maps))
    with pytest.raises(SystemExit, match="other answers"):
        clip.apart(({"ef": 50.0}, maps), ({}, maps))
