"""Cines made from a patient's two traced frames.

The frame between end diastole (phase 0) and end systole (phase 1) is a real frame, warped along
the displacement of the tracing. Both tracings are walked in the same way (levels along the long
axis, left and right wall, inner and outer outline, atrium), which pairs their points; a
thin-plate spline spreads the displacement over the frame, and the frame's edge stays where it is.
Scaling the displacement gives the same heart another ejection fraction. What a made cine lacks:
valves that open, speckle that changes, breathing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, ndimage

from models import measure
from models.data.camus import Patient, TracedFrame

_LEVELS = np.linspace(0.03, 0.97, 12)
_ATRIUM_LEVELS = np.linspace(0.1, 0.9, 5)
_GRID = 22  # the spline is solved on a coarse grid and spread bilinearly: it is smooth

# Share of the way from end diastole to end systole, by share of the beat: contraction over a
# third of it, quick filling, a rest, and the atrium's kick.
_BEAT = np.array([0.0, 0.06, 0.20, 0.33, 0.38, 0.50, 0.60, 0.80, 0.90, 1.0])
_WAY = np.array([0.0, 0.10, 0.75, 1.00, 0.98, 0.45, 0.25, 0.20, 0.06, 0.0])


def phase_at(share_of_beat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Phase (0 end diastole, 1 end systole) at a share of the beat; whole beats repeat."""
    curve = interpolate.PchipInterpolator(_BEAT, _WAY)
    return np.asarray(curve(np.mod(share_of_beat, 1.0)), np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Marks:
    """Paired points, (n, 2) row and column, in both frames, and the frame's edge."""

    ed: NDArray[np.float64]
    es: NDArray[np.float64]
    edge: NDArray[np.float64]


class Heart:
    """A patient's heart, to be seen at any phase.

    ``strength`` scales the displacement: 1 is the patient's own end systole. Frames of phase
    below ``turn`` are made from the real end-diastolic frame, the others from the end-systolic
    one; ``turn`` above 1 makes all from end diastole.
    """

    def __init__(self, patient: Patient, *, strength: float = 1.0, turn: float = 0.5) -> None:
        self._strength, self._turn = strength, turn
        self._marks = _marks(patient.ed, patient.es)
        self._sources = (_Source.of(patient.ed), _Source.of(patient.es))

    def at(self, phase: float) -> TracedFrame:
        """The frame and its tracing at a phase from 0 to 1."""
        marks = self._marks
        target = marks.ed + phase * self._strength * (marks.es - marks.ed)
        from_ed = phase < self._turn
        source = self._sources[0 if from_ed else 1]
        return _warped(source, marks.ed if from_ed else marks.es, target, marks.edge)

    def volumes_ml(self) -> tuple[float, float]:
        """End-diastolic and end-systolic volume of this heart, from its tracings by discs."""
        ed, es = (
            measure.measure_ventricle(frame.labels, frame.row_mm, frame.column_mm).volume_ml
            for frame in (self.at(0.0), self.at(1.0))
        )
        return ed, es

    def cine(self, times_ms: NDArray[np.floating], *, heart_rate_bpm: float) -> list[TracedFrame]:
        """Frames at these times, from an end diastole on."""
        phases = phase_at(np.asarray(times_ms) * heart_rate_bpm / 60_000)
        return [self.at(float(phase)) for phase in phases]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A real frame, its sector, and the frame with the sector's rim spread over the black."""

    frame: TracedFrame
    sector: NDArray[np.bool_]
    spread: NDArray[np.uint8]

    @staticmethod
    def of(frame: TracedFrame) -> _Source:
        sector = ndimage.binary_fill_holes(ndimage.binary_closing(frame.grey > 0, iterations=2))
        sector |= frame.grey > 0
        nearest = ndimage.distance_transform_edt(
            ~ndimage.binary_erosion(sector, iterations=3),
            return_distances=False,
            return_indices=True,
        )
        return _Source(frame=frame, sector=sector, spread=frame.grey[tuple(nearest)])


def _warped(
    source: _Source,
    marks: NDArray[np.float64],
    target: NDArray[np.float64],
    edge: NDArray[np.float64],
) -> TracedFrame:
    """Move ``marks`` of the source to ``target``; the sector's own outline stays."""
    frame = source.frame
    if np.abs(marks - target).max() < 1e-6:
        return frame
    rows, columns = frame.grey.shape
    shift = interpolate.RBFInterpolator(
        np.concatenate([target, edge]),
        np.concatenate([marks - target, np.zeros_like(edge)]),
        kernel="thin_plate_spline",
        smoothing=0.1,
    )
    knots = np.linspace(0, rows - 1, _GRID), np.linspace(0, columns - 1, _GRID)
    coarse = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, 2)
    moves = shift(coarse).reshape(_GRID, _GRID, 2)
    at_row, at_column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    places = []
    for axis, at in enumerate((at_row, at_column)):
        grid = [at_row * ((_GRID - 1) / (rows - 1)), at_column * ((_GRID - 1) / (columns - 1))]
        places.append(at + ndimage.map_coordinates(moves[..., axis], grid, order=1))
    grey = ndimage.map_coordinates(source.spread, places, order=1, mode="nearest")
    labels = ndimage.map_coordinates(frame.labels, places, order=0, mode="nearest")
    return TracedFrame(
        grey=np.where(source.sector, grey, 0).astype(np.uint8),
        labels=labels,
        row_mm=frame.row_mm,
        column_mm=frame.column_mm,
    )


