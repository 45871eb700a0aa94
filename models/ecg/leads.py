"""Leads by name and code, units by name, and the leads that follow from others.

Codes: PS3.16 CID 3001. MDC is ISO/IEEE 11073-10101 (partition 2), SCPECG is EN 1064 5.6.3, table 9;
both number the leads alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.ecg.recording import LEADS

OF_I_AND_II: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "I": (1.0, 0.0),
        "II": (0.0, 1.0),
        "III": (-1.0, 1.0),
        "aVR": (-0.5, -0.5),
        "aVL": (1.0, -0.5),
        "aVF": (-0.5, 1.0),
    }
)
"""Shares of leads I and II in each limb lead (Einthoven 1912, Goldberger 1942)."""

_NUMBERS: Final[Mapping[int, str]] = MappingProxyType(
    {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
    | {2 + chest: f"V{chest}" for chest in range(1, 7)}
)
_MINUS_AVR: Final = 65  # Cabrera's order of the limb leads has aVR upside down
_CODE: Final = re.compile(r"(?:2:|5\.6\.3-9-)\s*(\d{1,3})")
_WHOLE_CODE: Final = 2 << 16  # the code and its partition as one number
_WORDS: Final = re.compile(
    r"(?:MDC_ECG_LEAD_|LEAD|ECG|EKG|CHANNEL|[\s_:-])*(AV[RLF]|V[1-6]|I{1,3})(?![A-Z0-9])"
)
_BY_UPPER: Final = MappingProxyType({name.upper(): name for name in LEADS})
_MILLIVOLTS: Final[Mapping[str, float]] = MappingProxyType(
    {"nv": 1e-6, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "mv": 1.0, "v": 1e3}
    | {"nanovolt": 1e-6, "microvolt": 1e-3, "millivolt": 1.0, "volt": 1e3}
)


def lead_of_code(value: str) -> tuple[str, int] | None:
    """(lead, sign) of a code of either scheme, or of MDC's own word; None where it is another."""
    found = _CODE.fullmatch(value.strip())
    number = int(found[1]) if found else _of_whole_code(value)
    if number == _MINUS_AVR:
        return "aVR", -1
    if number is not None:
        return (_NUMBERS[number], 1) if number in _NUMBERS else None
    if value.strip().upper() == "MDC_ECG_LEAD_AVRNEG":
        return "aVR", -1
    name = lead_of_words(value) if value.upper().startswith("MDC_") else None
    return (name, 1) if name else None


def lead_of_words(words: str) -> str | None:
    """The lead that a label or a meaning names: "Lead I (Einthoven)", "avr", "V1"; else None."""
    found = _WORDS.match(words.strip().upper())
    return _BY_UPPER[found[1]] if found else None


def millivolts_of(unit: str) -> float | None:
    """How many mV one of the unit is ("uV", "millivolt"); None where it is no voltage."""
    return _MILLIVOLTS.get(unit.strip().lower().removesuffix("s"))


def with_derived(millivolts: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """(12, samples) with the limb leads that two others give, and which these are.

    Any two limb leads give the other four; with I and II there, these give them, else all that
    are there do, in the sense of least squares.
    """
    there = [name for name in OF_I_AND_II if not np.isnan(_row(millivolts, name)).all()]
    missing = tuple(name for name in OF_I_AND_II if name not in there)
    if not missing or len(there) < 2:
        return millivolts, ()
    known = ["I", "II"] if {"I", "II"} <= set(there) else there
    one_and_two = _solved(np.stack([_row(millivolts, name) for name in known]), known)
    filled = millivolts.copy()
    for name in missing:
        filled[LEADS.index(name)] = np.asarray(OF_I_AND_II[name]) @ one_and_two
    return filled, missing


def _solved(rows: NDArray[np.floating], names: Iterable[str]) -> NDArray[np.float64]:
    """(2, samples) of I and II from these limb leads."""
    shares = np.asarray([OF_I_AND_II[name] for name in names])
    solved: NDArray[np.float64] = np.linalg.pinv(shares) @ rows.astype(np.float64)
    return solved


def _row(millivolts: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    row: NDArray[np.float32] = millivolts[LEADS.index(name)]
    return row


def _of_whole_code(value: str) -> int | None:
    digits = value.strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > 6:
        return None
    number = int(digits) - _WHOLE_CODE
    return number if number in _NUMBERS or number == _MINUS_AVR else None
