"""A training of a few weights that dies in mid-epoch when it is told to: run as a program."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from numpy.typing import NDArray

from models.training import loop

EPOCHS = 4


class Sums(loop.Batches):
    """Random numbers and their sums."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        return 3

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One batch."""
        inputs = self.random(index).normal(size=(4, 4)).astype(np.float32)
        order = self.shuffled(4)
        return inputs[order], inputs[order].sum(axis=1, keepdims=True)


class Death(keras.callbacks.Callback):  # type: ignore[misc]  # keras carries no types
    """Kills the process after a batch, with no time for last words."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self._epoch, self._batch, self._now = epoch, batch, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember it."""
        del logs
        self._now = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Die."""
        del logs
        if (self._now, batch) == (self._epoch, self._batch):
            os.kill(os.getpid(), signal.SIGKILL)


def network(width: int = 4, rate: float = 1e-2) -> keras.Model:
    """With all that has a state: moments, moving averages, dropout, a schedule."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(width),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    schedule = loop.cosine(rate, 3 * EPOCHS)
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-3),
        loss="mse",
        jit_compile=loop.jit_compile(),
    )
    return model


def held_out(model: keras.Model) -> dict[str, float]:
    """The error on the same numbers each time."""
    inputs = np.random.default_rng(9).normal(size=(16, 4)).astype(np.float32)
    guess = keras.ops.convert_to_numpy(model(inputs, training=False))
    return {"held": float(((guess - inputs.sum(axis=1, keepdims=True)) ** 2).mean())}


def train(work: Path, *callbacks: keras.callbacks.Callback, keep_best: bool = False) -> keras.Model:
    """Train, or go on."""
    model = network()
    loop.fit(
        model,
        Sums(seed=5),
        epochs=EPOCHS,
        work=work,
        seed=5,
        score=held_out,
        keep_best=keep_best,
        callbacks=callbacks,
    )
    return model


if __name__ == "__main__":
    train(Path(sys.argv[1]), Death(2, 1))
