"""What every training shares: seeds, a schedule, batches, and a fit that resumes.

:func:`fit` runs a compiled Keras model over epochs and keeps its whole state (weights, optimizer,
epoch, best weights) in the trial's folder after each. All random numbers of an epoch come from the
seed, the epoch and the batch's place alone (:class:`Batches`), so a training that was broken off
goes on as if it had not been.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np
from numpy.typing import NDArray

from models.training.recipe import RecipeError

log = logging.getLogger(__name__)

LOG, CURVES = "training.jsonl", "loss.png"

Score = Callable[[keras.Model], Mapping[str, float]]
"""Figures on held-out data; ``held`` is the one that counts, lower is better."""

_DRAW_AFTER_S = 60.0  # curves are drawn at most so often, and at the end
_WEIGHTS, _OPTIMIZER = "weights", "optimizer"
_ABOUT = ("epochs", "epoch", "seconds", "score", "best", "best_epoch", "diverged")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What :func:`fit` came to: the score of the weights that the model now has."""

    score: float  #: NaN without a score; infinite where the loss was no number any more
    epoch: int  #: that these weights are from, from 1 on
    resumed: bool


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras carries no types
    """Batches whose random numbers depend on seed, epoch and place, and on nothing else.

    A subclass gives ``__len__`` and ``__getitem__(index)`` and takes its random numbers from
    ``self.random(index)`` and its order from ``self.shuffled(count)``. It may then be read by
    several workers, ahead, or again from the middle.
    """

    def __init__(self, *, seed: int, workers: int = 1) -> None:
        super().__init__(workers=workers)
        self.seed, self.epoch = seed, 0
        self._shuffled: tuple[tuple[int, int], NDArray[np.intp]] | None = None

    def begin(self, epoch: int) -> None:
        """Go to an epoch, from 0 on; :func:`fit` calls it."""
        self.epoch = epoch

    def random(self, index: int) -> np.random.Generator:
        """The generator of the batch at ``index``."""
        return np.random.default_rng((self.seed, self.epoch, index, 1))

    def shuffled(self, count: int) -> NDArray[np.intp]:
        """The numbers below ``count`` in this epoch's order."""
        key = (self.epoch, count)
        if self._shuffled is None or self._shuffled[0] != key:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(count)
            self._shuffled = key, order
        return self._shuffled[1]


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


