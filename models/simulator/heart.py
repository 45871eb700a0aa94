"""A heart in numbers: sizes, the beat, and the truth that a simulated clip carries.

The left ventricle is half a prolate ellipsoid, V = 2/3 pi a^2 L. Over a beat its volume follows
one curve (ejection, fast filling, diastasis, atrial kick); length and radius share the change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy.interpolate import PchipInterpolator

_EMPTYING = PchipInterpolator(
    # Share of the RR interval after the R wave, and share of the stroke volume that is out.
    [0.0, 0.05, 0.15, 0.28, 0.36, 0.42, 0.52, 0.62, 0.82, 0.90, 1.0],
    [0.0, 0.02, 0.45, 0.90, 1.00, 0.97, 0.50, 0.24, 0.18, 0.10, 0.0],
)
USUAL_CALCIUM = 0.375
_LONG_AXIS_SHARE = 0.28  #: of the ejection fraction goes into shortening of the long axis


class Lead(StrEnum):
    """What is led through the right heart."""

    PACEMAKER = "pacemaker"  #: a thin, even, bright line
    DEFIBRILLATOR = "defibrillator"  #: thicker, with a shock coil in the ventricle


@dataclass(frozen=True, kw_only=True, slots=True)
class Heart:
    """Sizes at end diastole (cm, mL) and what the beat does to them.

    ``calcium`` is 0 in the young, about 1 at 80 years: how much valves, annulus and septum have
    brightened. ``chest_cm`` is what lies between probe and heart; None where nobody asked.
    """

    edv_ml: float
    ef_percent: float
    heart_rate_bpm: float
    lv_length_cm: float
    lv_radius_cm: float
    wall_cm: float
    la_length_cm: float
    la_width_cm: float
    ra_length_cm: float
    ra_width_cm: float
    rv_width_cm: float
    aorta_radius_cm: float
    lead: Lead | None = None
    la_stretch: float = 1.0  #: of length and width of the left atrium beyond its usual size
    lead_bend: float = 0.0  #: -1 to 1: how its course sways
    band: float = 0.0  #: echo of a muscle band across the right ventricle, 0 without one
    calcium: float = USUAL_CALCIUM
    chest_cm: float | None = None

    @property
    def esv_ml(self) -> float:
        """Volume of the left ventricle when it is smallest."""
        return self.edv_ml * (1 - self.ef_percent / 100)

    @property
    def rr_ms(self) -> float:
        """Time from one R wave to the next."""
        return 60_000 / self.heart_rate_bpm

    @property
    def la_volume_ml(self) -> float:
        """Largest left-atrial volume, as a prolate ellipsoid."""
        return 4 / 3 * math.pi * (self.la_length_cm / 2) * (self.la_width_cm / 2) ** 2

    @property
    def la_area_cm2(self) -> float:
        """Largest left-atrial area in the four-chamber plane."""
        return math.pi * self.la_length_cm * self.la_width_cm / 4

    def at(self, time_ms: float) -> Beat:
        """The heart ``time_ms`` after an R wave."""
        phase = (time_ms / self.rr_ms) % 1.0
        emptied = float(np.clip(_EMPTYING(phase), 0.0, 1.0))
        volume = self.edv_ml * (1 - emptied * self.ef_percent / 100)
        length = self.lv_length_cm * (1 - emptied * _LONG_AXIS_SHARE * self.ef_percent / 100)
        return Beat(
            phase=phase,
            emptied=emptied,
            volume_ml=volume,
            lv_length_cm=length,
            lv_radius_cm=math.sqrt(3 * volume / (2 * math.pi * length)),
            wall_cm=self.wall_cm * (1 + 0.7 * emptied * self.ef_percent / 100),
            mitral_open=_bump(phase, 0.40, 0.66) * 0.9 + _bump(phase, 0.78, 1.0) * 0.6,
            aortic_open=_bump(phase, 0.03, 0.37, steep=6.0),
            # The atria fill while the ventricle empties, from 0.86 of their largest size on.
            atrial_scale=0.86 + 0.14 * emptied,
            calcium=self.calcium,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """The heart at one moment. ``phase`` 0 is the R wave; valves open from 0 to 1."""

    phase: float
    emptied: float
    volume_ml: float
    lv_length_cm: float
    lv_radius_cm: float
    wall_cm: float
    mitral_open: float
    aortic_open: float
    atrial_scale: float
    calcium: float = USUAL_CALCIUM

    @property
    def brightness(self) -> float:
        """Of valves and annulus against an adult's of middle age."""
        return 0.65 + 0.933 * self.calcium

    @property
    def thickness(self) -> float:
        """Of valves and annulus against an adult's of middle age."""
        return 0.78 + 0.587 * self.calcium


