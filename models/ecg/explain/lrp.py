"""Layer-wise relevance propagation by the epsilon rule: what each sample brings to a number.

Bach et al. 2015 (PLoS ONE 10(7):e0130140), eq. 58: from the number back to the signal, what a unit
is worth is shared out among those below it in proportion to what they bring to it,

    R_i = sum_j  x_i w_ij / (z_j + epsilon sign(z_j))  R_j,     z_j = sum_i x_i w_ij + b_j.

A ReLU passes relevance on, a max pool gives all to the sample that won, an addition shares it
between its two sides, and a batch normalisation is one linear layer with the convolution before it.
In such a network R_i = x_i g_i, where g is the gradient with each unit's own part multiplied by
|z| / (|z| + epsilon) on the way back (Ancona et al. 2018, arXiv:1711.06104, prop. 1, with epsilon).
So it is one backward pass.

Epsilon is a hundredth of the root mean square of the layer's own z, for each recording: units near
zero, which would else give large relevance of both signs to noise, give little.

Relevance is conserved but for what biases and epsilon take: the sum over the signal, plus what each
layer's biases brought to the number, plus what epsilon held back, is the number. :func:`ledger`
counts all three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.ecg.explain.gradients import BATCH
from models.explain.target import ExplainError, in_batches
from models.threads import side_by_side

if TYPE_CHECKING:
    import keras

EPSILON = 0.01
"""As a share of the root mean square of a layer's own sums."""

_WITH_WEIGHTS = ("Conv1D", "Dense")
_SUMS = ("Add", "AveragePooling1D", "GlobalAveragePooling1D")
_PASSED_ON = ("Activation", "ReLU", "MaxPooling1D", "Flatten", "Dropout", "SpatialDropout1D")
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Where a number's relevance went, (n,) each: ``number`` is the sum of the other three."""

    number: NDArray[np.float64]
    signal: NDArray[np.float64]
    biases: NDArray[np.float64]
    epsilon: NDArray[np.float64]


