"""A network as it runs says what the network says, with less to compute."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402  Keras chooses its backend first.

from models.networks import build_network  # noqa: E402
from models.networks.folding import folded, settled  # noqa: E402
from models.packs.manifest import InputSpec  # noqa: E402

_SIDE = 12


def _trained(network: keras.Model) -> keras.Model:
    """Statistics and weights as training leaves them: none is zero or one."""
    rng = np.random.default_rng(7)
    for variable in network.variables:
        if np.issubdtype(variable.numpy().dtype, np.floating):
            variable.assign(rng.uniform(0.2, 1.0, variable.shape).astype(np.float32))
    return network


def _frames(side: int = _SIDE) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(3, side, side, 1)).astype(np.float32)


def _normalisations(network: keras.Model) -> int:
    return sum(
        _normalisations(layer)
        if isinstance(layer, keras.Model)
        else isinstance(layer, keras.layers.BatchNormalization)
        for layer in network.layers
    )


def _small(*, scale: bool = True, center: bool = True) -> keras.Model:
    inputs = keras.Input((_SIDE, _SIDE, 1))
    x = keras.layers.Conv2D(4, 3, use_bias=not scale, strides=2)(inputs)
    x = keras.layers.BatchNormalization(scale=scale, center=center, epsilon=0.1)(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.BatchNormalization()(x))


@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False)])
def test_a_normalisation_goes_into_the_layer_before_it(scale: bool, center: bool) -> None:
    network = _trained(_small(scale=scale, center=center))

    quick = folded(network)

    assert (_normalisations(network), _normalisations(quick)) == (2, 0)
    np.testing.assert_allclose(quick(_frames()), network(_frames(), training=False), rtol=1e-4)


def test_what_two_layers_look_at_stays_as_it_is_for_the_other() -> None:
    inputs = keras.Input((_SIDE, _SIDE, 1))
    plain = keras.layers.Conv2D(4, 3)(inputs)
    network = _trained(
        keras.Model(inputs, keras.layers.Add()([plain, keras.layers.BatchNormalization()(plain)]))
    )

    np.testing.assert_allclose(
        folded(network)(_frames()), network(_frames(), training=False), rtol=1e-4
    )


def test_a_normalisation_behind_an_activation_or_of_another_axis_stays() -> None:
    inputs = keras.Input((_SIDE, _SIDE, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(4, 3)(x))
    network = _trained(keras.Model(inputs, x))

    quick = folded(network)

    assert _normalisations(quick) == 2
    np.testing.assert_allclose(quick(_frames()), network(_frames(), training=False), rtol=1e-4)


def test_members_of_an_ensemble_are_folded_too() -> None:
    spec = InputSpec(rows=16, columns=16, mean=0.0, std=1.0)
    network = _trained(build_network("unet", spec, {"classes": 3, "widths": [4, 8], "members": 2}))

    quick = folded(network)

    assert _normalisations(network) > 0
    assert _normalisations(quick) == 0
    np.testing.assert_allclose(quick(_frames(16)), network(_frames(16), training=False), rtol=1e-4)


def test_what_runs_settled_keeps_the_weights_that_it_was_made_of() -> None:
    network = _trained(_small())
    run = tf.function(settled(network))
    before = network(_frames(), training=False).numpy()

    for variable in network.trainable_variables:
        variable.assign(tf.zeros_like(variable))

    np.testing.assert_allclose(run(tf.constant(_frames())), before, rtol=1e-4)
    assert not np.allclose(network(_frames(), training=False), before)


def test_a_network_without_a_graph_of_layers_runs_as_it_is() -> None:
    network = keras.Sequential([keras.Input((_SIDE, _SIDE, 1)), keras.layers.Flatten()])

    assert folded(network) is network
    np.testing.assert_array_equal(
        settled(network)(tf.constant(_frames())), _frames().reshape(3, -1)
    )