def random_heart(
    rng: np.random.Generator, *, ef_percent: float | None = None, lead: Lead | bool | None = None
) -> Heart:
    """A heart of an adult, drawn with the spread of a hospital's patients.

    ``lead`` True gives a pacemaker's; None gives one at times.

    Raises
    ------
    ValueError
        If ``ef_percent`` is not between 5 and 85.
    """
    drawn_ef = float(np.clip(rng.normal(53, 13), 12, 76))
    ef = drawn_ef if ef_percent is None else float(ef_percent)
    if not 5 <= ef <= 85:
        raise ValueError(f"an ejection fraction of {ef:g} % cannot be simulated: give 5 to 85")
    # Failing hearts are large: the stroke volume varies less than the ejection fraction does.
    edv = float(np.clip(rng.lognormal(math.log(95), 0.30) * (55 / max(ef, 20)) ** 0.35, 40, 320))
    slenderness = rng.uniform(1.45, 2.1)
    radius = (3 * edv / (4 * math.pi * slenderness)) ** (1 / 3)
    drawn_lead = bool(rng.random() < 0.1)
    return Heart(
        edv_ml=edv,
        ef_percent=ef,
        heart_rate_bpm=float(np.clip(rng.normal(72, 14), 42, 130)),
        lv_length_cm=2 * radius * slenderness,
        lv_radius_cm=radius,
        wall_cm=float(np.clip(rng.normal(1.0, 0.2), 0.6, 1.8)),
        la_length_cm=float(np.clip(rng.normal(4.9, 0.8), 3.2, 8.0)),
        la_width_cm=float(np.clip(rng.normal(4.0, 0.6), 2.8, 6.5)),
        ra_length_cm=float(np.clip(rng.normal(4.6, 0.7), 3.0, 7.5)),
        ra_width_cm=float(np.clip(rng.normal(3.7, 0.6), 2.5, 6.0)),
        rv_width_cm=float(np.clip(rng.normal(3.2, 0.6), 1.8, 5.2)),
        aorta_radius_cm=float(np.clip(rng.normal(1.45, 0.2), 1.0, 2.1)),
        lead=_lead(drawn_lead if lead is None else lead),
    )


def with_edv(heart: Heart, edv_ml: float) -> Heart:
    """The same heart with another end-diastolic volume, its ventricle in the same proportions."""
    scale = (edv_ml / heart.edv_ml) ** (1 / 3)
    return replace(
        heart,
        edv_ml=edv_ml,
        lv_length_cm=heart.lv_length_cm * scale,
        lv_radius_cm=heart.lv_radius_cm * scale,
    )


def _lead(lead: Lead | bool) -> Lead | None:
    if isinstance(lead, Lead):
        return lead
    return Lead.PACEMAKER if lead else None


def _bump(phase: float, start: float, end: float, *, steep: float = 2.0) -> float:
    """0 outside start..end, rising to 1 in between; the larger ``steep`` the flatter its top."""
    if not start < phase < end:
        return 0.0
    rise = math.sin(math.pi * (phase - start) / (end - start))
    return min(1.0, rise * steep / 1.5)
