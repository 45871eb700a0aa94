"""CAMUS, apical four-chamber: patients, their traced frames, and splits by patient.

Leclerc et al. 2019, IEEE TMI 38(9), doi 10.1109/TMI.2019.2900516; CC BY-NC-SA 4.0. The folder
holds, for each patient, the end-diastolic and end-systolic frame (cropped to the sector, black
outside it), an expert's tracing of each, and single-plane volumes of the tracings.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models import measure
from models.clip import Clip
from models.data.dataset import SPLITS, WALL, Case, DatasetError, LazyTruths
from models.finding import Evidence
from models.packs.manifest import InputSpec
from models.preprocess import Fit, fit_grey
from models.views import View

CLASSES = ("background", "cavity", "myocardium", "atrium")
"""Meaning of the values of a tracing."""

LICENCE = "CC BY-NC-SA 4.0, non-commercial scientific research only"
CITATION = (
    "S. Leclerc, E. Smistad, J. Pedrosa, A. Ostvik, et al., Deep Learning for Segmentation using "
    "an Open Large-Scale Dataset in 2D Echocardiography, IEEE Transactions on Medical Imaging "
    "38(9), 2198-2210, 2019, doi 10.1109/TMI.2019.2900516"
)


HELD_PATIENTS, HELD_SEED = 48, 1
"""Training patients that no weight sees: for choices and for the width of intervals."""


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


@dataclass(frozen=True, kw_only=True)
class CamusDataset:
    """CAMUS as a data set: each patient's two traced frames are one clip.

    The published training patients are split, by :data:`HELD_SEED`, into those for weights and
    :data:`HELD_PATIENTS` for choices; ``valid`` is the published validation split.
    """

    folder: Path
    name: str = "camus-a4c"
    title: str = "CAMUS, apical four-chamber: one hospital, one maker, end diastole and end systole"
    evidence: Evidence = Evidence.PATIENTS
    licence: str = LICENCE
    citation: str = CITATION
    caveats: tuple[str, ...] = (
        (
            "Truth is an expert's tracing of the same two frames, measured by discs in one plane: "
            "not the biplane volume of the clinic."
        ),
        "CAMUS is one hospital and one maker.",
        (
            "Hypertrophy is a sign on the tracing, not a diagnosis: the wall is 14 mm or more at "
            "end diastole. Tracings in this view are thicker than the clinic's measurement: the "
            "median of 399 training patients is 12 mm."
        ),
        (
            "Left-atrial volume is of one plane, at end systole, and known of two thirds of the "
            "patients; of the others the atrium is cut by the frame's edge, and their area is that "
            "of the part that is seen. Severe dilation is not known: body size is not."
        ),
    )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What counts as an output's truth here, where its name alone does not say."""
        return {"lvh": f"the finding is a wall of {THICK_WALL_MM:g} mm or more on the tracing"}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of both tables, which name every frame, spacing and volume."""
        digest = hashlib.sha256()
        for table in ("index.tsv", "volumes.tsv"):
            digest.update((self.folder / table).read_bytes())
        return digest.hexdigest()

    def patients(self, split: str) -> tuple[Patient, ...]:
        """The patients of a split.

        Raises
        ------
        models.data.dataset.DatasetError
            If there is no such split.
        """
        if split == "valid":
            return read_camus(self.folder, "valid")
        if split not in SPLITS:
            raise DatasetError(f"{self.folder}: no split {split!r}; there are {', '.join(SPLITS)}")
        kept, held = hold_out(read_camus(self.folder, "train"), HELD_PATIENTS, HELD_SEED)
        return kept if split == "train" else held

    def cases(self, split: str) -> tuple[Case, ...]:
        """The patients of a split as cases: two frames each, a second apart."""
        return tuple(_case(patient) for patient in self.patients(split))


def open_dataset(where: str) -> CamusDataset:
    """The data set in a folder."""
    return CamusDataset(folder=Path(where))


PAIR_FRAME_TIME_MS = 1000.0
"""Of a clip of two picked frames: slower than any machine, so that no reader takes it for film."""


def pair_clip(patient: Patient) -> Clip:
    """A patient's two real frames as a clip."""
    frames = np.stack([patient.ed.grey, patient.es.grey])
    side_mm = float(np.sqrt(patient.ed.row_mm * patient.ed.column_mm))
    return Clip.from_frames(frames, frame_time_ms=PAIR_FRAME_TIME_MS, spacing_mm=side_mm)


THICK_WALL_MM = 14.0
"""At end diastole, mean of both walls, on a tracing in this view: taken as a sign of hypertrophy.

Lang et al. 2015 (JASE 28:1-39) call 6 to 9 mm (women) and 6 to 10 mm (men) normal, and from 13 mm
(women) and 14 mm (men) on moderately abnormal, measured from the long axis. CAMUS says nothing of
hypertrophy and nothing of sex, and its tracings in this view are thicker than that measurement: in
399 training patients 12.2 +- 1.8 mm, above 10 mm in 90 %. At 14 mm, moderately
abnormal in both sexes, it is 15 %.
"""


def traced_truths(patient: Patient) -> dict[str, float]:
    """What the tracings tell beside volumes: wall, its hypertrophy, atrial volume.

    Left out is what they do not show: the volume of an atrium that the frame's edge cuts, and
    severe dilation of the atrium. That is a volume above 48 mL/m2 (Lang et al. 2015), and CAMUS
    gives no body size; by area (above 40 cm2, Lang et al. 2005, JASE 18:1440) it would be one
    patient of 399.
    """
    truths: dict[str, float] = {}
    ed, es = patient.ed, patient.es
    with suppress(measure.MeasureError):
        walls = measure.wall_thickness_mm(ed.labels, ed.row_mm, ed.column_mm)
        truths[WALL] = sum(walls) / 2
        truths["lvh"] = float(truths[WALL] >= THICK_WALL_MM)
    with suppress(measure.MeasureError):
        truths["la_volume"] = measure.measure_atrium(es.labels, es.row_mm, es.column_mm).volume_ml
    return truths


def _case(patient: Patient) -> Case:
    known = {
        "ef": patient.ef_percent,
        "edv": patient.edv_ml,
        "esv": patient.esv_ml,
        "la_area": patient.la_area_cm2,
    }
    return Case(
        patient=patient.name,
        name=patient.name,
        clip=lambda: pair_clip(patient),
        truths=LazyTruths(lambda: known | traced_truths(patient)),
        view=View.A4C,
        tracings=lambda: in_sector(pair_clip(patient), (patient.ed.labels, patient.es.labels)),
    )


def in_sector(clip: Clip, tracings: Sequence[NDArray[np.uint8]]) -> dict[int, NDArray[np.uint8]]:
    """Tracings of a clip's whole frames, one for each, cut to the box of its sector."""
    sector = clip.sector
    box = np.s_[sector.top : sector.bottom, sector.left : sector.right]
    return {index: labels[box] for index, labels in enumerate(tracings)}


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
