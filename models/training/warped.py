"""Frames between end diastole and end systole, made of a patient's two for more shapes to learn.

Two frames of a heart show two shapes of its cavity, each with the look of its moment. The
displacement between the tracings takes the real end-diastolic frame some of the way to end
systole, and the end-systolic one some of the way back (:class:`models.data.cines.Heart`).
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data.camus import CamusDataset, fit_labels
from models.data.cines import Heart
from models.packs import InputSpec
from models.preprocess import fit_grey

log = logging.getLogger(__name__)

WAY = (0.25, 1.0)
"""How far a frame is taken towards the other moment, drawn evenly: 1 is all the way."""


def warped(
    dataset: CamusDataset, split: str, spec: InputSpec, *, seed: int, keep: Path
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One frame made of each real one, as the network sees it, and its tracing's coverage.

    (n, rows, columns) and (n, rows, columns, 3), 8-bit. They take minutes to make, so they lie in
    the file ``keep`` afterwards and are taken from there when a training goes on.
    """
    if keep.is_file():
        with np.load(keep, allow_pickle=False) as there:
            return there["greys"], there["covers"]
    patients = dataset.patients(split)
    log.info("making frames between end diastole and end systole of %d patients", len(patients))
    greys, covers = [], []
    for place, patient in enumerate(patients):
        way = np.random.default_rng((seed, place)).uniform(*WAY, 2)
        for turn, phase in ((1.5, way[0]), (0.0, 1.0 - way[1])):  # all of ED; all of ES
            made = Heart(patient, turn=turn).at(float(phase))
            grey, fit = fit_grey(made.grey[np.newaxis], spec)
            greys.append(grey[0])
            covers.append(fit_labels(made.labels, fit))
    fresh = keep.with_name(f".{keep.stem}.new.npz")
    np.savez_compressed(fresh, greys=np.stack(greys), covers=np.stack(covers))
    fresh.replace(keep)
    return np.stack(greys), np.stack(covers)
