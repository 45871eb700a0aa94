"""Who lies under the probe, and what age, sex, weight and height do to the heart and its picture.

Ghorbani et al. 2020 (npj Digital Medicine 3:10) read these four from apical four-chamber views,
and their maps lay on the chambers (sex, height), on the apex of the sector with the chest wall
(weight, height), and on crux, septum and mitral apparatus (age). So here they shape:

- chambers and walls, by sex and height (and weight, through what the heart has to supply);
- the chest wall: how deep the heart lies and how thick the near field is, by weight for height;
- valves, annulus, crux and septum, which calcify and brighten, and the aorta, which widens, by age.

Each effect is mixed with at least as much that has nothing to do with it (a heart's own size, the
chosen depth and gain, how a window happens to be), so that a picture gives a hint and no answer.
The sizes follow Lang et al. 2015 (JASE 28:1-39, Tables 2, 4, 6): men's ventricles hold about 1.4
times what women's do; normal walls reach 0.9 cm in women and 1.0 cm in men.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from models.simulator.heart import Heart, with_edv

_AGE_YEARS = (18.0, 100.0)
_WEIGHT_KG = (30.0, 250.0)
_HEIGHT_CM = (120.0, 220.0)
_USUAL_EDV_ML = 95.0


class Sex(StrEnum):
    """As DICOM writes it, PS3.3 C.2.2."""

    FEMALE = "F"
    MALE = "M"


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """An adult.

    Raises
    ------
    ValueError
        If age (18 to 100 years), weight (30 to 250 kg) or height (120 to 220 cm) is out of range.
    """

    age_years: float
    sex: Sex
    weight_kg: float
    height_cm: float

    def __post_init__(self) -> None:
        within("an age", self.age_years, _AGE_YEARS, "years")
        within("a weight", self.weight_kg, _WEIGHT_KG, "kg")
        within("a height", self.height_cm, _HEIGHT_CM, "cm")

    @property
    def bmi(self) -> float:
        """Weight over height squared, kg/m2."""
        return self.weight_kg / (self.height_cm / 100) ** 2

    @property
    def bsa_m2(self) -> float:
        """Body surface area after Du Bois and Du Bois 1916."""
        return float(0.007184 * self.weight_kg**0.425 * self.height_cm**0.725)


def random_person(
    rng: np.random.Generator,
    *,
    age_years: float | None = None,
    sex: Sex | None = None,
    weight_kg: float | None = None,
    height_cm: float | None = None,
) -> Person:
    """An adult of an echo laboratory; what is given is kept, the rest is drawn.

    Spread as in Ghorbani et al. 2020: about 16 years, 18 kg and 11 cm.

    Raises
    ------
    ValueError
        If something given is out of range.
    """
    drawn_age = float(np.clip(rng.normal(61, 17), 20, 96))
    drawn_sex = Sex.MALE if rng.random() < 0.52 else Sex.FEMALE
    chosen_sex = sex or drawn_sex
    middle = 176.5 if chosen_sex is Sex.MALE else 162.5
    drawn_height = float(np.clip(rng.normal(middle, 7.3), 140, 205))
    height = drawn_height if height_cm is None else float(height_cm)
    bmi = float(np.clip(rng.lognormal(math.log(27.0), 0.19), 17, 50))
    drawn_weight = float(np.clip(bmi * (height / 100) ** 2, *_WEIGHT_KG))
    return Person(
        age_years=drawn_age if age_years is None else float(age_years),
        sex=chosen_sex,
        weight_kg=drawn_weight if weight_kg is None else float(weight_kg),
        height_cm=height,
    )


def shape_heart(heart: Heart, person: Person, rng: np.random.Generator) -> Heart:
    """A heart drawn without a person in mind, as it would be in this one."""
    male = person.sex is Sex.MALE
    body = math.log(person.height_cm / 169.5)
    size = math.exp(0.75 * body + (0.035 if male else -0.035))
    # The drawn spread of volumes stays: part of it now comes from the person.
    own = 0.75 * math.log(heart.edv_ml / _USUAL_EDV_ML)
    build = 1.6 * body + (0.13 if male else -0.13) + 0.25 * math.log(person.bmi / 27)
    edv = float(np.clip(_USUAL_EDV_ML * math.exp(own + build), 35, 340))
    years = person.age_years - 61
    walls = (0.95 if male else 0.86) * (1 + 0.0022 * years + 0.006 * (person.bmi - 27))
    atria = size * (1 + 0.0018 * years)
    # Most atria are of their usual size; some are stretched, the more often the older.
    stretched = rng.random() < 0.12 + 0.004 * max(0.0, years)
    stretch = float(rng.uniform(1.12, 1.5)) if stretched else 1.0
    right = float(rng.uniform(1.0, 1.3)) if stretched else 1.0
    calcium = float(np.clip((person.age_years - 40) / 40 + rng.normal(0, 0.22), 0, 1.6))
    chest = 0.35 + 0.085 * (person.bmi - 18) + (0.0 if male else 0.12) + rng.normal(0, 0.22)
    return replace(
        with_edv(heart, edv),
        wall_cm=float(np.clip(heart.wall_cm * walls, 0.5, 2.0)),
        la_length_cm=min(heart.la_length_cm * atria * stretch, 9.0),
        la_width_cm=min(heart.la_width_cm * atria * stretch, 7.5),
        la_stretch=stretch,
        ra_length_cm=heart.ra_length_cm * atria * right,
        ra_width_cm=heart.ra_width_cm * atria * right,
        rv_width_cm=heart.rv_width_cm * size,
        aorta_radius_cm=heart.aorta_radius_cm * size * (1 + 0.0025 * years),
        chest_cm=float(np.clip(chest, 0.2, 3.5)),
        calcium=calcium,
        lead_bend=float(rng.uniform(-1, 1)),
        band=float(rng.uniform(0.4, 1.1)) if rng.random() < 0.3 else 0.0,
    )


def within(what: str, value: float, bounds: tuple[float, float], unit: str) -> None:
    """Refuse a value out of range.

    Raises
    ------
    ValueError
        In words that name the value and the range.
    """
    low, high = bounds
    if not low <= value <= high:
        raise ValueError(
            f"{what} of {value:g} {unit} cannot be simulated: give {low:g} to {high:g}"
        )
