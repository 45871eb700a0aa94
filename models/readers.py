"""Readers: a clip in, findings and refusals out, by a pack.

:class:`RegressionReader` is EchoNet's way: some frames, a number for each, their mean.
:class:`TracingReader` traces every frame and measures the tracings. TensorFlow is imported when a
reader first runs its network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from models import measure
from models.clip import Clip
from models.finding import Finding, Kind, Method, Refusal
from models.packs import InputSpec, OutputSpec, Pack, PackError, PackKind
from models.preprocess import VERSION, Fit, fit_frames
from models.tasks import TASKS

if TYPE_CHECKING:
    import keras

_BATCH = 10
"""Frames in one call of a network: a fixed shape, so that it is compiled once."""

MOST_FRAMES = 300
"""A tracing looks at no more frames than this, evenly spaced in the clip's first ten seconds."""

_FEWEST = 5  # frames that a regression averages at least, where the clip has them
_LONGEST_MS = 10_000.0
_STILL = "a still shows one moment, and this needs the heart in motion"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a pack says of a clip."""

    findings: tuple[Finding, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, kw_only=True)
class RegressionReading(Reading):
    """``frames`` are the source frames that were read; ``per_frame`` the value of each output
    for each of them, (n,), in the output's unit (NaN where no spacing can be trusted)."""

    frames: tuple[int, ...]
    per_frame: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class TracingReading(Reading):
    """Tracings of a clip and their measurements.

    ``masks`` is (n, sector rows, sector columns) uint8, class index for each pixel, for the source
    frames ``frame_indices`` at ``times_ms``. ``volumes_ml`` is the smoothed cavity volume (n,), or
    None where there is no trusted spacing or no plausible tracing; ``volumes`` is the same curve
    in cubic pixels where only the scale is missing. ``areas`` is the cavity's area in pixels.
    ``ed_frames`` and ``es_frames`` are source frames, one of each for each beat.
    """

    masks: NDArray[np.uint8]
    frame_indices: tuple[int, ...]
    times_ms: NDArray[np.float64]
    volumes_ml: NDArray[np.float64] | None
    volumes: NDArray[np.float64] | None
    areas: NDArray[np.float64]
    ed_frames: tuple[int, ...]
    es_frames: tuple[int, ...]


