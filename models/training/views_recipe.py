"""The ``views`` pack's recipe: :mod:`models.training.views` for ``echonode train``.

It makes its simulated clips itself and takes patients' frames from CAMUS. What it made lies in the
trial's folder and is not made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.data.camus import CamusDataset
from models.data.dataset import Dataset
from models.packs import Pack, load_pack
from models.training import loop, views
from models.training.recipe import Recipe, RecipeError, Trial
from models.training.view_evidence import model_card

EPOCHS = (30, 12)
"""Of each stage; another number of epochs is shared out in this proportion."""

RATE = 2e-3

KNOBS: Mapping[str, Any] = {
    "steps": 100,
    "batch": 64,
    "widths": [32, 64, 128],
    "clips": 700,
    "held_clips": 30,
    "test_clips": 60,
    "patient_clips": 300,
    "workers": 2,
    "start": None,
    "earlier": None,
    "files": None,
}
"""As in the module's own command line; ``start``, ``earlier`` and ``files`` are paths."""

_PATHS = ("start", "earlier", "files")


def fit(datasets: Sequence[Dataset], trial: Trial) -> float:
    """Make the data, train, and give the share of held-out simulated clips named wrong.

    Raises
    ------
    models.training.recipe.RecipeError
        If the data sets are not CAMUS alone, or a setting cannot be used.
    """
    settings = settings_of(datasets, trial, trial.work / "unused")
    loop.start(trial.seed)
    trial.work.mkdir(parents=True, exist_ok=True)
    views._fitted(settings, views._data(settings))
    return float(loop.records(trial.work)[-1]["held"])


def pack(datasets: Sequence[Dataset], trial: Trial, out: Path) -> Pack:
    """Choose temperature and threshold, test, and write the pack.

    Raises
    ------
    models.training.recipe.RecipeError
        As :func:`fit`; or if nothing was trained.
    """
    settings = settings_of(datasets, trial, out)
    if not loop.records(trial.work):
        raise RecipeError(f"{trial.work}: no training here; train first")
    views.train(settings)  # what lies in the folder is not trained again
    if trial.command:
        manifest = out / "manifest.json"
        told = {**json.loads(manifest.read_text()), "training_command": trial.command}
        manifest.write_text(json.dumps(told, indent=2) + "\n")
    packed = load_pack(out)
    (out / "MODEL_CARD.md").write_text(model_card(packed.manifest))  # with that command
    return packed


def settings_of(datasets: Sequence[Dataset], trial: Trial, out: Path) -> views.Settings:
    """A trial in the words of the module.

    Raises
    ------
    models.training.recipe.RecipeError
        If it cannot be said in them.
    """
    if len(datasets) != 1 or not isinstance(datasets[0], CamusDataset):
        names = ", ".join(one.name for one in datasets)
        raise RecipeError(f"views wants {RECIPE.wants}, not {names}")
    if trial.weight_decay is not None:
        raise RecipeError("views: its weight decay is fixed; leave --weight-decay out")
    knobs = {**KNOBS, **trial.settings}
    paths = {name: None if knobs[name] is None else Path(knobs[name]) for name in _PATHS}
    whole = sum(EPOCHS) if trial.epochs is None else trial.epochs
    first = max(1, round(whole * EPOCHS[0] / sum(EPOCHS)))
    return views.Settings(
        camus=datasets[0].folder,
        out=out,
        seed=trial.seed,
        epochs=(first, max(1, whole - first)),
        rate=RATE if trial.rate is None else trial.rate,
        work=trial.work,
        **{
            **knobs,
            **paths,
            "widths": tuple(knobs["widths"]),
        },
    )


RECIPE = Recipe(
    name="views",
    title="Which view a clip shows",
    wants="CAMUS and nothing else: it makes its simulated clips itself",
    fit=fit,
    pack=pack,
    grid=tuple({"rate": rate} for rate in (5e-4, 1e-3, 2e-3, 4e-3)),
    knobs=KNOBS,
    score="share of simulated clips named wrong, split held",
)
