"""Train the ``echonet`` pack: ejection fraction and volumes from frames, the paper's way.

    python -m models.training.echonet --camus DIR --out models/packs/echonet --seed 1

After Ghorbani et al. 2020: Inception-ResNet-v1 from a random start, 299 x 299, squared error, Adam
with weight decay, 24 frames a batch, rotation within 20 degrees, brightness within 0.1, a clip's
value the mean over frames. What differs, since 399 patients are no 2,546 and a CPU is no GPU:

- a quarter of the width; the three outputs are heads of one network (the paper found no loss);
- the squared error is taken on the mean over four frames of a clip, which is what is used, and
  not on each frame, which alone cannot know a fraction of two volumes;
- beside the numbers the middle layers learn to say where cavity, myocardium and atrium are; that
  part is thrown away afterwards;
- frames are also mirrored, scaled and restyled, and in-between frames are made from the two that
  CAMUS has (:mod:`models.data.cines`);
- volumes are learnt in cubic network pixels, because a frame scaled to 299 has lost its scale.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from models.data.camus import CLASSES, Patient, hold_out, read_camus
from models.data.cines import Heart, phase_at
from models.evaluation.camus import cine_clip
from models.measure import MeasureError
from models.networks import build_network
from models.networks.inception_resnet_v1 import MIDDLE
from models.packs import InputSpec, PackKind
from models.preprocess import Fit, fit_frames, fit_grey, fit_to
from models.tasks import TASKS
from models.training import loop
from models.training.augment import Geometry, move, restyle
from models.training.packing import camus_manifest, pack_camus, patient_output

log = logging.getLogger(__name__)

OUTPUTS = ("ef", "edv", "esv")
SPEC = InputSpec(rows=299, columns=299, mean=0.2, std=0.2, frames=20, interval_ms=100.0)
HELD_PATIENTS = 48
FRAMES_A_CLIP = 4
CLIPS_A_BATCH = 6

_GEOMETRY = Geometry(smallest=0.85, largest=1.1, stretch=0.0, shift=0.05, mirror=0.3)
_PHASES = (0.25, 0.5, 0.75)
_CELL, _CELLS, _FIRST = 16, 17, 13  # where the middle layer's cells look, at 299 x 299


@dataclass(frozen=True, kw_only=True, slots=True)
class Beating:
    """One heart as the network sees it, at phases 0, some between, and 1.

    ``volumes`` are EDV and ESV in thousands of cubic network pixels.
    """

    phases: NDArray[np.float64]
    greys: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    volumes: tuple[float, float]

    @property
    def ef_percent(self) -> float:
        """True ejection fraction."""
        return 100.0 * (1.0 - self.volumes[1] / self.volumes[0])


def beating(
    patient: Patient, spec: InputSpec, *, strength: float = 1.0, turn: float = 0.5
) -> Beating:
    """Frames of a patient's heart between end diastole and end systole."""
    heart = Heart(patient, strength=strength, turn=turn)
    phases = np.array([0.0, *_PHASES, 1.0])
    frames = [heart.at(float(phase)) for phase in phases]
    greys, fit = fit_grey(np.stack([frame.grey for frame in frames]), spec)
    rows = np.clip(fit.to_source(_diagonal(spec)).round().astype(int), 0, None)
    shown = _shown(fit.top, fit.height, spec.rows), _shown(fit.left, fit.width, spec.columns)
    at_row = np.minimum(rows[: spec.rows, 0], fit.source_rows - 1)
    at_column = np.minimum(rows[: spec.columns, 1], fit.source_columns - 1)
    inside = shown[0][:, np.newaxis] & shown[1]
    labels = [np.where(inside, frame.labels[np.ix_(at_row, at_column)], 0) for frame in frames]
    volumes = heart.volumes_ml() if strength != 1.0 else (patient.edv_ml, patient.esv_ml)
    side_mm = _side_mm(patient, fit)
    edv, esv = (volume / side_mm**3 for volume in volumes)
    return Beating(
        phases=phases, greys=greys, labels=np.stack(labels).astype(np.uint8), volumes=(edv, esv)
    )


