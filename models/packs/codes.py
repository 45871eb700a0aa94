"""What each output means, as a code: what a pack's manifest may say and a report will write.

The table with its sources is that of the reports; a test holds that the two say the same. It
stands here too because a pack is checked where no report is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from models.packs.manifest import Code, PackKind


def code_of(output: str, kind: PackKind) -> Code | None:
    """The code for an output of a pack of this kind; None for an output that has none.

    What was measured in a tracing has another code than what a network gave outright.
    """
    if kind is PackKind.TRACING and output in _BY_DISCS:
        return _BY_DISCS[output]
    return _GIVEN.get(output)


def _loinc(value: str, meaning: str) -> Code:
    return Code(scheme="LN", value=value, meaning=meaning)


def _own(value: str, meaning: str) -> Code:
    return Code(scheme="99ECHOAI", value=value, meaning=meaning)


_GIVEN: Mapping[str, Code] = MappingProxyType(
    {
        "ef": _loinc("18043-0", "Left Ventricular Ejection Fraction by US"),
        "edv": _loinc("18026-5", "Left Ventricular End Diastolic Volume"),
        "esv": _loinc("18148-7", "Left Ventricular End Systolic Volume"),
        "la_volume": Code(scheme="SCT", value="399235004", meaning="Left Atrium Systolic Volume"),
        "la_area": _loinc("17977-0", "Left Atrium Area A4C view"),
        "ra_length": _loinc("80076-3", "Right atrial major axis dimension 4C"),
        "la_dilation": _own("AI-LADIL-SCORE", "Score for severe left-atrial dilation"),
        "lvh": _own("AI-LVH-SCORE", "Score for left ventricular hypertrophy"),
        "lead": _own("AI-LEAD-SCORE", "Score for a pacemaker or defibrillator lead"),
        "age": _own("AI-AGE", "AI-estimated age"),
        "sex": _own("AI-MALE-SCORE", "AI score for male sex"),
        "weight": _own("AI-WEIGHT", "AI-estimated weight"),
        "height": _own("AI-HEIGHT", "AI-estimated height"),
        "heart_rate": _loinc("8867-4", "Heart rate"),
        "pr_interval": _loinc("8625-6", "P-R Interval"),
        "qrs_duration": _loinc("8633-0", "QRS duration"),
        "qt_interval": _loinc("8634-8", "Q-T interval"),
        "j_amplitude": _own("AI-J-V5", "J-point amplitude, lead V5"),
        "r_amplitude": _own("AI-R-V5", "R-wave amplitude, lead V5"),
        "t_amplitude": _own("AI-T-V5", "T-wave amplitude, lead V5"),
        "first_degree_av_block": _own("AI-1DAVB-SCORE", "Score for first-degree AV block"),
        "rbbb": _own("AI-RBBB-SCORE", "Score for right bundle branch block"),
        "lbbb": _own("AI-LBBB-SCORE", "Score for left bundle branch block"),
        "sinus_bradycardia": _own("AI-SB-SCORE", "Score for sinus bradycardia"),
        "atrial_fibrillation": _own("AI-AF-SCORE", "Score for atrial fibrillation"),
        "sinus_tachycardia": _own("AI-ST-SCORE", "Score for sinus tachycardia"),
    }
)

_BY_DISCS: Mapping[str, Code] = MappingProxyType(
    {
        "ef": _loinc("79993-2", "Left ventricular ejection fraction single plane 4C (MOD)"),
        "edv": _loinc("79999-9", "Left ventricular end diastolic volume single plane 4C (MOD)"),
        "esv": _loinc("80004-5", "Left ventricular end systolic volume single plane 4C (MOD)"),
    }
)
