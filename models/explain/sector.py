"""The sector in a network's input: where it lies, how it looks blurred, what lies outside it.

A network is asked what it would say without a piece of the picture. Black is no absence: a black
patch is an edge and a cavity to a network. So a piece is replaced by the same place of the blurred
sector, which has the brightness of its surroundings and no structure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.clip import Clip
from models.packs import InputSpec
from models.preprocess import fit_grey

Mask = NDArray[np.bool_]

BLUR = 0.15
"""Standard deviation of the blur as a share of the rows: a ventricle's width, about."""

EDGE = 0.03
"""A margin around the sector that still belongs to it, as a share of the rows: what a network says
of the sector's edge it says by pixels on both sides, and a convolution reaches some pixels far."""


def sector_of(inputs: NDArray[np.float32]) -> Mask:
    """(rows, columns): pixels of (n, rows, columns, 1) that are not the darkest in some frame."""
    return np.asarray(np.any(inputs[..., 0] > inputs.min(), axis=0))


def sector_in_network(clip: Clip, spec: InputSpec) -> Mask:
    """(spec.rows, spec.columns): where a network's input shows the clip's sector."""
    mask = clip.sector.mask[np.newaxis].astype(np.uint8) * 255
    return np.asarray(fit_grey(mask, spec)[0][0] > 127)


def blurred(inputs: NDArray[np.float32], sector: Mask | None = None) -> NDArray[np.float32]:
    """Each frame with its sector blurred, as if nothing outside it were there.

    Parameters
    ----------
    inputs
        (n, rows, columns, 1), normalised.
    sector
        (rows, columns); found in ``inputs`` where None. Pixels outside it are kept as they are.
    """
    sector = sector_of(inputs) if sector is None else sector
    sigma = BLUR * inputs.shape[1]
    weight = ndimage.gaussian_filter(sector.astype(np.float32), sigma, mode="constant")
    out = inputs.copy()
    if not sector.any():
        return out
    for frame in out[..., 0]:
        smooth = ndimage.gaussian_filter(np.where(sector, frame, 0), sigma, mode="constant")
        frame[sector] = smooth[sector] / weight[sector]
    return out


def outside_shares(maps: NDArray[np.float32], sector: Mask) -> NDArray[np.float64]:
    """How much of the relevance lies outside the sector, as a share of all.

    Parameters
    ----------
    maps
        (outputs, n, rows, columns); of signed ones the absolute value counts.
    sector
        (rows, columns) in network coordinates; a margin of :data:`EDGE` around it counts as it.

    Returns
    -------
    (outputs,) from 0 to 1, over all frames together; 0 where a map is zero everywhere.
    """
    near = within_reach(sector)
    strength = np.abs(maps.astype(np.float64))
    whole = strength.sum(axis=(1, 2, 3))
    outside = strength[:, :, ~near].sum(axis=(1, 2))
    return np.asarray(np.divide(outside, whole, out=np.zeros_like(whole), where=whole > 0))


def within_reach(sector: Mask) -> Mask:
    """The sector and the margin around it."""
    if not sector.any():
        return np.zeros_like(sector)
    away = ndimage.distance_transform_edt(~sector)
    return np.asarray(away <= EDGE * sector.shape[0])