def _side_mm(patient: Patient, fit: Fit) -> float:
    """Side of a square with the area of a network pixel."""
    frame = patient.ed
    return float(np.sqrt(frame.row_mm * frame.column_mm / (fit.scale_row * fit.scale_column)))


def _truths(patient: Patient) -> tuple[float, float, float]:
    """EF in percent, EDV and ESV in thousands of cubic network pixels."""
    rows, columns = patient.ed.grey.shape
    side_mm = _side_mm(patient, fit_to(rows, columns, SPEC))
    return patient.ef_percent, patient.edv_ml / side_mm**3, patient.esv_ml / side_mm**3


def _diagonal(spec: InputSpec) -> NDArray[np.float64]:
    count = np.arange(max(spec.rows, spec.columns), dtype=np.float64)
    return np.stack([count, count], axis=1)


def _shown(first: int, count: int, whole: int) -> NDArray[np.bool_]:
    places = np.arange(whole)
    return (places >= first) & (places < first + count)


def hearts(
    patients: Sequence[Patient], spec: InputSpec, rng: np.random.Generator
) -> list[list[Beating]]:
    """For each patient: the heart as it is, and as it would be if it beat otherwise."""
    whole = []
    for patient in patients:
        variants = [beating(patient, spec)]
        strength, turn = float(rng.uniform(0.6, 1.2)), float(rng.choice([0.5, 1.5]))
        try:
            variants.append(beating(patient, spec, strength=strength, turn=turn))
        except MeasureError:  # pushed so far that it is no ventricle any more
            log.info("%s cannot beat at %.2f of its strength", patient.name, strength)
        whole.append(variants)
    return whole


