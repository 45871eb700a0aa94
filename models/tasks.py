"""The outputs that packs may give: name, title, kind, unit (UCUM) and plausible range.

The names are fixed: findings, settings, reports and the command line all speak of them.
Source of the list: Ghorbani et al. 2020 (npj Digital Medicine 3:10), Tables 1 and 2, and the
right-atrium length and left-atrium volume named in its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from models.finding import Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One thing a pack may predict. ``low`` and ``high``: values outside are not believed."""

    name: str
    title: str
    kind: Kind
    unit: str
    low: float
    high: float
    demographic: bool = False  #: age, sex, weight, height: never reported unless asked for


def _measurement(
    name: str, title: str, unit: str, low: float, high: float, *, demographic: bool = False
) -> Task:
    return Task(
        name=name,
        title=title,
        kind=Kind.MEASUREMENT,
        unit=unit,
        low=low,
        high=high,
        demographic=demographic,
    )


def _score(name: str, title: str, *, demographic: bool = False) -> Task:
    return Task(
        name=name,
        title=title,
        kind=Kind.SCORE,
        unit="{score}",
        low=0.0,
        high=1.0,
        demographic=demographic,
    )


_ALL = (
    _measurement("ef", "Left ventricular ejection fraction", "%", 0.0, 95.0),
    _measurement("edv", "Left ventricular end-diastolic volume", "mL", 10.0, 500.0),
    _measurement("esv", "Left ventricular end-systolic volume", "mL", 3.0, 450.0),
    _score("la_dilation", "Severe left-atrial dilation"),
    _score("lvh", "Left ventricular hypertrophy"),
    _score("lead", "Pacemaker or defibrillator lead"),
    _measurement("age", "Model estimate of age", "a", 0.0, 120.0, demographic=True),
    _score("sex", "Model score for male sex", demographic=True),
    _measurement("weight", "Model estimate of weight", "kg", 2.0, 300.0, demographic=True),
    _measurement("height", "Model estimate of height", "cm", 40.0, 230.0, demographic=True),
    _measurement("ra_length", "Right-atrial major axis length", "cm", 1.0, 12.0),
    _measurement("la_volume", "Left-atrial volume", "mL", 5.0, 400.0),
    _measurement("la_area", "Largest left-atrial area", "cm2", 2.0, 80.0),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL})
"""Every output, by name."""
