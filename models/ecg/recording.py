"""What a 12-lead ECG is to this package: millivolts in a fixed order of leads."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The leads in the order in which every array of this package has them."""

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The leads that are measured: the others follow from I and II (Einthoven, Goldberger)."""

LOWEST_RATE_HZ = 50.0
"""Fewer samples a second do not show a QRS complex."""


class EcgError(Exception):
    """An ECG cannot be read; the message says which part, why, and what to do."""


class Doubt(StrEnum):
    """What makes a lead, or a whole recording, not to be trusted."""

    MISSING = "missing"  #: the lead is not there
    FLAT = "flat"  #: no signal: an electrode that is off
    CLIPPED = "clipped"  #: the amplifier or the converter was at its end
    NOISY = "noisy"  #: more noise than waves
    SCALE = "scale"  #: no heart gives such voltages: sensitivity or unit is wrong
    IDENTITY = "identity"  #: the limb leads do not fit together: swapped, or wrongly named
    REVERSED = "reversed"  #: the limb leads fit together as they do with electrodes swapped
    SHORT = "short"  #: not long enough for what is asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """One thing that cannot be trusted, in words for a reader.

    ``leads`` are those that it is about; empty: the whole recording. Where ``fatal`` nothing may
    be concluded from the recording.
    """

    doubt: Doubt
    words: str
    leads: tuple[str, ...] = ()
    fatal: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """Samples of all leads, taken at once.

    ``millivolts`` is (12, samples) float32 in the order of :data:`LEADS`, all NaN where a lead is
    missing; ``derived`` names the leads that were reckoned from others and not recorded.
    ``group`` is the multiplex group of the DICOM object, from 1 on, and ``channels`` the channel
    of each lead in it, from 1 on, 0 where there is none (PS3.3 C.10.9, C.18.5).
    """

    millivolts: NDArray[np.float32] = field(repr=False)
    rate_hz: float
    derived: tuple[str, ...] = ()
    group: int = 1
    channels: tuple[int, ...] = tuple(range(1, 13))

    @property
    def duration_s(self) -> float:
        """From the first sample to one after the last."""
        return float(self.millivolts.shape[1] / self.rate_hz)

    def lead(self, name: str) -> NDArray[np.float32]:
        """(samples,) of one lead in mV."""
        row: NDArray[np.float32] = self.millivolts[LEADS.index(name)]
        return row


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the cart itself wrote into the object: for comparison, never an output of ours.

    Times in ms; None where it says nothing, or zero. ``statements`` are its words.
    """

    rr_ms: float | None = None
    pr_ms: float | None = None
    qrs_ms: float | None = None
    qt_ms: float | None = None
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Ecg:
    """One recording.

    ``rhythm`` is the whole of it, ``median`` the cart's own median beat where it has one.
    ``troubles`` are what :mod:`models.ecg.quality` found.
    """

    rhythm: Strip
    median: Strip | None = None
    troubles: tuple[Trouble, ...] = ()
    measured: Measured = Measured()

    @property
    def unusable(self) -> str | None:
        """Why nothing may be concluded from it, in words; None where it can be used."""
        fatal = [trouble.words for trouble in self.troubles if trouble.fatal]
        return "; ".join(fatal) or None
