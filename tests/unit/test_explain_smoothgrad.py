"""Gradient and SmoothGrad on networks small enough that the right answer is known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models import threads
from models.explain.gradient import input_gradient
from models.explain.smoothgrad import smoothgrad

if TYPE_CHECKING:
    import keras

ROWS, COLUMNS = 6, 8


@pytest.fixture(scope="module")
def weights() -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(ROWS * COLUMNS, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def linear(weights: NDArray[np.float32]) -> keras.Model:
    """Two outputs, each a weighted sum of the pixels: the gradient is the weights."""
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    dense = keras.layers.Dense(2, use_bias=False)
    network = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([weights])
    return network


@pytest.fixture(scope="module")
def square() -> keras.Model:
    """One output, the sum of x² over the pixels: the gradient is 2 x."""
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    flat = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, keras.layers.Dot(axes=1)([flat, flat]))


@pytest.fixture
def frames() -> NDArray[np.float32]:
    rng = np.random.default_rng(2)
    frames = rng.uniform(0.1, 1.0, size=(3, ROWS, COLUMNS, 1)).astype(np.float32)
    frames[:, :, :2] = 0.0  # outside the sector
    return frames


def test_the_gradient_of_a_weighted_sum_is_its_weights(
    linear: keras.Model, weights: NDArray[np.float32], frames: NDArray[np.float32]
) -> None:
    maps = input_gradient(linear, frames, (1, 0))
    assert maps.shape == (2, 3, ROWS, COLUMNS)
    assert maps.dtype == np.float32
    for frame in range(3):
        np.testing.assert_allclose(maps[0, frame].ravel(), np.abs(weights[:, 1]), rtol=1e-6)
        np.testing.assert_allclose(maps[1, frame].ravel(), np.abs(weights[:, 0]), rtol=1e-6)


def test_smoothgrad_of_a_weighted_sum_is_its_weights_too(
    linear: keras.Model, weights: NDArray[np.float32], frames: NDArray[np.float32]
) -> None:
    maps = smoothgrad(linear, frames, 1, samples=4)
    assert maps.shape == (3, ROWS, COLUMNS)
    np.testing.assert_allclose(maps[2].ravel(), np.abs(weights[:, 1]), rtol=1e-5)


def test_two_lanes_say_the_same_to_the_last_bit(
    square: keras.Model, frames: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = smoothgrad(square, frames, 0, samples=5, batch=2)
    monkeypatch.setattr(threads, "_lanes", 2)
    together = smoothgrad(square, frames, 0, samples=5, batch=2)
    np.testing.assert_array_equal(alone, together)


def test_frames_do_not_mix(square: keras.Model, frames: NDArray[np.float32]) -> None:
    maps = input_gradient(square, frames, (0,), batch=2)
    np.testing.assert_allclose(maps[0], 2 * frames[..., 0], rtol=1e-6)


def test_noise_is_added_inside_the_sector_only(
    square: keras.Model, frames: NDArray[np.float32]
) -> None:
    maps = smoothgrad(square, frames, 0, samples=3, sigma=0.2)
    np.testing.assert_array_equal(maps[:, :, :2], 0.0)
    assert np.abs(maps - 2 * frames[..., 0])[:, :, 2:].max() > 0.05


def test_a_sector_that_is_given_is_believed(
    square: keras.Model, frames: NDArray[np.float32]
) -> None:
    sector = np.zeros((ROWS, COLUMNS), bool)
    sector[0, 0] = True
    maps = smoothgrad(square, frames, 0, samples=3, sector=sector)
    changed = np.abs(maps - 2 * frames[..., 0]) > 1e-5
    assert set(zip(*np.nonzero(changed), strict=True)) == {(0, 0, 0), (1, 0, 0), (2, 0, 0)}


def test_many_samples_come_near_the_expected_value(square: keras.Model) -> None:
    # Where x is far from 0, the mean of |2 (x + noise)| is 2 x; the noise has the standard
    # deviation asked for, so the mean over N samples is within a few sigma / sqrt(N) of it.
    frames = np.full((1, ROWS, COLUMNS, 1), 0.9, np.float32)
    frames[0, 0, 0] = 0.0
    maps = smoothgrad(square, frames, 0, samples=400, sigma=0.1)[0]
    errors = (maps - 2 * frames[0, ..., 0]).ravel()[1:]
    expected_spread = 2 * 0.1 * 0.9 / 20
    assert errors.std() == pytest.approx(expected_spread, rel=0.35)


def test_the_same_seed_gives_the_same_map_whatever_the_batch(
    square: keras.Model, frames: NDArray[np.float32]
) -> None:
    first = smoothgrad(square, frames, (0,), samples=5)
    again = smoothgrad(square, frames, (0,), samples=5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(
        smoothgrad(square, frames, (0,), samples=5, batch=4), first, rtol=1e-5
    )
    np.testing.assert_allclose(
        smoothgrad(square, frames[1:2], 0, samples=5), first[0, 1:2], rtol=1e-5
    )
    assert np.abs(smoothgrad(square, frames, (0,), samples=5, seed=1) - first).max() > 1e-3


def test_a_map_points_at_what_the_network_minds(frames: NDArray[np.float32]) -> None:
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    corner = keras.layers.Cropping2D(((3, 0), (5, 0)))(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")(corner)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    keras.utils.set_random_seed(0)
    maps = smoothgrad(network, frames, 2, samples=3)
    assert maps[:, 3:, 5:].min() > 0
    assert maps[:, :3].max() == maps[:, :, :5].max() == 0


def test_senseless_settings_are_refused(square: keras.Model, frames: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="samples"):
        smoothgrad(square, frames, 0, samples=0)
    with pytest.raises(ValueError, match="fit"):
        smoothgrad(square, frames[0], 0)
