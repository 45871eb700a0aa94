"""Train the ``views`` pack: which view a clip shows.

python -m models.training.views --camus DIR --work DIR --out models/packs/views --seed 1

It makes the data (simulated clips of all views, patients' frames; see
:mod:`models.training.view_set`), trains the network, chooses temperature and threshold on clips
and patients that no weight saw, tests on others, and writes the pack with its evidence.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.data.camus import CITATION, CamusDataset
from models.networks import build_network
from models.packs import load_pack
from models.packs.manifest import InputSpec, Manifest
from models.preprocess import VERSION, normalise
from models.training import loop
from models.training.augment import Geometry, move
from models.training.packing import pack_with_evidence
from models.training.view_evidence import ViewClips, add_view_sections, model_card
from models.training.view_set import (
    CLASSES,
    ViewSet,
    clip_means,
    first_of_clip,
    make_set,
    plan,
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
_ERASED = 0.2
_SMOOTHING = 0.02
_DECAY = 0.02
_KEPT = 2  #: convolutions that are not trained on where a training begins with a pack's weights
_RIGHT_ABOVE = 0.99  #: share of certain labels that must be right on simulated held-out clips
_A4C_ABOVE = 0.99  #: share of certain A4C labels that must be right, patients' pixels included
_THRESHOLDS = np.arange(0.50, 0.96, 0.01)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training. The later one starts with the earlier one's weights."""

    name: str
    share: float  #: of the peak learning rate that it begins with
    falls: bool  #: whether the rate falls by a half cosine, or stays
    strength: float  #: how much frames are changed
    dropout: float
    lent: float  #: share of patients' pixels among the frames of a view that has some
    emphasis: Mapping[View, float]  #: how much more often than 1 a view is drawn


