"""The ``lv`` pack's recipe: trace cavity, myocardium and atrium.

    echonode train lv --dataset DIR --seed 1

A U-Net on the traced frames of split "train"; split "held" tells how training goes and gives the
width of intervals. AdamW, a half cosine, cross-entropy plus Dice plus the error of each area, and
augmentation that is meant to make other makers' frames no news (:mod:`models.training.augment`).
Small frames first, since two steps in three cost less than half there; then the size that ships;
then once more down the rate, with frames beside the real ones that show their hearts between end
diastole and end systole (:mod:`models.training.warped`). The pack has the mean of the weights
before and after that last stage: on real frames it traces as well as either, and costs no more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from models.clip import Clip
from models.data.camus import CLASSES, CamusDataset, fit_labels, fitted
from models.data.dataset import Dataset
from models.finding import Kind
from models.networks import build_network
from models.packs import InputSpec, Pack, PackKind
from models.preprocess import fit_grey, normalise
from models.tasks import TASKS
from models.training import loop
from models.training.augment import Geometry, move, restyle
from models.training.packing import pack_with_evidence
from models.training.recipe import (
    Recipe,
    RecipeError,
    Trial,
    paper_grid,
    strictest_licence,
    trained_on,
)
from models.training.warped import warped

log = logging.getLogger(__name__)

MEAN, STD = 0.2, 0.2
"""About the mean and spread of grey in fitted CAMUS frames."""

RESTYLED = 0.8
"""Share of frames whose look is changed; the others are as the patient's machine made them."""

AREA_WEIGHT = 0.5
"""Of the areas' errors in the loss: a wall traced a little too far in is small to Dice, and not
to a volume, which goes with the third power of it."""

EPOCHS, RATE, WEIGHT_DECAY = 150, 2e-3, 1e-4
"""Of the whole training: two thirds of the epochs on small frames at this rate, the rest at half
of it."""

VERSION = "0.4.0"  #: of the pack that the recipe makes
KNOBS: Mapping[str, Any] = {
    "widths": [24, 48, 96, 128, 160],
    "sizes": [128, 192],
    "batch": 16,
    "frames_a_clip": 4,
    "again": 8,
}
"""``sizes`` in pixels: one, or a smaller one first. ``again``: epochs after those of two sizes,
from their weights and rate, with a warped frame beside each real one of CAMUS; 0 for none. They
are fewer where the whole training is shorter than :data:`EPOCHS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A run down the learning rate on frames of one size; the next begins with its weights."""

    size: int
    epochs: int
    rate: float
    with_warped: bool = False

    @property
    def name(self) -> str:
        """For the log and the state's file."""
        return f"{self.size}px-warped" if self.with_warped else f"{self.size}px"


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """Frames as the network sees them, and their tracings.

    ``greys`` is (n, rows, columns) and ``covers`` (n, rows, columns, 3): the share of each pixel
    that cavity, myocardium and atrium cover. Both are 8-bit.
    """

    greys: NDArray[np.uint8]
    covers: NDArray[np.uint8]
    patients: int


class TracedBatches(loop.Batches):
    """Augmented batches: (n, rows, columns, 1) and (n, rows, columns, classes)."""

    def __init__(self, traced: Traced, spec: InputSpec, *, batch: int, seed: int) -> None:
        super().__init__(seed=seed)
        self._traced, self._spec = traced, spec
        self._batch = min(batch, len(traced.greys))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._traced.greys) // self._batch

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One batch."""
        rng = self.random(index)
        order = self.shuffled(len(self._traced.greys))
        chosen = order[index * self._batch : (index + 1) * self._batch]
        stacked = np.concatenate(
            [self._traced.greys[chosen][..., np.newaxis], self._traced.covers[chosen]], axis=-1
        )
        moved = move(stacked.astype(np.float32) / np.float32(255), Geometry(), rng)
        looks = np.stack(
            [restyle(frame, rng) if rng.random() < RESTYLED else frame for frame in moved[..., 0]]
        )
        covers = moved[..., 1:]
        rest = 1.0 - covers.sum(-1, keepdims=True)
        inputs = ((looks - self._spec.mean) / self._spec.std).astype(np.float32)
        return inputs[..., np.newaxis], np.concatenate([rest, covers], axis=-1)


def tracing_loss(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Cross-entropy, one minus Dice, and how far each area is off, as a logarithm of its ratio.

    Dice and areas are means over frames and the three structures.
    """
    entropy = -ops.mean(ops.sum(truth * ops.log_softmax(logits), axis=-1))
    chance = ops.softmax(logits)
    both = ops.sum(truth * chance, axis=(1, 2))
    each = ops.sum(truth + chance, axis=(1, 2))
    dice = (2 * both + 20.0) / (each + 20.0)
    areas = ops.log((ops.sum(chance, axis=(1, 2)) + 20.0) / (ops.sum(truth, axis=(1, 2)) + 20.0))
    off = ops.mean(ops.abs(areas[:, 1:]))
    return entropy + 1.0 - ops.mean(dice[:, 1:]) + AREA_WEIGHT * off