def jit_compile() -> bool:
    """What to compile a model with: XLA costs a third of the speed on a CPU, and JAX needs it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    return bool(backend == "jax")


def fit(
    model: keras.Model,
    batches: Batches,
    *,
    epochs: int,
    work: Path,
    seed: int,
    stage: str = "",
    score: Score | None = None,
    every: int = 1,
    keep_best: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Fitted:
    """Train a compiled model to its last epoch, from wherever ``work`` says that it was.

    Afterwards the model has the weights of the last epoch, or with ``keep_best`` those of the best
    score. ``work`` holds ``training.jsonl`` (each epoch once), ``loss.png`` and the state.

    Parameters
    ----------
    model
        Compiled, with ``jit_compile`` as :func:`jit_compile` says.
    batches
        Of (inputs, truths).
    epochs
        In all, those before an interruption included.
    seed
        Of the network's own random numbers (dropout), for each epoch anew.
    stage
        Names a part of a training of several; each has a state of its own in ``work``.
    score, every
        Held-out figures after each ``every`` epochs and after the last.
    keep_best
        Whether to end with the weights of the best score.

    Raises
    ------
    models.training.recipe.RecipeError
        If ``work`` holds the state of another training.
    """
    if keep_best and score is None:
        raise ValueError("keep_best needs a score to judge by")
    work.mkdir(parents=True, exist_ok=True)
    model.optimizer.build(model.trainable_variables)
    state = _State(work, stage)
    resumed = state.restore(model, epochs)
    if state.epoch < epochs and not state.diverged:
        if resumed:
            log.info("going on after epoch %d of %d", state.epoch, epochs)
        keeper = _Keeper(state, batches, seed=seed, score=score, every=every, keep_best=keep_best)
        progress = _Progress(stage, epochs, state)
        try:
            model.fit(
                batches,
                epochs=epochs,
                initial_epoch=state.epoch,
                verbose=0,
                shuffle=False,
                callbacks=[*callbacks, keeper, progress],
            )
        finally:
            progress.close()
    if keep_best and state.best_epoch:
        _assign(model.weights, _read(state.best_path(state.best_epoch))[_WEIGHTS])
    draw_curves(work)
    return state.fitted(keep_best=keep_best, resumed=resumed)


def take_weights(
    model: keras.Model, work: Path, *, stage: str = "", keep_best: bool = False
) -> Fitted:
    """Give a model, compiled or not, the weights that a finished :func:`fit` left in ``work``.

    Raises
    ------
    models.training.recipe.RecipeError
        If there are none, the training is not at its end, or they are another network's.
    """
    state = _State(work, stage)
    if not state.path.is_file():
        raise RecipeError(f"{work}: no training here; train first")
    arrays = state.read()
    if state.epoch < state.epochs and not state.diverged:
        raise RecipeError(
            f"{work}: broken off after epoch {state.epoch} of {state.epochs}; train on first"
        )
    if keep_best and state.best_epoch:
        arrays = _read(state.best_path(state.best_epoch))
    try:
        _assign(model.weights, arrays[_WEIGHTS])
    except ValueError as error:
        raise RecipeError(f"{work}: the weights of another network: {error}") from error
    return state.fitted(keep_best=keep_best, resumed=True)


def finished(work: Path, epochs: int, *, stage: str = "") -> bool:
    """Whether ``work`` holds a :func:`fit` of so many epochs that is at its end."""
    state = _State(work, stage)
    if not state.path.is_file():
        return False
    state.read()
    return state.epochs == epochs and (state.epoch == epochs or state.diverged)


def records(work: Path) -> list[dict[str, Any]]:
    """The epochs in ``training.jsonl``, none where there is none."""
    path = work / LOG
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw_curves(work: Path) -> None:
    """Draw ``loss.png`` from ``training.jsonl``: loss and held-out score by epoch."""
    from matplotlib.figure import Figure

    lines = records(work)
    if not lines:
        return
    figure = Figure(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    epochs = np.arange(1, len(lines) + 1)
    style: dict[str, Any] = {"marker": ".", "markersize": 3, "linewidth": 1.2}
    losses = [math.nan if line["loss"] is None else line["loss"] for line in lines]
    drawn = axes.plot(epochs, losses, label="training loss", **style)
    if min(losses) > 0:
        axes.set_yscale("log")
    held = [
        (epoch, line["held"]) for epoch, line in zip(epochs, lines, strict=True) if "held" in line
    ]
    if held:
        right = axes.twinx()
        drawn += right.plot(*zip(*held, strict=True), color="C1", label="held-out score", **style)
        right.set_ylabel("held-out score (lower is better)")
    stages = [line.get("stage", "") for line in lines]
    for place in range(1, len(stages)):
        if stages[place] != stages[place - 1]:
            axes.axvline(place + 0.5, color="0.6", linewidth=0.8, linestyle="--")
    for stage in dict.fromkeys(stages):
        where = epochs[stages.index(stage)]
        axes.annotate(stage, (where, 1.01), xycoords=("data", "axes fraction"), fontsize=8)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.25)
    axes.legend(drawn, [str(line.get_label()) for line in drawn], frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    _write(work / CURVES, picture.getvalue())


class _State:
    """What of a training is on disk: one file, written whole or not at all."""

    def __init__(self, work: Path, stage: str) -> None:
        self.work, self.stage = work, stage
        self._name = f"state-{stage}" if stage else "state"
        self.epochs = self.epoch = 0
        self.seconds = 0.0
        self.score = self.best = math.nan
        self.best_epoch = 0
        self.diverged = False

    @property
    def path(self) -> Path:
        return self.work / f"{self._name}.npz"

    def best_path(self, epoch: int) -> Path:
        return self.work / f"{self._name}-best-{epoch:04d}.npz"

    def read(self) -> dict[str, list[NDArray[Any]]]:
        """Take up where it was; the arrays are for the model."""
        arrays = _read(self.path)
        about = json.loads(str(arrays["about"][0][0]))
        for name in _ABOUT:
            setattr(self, name, about[name])
        return arrays

    def restore(self, model: keras.Model, epochs: int) -> bool:
        """Put model and optimizer where they were; whether there was something."""
        if not self.path.is_file():
            self.epochs = epochs
            return False
        arrays = self.read()
        if self.epochs != epochs:
            raise RecipeError(
                f"{self.path}: a training of {self.epochs} epochs, where {epochs} are asked for; "
                "name another folder for the work, or remove this one"
            )
        try:
            _assign(model.weights, arrays[_WEIGHTS])
            _assign(model.optimizer.variables, arrays[_OPTIMIZER])
        except ValueError as error:
            raise RecipeError(
                f"{self.path}: the state of another network ({error}); name another folder for "
                "the work, or remove this one"
            ) from error
        return True

    def save(self, model: keras.Model) -> None:
        about = {name: getattr(self, name) for name in _ABOUT}
        _store(
            self.path,
            {_WEIGHTS: model.weights, _OPTIMIZER: model.optimizer.variables},
            json.dumps(about),
        )
        for old in self.work.glob(f"{self._name}-best-*.npz"):
            if old != self.best_path(self.best_epoch):
                old.unlink()

    def save_best(self, model: keras.Model) -> None:
        """Before :meth:`save`, which names it."""
        _store(self.best_path(self.epoch), {_WEIGHTS: model.weights}, "")

    def write_down(self, record: Mapping[str, Any]) -> None:
        """Add an epoch's line; one of the same epoch that was not kept makes room for it."""
        others = [
            line
            for line in records(self.work)
            if line.get("stage", "") != self.stage or line["epoch"] < record["epoch"]
        ]
        text = "".join(json.dumps(line) + "\n" for line in [*others, record])
        _write(self.work / LOG, text.encode())

    def fitted(self, *, keep_best: bool, resumed: bool) -> Fitted:
        if self.diverged and not (keep_best and self.best_epoch):
            return Fitted(score=math.inf, epoch=self.epoch, resumed=resumed)
        if keep_best:
            return Fitted(score=self.best, epoch=self.best_epoch, resumed=resumed)
        return Fitted(score=self.score, epoch=self.epoch, resumed=resumed)


