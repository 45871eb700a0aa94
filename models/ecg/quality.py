"""What cannot be trusted in a recording, said in words.

Lead by lead: missing, flat, clipped, noisy, of voltages that no heart gives. Over the limb leads:
Einthoven's and Goldberger's identities, which leave two of six free, so that a lead in another's
place, or upside down, is found and named. What keeps the identities - electrodes of the limbs put
on crosswise - shows in waves that point where they hardly ever do; that, and chest leads that run
smoothly only in another order, is said as a suspicion.

The limits were set on ten-second recordings of patients, for few false alarms. A trouble is
``fatal`` only where nothing at all can be concluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from models.ecg.beats import (
    WANDER_HZ,
    Waves,
    delineate,
    heart_rate_bpm,
    median_beat,
    r_peaks,
)
from models.ecg.inputs import without_wander
from models.ecg.leads import OF_I_AND_II
from models.ecg.recording import INDEPENDENT, LEADS, Doubt, EcgError, Strip, Trouble

SHORTEST_RHYTHM_S: Final = 2.0
"""Shorter than this no rhythm can be told."""

_SHORTEST_S: Final = 0.6  # not even one whole beat
_LOOKED_AT_S: Final = 60.0  # of a long recording, its middle
_FLAT_MV: Final = 0.015  # up and down within a second
_FLAT_SHARE: Final = 0.2
_LEAST_QRS_MV, _MOST_QRS_MV = 0.1, 15.0
_LEVELS_OF_A_SIGNAL: Final = 40  # fewer values than this are a converter's own noise
_CLIPPED_S: Final = 0.02
_STEEP_MV: Final = 0.15  # within 10 ms before a clipped stretch
_HUM_HZ: Final = (50.0, 60.0)
_LEAP_MV: Final = 3.0  # and four times the QRS: nothing but movement leaps so
_SMOOTHER: Final = 0.8
_CHEST: Final = INDEPENDENT[2:]


def troubles_of(strip: Strip) -> tuple[Trouble, ...]:
    """Everything that is doubtful about a recording, the worst first."""
    found = list(_absent(strip))
    looked = _middle(strip)
    found += _flat(looked)
    alive = _alive(looked, found)
    if not any(trouble.fatal for trouble in found):
        found += _of_beats(looked, alive)
    return tuple(sorted(found, key=lambda trouble: not trouble.fatal))


# What is there


def _absent(strip: Strip) -> Iterator[Trouble]:
    """Leads that are missing or there only for a while, and a recording that is too short."""
    holes = np.isnan(strip.millivolts)
    missing = tuple(name for name, row in zip(LEADS, holes, strict=True) if row.all())
    if len(missing) == len(LEADS):
        yield Trouble(doubt=Doubt.MISSING, words="no lead was recorded", fatal=True)
        return
    if missing:
        yield Trouble(doubt=Doubt.MISSING, words=f"{_listed(missing)} not recorded", leads=missing)
    if strip.duration_s < SHORTEST_RHYTHM_S:
        yield Trouble(
            doubt=Doubt.SHORT,
            words=f"the recording is {strip.duration_s:.1f} s long: too short to tell a rhythm",
            fatal=strip.duration_s < _SHORTEST_S,
        )
    yield from _in_parts(holes, missing, strip.duration_s)


def _in_parts(
    holes: NDArray[np.bool_], missing: Sequence[str], duration_s: float
) -> Iterator[Trouble]:
    """Leads with gaps; where they were recorded one after another, nothing sees them at once."""
    there = [at for at, name in enumerate(LEADS) if name not in missing]
    gone = {LEADS[at]: float(holes[at].mean()) for at in there}
    gappy = tuple(name for name, share in gone.items() if share > 0.01)
    if not gappy:
        return
    at_once = 1.0 - float(holes[there].any(axis=0).mean())
    worst = max(gone.values())
    words = (
        f"{_listed(gappy)} recorded only in part, {duration_s * (1 - worst):.1f} s of "
        f"{duration_s:.1f} s at the least"
    )
    fatal = at_once < 0.5
    if fatal:
        words += "; the leads were not recorded at the same time, which every reader needs"
    yield Trouble(doubt=Doubt.SHORT, words=words, leads=gappy, fatal=fatal)


def _flat(strip: Strip) -> Iterator[Trouble]:
    """Leads without a signal, for all of the time or some of it."""
    window = max(round(strip.rate_hz), 1)
    shares: dict[str, float] = {}
    for name, row in zip(LEADS, strip.millivolts, strict=True):
        there = row[~np.isnan(row)]
        if len(there) == 0 or name in strip.derived:
            continue
        pieces = np.array_split(there, max(len(there) // window, 1))
        still = [piece for piece in pieces if np.ptp(piece) < _FLAT_MV]
        shares[name] = sum(map(len, still)) / len(there)
    flat = tuple(name for name, share in shares.items() if share > 0.9)
    at_times = tuple(name for name, share in shares.items() if _FLAT_SHARE < share <= 0.9)
    if flat and len(flat) == len(shares):
        if _has_levels(strip):
            return  # all of it is small, but it moves: a matter of scale
        yield Trouble(doubt=Doubt.FLAT, words="no lead shows a signal", fatal=True)
    elif flat:
        yield Trouble(
            doubt=Doubt.FLAT,
            words=f"{_listed(flat)} flat: electrodes were off, or leads not connected",
            leads=flat,
        )
    if at_times:
        yield Trouble(
            doubt=Doubt.FLAT,
            words=f"{_listed(at_times)} flat for a part of the time",
            leads=at_times,
        )


def _has_levels(strip: Strip) -> bool:
    return any(
        len(np.unique(row[~np.isnan(row)][:20_000])) > _LEVELS_OF_A_SIGNAL
        for row in strip.millivolts
    )


def _alive(strip: Strip, found: Sequence[Trouble]) -> list[str]:
    """Leads with a signal that was recorded, not reckoned."""
    dead = {
        name
        for trouble in found
        if trouble.doubt in (Doubt.FLAT, Doubt.MISSING)
        for name in trouble.leads
    }
    return [name for name in LEADS if name not in dead and name not in strip.derived]


# What the beats show


def _of_beats(strip: Strip, alive: Sequence[str]) -> Iterator[Trouble]:
    """Troubles for which the heartbeats are looked at."""
    scaled, factor = _of_usual_size(strip)
    peaks = r_peaks(scaled)
    if len(peaks) == 0:
        yield Trouble(
            doubt=Doubt.NOISY, words="no heartbeat stands out of the recording", fatal=True
        )
        return
    steady = _steady(scaled)
    sizes = _qrs_sizes(steady, peaks, strip.rate_hz) / factor
    wrong = list(_wrong_scale(sizes, alive))
    yield from wrong
    if any(trouble.fatal for trouble in wrong):
        return
    yield from _clipped(strip, alive)
    yield from _noisy(steady, peaks, sizes, strip.rate_hz, alive)
    yield from _leaps(steady, sizes, alive)
    misfits = list(_identities(steady, alive))
    yield from misfits
    if not misfits:
        yield from _electrodes(strip, peaks, alive)
    yield from _chest_order(strip, peaks, alive)


def _of_usual_size(strip: Strip) -> tuple[Strip, float]:
    """The strip with its largest lead near 2 mV where a wrong unit would hide the beats."""
    there = [row[~np.isnan(row)] for row in np.abs(strip.millivolts)]
    top = max(float(np.percentile(row, 99.5)) for row in there if len(row))
    factor = 1.0 if 0.1 < top < 20.0 or top == 0 else 2.0 / top
    return replace(strip, millivolts=(strip.millivolts * factor).astype(np.float32)), factor


def _qrs_sizes(
    steady: NDArray[np.float64], peaks: NDArray[np.int64], rate_hz: float
) -> NDArray[np.float64]:
    """(12,) usual height of the QRS from its lowest to its highest point, NaN where missing."""
    reach = round(0.06 * rate_hz)
    inside = peaks[(peaks >= reach) & (peaks + reach < steady.shape[1])][:500]
    if len(inside) == 0:
        inside = np.clip(peaks[:1], reach, max(steady.shape[1] - reach - 1, reach))
    around = np.minimum(inside[:, None] + np.arange(-reach, reach + 1), steady.shape[1] - 1)
    sizes: NDArray[np.float64] = np.median(np.ptp(steady[:, around], axis=2), axis=1)
    return sizes


def _wrong_scale(sizes: NDArray[np.float64], alive: Sequence[str]) -> Iterator[Trouble]:
    of_lead = {name: float(sizes[LEADS.index(name)]) for name in alive}
    large = tuple(name for name, size in of_lead.items() if size > _MOST_QRS_MV)
    top = max(of_lead.values(), default=0.0)
    if large:
        yield Trouble(
            doubt=Doubt.SCALE,
            words=f"{_listed(large)} too large for a heart, QRS complexes of {top:.3g} mV: "
            "sensitivity or unit is wrong",
            leads=large,
            fatal=len(large) > len(of_lead) / 2,
        )
    elif top < _LEAST_QRS_MV:
        yield Trouble(
            doubt=Doubt.SCALE,
            words=f"the largest QRS complexes have {top:.3g} mV, too little for a heart: "
            "sensitivity or unit is wrong",
            fatal=True,
        )


def _clipped(strip: Strip, alive: Sequence[str]) -> Iterator[Trouble]:
    """Leads whose highest or lowest value is kept for a while and reached in a leap."""
    clipped = tuple(
        name
        for name in alive
        if _is_clipped(strip.lead(name), strip.rate_hz)
        or _is_clipped(-strip.lead(name), strip.rate_hz)
    )
    if clipped:
        yield Trouble(
            doubt=Doubt.CLIPPED,
            words=f"{_listed(clipped)} clipped: amplifier or converter was at its end",
            leads=clipped,
        )


def _is_clipped(row: NDArray[np.float32], rate_hz: float) -> bool:
    at_top = row >= np.nanmax(row) - 1e-6
    edges = np.flatnonzero(np.diff(np.concatenate(([False], at_top, [False]))))
    long = max(round(_CLIPPED_S * rate_hz), 3)
    before = max(round(0.01 * rate_hz), 1)
    for start, stop in edges.reshape(-1, 2):
        if (
            stop - start >= long
            and start >= before
            and row[start] - row[start - before] > _STEEP_MV
        ):
            return True
    return False


def _noisy(
    steady: NDArray[np.float64],
    peaks: NDArray[np.int64],
    sizes: NDArray[np.float64],
    rate_hz: float,
    alive: Sequence[str],
) -> Iterator[Trouble]:
    """Leads with much that is quick between the beats; hum is told apart."""
    quiet = np.ones(steady.shape[1], np.bool_)
    for peak in peaks:
        quiet[max(peak - round(0.1 * rate_hz), 0) : peak + round(0.12 * rate_hz)] = False
    if rate_hz < 120 or quiet.sum() < rate_hz:
        return
    quick = butter(2, 35.0, "highpass", fs=rate_hz, output="sos")
    noise = np.std(sosfiltfilt(quick, steady, axis=1)[:, quiet], axis=1)
    noisy = tuple(
        name
        for name in alive
        if noise[LEADS.index(name)] > max(0.04, 0.08 * float(sizes[LEADS.index(name)]))
    )
    if not noisy:
        return
    hum = _hum_hz(steady[[LEADS.index(name) for name in noisy]], rate_hz)
    words = f"{_listed(noisy)} noisy" + (f": hum of the mains at {hum:g} Hz" if hum else "")
    yield Trouble(doubt=Doubt.NOISY, words=words, leads=noisy)


def _leaps(
    steady: NDArray[np.float64], sizes: NDArray[np.float64], alive: Sequence[str]
) -> Iterator[Trouble]:
    """Leads that leap as only movement makes them."""
    tops = np.abs(steady).max(axis=1)
    leaping = tuple(
        name
        for at, name in enumerate(LEADS)
        if name in alive and tops[at] > max(_LEAP_MV, 4.0 * float(sizes[at]))
    )
    if leaping:
        yield Trouble(
            doubt=Doubt.NOISY,
            words=f"{_listed(leaping)} disturbed: leaps of up to "
            f"{max(tops[LEADS.index(name)] for name in leaping):.1f} mV, as a movement makes them",
            leads=leaping,
        )


def _hum_hz(rows: NDArray[np.float64], rate_hz: float) -> float | None:
    """The mains' frequency where it makes most of what is quick; else None."""
    power = np.square(np.abs(np.fft.rfft(rows * np.hanning(rows.shape[1]), axis=1))).sum(axis=0)
    hertz = np.fft.rfftfreq(rows.shape[1], 1.0 / rate_hz)
    quick = float(power[hertz > 35.0].sum())
    for mains in _HUM_HZ:
        if float(power[np.abs(hertz - mains) < 1.0].sum()) > 0.5 * quick:
            return mains
    return None


