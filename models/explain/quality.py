"""Whether a map can be trusted: seven checks, each a function of arrays.

D1 insertion and deletion (Petsiuk et al. 2018): does the number hold with the strongest places
alone, and fall without them? D2 pointing game (Zhang et al. 2016) and energy in the true mask.
D3 covering a structure against covering an equal patch elsewhere. D4 cascading randomisation of
weights (Adebayo et al. 2018): a map that stays the same shows the picture and not the network.
D5 stability under noise and a shift of two pixels. D6 completeness of integrated gradients. D7 how
much relevance lies outside the sector and on burned-in text.

Whatever is taken out of a picture is replaced by the blurred sector or by the patch's surroundings,
never by black (:mod:`models.explain.sector`). Maps are compared by strength, signs left aside.
:mod:`models.explain.battery` runs all of them on a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage, signal, stats

from models.clip import Clip, Sector
from models.explain import ink
from models.explain.sector import EDGE, blurred, within_reach
from models.explain.target import Explained, ExplainError, numbers_of

if TYPE_CHECKING:
    import keras

    from models.simulator import SimulatedClip

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]

_DRAWS = 1000
_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)  # of the places, at insertion and deletion
_SMOOTHING = 0.01  # of the rows: takes a map's grain out before places are ranked
_RANDOM_GRAIN = 0.03  # of the rows: the size of the places of a random map
_CENTRE = 0.2  # standard deviation of the Gaussian at the sector's middle, of the rows
_NOISE = 0.02  # of the inputs' range
_SHIFT = 2  # pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A mean over ``n`` clips with its bootstrap 95 % interval; NaN where nothing was measured."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "not measured"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def over_clips(values: Iterable[float], *, seed: int = 1) -> Measured:
    """The mean over clips, with an interval by drawing clips; NaN among them is left out."""
    known = np.asarray([value for value in values if np.isfinite(value)], np.float64)
    if not len(known):
        return Measured(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
    drawn = np.random.default_rng(seed).integers(0, len(known), (_DRAWS, len(known)))
    low, high = np.percentile(known[drawn].mean(axis=1), (2.5, 97.5))
    return Measured(value=float(known.mean()), low=float(low), high=float(high), n=len(known))


# D1.


@dataclass(frozen=True, kw_only=True, slots=True)
class InsertionDeletion:
    """Areas under both curves, 0 to 1, (orders, outputs) each. High insertion and low deletion are
    good; NaN where blurring does not change the output."""

    insertion: NDArray[np.float64]
    deletion: NDArray[np.float64]


def insertion_deletion(
    network: keras.Model | Explained,
    frame: NDArray[np.float32],
    strengths: Sequence[Map],
    sector: Mask,
) -> InsertionDeletion:
    """Both curves of one frame, of every output and for several orders of the frame's places.

    At each step it is asked how much of what sets the whole picture's number apart from that of
    the blurred sector is there: ``1 - |number - whole| / |blurred - whole|``, at least 0. A
    picture is asked once, whatever outputs are of interest.

    Parameters
    ----------
    frame
        (rows, columns, 1).
    strengths
        Maps (rows, columns), one for each order; the strongest places come first.
    """
    base = blurred(frame[np.newaxis], sector)[0]
    pictures = [frame, base]
    for strength in strengths:
        smooth = ndimage.gaussian_filter(np.abs(strength), _SMOOTHING * frame.shape[0])
        order = np.full(sector.shape, np.inf)
        order[sector] = stats.rankdata(-smooth[sector], method="ordinal") / max(sector.sum(), 1)
        for share in _SHARES:
            first = (order <= share)[..., np.newaxis]
            pictures += [np.where(first, frame, base), np.where(first, base, frame)]
    numbers = numbers_of(network, np.stack(pictures)).astype(np.float64)
    whole, none = numbers[:2]
    apart = np.abs(none - whole)
    apart[apart <= 1e-6 * np.maximum(1.0, np.abs(whole))] = np.nan
    kept = np.maximum(0.0, 1.0 - np.abs(numbers[2:] - whole) / apart)
    kept = kept.reshape(len(strengths), len(_SHARES), 2, -1)
    inserted = np.pad(kept[:, :, 0], ((0, 0), (1, 1), (0, 0)))
    deleted = np.pad(kept[:, :, 1], ((0, 0), (1, 1), (0, 0)))
    inserted[:, -1], deleted[:, 0] = 1.0, 1.0
    shares = (0.0, *_SHARES, 1.0)
    return InsertionDeletion(
        insertion=np.trapezoid(inserted, shares, axis=1),
        deletion=np.trapezoid(deleted, shares, axis=1),
    )


def random_map(shape: tuple[int, int], seed: int) -> Map:
    """A map that knows nothing: smooth noise."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, _RANDOM_GRAIN * shape[0])
    return np.asarray(smooth - smooth.min(), np.float32)


