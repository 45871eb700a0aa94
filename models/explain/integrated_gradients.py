"""Integrated gradients: what each pixel adds on the way from no structure to the picture.

Sundararajan et al. 2017 (arXiv:1703.01365): the gradient along the straight line from a baseline
to the input, times their difference. The baseline is the blurred sector
(:mod:`models.explain.sector`), not black: black is the blood of a chamber, and would count as
nothing. The parts add up to what the number of the picture has over the number of the baseline; how
nearly they do is given with them, and steps are added until they do so within 1 %, or there are too
many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.explain.gradient import gradient_step
from models.explain.sector import blurred
from models.explain.target import BATCH, Explained, numbers_of

if TYPE_CHECKING:
    import keras

FEWEST_STEPS, MOST_STEPS = 16, 256
TOLERANCE = 0.01
"""The parts may miss the difference by this share of it."""

_LEAST_SHARE = 0.1  # of the frames' mean difference: below it a frame's own is as good as nothing


@dataclass(frozen=True, kw_only=True)
class Integrated:
    """Maps, (outputs, n, rows, columns), signed, in units of the output.

    ``gaps`` (outputs, n) is by how much the parts miss the difference between picture and
    baseline, as a share of that; ``steps`` (n,) how many gradients it took.
    """

    maps: NDArray[np.float32]
    gaps: NDArray[np.float64]
    steps: NDArray[np.int64]


def integrated_gradients(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    *,
    baseline: NDArray[np.float32] | None = None,
    sector: NDArray[np.bool_] | None = None,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """The maps of :func:`integrate` alone: (outputs, n, rows, columns) float32, signed."""
    return integrate(network, inputs, outputs, baseline=baseline, sector=sector, batch=batch).maps


def integrate(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    *,
    baseline: NDArray[np.float32] | None = None,
    sector: NDArray[np.bool_] | None = None,
    tolerance: float = TOLERANCE,
    most_steps: int = MOST_STEPS,
    batch: int = BATCH,
) -> Integrated:
    """Integrated gradients with their completeness.

    Parameters
    ----------
    network
        (n, rows, columns, 1) to (n, numbers); run in inference mode.
    inputs
        (n, rows, columns, 1), normalised as the network wants them.
    outputs
        Which numbers.
    baseline
        Of the inputs' shape; the blurred ``sector`` where None.
    tolerance
        The steps are doubled until every output's gap is within it, or they are ``most_steps``.
    """
    base = blurred(inputs, sector) if baseline is None else baseline
    if base.shape != inputs.shape:
        raise ValueError(f"baseline {base.shape} and inputs {inputs.shape} do not fit")
    chosen = list(outputs)
    change = (
        (numbers_of(network, inputs, batch=batch) - numbers_of(network, base, batch=batch))
        .T[chosen]
        .astype(np.float64)
    )
    size = np.maximum(np.abs(change), _LEAST_SHARE * np.abs(change).mean(axis=1, keepdims=True))
    size = np.maximum(size, 1e-12)
    maps = np.zeros((len(chosen), *inputs.shape[:3]), np.float32)
    gaps = np.full(change.shape, np.inf)
    taken = np.zeros(len(inputs), np.int64)
    steps = min(FEWEST_STEPS, most_steps)
    left = np.arange(len(inputs))
    while len(left):
        mean = _mean_on_the_way(network, inputs[left], base[left], chosen, steps, batch)
        maps[:, left] = mean * (inputs[left] - base[left])[..., 0]
        sums = maps[:, left].sum(axis=(2, 3), dtype=np.float64)
        gaps[:, left] = np.abs(sums - change[:, left]) / size[:, left]
        taken[left] = steps
        left = left[(gaps[:, left] > tolerance).any(axis=0)]
        steps *= 2
        if steps > most_steps:
            break
    return Integrated(maps=maps, gaps=gaps, steps=taken)


def _mean_on_the_way(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    base: NDArray[np.float32],
    outputs: Sequence[int],
    steps: int,
    batch: int,
) -> NDArray[np.float32]:
    """The mean gradient over the middles of ``steps`` equal parts of the line."""
    step = gradient_step(network, tuple(outputs), (batch, *inputs.shape[1:]), signed=True)
    shares = (np.arange(steps, dtype=np.float32) + np.float32(0.5)) / np.float32(steps)
    pairs = [(frame, part) for frame in range(len(inputs)) for part in range(steps)]
    total = np.zeros((len(outputs), *inputs.shape[:3]), np.float64)
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        frames, places = np.array(part + part[-1:] * (batch - len(part))).T
        way = shares[places].reshape(-1, 1, 1, 1)
        maps = step(base[frames] + way * (inputs[frames] - base[frames])).numpy()
        for place, (frame, _) in enumerate(part):
            total[:, frame] += maps[:, place]
    return np.asarray(total / steps, np.float32)
