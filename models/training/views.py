"""Train the ``views`` pack: which view a clip shows.

python -m models.training.views --camus DIR --out models/packs/views --seed 1

It makes the data (simulated clips of all views, patients' frames; see
:mod:`models.training.view_set`), trains the network, chooses temperature and threshold on clips
and patients that no weight saw, tests on others, and writes the pack with its evidence.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.data.camus import CITATION, Patient
from models.networks import build_network
from models.packs import write_pack
from models.packs.manifest import InputSpec, Manifest
from models.preprocess import VERSION, fit_grey, normalise
from models.training import loop
from models.training.augment import Geometry, move
from models.training.view_evidence import (
    Answers,
    Verdict,
    evaluation_page,
    model_card,
    test_figures,
)
from models.training.view_set import (
    CLASSES,
    ViewSet,
    clip_means,
    first_of_clip,
    make_set,
    plan,
    split_patients,
)
from models.views import FRAMES, View, softmax

log = logging.getLogger(__name__)

SPEC = InputSpec(rows=60, columns=80, mean=0.2, std=0.2, frames=FRAMES)
"""60 x 80 as in the paper; the aspect ratio is kept, which the paper does not say."""

_MADANI = (
    "A. Madani, R. Arnaout, M. Mofrad, R. Arnaout, Fast and accurate view classification of "
    "echocardiograms using deep learning, npj Digital Medicine 1:6, 2018, "
    "doi 10.1038/s41746-017-0013-1"
)
_APICAL = (View.A4C, View.A5C, View.A2C, View.A3C)  # laboratories differ in their left and right
_MIRRORED = 0.3
_GEOMETRY = Geometry(
    rotation_degrees=10.0, smallest=0.88, largest=1.12, stretch=0.15, shift=0.1, mirror=0.0
)
_ERASED = 0.25
_SMOOTHING = 0.05
_RIGHT_ABOVE = 0.97  #: share of certain labels that must be right on held-out clips
_THRESHOLDS = np.arange(0.40, 0.96, 0.01)


@dataclass(frozen=True, kw_only=True)
class Round:
    """A run down the learning rate; the next one starts with its weights and a fresh optimizer."""

    share: float  #: of the epochs
    rate: float  #: share of the peak learning rate
    dropout: float
    emphasis: Mapping[View, float]  #: how much more often than 1 a view is drawn


_ROUNDS = (
    Round(share=0.48, rate=1.0, dropout=0.4, emphasis={}),
    # Then the views that are hard to tell from one another, and the one that matters most.
    Round(
        share=0.52,
        rate=0.6,
        dropout=0.2,
        emphasis={
            View.A4C: 3.0,
            View.A5C: 1.8,
            View.A2C: 1.8,
            View.A3C: 1.8,
            View.OTHER: 2.0,
            View.PW: 1.2,
            View.CW: 1.2,
        },
    ),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line sets."""

    camus: Path
    out: Path
    seed: int
    epochs: int
    steps: int
    batch: int
    rate: float
    widths: tuple[int, ...]
    clips: int
    held_clips: int
    test_clips: int
    patient_clips: int
    workers: int
    data: Path | None


