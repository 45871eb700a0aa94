"""What a training is: a recipe for a pack, and one trial of it.

A recipe knows how to fit a network to data sets and how to make a pack of it; it is resumable,
since everything that it needs to go on lies in the trial's folder. :data:`RECIPES` names them all;
``echonode train`` runs them, once or over a grid of learning rate and weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

from models.data.dataset import Source
from models.finding import Evidence
from models.packs import Pack


class RecipeError(Exception):
    """A training cannot be run as asked; the message says what it wants and what it got."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training. None means the recipe's own."""

    seed: int
    work: Path  #: everything that resumes lies here
    epochs: int | None = None
    rate: float | None = None  #: peak learning rate
    weight_decay: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  #: some of the recipe's ``knobs``
    command: str = ""  #: that repeats it, for the manifest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a pack is trained, on data sets of clips, or of ECGs where ``of_ecgs``.

    ``fit`` trains on split "train" and returns the score on split "held", lower is better. Run
    again with the same trial it goes on where it was broken off, or returns at once. ``pack``
    makes a pack, with its evidence, of what ``fit`` left in ``trial.work``. Both raise
    :class:`RecipeError` for data sets and settings that they cannot use.
    """

    name: str  #: the pack's name
    title: str
    wants: str  #: which data sets it takes, in words, for errors
    fit: Callable[[Sequence[Any], Trial], float]
    pack: Callable[[Sequence[Any], Trial, Path], Pack]
    grid: tuple[Mapping[str, float], ...] = ()  #: values of ``rate`` and ``weight_decay``
    knobs: Mapping[str, Any] = field(default_factory=dict)  #: settings and their defaults
    score: str = "held-out loss"  #: what ``fit`` returns, in words
    of_ecgs: bool = False


def paper_grid(
    rates: Sequence[float] = (1e-4, 3e-4, 1e-3, 3e-3),
    decays: Sequence[float] = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
) -> tuple[Mapping[str, float], ...]:
    """All pairs of learning rate and weight decay.

    24 as in Ghorbani et al. 2020, who do not publish the values; these are ours. The decay is
    that of AdamW: each step takes away rate * decay of a weight.
    """
    return tuple({"rate": rate, "weight_decay": decay} for rate, decay in product(rates, decays))


def trained_on(datasets: Sequence[Source]) -> str:
    """What a manifest says of the data that weights saw."""
    counts = [len({case.patient for case in one.cases("train")}) for one in datasets]
    return "; ".join(
        f"{one.title}: {count} patients of split train"
        for one, count in zip(datasets, counts, strict=True)
    )


def strictest_licence(datasets: Sequence[Source]) -> str:
    """The terms of weights that saw these data: those of all that give any for patients' data."""
    terms = [one.licence for one in datasets if one.evidence is Evidence.PATIENTS]
    return "; ".join(dict.fromkeys(terms or [one.licence for one in datasets]))


RECIPES: Mapping[str, str] = {
    "ecg-intervals": "models.training.ecg_intervals:RHYTHM_RECIPE",
    "ecg-intervals-median": "models.training.ecg_intervals:MEDIAN_RECIPE",
    "ecg-rhythm": "models.training.ecg_rhythm:RECIPE",
    "echonet": "models.training.echonet:RECIPE",
    "echonet-simulated": "models.training.echonet_simulated:RECIPE",
    "lv": "models.training.lv:RECIPE",
    "views": "models.training.views_recipe:RECIPE",
}
"""Every recipe by the name of its pack: module and attribute, imported when asked for."""


def load_recipe(name: str) -> Recipe:
    """The recipe of a name. It imports Keras: choose the backend first.

    Raises
    ------
    RecipeError
        If there is none.
    """
    try:
        module, attribute = RECIPES[name].split(":")
    except KeyError:
        known = ", ".join(sorted(RECIPES))
        raise RecipeError(f"no recipe for a pack {name!r}; there are {known}") from None
    recipe: Recipe = getattr(import_module(module), attribute)
    return recipe
