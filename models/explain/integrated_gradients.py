"""Integrated gradients: what each pixel adds on the way from no structure to the picture.

Sundararajan et al. 2017 (arXiv:1703.01365): the gradient along the straight line from a baseline
to the input, times their difference. The baseline is the blurred sector
(:mod:`models.explain.sector`), not black: black is the blood of a chamber, and would count as
nothing. The parts add up to what the number of the picture has over the number of the baseline; how
nearly they do is given with them.

A network of ReLUs has kinks: its gradient jumps along the line, and equal steps miss the jumps.
But the number at both ends of each step is known, so it is known where the parts miss it: there
the steps are halved, until all parts together miss by 1 % or less, or there are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.explain.gradient import gradient_step
from models.explain.sector import blurred
from models.explain.target import BATCH, Explained, in_batches

if TYPE_CHECKING:
    import keras

FEWEST_STEPS, MOST_STEPS = 20, 250
"""Gradients along the line. All of a frame's are in memory at once: 250 of three outputs at 192 x
192 are 110 MB."""

TOLERANCE = 0.01
"""How much of a number's way the parts may miss.

The way is how far the number goes from baseline to picture, up and down together. Where it goes
straight that is the difference of both ends. Where it goes up and comes down again, the difference
may be as good as nothing while the parts describe the whole way, and a share of it would say
nothing of them."""


@dataclass(frozen=True, kw_only=True)
class Integrated:
    """Maps, (outputs, n, rows, columns), signed, in units of the output.

    ``gaps`` (outputs, n) is by how much the parts miss the difference between picture and
    baseline, as a share of the way between them, see :data:`TOLERANCE`. Errors of single steps
    that happen to cancel are not taken for none: it is at least the root of the sum of their
    squares. ``straight`` (outputs, n) is the difference as a share of the way, 0 to 1, and
    ``steps`` (n,) how many gradients it took.
    """

    maps: NDArray[np.float32]
    gaps: NDArray[np.float64]
    straight: NDArray[np.float64]
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
    """The maps of :func:`integrate` alone."""
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

    As :func:`models.explain.methods.map_of`, and besides:

    Parameters
    ----------
    baseline
        Of the inputs' shape; the blurred ``sector`` where None.
    tolerance
        Steps are added until every output's gap is within it, or they are ``most_steps``, of
        which there are at least two.
    """
    base = blurred(inputs, sector) if baseline is None else baseline
    if base.shape != inputs.shape:
        raise ValueError(f"baseline {base.shape} and inputs {inputs.shape} do not fit")
    step = gradient_step(network, tuple(outputs), (batch, *inputs.shape[1:]))
    maps = np.zeros((len(outputs), *inputs.shape[:3]), np.float32)
    gaps, straight = np.zeros((2, len(outputs), len(inputs)))
    taken = np.zeros(len(inputs), np.int64)
    for place, (start, end) in enumerate(zip(base, inputs, strict=True)):
        line = _Line(step, start, end, batch)
        line.add(np.linspace(0, 1, min(FEWEST_STEPS, most_steps)))
        while (line.gaps() > tolerance).any() and len(line.places) < most_steps:
            line.add(line.worst(min(batch, most_steps - len(line.places))))
        maps[:, place], taken[place] = line.parts(), len(line.places)
        gaps[:, place], straight[:, place] = line.gaps(), line.straight()
    return Integrated(maps=maps, gaps=gaps, straight=straight, steps=taken)


class _Line:
    """Gradients and numbers at places, 0 to 1, of the line from a baseline to a frame."""

    def __init__(
        self,
        step: Callable[[NDArray[np.float32]], Any],
        start: NDArray[np.float32],
        end: NDArray[np.float32],
        batch: int,
    ) -> None:
        self._step, self._start, self._change, self._batch = step, start, end - start, batch
        self.places = np.zeros(0)
        self._order = np.zeros(0, np.int64)
        self._gradients: list[NDArray[np.float32]] = []  # (outputs, rows, columns) each
        self._slopes: list[NDArray[np.float64]] = []  # (outputs,): of the number along the line
        self._numbers: list[NDArray[np.float64]] = []

    def add(self, places: NDArray[np.float64]) -> None:
        """Ask the network at more places."""
        for some, real in in_batches(len(places), self._batch):
            way = places[some].astype(np.float32).reshape(-1, 1, 1, 1)
            gradients, numbers = (
                one.numpy() for one in self._step(self._start + way * self._change)
            )
            for place in range(real):
                one = gradients[:, place]
                self._gradients.append(one)
                self._slopes.append((one * self._change[..., 0]).sum(axis=(1, 2), dtype=np.float64))
                self._numbers.append(numbers[:, place].astype(np.float64))
        self.places = np.concatenate([self.places, places])
        self._order = np.argsort(self.places)

    def worst(self, count: int) -> NDArray[np.float64]:
        """The middles of those steps whose parts miss the step's own difference most."""
        order = np.argsort(-(np.abs(self._missed()) / self._way()).max(axis=1))[:count]
        places = self.places[self._order]
        return np.asarray((places[order] + places[order + 1]) / 2)

    def gaps(self) -> NDArray[np.float64]:
        """(outputs,): see :class:`Integrated`."""
        missed = self._missed()
        by_chance = np.sqrt((missed**2).sum(axis=0))
        return np.asarray(np.maximum(np.abs(missed.sum(axis=0)), by_chance) / self._way())

    def straight(self) -> NDArray[np.float64]:
        """(outputs,): the difference as a share of the way."""
        numbers = self._sorted()
        return np.asarray(np.abs(numbers[-1] - numbers[0]) / self._way())

    def parts(self) -> NDArray[np.float32]:
        """(outputs, rows, columns): the mean gradient, by the trapezium rule, times the change."""
        widths = np.diff(self.places[self._order])
        weights = np.zeros(len(self.places))
        weights[self._order[:-1]] += widths / 2
        weights[self._order[1:]] += widths / 2
        mean = np.zeros(self._gradients[0].shape)
        for weight, gradient in zip(weights, self._gradients, strict=True):
            mean += weight * gradient
        return np.asarray(mean * self._change[..., 0], np.float32)

    def _missed(self) -> NDArray[np.float64]:
        """(steps, outputs): the parts of each step less its difference."""
        slopes = np.stack(self._slopes)[self._order]
        widths = np.diff(self.places[self._order])[:, np.newaxis]
        return np.asarray(widths * (slopes[1:] + slopes[:-1]) / 2 - np.diff(self._sorted(), axis=0))

    def _way(self) -> NDArray[np.float64]:
        numbers = self._sorted()
        least = 1e-6 * np.maximum(1.0, np.abs(numbers).max(axis=0))  # what float32 cannot tell
        return np.asarray(np.maximum(np.abs(np.diff(numbers, axis=0)).sum(axis=0), least))

    def _sorted(self) -> NDArray[np.float64]:
        return np.stack(self._numbers)[self._order]
