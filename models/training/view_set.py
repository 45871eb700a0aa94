"""The view classifier's data: simulated clips and patients' frames, as serving sees them.

Every example goes the whole way of a clip that a machine sends: it is drawn on a screen, written
as a DICOM object, read by :func:`models.clip.read_clip` (which finds the sector and blanks the
rest) and fitted by :func:`models.preprocess.fit_grey`. So training sees what serving sees.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from models.clip import Clip, ClipError, Mode, read_clip
from models.data.camus import Patient, hold_out, read_camus
from models.packs.manifest import InputSpec
from models.preprocess import fit_grey
from models.simulator import SimulatedClip, simulate
from models.simulator.dicom import to_bytes, to_dicom
from models.training.view_patients import LENT_VIEWS, Donor, donors_of, patient_clip
from models.views import FRAMES, View

log = logging.getLogger(__name__)

CLASSES = tuple(View)
"""Order of the network's last axis."""

HELD_PATIENTS = 48
"""Training patients that no weight sees: for temperature and threshold."""

_SIZES = ((240, 320), (240, 320), (200, 280), (300, 400), (316, 384), (480, 640))
_LEND_A_LOOK = 0.6  #: share of simulated clips that take grain and grey levels from a patient
_STILLS = (View.PW, View.CW, View.M_MODE)
_LENT_TO_CHECK = 40  #: stand-ins of each view, held out and for the test; of A4C four times that
_MORE = {
    View.A4C: 2.5, View.A5C: 2.0, View.A2C: 2.0, View.A3C: 2.0, View.OTHER: 2.0, View.PW: 1.5,
    View.CW: 1.5,
}  # fmt: skip
"""Clips for training of views that are hard to tell from one another, against the rest."""
_STUDY = "1.2.826.0.1.3680043.8.498.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One clip to make. ``lent``: of patients' pixels, else simulated."""

    split: str  #: train, held or test
    view: View
    seed: int
    lent: bool
    frames: int


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """Frames of many clips: grey (n, rows, columns) uint8; the rest (n,)."""

    grey: NDArray[np.uint8]
    label: NDArray[np.int64]  #: index into CLASSES
    clip: NDArray[np.int64]  #: frames of one clip share a number
    lent: NDArray[np.bool_]
    split: NDArray[np.str_]
    mode: NDArray[np.str_]  #: what the object's header says, as :class:`models.clip.Mode`

    def part(self, split: str, *, lent: bool | None = None) -> ViewSet:
        """The frames of one split; simulated or lent ones only, where asked for."""
        chosen = self.split == split
        if lent is not None:
            chosen &= self.lent == lent
        return ViewSet(
            grey=self.grey[chosen],
            label=self.label[chosen],
            clip=self.clip[chosen],
            lent=self.lent[chosen],
            split=self.split[chosen],
            mode=self.mode[chosen],
        )

    def save(self, path: Path) -> None:
        """Write to an ``.npz`` file."""
        np.savez_compressed(
            path,
            grey=self.grey,
            label=self.label,
            clip=self.clip,
            lent=self.lent,
            split=self.split,
            mode=self.mode,
        )

    @classmethod
    def load(cls, path: Path) -> ViewSet:
        """Read what :meth:`save` wrote; the first version's sets say nothing of modes."""
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        arrays.setdefault("mode", np.full(len(arrays["label"]), Mode.UNKNOWN.value))
        return cls(**arrays)

    def with_more(self, other: ViewSet) -> ViewSet:
        """Both, the other's clips numbered after this one's."""
        after = int(self.clip.max()) + 1 if len(self.clip) else 0
        return ViewSet(
            grey=np.concatenate([self.grey, other.grey]),
            label=np.concatenate([self.label, other.label]),
            clip=np.concatenate([self.clip, other.clip + after]),
            lent=np.concatenate([self.lent, other.lent]),
            split=np.concatenate([self.split, other.split]),
            mode=np.concatenate([self.mode, other.mode]),
        )


def plan(
    *, seed: int, clips: int, held_clips: int, test_clips: int, patient_clips: int
) -> list[Job]:
    """All clips to make.

    For training one frame of each clip, for other hearts teach more than other moments do; of
    views that are hard to tell apart up to 2.5 times ``clips``. Of clips that are held out or for
    the test ten frames, and of every view as many. ``patient_clips`` is the number of stand-ins for
    each view but A4C, which gets four times as many, for there its pixels are the real thing.
    """
    jobs = []
    numbers = {"train": clips, "held": held_clips, "test": test_clips}
    for place, (split, count) in enumerate(numbers.items()):
        for view in View:
            first = ((seed * 10 + place) * 100 + CLASSES.index(view)) * 100_000
            shown = 1 if split == "train" or view in _STILLS else FRAMES
            number = round(count * _MORE.get(view, 1.0)) if split == "train" else count
            jobs += [
                Job(split=split, view=view, seed=first + i, lent=False, frames=shown)
                for i in range(number)
            ]
            if view in LENT_VIEWS:
                share = patient_clips if split == "train" else _LENT_TO_CHECK
                total = share * (4 if view is View.A4C else 1)
                jobs += [
                    Job(split=split, view=view, seed=first + 50_000 + i, lent=True, frames=1)
                    for i in range(total)
                ]
    return jobs