class _Reader:
    """What both readers share: a pack of the right kind, and its network as a function."""

    _kind: PackKind

    def __init__(self, pack: Pack) -> None:
        manifest = pack.manifest
        if manifest.kind is not self._kind:
            raise PackError(
                f"pack {pack.folder}: kind is {manifest.kind.value!r}, and {type(self).__name__} "
                f"reads {self._kind.value!r}"
            )
        if manifest.preprocessing != VERSION:
            raise PackError(
                f"pack {pack.folder}: made for preprocessing version {manifest.preprocessing}, "
                f"and this echonode has version {VERSION}; use the matching release of the pack"
            )
        for output in manifest.outputs:
            if output.name not in TASKS:
                raise PackError(
                    f"pack {pack.folder}: output {output.name!r} is not in models.tasks"
                )
        self.pack = pack

    @property
    def network(self) -> keras.Model:
        """The pack's network. Imports Keras."""
        return self.pack.network

    @property
    def spec(self) -> InputSpec:
        """What the network sees."""
        return self.pack.manifest.input

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the network's last axis for a regression."""
        return tuple(output.name for output in self.pack.manifest.outputs)

    @cached_property
    def _compiled(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        import tensorflow as tf

        network = self.network
        shape = (_BATCH, self.spec.rows, self.spec.columns, 1)

        run = tf.function(
            lambda batch: network(batch, training=False),
            input_signature=[tf.TensorSpec(shape, tf.float32)],
        )
        return lambda batch: np.asarray(run(tf.constant(batch)).numpy(), np.float32)

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network on (n, rows, columns, 1), in batches of one fixed shape."""
        parts = []
        for begin in range(0, len(inputs), _BATCH):
            part = inputs[begin : begin + _BATCH]
            short = _BATCH - len(part)
            padded = np.concatenate([part, np.repeat(part[-1:], short, axis=0)])
            parts.append(self._compiled(padded)[: len(part)])
        return np.concatenate(parts)

    def _refusal(self, output: OutputSpec, reason: str) -> Refusal:
        return Refusal(output=output.name, reason=reason, pack=self.pack.ref)

    def _speak(
        self, output: OutputSpec, value: float, method: Method, frames: tuple[int, ...]
    ) -> Finding | Refusal:
        """A finding, or a refusal where the value is not believable."""
        task = TASKS[output.name]
        if not task.low <= value <= task.high:
            return self._refusal(
                output,
                f"{value:.3g} {task.unit} is outside the plausible range of {task.low:g} to "
                f"{task.high:g} {task.unit}",
            )
        score = output.kind is Kind.SCORE
        return Finding(
            output=output.name,
            kind=output.kind,
            value=value,
            unit=output.unit,
            low=_bound(value, output.low_error, task.low, task.high),
            high=_bound(value, output.high_error, task.low, task.high),
            score=value if score else None,
            threshold=output.threshold if score else None,
            pack=self.pack.ref,
            evidence=output.evidence,
            method=Method.CLASSIFICATION if score else method,
            frames=frames,
        )


class RegressionReader(_Reader):
    """A frame regressor: the clip's value is the mean over its frames.

    Raises
    ------
    PackError
        If the pack is not a regression, or was made for another preprocessing.
    """

    _kind = PackKind.REGRESSION

    def inputs(self, clip: Clip) -> tuple[NDArray[np.float32], Fit, tuple[int, ...]]:
        """The network's input for a clip: (n, rows, columns, 1), the fit, the source frames.

        The frames are those of the pack's interval. A clip so short that it has fewer than five
        of them gives five, evenly spread over it, or all that it has.
        """
        spec = self.spec
        if spec.interval_ms is None or spec.frames is None:
            indices = tuple(range(min(clip.frame_count, spec.frames or MOST_FRAMES)))
        else:
            indices = clip.time_axis.sample(spec.interval_ms, spec.frames)
        if len(indices) < min(_FEWEST, clip.frame_count):
            indices = _spread(clip.frame_count, min(_FEWEST, clip.frame_count))
        inputs, fit = fit_frames(clip.frames(indices), spec)
        return inputs, fit, indices

    def read(self, clip: Clip) -> RegressionReading:
        """Read a clip.

        Raises
        ------
        models.clip.ClipError
            If the clip's pixels cannot be decoded.
        """
        inputs, fit, indices = self.inputs(clip)
        raw = self._run(inputs).astype(np.float64)
        side_mm = _network_pixel_mm(clip, fit)
        said: list[Finding | Refusal] = []
        per_frame: dict[str, NDArray[np.float64]] = {}
        for column, output in enumerate(self.pack.manifest.outputs):
            values = self._values(raw[:, column], output, side_mm)
            per_frame[output.name] = values
            if output.needs_motion and len(set(indices)) < 2:
                said.append(self._refusal(output, _STILL))
            elif np.isnan(values).any():
                said.append(self._refusal(output, clip.spacing.reason))
            else:
                mean = float(values.mean())
                nearest = np.argsort(np.abs(values - mean), kind="stable")
                frames = tuple(dict.fromkeys(indices[place] for place in nearest))
                said.append(self._speak(output, mean, Method.REGRESSION, frames))
        findings, refusals = _sorted(said)
        return RegressionReading(
            findings=findings, refusals=refusals, frames=indices, per_frame=per_frame
        )

    @staticmethod
    def _values(
        raw: NDArray[np.float64], output: OutputSpec, side_mm: float | None
    ) -> NDArray[np.float64]:
        numbers = raw * output.scale + output.offset
        if output.kind is Kind.SCORE:
            return np.asarray(special.expit(numbers), np.float64)
        if output.pixel_power == 0:
            return numbers
        if side_mm is None:
            return np.full(len(raw), np.nan)
        return numbers * side_mm**output.pixel_power


class TracingReader(_Reader):
    """Traces cavity, myocardium and atrium in every frame, and measures the tracings.

    A clip of more than :data:`MOST_FRAMES` frames is thinned evenly over its first ten seconds.

    Raises
    ------
    PackError
        If the pack is not a tracing, or was made for another preprocessing.
    """

    _kind = PackKind.TRACING

    def trace(self, clip: Clip) -> tuple[NDArray[np.uint8], tuple[int, ...], NDArray[np.float64]]:
        """Masks in sector coordinates, the source frames they belong to, and their times in ms."""
        times = np.asarray(clip.time_axis.times_ms, np.float64)
        indices = _thinned(times)
        return self.trace_frames(clip.frames(indices)), indices, times[list(indices)]

    def trace_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, rows, columns) grey sector frames to class indices of the same shape."""
        masks = np.zeros(frames.shape, np.uint8)
        for begin in range(0, len(frames), _BATCH):
            part = slice(begin, begin + _BATCH)
            inputs, fit = fit_frames(frames[part], self.spec)
            chances = special.softmax(self._run(inputs), axis=-1)
            masks[part] = _labels_in_source(chances, fit)
        return masks

    def read(self, clip: Clip) -> TracingReading:
        """Read a clip.

        Raises
        ------
        models.clip.ClipError
            If the clip's pixels cannot be decoded.
        """
        masks, indices, times = self.trace(clip)
        row_mm, column_mm, scaled = _pixel_mm(clip)
        said: list[Finding | Refusal] = []
        curve: measure.Curve | None = None
        beats: tuple[measure.Beat, ...] = ()
        try:
            curve = measure.volume_curve(masks, times, row_mm, column_mm)
            beats = measure.find_beats(curve, trusted_times=clip.time_axis.trusted)
        except measure.MeasureError as error:
            reason = str(error)
        for output in self.pack.manifest.outputs:
            if output.pixel_power and not scaled:
                said.append(self._refusal(output, clip.spacing.reason))
            elif curve is None or (output.needs_motion and not beats):
                said.append(self._refusal(output, reason))
            elif output.name == "la_area":
                said.append(self._atrium(output, masks, indices, row_mm, column_mm))
            else:
                said.append(self._ventricle(output, beats, indices))
        findings, refusals = _sorted(said)
        volumes = None if curve is None else curve.smooth
        return TracingReading(
            findings=findings,
            refusals=refusals,
            masks=masks,
            frame_indices=indices,
            times_ms=times,
            volumes_ml=volumes if scaled else None,
            volumes=volumes,
            areas=(masks == measure.CAVITY).sum(axis=(1, 2)).astype(np.float64),
            ed_frames=tuple(indices[beat.ed] for beat in beats),
            es_frames=tuple(indices[beat.es] for beat in beats),
        )

    def _ventricle(
        self, output: OutputSpec, beats: tuple[measure.Beat, ...], indices: tuple[int, ...]
    ) -> Finding | Refusal:
        """The mean over beats; the beat nearest to it shows it best."""
        each = {
            "ef": [beat.ef_percent for beat in beats],
            "edv": [beat.edv for beat in beats],
            "esv": [beat.esv for beat in beats],
        }.get(output.name)
        if each is None:
            return self._refusal(output, "tracings are not measured for this")
        mean = float(np.mean(each))
        beat = beats[int(np.argmin(np.abs(np.asarray(each) - mean)))]
        frames = (indices[beat.ed], indices[beat.es])
        value = mean * output.scale + output.offset
        return self._speak(output, value, Method.SINGLE_PLANE_DISCS, frames)

    def _atrium(
        self,
        output: OutputSpec,
        masks: NDArray[np.uint8],
        indices: tuple[int, ...],
        row_mm: float,
        column_mm: float,
    ) -> Finding | Refusal:
        areas = np.array([measure.atrium_area_cm2(mask, row_mm, column_mm) for mask in masks])
        if len(areas) >= 5:
            areas = ndimage.median_filter(areas, size=3, mode="nearest")
        largest = int(np.argmax(areas))
        if areas[largest] == 0.0:
            return self._refusal(output, "no left atrium was found")
        value = float(areas[largest]) * output.scale + output.offset
        return self._speak(output, value, Method.AREA, (indices[largest],))


def _labels_in_source(chances: NDArray[np.float32], fit: Fit) -> NDArray[np.uint8]:
    """The likeliest class for each pixel of the sector frames, decided at their resolution."""
    best = np.full((len(chances), fit.source_rows, fit.source_columns), -1.0, np.float32)
    labels = np.zeros(best.shape, np.uint8)
    for index in range(chances.shape[-1]):
        chance = fit.map_to_source(chances[..., index])
        better = chance > best
        labels[better] = index
        best = np.maximum(best, chance)
    return labels


def _thinned(times_ms: NDArray[np.float64]) -> tuple[int, ...]:
    within = int(np.searchsorted(times_ms, times_ms[0] + _LONGEST_MS, side="right"))
    if within <= MOST_FRAMES:
        return tuple(range(within))
    return _spread(within, MOST_FRAMES)


def _spread(frames: int, count: int) -> tuple[int, ...]:
    """``count`` of so many frames, evenly, the first and the last among them."""
    return tuple(int(index) for index in np.linspace(0, frames - 1, count).round())


def _pixel_mm(clip: Clip) -> tuple[float, float, bool]:
    """Height and width of a sector pixel, and whether they are millimetres or only a ratio."""
    spacing = clip.spacing
    if spacing.row_mm is None or spacing.column_mm is None:
        return 1.0, 1.0, False
    return spacing.row_mm, spacing.column_mm, spacing.trusted


def _network_pixel_mm(clip: Clip, fit: Fit) -> float | None:
    """Side of a square with the area of a network pixel; None without a trusted spacing."""
    row_mm, column_mm, scaled = _pixel_mm(clip)
    if not scaled:
        return None
    return float(np.sqrt(row_mm / fit.scale_row * column_mm / fit.scale_column))


def _bound(value: float, error: float | None, low: float, high: float) -> float | None:
    return None if error is None else min(max(value + error, low), high)


def _sorted(
    said: list[Finding | Refusal],
) -> tuple[tuple[Finding, ...], tuple[Refusal, ...]]:
    findings = tuple(item for item in said if isinstance(item, Finding))
    return findings, tuple(item for item in said if isinstance(item, Refusal))
