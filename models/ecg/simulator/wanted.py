"""What is asked of a simulated ECG, and how a whole clinic's worth of askings is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Rhythm(StrEnum):
    """Where the beats come from."""

    SINUS = "sinus"  #: the sinus node: sinus rhythm, bradycardia and tachycardia, by rate
    ATRIAL_FIBRILLATION = "af"  #: no P waves, no regularity
    ATRIAL_FLUTTER = "flutter"  #: a sawtooth between the QRS complexes, conducted 2:1 to 4:1
    JUNCTIONAL = "junctional"  #: regular, without P waves
    VENTRICULAR = "ventricular"  #: wide beats of the ventricles' own, one like the other


class Conduction(StrEnum):
    """How the ventricles are reached."""

    NORMAL = "normal"
    RBBB = "rbbb"  #: right bundle branch block, QRS 120 ms or more
    LBBB = "lbbb"  #: left bundle branch block, QRS 120 ms or more
    INCOMPLETE_RBBB = "irbbb"  #: the pattern of RBBB in less than 120 ms: not RBBB
    DELAYED = "delayed"  #: wide without the pattern of either branch: neither RBBB nor LBBB


_RANGES = {
    "heart_rate_bpm": (25.0, 220.0, "a minute"),
    "pr_ms": (90.0, 450.0, "ms"),
    "qrs_ms": (60.0, 220.0, "ms"),
    "qt_ms": (200.0, 750.0, "ms"),
    "voltage": (0.1, 4.0, "times the usual"),
    "sinus_arrhythmia": (0.0, 0.3, "of the RR interval"),
    "premature_atrial": (0.0, 0.5, "of the beats"),
    "premature_ventricular": (0.0, 0.5, "of the beats"),
    "fibrillation_mv": (0.0, 0.6, "mV"),
    "rate_hz": (100.0, 4000.0, "Hz"),
    "duration_s": (2.0, 120.0, "s"),
    "padding_s": (0.0, 30.0, "s"),
    "noise": (0.0, 5.0, "times the usual"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EcgWanted:
    """What a simulated ECG shall be; None: drawn, plausible, from the seed.

    ``p_visible`` False takes the P waves of a sinus rhythm away, ``concordant_t`` lets the T waves
    of a bundle branch block point where the QRS complex points. ``voltage`` scales the QRS complex.
    ``premature_atrial`` and ``premature_ventricular`` are shares of the beats;
    ``fibrillation_mv`` is the amplitude of fibrillation or flutter in V1. Of ``duration_s`` the
    first and last ``padding_s`` are zeros, as some records have them. ``noise`` scales everything
    that is not the heart; 0 also leaves away the cart's filters, gain error and converter.

    Raises
    ------
    ValueError
        If a value is out of range, or two of them contradict each other.
    """

    rhythm: Rhythm = Rhythm.SINUS
    conduction: Conduction = Conduction.NORMAL
    left_anterior_block: bool | None = None
    heart_rate_bpm: float | None = None
    pr_ms: float | None = None
    qrs_ms: float | None = None
    qt_ms: float | None = None
    male: bool | None = None
    p_visible: bool = True
    concordant_t: bool = False
    voltage: float | None = None
    sinus_arrhythmia: float | None = None
    premature_atrial: float = 0.0
    premature_ventricular: float = 0.0
    fibrillation_mv: float | None = None
    rate_hz: float = 500.0
    duration_s: float = 10.0
    padding_s: float = 0.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high, unit) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(
                    f"{name} of {value:g} cannot be simulated: give {low:g} to {high:g} {unit}"
                )
        if self.qrs_ms is not None:
            low, high = qrs_range_ms(self.conduction)
            if not low <= self.qrs_ms <= high:
                raise ValueError(
                    f"a QRS of {self.qrs_ms:g} ms is none of conduction {self.conduction}: "
                    f"give {low:g} to {high:g} ms"
                )
            if self.qt_ms is not None and self.qt_ms < self.qrs_ms + 140:
                raise ValueError(
                    f"a QT of {self.qt_ms:g} ms leaves no T wave after a QRS of {self.qrs_ms:g}: "
                    f"give {self.qrs_ms + 140:g} ms or more"
                )
        if self.rhythm is Rhythm.VENTRICULAR and self.conduction is not Conduction.NORMAL:
            raise ValueError(
                f"beats of the ventricles' own do not go the way of conduction {self.conduction}: "
                "leave it normal"
            )
        if 2 * self.padding_s > self.duration_s - 2:
            raise ValueError(
                f"padding of {self.padding_s:g} s at both ends leaves less than 2 s of "
                f"{self.duration_s:g}: give less"
            )


def qrs_range_ms(conduction: Conduction) -> tuple[float, float]:
    """The least and the greatest QRS duration that a conduction has by its definition."""
    return {
        Conduction.NORMAL: (60.0, 119.0),
        Conduction.INCOMPLETE_RBBB: (95.0, 119.0),
        Conduction.DELAYED: (105.0, 200.0),
    }.get(conduction, (120.0, 220.0))


# --- A clinic's worth ------------------------------------------------------------------------

#: What a recording is drawn for. The six classes come to 8 to 15 % each: some come in company.
_KINDS = {
    "normal": 0.35,
    "first_degree": 0.10,
    "rbbb": 0.11,
    "lbbb": 0.11,
    "bradycardia": 0.09,
    "fibrillation": 0.13,
    "tachycardia": 0.11,
}


def draw_wanted(
    rng: np.random.Generator,
    *,
    rate_hz: float | None = None,
    duration_s: float | None = None,
) -> EcgWanted:
    """A recording as one of many: every class, their company, and what is taken for them.

    About a third are none of the six classes; of these a part lies close to a border (PR 180 to
    200 ms, rates of 60 to 65 and 93 to 100, QRS 105 to 119 ms) or looks like a class without being
    one (sinus arrhythmia and premature beats against fibrillation, high voltage and delayed
    conduction against left bundle branch block, flutter, junctional and ventricular rhythm).
    """
    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    rhythm = _draw_rhythm(rng, kind)
    conduction = _draw_conduction(rng, kind)
    if rhythm is Rhythm.VENTRICULAR:
        conduction = Conduction.NORMAL
    heart_rate = _draw_rate(rng, kind, rhythm)
    male = bool(rng.random() < 0.5)
    qrs = _draw_qrs(rng, conduction, male=male)
    duration = _draw_duration(rng) if duration_s is None else duration_s
    return EcgWanted(
        rhythm=rhythm,
        conduction=conduction,
        left_anterior_block=bool(rng.random() < (0.2 if conduction is Conduction.RBBB else 0.05)),
        heart_rate_bpm=heart_rate,
        pr_ms=_draw_pr(rng, kind, heart_rate, qrs) if rhythm is Rhythm.SINUS else None,
        qrs_ms=qrs,
        qt_ms=draw_qt_ms(rng, heart_rate, qrs, male=male),
        male=male,
        concordant_t=conduction in (Conduction.LBBB, Conduction.RBBB) and rng.random() < 0.08,
        sinus_arrhythmia=float(rng.uniform(0.04, 0.16)) if rng.random() < 0.2 else None,
        premature_atrial=float(rng.uniform(0.03, 0.3)) if rng.random() < 0.12 else 0.0,
        premature_ventricular=float(rng.uniform(0.03, 0.25)) if rng.random() < 0.10 else 0.0,
        rate_hz=float(rng.choice([250, 400, 500, 500, 500, 1000])) if rate_hz is None else rate_hz,
        duration_s=duration,
        padding_s=_draw_padding(rng, duration),
        noise=float(np.clip(rng.lognormal(-0.1, 0.55), 0.15, 4.0)),
    )


def _draw_rhythm(rng: np.random.Generator, kind: str) -> Rhythm:
    if kind == "fibrillation":
        return Rhythm.ATRIAL_FIBRILLATION
    chance = rng.random()
    if kind in ("rbbb", "lbbb") and chance < 0.12:
        return Rhythm.ATRIAL_FIBRILLATION
    if kind == "normal" and chance > 0.955:
        return Rhythm.VENTRICULAR
    if kind in ("normal", "rbbb", "lbbb") and chance > 0.915:
        return Rhythm.ATRIAL_FLUTTER if chance > 0.935 else Rhythm.JUNCTIONAL
    return Rhythm.SINUS


def _draw_conduction(rng: np.random.Generator, kind: str) -> Conduction:
    if kind in ("rbbb", "lbbb"):
        return Conduction(kind)
    chance = rng.random()
    block = 0.04 if kind == "normal" else 0.07
    if kind != "normal" and chance < block:
        return Conduction.RBBB if rng.random() < 0.5 else Conduction.LBBB
    if chance < 0.11:
        return Conduction.DELAYED
    return Conduction.INCOMPLETE_RBBB if chance < 0.16 else Conduction.NORMAL


def _draw_rate(rng: np.random.Generator, kind: str, rhythm: Rhythm) -> float:
    if rhythm is Rhythm.ATRIAL_FIBRILLATION:
        return float(np.clip(rng.lognormal(np.log(88), 0.30), 40, 180))
    if rhythm is Rhythm.ATRIAL_FLUTTER:
        return float(rng.uniform(65, 160))
    if rhythm is Rhythm.JUNCTIONAL:
        return float(rng.uniform(38, 110))
    if rhythm is Rhythm.VENTRICULAR:
        return float(rng.uniform(55, 215))
    if kind == "bradycardia":
        return float(rng.uniform(36, 59.5))
    if kind == "tachycardia":
        return float(np.clip(100.5 + rng.exponential(24), 100.5, 185))
    chance = rng.random()
    if chance < 0.14:
        return float(rng.uniform(60.3, 65))
    if chance < 0.28:
        return float(rng.uniform(93, 99.6))
    if kind != "normal" and chance < 0.36:
        return float(rng.uniform(42, 59.5))
    if kind != "normal" and chance < 0.43:
        return float(rng.uniform(100.5, 140))
    return float(np.clip(rng.normal(76, 10), 60.3, 99.6))


def _draw_qrs(rng: np.random.Generator, conduction: Conduction, *, male: bool) -> float:
    # Rijnbeek et al. 2014 (J Electrocardiol 47:914): men's QRS is some 7 to 10 ms longer.
    usual = rng.normal(97 if male else 89, 9)
    low, high = qrs_range_ms(conduction)
    if conduction is Conduction.NORMAL:
        if rng.random() < 0.08:
            usual = rng.uniform(105, 119)
    elif conduction is Conduction.RBBB:
        usual = 120 + rng.gamma(2.2, 9)
    elif conduction is Conduction.LBBB:
        usual = 120 + rng.gamma(3.2, 9)
    elif conduction is Conduction.INCOMPLETE_RBBB:
        usual = rng.uniform(98, 119)
    else:
        usual = 105 + rng.gamma(2.0, 10)
    return float(np.clip(usual, low, min(high, 200)))


def _draw_pr(rng: np.random.Generator, kind: str, heart_rate: float, qrs_ms: float) -> float:
    room = 60000 / heart_rate - qrs_ms - 110
    if kind == "first_degree" or (kind in ("rbbb", "lbbb", "bradycardia") and rng.random() < 0.13):
        long = 201 + rng.gamma(2.0, 22)
        return float(min(long, max(201.0, room), 400))
    if rng.random() < 0.15:
        usual = rng.uniform(180, 199)
    else:
        usual = rng.normal(158 - 0.12 * (heart_rate - 70), 19)
    return float(np.clip(usual, 105, min(199.0, max(110.0, room))))


def draw_qt_ms(
    rng: np.random.Generator, heart_rate_bpm: float, qrs_ms: float, *, male: bool
) -> float:
    """QT by rate, QRS and sex, with the scatter between people.

    At 60 a minute some 400 ms in men and 414 in women (Rijnbeek et al. 2014, J Electrocardiol
    47:914); it shortens with a power of the RR interval between Fridericia's third and Bazett's
    half that differs from one to the next; a wide QRS lengthens it by most of what it is wider.
    """
    corrected = rng.normal(400 if male else 414, 20)
    if rng.random() < 0.06:
        corrected += rng.uniform(40, 110)
    elif rng.random() < 0.03:
        corrected -= rng.uniform(30, 70)
    power = rng.uniform(0.27, 0.45)
    rr_s = 60 / heart_rate_bpm
    qt = corrected * rr_s**power + 0.75 * max(0.0, qrs_ms - 95)
    return float(np.clip(qt, max(210, qrs_ms + 140), 700))


def _draw_padding(rng: np.random.Generator, duration_s: float) -> float:
    chance, size = rng.random(), rng.uniform(0.1, 1.0)
    return float(min(size, 0.1 * duration_s)) if chance < 0.03 and duration_s >= 5 else 0.0


def _draw_duration(rng: np.random.Generator) -> float:
    chance = rng.random()
    if chance < 0.7:
        return 10.0
    return float(rng.uniform(7, 12)) if chance < 0.9 else float(rng.uniform(12, 30))
