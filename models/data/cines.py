"""Cines made from a patient's two traced frames.

The frame between end diastole (phase 0) and end systole (phase 1) is a real frame, warped along
the displacement of the tracing. Both tracings are walked in the same way (levels along the long
axis, left and right wall, inner and outer outline, atrium), which pairs their points; a
thin-plate spline spreads the displacement over the frame, and the frame's edge stays where it is.
Scaling the displacement gives the same heart another ejection fraction. What a made cine lacks:
valves that open, speckle that changes, breathing.

As a data set, with options behind the folder (:func:`open_dataset`):

    DIR:cines
    DIR:cines,frames=40,frame_time_ms=40,strength=0.6..1.2,copies=3

============= =========== ======================================================================
option        without it  meaning
============= =========== ======================================================================
frames        40          of a cine
frame_time_ms 40          from a frame to the next
heart_rate    50..100     beats a minute: drawn from a range, or one number
strength      1           of the displacement: drawn from a range, or one number
copies        1           hearts of each patient, each with rate and strength of its own
seed          0           of what is drawn
source        ed          the real frame that is warped; "both": the nearer of ED and ES
============= =========== ======================================================================

All copies of a patient are in the split of CAMUS that the patient is in. Truth is measured on the
warped tracing, at end diastole and end systole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, ndimage

from models import measure
from models.clip import Clip
from models.data.camus import (
    CITATION,
    LICENCE,
    CamusDataset,
    Patient,
    TracedFrame,
    in_sector,
    traced_truths,
)
from models.data.dataset import CINES, Case, DatasetError, LazyTruths
from models.data.options import Readers, number, read_options, span, whole
from models.finding import Evidence
from models.views import View

_LEVELS = np.linspace(0.03, 0.97, 12)
_ATRIUM_LEVELS = np.linspace(0.1, 0.9, 5)
_GRID = 22  # the spline is solved on a coarse grid and spread bilinearly: it is smooth
_SMOOTHING = (1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5)  # of the spline, the least that serves is taken
LEAST_SHARE = 0.25
"""Tissue is stretched to four times its area at most; below 0 it would fold over."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class CineOptions:
    """What is behind the colon; see the module's table."""

    frames: int = 40
    frame_time_ms: float = 40.0
    heart_rate: tuple[float, float] = (50.0, 100.0)
    strength: tuple[float, float] = (1.0, 1.0)
    copies: int = 1
    seed: int = 0
    source: str = "ed"


@dataclass(frozen=True, kw_only=True)
class CinesDataset:
    """Cines made from the patients of CAMUS, split as CAMUS is."""

    camus: CamusDataset
    options: CineOptions
    name: str = "camus-cines"
    evidence: Evidence = Evidence.PATIENTS
    licence: str = LICENCE
    citation: str = CITATION

    @property
    def title(self) -> str:
        """Which cines these are."""
        given = self.options
        low, high = given.strength
        scaled = "" if low == high == 1.0 else f", contraction times {low:g} to {high:g}"
        return (
            f"Cines made from patients of CAMUS, apical four-chamber: {given.frames} frames "
            f"{given.frame_time_ms:g} ms apart{scaled}"
        )

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of figures on these cines must know."""
        return (
            (
                "A cine is made from a patient's real frame by warping it: no valve opens and no "
                "speckle changes in it, and truth is measured on the warped tracing."
            ),
            "Copies of one patient are not patients of their own: intervals go over patients.",
            *self.camus.caveats,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tables of CAMUS and of the options."""
        words = self.camus.fingerprint + repr(self.options)
        return hashlib.sha256(words.encode()).hexdigest()

    def cases(self, split: str) -> tuple[Case, ...]:
        """The cines of a split's patients; none is made before it is asked for.

        Raises
        ------
        models.data.dataset.DatasetError
            If there is no such split.
        """
        patients = self.camus.patients(split)
        copies = range(self.options.copies)
        return tuple(self._case(patient, copy) for patient in patients for copy in copies)

    def _case(self, patient: Patient, copy: int) -> Case:
        made = _Made(patient, copy, self.options)
        return Case(
            patient=patient.name,
            name=f"{patient.name}-{copy}" if self.options.copies > 1 else patient.name,
            clip=made.clip,
            truths=LazyTruths(made.truths),
            view=View.A4C,
            tracings=made.tracings,
        )