def _marks(ed: TracedFrame, es: TracedFrame) -> _Marks:
    rows, columns = ed.grey.shape
    pairs = [_walk(frame) for frame in (ed, es)]
    shared = sorted(set(pairs[0]) & set(pairs[1]))
    down, across = np.linspace(0, rows - 1, 6), np.linspace(0, columns - 1, 6)
    edge = [(row, column) for row in down for column in (0.0, columns - 1.0)]
    edge += [(row, column) for row in (0.0, rows - 1.0) for column in across[1:-1]]
    return _Marks(
        ed=np.array([pairs[0][key] for key in shared]),
        es=np.array([pairs[1][key] for key in shared]),
        edge=np.array(edge, np.float64),
    )


def _walk(frame: TracedFrame) -> dict[str, NDArray[np.float64]]:
    """Named points of a tracing: walls at levels of the long axis, both tips, the atrium."""
    found = measure.measure_ventricle(frame.labels, frame.row_mm, frame.column_mm)
    base, apex = np.array(found.base), np.array(found.apex)
    axis = apex - base
    marks = {"base": base, "apex": apex}
    marks |= _walls("inner", frame.labels == measure.CAVITY, base, axis, _LEVELS)
    outer = (frame.labels == measure.CAVITY) | (frame.labels == measure.MYOCARDIUM)
    marks |= _walls("outer", outer, base, axis, _LEVELS)
    along = (np.argwhere(outer) - base) @ axis / (axis @ axis)
    marks["tip"] = base + along.max() * axis
    atrium = frame.labels == measure.ATRIUM
    if atrium.sum() > 100:
        length = (-((np.argwhere(atrium) - base) @ axis) / (axis @ axis)).max()
        if length > 0.1:
            marks["roof"] = base - length * axis
            marks |= _walls("atrium", atrium, base, -length * axis, _ATRIUM_LEVELS)
    return marks


def _walls(
    name: str,
    mask: NDArray[np.bool_],
    base: NDArray[np.float64],
    axis: NDArray[np.float64],
    levels: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Where the mask begins and ends across the axis, at each level of it."""
    across = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
    # Whichever way the axis runs, "left" stays on the same side of the picture.
    across = across if across[1] > 0 else -across
    points = np.argwhere(mask) - base
    along, aside = points @ axis / (axis @ axis), points @ across
    marks = {}
    for number, level in enumerate(levels):
        slab = aside[np.abs(along - level) < 1.0 / np.linalg.norm(axis)]
        if len(slab) >= 3:
            for side, place in (("left", slab.min()), ("right", slab.max())):
                marks[f"{name}-{side}-{number}"] = base + level * axis + place * across
    return marks
