"""Where the ultrasound picture lies on the screen, as the pixels show it.

Speckle differs from pixel to pixel in both directions and, in a cine, from frame to frame.
Letters, bars, banners, ticks and traces do not: they are flat, thin or still. So the sector is
the largest patch that is dense in speckle, with its like around it, closed to its convex hull.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

PROBES: Final = 8
"""Frames looked at: enough for the heart to move between them."""

_STEP: Final = 3  # levels over the background: less is empty screen
_OVER_NOISE: Final = 2  # levels over the noise of the empty screen, in a cine
_MOST_NOISE: Final = 10
_SEED_DENSITY: Final = 0.4  # of speckle around a pixel that surely belongs to the picture
_DIM_DENSITY: Final = 0.15  # of speckle in its dim parts, beside the former
_SMALLEST: Final = 0.004  # of the image: less is no picture
_LEAP: Final = 48  # levels from a letter's stroke to its ground
_HARDLY_MOVING: Final = 0.02  # of moving speckle: around letters JPEG makes speckle that stands
_DIM_LEAP: Final = 20  # the same of dim letters, as a cine's quiet parts may adjoin
_CALM: Final = 8  # levels within a letter's stroke or ground, at most
_CALM_DENSITY: Final = 0.15
_LETTER_DENSITY: Final = 0.15  # of leaps around a pixel that may belong to a letter
_NONE: Final = 1e-4  # an average over nothing, but for rounding
_ROUNDING: Final = 1e-6  # of a pixel
_COMPANION_MOVING: Final = 0.02  # of the largest patch: smaller ones are no part of the picture
_COMPANION_STILL: Final = 0.25  # in a still, letters can be as dense as speckle


@dataclass(frozen=True, kw_only=True, eq=False)
class Sector:
    """The part of the image that shows the picture, as a half-open box and a mask of its shape.

    ``source``: "region" where a region of the header bounded the search, else "pixels".
    """

    top: int
    left: int
    bottom: int
    right: int
    mask: Mask
    source: Literal["region", "pixels"]


def find_sector(frames: NDArray[np.uint8]) -> Sector:
    """The sector of grey frames.

    Args:
        frames: ``(n, rows, columns)``; a still is one frame.

    Returns:
        The tightest box around the sector, and its mask: convex. Where no picture is seen, the
        box is the whole image and the mask is empty, so that nothing is shown.
    """
    mask = sector_mask(frames)
    return _boxed(mask, 0, 0, "pixels")


def sector_in_box(frames: NDArray[np.uint8], box: tuple[int, int, int, int]) -> Sector:
    """The sector within ``box`` (top, left, bottom, right) of grey frames."""
    top, left, bottom, right = box
    mask = sector_mask(frames[:, top:bottom, left:right])
    return _boxed(mask, top, left, "region")


def whole_box(box: tuple[int, int, int, int]) -> Sector:
    """A sector that is all of ``box``: for spectra and M-modes, which fill theirs."""
    top, left, bottom, right = box
    mask = np.ones((bottom - top, right - left), bool)
    mask.setflags(write=False)
    return Sector(top=top, left=left, bottom=bottom, right=right, mask=mask, source="region")


def probe_indices(frame_count: int) -> tuple[int, ...]:
    """The frames to look at: at most ``PROBES``, spread over the clip."""
    return tuple(dict.fromkeys(np.linspace(0, frame_count - 1, PROBES).astype(int).tolist()))


def sector_mask(frames: NDArray[np.uint8]) -> Mask:
    """The sector's mask, shape ``(rows, columns)``; empty where there is no picture."""
    probes = frames[list(probe_indices(len(frames)))]
    patch = _moving_patch(probes) if len(probes) > 3 else None
    if patch is None:  # a still, a few frames, or a frozen clip
        patch = _still_patch(probes)
    return np.zeros(frames.shape[1:], bool) if patch is None else _hull(patch)


def _moving_patch(probes: NDArray[np.uint8]) -> Mask | None:
    """The picture of a cine: what moves, and the quiet speckle that hangs together with it."""
    background = _background(probes)
    step = _noise(probes, background) + _OVER_NOISE
    speckle = _speckle(probes, background >= step)
    moving = speckle * _moving(probes, step)
    density = _density(moving)
    dense, dim = density > _SEED_DENSITY, density > _DIM_DENSITY
    if _largest(dense, 1.0) is None:
        return None
    patch = _largest(ndimage.binary_propagation(dense, mask=dim), _COMPANION_MOVING)
    if patch is None:
        return None
    patch = _near(patch, moving)
    letters = _density(_letters(probes, _DIM_LEAP).astype(np.float32)) > _NONE
    quiet = (_density(speckle) > _SEED_DENSITY) & (density > _HARDLY_MOVING) & ~letters
    return _near(ndimage.binary_propagation(patch, mask=patch | quiet), speckle)


