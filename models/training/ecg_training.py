"""What the trainings of ECG packs share: a protocol, a loss that bears gaps, a fit, a judgement."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from models.evaluation.metrics import auc
from models.finding import Evidence, Kind
from models.networks import build_network
from models.packs import WaveformInput
from models.tasks import ECG_TASKS
from models.training import loop
from models.training.ecg_signals import Floats, SignalBatches, Signals, Varied, stored_signals
from models.training.recipe import RecipeError, Trial

_AT_ONCE = 32

MOST_HELD = 1000
"""Recordings of each data set that are judged in training, and give thresholds and intervals."""


@dataclass(frozen=True, kw_only=True)
class EcgProtocol:
    """Everything that is settled before a network sees a recording.

    ``epochs`` are of ``epoch_batches`` batches each: so much is lost at most when a training is
    broken off. ``precision`` is Keras's policy while it learns: with ``mixed_bfloat16`` sums are
    float32 and products bfloat16, which processors with AMX do two to five times faster. What is
    packed and run is float32.
    """

    network: str
    settings: Mapping[str, Any]
    spec: WaveformInput
    outputs: tuple[str, ...]
    varied: Varied
    epochs: int
    epoch_batches: int = 50
    batch: int = 32
    rate: float = 2e-3
    weight_decay: float = 1e-3
    precision: str = "mixed_bfloat16"

    @property
    def scores(self) -> tuple[bool, ...]:
        """Which outputs are scores."""
        return tuple(ECG_TASKS[name].kind is Kind.SCORE for name in self.outputs)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a network's number 0 and 1 stand for: mean and spread of each measurement."""

    mean: Floats
    spread: Floats

    @classmethod
    def of(cls, signals: Signals, protocol: EcgProtocol) -> Targets:
        """Of recordings that are trained on; 0 and 1 for scores, and where nothing is known."""
        mean, spread = np.zeros(len(protocol.outputs)), np.ones(len(protocol.outputs))
        for place, score in enumerate(protocol.scores):
            truth = signals.truths[:, place]
            truth = truth[np.isfinite(truth)]
            if not score and len(truth) > 1 and np.ptp(truth) > 0:
                mean[place], spread[place] = truth.mean(), truth.std()
        return cls(mean=mean.astype(np.float32), spread=spread.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class TrainedEcg:
    """A network at the end of its training, and what its numbers mean."""

    network: keras.Model
    targets: Targets
    score: float
    recordings: int


def train(protocol: EcgProtocol, datasets: Sequence[Any], trial: Trial) -> TrainedEcg:
    """Fit a protocol's network; run again, it goes on, or only reads what is there.

    Raises
    ------
    RecipeError
        If the data sets hold no recording, or ``trial.work`` another training.
    """
    taught = _signals(protocol, datasets, "train", trial)
    held = _signals(protocol, datasets, "held", trial)
    targets = _targets(taught, protocol, trial)
    network = learning(protocol)
    plain = build_network(protocol.network, protocol.spec, protocol.settings)
    epochs = trial.epochs or protocol.epochs
    batches = SignalBatches(
        taught,
        protocol.spec,
        protocol.varied,
        batch=protocol.batch,
        epoch_batches=protocol.epoch_batches,
        seed=trial.seed,
    )
    decay = protocol.weight_decay if trial.weight_decay is None else trial.weight_decay
    network.compile(
        optimizer=keras.optimizers.AdamW(
            loop.cosine(trial.rate or protocol.rate, epochs * len(batches)),
            weight_decay=decay,
            clipnorm=1.0,
        ),
        loss=known_loss(protocol, targets),
        jit_compile=loop.jit_compile(),
    )
    fitted = loop.fit(
        network,
        batches,
        epochs=epochs,
        work=trial.work,
        seed=trial.seed,
        score=lambda model: judge(_copied(model, plain), held, protocol, targets),
        every=max(1, epochs // 4),
    )
    return TrainedEcg(
        network=_copied(network, plain),
        targets=targets,
        score=fitted.score,
        recordings=len(taught),
    )


def learning(protocol: EcgProtocol) -> keras.Model:
    """The network in the precision in which it learns.

    The first convolution and the last layer stay float32: with bfloat16, eight or twelve channels
    and kernels of eight or sixteen samples oneDNN 3 adds up something else on processors with AMX.
    """
    plain = build_network(protocol.network, protocol.spec, protocol.settings)
    if protocol.precision == "float32":
        return plain
    first = next(layer for layer in plain.layers if isinstance(layer, keras.layers.Conv1D))
    kept = (first, plain.layers[-1])

    def cloned(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer not in kept:
            config["dtype"] = protocol.precision
        return type(layer).from_config(config)

    return keras.models.clone_model(plain, clone_function=cloned)


def _copied(network: keras.Model, plain: keras.Model) -> keras.Model:
    """``plain`` with the weights of the network that learns."""
    plain.set_weights(network.get_weights())
    return plain


def known_loss(protocol: EcgProtocol, targets: Targets) -> Any:
    """The mean loss over what is known: cross-entropy of scores, Huber's of measurements.

    A truth that is NaN counts nothing. Measurements are compared in units of their spread.
    """
    scores = np.array(protocol.scores)
    mean, spread = targets.mean, targets.spread

    def loss(truth: Any, number: Any) -> Any:
        number = ops.cast(number, "float32")
        known = ops.isfinite(truth)
        wanted = (ops.where(known, truth, mean) - mean) / spread
        # Scores: log(1 + exp(-|x|)) + max(x, 0) - x y, which does not overflow.
        entropy = ops.relu(number) - number * wanted + ops.softplus(-ops.abs(number))
        apart = ops.abs(number - wanted)
        huber = ops.where(apart < 1.0, 0.5 * apart * apart, apart - 0.5)
        each = ops.where(known, ops.where(scores, entropy, huber), 0.0)
        return ops.sum(each, axis=-1) / len(scores)

    return loss


def numbers_of(network: keras.Model, signals: Signals, leads: Sequence[str]) -> Floats:
    """(n, outputs): what the network gives for recordings as they are."""
    return np.concatenate(
        [
            ops.convert_to_numpy(
                network.predict_on_batch(signals.inputs(slice(begin, begin + _AT_ONCE), leads))
            )
            for begin in range(0, len(signals), _AT_ONCE)
        ]
    )


def judge(
    network: keras.Model, held: Signals, protocol: EcgProtocol, targets: Targets
) -> dict[str, float]:
    """Errors on held-out recordings; ``held`` is the one that counts.

    Of a measurement its error over that of saying the mean, of a score 2 - 2 AUC: both are 1 where
    the network knows nothing.
    """
    numbers = numbers_of(network, held, protocol.spec.leads)
    found: dict[str, float] = {}
    shares = []
    for place, (name, score) in enumerate(zip(protocol.outputs, protocol.scores, strict=True)):
        truth = held.truths[:, place].astype(np.float64)
        known = np.isfinite(truth)
        if not known.any() or np.ptp(truth[known]) == 0:
            continue
        truth, number = truth[known], numbers[known, place].astype(np.float64)
        if score:
            area = auc(truth > 0.5, number)
            found[f"{name}_auc"] = area
            shares.append(2.0 - 2.0 * area)
            continue
        value = number * float(targets.spread[place]) + float(targets.mean[place])
        error = float(np.abs(value - truth).mean())
        found[f"{name}_mae"] = error
        shares.append(error / float(np.abs(truth - truth.mean()).mean()))
    return {**found, "held": float(np.mean(shares)) if shares else math.nan}


def protocol_of(protocol: EcgProtocol, knobs: Mapping[str, Any], trial: Trial) -> EcgProtocol:
    """A protocol with what a trial sets otherwise: ``width`` and ``precision``."""
    given = {**knobs, **trial.settings}
    settings = dict(protocol.settings)
    if given["width"] is not None:
        settings["width"] = float(given["width"])
    precision = protocol.precision if given["precision"] is None else str(given["precision"])
    return replace(protocol, settings=settings, precision=precision)


KNOBS: Mapping[str, Any] = {
    "width": None,  # of the network's filters; otherwise the recipe's own
    "precision": None,  # while it learns: mixed_bfloat16, or float32
}


def outputs_of(protocol: EcgProtocol, targets: Targets) -> list[dict[str, Any]]:
    """The manifest's outputs, without thresholds, intervals and figures."""
    return [
        {
            "name": name,
            "kind": ECG_TASKS[name].kind,
            "unit": ECG_TASKS[name].unit,
            "scale": float(targets.spread[place]),
            "offset": float(targets.mean[place]),
            "evidence": Evidence.SIMULATED,
            "tested_on": "nothing yet",
        }
        for place, name in enumerate(protocol.outputs)
    ]


def _signals(protocol: EcgProtocol, datasets: Sequence[Any], split: str, trial: Trial) -> Signals:
    key = {
        "split": split,
        "data": [one.fingerprint for one in datasets],
        "outputs": protocol.outputs,
    }
    most = MOST_HELD if split == "held" else None
    cases = (case for one in datasets for case in one.cases(split)[:most])
    signals = stored_signals(
        trial.work / f"signals-{split}", key, cases, protocol.spec, protocol.outputs
    )
    if not len(signals):
        raise RecipeError(
            f"{', '.join(one.title for one in datasets)}: no ECG that can be read in split {split}"
        )
    return signals


def _targets(signals: Signals, protocol: EcgProtocol, trial: Trial) -> Targets:
    """Of the first run with this folder, so that a training that goes on learns the same."""
    path = trial.work / "targets.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        return Targets(
            mean=np.array(kept["mean"], np.float32), spread=np.array(kept["spread"], np.float32)
        )
    targets = Targets.of(signals, protocol)
    path.write_text(json.dumps({"mean": targets.mean.tolist(), "spread": targets.spread.tolist()}))
    return targets
