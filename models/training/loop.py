"""What every training command shares: threads, seeds, a schedule, and a log of epochs."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

log = logging.getLogger(__name__)


def start(seed: int) -> np.random.Generator:
    """Log to the terminal, seed everything, and give the generator for data."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    keras.utils.set_random_seed(seed)
    return np.random.default_rng(seed)


def cosine(peak: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A short warm-up to ``peak``, then a half cosine down to a hundredth of it."""
    warm = max(1, min(200, steps // 20))
    return keras.optimizers.schedules.CosineDecay(
        peak / 20, max(1, steps - warm), alpha=0.01, warmup_target=peak, warmup_steps=warm
    )


class EpochLog(keras.callbacks.Callback):  # type: ignore[misc]  # keras carries no types
    """One line and one JSON record an epoch: losses, seconds."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch down."""
        values = {name: round(float(value), 5) for name, value in (logs or {}).items()}
        record = {"epoch": epoch + 1, "seconds": round(time.monotonic() - self._began), **values}
        log.info("%s", " ".join(f"{name} {value}" for name, value in record.items()))
        with self._path.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
