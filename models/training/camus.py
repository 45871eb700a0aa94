"""CAMUS, apical four-chamber: patients, their traced frames, and splits by patient.

Leclerc et al. 2019, IEEE TMI 38(9), doi 10.1109/TMI.2019.2900516; CC BY-NC-SA 4.0. The folder
holds, for each patient, the end-diastolic and end-systolic frame (cropped to the sector, black
outside it), an expert's tracing of each, and single-plane volumes of the tracings.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.packs.manifest import InputSpec
from models.preprocess import Fit, fit_grey

CLASSES = ("background", "cavity", "myocardium", "atrium")
"""Meaning of the values of a tracing."""

LICENCE = "CC BY-NC-SA 4.0, non-commercial scientific research only"
CITATION = (
    "S. Leclerc, E. Smistad, J. Pedrosa, A. Ostvik, et al., Deep Learning for Segmentation using "
    "an Open Large-Scale Dataset in 2D Echocardiography, IEEE Transactions on Medical Imaging "
    "38(9), 2198-2210, 2019, doi 10.1109/TMI.2019.2900516"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedFrame:
    """A frame and its tracing: both (rows, columns) uint8; ``labels`` index :data:`CLASSES`."""

    grey: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    row_mm: float
    column_mm: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """A patient: two traced frames, and what the tracings measure."""

    name: str
    split: str
    ed: TracedFrame
    es: TracedFrame
    edv_ml: float
    esv_ml: float
    ef_percent: float
    la_area_cm2: float


def read_camus(folder: Path, split: str) -> tuple[Patient, ...]:
    """Read all patients of a split ("train" or "valid"), by name.

    Raises
    ------
    FileNotFoundError
        If the folder is not the data set.
    """
    spacing: dict[tuple[str, str], tuple[float, float]] = {}
    for row in _table(folder / "index.tsv"):
        where = (row["patient"], row["phase"])
        spacing[where] = (float(row["mm_per_px_y"]), float(row["mm_per_px_x"]))
    patients = []
    for row in _table(folder / "volumes.tsv"):
        if row["split"] != split:
            continue
        name = row["patient"]
        ed, es = (_frame(folder, name, phase, spacing[name, phase]) for phase in ("ED", "ES"))
        patients.append(
            Patient(
                name=name,
                split=split,
                ed=ed,
                es=es,
                edv_ml=float(row["edv_ml"]),
                esv_ml=float(row["esv_ml"]),
                ef_percent=float(row["ef_percent"]),
                la_area_cm2=float(row["la_area_max_cm2"]),
            )
        )
    return tuple(patients)


def hold_out(
    patients: Sequence[Patient], count: int, seed: int
) -> tuple[tuple[Patient, ...], tuple[Patient, ...]]:
    """Split by patient: all but ``count`` of them, and ``count`` of them, drawn by ``seed``."""
    held = set(np.random.default_rng(seed).permutation(len(patients))[:count].tolist())
    kept = tuple(patient for index, patient in enumerate(patients) if index not in held)
    return kept, tuple(patient for index, patient in enumerate(patients) if index in held)


def fit_labels(labels: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
    """A tracing in network coordinates: (fit.rows, fit.columns, 3) coverage, 0 to 255.

    The share of each pixel that cavity, myocardium and atrium cover: edges stay where they were
    traced, finer than a pixel.
    """
    out = np.zeros((fit.rows, fit.columns, len(CLASSES) - 1), np.uint8)
    rows = slice(fit.top, fit.top + fit.height)
    columns = slice(fit.left, fit.left + fit.width)
    for index in range(1, len(CLASSES)):
        image = Image.fromarray(np.where(labels == index, 255, 0).astype(np.uint8))
        scaled = image.resize((fit.width, fit.height), Image.Resampling.BILINEAR)
        out[rows, columns, index - 1] = np.asarray(scaled)
    return out


def fitted(
    patients: Sequence[Patient], spec: InputSpec
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All frames, ED then ES of each patient, as the network sees them, and their tracings.

    (2 n, rows, columns) grey and (2 n, rows, columns, 3) coverage, 8-bit.
    """
    greys, covers = [], []
    for patient in patients:
        for frame in (patient.ed, patient.es):
            grey, fit = fit_grey(frame.grey[np.newaxis], spec)
            greys.append(grey[0])
            covers.append(fit_labels(frame.labels, fit))
    return np.stack(greys), np.stack(covers)


def _frame(folder: Path, name: str, phase: str, spacing: tuple[float, float]) -> TracedFrame:
    def pixels(suffix: str) -> NDArray[np.uint8]:
        with Image.open(folder / f"{name}_4CH_{phase}{suffix}.png") as image:
            return np.asarray(image.convert("L"))

    return TracedFrame(
        grey=pixels(""), labels=pixels("_gt"), row_mm=spacing[0], column_mm=spacing[1]
    )


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))
