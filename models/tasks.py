"""The outputs that packs may give: name, title, kind, unit (UCUM) and plausible range.

The names are fixed: findings, settings, reports and the command line all speak of them.
Source of the list: of clips, Ghorbani et al. 2020 (npj Digital Medicine 3:10), Tables 1 and 2, and
the right-atrium length and left-atrium volume named in its text; of ECGs, Ribeiro et al. 2020
(Nature Communications 11:1760) and Hicks et al. 2021 (Scientific Reports 11:10949).
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


_OF_CLIPS = (
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
_OF_ECGS = (
    _score("first_degree_av_block", "First-degree AV block"),
    _score("rbbb", "Right bundle branch block"),
    _score("lbbb", "Left bundle branch block"),
    _score("sinus_bradycardia", "Sinus bradycardia"),
    _score("atrial_fibrillation", "Atrial fibrillation"),
    _score("sinus_tachycardia", "Sinus tachycardia"),
    _measurement("heart_rate", "Heart rate", "/min", 20.0, 300.0),
    _measurement("pr_interval", "PR interval", "ms", 60.0, 500.0),
    _measurement("qrs_duration", "QRS duration", "ms", 40.0, 300.0),
    _measurement("qt_interval", "QT interval", "ms", 200.0, 800.0),
    _measurement("j_amplitude", "J-point amplitude in lead V5", "mV", -2.0, 2.0),
    _measurement("r_amplitude", "R-wave amplitude in lead V5", "mV", 0.0, 8.0),
    _measurement("t_amplitude", "T-wave amplitude in lead V5", "mV", -3.0, 4.0),
)

CLIP_TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _OF_CLIPS})
"""Every output of an ultrasound clip, by name."""

TASKS: Mapping[str, Task] = MappingProxyType(
    {**CLIP_TASKS, **{task.name: task for task in _OF_ECGS}}
)
"""Every output, by name."""

ECG_TASKS: Mapping[str, Task] = MappingProxyType(
    {**{task.name: task for task in _OF_ECGS}, "sex": TASKS["sex"]}
)
"""Every output of an ECG, by name."""
