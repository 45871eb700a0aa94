"""Where the beats of a recording are, what its usual beat looks like, and where its waves end.

All of it rests on signals that no single lead rules: the spatial magnitude and its speed, root mean
squares over the leads that are measured. Waves are found on the aligned median of the beats that
look alike, where noise and wander are small, and then laid on each beat, as carts do. Beats that
look different (ectopic ones) are measured on themselves.

A wave begins and ends where the spatial speed has fallen to a share of that of its limb: 4 and 6 %
for the QRS, 20 % for P and T; held against a cart's marks and against simulated hearts, these are
right to some ms. A P wave counts only where it comes back: the power of the median must be far
above what chance leaves in it, as that of atrial fibrillation is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt

from models.ecg.inputs import without_wander
from models.ecg.recording import INDEPENDENT, LEADS, LOWEST_RATE_HZ, EcgError, Strip

WANDER_HZ: Final = 0.5
"""Slower than this is breath and movement."""

_QRS_BAND_HZ: Final = (8.0, 25.0)
_SHORTEST_RR_S: Final = 0.2  # 300 beats a minute
_MOST_BEATS: Final = 400  # for a median: more add time and no accuracy
_ALIKE: Final = 0.85  # correlation of two beats of the same origin
_QRS_ONSET_SHARE, _QRS_OFFSET_SHARE = 0.04, 0.06  # of the greatest speed
_FOOT_SHARE: Final = 0.2  # of the speed of a limb of P or T, where the wave begins and ends
# R to the falling limb of T, at a beat a second; it shortens with the root (Bazett 1920).
_T_USUAL, _T_SPREAD, _T_LATEST, _T_SOONER = 0.33, 0.07, 0.58, 0.42
_LEAST_P_MV_S, _LEAST_T_MV_S = 0.4, 0.4
# Power of the median over what chance leaves; where beats come irregularly, as in atrial
# fibrillation, much more is asked: its waves agree by accident, too.
_REGULAR_AGREES, _IRREGULAR_AGREES, _IRREGULAR = 4.0, 50.0, 0.06
_WIDER: Final = 1.25  # than the usual QRS: not the usual way through the ventricles
_BEFORE_S, _AFTER_S = 0.6, 0.8  # what is looked at around R: PR of 500 ms, R to the end of T


@dataclass(frozen=True, kw_only=True, slots=True)
class Waves:
    """The waves of one beat, as (first sample, one after the last); None: there is none."""

    p: tuple[int, int] | None
    qrs: tuple[int, int]
    t: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Beats:
    """Windows around R: ``windows`` (beats, leads, samples), NaN outside the recording."""

    windows: NDArray[np.float64]
    peaks: NDArray[np.int64]
    usual: NDArray[np.bool_]  #: (beats,) those that look alike
    before: int  #: samples before R
    rate_hz: float
    sought: list[int]  #: the leads in which waves are looked for


def r_peaks(strip: Strip) -> NDArray[np.int64]:
    """Sample positions of the R peaks: where the spatial magnitude of each QRS is greatest.

    Empty where no lead has a signal, or none that looks like heartbeats.
    """
    rows = _clean(strip, _measured_rows(strip))
    count = rows.shape[1]
    if len(rows) == 0 or count < 0.3 * strip.rate_hz or strip.rate_hz < LOWEST_RATE_HZ:
        return np.empty(0, np.int64)
    energy = _qrs_energy(rows, strip.rate_hz)
    places = _beats_in(energy, strip.rate_hz)
    magnitude = _magnitude(_low_pass(rows, strip.rate_hz, 40.0))
    reach = round(0.08 * strip.rate_hz)
    peaks = [
        max(place - reach, 0) + int(np.argmax(magnitude[max(place - reach, 0) : place + reach + 1]))
        for place in places
    ]
    return np.unique(np.asarray(peaks, np.int64))


def heart_rate_bpm(peaks: NDArray[np.int64], rate_hz: float) -> float | None:
    """Beats a minute from the mean distance of R peaks; None with fewer than two."""
    if len(peaks) < 2:
        return None
    return float(60.0 * rate_hz * (len(peaks) - 1) / (peaks[-1] - peaks[0]))


def median_beat(
    strip: Strip,
    peaks: NDArray[np.int64] | None = None,
    *,
    before_s: float = 0.4,
    after_s: float = 0.8,
) -> Strip:
    """The usual beat: the median, sample by sample, of the aligned beats that look alike.

    R lies ``before_s`` after the first sample; the level just before the QRS is 0 mV. Raises
    :class:`EcgError` where the strip holds no beat.
    """
    beats = _aligned(strip, peaks, before_s, after_s)
    shape = _median(beats.windows[beats.usual][:, beats.sought])
    onset, _ = _qrs_around(shape, beats.before, strip.rate_hz)
    there = np.flatnonzero(~np.isnan(strip.millivolts).all(axis=1)).tolist()
    usual = beats.peaks[beats.usual]
    level = _levelled(_bridged(strip, there), usual, onset - beats.before, strip.rate_hz)
    median = np.full((len(LEADS), beats.windows.shape[2]), np.nan, np.float32)
    median[there] = _median(_windows(level, usual, beats.before, median.shape[1] - beats.before))
    return replace(strip, millivolts=median)


def delineate(strip: Strip, peaks: NDArray[np.int64] | None = None) -> tuple[Waves, ...]:
    """The waves of each beat, in order, cut to the recording.

    Raises :class:`EcgError` where the strip holds no beat.
    """
    beats = _aligned(strip, peaks, _BEFORE_S, _AFTER_S)
    windows = beats.windows[:, beats.sought]
    usual = _waves_of(windows[beats.usual], beats, _usual_rr(beats))
    widest = _WIDER * (usual.qrs[1] - usual.qrs[0])
    laid = []
    for window, peak, alike in zip(windows, beats.peaks, beats.usual, strict=True):
        waves = usual if alike else _waves_of(window[None], beats, _usual_rr(beats))
        if waves.qrs[1] - waves.qrs[0] > widest:
            waves = replace(waves, p=None)  # it comes from the ventricles
        laid.append(_laid(waves, int(peak) - beats.before, strip.millivolts.shape[1]))
    return tuple(laid)


# Beats


def _measured_rows(strip: Strip) -> list[int]:
    """Which leads are looked at: those that are measured and not flat, else any that are there."""
    alive = [
        row
        for row, values in enumerate(strip.millivolts)
        if not np.isnan(values).all() and np.nanmax(values) - np.nanmin(values) > 0.02
    ]
    measured = [row for row in alive if LEADS[row] in INDEPENDENT]
    return measured or alive


def _bridged(strip: Strip, rows: list[int]) -> NDArray[np.float64]:
    """These leads in mV, gaps bridged by a line: (leads, samples)."""
    values = strip.millivolts[rows].astype(np.float64)
    for row in values:
        gap = np.isnan(row)
        if gap.any() and not gap.all():
            row[gap] = np.interp(np.flatnonzero(gap), np.flatnonzero(~gap), row[~gap])
    return values


def _clean(strip: Strip, rows: list[int]) -> NDArray[np.float64]:
    """These leads in mV without wander, gaps bridged by a line: (leads, samples)."""
    values = _bridged(strip, rows)
    return without_wander(values, strip.rate_hz, WANDER_HZ) if values.size else values


def _levelled(
    rows: NDArray[np.float64], peaks: NDArray[np.int64], onset: int, rate_hz: float
) -> NDArray[np.float64]:
    """The rows with 0 mV just before each QRS, and lines between: a filter would bend ST."""
    before = peaks[:, None] + onset - np.arange(max(round(0.02 * rate_hz), 1))
    places = np.clip(before, 0, rows.shape[1] - 1)
    times = np.arange(rows.shape[1])
    middle = places.mean(axis=1)
    return np.stack(
        [row - np.interp(times, middle, np.median(row[places], axis=1)) for row in rows]
    )


def _qrs_energy(rows: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """(samples,) how much there is of what is as quick as a QRS, over all leads, for 100 ms."""
    low, high = _QRS_BAND_HZ[0], min(_QRS_BAND_HZ[1], 0.45 * rate_hz)
    band = butter(2, (low, high), "bandpass", fs=rate_hz, output="sos")
    quick = sosfiltfilt(band, rows, axis=1, padlen=min(rows.shape[1] - 1, round(rate_hz)))
    # A lead full of noise must not drown the others: each counts by what stands out of it.
    hundred_ms = max(round(0.1 * rate_hz), 1)
    steady = np.median(np.abs(quick), axis=1, keepdims=True)
    top = np.percentile(np.abs(quick), 98.0, axis=1, keepdims=True)
    share = np.clip(1.0 - 4.0 * steady / np.maximum(top, 1e-9), 0.05, 1.0)
    power = np.maximum(uniform_filter1d(np.square(quick * share).sum(axis=0), hundred_ms), 0.0)
    energy: NDArray[np.float64] = np.sqrt(power)
    return energy


def _beats_in(energy: NDArray[np.float64], rate_hz: float) -> NDArray[np.int64]:
    """Where the energy has the peaks of beats: high enough, far enough apart, no T waves."""
    found, _ = find_peaks(energy, distance=max(round(_SHORTEST_RR_S * rate_hz), 1))
    if len(found) == 0:
        return np.empty(0, np.int64)
    usual = _usual_top(energy, rate_hz)
    heights = energy[found]
    places = found[heights > 0.4 * usual]
    places = _without_t_and_p_waves(places, energy, rate_hz)
    return _with_small_beats(places, found[heights > 0.2 * usual], rate_hz)


def _usual_top(energy: NDArray[np.float64], rate_hz: float) -> float:
    """The height of a usual beat: the median over stretches that hold one beat at least."""
    stretch = round(1.5 * rate_hz)
    tops = [
        float(energy[start : start + stretch].max())
        for start in range(0, max(len(energy) - stretch // 2, 1), stretch)
    ]
    return float(np.median(tops))


def _without_t_and_p_waves(
    places: NDArray[np.int64], energy: NDArray[np.float64], rate_hz: float
) -> NDArray[np.int64]:
    """Peaks within 360 ms after a far higher one are T waves (Pan and Tompkins 1985).

    Those within 300 ms before one are P waves.
    """
    higher = energy[places][None] > 2.0 * energy[places][:, None]
    apart_s = (places[:, None] - places[None]) / rate_hz
    beside = (apart_s > -0.3) & (apart_s < 0.36)
    return places[~(higher & beside).any(axis=1)]


def _with_small_beats(
    places: NDArray[np.int64], small: NDArray[np.int64], rate_hz: float
) -> NDArray[np.int64]:
    """Where a beat seems to be left out, a smaller peak counts (Pan and Tompkins 1985)."""
    if len(places) < 3:
        return places
    usual = float(np.median(np.diff(places)))
    kept = [int(places[0])]
    for place in places[1:]:
        if place - kept[-1] > 1.66 * usual:
            apart = max(0.36 * rate_hz, 0.6 * usual)
            kept.extend(int(s) for s in small if kept[-1] + apart < s < place - apart)
        kept.append(int(place))
    return np.asarray(kept, np.int64)


def _aligned(
    strip: Strip, peaks: NDArray[np.int64] | None, before_s: float, after_s: float
) -> _Beats:
    """All leads around each R, shifted by up to 30 ms until they lie on the usual beat."""
    if peaks is None:
        peaks = r_peaks(strip)
    sought = _measured_rows(strip)
    if len(peaks) == 0 or not sought:
        raise EcgError(
            "no heartbeat was found in the recording: check that the electrodes were on, "
            "or record again"
        )
    rate_hz = strip.rate_hz
    rows = np.full((len(LEADS), strip.millivolts.shape[1]), np.nan)
    there = np.flatnonzero(~np.isnan(strip.millivolts).all(axis=1)).tolist()
    rows[there] = _clean(strip, there)
    shifted = peaks.astype(np.int64)
    usual = np.ones(len(peaks), np.bool_)
    if len(peaks) > 1:
        shape = _windows(rows[sought], shifted, round(0.08 * rate_hz), round(0.15 * rate_hz))
        usual = _alike(shape)
        shifted = _shifted(rows[sought], shifted, usual, rate_hz)
    before, after = round(before_s * rate_hz), round(after_s * rate_hz)
    return _Beats(
        windows=_windows(rows, shifted, before, after),
        peaks=shifted,
        usual=usual,
        before=before,
        rate_hz=rate_hz,
        sought=sought,
    )


def _windows(
    rows: NDArray[np.float64], peaks: NDArray[np.int64], before: int, after: int
) -> NDArray[np.float64]:
    """(beats, leads, before + after) around the peaks, NaN outside the recording."""
    padded = np.pad(rows, ((0, 0), (before, after)), constant_values=np.nan)
    around = peaks[:, None] + np.arange(before + after)[None]
    return padded[:, around].transpose(1, 0, 2)


def _alike(shape: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(beats,) those that look like the one that most others look like."""
    flat = np.nan_to_num(shape - np.nanmean(shape, axis=2, keepdims=True)).reshape(len(shape), -1)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    some = flat[:: max(len(flat) // _MOST_BEATS, 1)]
    to_some = flat @ some.T
    middle = int(np.argmax(np.median(to_some, axis=0)))
    likeness = to_some[:, middle]
    # In noise all are less alike; then those that are so as much as half of the others are.
    return np.asarray(likeness >= min(_ALIKE, float(np.median(likeness)) - 0.05), np.bool_)


def _shifted(
    rows: NDArray[np.float64],
    peaks: NDArray[np.int64],
    usual: NDArray[np.bool_],
    rate_hz: float,
) -> NDArray[np.int64]:
    """The peaks of usual beats where these lie best on their median."""
    reach, half = round(0.03 * rate_hz), round(0.08 * rate_hz)
    shifted = peaks.copy()
    chosen = np.flatnonzero(usual)
    for _ in range(2):
        model = _median(_windows(rows, shifted[chosen], half, half))
        around = np.nan_to_num(_windows(rows, shifted[chosen], half + reach, half + reach))
        fits = np.stack(
            [
                np.einsum("bls,ls->b", around[:, :, at : at + 2 * half], model)
                for at in range(2 * reach + 1)
            ]
        )
        moved = shifted[chosen] + np.argmax(fits, axis=0) - reach
        shifted[chosen] = np.clip(moved, 0, rows.shape[1] - 1)
    # The shifts as a whole must not move R away from where it was found.
    shifted[chosen] -= round(float(np.median(shifted[chosen] - peaks[chosen])))
    return np.clip(shifted, 0, rows.shape[1] - 1)


def _median(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median over beats, zero where no beat reaches."""
    some = windows[:: max(len(windows) // _MOST_BEATS, 1)]
    nowhere = np.isnan(some).all(axis=0)
    median: NDArray[np.float64] = np.nanmedian(np.where(nowhere, 0.0, some), axis=0)
    return median


def _least_agreement(peaks: NDArray[np.int64]) -> float:
    """How much the beats must agree on a P wave."""
    if len(peaks) < 4:
        return _REGULAR_AGREES
    steps = np.diff(peaks)
    irregular = float(np.median(np.abs(np.diff(steps))) / np.median(steps)) > _IRREGULAR
    return _IRREGULAR_AGREES if irregular else _REGULAR_AGREES


def _usual_rr(beats: _Beats) -> float:
    """Seconds from beat to beat; a second where there is only one."""
    if len(beats.peaks) < 2:
        return 1.0
    return float(np.median(np.diff(beats.peaks)) / beats.rate_hz)


# Waves


def _waves_of(windows: NDArray[np.float64], beats: _Beats, rr_s: float) -> Waves:
    """The waves of these beats' median, counted from the window's first sample."""
    rate_hz, r = beats.rate_hz, beats.before
    median = _median(windows)
    onset, offset = _qrs_around(median, r, rate_hz)
    # Else the low pass would smear the QRS over its neighbours.
    median[:, onset:offset] = np.linspace(
        median[:, onset], median[:, min(offset, median.shape[1] - 1)], offset - onset, axis=1
    )
    speed = _speed(_low_pass(median, rate_hz, 20.0), rate_hz)
    rr, least = round(rr_s * rate_hz), _least_agreement(beats.peaks)

    def with_t(t: tuple[int, int] | None) -> Waves:
        between = ((t[1] if t else offset) - rr, onset)
        p = _p_wave(windows, speed, between, least, rate_hz)
        return Waves(p=p, qrs=(onset, offset), t=t)

    waves = with_t(_t_wave(speed, (r, offset), rr_s, _T_LATEST, rate_hz))
    long_t = waves.t is not None and waves.t[1] - onset > 0.6 * rr
    if waves.p is None and long_t and least == _REGULAR_AGREES:
        # The next P wave may have been taken for the end of T.
        other = with_t(_t_wave(speed, (r, offset), rr_s, _T_SOONER, rate_hz))
        return other if other.p is not None else waves
    return waves


def _laid(waves: Waves, shift: int, samples: int) -> Waves:
    """The waves at a beat that begins ``shift`` samples into the recording, cut to it."""

    def cut(wave: tuple[int, int] | None) -> tuple[int, int] | None:
        if wave is None:
            return None
        begin, end = max(wave[0] + shift, 0), min(wave[1] + shift, samples)
        return (begin, end) if begin < end else None

    qrs = cut(waves.qrs)
    if qrs is None:  # R itself lies in the recording
        raise AssertionError("a QRS lies outside the recording")
    return Waves(p=cut(waves.p), qrs=qrs, t=cut(waves.t))


def _qrs_around(median: NDArray[np.float64], r: int, rate_hz: float) -> tuple[int, int]:
    """(begin, end) of the QRS around R, from the spatial speed.

    Outwards from R, the QRS ends where the speed stays under a threshold for 12 ms. That lies a
    little above what is usual between the waves, so that noise does not lengthen the QRS.
    """
    speed = _speed(_low_pass(median, rate_hz, 45.0), rate_hz)
    reach = round(0.14 * rate_hz)
    still = max(round(0.012 * rate_hz), 1)
    begin, end = max(r - reach, 0), min(r + reach, len(speed))
    up = begin + int(np.argmax(speed[begin : r + 1]))
    down = r + int(np.argmax(speed[r:end]))
    before = _rests(speed[begin : up + 1][::-1], float(speed[up]), _QRS_ONSET_SHARE, still)
    after = _rests(speed[down:end], float(speed[down]), _QRS_OFFSET_SHARE, still)
    return up - before, down + after


def _rests(speed: NDArray[np.float64], top: float, share: float, still: int) -> int:
    """After how many samples the speed stays under a share of the top one.

    Where it never does: where it is lowest. Noise between the waves must not lengthen them.
    """
    low = speed < max(share * top, min(1.5 * float(np.percentile(speed, 10)), 0.3 * top))
    run = 0
    for at, is_low in enumerate(low):
        run = run + 1 if is_low else 0
        if run >= still:
            return at - run + 1
    return int(np.argmin(speed))


def _t_wave(
    speed: NDArray[np.float64],
    qrs: tuple[int, int],
    rr_s: float,
    latest: float,
    rate_hz: float,
) -> tuple[int, int] | None:
    """(begin, end) of the T wave after R and the QRS's end; None where nothing moves there."""
    r, offset = qrs
    begin = offset + round(0.04 * rate_hz)
    end = min(r + round(min(latest * math.sqrt(rr_s), 0.7) * rate_hz), len(speed))
    # In a quick heart the next P wave follows at once, and may be the quicker one.
    late = (np.arange(len(speed)) - r) / rate_hz / math.sqrt(rr_s) - _T_USUAL
    likely = speed * np.exp(-0.5 * np.square(np.maximum(late, 0.0) / _T_SPREAD))
    humps = _humps(likely, begin, end, 0.07 * rate_hz)
    if not humps:
        return None
    first, last = max(humps, key=lambda hump: float(likely[hump[0] : hump[1] + 1].max()))
    if speed[first : last + 1].max() < _LEAST_T_MV_S:
        return None
    return _feet(speed, begin, end, (first, last), rate_hz)


def _p_wave(
    windows: NDArray[np.float64],
    speed: NDArray[np.float64],
    between: tuple[int, int],
    least: float,
    rate_hz: float,
) -> tuple[int, int] | None:
    """(begin, end) of a P wave between the last T wave and the QRS; None where there is none."""
    begin = max(between[0] + round(0.01 * rate_hz), round(0.04 * rate_hz))
    end = between[1] - round(0.01 * rate_hz)
    humps = _humps(speed, begin, end, 0.075 * rate_hz)
    if not humps:
        return None
    hump = humps[-1]  # the one nearest to the QRS
    top = float(speed[hump[0] : hump[1] + 1].max())
    if top < max(_LEAST_P_MV_S, 2.0 * float(np.percentile(speed[begin:end], 10))):
        return None
    wave = _feet(speed, begin, end, hump, rate_hz)
    wide_enough = 0.04 * rate_hz <= wave[1] - wave[0] <= 0.2 * rate_hz
    return wave if wide_enough and _comes_back(windows, wave, least, rate_hz) else None


def _humps(speed: NDArray[np.float64], begin: int, end: int, join: float) -> list[tuple[int, int]]:
    """(first, last) fast sample of each thing that moves, limbs ``join`` samples apart together."""
    if end - begin < 2:
        return []
    fast = begin + np.flatnonzero(speed[begin:end] > 0.5 * speed[begin:end].max())
    parts = np.split(fast, np.flatnonzero(np.diff(fast) > join) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts if len(part)]


def _feet(
    speed: NDArray[np.float64], begin: int, end: int, hump: tuple[int, int], rate_hz: float
) -> tuple[int, int]:
    """(begin, end) of the wave with these limbs: where it sets out and where it rests again."""
    first, last = hump
    still = max(round(0.008 * rate_hz), 1)
    middle = (first + last) // 2
    rise, fall = float(speed[first : middle + 1].max()), float(speed[middle : last + 1].max())
    back = _rests(speed[begin : first + 1][::-1], rise, _FOOT_SHARE, still)
    on = _rests(speed[last:end], fall, _FOOT_SHARE, still)
    return first - back, last + on + 1


def _comes_back(
    windows: NDArray[np.float64], wave: tuple[int, int], least: float, rate_hz: float
) -> bool:
    """Whether the beats agree on a wave: the median's power over what chance leaves in it."""
    margin, around = round(0.02 * rate_hz), round(0.1 * rate_hz)
    begin = max(wave[0] - margin - around, 0)
    part = windows[:: max(len(windows) // _MOST_BEATS, 1), :, begin : wave[1] + margin + around]
    part = part[~np.isnan(part).any(axis=(1, 2))]
    if len(part) < 3:
        return True  # one beat says nothing about chance
    smooth = _low_pass(part.reshape(-1, part.shape[2]), rate_hz, 20.0).reshape(part.shape)
    kept = smooth[:, :, max(wave[0] - margin, 0) - begin : wave[1] + margin - begin]
    slope = np.linspace(0.0, 1.0, kept.shape[2])
    level = kept - kept[..., :1] * (1 - slope) - kept[..., -1:] * slope
    middle = np.median(level, axis=0)
    # A few beats that came early must not count as noise; so no variance.
    spread = 1.4826 * np.median(np.abs(level - middle), axis=0)
    # The variance of a median is pi/2 of a mean's.
    chance = float(np.mean(np.square(spread))) * (math.pi / 2) / len(part)
    return float(np.mean(np.square(middle))) > least * chance


def _speed(rows: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """(samples,) the spatial speed in mV/s."""
    return _magnitude(np.gradient(rows, axis=1)) * rate_hz


def _magnitude(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(samples,) root mean square over the leads."""
    magnitude: NDArray[np.float64] = np.sqrt(np.mean(np.square(rows), axis=0))
    return magnitude


def _low_pass(rows: NDArray[np.float64], rate_hz: float, highest_hz: float) -> NDArray[np.float64]:
    """The rows without what is quicker than ``highest_hz``; no shift in time."""
    if highest_hz >= 0.45 * rate_hz:
        return rows
    sections = butter(2, highest_hz, "lowpass", fs=rate_hz, output="sos")
    reach = min(rows.shape[1] - 1, round(3 * rate_hz / highest_hz))
    smooth: NDArray[np.float64] = sosfiltfilt(sections, rows, axis=1, padlen=max(reach, 0))
    return smooth