_HARD = {View.A5C: 2.0, View.A3C: 2.0, View.OTHER: 2.5, View.PW: 1.5, View.CW: 1.5}
_STAGES = (
    # The rate does not fall here: a longer training goes on where a shorter one ended.
    Stage(
        name="learn",
        share=1.0,
        falls=False,
        strength=0.5,
        dropout=0.2,
        lent=0.35,
        emphasis={**_HARD, View.A4C: 3.0, View.A2C: 2.5},
    ),
    # Then more of what matters most: four-chamber views, and patients' pixels.
    Stage(
        name="settle",
        share=0.7,
        falls=True,
        strength=0.35,
        dropout=0.1,
        lent=0.45,
        emphasis={**_HARD, View.A4C: 4.0, View.A2C: 2.0},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line sets."""

    camus: Path
    out: Path
    seed: int
    epochs: tuple[int, ...]  #: of each stage
    steps: int
    batch: int
    rate: float
    widths: tuple[int, ...]
    clips: int
    held_clips: int
    test_clips: int
    patient_clips: int
    workers: int
    work: Path
    start: Path | None
    earlier: Path | None
    files: Path | None


class ViewBatches(loop.Batches):
    """Augmented batches in which every view is as frequent, or by ``emphasis`` more frequent.

    Of the frames of a view with patients' pixels the same share is made of those, so that pixels
    of patients say nothing about which of these views it is. ``strength`` says how much the frames
    are changed.
    """

    def __init__(
        self,
        data: ViewSet,
        *,
        batch: int,
        steps: int,
        seed: int,
        strength: float = 1.0,
        lent: float = 0.35,
        emphasis: Mapping[View, float] | None = None,
    ) -> None:
        super().__init__(seed=seed)
        self._data, self._batch, self._steps, self._strength = data, batch, steps, strength
        self._chances = _sampling(data, lent, emphasis or {})

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One batch."""
        rng = self.random(index)
        strength = self._strength
        chosen = rng.choice(len(self._chances), self._batch, p=self._chances)
        labels = self._data.label[chosen]
        grey = self._data.grey[chosen].astype(np.float32) / np.float32(255)
        for place, label in enumerate(labels):
            if CLASSES[label] in _APICAL and rng.random() < _MIRRORED:
                grey[place] = grey[place, :, ::-1]
        moved = move(grey[..., np.newaxis], _geometry(strength), rng)[..., 0]
        looks = _restyle(moved, rng, strength)
        for frame in looks:
            if rng.random() < _ERASED * strength:
                _erase(frame, rng)
        return normalise(np.rint(looks * 255).astype(np.uint8), SPEC), labels


def train(settings: Settings) -> None:
    """Run the whole of it and write the pack. What lies in ``settings.work`` is not done again."""
    loop.start(settings.seed)
    settings.work.mkdir(parents=True, exist_ok=True)
    data = _data(settings)
    log.info("%d frames of %d clips", len(data.label), len(np.unique(data.clip)))
    network, chosen = _fitted(settings, data)
    settings.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(settings.work / loop.LOG, settings.out / loop.LOG)
    _write(settings, network, chosen, data)


def _fitted(settings: Settings, data: ViewSet) -> tuple[keras.Model, dict[str, Any]]:
    """The network after all stages, and the settings it is built with."""
    held, sets = data.part("held"), [data.part("train")] * len(_STAGES)
    if settings.earlier is not None:
        first = ViewSet.load(settings.earlier).part("train")
        sets = [first, *(first.with_more(each) for each in sets[1:])]
    plain = {"classes": len(CLASSES), "widths": list(settings.widths), "strided": True}
    network = None
    if settings.start is not None:
        begun = load_pack(settings.start)
        plain, network = dict(begun.manifest.network.settings), begun.network
    for number, (stage, epochs) in enumerate(zip(_STAGES, settings.epochs, strict=True)):
        chosen = {**plain, "dropout": stage.dropout}
        before, network = network, build_network("view_cnn", SPEC, chosen)
        if before is not None:
            network.set_weights(before.get_weights())
        if settings.start is not None:
            _keep_first_pair(network)
        rate = settings.rate * stage.share
        network.compile(
            keras.optimizers.AdamW(
                loop.cosine(rate, epochs * settings.steps) if stage.falls else rate,
                weight_decay=_DECAY,
            ),
            loss=_smoothed,
            metrics=["accuracy"],
            jit_compile=loop.jit_compile(),
        )
        batches = ViewBatches(
            sets[number],
            batch=settings.batch,
            steps=settings.steps,
            seed=settings.seed + 1000 * number,
            strength=stage.strength,
            lent=stage.lent,
            emphasis=stage.emphasis,
        )
        loop.fit(
            network,
            batches,
            epochs=epochs,
            work=settings.work,
            seed=settings.seed,
            stage=stage.name,
            score=lambda model: _wrong(model, held),
            every=5,
        )
    if network is None:
        raise ValueError("a training needs a stage")
    return network, chosen


def _keep_first_pair(network: keras.Model) -> None:
    """Leave the first two convolutions as they are: they take most of the time, and see edges."""
    convolutions = 0
    for layer in network.layers:
        convolutions += isinstance(layer, keras.layers.Conv2D)
        if convolutions > _KEPT:
            return
        layer.trainable = False


def _wrong(network: keras.Model, held: ViewSet) -> dict[str, float]:
    """Shares of held-out clips that are named wrong: simulated ones, and patients' pixels."""
    chances = softmax(_logits(network, held.grey))
    shares = {}
    for name, part in (("held", ~held.lent), ("held_lent", held.lent)):
        means = clip_means(chances[part], held.clip[part])
        truth = first_of_clip(held.label[part], held.clip[part])
        shares[name] = float((means.argmax(1) != truth).mean())
    return shares


def _write(settings: Settings, network: keras.Model, chosen: dict[str, Any], data: ViewSet) -> None:
    held = data.part("held")
    held_logits = _logits(network, held.grey)
    temperature = choose_temperature(held_logits, held.label, held.clip)
    chances = clip_means(softmax(held_logits, temperature=temperature), held.clip)
    truth = first_of_clip(held.label, held.clip)
    lent = np.asarray(first_of_clip(held.lent, held.clip), bool)
    threshold = choose_threshold(*_moving(chances, truth, lent))
    begun = ""
    if settings.start is not None:
        first = load_pack(settings.start).manifest
        begun = f"; begun with the weights of {first.name} {first.version}"
        begun += ", whose data are shown as well" if settings.earlier else ""
    manifest: dict[str, Any] = {
        "name": "views",
        "version": "0.2.0",
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
            f"other views{begun}"
        ),
        "training_command": (
            "python -m models.training.views --camus DIR --work DIR --out DIR "
            f"--seed {settings.seed} --epochs {' '.join(map(str, settings.epochs))} "
            f"--steps {settings.steps} "
            f"--batch {settings.batch} --rate {settings.rate:g} "
            f"--widths {' '.join(map(str, chosen['widths']))} "
            f"--clips {settings.clips} --held-clips {settings.held_clips} "
            f"--test-clips {settings.test_clips} --patient-clips {settings.patient_clips}"
            f"{' --start PACK' if settings.start else ''}"
            f"{' --earlier FILE' if settings.earlier else ''}"
        ),
    }
    card = model_card(Manifest.model_validate({**manifest, "weights_sha256": "0" * 64}))
    pack = pack_with_evidence(
        settings.out,
        manifest,
        network,
        dataset=(ViewClips(data=data), CamusDataset(folder=settings.camus)),
        card=card,
    )
    add_view_sections(pack, data, files=settings.files)
    log.info("written: %s", settings.out)


def choose_temperature(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    clip: NDArray[np.int64] | None = None,
) -> float:
    """The temperature under which the true labels of clips are most likely.

    A clip's probabilities are the mean of its frames'. Without ``clip`` each frame is a clip.
    """
    from scipy.optimize import minimize_scalar

    number = np.arange(len(labels)) if clip is None else clip
    truth = first_of_clip(labels, number)
    rows = np.arange(len(truth))

    def surprise(log_temperature: float) -> float:
        chances = softmax(logits, temperature=float(np.exp(log_temperature)))
        return float(-np.log(clip_means(chances, number)[rows, truth] + 1e-12).mean())

    found = minimize_scalar(surprise, bounds=(np.log(0.2), np.log(5.0)), method="bounded")
    return float(np.exp(found.x))


def choose_threshold(
    chances: NDArray[np.float64],
    labels: NDArray[np.int64],
    lent: NDArray[np.bool_] | None = None,
) -> float:
    """The lowest score from which on labels can be relied on; 0.95 if there is none.

    99 % of the labels of simulated clips must be right, and 99 % of the A4C labels of all clips,
    those of patients' pixels (``lent``) too: a wrong A4C has another view measured.
    """
    own = np.ones(len(labels), bool) if lent is None else ~lent
    score, given = chances.max(axis=1), chances.argmax(axis=1)
    right, a4c = given == labels, given == CLASSES.index(View.A4C)
    for limit in _THRESHOLDS.tolist():
        certain = score >= limit
        some, said = certain & own, certain & a4c
        if not some.any() or right[some].mean() < _RIGHT_ABOVE:
            continue
        if not said.any() or right[said].mean() >= _A4C_ABOVE:
            return float(limit)
    return 0.95


def _moving(
    chances: NDArray[np.float64], labels: NDArray[np.int64], lent: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Two-dimensional clips alone, and no still among the answers: the reader leaves stills to
    the header, and asks the threshold of these."""
    still = np.array([view in (View.PW, View.CW, View.M_MODE) for view in CLASSES])
    kept = ~still[labels]
    answers = np.where(still, 0.0, chances[kept])
    return answers / answers.sum(axis=1, keepdims=True), labels[kept], lent[kept]


def _data(settings: Settings) -> ViewSet:
    stored = settings.work / "data.npz"
    if stored.exists():
        log.info("data from %s", stored)
        return ViewSet.load(stored)
    jobs = plan(
        seed=settings.seed,
        clips=settings.clips,
        held_clips=settings.held_clips,
        test_clips=settings.test_clips,
        patient_clips=settings.patient_clips,
    )
    data = make_set(
        jobs, camus=settings.camus, seed=settings.seed, spec=SPEC, workers=settings.workers
    )
    data.save(stored)
    return data


def _sampling(
    data: ViewSet, lent_share: float, emphasis: Mapping[View, float]
) -> NDArray[np.float64]:
    chances = np.zeros(len(data.label))
    for label in np.unique(data.label):
        lent = (data.label == label) & data.lent
        own = (data.label == label) & ~data.lent
        share = lent_share if lent.any() and own.any() else 1.0
        wanted = emphasis.get(CLASSES[label], 1.0)
        chances[lent] = wanted * share / max(1, lent.sum())
        chances[own] = wanted * (1 - share if lent.any() else 1.0) / max(1, own.sum())
    return np.asarray(chances / chances.sum(), np.float64)


def _geometry(strength: float) -> Geometry:
    return Geometry(
        rotation_degrees=10.0 * strength,
        smallest=1 - 0.12 * strength,
        largest=1 + 0.12 * strength,
        stretch=0.15 * strength,
        shift=0.1 * strength,
        mirror=0.0,
    )


def _restyle(
    frames: NDArray[np.float32], rng: np.random.Generator, strength: float
) -> NDArray[np.float32]:
    """Other gains, contrasts, blurs and grains over (n, rows, columns); black stays black."""
    count = len(frames)

    def each(low: float, high: float) -> NDArray[np.float32]:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    def some(share: float) -> NDArray[np.bool_]:
        return each(0, 1) < share * strength

    inside = frames > 0
    share = each(0, 1) * some(0.5)
    # A triangle filter of three pixels down and across, mixed in by share.
    down = (np.roll(frames, 1, 1) + np.roll(frames, -1, 1)) / 4 + frames / 2
    across = (np.roll(down, 1, 2) + np.roll(down, -1, 2)) / 4 + down / 2
    out = frames + share * (across - frames)
    grain = rng.standard_normal(frames.shape, np.float32)
    out *= 1 + each(0, 0.2) * some(0.4) * grain
    out += each(0, 0.05) * some(0.3) * np.roll(grain, 7, 2)
    out *= np.exp(strength * each(-0.35, 0.35))
    out += strength * each(-0.08, 0.10)
    out = np.clip(out, 0, 1) ** np.exp(strength * each(-0.45, 0.45))
    return np.where(inside, out, 0).astype(np.float32)


def _erase(frame: NDArray[np.float32], rng: np.random.Generator) -> None:
    """A rectangle of one grey: no single spot may decide."""
    rows, columns = frame.shape
    height, width = int(rng.uniform(0.1, 0.3) * rows), int(rng.uniform(0.1, 0.3) * columns)
    top, left = int(rng.integers(rows - height)), int(rng.integers(columns - width))
    frame[top : top + height, left : left + width] = rng.uniform(0, 0.5)


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


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--camus", type=Path, required=True, help="folder of CAMUS frames")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True, help="folder to go on from")
    parser.add_argument(
        "--epochs", type=int, nargs=len(_STAGES), default=[30, 12], help="of each stage"
    )
    parser.add_argument("--steps", type=int, default=100, help="batches in an epoch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument(
        "--clips", type=int, default=700, help="simulated clips of each view; more of some"
    )
    parser.add_argument("--held-clips", type=int, default=30)
    parser.add_argument("--test-clips", type=int, default=60)
    parser.add_argument("--patient-clips", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2, help="processes that make data")
    parser.add_argument("--start", type=Path, help="pack to begin with the weights of")
    parser.add_argument(
        "--earlier", type=Path, help="data of an earlier version: the first stage's, and more"
    )
    parser.add_argument(
        "--files", type=Path, help="table of machines' files (file, what) to name for the report"
    )
    given = vars(parser.parse_args())
    lists = {"epochs": tuple(given["epochs"]), "widths": tuple(given["widths"])}
    train(Settings(**{**given, **lists}))


if __name__ == "__main__":
    main()
