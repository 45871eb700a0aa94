"""One recording: a heart, its beats, a cart; and all that is true of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.ecg.beats import Waves
from models.ecg.recording import Ecg, Strip
from models.ecg.simulator.cart import Cart, draw_cart, recorded
from models.ecg.simulator.heart import Beat, Heart, draw_heart
from models.ecg.simulator.leads import FROM_INDEPENDENT
from models.ecg.simulator.rhythm import Beats, Origin, draw_beats
from models.ecg.simulator.wanted import (
    Conduction,
    EcgWanted,
    Rhythm,
    draw_qt_ms,
    qrs_range_ms,
)

Floats = NDArray[np.float32]

_AROUND_S = 1.0  # simulated before and after what is kept, for filters and half beats
_V5 = 6  # among the independent leads
_TACHYCARDIA_BPM, _BRADYCARDIA_BPM = 100.0, 60.0
_LONG_PR_MS = 200.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedEcg:
    """A recording and what is true of it.

    ``truths`` are outputs of :data:`models.tasks.ECG_TASKS` by name; what there is not (a PR
    interval in fibrillation) is left out. ``waves`` and ``r_peaks`` (beats,) are of the beats whose
    QRS complex lies within the recording, ``origins`` where each came from. ``clean`` (12, samples)
    is the heart alone in mV, before noise, filters and converter.
    """

    ecg: Ecg
    truths: Mapping[str, float]
    waves: tuple[Waves, ...]
    rhythm: Rhythm
    wanted: EcgWanted
    seed: int
    cart: Cart
    clean: Floats = field(repr=False)
    r_peaks: NDArray[np.int64] = field(repr=False)
    origins: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Numbers:
    """What was asked for, and what was drawn where nothing was asked."""

    heart_rate_bpm: float
    pr_ms: float
    qrs_ms: float
    qt_ms: float
    male: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Timed:
    """(n,) of each beat, in s from the first sample; no P: NaN. ``height`` scales its waves."""

    onset_s: NDArray[np.float64]
    qrs_s: NDArray[np.float64]
    p_s: NDArray[np.float64]
    qt_s: NDArray[np.float64]
    origins: NDArray[np.int64]
    height: NDArray[np.float64]


def simulate_ecg(wanted: EcgWanted, seed: int) -> SimulatedEcg:
    """The recording that is wanted; the same seed gives the same one.

    Times are exact by construction, to the sample where they are given as samples. The rate is 60
    over the mean RR interval of the beats in the recording. Amplitudes are those of the usual beat
    in V5 without noise, against the line between P and QRS: the J point at the end of QRS, the
    highest point of QRS, and the highest or lowest point of T, whichever is further off.
    """
    rng = np.random.default_rng([seed, 0x0ECC])
    numbers = _draw_numbers(rng, wanted)
    wanted = _settled(wanted, numbers)
    heart = draw_heart(rng, wanted, qrs_ms=numbers.qrs_ms, qt_ms=numbers.qt_ms, male=numbers.male)
    beats = draw_beats(rng, wanted, numbers.heart_rate_bpm, _AROUND_S)
    timed = _timed(rng, wanted, numbers, heart, beats)
    around = round(_AROUND_S * wanted.rate_hz)
    samples = round(wanted.duration_s * wanted.rate_hz)
    voltage = _voltage(rng, wanted, heart, beats, timed, samples + 2 * around)
    cart = draw_cart(rng)
    kept = slice(around, around + samples)
    clean = voltage[:, kept]
    seen = clean
    if wanted.noise > 0:
        seen = recorded(rng, voltage, wanted.rate_hz, cart, wanted.noise)[:, kept]
        seen = _with_electrodes_off(rng, seen)
    seen, clean = _padded(seen, wanted), _padded(clean, wanted)
    waves, peaks, within = _windows(wanted, heart, timed, samples)
    return SimulatedEcg(
        ecg=Ecg(rhythm=Strip(millivolts=_twelve(seen), rate_hz=wanted.rate_hz)),
        truths=_truths(wanted, numbers, heart, timed, within),
        waves=waves,
        rhythm=wanted.rhythm,
        wanted=wanted,
        seed=seed,
        cart=cart,
        clean=_twelve(clean),
        r_peaks=peaks,
        origins=timed.origins[within],
    )


# --- Numbers ---------------------------------------------------------------------------------


def _draw_numbers(rng: np.random.Generator, wanted: EcgWanted) -> _Numbers:
    male = bool(rng.random() < 0.5) if wanted.male is None else wanted.male
    rate = wanted.heart_rate_bpm
    if rate is None:
        fast = wanted.rhythm in (Rhythm.ATRIAL_FIBRILLATION, Rhythm.ATRIAL_FLUTTER)
        rate = float(rng.uniform(65, 130) if fast else rng.uniform(61, 95))
    qrs = wanted.qrs_ms
    if qrs is None:
        low, high = qrs_range_ms(wanted.conduction)
        usual = 135.0 if low >= 120 else 92.0
        qrs = float(np.clip(rng.normal(usual, 9), low, high))
    qt = wanted.qt_ms
    if qt is None:
        qt = draw_qt_ms(rng, rate, qrs, male=male)
    pr = wanted.pr_ms
    if pr is None:
        pr = float(np.clip(rng.normal(158, 18), 110, 198))
    return _Numbers(heart_rate_bpm=rate, pr_ms=pr, qrs_ms=qrs, qt_ms=qt, male=male)


def _settled(wanted: EcgWanted, numbers: _Numbers) -> EcgWanted:
    """The same with nothing left open that was drawn."""
    return replace(
        wanted,
        heart_rate_bpm=numbers.heart_rate_bpm,
        pr_ms=numbers.pr_ms if wanted.rhythm is Rhythm.SINUS else None,
        qrs_ms=numbers.qrs_ms,
        qt_ms=numbers.qt_ms,
        male=numbers.male,
    )


def _timed(
    rng: np.random.Generator, wanted: EcgWanted, numbers: _Numbers, heart: Heart, beats: Beats
) -> _Timed:
    count = len(beats.onsets_s)
    ventricular = beats.origins == Origin.VENTRICULAR
    # QT follows the rate over many beats, not the last interval alone.
    before = beats.before_s / beats.before_s.mean() - 1
    lag = np.convolve(before, [0.25, 0.2, 0.15, 0.1, 0.08], mode="full")[:count]
    qt = numbers.qt_ms / 1000 * (1 + 0.35 * np.clip(lag, -0.4, 0.6))
    qt += rng.normal(0, 0.0015, count)
    qt[ventricular] = heart.ventricular.qt_ms / 1000
    pr = numbers.pr_ms + rng.normal(0, rng.uniform(0.5, 2.0), count)
    early = beats.origins == Origin.ATRIAL
    pr[early] = max(numbers.pr_ms * rng.uniform(0.85, 1.2), heart.atrial.p_ms + 12)
    p = beats.onsets_s - pr / 1000
    if wanted.rhythm is not Rhythm.SINUS or not wanted.p_visible:
        p[:] = np.nan
    p[ventricular] = np.nan
    return _Timed(
        onset_s=beats.onsets_s,
        qrs_s=np.where(ventricular, heart.ventricular.qrs_ms, numbers.qrs_ms) / 1000,
        p_s=p,
        qt_s=qt,
        origins=beats.origins,
        height=1 + rng.normal(0, 0.012, count),
    )


# --- Voltages --------------------------------------------------------------------------------


def _voltage(
    rng: np.random.Generator,
    wanted: EcgWanted,
    heart: Heart,
    beats: Beats,
    timed: _Timed,
    samples: int,
) -> Floats:
    """(8, samples) mV of the heart alone, from ``_AROUND_S`` before the recording on."""
    summed = np.zeros((samples, 8), np.float32)
    depth = float(rng.lognormal(np.log(0.03), 0.6))
    breath = (timed.height[:, None] + depth * beats.breath[:, None] * heart.breath).astype(
        np.float32
    )
    for origin, beat in (
        (Origin.USUAL, heart.usual),
        (Origin.ATRIAL, heart.atrial),
        (Origin.VENTRICULAR, heart.ventricular),
    ):
        chosen = np.flatnonzero(timed.origins == origin)
        if len(chosen):
            _add_beats(summed, beat, timed, chosen, breath, wanted.rate_hz)
    if wanted.rhythm is Rhythm.ATRIAL_FIBRILLATION:
        summed += _fibrillation(rng, wanted, heart, samples)
    elif wanted.rhythm is Rhythm.ATRIAL_FLUTTER:
        summed += _flutter(rng, wanted, samples)
    return np.ascontiguousarray(summed.T)


def _add_beats(
    summed: Floats,
    beat: Beat,
    timed: _Timed,
    chosen: NDArray[np.int64],
    breath: Floats,
    rate_hz: float,
) -> None:
    onsets = timed.onset_s[chosen] + _AROUND_S
    qrs_s = beat.qrs_ms / 1000
    first, times = _grid(onsets, -0.04, qrs_s + 0.05, rate_hz)
    _place(summed, first, beat.qrs.at(times), breath[chosen])
    stretch = (timed.qt_s[chosen] - beat.qt_ms / 1000)[:, None]
    longest = float(timed.qt_s[chosen].max()) + 0.22
    first, times = _grid(onsets, qrs_s - 0.03, longest, rate_hz)
    _place(summed, first, beat.after_qrs(times, stretch), breath[chosen])
    starts = timed.p_s[chosen] + _AROUND_S
    seen = ~np.isnan(starts)
    if beat.p is not None and seen.any():
        first, times = _grid(starts[seen], -0.04, beat.p_ms / 1000 + 0.05, rate_hz)
        _place(summed, first, beat.p.at(times), breath[chosen][seen])


def _grid(
    zeros_s: NDArray[np.float64], begin_s: float, end_s: float, rate_hz: float
) -> tuple[NDArray[np.int64], Floats]:
    """(n,) first samples, and (n, window) times of the samples from each beat's zero."""
    first = np.ceil((zeros_s + begin_s) * rate_hz).astype(np.int64)
    window = int((end_s - begin_s) * rate_hz)
    times = (first[:, None] + np.arange(window)) / rate_hz - zeros_s[:, None]
    return first, times.astype(np.float32)


