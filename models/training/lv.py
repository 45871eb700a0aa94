"""Train the ``lv`` pack: trace cavity, myocardium and atrium.

python -m models.training.lv --camus DIR --out models/packs/lv --seed 1
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from models.networks import build_network
from models.packs.manifest import InputSpec
from models.training import loop
from models.training.augment import Geometry, move, restyle
from models.training.camus import CLASSES, fitted, hold_out, read_camus

log = logging.getLogger(__name__)

HELD_PATIENTS = 48
"""Training patients that no weight sees: for choices and for the width of intervals."""

MEAN, STD = 0.2, 0.2
"""About the mean and spread of grey in fitted CAMUS frames."""


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
        looks = np.stack([restyle(frame, self._rng) for frame in moved[..., 0]])
        covers = moved[..., 1:]
        rest = 1.0 - covers.sum(-1, keepdims=True)
        inputs = (looks - self._spec.mean) / self._spec.std
        return inputs[..., np.newaxis], np.concatenate([rest, covers], axis=-1)

    def on_epoch_end(self) -> None:
        """Another order."""
        self._order = self._rng.permutation(len(self._greys))


def tracing_loss(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Cross-entropy plus one minus Dice over the batch, mean over the three structures."""
    entropy = -ops.mean(ops.sum(truth * ops.log_softmax(logits), axis=-1))
    chance = ops.softmax(logits)
    both = ops.sum(truth * chance, axis=(1, 2))
    each = ops.sum(truth + chance, axis=(1, 2))
    dice = (2 * both + 20.0) / (each + 20.0)
    return entropy + 1.0 - ops.mean(dice[:, 1:])


def train(
    camus: Path, out: Path, *, seed: int, epochs: int, batch: int, size: int, rate: float
) -> None:
    """Train and write the pack."""
    rng = loop.start(seed)
    spec = InputSpec(rows=size, columns=size, mean=MEAN, std=STD)
    kept, held = hold_out(read_camus(camus, "train"), HELD_PATIENTS, seed)
    greys, covers = fitted(kept, spec)
    settings = {"classes": len(CLASSES)}
    network = build_network("unet", spec, settings)
    steps = epochs * (len(greys) // batch)
    network.compile(
        optimizer=keras.optimizers.AdamW(
            loop.cosine(rate, steps), weight_decay=1e-4, use_ema=True, ema_momentum=0.99
        ),
        loss=tracing_loss,
    )
    out.mkdir(parents=True, exist_ok=True)
    log.info("%d weights, %d frames, %d steps", network.count_params(), len(greys), steps)
    network.fit(
        TracedBatches(greys, covers, spec, batch, rng),
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.SwapEMAWeights(),
            loop.EpochLog(out / "training.jsonl"),
            HeldOut(*fitted(held, spec), spec, every=5),
            keras.callbacks.ModelCheckpoint(str(out / "last.weights.h5"), save_weights_only=True),
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


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--camus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rate", type=float, default=2e-3)
    options = parser.parse_args()
    train(**vars(options))


if __name__ == "__main__":
    main()