def fit(datasets: Sequence[Dataset], trial: Trial) -> float:
    """Train from wherever the trial's folder says that it was; one minus mean Dice on "held".

    Raises
    ------
    models.training.recipe.RecipeError
        If no case is traced, or a setting cannot be used.
    """
    loop.start(trial.seed)
    knobs = _knobs(trial)
    network = _network(knobs, knobs["sizes"][-1])
    score = math.nan
    stages = _stages(trial, knobs)
    for stage in stages:
        smaller = _network(knobs, stage.size)
        if loop.finished(trial.work, stage.epochs, stage=stage.name):
            score = loop.take_weights(smaller, trial.work, stage=stage.name).score
        else:
            smaller.set_weights(network.get_weights())
            score = _fit(smaller, stage, datasets, trial, knobs)
        network.set_weights(smaller.get_weights())
    if stages[-1].with_warped:
        _take_weights(network, stages, trial)
        spec = _spec(stages[-1].size)
        score = HeldOut(_all_traced(datasets, "held", spec, knobs), spec)(network)["held"]
    return score


def pack(datasets: Sequence[Dataset], trial: Trial, out: Path) -> Pack:
    """Make the pack of what the trial's folder holds.

    Without a state there, ``last.weights.h5`` is taken: what Keras saved of the same network.

    Raises
    ------
    models.training.recipe.RecipeError
        If there are no weights, or no case is traced.
    """
    knobs = _knobs(trial)
    size = knobs["sizes"][-1]
    network = _network(knobs, size)
    saved = trial.work / "last.weights.h5"
    if saved.is_file() and not list(trial.work.glob("state*.npz")):
        network.load_weights(saved)
    else:
        _take_weights(network, _stages(trial, knobs), trial)
    manifest = {
        "name": "lv",
        "version": VERSION,
        "kind": PackKind.TRACING,
        "title": "Tracing of the left heart, A4C",
        "licence": strictest_licence(datasets),
        "citations": tuple(dict.fromkeys(one.citation for one in datasets if one.citation)),
        "training_command": trial.command or f"echonode train lv --seed {trial.seed}",
        "network": {"name": "unet", "settings": _settings(knobs)},
        "input": _spec(size).model_dump(),
        "classes": CLASSES,
        "outputs": [
            _output("ef", needs_motion=True),
            _output("edv", pixel_power=3, needs_motion=True),
            _output("esv", pixel_power=3, needs_motion=True),
            _output("la_area", pixel_power=2),
            _output("la_volume", pixel_power=3),
        ],
        "trained_on": trained_on(datasets),
    }
    return pack_with_evidence(
        out, manifest, network, dataset=datasets, card=_card(datasets, network)
    )


def _take_weights(network: keras.Model, stages: Sequence[Stage], trial: Trial) -> None:
    """Those of the last stage; their mean with the stage's before, where it went on from them."""
    loop.take_weights(network, trial.work, stage=stages[-1].name)
    if stages[-1].with_warped:
        last = network.get_weights()
        loop.take_weights(network, trial.work, stage=stages[-2].name)
        pairs = zip(network.get_weights(), last, strict=True)
        network.set_weights([(one + other) / 2 for one, other in pairs])


