"""The waves of one heart: sums of Gaussians in space and time.

Each wave (P, QRS, T with U) is a handful of Gaussians, each with a place in time, a width to either
side and a vector (:mod:`models.ecg.simulator.leads`). The QRS complex is laid out on its own length
and then stretched so that the first and the last moment at which any of the twelve leads leaves
the line (by 8 uV) lie exactly as far apart as its duration says; P waves by 5 uV. The T wave ends
where it has fallen to a small share of its height. With these edges :mod:`models.ecg.beats` finds
the same intervals to a few ms, as it does in the recording of a cart that wrote its own.

The patterns of the bundle branch blocks follow the AHA/ACCF/HRS recommendations of 2009 (Surawicz
et al., JACC 53:976): in RBBB rsR' in V1 and a wide S in I and V6; in LBBB a broad notched R in I,
aVL, V5 and V6, rS or QS in V1 and V2, and T waves that point away from the QRS complex.

What sex does follows Rijnbeek et al. 2014 (J Electrocardiol 47:914) and Surawicz and Parikh 2002
(JACC 40:1870): men have higher voltages, longer QRS, shorter QT, and higher J points and T waves;
each with so much overlap that a recording gives a hint and no answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ecg.simulator.leads import FROM_INDEPENDENT, draw_leads, turn
from models.ecg.simulator.wanted import Conduction, EcgWanted

Floats = NDArray[np.float32]

QRS_EDGE_MV = 0.008
P_EDGE_MV = 0.005
T_EDGE_SHARE = 0.045
T_EDGE_MV = 0.008


@dataclass(frozen=True, kw_only=True, eq=False)
class Wave:
    """A sum of Gaussians: (k,) centres and widths to either side in s, (k, 8) leads in mV."""

    centres_s: Floats
    before_s: Floats
    after_s: Floats
    leads_mv: Floats

    def at(self, times_s: NDArray[np.floating]) -> Floats:
        """(..., 8) mV at times (...) from the wave's own zero."""
        apart = np.asarray(times_s, np.float32)[..., None] - self.centres_s
        apart /= np.where(apart < 0, self.before_s, self.after_s)
        bell: Floats = np.exp(-0.5 * apart * apart) @ self.leads_mv
        return bell

    def stretched(self, offset_s: float, factor: float) -> Wave:
        """The same with ``offset_s`` as its zero, and times multiplied."""
        return Wave(
            centres_s=((self.centres_s - offset_s) * factor).astype(np.float32),
            before_s=(self.before_s * factor).astype(np.float32),
            after_s=(self.after_s * factor).astype(np.float32),
            leads_mv=self.leads_mv,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Beat:
    """One kind of beat: waves against the onset of P, the onset of QRS, and the end of T.

    ``st_mv`` (8,) is the J point's height; it runs into the T wave with ``st_slope``. ``peak_s``
    is where the QRS vector is longest, from its onset.
    """

    p: Wave | None
    p_ms: float
    qrs: Wave
    qrs_ms: float
    qt_ms: float
    t: Wave
    st_mv: Floats
    st_slope: float
    peak_s: float

    def after_qrs(self, times_s: Floats, stretch_s: NDArray[np.floating] | float = 0.0) -> Floats:
        """(..., 8) mV of ST, T and U at times from the onset of QRS.

        ``stretch_s`` is by how much this beat's QT is longer.
        """
        whole = self.t.at(times_s - self.qt_ms / 1000 - stretch_s)
        j_s = self.qrs_ms / 1000
        share = np.clip((times_s - j_s) / (self.qt_ms / 1000 + stretch_s - j_s), 0, 1)
        rise = np.clip((times_s - j_s + 0.020) / 0.020, 0, 1)
        level = rise * rise * (3 - 2 * rise) * (1 - share) ** 2 * (1 + self.st_slope * share)
        summed: Floats = whole + level[..., None].astype(np.float32) * self.st_mv
        return summed


@dataclass(frozen=True, kw_only=True, eq=False)
class Heart:
    """Beats of the usual way, of another place in the atria, and of the ventricles' own."""

    usual: Beat
    atrial: Beat
    ventricular: Beat
    breath: Floats  #: (8,) how much breathing changes each lead
    wavelets: Floats  #: (2, 8) what each lead sees of two sources of fibrillation


_Parts = list[tuple[float, float, tuple[float, float, float]]]

# Centre and width as shares of the duration, and the vector in mV.
_NORMAL: _Parts = [
    (0.20, 0.080, (-0.17, -0.06, -0.24)),
    (0.40, 0.085, (0.62, 0.40, -0.33)),
    (0.54, 0.090, (0.92, 0.58, 0.36)),
    (0.72, 0.100, (0.04, -0.08, 0.58)),
    (0.88, 0.060, (-0.12, -0.14, 0.12)),
]
_RBBB: _Parts = [
    (0.14, 0.055, (-0.15, -0.05, -0.22)),
    (0.27, 0.060, (0.58, 0.36, -0.24)),
    (0.37, 0.065, (0.80, 0.50, 0.32)),
    (0.48, 0.060, (0.05, -0.05, 0.30)),
    (0.64, 0.085, (-0.42, -0.02, -0.42)),
    (0.82, 0.085, (-0.38, 0.04, -0.52)),
]
_LBBB: _Parts = [
    (0.12, 0.060, (0.22, 0.18, 0.04)),
    (0.32, 0.100, (0.82, 0.40, 0.68)),
    (0.48, 0.070, (0.42, 0.12, 0.45)),
    (0.66, 0.110, (0.94, 0.18, 0.70)),
    (0.87, 0.065, (0.30, -0.02, 0.30)),
]
_PATTERNS = {
    Conduction.RBBB: _RBBB,
    Conduction.INCOMPLETE_RBBB: _RBBB,
    Conduction.LBBB: _LBBB,
}


def draw_heart(
    rng: np.random.Generator, wanted: EcgWanted, *, qrs_ms: float, qt_ms: float, male: bool
) -> Heart:
    """A heart of its own, in a chest of its own, that does what is wanted."""
    leads = draw_leads(rng)
    axis = _draw_axis(rng, wanted)
    build = float(np.exp(rng.normal(0.06 if male else -0.12, 0.24)))
    drawn = _draw_voltage(rng, wanted)
    voltage = min(build * drawn, 2.3) if wanted.voltage is None else build * wanted.voltage
    vectors, times, widths = _qrs_parts(rng, wanted, axis)
    qrs, peak_s = _fit_qrs(rng, wanted, vectors * voltage, times, widths, leads, qrs_ms)
    sum_qrs = (vectors * widths[:, None]).sum(0) * voltage * qrs_ms / 100
    t, st_mv = _draw_t(rng, wanted, leads, axis, sum_qrs, qt_ms=qt_ms, qrs_ms=qrs_ms, male=male)
    p, p_ms = _draw_p(rng, leads, axis, wanted)
    usual = Beat(
        p=p, p_ms=p_ms, qrs=qrs, qrs_ms=qrs_ms, qt_ms=qt_ms, t=t, st_mv=st_mv,
        st_slope=float(rng.uniform(0.0, 2.0)), peak_s=peak_s,
    )  # fmt: skip
    return Heart(
        usual=usual,
        atrial=_another_p(rng, usual, leads),
        ventricular=_draw_ventricular(rng, leads, qt_ms),
        breath=rng.normal(0, 1, 8).astype(np.float32),
        wavelets=_draw_wavelets(rng),
    )


# --- QRS -------------------------------------------------------------------------------------


def _draw_axis(rng: np.random.Generator, wanted: EcgWanted) -> tuple[float, float, float]:
    """By how much this heart lies otherwise: frontal, horizontal, sagittal, in degrees."""
    frontal = rng.normal(-8, 28)
    if rng.random() < 0.06:
        frontal += rng.uniform(30, 70)  # right axis
    horizontal = rng.normal(3, 22)
    if wanted.conduction is Conduction.LBBB:
        frontal = np.clip(frontal - rng.uniform(0, 40), -55, 35)
        horizontal *= 0.4  # V6 still sees the left side
    elif wanted.conduction is Conduction.RBBB:
        horizontal *= 0.5  # and V1 the right one
    return float(frontal), float(horizontal), float(rng.normal(0, 10))


def _draw_voltage(rng: np.random.Generator, wanted: EcgWanted) -> float:
    chance = rng.random()
    if chance < 0.07:
        return float(rng.uniform(1.5, 2.3))  # as in hypertrophy
    if chance < 0.14:
        return float(rng.uniform(0.3, 0.55))  # low voltage
    return 1.25 if wanted.conduction is Conduction.LBBB else 1.0


def _qrs_parts(
    rng: np.random.Generator, wanted: EcgWanted, axis: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(k, 3) vectors, (k,) centres and widths as shares of the duration."""
    parts = _PATTERNS.get(wanted.conduction, _NORMAL)
    times = np.array([part[0] for part in parts])
    widths = np.array([part[1] for part in parts])
    vectors = np.array([part[2] for part in parts])
    size = np.exp(rng.normal(0, 0.25, (len(parts), 1)))
    bend = rng.normal(0, 0.12, vectors.shape) * np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors * size + bend
    if wanted.conduction in (Conduction.RBBB, Conduction.INCOMPLETE_RBBB):
        late = 0.55 if wanted.conduction is Conduction.INCOMPLETE_RBBB else 1.0
        vectors[-2:] *= late * np.exp(rng.normal(0, 0.25))
    elif wanted.conduction is Conduction.LBBB:
        # About a third keep a small r in V1.
        if rng.random() < 0.35:
            vectors[0] += (-0.1, 0.0, -rng.uniform(0.1, 0.3))
        vectors[2] *= rng.uniform(0.5, 1.8)  # the less, the deeper the notch
    else:
        vectors[0] *= np.exp(rng.normal(0, 0.5))
        # What is activated last lies behind and, the more so in some, to the right.
        vectors[3, 0] -= rng.normal(0.12, 0.30)
        vectors[4] *= np.exp(rng.normal(0.2, 0.6))
    times = times + rng.normal(0, 0.018, len(parts))
    widths = widths * np.exp(rng.normal(0, 0.14, len(parts)))
    turned = turn(vectors, *axis)
    if _left_anterior(rng, wanted):
        # First to the feet and right, then up and left: PS axis of -45 degrees and beyond.
        main = slice(1, 4)
        turned[main] = turn(turned[main], -rng.uniform(65, 100), 0, 0)
        turned[0, 1] += rng.uniform(0.12, 0.3)
    if rng.random() < 0.07 and wanted.conduction is Conduction.NORMAL:
        # An old infarct: the wall that is gone no longer pulls at the beginning.
        gone = rng.normal(0, 1, 3)
        turned[0] += gone / np.linalg.norm(gone) * rng.uniform(0.3, 0.7)
        turned[1] *= rng.uniform(0.4, 0.9)
    if rng.random() < 0.08:
        turned[:2, 2] += rng.uniform(0.1, 0.4)  # poor R progression
    return turned, times, widths


def _left_anterior(rng: np.random.Generator, wanted: EcgWanted) -> bool:
    chance = bool(rng.random() < 0.05)
    if wanted.conduction is Conduction.LBBB:
        return False
    return chance if wanted.left_anterior_block is None else wanted.left_anterior_block


def _fit_qrs(
    rng: np.random.Generator,
    wanted: EcgWanted,
    vectors: NDArray[np.float64],
    times: NDArray[np.float64],
    widths: NDArray[np.float64],
    leads: Floats,
    qrs_ms: float,
) -> tuple[Wave, float]:
    seen = vectors @ leads.T
    # A chest is no dipole: each electrode sees a little that no other does.
    seen += rng.normal(0, 0.07, seen.shape) * np.abs(seen).max(0)
    delayed = wanted.conduction is Conduction.DELAYED
    if delayed or rng.random() < 0.18:
        count = int(rng.integers(1, 4))
        times = np.append(times, rng.uniform(0.25, 0.95 if delayed else 0.85, count))
        widths = np.append(widths, rng.uniform(0.025, 0.10 if delayed else 0.05, count))
        notch = rng.normal(0, 0.22 if delayed else 0.12, (count, 8))
        seen = np.vstack([seen, notch * (np.abs(seen).max(0) + 0.1)])
    tilt = np.exp(rng.normal(0, 0.15, len(times)))
    raw = Wave(
        centres_s=times.astype(np.float32),
        before_s=(widths * tilt).astype(np.float32),
        after_s=(widths / tilt).astype(np.float32),
        leads_mv=seen.astype(np.float32),
    )
    begin, end = _edges(raw, QRS_EDGE_MV)
    fitted = raw.stretched(begin, qrs_ms / 1000 / (end - begin))
    grid = np.linspace(0, qrs_ms / 1000, 121, dtype=np.float32)
    size = (fitted.at(grid) ** 2).sum(-1)
    return fitted, float(grid[int(size.argmax())])


_GRID = np.linspace(-0.6, 1.6, 881, dtype=np.float32)


def _edges(wave: Wave, least_mv: float) -> tuple[float, float]:
    """First and last moment at which one of the twelve leads is off the line, on the own length."""
    height = np.abs(wave.at(_GRID) @ FROM_INDEPENDENT.T).max(-1)
    off = np.flatnonzero(height > min(least_mv, 0.5 * float(height.max())))
    return float(_GRID[off[0]]), float(_GRID[off[-1]])


# --- ST, T and U -----------------------------------------------------------------------------


def _draw_t(
    rng: np.random.Generator,
    wanted: EcgWanted,
    leads: Floats,
    axis: tuple[float, float, float],
    sum_qrs: NDArray[np.float64],
    *,
    qt_ms: float,
    qrs_ms: float,
    male: bool,
) -> tuple[Wave, Floats]:
    vector, st = _t_and_st(rng, wanted, axis, sum_qrs, male=male)
    room_s = (qt_ms - qrs_ms) / 1000
    after = room_s * rng.uniform(0.11, 0.16)
    before = after * rng.uniform(1.1, 2.0)
    seen = vector[None] @ leads.T
    seen = seen + rng.normal(0, 0.06, seen.shape) * np.abs(seen).max()
    tops = np.array([0.0])
    if rng.random() < 0.10:
        # A T wave of two humps, or one that is first down, then up.
        seen = np.vstack([seen, seen * rng.uniform(-0.7, 0.8)])
        tops = np.array([0.0, -after * rng.uniform(1.6, 2.6)])
    end = _t_end(seen, tops, after)
    u = rng.lognormal(np.log(0.02), 0.8) * np.array([[0.25, 0.2, -0.6]]) @ leads.T
    many = len(tops)
    wave = Wave(
        centres_s=np.append(tops - end, rng.uniform(0.06, 0.11)).astype(np.float32),
        before_s=np.append(np.full(many, before), 0.022).astype(np.float32),
        after_s=np.append(np.full(many, after), rng.uniform(0.025, 0.045)).astype(np.float32),
        leads_mv=np.vstack([seen, u]).astype(np.float32),
    )
    return wave, (st @ leads.T + rng.normal(0, 0.008, 8)).astype(np.float32)


def _t_and_st(
    rng: np.random.Generator,
    wanted: EcgWanted,
    axis: tuple[float, float, float],
    sum_qrs: NDArray[np.float64],
    *,
    male: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(3,) each: the T wave's vector and the J point's, in mV."""
    height = np.exp(rng.normal(0.12 if male else -0.12, 0.32))
    usual = np.array([[0.29, 0.20, -0.15]]) + rng.normal(0, 0.05, (1, 3))
    t = turn(usual * height, *(0.5 * turned for turned in axis))[0]
    # Men's J points lie higher, most so in V2 to V4.
    st = np.array([0.02, 0.01, -0.035 if male else -0.012]) * np.exp(rng.normal(0, 0.4))
    st = st + rng.normal(0, 0.012, 3)
    away = sum_qrs / max(float(np.linalg.norm(sum_qrs)), 1e-6)
    if wanted.conduction is Conduction.LBBB:
        size = min(float(np.linalg.norm(sum_qrs)) * rng.uniform(0.9, 2.1), 1.0)
        t = 0.12 * t + (away if wanted.concordant_t else -away) * size
        st = st - away * size * rng.uniform(0.1, 0.4) * (-0.3 if wanted.concordant_t else 1)
        return t, st
    if wanted.conduction is Conduction.RBBB and not wanted.concordant_t:
        t = t + np.array([0.10, 0.0, 0.24]) * rng.uniform(0.4, 1.6)
    chance = rng.random()
    if chance < 0.10:
        t = t * rng.uniform(0.1, 0.45)  # flat
    elif chance < 0.20:
        strain = rng.uniform(0.3, 1.2)
        t = (0.3 * t) - away * strain * 0.35  # against the QRS complex, as in strain
        st = st - away * strain * 0.06
    elif chance < 0.24:
        t = t * rng.uniform(1.5, 2.4)  # tall
    elif chance < 0.36:
        turned = rng.normal(0, 1, 3)
        t = turned / np.linalg.norm(turned) * rng.uniform(0.1, 0.6)  # any way, as in ischaemia
        st = st + turned / np.linalg.norm(turned) * rng.normal(0, 0.06)
    elif chance < 0.40:
        st = st + np.array([0.08, 0.06, -0.06]) * rng.uniform(0.5, 2.0)  # early repolarisation
    return t, st


def _t_end(seen: NDArray[np.float64], tops: NDArray[np.float64], after: float) -> float:
    """How far behind the last hump the T wave has fallen into the line, in s."""
    top = float(np.abs(FROM_INDEPENDENT @ seen[int(tops.argmax())]).max())
    floor = max(T_EDGE_SHARE * top, min(T_EDGE_MV, 0.5 * top))
    return float(after * np.sqrt(2 * np.log(top / floor)))


# --- P and what stands for it ----------------------------------------------------------------


def _draw_p(
    rng: np.random.Generator, leads: Floats, axis: tuple[float, float, float], wanted: EcgWanted
) -> tuple[Wave, float]:
    p_ms = float(np.clip(rng.normal(106, 11), 76, 140))
    if wanted.pr_ms is not None:
        p_ms = min(p_ms, wanted.pr_ms - 12)
    height = float(np.exp(rng.normal(0.0, 0.30)))
    right = np.array([0.030, 0.085, -0.060])
    left = np.array([0.055, 0.045, 0.025])
    if rng.random() < 0.12:
        left, p_ms = left * rng.uniform(1.2, 1.9), p_ms * 1.1  # a large left atrium
    vectors = np.array([right, left]) * np.exp(rng.normal(0, 0.25, (2, 1)))
    vectors = vectors + rng.normal(0, 0.010, (2, 3))
    return _fit_p(rng, turn(vectors, 0.5 * axis[0], 0, 0) * height, leads, p_ms), p_ms


def _fit_p(
    rng: np.random.Generator, vectors: NDArray[np.float64], leads: Floats, p_ms: float
) -> Wave:
    seen = vectors @ leads.T
    seen += rng.normal(0, 0.004, seen.shape)
    widths = np.array([0.16, 0.16]) * np.exp(rng.normal(0, 0.12, 2))
    raw = Wave(
        centres_s=np.array([0.36, 0.64], np.float32) + rng.normal(0, 0.03, 2).astype(np.float32),
        before_s=widths.astype(np.float32),
        after_s=widths.astype(np.float32),
        leads_mv=seen.astype(np.float32),
    )
    begin, end = _edges(raw, P_EDGE_MV)
    return raw.stretched(begin, p_ms / 1000 / (end - begin))


def _another_p(rng: np.random.Generator, usual: Beat, leads: Floats) -> Beat:
    vectors = np.array([[0.05, 0.07, -0.03], [0.06, 0.05, 0.03]])
    vectors = turn(vectors, *rng.uniform((-150, -60, -60), (150, 60, 60)))
    vectors = vectors * np.exp(rng.normal(0, 0.3))
    return Beat(
        p=_fit_p(rng, vectors, leads, usual.p_ms), p_ms=usual.p_ms, qrs=usual.qrs,
        qrs_ms=usual.qrs_ms, qt_ms=usual.qt_ms, t=usual.t, st_mv=usual.st_mv,
        st_slope=usual.st_slope, peak_s=usual.peak_s,
    )  # fmt: skip


def _draw_ventricular(rng: np.random.Generator, leads: Floats, qt_ms: float) -> Beat:
    """A beat of the ventricles' own: wide, of any axis, its T wave against it."""
    qrs_ms = float(rng.uniform(125, 180))
    way = rng.normal(0, 1, 3)
    way /= np.linalg.norm(way)
    main = way * rng.uniform(0.9, 1.9)
    vectors = np.array([main * 0.35, main, main * rng.uniform(0.2, 0.9), -main * 0.15])
    vectors = vectors + rng.normal(0, 0.15, vectors.shape)
    wanted = EcgWanted(conduction=Conduction.DELAYED)
    qrs, peak_s = _fit_qrs(
        rng, wanted, vectors, np.array([0.2, 0.42, 0.66, 0.86]),
        np.array([0.09, 0.12, 0.11, 0.07]), leads, qrs_ms,
    )  # fmt: skip
    after = float(rng.uniform(0.045, 0.065))
    seen = (-main * rng.uniform(0.25, 0.5))[None] @ leads.T
    t = Wave(
        centres_s=np.array([-2.3 * after], np.float32),
        before_s=np.array([1.5 * after], np.float32),
        after_s=np.array([after], np.float32),
        leads_mv=seen.astype(np.float32),
    )
    return Beat(
        p=None, p_ms=0.0, qrs=qrs, qrs_ms=qrs_ms, qt_ms=max(qt_ms + 40, qrs_ms + 150), t=t,
        st_mv=(-main * rng.uniform(0.0, 0.12) @ leads.T).astype(np.float32), st_slope=1.0,
        peak_s=peak_s,
    )  # fmt: skip


def _draw_wavelets(rng: np.random.Generator) -> Floats:
    """What the leads see of fibrillation: most in V1, then in II, little to the left."""
    usual = np.array([0.25, 0.5, 1.0, 0.5, 0.3, 0.22, 0.2, 0.2])
    return (usual * rng.normal(1.0, 0.45, (2, 8))).astype(np.float32)
