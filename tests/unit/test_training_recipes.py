"""Recipes as the command meets them, and networks on another backend than the one that reads."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from models.data.camus import CamusDataset, Patient, fitted, read_camus
from models.data.dataset import open_dataset
from models.networks import build_network
from models.packs import InputSpec
from models.training import lv
from models.training.recipe import RecipeError, Trial, load_recipe
from models.training.warped import warped


@pytest.mark.parametrize("name", ["lv", "views"])
def test_a_recipe_has_the_name_of_its_pack_and_settings_that_can_be_written_down(
    name: str,
) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert json.loads(json.dumps(dict(recipe.knobs))) == recipe.knobs
    assert recipe.grid
    assert all(set(point) <= {"rate", "weight_decay"} for point in recipe.grid)


def test_a_recipe_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match="'ecg'; there are ecg-intervals"):
        load_recipe("ecg")


@pytest.mark.parametrize("epochs", [None, 2, 3, 10, 31])
def test_the_tracings_epochs_are_shared_out_among_its_sizes(
    epochs: int | None, tmp_path: Path
) -> None:
    trial = Trial(seed=1, work=tmp_path, epochs=epochs, rate=4e-3)
    small, large, again = lv._stages(trial, lv._knobs(trial))
    assert small.epochs + large.epochs == (epochs or 150)
    assert (small.size, large.size, again.size) == (128, 192, 192)
    assert (small.rate, large.rate, again.rate) == (4e-3, 2e-3, 2e-3)
    assert 1 <= again.epochs <= 8


def test_the_tracing_is_trained_again_only_where_asked(tmp_path: Path) -> None:
    for settings in ({"again": 0}, {"sizes": [128], "again": 8}):
        trial = Trial(seed=1, work=tmp_path, settings=settings)
        stages = lv._stages(trial, lv._knobs(trial))
        assert not any(stage.with_warped for stage in stages)


def test_the_tracing_begins_as_its_first_training_did(tmp_path: Path) -> None:
    trial = Trial(seed=1, work=tmp_path)
    small, large, again = lv._stages(trial, lv._knobs(trial))
    assert (small.epochs, small.rate, large.epochs, large.rate) == (100, 2e-3, 50, 1e-3)
    assert (again.epochs, again.rate, again.name) == (8, 1e-3, "192px-warped")
    assert lv._settings(lv._knobs(trial)) == {"classes": 4}


def test_tracings_lie_over_simulated_frames() -> None:
    spec = InputSpec(rows=64, columns=64)
    data = open_dataset("simulated:clips=1,frames=5,size=120x160")
    traced = lv.traced(data, "train", spec, frames_a_clip=2)
    assert traced is not None
    assert traced.greys.shape == (2, 64, 64)
    assert traced.covers.shape == (2, 64, 64, 3)
    assert traced.covers[..., 0].any()
    cavity, muscle = (traced.greys[traced.covers[..., place] > 250].mean() for place in (0, 1))
    assert cavity < muscle  # blood is darker than its wall


@dataclass(frozen=True, kw_only=True)
class _One(CamusDataset):
    patient: Patient

    def patients(self, split: str) -> tuple[Patient, ...]:
        assert split == "train"
        return (self.patient,)


def test_warped_frames_lie_between_a_patients_two(shared_data: Path, tmp_path: Path) -> None:
    patient = read_camus(shared_data / "camus_a4c", "valid")[0]
    data, spec = _One(folder=tmp_path, patient=patient), InputSpec(rows=96, columns=96)
    keep = tmp_path / "warped.npz"
    greys, covers = warped(data, "train", spec, seed=1, keep=keep)
    real, traced = fitted([patient], spec)
    assert (greys.shape, covers.shape) == (real.shape, traced.shape)
    systole, *made, diastole = sorted(
        int(one[..., 0].sum(dtype=np.int64)) for one in (*traced, *covers)
    )
    assert {systole, diastole} == {int(one[..., 0].sum(dtype=np.int64)) for one in traced}
    assert min(made) > systole
    assert max(made) < diastole
    assert not any(np.array_equal(one, other) for one in greys for other in real)
    again = warped(CamusDataset(folder=tmp_path), "train", spec, seed=1, keep=keep)
    assert all(map(np.array_equal, again, (greys, covers)))


def test_views_are_trained_on_camus_alone(tmp_path: Path) -> None:
    recipe = load_recipe("views")
    trial = Trial(seed=1, work=tmp_path)
    for data in (
        [open_dataset("simulated:clips=1")],
        [CamusDataset(folder=tmp_path), CamusDataset(folder=tmp_path)],
    ):
        with pytest.raises(RecipeError, match="CAMUS and nothing else"):
            recipe.fit(data, trial)
    decayed = Trial(seed=1, work=tmp_path, weight_decay=0.1)
    with pytest.raises(RecipeError, match="weight decay is fixed"):
        recipe.fit([CamusDataset(folder=tmp_path)], decayed)


@pytest.mark.parametrize(
    ("backend", "largest"), [("torch", 1e-4), ("jax", 1e-4)], ids=["torch", "jax"]
)
def test_another_backend_gives_the_same_answers(
    backend: str, largest: float, tmp_path: Path
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    spec = InputSpec(rows=32, columns=32)
    settings = {"classes": 3, "widths": [4, 8]}
    network = build_network("unet", spec, settings)
    frames = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    np.savez(tmp_path / "weights.npz", *network.get_weights())
    np.save(tmp_path / "frames.npy", frames)
    program = (
        "import sys, keras, numpy as np\n"
        "from models.networks import build_network\n"
        "from models.packs import InputSpec\n"
        f"network = build_network('unet', InputSpec(rows=32, columns=32), {settings})\n"
        "stored = np.load('weights.npz')\n"
        "network.set_weights([stored[name] for name in stored.files])\n"
        "answer = network(np.load('frames.npy'), training=False)\n"
        "np.save('answer.npy', keras.ops.convert_to_numpy(answer))\n"
    )
    repository = str(Path(__file__).parents[2])
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": repository}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    here = np.asarray(network(frames, training=False))
    assert np.abs(np.load(tmp_path / "answer.npy") - here).max() < largest