def traced(dataset: Dataset, split: str, spec: InputSpec, *, frames_a_clip: int) -> Traced | None:
    """The traced frames of a split as the network sees them; None where nothing is traced.

    Of a clip with more tracings ``frames_a_clip`` are taken, evenly.
    """
    if isinstance(dataset, CamusDataset):  # its pictures are sectors: there is nothing to find
        patients = dataset.patients(split)
        greys, covers = fitted(patients, spec)
        return Traced(greys=greys, covers=covers, patients=len(patients))
    shown: list[NDArray[np.uint8]] = []
    covered: list[NDArray[np.uint8]] = []
    names = set()
    for case in dataset.cases(split):
        labels = case.tracings() if case.tracings is not None else {}
        if not labels:
            continue
        chosen = _evenly(sorted(labels), frames_a_clip)
        clip = case.clip()
        grey, place = fit_grey(clip.frames(chosen), spec)
        shown.extend(grey)
        covered.extend(fit_labels(_in_sector(labels[index], clip), place) for index in chosen)
        names.add(case.patient)
    if not shown:
        return None
    return Traced(greys=np.stack(shown), covers=np.stack(covered), patients=len(names))


class HeldOut:
    """Dice of each structure on held-out frames, and one minus their mean as the score."""

    def __init__(self, traced: Traced, spec: InputSpec) -> None:
        self._inputs = normalise(traced.greys, spec)
        rest = 255 - traced.covers.sum(-1, keepdims=True, dtype=np.int64)
        self._truth = np.argmax(np.concatenate([rest, traced.covers], -1), -1)

    def __call__(self, network: keras.Model) -> dict[str, float]:
        """Trace and compare."""
        parts = np.array_split(self._inputs, math.ceil(len(self._inputs) / 16))
        guess = np.concatenate(
            [ops.convert_to_numpy(ops.argmax(network(part, training=False), -1)) for part in parts]
        )
        dice = {}
        for index, name in list(enumerate(CLASSES))[1:]:
            one, two = guess == index, self._truth == index
            both = (one & two).sum((1, 2))
            each = 2 * both / np.maximum(1, one.sum((1, 2)) + two.sum((1, 2)))
            dice[f"dice_{name}"] = float(each.mean())
        return {"held": 1.0 - float(np.mean(list(dice.values()))), **dice}


def _fit(
    network: keras.Model,
    stage: Stage,
    datasets: Sequence[Dataset],
    trial: Trial,
    knobs: Mapping[str, Any],
) -> float:
    spec = _spec(stage.size)
    train, held = (_all_traced(datasets, split, spec, knobs) for split in ("train", "held"))
    if stage.with_warped:
        train = _with_warped(train, datasets, spec, trial)
    batches = TracedBatches(train, spec, batch=knobs["batch"], seed=trial.seed)
    decay = WEIGHT_DECAY if trial.weight_decay is None else trial.weight_decay
    network.compile(
        optimizer=keras.optimizers.AdamW(
            loop.cosine(stage.rate, stage.epochs * len(batches)), weight_decay=decay
        ),
        loss=tracing_loss,
        jit_compile=loop.jit_compile(),
    )
    log.info("%s: %d frames of %d patients", stage.name, len(train.greys), train.patients)
    return loop.fit(
        network,
        batches,
        epochs=stage.epochs,
        work=trial.work,
        seed=trial.seed,
        stage=stage.name,
        score=HeldOut(held, spec),
        every=5,
    ).score


def _all_traced(
    datasets: Sequence[Dataset], split: str, spec: InputSpec, knobs: Mapping[str, Any]
) -> Traced:
    each = [traced(one, split, spec, frames_a_clip=knobs["frames_a_clip"]) for one in datasets]
    found = [one for one in each if one is not None]
    if not found:
        names = ", ".join(one.name for one in datasets)
        raise RecipeError(f"{names}: nothing is traced in split {split}; lv wants {RECIPE.wants}")
    return Traced(
        greys=np.concatenate([one.greys for one in found]),
        covers=np.concatenate([one.covers for one in found]),
        patients=sum(one.patients for one in found),
    )


def _with_warped(
    train: Traced, datasets: Sequence[Dataset], spec: InputSpec, trial: Trial
) -> Traced:
    """The frames, and those that are made of them where patients have two traced ones."""
    greys, covers = [train.greys], [train.covers]
    for place, one in enumerate(datasets):
        if isinstance(one, CamusDataset):
            keep = trial.work / f"warped-{place}-{spec.rows}px.npz"
            made = warped(one, "train", spec, seed=trial.seed, keep=keep)
            greys.append(made[0])
            covers.append(made[1])
    return replace(train, greys=np.concatenate(greys), covers=np.concatenate(covers))


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    if len(indices) <= count:
        return list(indices)
    places = np.linspace(0, len(indices) - 1, count).round().astype(int)
    return [indices[place] for place in places.tolist()]


