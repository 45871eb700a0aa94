"""Grad-CAM: which of the last features count for an output, and where they lie.

Selvaraju et al. 2017 (arXiv:1610.02391): the channels of a layer, each weighted by the mean of the
output's gradient on it, summed, negative parts dropped, enlarged to the picture. For tracings it is
that of Vinogradova et al. 2020 (arXiv:2002.11434), with the structure's size as the output.

The layer is found by one rule, for networks of ours and from outside: among activations of the
coarsest grid of at least 3 x 3 before any pooling to it, the last one. In Inception-ResNet-v1 that
is the last block, 8 x 8 at 299; in the view network the last pair of convolutions; in a U-Net the
lowest level, since its last layer has the resolution of the picture and shows the answer itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.explain.target import BATCH, Explained, ExplainError, in_batches

if TYPE_CHECKING:
    import keras

_LEAST_SIDE = 3


def gradcam(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    *,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """Where features lie that raise the output: never negative, of no unit, to be compared within
    a map. Parameters and shapes are those of :func:`models.explain.methods.map_of`.

    Raises
    ------
    ExplainError
        If the network shows no such layer, as a SavedModel's does not.
    """
    step = _compiled(network, tuple(outputs), (batch, *inputs.shape[1:]))
    rows, columns = inputs.shape[1:3]
    out = np.zeros((len(outputs), *inputs.shape[:3]), np.float32)
    for places, real in in_batches(len(inputs), batch):
        for output, of_output in enumerate(step(inputs[places]).numpy()):
            for place, small in zip(places[:real], of_output, strict=False):
                image = Image.fromarray(np.ascontiguousarray(small, np.float32))
                out[output, place] = image.resize((columns, rows), Image.Resampling.BICUBIC)
    return np.maximum(out, 0.0)


@lru_cache(maxsize=8)
def _compiled(
    network: keras.Model | Explained, outputs: tuple[int, ...], shape: tuple[int, ...]
) -> Callable[[NDArray[np.float32]], Any]:
    import keras
    import tensorflow as tf

    from models.networks.graph import graph

    inner = network.network if isinstance(network, Explained) else network
    layers = features(inner)
    seen = keras.Model(layers[0], layers[1:])
    grid = layers[1].shape[1:3]

    def step(inputs: Any) -> Any:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            *found, raw = seen(inputs, training=False)
            numbers = network.numbers(raw) if isinstance(network, Explained) else raw
            sums = [tf.reduce_sum(numbers[:, output]) for output in outputs]
        maps = []
        for total in sums:
            parts = []
            for values in found:
                weights = tf.reduce_mean(tape.gradient(total, values), axis=(1, 2), keepdims=True)
                part = tf.nn.relu(tf.reduce_sum(weights * values, axis=-1))
                if part.shape[1:] != grid:
                    part = tf.image.resize(part[..., tf.newaxis], grid)[..., 0]
                parts.append(part)
            maps.append(tf.add_n(parts) / len(parts))
        return tf.stack(maps)

    return graph(step, shape)


def features(network: keras.Model) -> list[Any]:
    """A network laid open: its input, the activations that Grad-CAM looks at, its output.

    Of networks that stand side by side in one (an ensemble) each has its own activation.

    Raises
    ------
    ExplainError
        If it has none, or does not show its layers.
    """
    found: list[Any] = []
    flat = _laid_open(network, found)
    if not found:
        raise ExplainError(
            "Grad-CAM needs the network's layers, and this one shows none with a picture of "
            f"features of at least {_LEAST_SIDE} x {_LEAST_SIDE}; take another method"
        )
    return [flat.inputs[0], *found, flat.outputs[0]]


def _laid_open(network: keras.Model, found: list[Any], inputs: Any = None) -> keras.Model:
    """The same layers with the same weights in one graph; the activations come into ``found``."""
    import keras

    if not getattr(network, "layers", None) or not hasattr(network, "operations"):
        raise ExplainError("Grad-CAM needs a network whose layers are known")
    own: list[Any] = []
    before = len(found)

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model) and layer.layers:
            return _laid_open(layer, found, arguments[0]).outputs[0]
        values = layer(*arguments, **options)
        if _is_picture(values) and "Pooling" not in type(layer).__name__:
            own.append(values)
        return values

    flat = keras.models.clone_model(
        network, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call
    )
    if len(found) == before and own:
        coarsest = min(values.shape[1] * values.shape[2] for values in own)
        found.append([v for v in own if v.shape[1] * v.shape[2] == coarsest][-1])
    return flat


def _is_picture(values: Any) -> bool:
    shape = getattr(values, "shape", ())
    return len(shape) == 4 and None not in shape[1:3] and min(shape[1:3]) >= _LEAST_SIDE
