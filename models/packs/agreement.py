"""Whether a stored pack answers as the network that was trained: float16 against float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.packs.loading import Pack
from models.packs.manifest import PackKind

if TYPE_CHECKING:
    import keras

_BATCH = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far two networks' raw answers to the same inputs are apart.

    ``largest`` and ``mean`` are absolute differences of the raw numbers; ``by_output`` the largest
    for each number on the last axis. ``same_class`` is the share of inputs, for a tracing of
    pixels, whose likeliest class is the same; None for a regression, which has no classes.
    """

    inputs: int
    largest: float
    mean: float
    by_output: tuple[float, ...]
    same_class: float | None

    def as_figures(self) -> dict[str, Any]:
        """For an evaluation report: rounded to what is worth reading."""
        figures = {
            "inputs": self.inputs,
            "largest_difference": float(f"{self.largest:.3g}"),
            "mean_difference": float(f"{self.mean:.3g}"),
        }
        if self.same_class is not None:
            figures["same_class"] = round(self.same_class, 6)
        return figures


def agree(network: keras.Model, pack: Pack, inputs: NDArray[np.float32]) -> Agreement:
    """Compare a trained network with the pack that was written from it.

    Parameters
    ----------
    network
        As trained, (n, rows, columns, 1) in; of ECGs (n, samples, leads).
    inputs
        What the network takes, float32, prepared as the pack says: pictures, or recordings, of
        the kind that it is for, since noise alone tells little.

    Raises
    ------
    ValueError
        If there are no inputs.
    PackError
        If the pack's network cannot be built.
    """
    if not len(inputs):
        raise ValueError("no inputs to compare answers on")
    largest, total, same, count, places = np.zeros(1), 0.0, 0, 0, 0
    for begin in range(0, len(inputs), _BATCH):
        part = inputs[begin : begin + _BATCH]
        one, two = (
            np.asarray(each(part, training=False), np.float64) for each in (network, pack.network)
        )
        apart = np.abs(one - two)
        largest = np.maximum(largest, apart.reshape(-1, apart.shape[-1]).max(axis=0))
        total += float(apart.sum())
        count += apart.size
        agreed = one.argmax(axis=-1) == two.argmax(axis=-1)
        same += int(agreed.sum())
        places += agreed.size
    classes = pack.manifest.kind in (PackKind.VIEW, PackKind.TRACING)
    return Agreement(
        inputs=len(inputs),
        largest=float(largest.max()),
        mean=total / count,
        by_output=tuple(float(each) for each in largest),
        same_class=same / places if classes else None,
    )