class _Made:
    """One cine: all that is drawn of it depends on the seed, the patient and the copy alone."""

    def __init__(self, patient: Patient, copy: int, options: CineOptions) -> None:
        self._patient, self._options = patient, options
        words = f"{options.seed}|{patient.name}|{copy}"
        rng = np.random.default_rng(list(hashlib.sha256(words.encode()).digest()))
        self._heart_rate = float(rng.uniform(*options.heart_rate))
        self._strength = float(rng.uniform(*options.strength))

    def clip(self) -> Clip:
        """The cine as a clip."""
        return _beating(self)[0]

    def tracings(self) -> dict[int, NDArray[np.uint8]]:
        """The tracing of every frame."""
        clip, frames = _beating(self)
        return in_sector(clip, [frame.labels for frame in frames])

    def truths(self) -> dict[str, float]:
        """Measured on the tracing at phase 0 and at phase 1."""
        heart = self._heart()
        ed, es = heart.at(0.0), heart.at(1.0)
        edv, esv = heart.volumes_ml()
        areas = [measure.atrium_area_cm2(one.labels, one.row_mm, one.column_mm) for one in (ed, es)]
        return {
            "ef": 100.0 * (edv - esv) / edv,
            "edv": edv,
            "esv": esv,
            "la_area": max(areas),
            **traced_truths(replace(self._patient, ed=ed, es=es)),
        }

    def _heart(self) -> Heart:
        """The heart; pushed so far that its tracing is no ventricle, it is pushed less far."""
        turn = 0.5 if self._options.source == "both" else 1.5
        strength = self._strength
        while strength > _WEAKEST:
            heart = Heart(self._patient, strength=strength, turn=turn)
            with suppress(measure.MeasureError):
                heart.volumes_ml()
                return heart
            strength *= 0.9
        return Heart(self._patient, strength=0.0, turn=turn)

    def make(self) -> tuple[Clip, list[TracedFrame]]:
        """The cine, and its frames with their tracings."""
        times = np.arange(self._options.frames) * self._options.frame_time_ms
        frames = self._heart().cine(times, heart_rate_bpm=self._heart_rate)
        first = self._patient.ed
        clip = Clip.from_frames(
            np.stack([frame.grey for frame in frames]),
            frame_time_ms=self._options.frame_time_ms,
            spacing_mm=float(np.sqrt(first.row_mm * first.column_mm)),
            heart_rate_bpm=self._heart_rate,
        )
        return clip, frames


@lru_cache(maxsize=1)
def _beating(made: _Made) -> tuple[Clip, list[TracedFrame]]:
    # Whoever wants the clip often wants its tracings next.
    return made.make()


def open_dataset(where: str) -> CinesDataset:
    """The data set of ``DIR:cines`` or ``DIR:cines,OPTION=VALUE,…``.

    Raises
    ------
    models.data.dataset.DatasetError
        If an option is unknown, given twice, or its value is none.
    """
    folder, _, rest = where.rpartition(CINES)
    if rest and not rest.startswith(","):
        raise DatasetError(f"{where}: options follow {CINES} after a comma")
    given = read_options(where, rest[1:], _READERS)
    camus = CamusDataset(folder=Path(folder))
    return CinesDataset(camus=camus, options=replace(CineOptions(), **given))


def _source(text: str) -> str:
    if text not in ("ed", "both"):
        raise ValueError("ed or both is wanted")
    return text


_WEAKEST = 0.05
_READERS: Readers = {
    "frames": whole(1),
    "frame_time_ms": number(5.0, 200.0),
    "heart_rate": span(30.0, 220.0),
    "strength": span(0.0, 2.0),
    "copies": whole(1),
    "seed": whole(0),
    "source": _source,
}


