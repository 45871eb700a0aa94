"""Tracings to numbers: volumes by single-plane discs, beats, ejection fraction, atrium, walls.

Volumes follow Lang et al. 2015 (ASE/EACVI chamber quantification, JASE 28:1-39): twenty discs
across the long axis from the middle of the mitral annulus to the apex, in one plane. All lengths
are in mm; where no pixel spacing can be trusted the caller passes the pixel's aspect ratio alone
and gets volumes in arbitrary units, whose ratio still is an ejection fraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal, spatial

CAVITY, MYOCARDIUM, ATRIUM = 1, 2, 3
"""Class indices of a tracing; 0 is background."""

DISCS = 20
FASTEST_BPM, SLOWEST_BPM = 220.0, 30.0

_LEAST_WHOLE = 0.85  # share of the traced cavity that must hang together
_LEAST_SOLID = 0.80  # cavity area over the area of its convex hull
_LEAST_PIXELS = 60
_MOST_BORDER = 0.12  # share of the cavity's outline that may lie on the frame's edge
_LEAST_SLENDER, _MOST_SLENDER = 0.9, 5.0  # long axis over greatest diameter
_MOST_LEANING = 0.75  # cosine between long axis and annulus
_MOST_BAD_FRAMES = 0.34
_LEAST_EF_PERCENT = 4.0  # one of CAMUS's 449 patients has less; a wrong tracing does more often
_REACH = 2  # pixels between what is traced as touching
_MOST_JUMPING = 0.15  # share of frames that may leave the smooth curve by a third
_SHORTEST_MS = 250.0  # contraction alone takes about 300 ms
_FASTEST_EJECTION = 5.0  # end-diastolic volumes a second; peak rates are near 3


class MeasureError(Exception):
    """A tracing or a curve cannot be measured; the message is the reason, for a reader."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ventricle:
    """One frame's cavity, measured.

    ``base`` and ``apex`` are (row, column) in pixels; ``diameters_mm`` from base to apex.
    """

    volume_ml: float
    length_mm: float
    diameters_mm: NDArray[np.float64]
    base: tuple[float, float]
    apex: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Atrium:
    """One frame's left atrium, measured. ``length_mm`` is from the annulus' middle to the roof."""

    area_cm2: float
    length_mm: float
    volume_ml: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """One contraction: frame numbers within the curve, and the volumes there."""

    ed: int
    es: int
    edv: float
    esv: float

    @property
    def ef_percent(self) -> float:
        """Ejection fraction."""
        return 100.0 * (self.edv - self.esv) / self.edv


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Volume over time. ``raw`` has NaN where a frame was refused; ``smooth`` has none."""

    times_ms: NDArray[np.float64]
    raw: NDArray[np.float64]
    smooth: NDArray[np.float64]


def measure_ventricle(
    labels: NDArray[np.uint8], row_mm: float, column_mm: float, *, discs: int = DISCS
) -> Ventricle:
    """Volume of one traced frame by single-plane discs.

    Parameters
    ----------
    labels
        (rows, columns) class indices.
    row_mm, column_mm
        Height and width of a pixel.

    Raises
    ------
    MeasureError
        If the cavity is empty, in pieces, ragged, cut by the frame's edge or oddly shaped.
    """
    cavity = _whole_cavity(labels == CAVITY)
    top, left, window, myocardium, atrium = _crop(cavity, labels)
    size = np.array([row_mm, column_mm])
    outline = _outline(window)
    hinge_one, hinge_two = _hinges(outline, myocardium, atrium, size)
    base = (hinge_one + hinge_two) / 2
    far = np.linalg.norm((outline - base) * size, axis=1)
    # The tip is blunt: the middle of the outline's farthest pixels, not the first of them.
    apex = outline[far >= far.max() - size.mean() / 2].mean(axis=0)
    # The outermost pixel's centre is half a pixel inside the edge.
    length = float(far.max()) + float(size.mean()) / 2
    axis = (apex - base) * size
    axis /= np.linalg.norm(axis)
    annulus = (hinge_two - hinge_one) * size
    leaning = abs(float(axis @ annulus)) / float(np.linalg.norm(annulus))
    along = ((np.argwhere(window) - base) * size) @ axis
    counts, _ = np.histogram(along, bins=discs, range=(0.0, length))
    thickness = length / discs
    diameters = counts * (row_mm * column_mm) / thickness
    if (
        leaning > _MOST_LEANING
        or not _LEAST_SLENDER <= length / max(diameters.max(), 1e-9) <= _MOST_SLENDER
    ):
        raise MeasureError("the traced cavity does not have the shape of a ventricle")
    return Ventricle(
        volume_ml=float(np.sum(np.pi / 4 * diameters**2) * thickness / 1000),
        length_mm=length,
        diameters_mm=diameters,
        base=(float(base[0] + top), float(base[1] + left)),
        apex=(float(apex[0] + top), float(apex[1] + left)),
    )


def atrium_area_cm2(labels: NDArray[np.uint8], row_mm: float, column_mm: float) -> float:
    """Area of the largest piece of traced left atrium; 0.0 where there is none."""
    largest, _ = _largest(_cut_out(labels == ATRIUM)[0])
    return float(largest.sum()) * row_mm * column_mm / 100


def measure_atrium(labels: NDArray[np.uint8], row_mm: float, column_mm: float) -> Atrium:
    """Area, length and single-plane area-length volume of the left atrium of one traced frame.

    V = 8 / (3 pi) A^2 / L with A and L of one plane, where the clinic takes two (Lang et al. 2015,
    JASE 28:1-39, left atrium). The length is from the middle of the stretch that touches the
    ventricle to the far end, along the line through the atrium's centre.

    Raises
    ------
    MeasureError
        If there is no atrium, it is in pieces or cut by the frame's edge, or touches no ventricle.
    """
    atrium, corner = _cut_out(labels == ATRIUM)
    atrium, share = _largest(atrium)
    if atrium.sum() < _LEAST_PIXELS:
        raise MeasureError("no left atrium was found")
    if share < _LEAST_WHOLE:
        raise MeasureError("the traced atrium is in pieces")
    outline = _outline(atrium) + corner
    last = np.array(labels.shape) - 1
    if np.any((outline == 0) | (outline == last), axis=1).mean() > _MOST_BORDER:
        raise MeasureError("the traced atrium is cut by the edge of the frame")
    annulus = outline[_beside(outline, labels == CAVITY)]
    if len(annulus) < 3:
        raise MeasureError("the traced atrium does not touch the ventricle")
    size = np.array([row_mm, column_mm])
    apart = spatial.distance.cdist(annulus * size, annulus * size)
    one, two = np.unravel_index(int(np.argmax(apart)), apart.shape)
    middle = (annulus[one] + annulus[two]) / 2 * size
    points = (np.argwhere(atrium) + corner) * size
    way = points.mean(axis=0) - middle
    way /= max(float(np.linalg.norm(way)), 1e-9)
    length_mm = float(((points - middle) @ way).max()) + float(size.mean()) / 2
    area_cm2 = float(atrium.sum()) * row_mm * column_mm / 100
    return Atrium(
        area_cm2=area_cm2,
        length_mm=length_mm,
        volume_ml=8 / (3 * np.pi) * area_cm2**2 / (length_mm / 10),
    )


def wall_thickness_mm(
    labels: NDArray[np.uint8], row_mm: float, column_mm: float
) -> tuple[float, float]:
    """Thickness of the wall on the picture's left and right: septum and side wall, as a rule.

    The median over ten levels between a sixth and a half of the long axis, where the walls run
    beside it: the myocardium's area in each level on one side, over the level's height.

    Raises
    ------
    MeasureError
        If the cavity cannot be measured or a side has no wall at most of the levels.
    """
    found = measure_ventricle(labels, row_mm, column_mm)
    size = np.array([row_mm, column_mm])
    base = np.array(found.base) * size
    axis = np.array(found.apex) * size - base
    axis /= np.linalg.norm(axis)
    across = np.array([-axis[1], axis[0]])
    across = across if across[1] > 0 else -across
    points = np.argwhere(labels == MYOCARDIUM) * size - base
    along, aside = points @ axis, points @ across
    edges = np.linspace(found.length_mm / 6, found.length_mm / 2, 11)
    sides = []
    for side in (aside < 0, aside >= 0):
        counts, _ = np.histogram(along[side], bins=edges)
        widths = counts * row_mm * column_mm / (edges[1] - edges[0])
        if (widths > 0).sum() <= len(widths) / 2:
            raise MeasureError("the wall is traced on one side only")
        sides.append(float(np.median(widths[widths > 0])))
    return sides[0], sides[1]


def volume_curve(
    masks: NDArray[np.uint8], times_ms: NDArray[np.float64], row_mm: float, column_mm: float
) -> Curve:
    """Volumes of every frame of a clip, and a smooth curve through them.

    Raises
    ------
    MeasureError
        If more than a third of the frames cannot be measured (the commonest reason is given), or
        the volumes jump about.
    """
    raw = np.full(len(masks), np.nan)
    reasons: list[str] = []
    for index, labels in enumerate(masks):
        try:
            raw[index] = measure_ventricle(labels, row_mm, column_mm).volume_ml
        except MeasureError as error:
            reasons.append(str(error))
    if len(reasons) > _MOST_BAD_FRAMES * len(masks):
        reason = max(set(reasons), key=reasons.count)
        if len(masks) == 1:
            raise MeasureError(reason)
        raise MeasureError(f"{reason} (in {len(reasons)} of {len(masks)} frames)")
    return smooth_curve(times_ms, raw)


def smooth_curve(times_ms: NDArray[np.float64], raw: NDArray[np.float64]) -> Curve:
    """Fill refused frames and smooth in time, without flattening end systole.

    Raises
    ------
    MeasureError
        If the volumes jump about.
    """
    times = np.asarray(times_ms, np.float64)
    good = np.isfinite(raw)
    filled = np.interp(times, times[good], raw[good])
    step = _frame_step_ms(times)
    smooth = filled
    if len(times) >= 7 and step <= 45.0:
        calm = ndimage.median_filter(filled, size=3, mode="nearest")
        window = max(5, 2 * round(50.0 / step) + 1)
        if window <= len(times):
            smooth = signal.savgol_filter(calm, window, 2, mode="interp")
        jumping = np.abs(filled - smooth) > np.median(filled) / 3
        if jumping.mean() > _MOST_JUMPING:
            raise MeasureError(
                f"the traced volume jumps from frame to frame (in {int(jumping.sum())} of "
                f"{len(times)} frames)"
            )
    return Curve(times_ms=times, raw=np.asarray(raw), smooth=np.maximum(smooth, 1e-6))


def find_beats(curve: Curve, *, trusted_times: bool = True) -> tuple[Beat, ...]:
    """End diastole and end systole, beat by beat, from the volume curve.

    A beat is a maximum and the minimum that follows it. Maxima at the clip's ends count, as clips
    are often cut at the R wave; minima there do not. Where no whole contraction stands out, the
    largest and the smallest volume of the clip make one beat. Where the times are only assumed
    (not ``trusted_times``) no clip is called too short.

    Raises
    ------
    MeasureError
        If the clip is a still, is too short, or shows no contraction.
    """
    times, volumes = curve.times_ms, curve.smooth
    if len(times) < 2:
        raise MeasureError("a still shows one moment: no end diastole and end systole to compare")
    span = float(np.ptp(volumes))
    lasts = float(times[-1] - times[0])
    if lasts < _SHORTEST_MS and trusted_times:
        # Ejection so fast cannot be: then the frames are not neighbours in time, whatever the
        # header says, but picked ones, as in a stored pair of end diastole and end systole.
        if span / volumes.max() <= _FASTEST_EJECTION * max(lasts, 1.0) / 1000:
            raise MeasureError(
                f"the clip lasts {lasts:.0f} ms, too short to hold end diastole and end systole"
            )
        return _moving((_beat(volumes, int(np.argmax(volumes)), int(np.argmin(volumes))),))
    beats = _regular_beats(times, volumes)
    if beats:
        return _moving(beats)
    ed, es = int(np.argmax(volumes)), int(np.argmin(volumes))
    if len(times) > 4 and es == 0 and ed == len(times) - 1:
        raise MeasureError("the clip shows the ventricle filling but no contraction")
    return _moving((_beat(volumes, ed, es),))


def _moving(beats: tuple[Beat, ...]) -> tuple[Beat, ...]:
    ef = float(np.mean([beat.ef_percent for beat in beats]))
    if ef < _LEAST_EF_PERCENT:
        raise MeasureError(
            f"the traced cavity keeps its size (ejection of {ef:.0f} %): "
            "a heart that hardly moves, or a wrong tracing"
        )
    return beats


def heart_rate_bpm(curve: Curve, beats: Sequence[Beat]) -> float | None:
    """Rate from the times between end systoles; None for fewer than two beats."""
    if len(beats) < 2:
        return None
    between = np.diff([curve.times_ms[beat.es] for beat in beats])
    return 60_000.0 / float(np.median(between))


def _regular_beats(times: NDArray[np.float64], volumes: NDArray[np.float64]) -> tuple[Beat, ...]:
    low, high = float(volumes.min()), float(volumes.max())
    span = high - low
    distance = max(1, int(60_000.0 / FASTEST_BPM / _frame_step_ms(times)))
    padded = np.concatenate([[low], volumes, [low]])
    tops, _ = signal.find_peaks(padded, prominence=0.4 * span, distance=distance)
    bottoms, _ = signal.find_peaks(-volumes, prominence=0.4 * span, distance=distance)
    beats = []
    for number, top in enumerate(tops):
        ed = int(top) - 1
        ends = int(tops[number + 1]) - 1 if number + 1 < len(tops) else len(volumes)
        between = [int(bottom) for bottom in bottoms if ed < bottom < ends]
        # A beat that the clip's start cuts, or of half the usual depth, would pull the mean down.
        if not between or volumes[ed] < high - 0.35 * span:
            continue
        es = min(between, key=lambda index: volumes[index])
        if volumes[es] <= low + 0.35 * span and times[es] - times[ed] <= 45_000.0 / SLOWEST_BPM:
            beats.append(_beat(volumes, ed, es))
    return tuple(beats)


def _beat(volumes: NDArray[np.float64], ed: int, es: int) -> Beat:
    return Beat(ed=ed, es=es, edv=float(volumes[ed]), esv=float(volumes[es]))


def _frame_step_ms(times: NDArray[np.float64]) -> float:
    return max(1e-3, float(np.median(np.diff(times)))) if len(times) > 1 else 1e-3


def _largest(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    """The largest connected piece, and its share of the whole."""
    pieces, count = ndimage.label(mask)
    if count <= 1:
        return mask, 1.0
    sizes = np.bincount(pieces.ravel())[1:]
    return pieces == 1 + int(np.argmax(sizes)), float(sizes.max() / sizes.sum())


def _whole_cavity(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cavity's largest piece without holes, or the reason why it is none."""
    traced, corner = _cut_out(mask)
    largest, share = _largest(traced)
    if largest.sum() < _LEAST_PIXELS:
        raise MeasureError("no left-ventricular cavity was found")
    if share < _LEAST_WHOLE:
        raise MeasureError("the traced cavity is in pieces")
    filled = ndimage.binary_fill_holes(largest)
    outline = _outline(filled) + corner
    last = np.array(mask.shape) - 1
    if np.any((outline == 0) | (outline == last), axis=1).mean() > _MOST_BORDER:
        raise MeasureError("the traced cavity is cut by the edge of the frame")
    hull = spatial.ConvexHull(_corners(outline)).volume  # in the plane, "volume" is the area
    if filled.sum() / hull < _LEAST_SOLID:
        raise MeasureError("the traced cavity has a ragged outline")
    whole = np.zeros_like(mask)
    whole[corner[0] :, corner[1] :][: filled.shape[0], : filled.shape[1]] = filled
    return whole