def lrp(
    network: Callable[..., Any], inputs: NDArray[np.float32], output: int
) -> NDArray[np.float32]:
    """(n, samples, leads), signed, in units of the number.

    Raises
    ------
    ExplainError
        If the network does not show its layers, or has one that no rule is known for.
    """
    step = _compiled(network, output, (BATCH, *inputs.shape[1:]))

    def shares(some: tuple[NDArray[np.int64], int]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = step(inputs[some[0]]).numpy()[: some[1]]
        return found

    return np.concatenate([*side_by_side(shares, in_batches(len(inputs), BATCH))])


def ledger(network: Callable[..., Any], inputs: NDArray[np.float32], output: int) -> Ledger:
    """Account for a number's relevance; parameters and errors are those of :func:`lrp`."""
    import tensorflow as tf

    opened = _opened(network)
    signal = np.asarray(lrp(network, inputs, output), np.float64).sum(axis=(1, 2))
    numbers, biases, epsilon = (np.zeros(len(inputs)) for _ in range(3))
    for places, real in in_batches(len(inputs), BATCH):
        given = tf.constant(inputs[places])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(given)
            *values, raw = opened.network(given, training=False)
            total = tf.reduce_sum(raw[:, output])
        slopes = tape.gradient(total, values, unconnected_gradients="zero")
        pairs = zip(values, slopes, strict=True)
        kept = places[:real]
        numbers[kept] = np.asarray(raw.numpy(), np.float64)[:real, output]
        for part in opened.parts:
            z, slope = (np.asarray(one.numpy(), np.float64)[:real] for one in next(pairs))
            axes = tuple(range(1, z.ndim))
            alive = z > 0 if part.rectified else True
            biases[kept] += (slope * part.bias * alive).sum(axis=axes)
            if part.damped:
                after = np.asarray(next(pairs)[1].numpy(), np.float64)[:real]
                held = EPSILON * np.sqrt(np.mean(z**2, axis=axes, keepdims=True)) + _TINY
                epsilon[kept] += (z * after * held / (np.abs(z) + held)).sum(axis=axes)
    return Ledger(number=numbers, signal=signal, biases=biases, epsilon=epsilon)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A linear layer: what it adds to each channel, whether epsilon comes after it, and whether a
    ReLU is within it, so that of its sums only those above zero are seen."""

    bias: Any
    damped: bool
    rectified: bool


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A network whose linear layers are damped on the way back.

    It gives each part's sums, and after them the same again where epsilon comes after it; the
    network's own numbers come last.
    """

    network: keras.Model
    parts: tuple[_Part, ...]


@lru_cache(maxsize=16)
def _compiled(
    network: Callable[..., Any], output: int, shape: tuple[int, ...]
) -> Callable[[NDArray[np.float32]], Any]:
    import tensorflow as tf

    from models.networks.graph import graph

    opened = _opened(network).network

    def step(inputs: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            numbers = opened(inputs, training=False)[-1]
            total = tf.reduce_sum(numbers[:, output])
        return inputs * tape.gradient(total, inputs)

    return graph(step, shape)


@lru_cache(maxsize=2)
def _opened(network: Callable[..., Any]) -> _Opened:
    """The same layers with the same weights, and after each linear one what damps its gradient."""
    import keras

    if not isinstance(network, keras.Model) or not hasattr(network, "operations"):
        raise ExplainError("LRP needs a network whose layers are known; take another method")
    damp = _damping()
    sums: dict[int, Any] = {}  # of what was damped, by id, the sums themselves
    found: list[tuple[Any, Any, Any]] = []  # layer, its sums, the same damped

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        kind = type(layer).__name__
        _check(layer, kind)
        if kind == "BatchNormalization":
            # One linear layer with the convolution before it: nothing is damped between them.
            arguments = (sums.get(id(arguments[0]), arguments[0]), *arguments[1:])
        given = layer(*arguments, **options)
        if kind in _PASSED_ON:
            return given
        damped = damp(given)
        if kind in _WITH_WEIGHTS:
            sums[id(damped)] = given
        found.append((layer, given, damped))
        return damped

    flat = keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)
    # The number itself is what is shared out: nothing of it is held back.
    numbers = next((raw for _, raw, damped in found if damped is flat.outputs[0]), flat.outputs[0])
    outputs: list[Any] = []
    parts: list[_Part] = []
    for layer, raw, damped in found:
        is_damped = raw is not numbers
        parts.append(_Part(bias=_bias(layer), damped=is_damped, rectified=_rectified(layer)))
        outputs += [raw, damped] if is_damped else [raw]
    return _Opened(network=keras.Model(flat.inputs, [*outputs, numbers]), parts=tuple(parts))


def _damping() -> Callable[[Any], Any]:
    """A layer that changes nothing forwards, and multiplies by |z| / (|z| + epsilon) backwards."""
    import keras
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def damped(z: Any) -> Any:
        def back(slope: Any) -> Any:
            axes = list(range(1, len(z.shape)))
            mean = tf.reduce_mean(tf.square(z), axis=axes, keepdims=True)
            size = tf.abs(z)
            return slope * size / (size + EPSILON * tf.sqrt(mean) + _TINY)

        return tf.identity(z), back

    return lambda z: keras.layers.Lambda(damped)(z)


def _check(layer: Any, kind: str) -> None:
    """Refuse what no rule is known for."""
    import keras

    plain = (keras.activations.linear, keras.activations.relu)
    known = kind in (*_WITH_WEIGHTS, *_SUMS, *_PASSED_ON, "BatchNormalization", "InputLayer")
    if not known or getattr(layer, "activation", plain[0]) not in plain:
        raise ExplainError(
            f"LRP has no rule for layer {layer.name!r} ({kind}); take integrated gradients"
        )


def _rectified(layer: Any) -> bool:
    import keras

    return getattr(layer, "activation", None) is keras.activations.relu


def _bias(layer: Any) -> Any:
    """What a linear layer adds to each channel of its sums, inputs apart."""
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        mean, variance = (
            np.asarray(one.numpy(), np.float64)
            for one in (layer.moving_mean, layer.moving_variance)
        )
        factor = 1.0 / np.sqrt(variance + layer.epsilon)
        if layer.scale:
            factor = factor * np.asarray(layer.gamma.numpy(), np.float64)
        shift = np.asarray(layer.beta.numpy(), np.float64) if layer.center else 0.0
        return shift - mean * factor
    if kind in _WITH_WEIGHTS and layer.use_bias:
        return np.asarray(layer.bias.numpy(), np.float64)
    return 0.0
