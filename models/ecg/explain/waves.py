"""Wave blocking: a recording without its P waves, QRS complexes or T waves.

Hicks et al. 2021 (Scientific Reports 11:10949) replace a wave of every beat by a straight line
between its borders, in all leads. Only the outputs that need the wave may move; an output that
moves without one that it does not need has learned something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from models.ecg.beats import Waves
from models.ecg.recording import Strip


class Wave(StrEnum):
    """A wave that can be taken out."""

    P = "P"
    QRS = "QRS"
    T = "T"


class Need(StrEnum):
    """Whether an output needs a wave."""

    NEEDED = "needed"  #: without it the output must move
    MAYBE = "maybe"  #: it may or may not tell the output
    NOT_NEEDED = "not needed"  #: without it the output must stay


_NEEDED: Mapping[str, tuple[str, str]] = {
    # What is needed, and what may tell. Sinus rhythm has a P wave, but a rate can be counted on
    # any wave, of which the QRS complex is the plainest.
    "first_degree_av_block": ("P", "QRS"),
    "rbbb": ("QRS", "T"),
    "lbbb": ("QRS", "T"),
    "sinus_bradycardia": ("QRS", "P"),
    "atrial_fibrillation": ("P", "QRS"),
    "sinus_tachycardia": ("QRS", "P"),
    "heart_rate": ("QRS", "P"),
    "pr_interval": ("P QRS", ""),
    "qrs_duration": ("QRS", ""),
    "qt_interval": ("QRS T", ""),
    "j_amplitude": ("QRS", "T"),
    "r_amplitude": ("QRS", ""),
    "t_amplitude": ("T", ""),
    "sex": ("", "P QRS T"),
}

NEEDS: Mapping[str, Mapping[Wave, Need]] = MappingProxyType(
    {
        output: MappingProxyType(
            {
                wave: Need.NEEDED
                if wave in needed.split()
                else (Need.MAYBE if wave in maybe.split() else Need.NOT_NEEDED)
                for wave in Wave
            }
        )
        for output, (needed, maybe) in _NEEDED.items()
    }
)
"""What each output of :data:`models.tasks.ECG_TASKS` needs, by what it is defined on."""


def without(strip: Strip, waves: Sequence[Waves], wave: Wave) -> Strip:
    """The strip with a straight line in place of this wave of every beat, in every lead."""
    millivolts = strip.millivolts.copy()
    last = millivolts.shape[1] - 1
    for beat in waves:
        window = {Wave.P: beat.p, Wave.QRS: beat.qrs, Wave.T: beat.t}[wave]
        if window is None:
            continue
        begin, end = max(window[0] - 1, 0), min(window[1], last)
        if end > begin:
            share = np.linspace(0.0, 1.0, end - begin + 1, dtype=np.float32)
            first, after = millivolts[:, begin, np.newaxis], millivolts[:, end, np.newaxis]
            millivolts[:, begin : end + 1] = first + (after - first) * share
    return replace(strip, millivolts=millivolts)
