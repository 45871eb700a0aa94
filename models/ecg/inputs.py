"""A recording as a network takes it, and a map over a network's input as the recording has it.

The way in, in this order and always the same (``VERSION`` counts the changes): the leads that are
wanted, in mV, limb leads reckoned from I and II where they are missing; gaps bridged by a straight
line; where the pack says so the wander taken out, by a Butterworth high-pass of second order run
forwards and backwards (no shift in time); gaps longer than ``LONGEST_BRIDGE_S`` set to zero, as
padding is; another rate by polyphase filtering, where sample 0 stays sample 0; zeros added at both
ends, or both ends cut, until the length is the network's. The values are not scaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfiltfilt

from models.ecg.leads import OF_I_AND_II
from models.ecg.recording import LEADS, EcgError, Strip

VERSION: Final = 1
"""Of the way in. A pack that was made with another one must not be run."""

LONGEST_BRIDGE_S: Final = 0.2
"""A longer gap than this hides more than one wave: no line is drawn over it."""

_MOST_RATIO: Final = 1000  # 257.3 Hz to 400 Hz: nearer than any crystal of a cart


class InputShape(Protocol):
    """What a network wants: so many samples at such a rate of these leads."""

    @property
    def samples(self) -> int: ...
    @property
    def rate_hz(self) -> float: ...
    @property
    def leads(self) -> Sequence[str]: ...
    @property
    def highpass_hz(self) -> float | None: ...


def to_input(strip: Strip, spec: InputShape) -> NDArray[np.float32]:
    """The strip as the network takes it: (``spec.samples``, leads of ``spec``), mV.

    Raises :class:`EcgError` where a lead is missing that the limb leads do not give, or where the
    strip holds no samples.
    """
    ratio = _ratio(strip, spec)
    rows = np.stack([_lead(strip, name) for name in spec.leads])
    rows, hidden = _bridged(rows, strip.rate_hz)
    if spec.highpass_hz is not None:
        rows = without_wander(rows, strip.rate_hz, spec.highpass_hz)
    rows[hidden] = 0.0
    if ratio != 1:
        rows = resample_poly(rows, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    begin = _begin(rows.shape[1], spec)
    fitted = np.zeros((len(spec.leads), spec.samples), np.float32)
    kept = rows[:, max(begin, 0) : begin + spec.samples]
    left = max(-begin, 0)
    fitted[:, left : left + kept.shape[1]] = kept
    return np.ascontiguousarray(fitted.T)


def input_span(strip: Strip, spec: InputShape) -> tuple[float, float]:
    """When the network's input begins and ends, in ms from the first sample of the strip.

    The end is one sample after the last. Before 0, and after the strip's end, it is padding.
    """
    ratio = _ratio(strip, spec)
    begin = _begin(_length(strip, ratio), spec)
    sample_ms = 1000.0 / (strip.rate_hz * ratio)
    return begin * sample_ms, (begin + spec.samples) * sample_ms


def from_input(values: NDArray[np.floating], strip: Strip, spec: InputShape) -> NDArray[np.float32]:
    """A map over the network's input, (``spec.samples``, leads), on the recording: (12, samples).

    Between two samples of the map the value lies on a line. Zero where the network did not look:
    outside its input, and in leads that it is not given.
    """
    if values.shape != (spec.samples, len(spec.leads)):
        raise ValueError(
            f"a map of {spec.samples} samples and {len(spec.leads)} leads is wanted, "
            f"not {values.shape}"
        )
    begin_ms, end_ms = input_span(strip, spec)
    sample_ms = (end_ms - begin_ms) / spec.samples
    count = strip.millivolts.shape[1]
    at = (np.arange(count) * 1000.0 / strip.rate_hz - begin_ms) / sample_ms
    looked = np.arange(spec.samples)
    stretched = np.zeros((len(LEADS), count), np.float32)
    for column, name in enumerate(spec.leads):
        stretched[LEADS.index(name)] = np.interp(at, looked, values[:, column], left=0.0, right=0.0)
    return stretched


def without_wander(
    rows: NDArray[np.float64], rate_hz: float, highpass_hz: float
) -> NDArray[np.float64]:
    """The rows (leads, samples) without what is slower than ``highpass_hz``; no shift in time."""
    if highpass_hz >= 0.45 * rate_hz:
        return rows
    sections = butter(2, highpass_hz, "highpass", fs=rate_hz, output="sos")
    reach = min(rows.shape[1] - 1, math.ceil(1.5 * rate_hz / highpass_hz))
    filtered: NDArray[np.float64] = sosfiltfilt(sections, rows, axis=1, padlen=max(reach, 0))
    return filtered


def _ratio(strip: Strip, spec: InputShape) -> Fraction:
    """How many samples of the network there are to one of the strip."""
    if strip.millivolts.shape[1] == 0 or not 0 < strip.rate_hz < math.inf:
        raise EcgError(
            f"the recording holds {strip.millivolts.shape[1]} samples at {strip.rate_hz:g} Hz: "
            "there is nothing to read; send it again from the cart"
        )
    return Fraction(spec.rate_hz / strip.rate_hz).limit_denominator(_MOST_RATIO)


def _length(strip: Strip, ratio: Fraction) -> int:
    """Samples of the strip at the network's rate: what polyphase filtering gives."""
    samples: int = strip.millivolts.shape[1]
    return math.ceil(samples * ratio)


def _begin(length: int, spec: InputShape) -> int:
    """Which sample of the strip, at the network's rate, is the network's first."""
    spare = length - spec.samples
    return spare // 2 if spare >= 0 else -(-spare // 2)


def _lead(strip: Strip, name: str) -> NDArray[np.float64]:
    """One lead in mV, from I and II where it is a limb lead that is missing."""
    row = strip.lead(name).astype(np.float64)
    if not np.isnan(row).all():
        return row
    if name in OF_I_AND_II:
        of_one, of_two = OF_I_AND_II[name]
        row = of_one * strip.lead("I").astype(np.float64) + of_two * strip.lead("II")
        if not np.isnan(row).all():
            return row
    raise EcgError(
        f"lead {name} is missing, and the network needs it; record all twelve leads, or switch "
        "this pack off for such recordings"
    )


def _bridged(
    rows: NDArray[np.float64], rate_hz: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The rows with lines over their gaps, and where these are too long to be believed."""
    gaps = np.isnan(rows)
    hidden = np.zeros(rows.shape, np.bool_)
    filled = rows.copy()
    for row, gap, long in zip(filled, gaps, hidden, strict=True):
        if not gap.any():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate(([False], gap, [False]))))
        for start, stop in edges.reshape(-1, 2):
            long[start:stop] = stop - start > LONGEST_BRIDGE_S * rate_hz
        row[gap] = np.interp(np.flatnonzero(gap), np.flatnonzero(~gap), row[~gap])
    return filled, hidden
