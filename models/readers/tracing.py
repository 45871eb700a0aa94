"""Trace every frame of a clip, and measure the tracings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models import measure
from models.clip import Clip
from models.finding import Finding, Method, Refusal
from models.packs import OutputSpec, PackKind
from models.preprocess import Fit, fit_frames
from models.readers.base import BATCH, MOST_FRAMES, Reader, Reading, by_kind, pixel_mm, spread
from models.threads import side_by_side

_LONGEST_MS = 10_000.0


def _area_cm2(labels: NDArray[np.uint8], row_mm: float, column_mm: float) -> float:
    area = measure.atrium_area_cm2(labels, row_mm, column_mm)
    if area == 0.0:
        raise measure.MeasureError("no left atrium was found")
    return area


def _volume_ml(labels: NDArray[np.uint8], row_mm: float, column_mm: float) -> float:
    return measure.measure_atrium(labels, row_mm, column_mm).volume_ml


_OF_ATRIUM: Mapping[str, Callable[[NDArray[np.uint8], float, float], float]] = {
    "la_area": _area_cm2,
    "la_volume": _volume_ml,
}
_HOW = {"la_area": Method.AREA, "la_volume": Method.AREA_LENGTH}


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


class TracingReader(Reader):
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

        def masks_from(begin: int) -> NDArray[np.uint8]:
            inputs, fit = fit_frames(frames[begin : begin + BATCH], self.spec)
            raw = self.run(inputs)
            return np.stack([_labels_in_source(logits, fit) for logits in raw])

        return np.concatenate([*side_by_side(masks_from, range(0, len(frames), BATCH))])

    def read(self, clip: Clip) -> TracingReading:
        """Read a clip.

        Raises
        ------
        models.clip.ClipError
            If the clip's pixels cannot be decoded.
        """
        masks, indices, times = self.trace(clip)
        row_mm, column_mm, scaled = pixel_mm(clip)
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
                said.append(self.refuse(output, clip.spacing.reason))
            elif curve is None or (output.needs_motion and not beats):
                said.append(self.refuse(output, reason))
            elif output.name in _OF_ATRIUM:
                said.append(self._atrium(output, masks, indices, row_mm, column_mm))
            else:
                said.append(self._ventricle(output, beats, indices))
        findings, refusals = by_kind(said)
        volumes = None if curve is None else curve.smooth
        return TracingReading(
            findings=findings,
            refusals=refusals,
            masks=masks,
            frame_indices=indices,
            times_ms=times,
            volumes_ml=volumes if scaled else None,
            volumes=volumes,
            areas=np.count_nonzero(masks == measure.CAVITY, axis=(1, 2)).astype(np.float64),
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
            return self.refuse(output, "tracings are not measured for this")
        mean = float(np.mean(each))
        beat = beats[int(np.argmin(np.abs(np.asarray(each) - mean)))]
        frames = (indices[beat.ed], indices[beat.es])
        per_beat = tuple(float(value) * output.scale + output.offset for value in each)
        value = mean * output.scale + output.offset
        return self.speak(output, value, Method.SINGLE_PLANE_DISCS, frames, per_beat)

    def _atrium(
        self,
        output: OutputSpec,
        masks: NDArray[np.uint8],
        indices: tuple[int, ...],
        row_mm: float,
        column_mm: float,
    ) -> Finding | Refusal:
        """The largest over the clip, but for single frames that stand out."""
        measured = _OF_ATRIUM[output.name]
        sizes = np.full(len(masks), np.nan)
        reasons: list[str] = []
        for index, mask in enumerate(masks):
            try:
                sizes[index] = measured(mask, row_mm, column_mm)
            except measure.MeasureError as error:
                reasons.append(str(error))
        if len(reasons) > len(masks) / 2:
            return self.refuse(output, max(set(reasons), key=reasons.count))
        if len(sizes) >= 5:
            sizes = ndimage.median_filter(
                np.where(np.isnan(sizes), np.nanmin(sizes), sizes), size=3, mode="nearest"
            )
        largest = int(np.nanargmax(sizes))
        value = float(sizes[largest]) * output.scale + output.offset
        return self.speak(output, value, _HOW[output.name], (indices[largest],))


def _labels_in_source(logits: NDArray[np.float32], fit: Fit) -> NDArray[np.uint8]:
    """The likeliest class for each pixel of a sector frame, decided at its resolution."""
    planes = fit.map_to_source(_chances(logits))
    best = planes[0]
    labels = np.zeros(best.shape, np.uint8)
    for index, chance in enumerate(planes[1:], start=1):
        np.copyto(labels, np.uint8(index), where=chance > best)
        np.maximum(best, chance, out=best)
    return labels


def _chances(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of (rows, columns, classes), as (classes, rows, columns).

    Class by class: over a last axis of four numbers NumPy is ten times as slow.
    """
    planes = np.array(np.moveaxis(logits, -1, 0), order="C")
    planes -= planes.max(axis=0)
    np.exp(planes, out=planes)
    planes /= planes.sum(axis=0)
    return planes


def _thinned(times_ms: NDArray[np.float64]) -> tuple[int, ...]:
    within = int(np.searchsorted(times_ms, times_ms[0] + _LONGEST_MS, side="right"))
    if within <= MOST_FRAMES:
        return tuple(range(within))
    return spread(within, MOST_FRAMES)
