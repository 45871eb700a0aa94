"""Signed gradients of an ECG's network: plain, smoothed, and integrated from a flat line.

The gradient is by how much a number rises for a millivolt more at a sample. SmoothGrad (Smilkov et
al. 2017, arXiv:1706.03825) is its mean over noisy copies. Integrated gradients (Sundararajan et al.
2017, arXiv:1703.01365) are each sample's part of what the number has over that of the baseline: the
isoelectric line, zero in every lead, which is what a heart without voltage would write, and what
recordings are padded with. Steps along the way are added as in
:mod:`models.explain.integrated_gradients`, until the parts add up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.explain.gradient import gradient_step
from models.explain.integrated_gradients import Integrated, integrate
from models.explain.target import in_batches
from models.threads import side_by_side

BATCH = 5
"""Recordings that go through a network at once: this bounds the memory."""

SAMPLES = 20
"""Noisy copies of a recording."""

SIGMA = 0.1
"""Standard deviation of the noise as a share of the recording's own: some 20 µV, as much as muscles
add on a quiet day. With the 10 to 20 % of the range that suits pictures P waves would drown."""

SEED = 20221103


class AsPicture:
    """A network of ECGs that takes (n, samples, leads, 1), as the methods of pictures give it.

    Compared and hashed by identity, so that what is compiled for it is found again.
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        self._network = network

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        """(n, numbers), differentiable by TensorFlow."""
        if hasattr(self._network, "layers"):
            return self._network(inputs[..., 0], training=training)
        return self._network(inputs[..., 0])


@lru_cache(maxsize=8)
def as_picture(network: Callable[..., Any]) -> AsPicture:
    """The network with a last axis of one; the same for the same network."""
    return AsPicture(network)


def gradient(
    network: Callable[..., Any], inputs: NDArray[np.float32], output: int
) -> NDArray[np.float32]:
    """dF/dx, signed, (n, samples, leads): change of the number per mV."""
    return smoothgrad(network, inputs, output, samples=1, sigma=0.0)


def smoothgrad(
    network: Callable[..., Any],
    inputs: NDArray[np.float32],
    output: int,
    *,
    samples: int = SAMPLES,
    sigma: float = SIGMA,
    seed: int = SEED,
) -> NDArray[np.float32]:
    """The mean of dF/dx over noisy copies, signed, (n, samples, leads).

    The same seed gives the same noise, whatever the batch. Padding, zero in every lead, stays so.

    Raises
    ------
    ValueError
        If there are no samples, or the noise is negative.
    """
    if samples < 1 or sigma < 0:
        raise ValueError(f"samples must be at least 1 and sigma not negative: {samples}, {sigma}")
    step = gradient_step(as_picture(network), (output,), (BATCH, *inputs.shape[1:], 1))
    draws = _noise((samples, *inputs.shape[1:]), seed) if sigma > 0 else np.zeros(samples)
    spreads = [_spread(one) * sigma for one in inputs]
    total = np.zeros(inputs.shape, np.float32)

    def slopes(
        some: tuple[NDArray[np.int64], int],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ones, copies = np.divmod(some[0], samples)
        noisy = [
            inputs[one] + (inputs[one].any(axis=-1, keepdims=True) * spreads[one]) * draws[copy]
            for one, copy in zip(ones, copies, strict=True)
        ]
        found = step(np.stack(noisy).astype(np.float32)[..., np.newaxis])[0].numpy()[0]
        return ones[: some[1]], found[: some[1]]

    for ones, found in side_by_side(slopes, in_batches(len(inputs) * samples, BATCH)):
        for one, slope in zip(ones, found, strict=True):
            total[one] += slope
    total /= samples
    return total


def integrated(
    network: Callable[..., Any], inputs: NDArray[np.float32], outputs: tuple[int, ...]
) -> Integrated:
    """Integrated gradients from the isoelectric line, with their completeness.

    ``maps`` are (outputs, n, samples, leads), in units of the number.
    """
    pictures = inputs[..., np.newaxis]
    return integrate(
        as_picture(network),
        pictures,
        outputs,
        baseline=np.zeros_like(pictures),
        batch=BATCH,
    )


def _spread(one: NDArray[np.float32]) -> float:
    """The standard deviation of a recording (samples, leads) without its padding, mV."""
    there = one.any(axis=-1)
    return float(one[there].std()) if there.any() else 0.0


def _noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    # Stateless: the same on every machine.
    import tensorflow as tf

    draws: NDArray[np.float32] = tf.random.stateless_normal(shape, seed=(seed, 0)).numpy()
    return draws
