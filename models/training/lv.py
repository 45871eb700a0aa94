"""Train the ``lv`` pack: trace cavity, myocardium and atrium.

    python -m models.training.lv --camus DIR --out models/packs/lv --seed 1

A U-Net on the 702 frames of 351 of the 399 training patients; the other 48 give the width of
intervals. AdamW, a half cosine, cross-entropy plus Dice plus the error of each area, and
augmentation that is meant to make other makers' frames no news (:mod:`models.training.augment`).
Small frames first, since two steps in three cost less than half there; then the size that ships.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from models.data.camus import (
    CLASSES,
    HELD_PATIENTS,
    Patient,
    fitted,
    hold_out,
    pair_clip,
    read_camus,
)
from models.networks import build_network
from models.packs import InputSpec, PackKind
from models.training import loop
from models.training.augment import Geometry, move, restyle
from models.training.packing import camus_manifest, pack_camus, patient_output

log = logging.getLogger(__name__)

MEAN, STD = 0.2, 0.2
"""About the mean and spread of grey in fitted CAMUS frames."""

RESTYLED = 0.8
"""Share of frames whose look is changed; the others are as the patient's machine made them."""

AREA_WEIGHT = 0.5
"""Of the areas' errors in the loss: a wall traced a little too far in is small to Dice, and not
to a volume, which goes with the third power of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A run down the learning rate on frames of one size; the next begins with its weights."""

    size: int
    epochs: int
    rate: float


class TracedBatches(keras.utils.PyDataset):  # type: ignore[misc]  # keras carries no types
    """Augmented batches: (n, rows, columns, 1) and (n, rows, columns, classes)."""

    def __init__(
        self,
        greys: NDArray[np.uint8],
        covers: NDArray[np.uint8],
        spec: InputSpec,
        batch: int,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(workers=1)
        self._greys, self._covers, self._spec = greys, covers, spec
        self._batch, self._rng = batch, rng
        self._order = rng.permutation(len(greys))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._greys) // self._batch

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One batch."""
        chosen = self._order[index * self._batch : (index + 1) * self._batch]
        stacked = np.concatenate(
            [self._greys[chosen][..., np.newaxis], self._covers[chosen]], axis=-1
        )
        moved = move(stacked.astype(np.float32) / np.float32(255), Geometry(), self._rng)
        looks = np.stack(
            [
                restyle(frame, self._rng) if self._rng.random() < RESTYLED else frame
                for frame in moved[..., 0]
            ]
        )
        covers = moved[..., 1:]
        rest = 1.0 - covers.sum(-1, keepdims=True)
        inputs = ((looks - self._spec.mean) / self._spec.std).astype(np.float32)
        return inputs[..., np.newaxis], np.concatenate([rest, covers], axis=-1)

    def on_epoch_end(self) -> None:
        """Another order."""
        self._order = self._rng.permutation(len(self._greys))


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


def train(
    camus: Path,
    out: Path,
    *,
    work: Path,
    weights: Path | None,
    seed: int,
    batch: int,
    stages: Sequence[Stage],
) -> None:
    """Train and write the pack; with ``weights``, only write it."""
    rng = loop.start(seed)
    spec = _spec(stages[-1].size)
    kept, held = hold_out(read_camus(camus, "train"), HELD_PATIENTS, seed)
    settings = {"classes": len(CLASSES)}
    network = build_network("unet", spec, settings)
    if weights is None:
        for stage in stages:
            smaller = build_network("unet", _spec(stage.size), settings)
            smaller.set_weights(network.get_weights())
            _fit(smaller, stage, kept, held, work, rng, batch=batch)
            network.set_weights(smaller.get_weights())
    else:
        network.load_weights(weights)
    manifest = {
        **camus_manifest("lv", PackKind.TRACING, "Tracing of the left heart, A4C", seed),
        "network": {"name": "unet", "settings": settings},
        "input": spec.model_dump(),
        "classes": CLASSES,
        "outputs": [
            patient_output("ef", "%", needs_motion=True),
            patient_output("edv", "mL", pixel_power=3, needs_motion=True),
            patient_output("esv", "mL", pixel_power=3, needs_motion=True),
            patient_output("la_area", "cm2", pixel_power=2),
        ],
        "trained_on": f"CAMUS, apical four-chamber: {len(kept)} patients, two frames each",
    }
    pack_camus(
        out,
        manifest,
        network,
        held=held,
        valid=read_camus(camus, "valid"),
        interval_clip=pair_clip,
        card=_CARD,
    )


def _spec(size: int) -> InputSpec:
    return InputSpec(rows=size, columns=size, mean=MEAN, std=STD)


def _fit(
    network: keras.Model,
    stage: Stage,
    kept: Sequence[Patient],
    held: Sequence[Patient],
    work: Path,
    rng: np.random.Generator,
    *,
    batch: int,
) -> None:
    spec = _spec(stage.size)
    greys, covers = fitted(kept, spec)
    steps = stage.epochs * (len(greys) // batch)
    network.compile(
        optimizer=keras.optimizers.AdamW(loop.cosine(stage.rate, steps), weight_decay=1e-4),
        loss=tracing_loss,
        jit_compile=False,  # a third faster on a CPU
    )
    work.mkdir(parents=True, exist_ok=True)
    log.info("%d px, %d frames, %d steps", stage.size, len(greys), steps)
    network.fit(
        TracedBatches(greys, covers, spec, batch, rng),
        epochs=stage.epochs,
        verbose=0,
        callbacks=[
            loop.EpochLog(work / "training.jsonl"),
            HeldOut(*fitted(held, spec), spec, every=5),
            keras.callbacks.ModelCheckpoint(str(work / "last.weights.h5"), save_weights_only=True),
        ],
    )


class HeldOut(keras.callbacks.Callback):  # type: ignore[misc]  # keras carries no types
    """Dice on the held-out patients now and then."""

    def __init__(
        self, greys: NDArray[np.uint8], covers: NDArray[np.uint8], spec: InputSpec, *, every: int
    ) -> None:
        super().__init__()
        self._inputs = ((greys / 255.0 - spec.mean) / spec.std).astype(np.float32)[..., None]
        rest = 255 * np.ones((*covers.shape[:3], 1), np.float32) - covers.sum(-1, keepdims=True)
        self._truth = np.argmax(np.concatenate([rest, covers], -1), -1)
        self._every = every

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Trace and compare."""
        del logs
        if (epoch + 1) % self._every:
            return
        guess = np.concatenate(
            [
                ops.convert_to_numpy(ops.argmax(self.model(part, training=False), -1))
                for part in np.array_split(self._inputs, math.ceil(len(self._inputs) / 16))
            ]
        )
        for index, name in list(enumerate(CLASSES))[1:]:
            one, two = guess == index, self._truth == index
            both = (one & two).sum((1, 2))
            dice = 2 * both / np.maximum(1, one.sum((1, 2)) + two.sum((1, 2)))
            log.info("held out, %s: Dice %.4f", name, dice.mean())