# Limb leads


@dataclass(frozen=True, kw_only=True, eq=False)
class _Limbs:
    """Limb leads that were recorded: ``rows`` (leads, samples) without wander."""

    names: tuple[str, ...]
    rows: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Crossing:
    """Two electrodes swapped: what then points down as aVR does, and which leads change."""

    limbs: str
    down: tuple[str, str]
    leads: tuple[str, ...]


_CROSSED: Final = (
    _Crossing(limbs="the arms", down=("I", "aVL"), leads=("I", "II", "III", "aVR", "aVL")),
    _Crossing(
        limbs="the right arm and the left leg",
        down=("II", "aVF"),
        leads=("I", "II", "III", "aVR", "aVF"),
    ),
)


def _identities(steady: NDArray[np.float64], alive: Sequence[str]) -> Iterator[Trouble]:
    """Where the limb leads do not fit together: which, and what would make them fit."""
    names = tuple(name for name in OF_I_AND_II if name in alive)
    if len(names) < 3:
        return
    thin = steady[:, :: max(steady.shape[1] // 5000, 1)]
    limbs = _Limbs(names=names, rows=thin[[LEADS.index(name) for name in names]])
    if _fits(limbs):
        return
    ways = [*_by_swap(limbs), *_by_turning(limbs)] or list(_by_chest_lead(limbs, thin, alive))
    odd = [name for name in names if len(names) > 3 and _fits(_without(limbs, name))]
    about = tuple(odd) if len(odd) == 1 else names
    words = f"{_listed(about)} not what the other limb leads make (Einthoven, Goldberger)"
    if len(about) == len(names):
        words = f"{_listed(names)} in conflict with each other (Einthoven, Goldberger)"
    if ways:
        words += ": they fit if " + ", or if ".join(way for way, _ in ways[:3])
        about = tuple(name for name in LEADS if any(name in leads for _, leads in ways[:3]))
    yield Trouble(doubt=Doubt.IDENTITY, words=words, leads=about)


def _fits(limbs: _Limbs) -> bool:
    """Whether the leads lie in the plane that two of them span, but for rounding and filters."""
    shares = np.asarray([OF_I_AND_II[name] for name in limbs.names])
    outside = limbs.rows - shares @ (np.linalg.pinv(shares) @ limbs.rows)
    misfit = np.sqrt(np.mean(np.square(outside), axis=1))
    size = float(np.sqrt(np.mean(np.square(limbs.rows))))
    return bool(misfit.max() < 0.006 + 0.06 * size)


def _without(limbs: _Limbs, name: str) -> _Limbs:
    kept = [at for at, other in enumerate(limbs.names) if other != name]
    return _Limbs(names=tuple(limbs.names[at] for at in kept), rows=limbs.rows[kept])


def _by_swap(limbs: _Limbs) -> Iterator[tuple[str, tuple[str, ...]]]:
    for one, other in combinations(range(len(limbs.names)), 2):
        rows = limbs.rows.copy()
        rows[[one, other]] = rows[[other, one]]
        if _fits(replace(limbs, rows=rows)):
            swapped = (limbs.names[one], limbs.names[other])
            yield f"{swapped[0]} and {swapped[1]} are swapped", swapped


def _by_turning(limbs: _Limbs) -> Iterator[tuple[str, tuple[str, ...]]]:
    for at, name in enumerate(limbs.names):
        rows = limbs.rows.copy()
        rows[at] *= -1
        if _fits(replace(limbs, rows=rows)):
            yield f"{name} is upside down", (name,)


def _by_chest_lead(
    limbs: _Limbs, steady: NDArray[np.float64], alive: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for at, name in enumerate(limbs.names):
        for chest in (lead for lead in _CHEST if lead in alive):
            rows = limbs.rows.copy()
            rows[at] = steady[LEADS.index(chest)]
            if _fits(replace(limbs, rows=rows)):
                yield f"{name} and {chest} are swapped", (name, chest)


def _electrodes(strip: Strip, peaks: NDArray[np.int64], alive: Sequence[str]) -> Iterator[Trouble]:
    """Electrodes of the limbs that look as if they were put on crosswise."""
    rate = heart_rate_bpm(peaks, strip.rate_hz)
    if rate is None or rate > 100.0:
        return  # the P waves of a tachycardia may come from anywhere
    seen = _seen(strip, peaks)
    if seen is None or not {*LEADS[:6], "V5", "V6"} <= {*alive, *strip.derived}:
        return
    beat, waves = seen
    if _points_down(beat, waves, "V5") or _points_down(beat, waves, "V6"):
        return  # a heart on the right side turns these, too
    ways = [way for way in _CROSSED if all(_points_down(beat, waves, name) for name in way.down)]
    if not ways:
        return
    # What aVR would show now stands in another lead: there P points down the most.
    way = min(ways, key=lambda one: _height(beat.lead(one.down[1]), waves.p or (0, 1)))
    yield Trouble(
        doubt=Doubt.REVERSED,
        words=f"it looks as if the electrodes of {way.limbs} had been swapped: P, QRS and T all "
        f"point down in {' and '.join(way.down)}",
        leads=way.leads,
    )


def _seen(strip: Strip, peaks: NDArray[np.int64]) -> tuple[Strip, Waves] | None:
    """The usual beat with its waves."""
    try:
        beat = median_beat(strip, peaks)
        return beat, delineate(beat, np.asarray([round(0.4 * beat.rate_hz)]))[0]
    except EcgError:
        return None


def _points_down(beat: Strip, waves: Waves, name: str) -> bool:
    """Whether P, QRS and T all point down in a lead. Without a P wave it is never said so."""
    if waves.p is None or waves.t is None:
        return False
    row = beat.lead(name)
    return (
        _height(row, waves.p) < -0.03
        and float(row[slice(*waves.qrs)].sum()) < 0
        and -row[slice(*waves.qrs)].min() > 1.5 * row[slice(*waves.qrs)].max()
        and _height(row, waves.t) < -0.05
    )


def _height(row: NDArray[np.float32], wave: tuple[int, int]) -> float:
    """How far a wave goes from the line between its ends, with sign, mV."""
    part = row[slice(*wave)].astype(np.float64)
    part = part - np.linspace(part[0], part[-1], len(part))
    return float(part[int(np.argmax(np.abs(part)))])


# Chest leads


def _chest_order(strip: Strip, peaks: NDArray[np.int64], alive: Sequence[str]) -> Iterator[Trouble]:
    """Two chest leads that look as if they were swapped: in order they would change less."""
    if not set(_CHEST) <= set(alive):
        return
    beat = median_beat(strip, peaks)
    rows = np.stack([beat.lead(name) for name in _CHEST]).astype(np.float64)
    far = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    order = np.arange(len(_CHEST))

    def walk(places: NDArray[np.int64]) -> float:
        return float(far[places[:-1], places[1:]].sum())

    best = min(combinations(range(len(_CHEST)), 2), key=lambda pair: walk(_swapped(order, *pair)))
    if walk(_swapped(order, *best)) < _SMOOTHER * walk(order):
        pair = (_CHEST[best[0]], _CHEST[best[1]])
        yield Trouble(
            doubt=Doubt.REVERSED,
            words=f"it looks as if {pair[0]} and {pair[1]} had been swapped: the chest leads "
            "would follow each other smoothly",
            leads=pair,
        )


def _swapped(order: NDArray[np.int64], one: int, other: int) -> NDArray[np.int64]:
    places = order.copy()
    places[[one, other]] = places[[other, one]]
    return places


# Helpers


def _middle(strip: Strip) -> Strip:
    """Of a long recording, its middle."""
    count, most = strip.millivolts.shape[1], round(_LOOKED_AT_S * strip.rate_hz)
    if count <= most:
        return strip
    start = (count - most) // 2
    return replace(strip, millivolts=strip.millivolts[:, start : start + most])


def _steady(strip: Strip) -> NDArray[np.float64]:
    """(12, samples) without wander, gaps bridged by lines, zero where a lead is missing."""
    rows = strip.millivolts.astype(np.float64)
    for row in rows:
        gap = np.isnan(row)
        if gap.any():
            there = np.flatnonzero(~gap)
            row[gap] = np.interp(np.flatnonzero(gap), there, row[there]) if len(there) else 0.0
    return without_wander(rows, strip.rate_hz, WANDER_HZ)


def _listed(names: Sequence[str]) -> str:
    """Leads with their verb: "lead II is", "leads I, II and III are"."""
    if len(names) == 1:
        return f"lead {names[0]} is"
    return f"leads {', '.join(names[:-1])} and {names[-1]} are"