def make_set(
    jobs: Sequence[Job], *, camus: Path, seed: int, spec: InputSpec, workers: int
) -> ViewSet:
    """Make all clips, in ``workers`` processes. The outcome does not depend on their number."""
    began = time.monotonic()
    frames, labels, clips, lent, splits, modes = [], [], [], [], [], []
    context = get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(camus, seed, spec)
    ) as pool:
        for number, (job, (grey, mode)) in enumerate(
            zip(jobs, pool.map(_make, jobs, chunksize=16), strict=True)
        ):
            frames.append(grey)
            labels += [CLASSES.index(job.view)] * len(grey)
            clips += [number] * len(grey)
            lent += [job.lent] * len(grey)
            splits += [job.split] * len(grey)
            modes += [mode] * len(grey)
            if number % 500 == 0:
                log.info("%d of %d clips, %.0f s", number, len(jobs), time.monotonic() - began)
    return ViewSet(
        grey=np.concatenate(frames),
        label=np.array(labels, np.int64),
        clip=np.array(clips, np.int64),
        lent=np.array(lent, bool),
        split=np.array(splits, np.str_),
        mode=np.array(modes, np.str_),
    )


def split_patients(camus: Path, seed: int) -> dict[str, tuple[Patient, ...]]:
    """Patients for training, held out for choices, and for the test (CAMUS's "valid")."""
    train, held = hold_out(read_camus(camus, "train"), HELD_PATIENTS, seed)
    return {"train": train, "held": held, "test": read_camus(camus, "valid")}


def as_read(clip: SimulatedClip, rng: np.random.Generator | None = None) -> Clip | None:
    """A clip after writing and reading; None where no picture is found, and no network asked.

    ``rng`` varies the transfer syntax, the JPEG quality and whether the regions are declared.
    """
    syntax, quality, regions = JPEGBaseline8Bit, 90, True
    if rng is not None:
        syntax = JPEGBaseline8Bit if rng.random() < 0.8 else ExplicitVRLittleEndian
        quality, regions = int(rng.integers(55, 97)), bool(rng.random() < 0.6)
    written = to_dicom(
        clip, study_uid=_STUDY, transfer_syntax=syntax, jpeg_quality=quality, with_regions=regions
    )
    try:
        read = read_clip(to_bytes(written))
    except ClipError:
        return None
    return read if read.sector.mask.any() else None


def served(
    clip: SimulatedClip, spec: InputSpec, rng: np.random.Generator | None = None
) -> NDArray[np.uint8]:
    """(n, spec.rows, spec.columns): a clip's frames after writing, reading and fitting.

    Nothing comes back, (0, ...), where no picture is found. ``rng`` as for :func:`as_read`.
    """
    read = as_read(clip, rng)
    if read is None:
        return np.zeros((0, spec.rows, spec.columns), np.uint8)
    return fit_grey(read.frames(), spec)[0]


@dataclass(frozen=True)
class _Worker:
    donors: dict[str, tuple[Donor, ...]]
    spec: InputSpec


_WORKER: list[_Worker] = []  # one per process, set once by the pool's initializer


def _start_worker(camus: Path, seed: int, spec: InputSpec) -> None:
    donors = {split: donors_of(part) for split, part in split_patients(camus, seed).items()}
    _WORKER.append(_Worker(donors, spec))


def _make(job: Job) -> tuple[NDArray[np.uint8], Mode]:
    worker = _WORKER[0]
    rng = np.random.default_rng([job.seed, 77])
    donors = worker.donors[job.split]
    donor = donors[job.seed % len(donors)]
    size = _SIZES[int(rng.integers(len(_SIZES)))]
    if job.lent:
        clip = patient_clip(donor, job.view, rng=rng, size=size)
    else:
        clip = simulate(
            job.view,
            seed=job.seed,
            frames=job.frames,
            size=size,
            frame_time_ms=float(rng.uniform(60, 260)),
            borrowed=donor.look if rng.random() < _LEND_A_LOOK else None,
            masks=False,
        )
    read = as_read(clip, rng)
    if read is None:
        return np.zeros((0, worker.spec.rows, worker.spec.columns), np.uint8), Mode.UNKNOWN
    return fit_grey(read.frames(), worker.spec)[0], read.mode


def clip_means(values: NDArray[np.float64], clip: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the frames of each clip, in the order of the clips' numbers."""
    numbers, index = np.unique(clip, return_inverse=True)
    out = np.zeros((len(numbers), values.shape[1]))
    np.add.at(out, index, values)
    return out / np.bincount(index)[:, None]


def first_of_clip(values: Iterable[int], clip: NDArray[np.int64]) -> NDArray[np.int64]:
    """The value of each clip's first frame, in the order of the clips' numbers."""
    return np.asarray(list(values), np.int64)[np.unique(clip, return_index=True)[1]]
