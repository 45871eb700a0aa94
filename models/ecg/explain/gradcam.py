"""Grad-CAM on the last residual block: which moments count for a number, not in which lead.

Selvaraju et al. 2017 (arXiv:1610.02391), as ECGradCAM does it (Hicks et al. 2021, Scientific
Reports 11:10949): the channels of the last block's activations, each weighted by the mean of the
number's gradient on it, summed, negative parts dropped, stretched to the signal. The block has lost
the leads, so that its map is the same for each of them; and it says only what raises the number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ecg.explain.gradients import BATCH
from models.explain.target import ExplainError, in_batches
from models.networks import LAST_BLOCK
from models.threads import side_by_side


def gradcam(
    network: Callable[..., Any], inputs: NDArray[np.float32], output: int
) -> NDArray[np.float32]:
    """(n, samples, leads), never negative, the same for each lead, of no unit.

    Raises
    ------
    ExplainError
        If the network has no layer named :data:`models.networks.LAST_BLOCK`.
    """
    step = _compiled(network, output, (BATCH, *inputs.shape[1:]))

    def maps(some: tuple[NDArray[np.int64], int]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = step(inputs[some[0]]).numpy()[: some[1]]
        return found

    coarse = np.concatenate([*side_by_side(maps, in_batches(len(inputs), BATCH))])
    samples = inputs.shape[1]
    # Each of the coarse moments stands for a stretch of the signal, and lies in its middle.
    middles = (np.arange(coarse.shape[1]) + 0.5) * samples / coarse.shape[1] - 0.5
    fine = np.stack([np.interp(np.arange(samples), middles, one) for one in coarse])
    return np.repeat(fine[..., np.newaxis], inputs.shape[2], axis=-1).astype(np.float32)


@lru_cache(maxsize=16)
def _compiled(
    network: Callable[..., Any], output: int, shape: tuple[int, ...]
) -> Callable[[NDArray[np.float32]], Any]:
    import keras
    import tensorflow as tf

    from models.networks.graph import graph

    named = [layer for layer in getattr(network, "layers", ()) if layer.name == LAST_BLOCK]
    if not isinstance(network, keras.Model) or not named:
        raise ExplainError(
            f"Grad-CAM looks at the layer named {LAST_BLOCK!r}, and this network shows none; take "
            "another method"
        )
    seen = keras.Model(network.inputs, [named[-1].output, network.outputs[0]])

    def step(inputs: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            found, numbers = seen(inputs, training=False)
            total = tf.reduce_sum(numbers[:, output])
        weights = tf.reduce_mean(tape.gradient(total, found), axis=1, keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * found, axis=-1))

    return graph(step, shape)