class Heart:
    """A patient's heart, to be seen at any phase.

    ``strength`` scales the displacement: 1 is the patient's own end systole. Frames of phase
    below ``turn`` are made from the real end-diastolic frame, the others from the end-systolic
    one; ``turn`` above 1 makes all from end diastole.

    Where the tracings' points contradict each other the displacement is smoothed until no tissue
    folds over (:data:`LEAST_SHARE`). So the tracing that is warped with the picture is the truth,
    and not the volumes of the patient.
    """

    def __init__(self, patient: Patient, *, strength: float = 1.0, turn: float = 0.5) -> None:
        self._strength, self._turn = strength, turn
        self._marks = _marks(patient.ed, patient.es)
        self._sources = (_Source.of(patient.ed), _Source.of(patient.es))
        # The farther a source is moved the sooner it folds: from end diastole to where the other
        # source takes over, and that one back to there.
        self._smoothing = (
            self._unfolded(self._sources[0], self._marks.ed, (min(turn, 1.0),)),
            self._unfolded(self._sources[1], self._marks.es, (turn, 1.0) if turn <= 1 else ()),
        )

    def at(self, phase: float) -> TracedFrame:
        """The frame and its tracing at a phase from 0 to 1."""
        number = 0 if phase < self._turn else 1
        source = self._sources[number]
        marks = self._marks.es if number else self._marks.ed
        target = self._target(phase)
        if np.abs(marks - target).max() < 1e-6:
            return source.frame
        return source.warped(_moves(source, self._marks, marks, target, self._smoothing[number]))

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

    def _target(self, phase: float) -> NDArray[np.float64]:
        marks = self._marks
        return np.asarray(marks.ed + phase * self._strength * (marks.es - marks.ed), np.float64)

    def _unfolded(
        self, source: _Source, marks: NDArray[np.float64], phases: Sequence[float]
    ) -> float:
        """The least smoothing under which nothing folds at these phases."""
        targets = [self._target(phase) for phase in phases]
        for smoothing in _SMOOTHING:
            moves = (_moves(source, self._marks, marks, one, smoothing) for one in targets)
            if all(_least_share(source, each) >= LEAST_SHARE for each in moves):
                return smoothing
        return _SMOOTHING[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A real frame, its sector, and the frame with the sector mirrored in its rim.

    ``down`` and ``across`` say where its rows and columns lie in the coarse grid.
    """

    frame: TracedFrame
    sector: NDArray[np.bool_]
    spread: NDArray[np.uint8]
    down: tuple[NDArray[np.intp], NDArray[np.float64]]
    across: tuple[NDArray[np.intp], NDArray[np.float64]]

    @staticmethod
    def of(frame: TracedFrame) -> _Source:
        sector = ndimage.binary_fill_holes(ndimage.binary_closing(frame.grey > 0, iterations=2))
        sector |= frame.grey > 0
        inner = ndimage.binary_erosion(sector, iterations=3)
        nearest = ndimage.distance_transform_edt(
            ~inner, return_distances=False, return_indices=True
        )
        rows, columns = frame.grey.shape
        limits = np.array([rows - 1, columns - 1])[:, np.newaxis, np.newaxis]
        # What moves into the sector from outside was never seen: speckle like that at the rim
        # looks less odd than streaks of the rim itself.
        mirrored = np.clip(2 * nearest - np.indices(frame.grey.shape), 0, limits)
        at = np.where(inner[tuple(mirrored)], mirrored, nearest)
        return _Source(
            frame=frame,
            sector=sector,
            spread=frame.grey[tuple(at)],
            down=_between(rows),
            across=_between(columns),
        )

    def warped(self, moves: NDArray[np.float64]) -> TracedFrame:
        """The frame moved by (grid, grid, 2) moves; the sector's own outline stays."""
        frame = self.frame
        inside = np.nonzero(self.sector)
        places = [at + _spread(self, moves[..., axis])[inside] for axis, at in enumerate(inside)]
        grey, labels = np.zeros_like(frame.grey), np.zeros_like(frame.labels)
        grey[inside] = ndimage.map_coordinates(self.spread, places, order=1, mode="nearest")
        labels[inside] = ndimage.map_coordinates(frame.labels, places, order=0, mode="nearest")
        return TracedFrame(grey=grey, labels=labels, row_mm=frame.row_mm, column_mm=frame.column_mm)


def _moves(
    source: _Source,
    both: _Marks,
    marks: NDArray[np.float64],
    target: NDArray[np.float64],
    smoothing: float,
) -> NDArray[np.float64]:
    """On a grid of (grid, grid, 2): from where in the source each place is taken, less itself."""
    shift = interpolate.RBFInterpolator(
        np.concatenate([target, both.edge]),
        np.concatenate([marks - target, np.zeros_like(both.edge)]),
        kernel="thin_plate_spline",
        smoothing=smoothing,
    )
    knots = _knots(source)
    coarse = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray(shift(coarse).reshape(_GRID, _GRID, 2), np.float64)


def _least_share(source: _Source, moves: NDArray[np.float64]) -> float:
    """The least area of source that a piece of the warped frame is made from, over its own."""
    down, across = _knots(source)
    by_row = np.gradient(moves, down, axis=0)
    by_column = np.gradient(moves, across, axis=1)
    share = (1 + by_row[..., 0]) * (1 + by_column[..., 1]) - by_row[..., 1] * by_column[..., 0]
    return float(share.min())


def _knots(source: _Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = source.frame.grey.shape
    return np.linspace(0, rows - 1, _GRID), np.linspace(0, columns - 1, _GRID)


def _between(count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each of so many pixels: the knot before it, and how far it lies to the next (0 to 1)."""
    place = np.linspace(0, _GRID - 1, count)
    before = np.minimum(place.astype(np.intp), _GRID - 2)
    return before, place - before


def _spread(source: _Source, coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    """(grid, grid) to the frame's (rows, columns), bilinear."""
    row, share = source.down
    tall = coarse[row] + share[:, np.newaxis] * (coarse[row + 1] - coarse[row])
    column, share = source.across
    return np.asarray(tall[:, column] + share * (tall[:, column + 1] - tall[:, column]))


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
    for index, level in enumerate(levels):
        slab = aside[np.abs(along - level) < 1.0 / np.linalg.norm(axis)]
        if len(slab) >= 3:
            for side, place in (("left", slab.min()), ("right", slab.max())):
                marks[f"{name}-{side}-{index}"] = base + level * axis + place * across
    return marks