def _crop(
    cavity: NDArray[np.bool_], labels: NDArray[np.uint8], margin: int = 6
) -> tuple[int, int, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    rows, columns = (np.flatnonzero(cavity.any(axis=axis)) for axis in (1, 0))
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    window = (slice(top, rows[-1] + 1 + margin), slice(left, columns[-1] + 1 + margin))
    around = labels[window]
    return int(top), int(left), cavity[window], around == MYOCARDIUM, around == ATRIUM


def _cut_out(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """The part of a mask that holds all that is set, and where its first pixel stands.

    A chamber fills a tenth of a frame: the rest is not looked at again and again.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return mask[:1, :1], np.zeros(2, np.intp)
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cut, np.array([rows[0], columns[0]])


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """(n, 2) pixels of the mask that have a neighbour outside it or lie on the array's edge."""
    inner = ndimage.binary_erosion(mask)
    return np.argwhere(mask & ~inner)


def _corners(points: NDArray[np.intp]) -> NDArray[np.float64]:
    """The four corners of each pixel."""
    offsets = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
    return np.asarray((points[:, np.newaxis] + offsets).reshape(-1, 2))


def _hinges(
    outline: NDArray[np.intp],
    myocardium: NDArray[np.bool_],
    atrium: NDArray[np.bool_],
    size: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two ends of the mitral annulus: the outline's stretch that faces no myocardium.

    Where an atrium is traced, the outline's pixels beside it are that stretch; they are joined by
    those that face neither, since the tracing of one may leave a gap.
    """
    open_side = outline[_beside(outline, atrium)]
    if len(open_side) < 3:
        open_side = outline[~_beside(outline, myocardium)]
    if len(open_side) < 3:
        raise MeasureError("the mitral annulus was not found on the tracing")
    place = open_side * size
    apart = spatial.distance.cdist(place, place)
    one, two = np.unravel_index(int(np.argmax(apart)), apart.shape)
    return open_side[one].astype(np.float64), open_side[two].astype(np.float64)


def _beside(points: NDArray[np.intp], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points have the mask within :data:`_REACH` pixels."""
    near = np.zeros(len(points), bool)
    if not mask.any():
        return near
    wide = np.pad(mask, _REACH)
    for down in range(-_REACH, _REACH + 1):
        for across in range(-_REACH, _REACH + 1):
            if down**2 + across**2 <= _REACH**2:
                near |= wide[points[:, 0] + _REACH + down, points[:, 1] + _REACH + across]
    return near
