"""Occlusion: what a network's number loses when a patch of the picture is covered.

Zeiler and Fergus 2014. The patch is replaced by the same place of the blurred sector, never by
black (:mod:`models.explain.sector`). This asks the network itself and trusts no gradient, and costs
a run for each patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.explain.sector import blurred, sector_of
from models.explain.target import BATCH, Explained, in_batches, numbers_of

if TYPE_CHECKING:
    import keras

PATCH = 0.1
"""Side of a patch as a share of the rows; patches overlap by half."""


def occlusion(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    *,
    patch: int | None = None,
    baseline: NDArray[np.float32] | None = None,
    sector: NDArray[np.bool_] | None = None,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """What each place carries: signed, in units of the output.

    By how much the output falls when a patch over the pixel is covered, the mean over all patches
    that cover it. As :func:`models.explain.methods.map_of`, and besides:

    Parameters
    ----------
    patch
        Side of a patch in pixels; None: :data:`PATCH`.
    baseline
        What a patch is replaced by, of the inputs' shape; the blurred sector where None.
    sector
        Patches that touch it are tried, and no others.
    """
    sector = sector_of(inputs) if sector is None else sector
    base = blurred(inputs, sector) if baseline is None else baseline
    if base.shape != inputs.shape:
        raise ValueError(f"baseline {base.shape} and inputs {inputs.shape} do not fit")
    rows, columns = inputs.shape[1:3]
    side = max(1, round(PATCH * rows)) if patch is None else patch
    if side < 1:
        raise ValueError(f"a patch of {side} pixels covers nothing")
    patches = _patches(rows, columns, side, sector)
    chosen = list(outputs)
    whole = numbers_of(network, inputs, batch=batch)[:, chosen]
    total = np.zeros((len(chosen), *inputs.shape[:3]), np.float64)
    count = np.zeros((rows, columns), np.float64)
    for window in patches:
        count[window] += 1
    pairs = [(frame, window) for frame in range(len(inputs)) for window in patches]
    for places, real in in_batches(len(pairs), batch):
        part = [pairs[place] for place in places]
        covered = inputs[[frame for frame, _ in part]]
        for place, (frame, window) in enumerate(part):
            covered[place][window] = base[frame][window]
        numbers = numbers_of(network, covered, batch=batch)[:, chosen]
        for place, (frame, window) in enumerate(part[:real]):
            total[(slice(None), frame, *window)] += (whole[frame] - numbers[place])[:, None, None]
    return np.asarray(total / np.maximum(count, 1), np.float32)


def _patches(
    rows: int, columns: int, side: int, sector: NDArray[np.bool_]
) -> list[tuple[slice, slice]]:
    """Windows half a side apart, the last ones flush with the edge, that touch the sector."""
    found = []
    for top in _starts(rows, side):
        for left in _starts(columns, side):
            window = np.s_[top : top + side, left : left + side]
            if sector[window].any():
                found.append(window)
    return found


def _starts(length: int, side: int) -> list[int]:
    last = max(0, length - side)
    return sorted({*range(0, last, max(1, side // 2)), last})
