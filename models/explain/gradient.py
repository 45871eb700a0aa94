"""The plain gradient: how strongly each pixel moves an output.

|dF/dx|, the absolute derivative of an output by the input's pixels (Simonyan et al. 2014,
arXiv:1312.6034). :mod:`models.explain.smoothgrad` averages it over noisy copies; both go through
:func:`mean_gradient`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.explain.target import BATCH, Explained, in_batches
from models.packs.prepared import compiled
from models.threads import side_by_side

if TYPE_CHECKING:
    import keras


def input_gradient(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    *,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """|dF/dx|, never negative, in units of the output per unit of input.

    Parameters and shapes are those of :func:`models.explain.methods.map_of`.
    """
    no_noise = np.zeros((1, *inputs.shape[1:]), np.float32)
    return mean_gradient(network, inputs, no_noise, outputs, batch=batch)


def mean_gradient(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    noise: NDArray[np.float32],
    outputs: Sequence[int],
    *,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """The mean of |dF/dx| over ``inputs + noise[0], inputs + noise[1], ...``.

    Frames and noise samples share the batches, so that few frames with many samples run as
    fast as many frames with few. ``noise`` is (samples, rows, columns, 1), the same for every
    frame; else as :func:`models.explain.methods.map_of`.
    """
    if inputs.ndim != 4 or noise.shape[1:] != inputs.shape[1:] or not len(noise):
        raise ValueError(f"inputs {inputs.shape} and noise {noise.shape} do not fit")
    step = gradient_step(network, tuple(outputs), (batch, *inputs.shape[1:]))
    total = np.zeros((len(outputs), *inputs.shape[:3]), np.float32)

    def strengths(
        some: tuple[NDArray[np.int64], int],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        frames, draws = np.divmod(some[0], len(noise))
        maps = step(inputs[frames] + noise[draws])[0].numpy()
        return frames[: some[1]], np.abs(maps)

    for frames, maps in side_by_side(strengths, in_batches(len(inputs) * len(noise), batch)):
        for place, frame in enumerate(frames):
            total[:, frame] += maps[:, place]
    total /= len(noise)
    return total


@lru_cache(maxsize=8)
def gradient_step(
    network: keras.Model | Explained, outputs: tuple[int, ...], shape: tuple[int, ...]
) -> Callable[[NDArray[np.float32]], Any]:
    """One graph that gives dF/dx, (outputs, n, rows, columns), and F, (outputs, n), of a batch.

    In inference mode no input of a batch touches another, so the gradient of an output's sum is
    each input's own gradient. One forward pass serves all outputs: with Inception-ResNet-v1 at
    half width, 160 x 160, three outputs cost 35 ms a frame so, against 60 ms one by one.
    Whatever takes gradients goes through this, so that a network is compiled once for them all.
    """
    import tensorflow as tf

    kin = {output: _kin(network, output, outputs) for output in outputs}

    def step(inputs: Any) -> Any:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            numbers = network(inputs, training=False)
            sums = {o: tf.reduce_sum(numbers[:, o]) for o, other in kin.items() if other is None}
        found = {
            output: tape.gradient(total, inputs, unconnected_gradients="zero")[..., 0]
            for output, total in sums.items()
        }
        for output, other in kin.items():
            if other is not None and isinstance(network, Explained):
                factor = network.factor(output, numbers)
                found[output] = found[other] * factor[:, tf.newaxis, tf.newaxis]
        gradients = tf.stack([found[output] for output in outputs])
        return gradients, tf.gather(tf.transpose(numbers), outputs)

    if not isinstance(network, Explained):
        return compiled(None, "", lambda: step, shape)

    def built() -> Callable[[Any], Any]:
        network.build()
        return step

    return compiled(network.prepared, f"gradient {outputs}", built, shape)


def _kin(network: keras.Model | Explained, output: int, outputs: Sequence[int]) -> int | None:
    """Another output that the gradient of this one follows from, so that nothing is gone back."""
    kin = network.kin(output) if isinstance(network, Explained) else None
    return kin if kin in outputs else None