class _Keeper(keras.callbacks.Callback):  # type: ignore[misc]  # keras carries no types
    """Begins each epoch from its seed; after it scores, keeps the state and writes a line."""

    def __init__(
        self,
        state: _State,
        batches: Batches,
        *,
        seed: int,
        score: Score | None,
        every: int,
        keep_best: bool,
    ) -> None:
        super().__init__()
        self._state, self._batches, self._seed = state, batches, seed
        self._score, self._every, self._keep_best = score, every, keep_best
        self._before = state.seconds
        self._began = self._drawn = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del logs
        self._batches.begin(epoch)
        _reseed(self.model, self._seed, epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        state = self._state
        state.epoch = epoch + 1
        state.diverged = not math.isfinite(float(logs.get("loss", 0.0)))
        last = state.diverged or state.epoch == state.epochs
        figures: dict[str, float] = {}
        if (
            self._score is not None
            and not state.diverged
            and (last or state.epoch % self._every == 0)
        ):
            figures = {name: float(value) for name, value in self._score(self.model).items()}
            state.score = figures["held"]
            if self._keep_best and not state.score >= state.best:  # the first is against NaN
                state.best, state.best_epoch = state.score, state.epoch
                state.save_best(self.model)
        logs.update(figures)
        state.seconds = self._before + time.monotonic() - self._began
        values = {name: _rounded(float(value)) for name, value in logs.items()}
        record = {"stage": state.stage} if state.stage else {}
        # The line first: what is killed between the two is trained again and its line replaced.
        state.write_down(
            {**record, "epoch": state.epoch, "seconds": round(state.seconds), **values}
        )
        state.save(self.model)
        if state.diverged:
            log.warning("the loss is no number any more after epoch %d", state.epoch)
            self.model.stop_training = True
        if time.monotonic() - self._drawn > _DRAW_AFTER_S:
            draw_curves(state.work)
            self._drawn = time.monotonic()


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras carries no types
    """A line that is written over on a terminal, and a log line an epoch elsewhere."""

    def __init__(self, stage: str, epochs: int, state: _State, out: TextIO | None = None) -> None:
        super().__init__()
        self._out = sys.stderr if out is None else out
        self._live = self._out.isatty()
        self._stage = f"{stage}, " if stage else ""
        self._epochs, self._state = epochs, state
        self._first, self._epoch = state.epoch, state.epoch
        self._began = self._shown = time.monotonic()
        self._held = ""
        self._steps = 1

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del logs
        self._epoch = epoch
        self._steps = int((self.params or {}).get("steps") or 1)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.monotonic()
        if not self._live or now - self._shown < 1.0:
            return
        self._shown = now
        done = self._epoch + (batch + 1) / self._steps
        self._over(
            self._line(self._epoch + 1, logs or {}, done, f" step {batch + 1}/{self._steps}")
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs and "held" in logs:
            self._held = f", held out {logs['held']:.4g}"
        line = self._line(epoch + 1, logs or {}, epoch + 1.0, "")
        if self._live:
            self._over(line)
        else:
            log.info("%s", line)

    def close(self) -> None:
        if self._live:
            self._out.write("\n")
            self._out.flush()

    def _line(self, epoch: int, logs: Mapping[str, Any], done: float, step: str) -> str:
        spent = time.monotonic() - self._began
        left = spent / max(1e-6, done - self._first) * (self._epochs - done)
        loss = f", loss {float(logs['loss']):.4g}" if "loss" in logs else ""
        return (
            f"{self._stage}epoch {epoch} of {self._epochs}{step}{loss}{self._held}, "
            f"{_duration(left)} left"
        )

    def _over(self, line: str) -> None:
        self._out.write(f"\r\x1b[2K{line}")
        self._out.flush()


def _rounded(value: float) -> float | None:
    """Six digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _duration(seconds: float) -> str:
    """Seconds for a reader."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """Dropout's generators begin each epoch from seed and epoch: their state is not kept."""
    plain = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    words = np.random.SeedSequence((seed, epoch))
    states = [variable for variable in model.variables if id(variable) not in plain]
    for place, variable in enumerate(states):
        if keras.backend.is_int_dtype(variable.dtype) and tuple(variable.shape) == (2,):
            drawn = np.random.SeedSequence(words.entropy, spawn_key=(place,)).generate_state(2)
            variable.assign((drawn >> 1).astype(np.int64))


def _assign(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ValueError(f"{len(values)} arrays do not fit {len(variables)} variables")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _store(path: Path, groups: Mapping[str, Sequence[Any]], about: str) -> None:
    arrays: dict[str, Any] = {"about": np.array([about])}
    for group, variables in groups.items():
        for place, variable in enumerate(variables):
            arrays[f"{group}/{place:05d}"] = np.asarray(variable.numpy())
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    _write(path, packed.getvalue())


def _read(path: Path) -> dict[str, list[NDArray[Any]]]:
    """The arrays of a file by group, each in order."""
    groups: dict[str, list[NDArray[Any]]] = {_WEIGHTS: [], _OPTIMIZER: []}
    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays.files):
            groups.setdefault(name.split("/")[0], []).append(arrays[name])
    return groups


def _write(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class EpochLog(keras.callbacks.Callback):  # type: ignore[misc]  # keras carries no types
    """One line and one JSON record an epoch: losses, seconds; for a training without a state."""

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
