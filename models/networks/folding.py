"""A trained network as it runs: batch normalisation folded away, the weights constants.

In inference a batch normalisation multiplies each channel by one number and adds another, and the
convolution before it can do both by itself: its kernel times the one, its bias plus the other. And
weights that are constants of a graph, not variables, let TensorFlow prepare them once, and join
convolution, bias and activation. Both compute the same but for float32's rounding, in fewer passes
over memory: docs/benchmarks.md has what that brings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

MOST_CONSTANT_BYTES = 512 << 20
"""Of weights: a graph with more than 2 GiB of constants cannot be made, and is copied at times."""


def settled(network: keras.Model) -> Callable[[Any], Any]:
    """The network in inference mode with the weights that it has now: tensor in, tensor out.

    Weights that change later change nothing of it. To be called inside a ``tf.function``.
    """
    import tensorflow as tf

    plain = folded(network)
    weights = [
        [np.asarray(variable.numpy()) for variable in variables]
        for variables in (plain.trainable_variables, plain.non_trainable_variables)
    ]
    if sum(one.nbytes for several in weights for one in several) > MOST_CONSTANT_BYTES:
        return lambda inputs: plain(inputs, training=False)

    def run(inputs: Any) -> Any:
        trained, other = ([tf.constant(one) for one in several] for several in weights)
        return plain.stateless_call(trained, other, inputs, training=False)[0]

    return run


def folded(network: keras.Model) -> keras.Model:
    """The network without the batch normalisation that follows a convolution or a dense layer.

    It shares what other weights it has with the given network, which stays as it is. For inference
    alone. What shows no graph of layers (a SavedModel, a network of windows) is returned as it is.
    """
    import keras

    if isinstance(network, keras.Sequential) or not hasattr(network, "operations"):
        return network
    if network.compiled:  # a copy would be compiled, too, and may not find its loss
        network = keras.Model(network.input, network.output, name=network.name)
    before: dict[int, tuple[Any, Any, Any]] = {}  # what gave a tensor, of what, and the tensor

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model):
            return folded(layer)(*arguments, **options)
        if isinstance(layer, keras.layers.BatchNormalization) and id(arguments[0]) in before:
            linear, inputs, _ = before[id(arguments[0])]
            if layer.axis in (-1, len(arguments[0].shape) - 1):
                return _joined(linear, layer, inputs)  # the plain one is left out where unused
        given = layer(*arguments, **options)
        if _is_linear(layer):
            before[id(given)] = layer, arguments[0], given
        return given

    made: keras.Model = keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call
    )
    return made


def _is_linear(layer: Any) -> bool:
    """Whether each channel of what it gives is a sum of products with weights of its own."""
    import keras

    return (
        type(layer) in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense)
        and layer.activation is keras.activations.linear
        and layer.compute_dtype == "float32"
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and not layer.lora_enabled
    )


def _joined(linear: Any, normal: Any, inputs: Any) -> Any:
    """What both layers do to the inputs, by one layer."""
    # What a layer begins its training with, and what holds it there, is of no use here.
    training = ("initializer", "regularizer", "constraint")
    config = {
        name: value for name, value in linear.get_config().items() if not name.endswith(training)
    } | {"use_bias": True, "name": f"{linear.name}_{normal.name}"}
    joined = type(linear).from_config(config)
    given = joined(inputs)
    mean, variance = (
        np.asarray(one.numpy(), np.float64) for one in (normal.moving_mean, normal.moving_variance)
    )
    factor = 1.0 / np.sqrt(variance + normal.epsilon)
    if normal.scale:
        factor = factor * np.asarray(normal.gamma.numpy(), np.float64)
    bias = -mean
    if linear.use_bias:
        bias = bias + np.asarray(linear.bias.numpy(), np.float64)
    bias = bias * factor
    if normal.center:
        bias = bias + np.asarray(normal.beta.numpy(), np.float64)
    joined.kernel.assign(
        (np.asarray(linear.kernel.numpy(), np.float64) * factor).astype(np.float32)
    )
    joined.bias.assign(bias.astype(np.float32))
    return given