def _place(summed: Floats, first: NDArray[np.int64], waves: Floats, breath: Floats) -> None:
    samples, window = len(summed), waves.shape[1]
    # Far out a Gaussian is small, not nothing: let it end without a step.
    fade = min(8, window // 4)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)[:, None]
    waves = waves * breath[:, None, :]
    waves[:, :fade] *= ramp
    waves[:, -fade:] *= ramp[::-1]
    for begin, wave in zip(first.tolist(), waves, strict=True):
        low, high = max(begin, 0), min(begin + window, samples)
        if low < high:
            summed[low:high] += wave[low - begin : high - begin]


def _fibrillation(
    rng: np.random.Generator, wanted: EcgWanted, heart: Heart, samples: int
) -> Floats:
    """(samples, 8): waves of 4 to 9 a second that come and go, coarse in some, hardly seen in
    others."""
    size = wanted.fibrillation_mv
    if size is None:
        size = float(np.clip(rng.lognormal(np.log(0.034), 0.7), 0.005, 0.15))
    times = np.arange(samples) / wanted.rate_hz
    sources = []
    for _ in range(2):
        hertz = rng.uniform(4.2, 8.6)
        knots = int(times[-1] * 3) + 4
        pace = np.interp(
            np.linspace(0, knots - 1, samples), np.arange(knots), rng.normal(0, 1, knots)
        )
        phase = 2 * np.pi * np.cumsum(hertz * (1 + 0.14 * pace)) / wanted.rate_hz
        swell = np.interp(
            np.linspace(0, knots - 1, samples), np.arange(knots), np.exp(rng.normal(0, 0.35, knots))
        )
        tilt, turn = rng.uniform(0.1, 0.45), rng.uniform(0, 2 * np.pi)
        sources.append(swell * (np.sin(phase) + tilt * np.sin(2 * phase + turn)))
    waves = np.stack(sources, axis=1).astype(np.float32) @ heart.wavelets
    return np.asarray(size * 0.8 * waves, np.float32)


def _flutter(rng: np.random.Generator, wanted: EcgWanted, samples: int) -> Floats:
    """(samples, 8): a sawtooth, 240 to 340 a minute, down in the inferior leads, up in V1."""
    size = wanted.fibrillation_mv
    if size is None:
        size = float(np.clip(rng.lognormal(np.log(0.12), 0.4), 0.04, 0.3))
    rate = 60 / (wanted.heart_rate_bpm or 75.0)
    hertz = max(4.0, min(5.7, round(5.0 * rate) / rate))
    times = np.arange(samples) / wanted.rate_hz
    phase = 2 * np.pi * hertz * times + rng.uniform(0, 2 * np.pi)
    saw = np.sin(phase) + 0.42 * np.sin(2 * phase + 0.5) + 0.16 * np.sin(3 * phase + 1.0)
    leads = np.array([-0.1, -1.0, 0.9, 0.5, 0.2, 0.1, -0.1, -0.2]) * rng.normal(1, 0.25, 8)
    return np.asarray(size * saw[:, None] * leads, np.float32)


def _with_electrodes_off(rng: np.random.Generator, seen: Floats) -> Floats:
    """Now and then an electrode of the chest is off, for a while or for good: a flat line.

    Or all of them are, where only the limbs were recorded.
    """
    chance = rng.random()
    if chance > 0.025:
        return seen
    seen = seen.copy()
    if chance < 0.005:
        seen[2:] = 0.0
        return seen
    begin = 0 if rng.random() < 0.5 else int(rng.integers(seen.shape[1]))
    seen[int(rng.integers(2, 8)), begin:] = 0.0
    return seen


def _padded(rows: Floats, wanted: EcgWanted) -> Floats:
    edge = round(wanted.padding_s * wanted.rate_hz)
    if edge:
        rows = rows.copy()
        rows[:, :edge] = rows[:, -edge:] = 0.0
    return rows


def _twelve(independent: Floats) -> Floats:
    return np.ascontiguousarray(FROM_INDEPENDENT @ independent)


# --- Truths ----------------------------------------------------------------------------------


def _windows(
    wanted: EcgWanted, heart: Heart, timed: _Timed, samples: int
) -> tuple[tuple[Waves, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Waves and R peaks in samples, and which beats they are of."""
    edge = round(wanted.padding_s * wanted.rate_hz)
    low, high = edge, samples - edge

    def window(begin_s: float, end_s: float) -> tuple[int, int] | None:
        begin, end = round(begin_s * wanted.rate_hz), round(end_s * wanted.rate_hz)
        return (begin, end) if low <= begin < end <= high else None

    peak_s = np.where(
        timed.origins == Origin.VENTRICULAR, heart.ventricular.peak_s, heart.usual.peak_s
    )
    waves, within, peaks = [], [], []
    for number, onset in enumerate(timed.onset_s):
        j_s = onset + timed.qrs_s[number]
        qrs = window(onset, j_s)
        if qrs is None:
            continue
        p_s = timed.p_s[number]
        p = None if np.isnan(p_s) else window(p_s, p_s + heart.usual.p_ms / 1000)
        t_begin = j_s + 0.25 * (timed.qt_s[number] - timed.qrs_s[number])
        waves.append(Waves(p=p, qrs=qrs, t=window(t_begin, onset + timed.qt_s[number])))
        within.append(number)
        peaks.append(round((onset + peak_s[number]) * wanted.rate_hz))
    return tuple(waves), np.array(peaks, np.int64), np.array(within, np.int64)


def _truths(
    wanted: EcgWanted,
    numbers: _Numbers,
    heart: Heart,
    timed: _Timed,
    within: NDArray[np.int64],
) -> dict[str, float]:
    onsets = timed.onset_s[within]
    truths = {"sex": float(numbers.male)}
    rate = None
    if len(onsets) > 1:
        rate = 60 * (len(onsets) - 1) / float(onsets[-1] - onsets[0])
        truths["heart_rate"] = rate
    sinus = wanted.rhythm is Rhythm.SINUS and wanted.p_visible
    own = within[timed.origins[within] == Origin.USUAL]
    truths |= _interval_truths(timed, own, with_p=sinus)
    if wanted.rhythm is not Rhythm.VENTRICULAR:
        truths |= _amplitude_truths(heart)
    truths["rbbb"] = float(wanted.conduction is Conduction.RBBB)
    truths["lbbb"] = float(wanted.conduction is Conduction.LBBB)
    if wanted.rhythm is not Rhythm.ATRIAL_FLUTTER:
        truths["atrial_fibrillation"] = float(wanted.rhythm is Rhythm.ATRIAL_FIBRILLATION)
    # Without P waves nobody can say whether it is the sinus node that is slow or fast.
    if sinus or wanted.rhythm is not Rhythm.SINUS:
        long = sinus and numbers.pr_ms > _LONG_PR_MS
        truths["first_degree_av_block"] = float(long)
        if rate is not None:
            truths["sinus_bradycardia"] = float(sinus and rate < _BRADYCARDIA_BPM)
            truths["sinus_tachycardia"] = float(sinus and rate > _TACHYCARDIA_BPM)
    return truths


def _interval_truths(timed: _Timed, own: NDArray[np.int64], *, with_p: bool) -> dict[str, float]:
    """Means over the usual beats, in ms."""
    if not len(own):
        return {}
    truths = {
        "qrs_duration": float(timed.qrs_s[own].mean()) * 1000,
        "qt_interval": float(timed.qt_s[own].mean()) * 1000,
    }
    if with_p:
        truths["pr_interval"] = float((timed.onset_s - timed.p_s)[own].mean()) * 1000
    return truths


def _amplitude_truths(heart: Heart) -> dict[str, float]:
    beat = heart.usual
    j_s, end_s = beat.qrs_ms / 1000, beat.qt_ms / 1000
    times = np.append(
        np.linspace(0, j_s, 161, dtype=np.float32)[:-1],
        np.linspace(j_s, end_s, 161, dtype=np.float32),
    )
    v5 = (beat.qrs.at(times) + beat.after_qrs(times))[:, _V5]
    t = v5[times > j_s + 0.3 * (end_s - j_s)]
    return {
        "j_amplitude": float(v5[160]),
        "r_amplitude": max(0.0, float(v5[:161].max())),
        "t_amplitude": float(t[np.abs(t).argmax()]),
    }