def centre_map(sector: Mask) -> Map:
    """A map that only knows that hearts lie in the middle: a Gaussian."""
    rows, columns = np.nonzero(sector)
    down, across = np.indices(sector.shape)
    away = np.hypot(down - rows.mean(), across - columns.mean()) / (_CENTRE * sector.shape[0])
    return np.asarray(np.exp(-(away**2) / 2), np.float32)


# D2.


@dataclass(frozen=True, kw_only=True, slots=True)
class Pointing:
    """Whether the strongest place lies in the mask, the share of strength there, and the mask's
    share of the sector, which a map that knows nothing would have."""

    hit: bool
    energy: float
    chance: float


def pointing(strength: Map, mask: Mask, sector: Mask) -> Pointing | None:
    """How a map (rows, columns) lies on a true mask; None where there is no mask or no map."""
    inside = np.where(sector, np.abs(strength), 0.0)
    if not (mask & sector).any() or not inside.any():
        return None
    smooth = ndimage.gaussian_filter(inside, _SMOOTHING * len(inside))
    best = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    near = within_reach(mask)
    return Pointing(
        hit=bool(near[best]),
        energy=float(inside[mask].sum() / inside.sum()),
        chance=float((mask & sector).sum() / sector.sum()),
    )


# D3.


@dataclass(frozen=True, kw_only=True, slots=True)
class Covering:
    """By how much a number moves when a structure is covered, and an equal patch elsewhere."""

    structure: float
    elsewhere: float


def covering(
    network: keras.Model | Explained,
    frame: NDArray[np.float32],
    output: int,
    mask: Mask,
    sector: Mask,
    *,
    seed: int = 1,
) -> Covering | None:
    """Cover a structure of one frame; None where there is none, or no room elsewhere."""
    both = covered_both(frame, mask, sector, seed=seed)
    if both is None:
        return None
    numbers = numbers_of(network, np.concatenate([frame[np.newaxis], both]))[:, output]
    whole, without, control = numbers.astype(np.float64)
    return Covering(structure=abs(float(without - whole)), elsewhere=abs(float(control - whole)))


def covered_both(
    frame: NDArray[np.float32], mask: Mask, sector: Mask, *, seed: int = 1
) -> NDArray[np.float32] | None:
    """A frame (rows, columns, 1) with a structure covered, and with an equal patch elsewhere.

    The patch reaches a little beyond the structure. One that is so large that no equal patch has
    room elsewhere is shrunk about its middle, by a tenth at a time. None where there is no
    structure, or no room.
    """
    if not mask.any():
        return None
    margin = max(1, round(EDGE * len(mask)))
    whole_patch = ndimage.binary_dilation(mask, iterations=margin) & sector
    for size in np.arange(1.0, 0.25, -0.1):
        patch = _shrunk(whole_patch, float(size)) & sector
        other = equal_patch(patch, sector, seed=seed)
        if other is not None:
            return np.stack([covered(frame, patch, sector), covered(frame, other, sector)])
    return None


def _shrunk(mask: Mask, size: float) -> Mask:
    places = np.argwhere(mask)
    middle = places.mean(axis=0)
    from_where = np.rint(middle + (np.moveaxis(np.indices(mask.shape), 0, -1) - middle) / size)
    inside = ((from_where >= 0) & (from_where < mask.shape)).all(axis=-1)
    row, column = np.where(inside[..., np.newaxis], from_where, 0).astype(int).T
    return np.asarray(mask[row.T, column.T] & inside)


