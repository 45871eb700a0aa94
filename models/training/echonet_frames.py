"""Frames and what a frame regressor is to say of them: drawn once, kept on disk, served in batches.

A frame has one number for each head of the network: a size in network pixels, since a frame that
was scaled to a fixed side has lost its scale, or a score. What is not known is NaN and teaches
nothing. Frames of one clip come into a batch together and share geometry and look, as those of one
examination do, so that what tells them apart is the heart.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy import special

from models import measure
from models.clip import ClipError
from models.data.camus import CLASSES, Patient, TracedFrame
from models.data.cines import Heart
from models.data.dataset import Case
from models.measure import MeasureError
from models.packs import InputSpec, Join, Link
from models.preprocess import Fit, fit_grey, fit_to
from models.readers.base import pixel_mm
from models.readers.regression import joined
from models.training import loop
from models.training.augment import Geometry, move, restyle

log = logging.getLogger(__name__)

NO_MAP = 255
"""Label of a frame that nobody traced."""

_MADE = (  # phases of the frames that are made of a patient's two, and the phase they turn at
    (0.5, (-0.2, 0.3, 0.7, 1.2)),
    (9.0, (1.0,)),  # end systole out of end diastole
    (-9.0, (0.0,)),  # and the other way about
)
_FINER = 1.2  # frames are warped on a grid so much finer than the network's


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """One number that the network gives for a frame, and how it is taught.

    ``power`` is that of the pixel's side in it (3 a volume, 2 an area, 1 a length, 0 neither).
    ``moves``: differences between the frames of a clip are taught beside the number itself.
    """

    name: str
    link: Link = Link.LINEAR
    score: bool = False
    power: int = 0
    weight: float = 1.0
    moves: bool = False

    def taught(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values in network pixels as the head learns them, before standardising."""
        numbers = np.asarray(values, np.float64)
        if self.link is Link.LOG:
            with np.errstate(divide="ignore", invalid="ignore"):
                numbers = np.where(numbers > 0, np.log(numbers), np.nan)
        return numbers

    def zoomed(self, factor: float) -> tuple[float, float]:
        """What a zoom of the frame does to the taught number: times this, plus that."""
        if self.link is Link.LOG:
            return 1.0, self.power * float(np.log(factor))
        return factor**self.power, 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An output of the pack: a head's numbers, joined over a clip."""

    name: str
    head: int
    join: Join = Join.MEAN


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames of clips, one after another.

    ``greys`` and ``labels`` are (n, side, side) uint8 (labels index
    :data:`models.data.camus.CLASSES`, or are :data:`NO_MAP`), ``numbers`` (n, heads) float32 as
    taught, ``starts`` (clips + 1) where each clip begins. The first ``real`` frames of each clip
    are real ones; the others were made of them. ``truths`` (clips, outputs) in network pixels.
    """

    greys: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    numbers: NDArray[np.float32]
    starts: NDArray[np.int64]
    real: NDArray[np.int64]
    truths: NDArray[np.float64]

    @property
    def clips(self) -> int:
        """How many clips."""
        return len(self.starts) - 1


@dataclass(frozen=True, kw_only=True)
class ClipFrames:
    """The frames of one clip, before they are stored; shapes as in :class:`Frames`."""

    greys: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    numbers: NDArray[np.float64]
    real: int
    truths: NDArray[np.float64]


def stored(
    folder: Path, key: Mapping[str, Any], make: Callable[[], Iterator[ClipFrames]]
) -> Frames:
    """The frames in ``folder``, or, where they are none or of another key, made anew.

    Pixels stay on disk and are read as they are asked for.
    """
    about, greys_at, labels_at = (folder / name for name in ("about.json", "greys", "labels"))
    wanted = json.dumps(key, sort_keys=True)
    if not about.is_file() or about.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        about.unlink(missing_ok=True)
        numbers, counts, real, truths = [], [], [], []
        with greys_at.open("wb") as greys, labels_at.open("wb") as labels:
            for clip in make():
                greys.write(clip.greys.tobytes())
                labels.write(clip.labels.tobytes())
                numbers.append(clip.numbers.astype(np.float32))
                counts.append(len(clip.greys))
                real.append(clip.real)
                truths.append(clip.truths)
        np.savez(
            folder / "numbers.npz",
            numbers=np.concatenate(numbers),
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            real=np.array(real, np.int64),
            truths=np.stack(truths),
        )
        about.write_text(wanted)
        log.info("%d frames of %d clips in %s", sum(counts), len(counts), folder)
    with np.load(folder / "numbers.npz") as arrays:
        known = {name: arrays[name] for name in ("numbers", "starts", "real", "truths")}
    side = int(key["side"])
    shape = (len(known["numbers"]), side, side)
    return Frames(
        greys=np.memmap(greys_at, np.uint8, "r", shape=shape),
        labels=np.memmap(labels_at, np.uint8, "r", shape=shape),
        **known,
    )


# -- of patients with tracings ---------------------------------------------------------------------

TRACED = ("lv_volume", "la_area", "la_volume", "wall")
"""What a tracing says of its own frame: mL, cm2, mL and mm, over the pixel's side to its power."""