class ViewBatches(keras.utils.PyDataset):  # type: ignore[misc]  # keras carries no types
    """Augmented batches in which every view is as frequent, or by ``emphasis`` more frequent.

    A frame of a view with patients' pixels is one of those every other time, so that pixels of
    patients say nothing about which of these views it is.
    """

    def __init__(
        self,
        data: ViewSet,
        *,
        batch: int,
        steps: int,
        rng: np.random.Generator,
        emphasis: Mapping[View, float] | None = None,
    ) -> None:
        super().__init__(workers=1)
        self._data, self._batch, self._steps, self._rng = data, batch, steps, rng
        self._chances = _sampling(data, emphasis or {})

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One batch."""
        rng = self._rng
        chosen = rng.choice(len(self._chances), self._batch, p=self._chances)
        labels = self._data.label[chosen]
        grey = self._data.grey[chosen].astype(np.float32) / np.float32(255)
        for place, label in enumerate(labels):
            if CLASSES[label] in _APICAL and rng.random() < _MIRRORED:
                grey[place] = grey[place, :, ::-1]
        moved = move(grey[..., np.newaxis], _GEOMETRY, rng)[..., 0]
        looks = np.stack([_erase(frame, rng) for frame in _restyle(moved, rng)])
        return normalise(np.rint(looks * 255).astype(np.uint8), SPEC), labels


def train(settings: Settings) -> None:
    """Run the whole of it and write the pack."""
    loop.start(settings.seed)
    data = _data(settings)
    log.info("%d frames of %d clips", len(data.label), len(np.unique(data.clip)))
    settings.out.mkdir(parents=True, exist_ok=True)
    record = settings.out / "training.jsonl"
    record.unlink(missing_ok=True)
    weights: list[NDArray[np.float32]] | None = None
    for number in range(len(_ROUNDS)):
        network, chosen = train_round(settings, data, number, weights, record)
        weights = network.get_weights()
    _write(settings, network, chosen, data)


def train_round(
    settings: Settings,
    data: ViewSet,
    number: int,
    weights: list[NDArray[np.float32]] | None,
    record: Path,
) -> tuple[keras.Model, dict[str, Any]]:
    """One of the rounds, from ``weights`` on: the network, and the settings it is built with."""
    part = _ROUNDS[number]
    epochs = max(1, round(settings.epochs * part.share))
    chosen = {
        "classes": len(CLASSES),
        "widths": list(settings.widths),
        "dropout": part.dropout,
    }
    network = build_network("view_cnn", SPEC, chosen)
    if weights is not None:
        network.set_weights(weights)
    rate = loop.cosine(settings.rate * part.rate, epochs * settings.steps)
    network.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-4), loss=_smoothed, metrics=["accuracy"]
    )
    held = data.part("held")
    batches = ViewBatches(
        data.part("train"),
        batch=settings.batch,
        steps=settings.steps,
        rng=np.random.default_rng(settings.seed + 1000 * number),
        emphasis=part.emphasis,
    )
    network.fit(
        batches,
        epochs=epochs,
        validation_data=(normalise(held.grey, SPEC), held.label),
        validation_batch_size=256,
        callbacks=[loop.EpochLog(record)],
        verbose=0,
    )
    return network, chosen


def _write(settings: Settings, network: keras.Model, chosen: dict[str, Any], data: ViewSet) -> None:
    held = data.part("held")
    held_logits = _logits(network, held.grey)
    temperature = choose_temperature(held_logits, held.label)
    chances = clip_means(softmax(held_logits, temperature=temperature), held.clip)
    threshold = choose_threshold(*_moving(chances, first_of_clip(held.label, held.clip)))
    manifest: dict[str, Any] = {
        "name": "views",
        "version": "0.1.0",
        "kind": "view",
        "title": "Which of fifteen echocardiographic views a clip shows",
        "network": {"name": "view_cnn", "settings": chosen},
        "input": SPEC.model_dump(),
        "preprocessing": VERSION,
        "classes": [view.value for view in CLASSES],
        "certain_from": round(threshold, 2),
        "temperature": round(temperature, 4),
        "licence": "CC BY-NC-SA 4.0, non-commercial scientific research only",
        "citations": [
            CITATION,
            _MADANI,
        ],
        "trained_on": (
            "echonode's simulator, all views (patients' grain and grey levels lent to most clips), "
            "and CAMUS apical four-chamber frames of 351 patients, also bent into stand-ins for "
            "other views"
        ),
        "training_command": (
            f"python -m models.training.views --camus DIR --out DIR --seed {settings.seed} "
            f"--epochs {settings.epochs} --steps {settings.steps} --batch {settings.batch} "
            f"--rate {settings.rate:g} --widths {' '.join(map(str, settings.widths))} "
            f"--clips {settings.clips} --held-clips {settings.held_clips} "
            f"--test-clips {settings.test_clips} --patient-clips {settings.patient_clips}"
        ),
    }
    pack = write_pack(settings.out, manifest, network)
    test = data.part("test")
    full = _logits(network, test.grey)
    stored = _logits(pack.network, test.grey)  # the float16 weights that ship
    answers = Answers(
        chances=softmax(stored, temperature=temperature),
        label=test.label,
        clip=test.clip,
        lent=test.lent,
    )
    patients = split_patients(settings.camus, settings.seed)["test"]
    verdict = Verdict(
        simulated=answers,
        patients=_on_patients(pack.network, patients, temperature),
        threshold=pack.manifest.certain_from or 0.0,
        temperature=temperature,
        same_answers=float((full.argmax(1) == stored.argmax(1)).mean()),
    )
    figures = test_figures(verdict, seed=settings.seed)
    (settings.out / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")
    (settings.out / "evaluation.md").write_text(evaluation_page(pack.manifest, figures))
    (settings.out / "MODEL_CARD.md").write_text(model_card(pack.manifest))
    (settings.out / "LICENSE").write_text(_licence(pack.manifest))
    log.info("%s", json.dumps({k: v for k, v in figures.items() if k != "confusion"}))


def choose_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature under which the frames' true labels are most likely."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def surprise(log_temperature: float) -> float:
        chances = softmax(logits, temperature=float(np.exp(log_temperature)))
        return float(-np.log(chances[rows, labels] + 1e-12).mean())

    found = minimize_scalar(surprise, bounds=(np.log(0.3), np.log(5.0)), method="bounded")
    return float(np.exp(found.x))


def choose_threshold(chances: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The lowest score from which on 97 % of the labels are right; 0.95 if there is none."""
    score, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    for limit in _THRESHOLDS.tolist():
        certain = score >= limit
        if certain.any() and right[certain].mean() >= _RIGHT_ABOVE:
            return float(limit)
    return 0.95


