"""Cover a structure of a simulated clip, or an equal piece of the same clip elsewhere.

The check of an explanation by occlusion: with the lead covered the lead's score must fall, and an
equal patch elsewhere must leave it (Ghorbani et al. 2020, who masked the lead). A black patch would
be a thing of its own to a network, so the patch takes the brightness of what surrounds it and the
speckle of another place of the same frame.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.signal import fftconvolve

from models.simulator.anatomy import Structure
from models.simulator.clip import SimulatedClip

Mask = NDArray[np.bool_]

_AROUND = 0.03  #: width of the blur that takes in the surroundings, of the sector's height
_SPREAD = 0.025  #: how far a bright structure's echo spreads, of the sector's height
_GRAIN_PX = 2.5  #: what is finer than this is speckle


def cover(
    clip: SimulatedClip,
    what: Structure | Mask,
    rng: np.random.Generator,
    *,
    margin_px: int | None = None,
) -> SimulatedClip:
    """The clip with a structure painted over in every frame, as if there were only tissue.

    Parameters
    ----------
    clip
        A clip with masks and a two-dimensional picture.
    what
        A structure of the truth, or (frames, rows, columns) of pixels.
    rng
        Chooses the place that lends its speckle; the same place for all frames.
    margin_px
        How far the patch reaches beyond a structure, whose echo spreads; None takes 2.5 % of the
        sector's height. A mask is taken as it is.

    Returns
    -------
    The clip with other frames; in its masks the covered pixels are background. All other truth is
    still that of the heart, the covered lead included.

    Raises
    ------
    ValueError
        If the clip has no picture or no masks, or nothing is to be covered.
    """
    inside = _sector(clip)
    patch = patch_of(clip, what, margin_px=margin_px) if isinstance(what, Structure) else what
    if patch.shape != clip.frames.shape[:3]:
        raise ValueError(f"a patch of shape {patch.shape} does not fit {clip.frames.shape[:3]}")
    if not patch.any():
        raise ValueError("nothing is to be covered: the structure is in no frame")
    shift = tuple(rng.integers(8, 40, 2) * rng.choice([-1, 1], 2))
    frames = clip.frames.copy()
    width = max(3.0, _AROUND * _height(inside))
    window = _window(_union(patch), round(8 * width))
    for index in np.flatnonzero(patch.any(axis=(1, 2))).tolist():
        colours = frames[index][..., None] if frames.ndim == 3 else frames[index]
        part = colours[window]
        for channel in range(part.shape[-1]):
            part[..., channel] = _fill(
                part[..., channel], patch[index][window], inside[window], shift, width
            )
    masks = clip.truth.masks
    if masks is not None:
        masks = np.where(patch, np.uint8(Structure.BACKGROUND), masks)
    return replace(clip, frames=frames, truth=replace(clip.truth, masks=masks))


def patch_of(clip: SimulatedClip, structure: Structure, *, margin_px: int | None = None) -> Mask:
    """(frames, rows, columns): a structure and ``margin_px`` around it, within the sector.

    Raises
    ------
    ValueError
        If the clip has no picture or no masks.
    """
    inside = _sector(clip)
    found = clip.truth.mask(structure)
    margin = max(3, round(_SPREAD * _height(inside))) if margin_px is None else margin_px
    if margin:
        near = np.hypot(*np.mgrid[-margin : margin + 1, -margin : margin + 1]) <= margin
        found = np.stack(
            [binary_dilation(frame, near) if frame.any() else frame for frame in found]
        )
    return np.asarray(found & inside)


def elsewhere(clip: SimulatedClip, patch: Mask, rng: np.random.Generator) -> Mask:
    """A patch of the same size and shape in another place of the sector, in every frame.

    Moved, and mirrored if need be, as one; it lies within the sector and touches the patch in no
    frame.

    Raises
    ------
    ValueError
        If the clip has no picture, the patch is empty, or there is no room for another one.
    """
    inside = _sector(clip)
    union = _union(patch)
    if not union.any():
        raise ValueError("the patch is empty: there is nothing to move")
    forbidden = (~inside | binary_dilation(union, iterations=2)).astype(np.float32)
    rows, columns = union.shape
    for flip in rng.permutation(4).tolist():
        turned = patch[:, :: 1 - 2 * (flip & 1), :: 1 - (flip & 2)]
        shape = _union(turned).astype(np.float32)
        # How many forbidden pixels the patch would touch, for every move of it.
        touched = fftconvolve(forbidden, shape[::-1, ::-1], mode="full")
        free = np.argwhere(touched < 0.5)
        row, column = free[:, 0] - (rows - 1), free[:, 1] - (columns - 1)
        high, wide = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
        fits = (row + high[0] >= 0) & (row + high[-1] < rows)
        fits &= (column + wide[0] >= 0) & (column + wide[-1] < columns)
        places = np.flatnonzero(fits)
        if len(places):
            chosen = int(rng.choice(places))
            return np.asarray(_moved(turned, int(row[chosen]), int(column[chosen])))
    raise ValueError("the sector has no room for an equal patch elsewhere")


def _moved(patch: Mask, row: int, column: int) -> Mask:
    out = np.zeros_like(patch)
    rows, columns = patch.shape[1:]
    out[:, max(0, row) : rows + min(0, row), max(0, column) : columns + min(0, column)] = patch[
        :, max(0, -row) : rows - max(0, row), max(0, -column) : columns - max(0, column)
    ]
    return out


def _fill(
    grey: NDArray[np.uint8], patch: Mask, inside: Mask, shift: tuple[int, ...], width: float
) -> NDArray[np.uint8]:
    picture = grey.astype(np.float32)
    around = (inside & ~binary_dilation(patch, iterations=2)).astype(np.float32)
    # Near surroundings count most, then wider ones, then the whole sector.
    weight = np.full(picture.shape, 1e-6, np.float32)
    level = weight * np.float32(picture[around > 0].mean() if around.any() else 0)
    for spread, share in ((width, 1.0), (3 * width, 1e-2)):
        weight += share * gaussian_filter(around, spread, truncate=2.5)
        level += share * gaussian_filter(around * picture, spread, truncate=2.5)
    level /= weight
    # Speckle in units of the brightness that it lies on, from a place that is not covered.
    known = np.where(around > 0, picture, level)
    slow = gaussian_filter(known, _GRAIN_PX)
    grain = np.where(around > 0, (known - slow) / (slow + 8), 0).clip(-0.7, 0.7)
    lent = np.roll(grain, shift, axis=(0, 1))
    second = np.roll(grain, (-shift[1], shift[0]), axis=(0, 1))
    lent = np.where(lent != 0, lent, second)
    filled = np.clip(level + lent * (level + 8), 0, 255)
    return np.asarray(np.where(patch, filled, picture) + np.float32(0.5), np.uint8)


def _union(patch: Mask) -> Mask:
    return np.asarray(np.any(patch, axis=0), bool)


def _window(mask: Mask, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )


def _height(inside: Mask) -> float:
    return float(np.count_nonzero(inside.any(axis=1)))


def _sector(clip: SimulatedClip) -> Mask:
    if clip.sector_mask is None:
        raise ValueError(f"a clip of {clip.truth.kind!r} has no two-dimensional picture to cover")
    return clip.sector_mask