def traced_clip(
    patient: Patient,
    spec: InputSpec,
    heads: Sequence[Head],
    told: Sequence[Told],
    truths: Mapping[str, float],
    *,
    made: bool,
) -> ClipFrames:
    """A patient's two real frames, with ``made`` also others of the same heart.

    Every frame has what its own tracing measures; heads of other names have the clip's truth.
    """
    rows, columns = patient.ed.grey.shape
    fit = fit_to(rows, columns, spec)
    finer = _finer(patient, spec)
    scaled = _scaled(patient, finer)
    moments = [(0.0, patient.ed), (1.0, patient.es), *(_others(scaled) if made else ())]
    exact = np.array([patient.edv_ml, patient.esv_ml])
    coarse = [_measured(frame)["lv_volume"] for frame in (scaled.ed, scaled.es)]
    greys, labels, numbers = [], [], []
    for place, (phase, frame) in enumerate(moments):
        values = _measured(frame)
        if place < 2:
            values["lv_volume"] = float(exact[place])
        else:  # a coarse tracing measures a little other than a fine one
            share = float(np.clip(phase, 0.0, 1.0))
            values["lv_volume"] *= float(np.interp(share, [0.0, 1.0], exact / coarse))
        if not np.isfinite(values["lv_volume"]):
            continue  # warped so far that it is no ventricle any more
        grey, frame_fit = fit_grey(frame.grey[np.newaxis], spec)
        side_mm = _side_mm(frame, frame_fit)
        greys.append(grey[0])
        labels.append(nearest_labels(frame.labels, frame_fit))
        numbers.append([_number(head, values, truths, side_mm) for head in heads])
    side_mm = _side_mm(patient.ed, fit)
    return ClipFrames(
        greys=np.stack(greys),
        labels=np.stack(labels),
        numbers=np.array(numbers),
        real=2,
        truths=clip_truths(heads, told, truths, side_mm),
    )


def _others(patient: Patient) -> list[tuple[float, TracedFrame]]:
    """Phases and frames made of a patient's two; none where these cannot be warped."""
    try:
        return [
            (phase, heart.at(phase))
            for turn, phases in _MADE
            for heart in [Heart(patient, turn=turn)]
            for phase in phases
        ]
    except MeasureError as error:
        log.info("%s: no frames are made: %s", patient.name, error)
        return []


def clip_truths(
    heads: Sequence[Head], told: Sequence[Told], truths: Mapping[str, float], side_mm: float | None
) -> NDArray[np.float64]:
    """The clip's truth of each output in network pixels; NaN where it is not known."""
    values = []
    for output in told:
        power = 0 if output.join is Join.EJECTION else heads[output.head].power
        scale = 1.0 if power == 0 else np.nan if side_mm is None else side_mm**power
        values.append(truths.get(output.name, np.nan) / scale)
    return np.array(values)


