"""A simulated clip: its frames, how its screen is divided, and the truth of what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.simulator.heart import Lead
from models.simulator.person import Person, Sex
from models.views import View

SEVERE_LA_ML_PER_M2 = 48.0
"""Above this left-atrial volume over body surface a dilation is severe: Lang et al. 2015
(ASE/EACVI chamber quantification, JASE 28:1-39), Table 9; the same for both sexes."""

MOST_WALL_CM: Mapping[Sex, float] = MappingProxyType({Sex.FEMALE: 0.9, Sex.MALE: 1.0})
"""The upper limit of a normal wall at end diastole, ibid. Table 6; above it: hypertrophy."""

_VENTRICLE = frozenset(
    (View.A4C, View.A2C, View.A3C, View.A5C, View.PSLA, View.SUB4C, View.SAX_MID)
)
_ATRIUM = frozenset((View.A4C, View.A2C))
_FOUR = frozenset((View.A4C, View.A5C, View.SUB4C))
_HEART = _VENTRICLE | {View.RV_INFLOW, View.SAX_BASAL}
_SECTIONS = _HEART | {View.IVC, View.SUBAO, View.SUPAO}

VISIBLE: Mapping[str, frozenset[View]] = MappingProxyType(
    {
        "ef": _VENTRICLE,
        "edv": _VENTRICLE,
        "esv": _VENTRICLE,
        "lvh": _VENTRICLE,
        "la_area": _ATRIUM,
        "la_volume": _ATRIUM,
        "la_dilation": _ATRIUM,
        "ra_length": _FOUR,
        "lead": _FOUR | {View.RV_INFLOW},
        "age": _HEART,
        "sex": _HEART,
        "height": _HEART,
        "weight": _SECTIONS,
    }
)
"""The views whose pictures depend on each output of :data:`models.tasks.TASKS`."""


class RegionFormat(IntEnum):
    """Region Spatial Format, PS3.3 C.8.5.5.1.1."""

    TWO_D = 1
    M_MODE = 2
    SPECTRAL = 3
    WAVEFORM = 4


class RegionType(IntEnum):
    """Region Data Type, PS3.3 C.8.5.5.1.2."""

    TISSUE = 1
    COLOUR_FLOW = 2
    PW_SPECTRAL = 3
    CW_SPECTRAL = 4
    ECG_TRACE = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A part of the screen and its scale. The box is half open, in pixels.

    ``delta_x`` and ``delta_y`` are per pixel: cm in two dimensions; seconds and cm in M-mode;
    seconds and cm/s in spectral Doppler.
    """

    format: RegionFormat
    type: RegionType
    top: int
    left: int
    bottom: int
    right: int
    delta_x: float
    delta_y: float
    reference_row: int | None = None  #: baseline of a spectrum, apex of a sector; from the top


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the simulator put into the clip. None: the view does not show it.

    ``masks`` holds for each frame and pixel a :class:`models.simulator.anatomy.Structure`.
    ``phases`` is each frame's place in the beat, 0 at the R wave.
    """

    kind: str  #: the view's label, or what sort of "other" it is
    heart_rate_bpm: float | None = None
    edv_ml: float | None = None
    esv_ml: float | None = None
    ef_percent: float | None = None
    volumes_ml: tuple[float, ...] = ()
    wall_cm: float | None = None
    la_area_cm2: float | None = None
    la_volume_ml: float | None = None
    ra_length_cm: float | None = None
    lead: bool | None = None
    lead_kind: Lead | None = None
    person: Person | None = None
    cm_per_pixel: float | None = None
    phases: tuple[float, ...] = ()
    masks: NDArray[np.uint8] | None = None

    def mask(self, structure: int) -> NDArray[np.bool_]:
        """(frames, rows, columns): where a structure lies.

        Raises
        ------
        ValueError
            If the clip carries no masks.
        """
        if self.masks is None:
            raise ValueError(f"a simulated clip of kind {self.kind!r} has no masks")
        return np.asarray(self.masks == structure)

    @property
    def la_volume_index(self) -> float | None:
        """Largest left-atrial volume over body surface, mL/m2."""
        if self.la_volume_ml is None or self.person is None:
            return None
        return self.la_volume_ml / self.person.bsa_m2

    def labels(self) -> dict[str, float]:
        """The truth of every output of :data:`models.tasks.TASKS` that the view shows.

        Values are in the tasks' units; scores are 1.0 (it is so) or 0.0. ``sex`` is 1.0 for male.
        Hypertrophy is a wall above :data:`MOST_WALL_CM`, severe dilation of the left atrium a
        volume index above :data:`SEVERE_LA_ML_PER_M2`. Which view shows what: :data:`VISIBLE`.
        Empty for stills and "other".
        """
        person = self.person
        index = self.la_volume_index
        found: dict[str, float | None] = {
            "ef": self.ef_percent,
            "edv": self.edv_ml,
            "esv": self.esv_ml,
            "la_area": self.la_area_cm2,
            "la_volume": self.la_volume_ml,
            "la_dilation": None if index is None else float(index > SEVERE_LA_ML_PER_M2),
            "ra_length": self.ra_length_cm,
            "lead": None if self.lead is None else float(self.lead),
        }
        if person is not None:
            found |= {
                "lvh": None
                if self.wall_cm is None
                else float(self.wall_cm > MOST_WALL_CM[person.sex]),
                "age": person.age_years,
                "sex": float(person.sex is Sex.MALE),
                "weight": person.weight_kg,
                "height": person.height_cm,
            }
        return {
            name: float(value)
            for name, value in found.items()
            if value is not None and self.kind in VISIBLE[name]
        }


@dataclass(frozen=True, kw_only=True)
class SimulatedClip:
    """A clip as a machine would show it.

    ``frames`` is (n, rows, columns) grey or (n, rows, columns, 3) RGB, 8 bits. ``sector_box`` is
    the half-open box (top, left, bottom, right) of the two-dimensional picture, None without one.
    """

    view: View
    seed: int
    frames: NDArray[np.uint8]
    frame_time_ms: float
    truth: Truth
    regions: tuple[Region, ...]
    sector_box: tuple[int, int, int, int] | None
    colour_flow: bool = False
    sector_mask: NDArray[np.bool_] | None = None
    """(rows, columns): the pixels that show beams, None where no picture is two-dimensional."""

    @property
    def grey(self) -> NDArray[np.uint8]:
        """(n, rows, columns): the frames without colour, as the Y plane of a JPEG has them."""
        if self.frames.ndim == 3:
            return self.frames
        from models.simulator.screen import luma

        return luma(self.frames)