class ClipBatches(keras.utils.PyDataset):  # type: ignore[misc]  # keras carries no types
    """Batches of clips, frame after frame: inputs, and (clips, outputs) with the masks' shares."""

    def __init__(
        self,
        patients: Sequence[Sequence[Beating]],
        targets: tuple[NDArray[np.float64], NDArray[np.float64]],
        spec: InputSpec,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(workers=1)
        self._patients, self._spec, self._rng = patients, spec, rng
        self._mean, self._spread = targets
        self._order = rng.permutation(len(patients))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._patients) // CLIPS_A_BATCH

    def __getitem__(
        self, index: int
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """One batch."""
        chosen = self._order[index * CLIPS_A_BATCH : (index + 1) * CLIPS_A_BATCH]
        inputs, numbers, shares = [], [], []
        for number in chosen:
            frames, values, share = self._clip(self._patients[number])
            inputs.append(frames)
            numbers.append(values)
            shares.append(share)
        wanted = (np.stack(numbers) - self._mean) / self._spread
        return np.concatenate(inputs), (
            np.repeat(wanted, FRAMES_A_CLIP, axis=0).astype(np.float32),
            np.concatenate(shares),
        )

    def on_epoch_end(self) -> None:
        """Another order."""
        self._order = self._rng.permutation(len(self._patients))

    def _clip(
        self, variants: Sequence[Beating]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
        rng = self._rng
        heart = variants[int(rng.choice(len(variants), p=_odds(len(variants))))]
        places = _moments(heart.phases, rng)
        layers_ = [heart.greys[places].astype(np.float32) / 255]
        layers_ += [(heart.labels[places] == index).astype(np.float32) for index in (1, 2, 3)]
        # A clip is one examination: its frames share geometry and look.
        zoom = float(np.exp(rng.uniform(np.log(_GEOMETRY.smallest), np.log(_GEOMETRY.largest))))
        seed = int(rng.integers(2**31))
        geometry = Geometry(
            smallest=zoom, largest=zoom, stretch=0.0, shift=_GEOMETRY.shift, mirror=_GEOMETRY.mirror
        )
        moved = _moved_alike(np.stack(layers_, axis=-1), geometry, rng)
        grey = moved[..., 0]
        if rng.random() < 0.35:
            grey = np.stack([restyle(frame, np.random.default_rng(seed)) for frame in grey])
        inputs = (grey - self._spec.mean) / self._spec.std + rng.uniform(-0.1, 0.1)
        edv, esv = heart.volumes
        values = np.array([heart.ef_percent, edv * zoom**3, esv * zoom**3])
        return inputs[..., np.newaxis].astype(np.float32), values, _shares(moved[..., 1:])


def _moved_alike(
    frames: NDArray[np.float32], geometry: Geometry, rng: np.random.Generator
) -> NDArray[np.float32]:
    """One movement for all of (n, rows, columns, channels): frames become channels for it."""
    count, rows, columns, channels = frames.shape
    flat = frames.transpose(1, 2, 0, 3).reshape(1, rows, columns, count * channels)
    moved = move(flat, geometry, rng).reshape(rows, columns, count, channels)
    return np.ascontiguousarray(moved.transpose(2, 0, 1, 3))


def _odds(count: int) -> NDArray[np.float64]:
    odds = np.array([0.65, 0.35][:count])
    return np.asarray(odds / odds.sum())


def _moments(phases: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Which frames to take: the two real ones twice, or moments spread over a beat."""
    if rng.random() < 0.5:
        return np.array([0, len(phases) - 1] * (FRAMES_A_CLIP // 2))
    share = (rng.random() + np.arange(FRAMES_A_CLIP) / FRAMES_A_CLIP) % 1.0
    wanted = phase_at(share)[:, np.newaxis]
    return np.asarray(np.argmin(np.abs(wanted - phases), axis=1))


def _shares(masks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 299, 299, 3) masks to the share of each cell of the middle layer that they cover."""
    cells = slice(_FIRST, _FIRST + _CELL * _CELLS)
    whole = masks[:, cells, cells]
    split = whole.reshape(len(masks), _CELLS, _CELL, _CELLS, _CELL, masks.shape[-1])
    return np.asarray(split.mean(axis=(2, 4)), np.float32)


class HeldOut(keras.callbacks.Callback):  # type: ignore[misc]  # keras carries no types
    """Error on the two real frames of the held-out patients, every fifth epoch."""

    def __init__(
        self,
        patients: Sequence[Patient],
        network: keras.Model,
        targets: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        super().__init__()
        frames = [frame.grey[np.newaxis] for one in patients for frame in (one.ed, one.es)]
        self._inputs = np.concatenate([fit_frames(frame, SPEC)[0] for frame in frames])
        self._truth = np.array([_truths(patient) for patient in patients])
        self._network, self._targets = network, targets

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Read and compare."""
        del logs
        if (epoch + 1) % 5:
            return
        mean, spread = self._targets
        parts = np.array_split(self._inputs, max(1, len(self._inputs) // 12))
        raw = np.concatenate(
            [ops.convert_to_numpy(self._network(part, training=False)) for part in parts]
        )
        guess = raw.reshape(-1, 2, len(OUTPUTS)).mean(axis=1) * spread + mean
        error = guess - self._truth
        share = 1 - (error**2).sum(0) / ((self._truth - self._truth.mean(0)) ** 2).sum(0)
        log.info("held out: MAE %s, R2 %s", np.abs(error).mean(0).round(2), share.round(3))


def clip_loss(truth: keras.KerasTensor, numbers: keras.KerasTensor) -> keras.KerasTensor:
    """Squared error of the mean over each clip's frames."""
    apart = ops.reshape(numbers - truth, (-1, FRAMES_A_CLIP, len(OUTPUTS)))
    return ops.mean(ops.square(ops.mean(apart, axis=1)))


def share_loss(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Cross-entropy of each cell's coverage."""
    rest = 1.0 - ops.sum(truth, axis=-1, keepdims=True)
    whole = ops.concatenate([rest, truth], axis=-1)
    return -ops.mean(ops.sum(whole * ops.log_softmax(logits), axis=-1))


def train(
    camus: Path,
    out: Path,
    *,
    work: Path,
    weights: Path | None,
    seed: int,
    epochs: int,
    width: float,
    rate: float,
) -> None:
    """Train and write the pack; with ``weights``, only write it."""
    rng = loop.start(seed)
    kept, held = hold_out(read_camus(camus, "train"), HELD_PATIENTS, seed)
    truths = np.array([_truths(patient) for patient in kept])
    targets = truths.mean(axis=0), truths.std(axis=0)
    log.info("targets: mean %s, spread %s", targets[0].round(1), targets[1].round(1))
    settings = {"outputs": len(OUTPUTS), "width": width}
    network = build_network("inception_resnet_v1", SPEC, settings)
    teacher = _teacher(network)
    if weights is None:
        made = hearts(kept, SPEC, rng)
        watch = HeldOut(held, network, targets)
        _fit(teacher, ClipBatches(made, targets, SPEC, rng), watch, work, epochs, rate)
    else:
        teacher.load_weights(weights)
    manifest = {
        **camus_manifest("echonet", PackKind.REGRESSION, "EchoNet's frame regressor, A4C", seed),
        "network": {"name": "inception_resnet_v1", "settings": settings},
        "input": SPEC.model_dump(),
        "outputs": [
            patient_output(
                name,
                TASKS[name].unit,
                scale=float(spread),
                offset=float(mean),
                pixel_power=0 if name == "ef" else 3,
                needs_motion=True,
            )
            for name, mean, spread in zip(OUTPUTS, *targets, strict=True)
        ],
        "trained_on": f"CAMUS, apical four-chamber: {len(kept)} patients, two frames each, and "
        "frames between made from these",
    }
    pack_camus(
        out,
        manifest,
        network,
        held=held,
        valid=read_camus(camus, "valid"),
        interval_clip=lambda one: cine_clip(one, frame_time_ms=100.0, frames=20),
        card=_CARD,
    )


def _teacher(network: keras.Model) -> keras.Model:
    """The network with a second output from its middle: where the structures are."""
    where = layers.Conv2D(len(CLASSES), 1)(network.get_layer(MIDDLE).output)
    return keras.Model(network.inputs, [network.outputs[0], where])


def _fit(
    teacher: keras.Model,
    batches: ClipBatches,
    watch: HeldOut,
    work: Path,
    epochs: int,
    rate: float,
) -> None:
    teacher.compile(
        optimizer=keras.optimizers.AdamW(
            loop.cosine(rate, epochs * len(batches)),
            weight_decay=1e-3,
        ),
        loss=[clip_loss, share_loss],
        jit_compile=False,  # compiling so many layers takes longer than it saves
    )
    work.mkdir(parents=True, exist_ok=True)
    teacher.fit(
        batches,
        epochs=epochs,
        verbose=0,
        callbacks=[
            loop.EpochLog(work / "training.jsonl"),
            watch,
            keras.callbacks.ModelCheckpoint(str(work / "last.weights.h5"), save_weights_only=True),
        ],
    )


_CARD = """\
# echonet 0.1.0: EchoNet's frame regressor, a first version

Inception-ResNet-v1 at a quarter of its width, from a random start: one 299 x 299 frame in; EF,
EDV and ESV out; a clip's value is the mean over 20 frames, one every 100 ms. After Ghorbani et
al., npj Digital Medicine 3:10, 2020, whose network saw 2,546 patients for this view.

- **For** research on adult transthoracic A4C clips, and for the explanations: it shows where a
  network looks when nothing was measured. Not for diagnosis. Where it and the tracing disagree,
  the tracing has the better evidence.
- **Trained on** 351 patients of CAMUS (one hospital, one maker, two frames each) and frames
  between that were made by warping. **Tested on** 50 further patients: `evaluation.md`.
- **How it differs from the paper** stands in `models/training/echonet.py`: width, shared heads,
  the error taken on the mean over a clip's frames, middle layers taught where the chambers are,
  mirrored and restyled frames, volumes in cubic pixels.
- **It shrinks towards the mean**: low fractions are read too high and high ones too low.
- **Scale**: volumes are given only where the clip's pixel spacing can be trusted.
- **Intervals** are the errors of 48 training patients that no weight saw.
- **Licence**: CC BY-NC-SA 4.0, research only (`LICENSE`).
"""


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--camus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, default=Path("var/training/echonet"), help="log, weights"
    )
    parser.add_argument("--weights", type=Path, help="do not train: pack these (last.weights.h5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    options = parser.parse_args()
    train(**vars(options))


if __name__ == "__main__":
    main()