def covered(frame: NDArray[np.float32], patch: Mask, sector: Mask) -> NDArray[np.float32]:
    """A frame (rows, columns, 1) whose patch has the brightness of what surrounds it."""
    around = sector & ~patch
    sigma = 0.5 * EDGE * len(frame)
    out = frame.copy()
    total = np.zeros(sector.shape)
    weight = np.full(sector.shape, 1e-9)
    for wider, share in ((1, 1.0), (4, 1e-3), (16, 1e-6)):
        values = np.where(around, frame[..., 0], 0).astype(np.float64)
        total += share * ndimage.gaussian_filter(values, wider * sigma)
        weight += share * ndimage.gaussian_filter(around.astype(np.float64), wider * sigma)
    out[patch, 0] = (total / weight)[patch]
    return out


def equal_patch(patch: Mask, sector: Mask, *, seed: int = 1) -> Mask | None:
    """The same patch, moved and perhaps mirrored, within the sector and apart from itself."""
    if not patch.any():
        return None
    rng = np.random.default_rng(seed)
    forbidden = (~sector | ndimage.binary_dilation(patch, iterations=2)).astype(np.float64)
    down, across = (np.flatnonzero(patch.any(axis=axis)) for axis in (1, 0))
    tight = patch[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
    for one in (tight, tight[:, ::-1])[:: rng.choice((1, -1))]:
        # How many of its pixels would lie where they may not, for every place of its corner.
        wrong = signal.correlate(forbidden, one.astype(np.float64), mode="valid", method="fft")
        free = np.argwhere(wrong < 0.5)
        if len(free):
            top, left = rng.choice(free)
            out = np.zeros_like(patch)
            out[top : top + one.shape[0], left : left + one.shape[1]] = one
            return out
    return None


# D4.


def similarity(one: Map, two: Map, sector: Mask) -> tuple[float, float]:
    """Rank correlation and SSIM (Wang et al. 2004) of two maps' strengths in the sector.

    Both are taken of maps without their grain, SSIM of maps from 0 to their 99th percentile. A
    map that is zero everywhere is like no other: 0.
    """
    sigma = _SMOOTHING * len(one)
    first, second = (
        ndimage.gaussian_filter(np.abs(m).astype(np.float64), sigma) for m in (one, two)
    )
    if np.ptp(first[sector]) == 0 or np.ptp(second[sector]) == 0:
        return 0.0, 0.0
    rank = float(stats.spearmanr(first[sector], second[sector]).statistic)
    a, b = (np.clip(m / max(np.percentile(m[sector], 99), 1e-30), 0, 1) for m in (first, second))
    return rank, float(_ssim(a, b)[sector].mean())


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, 1.5))

    one, two = mean(a), mean(b)
    spread_one, spread_two = mean(a * a) - one**2, mean(b * b) - two**2
    both = mean(a * b) - one * two
    c1, c2 = 0.01**2, 0.03**2
    return np.asarray(
        (2 * one * two + c1) * (2 * both + c2)
        / ((one**2 + two**2 + c1) * (spread_one + spread_two + c2))
    )  # fmt: skip


@contextmanager
def shuffled(network: keras.Model, share: float, *, seed: int = 1) -> Iterator[None]:
    """For a while the last ``share`` of layers, from the answer down, has its weights shuffled.

    Shuffled within each array: the same numbers in places of no meaning. They are put into the
    network itself and taken out again, since whatever was compiled for it then serves on.

    Raises
    ------
    ExplainError
        If the network does not show its layers, as a SavedModel's does not.
    """
    layers = [layer for layer in _leaves(network) if layer.weights]
    if len(layers) < 2:
        raise ExplainError("the network's layers are not known, so no weights can be shuffled")
    rng = np.random.default_rng(seed)
    changed = layers[len(layers) - round(share * len(layers)) :]
    kept = [layer.get_weights() for layer in changed]
    try:
        for layer, arrays in zip(changed, kept, strict=True):
            layer.set_weights([rng.permutation(one.ravel()).reshape(one.shape) for one in arrays])
        yield
    finally:
        for layer, arrays in zip(changed, kept, strict=True):
            layer.set_weights(arrays)


def _leaves(network: Any) -> list[Any]:
    leaves = []
    for layer in network.layers:
        leaves += _leaves(layer) if getattr(layer, "layers", None) else [layer]
    return leaves


# D5.