def nearest_labels(labels: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
    """A tracing as the network would see it: (fit.rows, fit.columns), background outside."""
    count = np.arange(max(fit.rows, fit.columns), dtype=np.float64)
    places = fit.to_source(np.stack([count, count], axis=1)).round().astype(int)
    at_row = np.clip(places[: fit.rows, 0], 0, fit.source_rows - 1)
    at_column = np.clip(places[: fit.columns, 1], 0, fit.source_columns - 1)
    out = np.zeros((fit.rows, fit.columns), np.uint8)
    shown = np.s_[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
    out[shown] = labels[np.ix_(at_row, at_column)][shown]
    return out


def _number(
    head: Head, values: Mapping[str, float], truths: Mapping[str, float], side_mm: float
) -> float:
    value = values.get(head.name, truths.get(head.name, np.nan)) / side_mm**head.power
    return float(head.taught(np.array([value]))[0])


def _measured(frame: TracedFrame) -> dict[str, float]:
    """What the tracing of a frame says; NaN for what cannot be measured on it."""
    size = frame.row_mm, frame.column_mm
    values = dict.fromkeys(TRACED, np.nan)
    try:
        values["lv_volume"] = measure.measure_ventricle(frame.labels, *size).volume_ml
        values["wall"] = float(np.mean(measure.wall_thickness_mm(frame.labels, *size)))
    except MeasureError as error:
        log.debug("not measured: %s", error)
    values["la_area"] = measure.atrium_area_cm2(frame.labels, *size)
    try:
        atrium = measure.measure_atrium(frame.labels, *size)
        values["la_volume"] = atrium.volume_ml
    except MeasureError as error:
        log.debug("not measured: %s", error)
    return values


def _side_mm(frame: TracedFrame, fit: Fit) -> float:
    """Side of a square with the area of a network pixel."""
    return float(np.sqrt(frame.row_mm * frame.column_mm / (fit.scale_row * fit.scale_column)))


def _finer(patient: Patient, spec: InputSpec) -> tuple[int, int]:
    rows, columns = patient.ed.grey.shape
    scale = min(1.0, _FINER * min(spec.rows / rows, spec.columns / columns))
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def _scaled(patient: Patient, size: tuple[int, int]) -> Patient:
    """The patient with smaller frames: they are warped many times."""

    def frame(whole: TracedFrame) -> TracedFrame:
        rows, columns = whole.grey.shape
        spec = InputSpec(rows=size[0], columns=size[1], letterbox=False)
        grey, fit = fit_grey(whole.grey[np.newaxis], spec)
        return TracedFrame(
            grey=grey[0],
            labels=nearest_labels(whole.labels, fit),
            row_mm=whole.row_mm * rows / size[0],
            column_mm=whole.column_mm * columns / size[1],
        )

    return replace(patient, ed=frame(patient.ed), es=frame(patient.es))


# -- of any clips with labels ----------------------------------------------------------------------


def labelled_clips(
    cases: Iterable[Case], spec: InputSpec, heads: Sequence[Head], told: Sequence[Told]
) -> Iterator[ClipFrames]:
    """Clips of any data set: each frame has the clip's values, as in Ghorbani et al. 2020.

    ``spec`` says which frames. Clips that cannot be read are left out, and logged by number.
    """
    for number, case in enumerate(cases):
        try:
            clip = case.clip()
            indices = (
                range(min(clip.frame_count, spec.frames or clip.frame_count))
                if spec.interval_ms is None
                else clip.time_axis.sample(spec.interval_ms, spec.frames or clip.frame_count)
            )
            indices = tuple(indices)
            greys, fit = fit_grey(clip.frames(indices), spec)
        except ClipError as error:
            log.warning("clip %d is left out: %s", number, error)
            continue
        row_mm, column_mm, scaled = pixel_mm(clip)
        side_mm = np.nan
        if scaled:
            side_mm = float(np.sqrt(row_mm * column_mm / (fit.scale_row * fit.scale_column)))
        traced = case.tracings() if case.tracings else {}
        labels = [
            nearest_labels(traced[index], fit)
            if index in traced
            else np.full((spec.rows, spec.columns), NO_MAP, np.uint8)
            for index in indices
        ]
        each = [
            head.taught(np.array([case.truths.get(head.name, np.nan)]))[0]
            if head.power == 0
            else _number(head, {}, case.truths, side_mm)
            for head in heads
        ]
        yield ClipFrames(
            greys=greys,
            labels=np.stack(labels),
            numbers=np.tile(each, (len(greys), 1)),
            real=len(greys),
            truths=clip_truths(heads, told, case.truths, side_mm),
        )


# -- batches ---------------------------------------------------------------------------------------


GEOMETRY = Geometry(smallest=0.85, largest=1.15, stretch=0.0, shift=0.05, mirror=0.3)
"""How frames are moved, unless a protocol says otherwise; never stretched: that has no volume."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """How frames are served: how many, how they are moved, how their look is changed."""

    batch: int = 24
    a_clip: int = 2  #: frames of a clip in a batch; 1 draws frames, whatever clip they are of
    geometry: Geometry = GEOMETRY
    restyled: float = 0.4  #: share of clips with another look
    brightness: float = 0.1  #: of normalised pixels, either way (Ghorbani et al. 2020)
    real: float = 0.5  #: share of clips of which real frames only are taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Mean and spread of what each head learns, (heads,): it learns (number - mean) / spread."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @staticmethod
    def of(frames: Frames, heads: Sequence[Head]) -> Targets:
        """Those of these frames; 0 and 1 for scores."""
        scores = np.array([head.score for head in heads])
        mean, spread = np.zeros(len(heads)), np.ones(len(heads))
        for place, numbers in enumerate(frames.numbers.T.astype(np.float64)):
            known = numbers[np.isfinite(numbers)]
            if not scores[place] and len(known):
                mean[place], spread[place] = known.mean(), known.std() or 1.0
        return Targets(mean=mean, spread=spread)


class FrameBatches(loop.Batches):
    """Batches of frames: inputs, and the standardised numbers with maps of where structures are.

    ``grids`` are the sides and strides of the network's layers that learn the maps.
    """

    def __init__(
        self,
        frames: Frames,
        heads: Sequence[Head],
        targets: Targets,
        spec: InputSpec,
        serving: Serving,
        *,
        grids: Sequence[tuple[int, int]] = (),
        seed: int,
    ) -> None:
        super().__init__(seed=seed)
        self._frames, self._heads, self._targets = frames, tuple(heads), targets
        self._spec, self._serving, self._grids = spec, serving, tuple(grids)

    def __len__(self) -> int:
        """Batches in an epoch: every clip once, or every frame where clips do not matter."""
        if self._serving.a_clip == 1:
            return max(1, len(self._frames.greys) // self._serving.batch)
        return max(1, self._frames.clips * self._serving.a_clip // self._serving.batch)

    def __getitem__(
        self, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | tuple[NDArray[np.float32], ...]]:
        """One batch."""
        rng = self.random(index)
        inputs, numbers = [], []
        maps: list[list[NDArray[np.float32]]] = [[] for _ in self._grids]
        for places in self._places(index, rng):
            grey, masks, wanted = self._clip(places, rng)
            inputs.append(grey)
            numbers.append(wanted)
            for into, (cells, stride) in zip(maps, self._grids, strict=True):
                into.append(shares(masks, cells, stride))
        standard = (np.concatenate(numbers) - self._targets.mean) / self._targets.spread
        wanted_numbers = standard.astype(np.float32)
        if not self._grids:
            return np.concatenate(inputs), wanted_numbers
        return np.concatenate(inputs), (wanted_numbers, *(np.concatenate(each) for each in maps))

    def _places(self, index: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
        """Numbers of the frames of each clip in the batch."""
        frames, serving = self._frames, self._serving
        if serving.a_clip == 1:
            order = self.shuffled(len(frames.greys))
            for place in order[index * serving.batch : (index + 1) * serving.batch]:
                yield np.array([place])
            return
        clips = serving.batch // serving.a_clip
        for clip in self.shuffled(frames.clips)[index * clips : (index + 1) * clips]:
            begin, end = frames.starts[clip], frames.starts[clip + 1]
            real = int(frames.real[clip])
            there = real if rng.random() < serving.real else int(end - begin)
            chosen = rng.permutation(there)[: serving.a_clip]
            if len(chosen) < serving.a_clip:
                chosen = np.resize(chosen, serving.a_clip)
            yield np.asarray(begin + chosen, np.intp)

    def _clip(
        self, places: NDArray[np.intp], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        frames, serving = self._frames, self._serving
        layers = [frames.greys[places].astype(np.float32) / 255]
        if self._grids:
            labels = frames.labels[places]
            layers += [(labels == k).astype(np.float32) for k in range(1, len(CLASSES))]
            layers.append((labels == NO_MAP).astype(np.float32))
        given = serving.geometry
        zoom = float(np.exp(rng.uniform(np.log(given.smallest), np.log(given.largest))))
        moved = _moved_alike(
            np.stack(layers, axis=-1), replace(given, smallest=zoom, largest=zoom), rng
        )
        grey = moved[..., 0]
        look = int(rng.integers(2**31))
        if rng.random() < serving.restyled:
            grey = np.stack([restyle(frame, np.random.default_rng(look)) for frame in grey])
        inputs = (grey - self._spec.mean) / self._spec.std
        inputs = inputs + rng.uniform(-serving.brightness, serving.brightness)
        numbers = frames.numbers[places].astype(np.float64)
        changed = np.array([head.zoomed(zoom) for head in self._heads])
        numbers = numbers * changed[:, 0] + changed[:, 1]
        return inputs[..., np.newaxis].astype(np.float32), moved[..., 1:], numbers


def _moved_alike(
    frames: NDArray[np.float32], geometry: Geometry, rng: np.random.Generator
) -> NDArray[np.float32]:
    """One movement for all of (n, rows, columns, channels): frames become channels for it."""
    count, rows, columns, channels = frames.shape
    flat = frames.transpose(1, 2, 0, 3).reshape(1, rows, columns, count * channels)
    moved = move(flat, geometry, rng).reshape(rows, columns, count, channels)
    return np.ascontiguousarray(moved.transpose(2, 0, 1, 3))


def shares(masks: NDArray[np.float32], cells: int, stride: int) -> NDArray[np.float32]:
    """(n, rows, columns, k) masks to the share of each cell that they cover, (n, cells, cells, k).

    A cell is the square of ``stride`` pixels around the middle of what the network's layer of so
    many cells sees there: its valid convolutions leave half of the rest on either side.
    """
    first = _FIRST_MIDDLE[stride] - stride // 2
    window = slice(first, first + stride * cells)
    whole = masks[:, window, window]
    count, _, columns, kinds = whole.shape
    tall = whole.reshape(count, cells, stride, columns, kinds).sum(axis=2)
    cell = tall.reshape(count, cells, cells, stride, kinds).sum(axis=3)
    return np.asarray(cell / stride**2, np.float32)


_FIRST_MIDDLE = {8: 13, 16: 21}  # pixel in the middle of the first cell, by the layer's stride


# -- losses ----------------------------------------------------------------------------------------


def numbers_loss(
    heads: Sequence[Head], frames_a_clip: int, within: float
) -> Callable[[Any, Any], Any]:
    """Squared error of numbers and cross-entropy of scores, by the heads' weights.

    ``within`` weighs the squared error of each frame's distance from its clip's mean, for heads
    that move: of a log volume, that is the ejection fraction.
    """
    scores = np.array([head.score for head in heads])
    weights = np.array([head.weight for head in heads], np.float32)
    moving = np.array([head.weight * head.moves for head in heads], np.float32)

    def loss(truth: Any, numbers: Any) -> Any:
        known = ops.cast(ops.isfinite(truth), "float32")
        wanted = ops.where(known > 0, truth, 0.0)
        apart = (numbers - wanted) * known
        crossed = ops.softplus(numbers) - wanted * numbers
        each = ops.where(scores, crossed, ops.square(apart)) * known
        total = ops.sum(ops.mean(each, axis=0) * weights)
        if frames_a_clip > 1 and within:
            clips = ops.reshape(apart, (-1, frames_a_clip, len(heads)))
            off = clips - ops.mean(clips, axis=1, keepdims=True)
            total += within * ops.sum(ops.mean(ops.square(off), axis=(0, 1)) * moving)
        return total

    return loss


def map_loss(truth: Any, logits: Any) -> Any:
    """Cross-entropy of each cell's coverage, where somebody traced."""
    traced, untraced = truth[..., :-1], truth[..., -1]
    rest = 1.0 - ops.sum(traced, axis=-1, keepdims=True)
    whole = ops.concatenate([rest, traced], axis=-1)
    each = -ops.sum(whole * ops.log_softmax(logits), axis=-1)
    return ops.mean(each * (1.0 - untraced))


# -- judging ---------------------------------------------------------------------------------------


def clip_values(
    raw: NDArray[np.floating], heads: Sequence[Head], told: Sequence[Told], targets: Targets
) -> NDArray[np.float64]:
    """The outputs of one clip in network pixels, of the network's (frames, heads)."""
    values = []
    for output in told:
        head, place = heads[output.head], output.head
        numbers = np.asarray(raw[:, place], np.float64)
        numbers = numbers * targets.spread[place] + targets.mean[place]
        if head.score:
            numbers = special.expit(numbers)
        elif head.link is Link.LOG:
            numbers = np.exp(np.clip(numbers, -50.0, 50.0))
        values.append(joined(numbers, output.join)[0])
    return np.array(values)