def _moving(
    chances: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two-dimensional clips alone, and no still among the answers: the reader leaves stills to
    the header, and asks the threshold of these."""
    still = np.array([view in (View.PW, View.CW, View.M_MODE) for view in CLASSES])
    kept = ~still[labels]
    answers = np.where(still, 0.0, chances[kept])
    return answers / answers.sum(axis=1, keepdims=True), labels[kept]


def _data(settings: Settings) -> ViewSet:
    if settings.data is not None and settings.data.exists():
        log.info("data from %s", settings.data)
        return ViewSet.load(settings.data)
    jobs = plan(
        seed=settings.seed,
        clips=settings.clips,
        frames=4,
        held_clips=settings.held_clips,
        test_clips=settings.test_clips,
        patient_clips=settings.patient_clips,
    )
    data = make_set(
        jobs, camus=settings.camus, seed=settings.seed, spec=SPEC, workers=settings.workers
    )
    if settings.data is not None:
        data.save(settings.data)
    return data


def _sampling(data: ViewSet, emphasis: Mapping[View, float]) -> NDArray[np.float64]:
    chances = np.zeros(len(data.label))
    for label in np.unique(data.label):
        parts = [(data.label == label) & (data.lent == lent) for lent in (False, True)]
        shown = [part for part in parts if part.any()]
        for part in shown:
            wanted = emphasis.get(CLASSES[label], 1.0)
            chances[part] = wanted / len(shown) / part.sum()
    return np.asarray(chances / chances.sum(), np.float64)


def _restyle(frames: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Other gains, contrasts, blurs and grains over (n, rows, columns); black stays black."""
    count = len(frames)

    def each(low: float, high: float) -> NDArray[np.float32]:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    inside = frames > 0
    share = each(0, 1) * (each(0, 1) < 0.5)
    # A triangle filter of three pixels down and across, mixed in by share.
    down = (np.roll(frames, 1, 1) + np.roll(frames, -1, 1)) / 4 + frames / 2
    across = (np.roll(down, 1, 2) + np.roll(down, -1, 2)) / 4 + down / 2
    out = frames + share * (across - frames)
    grain = rng.standard_normal(frames.shape, np.float32)
    out = out * (1 + each(0, 0.2) * (each(0, 1) < 0.4) * grain)
    out += each(0, 0.05) * (each(0, 1) < 0.3) * rng.standard_normal(frames.shape, np.float32)
    out = np.clip(out * each(0.65, 1.5) + each(-0.08, 0.12), 0, 1) ** each(0.6, 1.6)
    return np.where(inside, out, 0).astype(np.float32)


def _erase(frame: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """At times, a rectangle of one grey: no single spot may decide."""
    if rng.random() >= _ERASED:
        return frame
    rows, columns = frame.shape
    height, width = int(rng.uniform(0.1, 0.3) * rows), int(rng.uniform(0.1, 0.3) * columns)
    top, left = int(rng.integers(rows - height)), int(rng.integers(columns - width))
    out = frame.copy()
    out[top : top + height, left : left + width] = rng.uniform(0, 0.5)
    return out


def _smoothed(truth: Any, logits: Any) -> Any:
    hot = keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(truth, (-1,)), "int32"), len(CLASSES))
    return keras.losses.categorical_crossentropy(
        hot, logits, from_logits=True, label_smoothing=_SMOOTHING
    )


def _logits(network: keras.Model, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [
        keras.ops.convert_to_numpy(
            network(normalise(grey[begin : begin + 256], SPEC), training=False)
        )
        for begin in range(0, len(grey), 256)
    ]
    return np.asarray(np.concatenate(parts), np.float32)


def _on_patients(
    network: keras.Model, patients: tuple[Patient, ...], temperature: float
) -> NDArray[np.float64]:
    """(patients, classes): mean over the two frames of each, as CAMUS has them."""
    out = []
    for patient in patients:
        frames = [fit_grey(frame.grey[np.newaxis], SPEC)[0] for frame in (patient.ed, patient.es)]
        logits = _logits(network, np.concatenate(frames))
        out.append(softmax(logits, temperature=temperature).mean(axis=0))
    return np.stack(out)


def _licence(manifest: Manifest) -> str:
    return (
        "The weights in this folder were trained on data that include the CAMUS data set and are\n"
        "shared under its terms: Creative Commons Attribution-NonCommercial-ShareAlike 4.0\n"
        "International (CC BY-NC-SA 4.0), https://creativecommons.org/licenses/by-nc-sa/4.0/,\n"
        "for non-commercial scientific research only. Not for diagnosis.\n\n"
        f"Cite:\n{manifest.citations[0]}.\n"
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--camus", type=Path, required=True, help="folder of CAMUS frames")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--steps", type=int, default=100, help="batches in an epoch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--clips", type=int, default=140, help="simulated clips of each view")
    parser.add_argument("--held-clips", type=int, default=15)
    parser.add_argument("--test-clips", type=int, default=20)
    parser.add_argument("--patient-clips", type=int, default=160)
    parser.add_argument("--workers", type=int, default=2, help="processes that make data")
    parser.add_argument("--data", type=Path, help="keep the data here, or take it from here")
    given = vars(parser.parse_args())
    train(Settings(**{**given, "widths": tuple(given["widths"])}))


if __name__ == "__main__":
    main()