def disturbed(
    frame: NDArray[np.float32], sector: Mask, *, seed: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A frame (rows, columns, 1) with a little noise in the sector, and two pixels further."""
    noise = np.random.default_rng(seed).normal(size=frame.shape) * _NOISE * float(np.ptp(frame))
    noisy = (frame + noise * sector[..., np.newaxis]).astype(np.float32)
    return noisy, np.roll(frame, (_SHIFT, _SHIFT), axis=(0, 1))


def moved_back(strength: Map) -> Map:
    """A map (rows, columns) of the moved frame, where the frame was."""
    return np.roll(strength, (-_SHIFT, -_SHIFT), axis=(0, 1))


# D7.


def with_text(inputs: NDArray[np.float32], sector: Mask) -> tuple[NDArray[np.float32], Mask]:
    """Frames (n, rows, columns, 1) with letters burned in outside the sector, and where those are.

    White as a machine writes them. Where the sector fills the frame there is no room and no mask.
    """
    rows, columns = sector.shape
    page = Image.new("L", (columns, rows))
    size = max(8, rows // 14)
    for line in range(4):
        place = (2, 2 + line * (size + 2))
        ImageDraw.Draw(page).text(place, "ADULT ECHO 3.2 MHz", font=ink.font(size), fill=255)
    letters = (np.asarray(page) > 127) & ~within_reach(sector)
    out = inputs.copy()
    out[:, letters] = inputs.max()
    return out, letters


# The lead.


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadCheck:
    """What covering the lead does to its score, over ``clips`` simulated clips with a lead.

    ``seen`` of them score at least the threshold. Of those, ``flipped`` fall below it with the
    lead covered, and ``flipped_elsewhere`` with an equal patch elsewhere. ``fall`` and
    ``fall_elsewhere`` are the mean falls of the score over all clips.
    """

    clips: int
    seen: int
    flipped: int
    flipped_elsewhere: int
    fall: Measured
    fall_elsewhere: Measured

    @property
    def passed(self) -> bool:
        """Whether covering the lead flips most that were seen, and elsewhere hardly any."""
        return (
            self.seen >= max(1, 0.5 * self.clips)
            and self.flipped >= 0.8 * self.seen
            and self.flipped_elsewhere <= 0.1 * self.seen
        )


def lead_check(
    score: Callable[[Clip], float],
    threshold: float,
    clips: Iterable[SimulatedClip],
    *,
    seed: int = 1,
) -> LeadCheck:
    """Cover the lead of simulated clips, and an equal patch elsewhere (Ghorbani et al. 2020).

    Parameters
    ----------
    score
        What is checked: the lead's score of a clip, 0 to 1.
    clips
        With masks and with a lead; clips without one, or without room elsewhere, are left out.
    """
    from models.simulator import Structure
    from models.simulator.cover import cover, elsewhere, patch_of

    rng = np.random.default_rng(seed)
    scores = []
    for clip in clips:
        if not clip.truth.lead:
            continue
        patch = patch_of(clip, Structure.LEAD)
        if not patch.any():
            continue
        try:
            other = elsewhere(clip, patch, rng)
        except ValueError:
            continue
        three = (clip, cover(clip, patch, rng), cover(clip, other, rng))
        scores.append([score(clip_of(one)) for one in three])
    table = np.asarray(scores, np.float64).reshape(-1, 3)
    seen = table[:, 0] >= threshold
    return LeadCheck(
        clips=len(table),
        seen=int(seen.sum()),
        flipped=int((seen & (table[:, 1] < threshold)).sum()),
        flipped_elsewhere=int((seen & (table[:, 2] < threshold)).sum()),
        fall=over_clips(table[:, 0] - table[:, 1], seed=seed),
        fall_elsewhere=over_clips(table[:, 0] - table[:, 2], seed=seed),
    )


def clip_of(simulated: SimulatedClip) -> Clip:
    """A simulated clip as readers take it, with its own sector."""
    sector = None
    if simulated.sector_box is not None and simulated.sector_mask is not None:
        top, left, bottom, right = simulated.sector_box
        mask = simulated.sector_mask[top:bottom, left:right]
        sector = Sector(top=top, left=left, bottom=bottom, right=right, mask=mask, source="pixels")
    per_pixel = simulated.truth.cm_per_pixel
    return Clip.from_frames(
        simulated.grey,
        frame_time_ms=simulated.frame_time_ms,
        spacing_mm=None if per_pixel is None else 10.0 * per_pixel,
        sector=sector,
    )