_CARD = """\
# lv 0.1.0: tracing of the left heart

A U-Net (1.7 M weights) that traces left-ventricular cavity, myocardium and left atrium in each
frame of an apical four-chamber clip. The node measures the tracings: single-plane discs, beat by
beat, give EDV, ESV and EF; the largest traced area is that of the left atrium.

- **For** research on adult transthoracic A4C clips. Not for diagnosis. No other view is traced
  sensibly, and none should be given.
- **Trained on** 351 patients of CAMUS (one hospital, one maker, two frames each), strongly
  augmented. **Tested on** 50 further patients: `evaluation.md`, and on their frames only.
- **Intervals** are the errors of 48 training patients that no weight saw.
- **Known to fail**: a small, thick ventricle at end systole, near the apex; frames without a
  visible endocardium; contrast; congenital hearts. Implausible tracings are refused, with the
  reason, but a plausible tracing can be wrong.
- **Single plane**: a volume of one plane is not the biplane volume of the clinic.
- **Scale**: volumes and area are given only where the clip's pixel spacing can be trusted.
- **Licence**: CC BY-NC-SA 4.0, research only (`LICENSE`).
"""


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--camus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("var/training/lv"), help="log, weights")
    parser.add_argument("--weights", type=Path, help="do not train: pack these (last.weights.h5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192])
    parser.add_argument("--epochs", type=int, nargs="+", default=[100, 50])
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 1e-3])
    options = vars(parser.parse_args())
    parts = zip(options.pop("sizes"), options.pop("epochs"), options.pop("rates"), strict=True)
    stages = [Stage(size=size, epochs=epochs, rate=rate) for size, epochs, rate in parts]
    train(**options, stages=stages)


if __name__ == "__main__":
    main()
