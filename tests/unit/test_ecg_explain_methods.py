"""Relevance of ECGs: what each method gives, and the sums that it must keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.ecg.explain.gradcam import gradcam
from models.ecg.explain.gradients import gradient, integrated, smoothgrad
from models.ecg.explain.lrp import EPSILON, ledger, lrp
from models.ecg.explain.methods import EcgMethod, relevance
from models.explain.integrated_gradients import TOLERANCE
from models.explain.target import ExplainError
from models.networks import build_network
from models.packs.manifest import WaveformInput

SHAPES = {
    "ribeiro": (WaveformInput(samples=256, rate_hz=100.0), {"width": 0.1}),
    "ecgradcam": (WaveformInput(samples=150, rate_hz=125.0), {"width": 0.15, "kernel": 6}),
}


def _network(name: str) -> Any:
    """A small one with weights, biases and statistics as training leaves them: none is zero."""
    import keras

    keras.utils.set_random_seed(5)
    spec, settings = SHAPES[name]
    network = build_network(name, spec, {"outputs": 3, **settings})
    rng = np.random.default_rng(5)
    for variable in network.weights:
        kind = variable.path.rsplit("/", 1)[-1]
        if kind in ("moving_mean", "beta", "bias"):
            variable.assign(rng.normal(size=variable.shape) * 0.1)
        elif kind in ("moving_variance", "gamma"):
            variable.assign(rng.uniform(0.5, 1.5, size=variable.shape))
    return network


@pytest.fixture(scope="module", params=list(SHAPES))
def network(request: pytest.FixtureRequest) -> Any:
    return _network(request.param)


@pytest.fixture(scope="module")
def inputs(network: Any) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(3, *network.input_shape[1:])).astype(np.float32)
    drawn[:, :20] = 0.0  # padding
    return drawn


@pytest.mark.parametrize("method", list(EcgMethod))
def test_every_method_gives_a_map_of_each_recording_by_itself(
    network: Any, inputs: NDArray[np.float32], method: EcgMethod
) -> None:
    maps = relevance(network, inputs, 1, method)
    assert maps.shape == inputs.shape
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert method.signed == bool((maps < 0).any())
    alone = relevance(network, inputs[1:2], 1, method)
    assert np.allclose(alone[0], maps[1], atol=1e-5 * max(1.0, np.abs(maps).max()))
    again = relevance(network, inputs, 1, method)
    assert np.array_equal(maps, again)
    if method.additive:
        assert not maps[:, :20].any()  # padding has no part in anything


def test_relevance_is_of_the_output_that_is_asked_for(
    network: Any, inputs: NDArray[np.float32]
) -> None:
    for method in (EcgMethod.LRP, EcgMethod.GRADIENT):
        one, two = (relevance(network, inputs, output, method) for output in (0, 2))
        assert not np.allclose(one, two)


def test_parts_of_integrated_gradients_add_up(network: Any, inputs: NDArray[np.float32]) -> None:
    found = integrated(network, inputs, (0, 1))
    assert (found.gaps <= TOLERANCE).all()
    numbers = network(inputs, training=False).numpy()
    base = network(np.zeros_like(inputs), training=False).numpy()
    parts = found.maps.sum(axis=(2, 3))
    assert np.allclose(parts.T, (numbers - base)[:, :2], atol=0.03 * np.abs(numbers).max())


def test_lrp_loses_nothing_but_what_biases_and_epsilon_take(
    network: Any, inputs: NDArray[np.float32]
) -> None:
    book = ledger(network, inputs, 1)
    numbers = network(inputs, training=False).numpy()[:, 1]
    assert np.allclose(book.number, numbers, atol=1e-5)
    total = book.signal + book.biases + book.epsilon
    assert np.allclose(total, book.number, atol=1e-4 * np.abs(book.number).max())
    assert np.abs(book.signal).min() > 0
    assert (np.abs(book.biases) > 0).all()
    assert (np.abs(book.epsilon) > 0).all()
    whole = np.abs(book.signal) + np.abs(book.biases) + np.abs(book.epsilon)
    assert (np.abs(book.epsilon) < 0.5 * whole).all()


def _held(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """z plus epsilon of its sign, for one recording."""
    held: NDArray[np.float64] = z + np.sign(z) * EPSILON * np.sqrt(np.mean(z**2))
    return held


def test_lrp_shares_out_as_the_rule_says_layer_by_layer() -> None:
    """Two dense layers and an addition, by hand: R_i = sum_j x_i w_ij R_j / (z_j + eps sign)."""
    import keras
    from keras import layers

    given = keras.Input((2, 3))
    x = layers.Flatten()(given)
    side = layers.Dense(4, use_bias=False)(x)
    hidden = layers.Dense(4, activation="relu")(x)
    out = layers.Dense(2)(layers.Add()([hidden, side]))
    network = keras.Model(given, out)
    rng = np.random.default_rng(3)
    network.set_weights([rng.normal(size=array.shape) for array in network.get_weights()])
    dense = [layer for layer in network.layers if isinstance(layer, layers.Dense)]
    (v,), (w, b), (u, _) = sorted(
        (layer.get_weights() for layer in dense), key=lambda arrays: (len(arrays), -arrays[0].size)
    )
    x_value = rng.normal(size=6).astype(np.float32).astype(np.float64)

    beside, z = x_value @ v, x_value @ w + b
    alive = np.maximum(z, 0)
    both = alive + beside
    of_both = both * u[:, 1]  # the number itself holds nothing back
    of_hidden, of_side = (part * of_both / _held(both) for part in (alive, beside))
    # A layer with its ReLU within shows only what is alive.
    size = EPSILON * np.sqrt(np.mean(alive**2))
    of_z = np.where(alive > 0, of_hidden / (alive + size), 0.0)
    expected = x_value * (w @ of_z + v @ (of_side / _held(beside)))

    found = lrp(network, x_value.reshape(1, 2, 3).astype(np.float32), 1)
    assert np.allclose(found.reshape(-1), expected, rtol=1e-4, atol=1e-6)


def test_lrp_takes_batch_normalisation_and_convolution_for_one_layer() -> None:
    from models.networks.folding import folded

    network = _network("ecgradcam")
    plain = folded(network)
    kinds = {type(layer).__name__ for layer in plain.layers}
    inputs = np.random.default_rng(2).normal(size=(2, 150, 12)).astype(np.float32)
    if "BatchNormalization" in kinds:
        pytest.skip("convolutions of one axis are not folded")
    assert np.allclose(lrp(network, inputs, 0), lrp(plain, inputs, 0), rtol=1e-3, atol=1e-5)


def test_methods_that_need_layers_say_so() -> None:
    import keras
    from keras import layers

    given = keras.Input((8, 2))
    strange = keras.Model(
        given, layers.Dense(1)(layers.Flatten()(layers.Activation("tanh")(given)))
    )
    inputs = np.ones((1, 8, 2), np.float32)
    with pytest.raises(ExplainError, match="no rule for layer 'activation"):
        lrp(strange, inputs, 0)
    with pytest.raises(ExplainError, match="last_block"):
        gradcam(strange, inputs, 0)
    with pytest.raises(ExplainError, match="layers are known"):
        lrp(lambda x: x, inputs, 0)
    with pytest.raises(ValueError, match="n of 1 or more"):
        relevance(strange, inputs[0], 0, EcgMethod.LRP)


def test_gradients_are_those_of_a_network_whose_gradients_are_known() -> None:
    import tensorflow as tf

    weights = np.arange(24, dtype=np.float32).reshape(1, 8, 3) - 10.0

    def linear(inputs: Any) -> Any:
        return tf.reduce_sum(inputs * weights, axis=(1, 2))[:, tf.newaxis]

    inputs = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    for maps in (gradient(linear, inputs, 0), smoothgrad(linear, inputs, 0, samples=3)):
        assert np.allclose(maps, np.repeat(weights, 2, axis=0), atol=1e-4)
    parts = integrated(linear, inputs, (0,)).maps[0]
    assert np.allclose(parts, inputs * weights, atol=1e-4)
    with pytest.raises(ValueError, match="at least 1"):
        smoothgrad(linear, inputs, 0, samples=0)


def test_smoothgrad_leaves_padding_alone_and_follows_its_seed() -> None:
    import tensorflow as tf

    def squares(inputs: Any) -> Any:
        return tf.reduce_sum(inputs**2, axis=(1, 2))[:, tf.newaxis]

    inputs = np.ones((1, 16, 2), np.float32) * np.linspace(-1, 1, 16)[:, None].astype(np.float32)
    inputs[:, :4] = 0.0
    one, two = (smoothgrad(squares, inputs, 0, samples=4, seed=seed) for seed in (1, 2))
    assert not one[:, :4].any()
    assert not np.allclose(one, two)


def test_grad_cam_lies_where_the_last_block_is_active_and_is_alike_in_all_leads() -> None:
    import keras
    from keras import layers

    given = keras.Input((64, 2))
    pooled = layers.AveragePooling1D(8)(given)
    block = layers.Activation("relu", name="last_block")(pooled)
    out = layers.Dense(1, use_bias=False)(layers.GlobalAveragePooling1D()(block))
    network = keras.Model(given, out)
    network.set_weights([np.ones((2, 1), np.float32)])
    inputs = np.zeros((1, 64, 2), np.float32)
    inputs[0, 32:40] = 1.0
    found = gradcam(network, inputs, 0)
    assert (found >= 0).all()
    assert np.array_equal(found[..., 0], found[..., 1])
    assert 32 <= int(found[0, :, 0].argmax()) < 40
    assert not found[0, :24].any()