def _still_patch(probes: NDArray[np.uint8]) -> Mask | None:
    """The picture of a still: the largest patch of speckle that is free of letters."""
    speckle = _speckle(probes, _background(probes) >= _STEP)
    dense = _density(speckle) > _SEED_DENSITY
    patch = _largest(dense & ~_letters(probes, _LEAP), _COMPANION_STILL)
    if patch is None:
        return None
    # The edge of the picture leaps from black to white, too: give it back.
    grown = ndimage.binary_dilation(patch, iterations=_reach(patch.shape) // 2 + 1, mask=dense)
    return _near(grown, speckle)


def _largest(dense: Mask, companion: float) -> Mask | None:
    """The largest patch, with those of at least ``companion`` of its size; None: too small."""
    labels, count = ndimage.label(dense)
    if not count:
        return None
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    if areas.max() < _SMALLEST * dense.size:
        return None
    largest: Mask = (areas >= companion * areas.max())[labels]
    return largest


def _near(patch: Mask, speckle: NDArray[np.float32]) -> Mask:
    """The patch without the margin that averaging gave it."""
    near: Mask = patch & (ndimage.uniform_filter(speckle, 3, mode="constant") > _NONE)
    return near


def _background(probes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """How far each pixel, at its brightest, lies from the commonest level of the screen."""
    brightest = probes.max(axis=0)
    commonest = int(np.bincount(brightest.ravel(), minlength=256).argmax())
    distance: NDArray[np.int16] = np.abs(brightest.astype(np.int16) - commonest)
    return distance


def _noise(probes: NDArray[np.uint8], background: NDArray[np.int16]) -> int:
    """How much the empty screen changes from probe to probe: 0 unless it was digitised."""
    empty = background[::2, ::2] < _STEP
    levels = probes[:, ::2, ::2][:, empty].astype(np.int16)
    counts = np.bincount(np.abs(np.diff(levels, axis=0)).ravel(), minlength=1)
    return min(_MOST_NOISE, int(np.searchsorted(counts.cumsum(), 0.9 * counts.sum())))


def _speckle(probes: NDArray[np.uint8], lit: Mask) -> NDArray[np.float32]:
    """How often each pixel is lit and differs from its neighbours above and to the left."""
    textured = np.zeros(lit.shape, np.uint8)  # there are but a few probes
    for probe in probes:
        textured[1:, 1:] += (probe[1:, 1:] != probe[:-1, 1:]) & (probe[1:, 1:] != probe[1:, :-1])
    # Dim speckle sinks to black in some frames: half of them is enough.
    enough = np.float32(0.5 * len(probes) if len(probes) > 1 else 1.0)
    share = textured.astype(np.float32) / enough
    speckle: NDArray[np.float32] = np.minimum(np.float32(1.0), share) * lit
    return speckle


def _moving(probes: NDArray[np.uint8], step: int) -> Mask:
    """Pixels that change more than once: what changes once is a menu or a text that came."""
    changes = np.zeros(probes.shape[1:], np.uint8)
    for before, after in pairwise(probes):
        changes += np.maximum(before, after) - np.minimum(before, after) >= step
    return changes > 1


def _letters(probes: NDArray[np.uint8], leap: int) -> Mask:
    """Around letters, ticks and frames: strokes that leap from a calm ground and back."""
    level = probes[0].astype(np.int16)
    step = np.zeros(level.shape, np.int16)
    step[1:, 1:] = np.maximum(
        np.abs(level[1:, 1:] - level[:-1, 1:]), np.abs(level[1:, 1:] - level[1:, :-1])
    )
    leaps = _density((step >= leap).astype(np.float32)) > _LETTER_DENSITY
    calm = _density((step <= _CALM).astype(np.float32)) > _CALM_DENSITY
    return leaps & calm


def _density(marks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Marks averaged over a square somewhat larger than a letter's stroke."""
    density: NDArray[np.float32] = ndimage.uniform_filter(
        marks, _reach(marks.shape), mode="constant"
    )
    return density


def _reach(shape: tuple[int, ...]) -> int:
    return max(5, round(min(shape) / 32))


def _hull(patch: Mask) -> Mask:
    """The convex hull of a mask, filled."""
    rows = np.flatnonzero(patch.any(axis=1))
    first = patch.argmax(axis=1)
    last = patch.shape[1] - 1 - patch[:, ::-1].argmax(axis=1)
    left = _lower_envelope(rows, first[rows]) - _ROUNDING
    right = _ROUNDING - _lower_envelope(rows, -last[rows])
    out = np.zeros(patch.shape, bool)
    columns = np.arange(patch.shape[1])
    span = np.arange(rows[0], rows[-1] + 1)
    out[span] = (columns >= left[:, None]) & (columns <= right[:, None])
    return out


def _lower_envelope(rows: NDArray[np.int64], edge: NDArray[np.int64]) -> NDArray[np.float64]:
    """The lower convex envelope of ``edge`` over ``rows``, at every row between the ends."""
    corners: list[tuple[int, int]] = []
    for point in zip(rows.tolist(), edge.tolist(), strict=True):
        while len(corners) > 1 and not _turns(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    at, value = zip(*corners, strict=True)
    envelope: NDArray[np.float64] = np.interp(np.arange(rows[0], rows[-1] + 1), at, value)
    return envelope


def _turns(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0


def _boxed(mask: Mask, top: int, left: int, source: Literal["region", "pixels"]) -> Sector:
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        first, last, start, end = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    else:
        first, last, start, end = 0, mask.shape[0], 0, mask.shape[1]
    tight = mask[first:last, start:end].copy()
    tight.setflags(write=False)
    return Sector(
        top=int(top + first),
        left=int(left + start),
        bottom=int(top + last),
        right=int(left + end),
        mask=tight,
        source=source,
    )