def _in_sector(labels: NDArray[np.uint8], clip: Clip) -> NDArray[np.uint8]:
    """A tracing of the whole picture, or of the sector, as one of the sector."""
    sector = clip.sector
    if labels.shape == sector.mask.shape:
        return labels
    return labels[sector.top : sector.bottom, sector.left : sector.right]


def _stages(trial: Trial, knobs: Mapping[str, Any]) -> tuple[Stage, ...]:
    """Two thirds of the epochs on the smaller size, the others on the last; then ``again``."""
    sizes, whole = knobs["sizes"], EPOCHS if trial.epochs is None else trial.epochs
    rate = RATE if trial.rate is None else trial.rate
    if len(sizes) == 1:
        return (Stage(size=sizes[0], epochs=whole, rate=rate),)
    first, last = sizes
    small = max(1, round(whole * 2 / 3))
    stages = (
        Stage(size=first, epochs=small, rate=rate),
        Stage(size=last, epochs=max(1, whole - small), rate=rate / 2),
    )
    if not knobs["again"]:
        return stages
    again = max(1, round(knobs["again"] * min(1.0, whole / EPOCHS)))
    return (*stages, Stage(size=last, epochs=again, rate=rate / 2, with_warped=True))


def _knobs(trial: Trial) -> dict[str, Any]:
    knobs = {**KNOBS, **trial.settings}
    sizes = knobs["sizes"]
    if not isinstance(sizes, list) or not 1 <= len(set(sizes)) == len(sizes) <= 2:
        raise RecipeError(f"lv: sizes={sizes}: one size in pixels, or two of them, are wanted")
    return knobs


def _network(knobs: Mapping[str, Any], size: int) -> keras.Model:
    try:
        return build_network("unet", _spec(size), _settings(knobs))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"lv: no network of {size} px: {error}") from error


def _settings(knobs: Mapping[str, Any]) -> dict[str, Any]:
    # Settings that are the network's own defaults are left out, as manifests have them.
    widths = {} if knobs["widths"] == KNOBS["widths"] else {"widths": knobs["widths"]}
    return {"classes": len(CLASSES), **widths}


def _spec(size: int) -> InputSpec:
    return InputSpec(rows=size, columns=size, mean=MEAN, std=STD)


def _output(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "kind": Kind.MEASUREMENT, "unit": TASKS[name].unit, **more}


def _card(datasets: Sequence[Dataset], network: keras.Model) -> str:
    data = "\n".join(f"  - {one.title} ({one.licence})" for one in datasets)
    weights = network.count_params() / 1e6
    return _CARD.format(version=VERSION, weights=f"{weights:.1f}", data=data)


_CARD = """\
# lv {version}: tracing of the left heart

A U-Net ({weights} M weights) that traces left-ventricular cavity, myocardium and left atrium in
each frame of an apical four-chamber clip. The node measures the tracings: single-plane discs, beat
by beat, give EDV, ESV and EF; the largest traced area and volume are those of the left atrium.

- **For** research on adult transthoracic A4C clips. Not for diagnosis. No other view is traced
  sensibly, and none should be given.
- **Trained on** split "train" of the data below, strongly augmented, and on frames made of them by
  warping. **Tested on** patients of split "valid", which chose nothing: `evaluation.md`.
{data}
- **Intervals** are the errors of split "held": patients that no weight saw.
- **Known to fail**: a small, thick ventricle at end systole, near the apex; frames without a
  visible endocardium; contrast; congenital hearts. Implausible tracings are refused, with the
  reason, but a plausible tracing can be wrong.
- **Single plane**: a volume of one plane is not the biplane volume of the clinic.
- **Scale**: volumes and areas are given only where the clip's pixel spacing can be trusted.
- **Licence**: in `LICENSE`. **How to repeat it**: `training.json`.
"""


RECIPE = Recipe(
    name="lv",
    title="Tracing of the left heart",
    wants="a data set with tracings of cavity, myocardium and atrium (CAMUS, or 'simulated')",
    fit=fit,
    pack=pack,
    grid=paper_grid(rates=(5e-4, 1e-3, 2e-3, 4e-3)),
    knobs=KNOBS,
    score="one minus mean Dice of cavity, myocardium and atrium, split held",
)
