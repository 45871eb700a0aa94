"""Each method on networks whose right answer is known, and beside other people's libraries."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.explain.gradcam import features, gradcam
from models.explain.gradient import input_gradient
from models.explain.integrated_gradients import FEWEST_STEPS, integrate
from models.explain.methods import MapMethod, map_of
from models.explain.occlusion import occlusion
from models.explain.sector import blurred, outside_shares
from models.explain.target import Explained, ExplainError, Quantity, Target, numbers_of

if TYPE_CHECKING:
    import keras

ROWS, COLUMNS = 24, 28
CORNER = np.s_[2:8, 3:10]


@pytest.fixture(scope="module")
def weights() -> NDArray[np.float32]:
    """Of the corner only."""
    weights = np.zeros((ROWS, COLUMNS), np.float32)
    weights[CORNER] = np.random.default_rng(1).normal(1.0, 0.2, size=(6, 7))
    return weights


@pytest.fixture(scope="module")
def looks_at_corner(weights: NDArray[np.float32]) -> keras.Model:
    """A weighted sum of one corner, and a constant."""
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    dense = keras.layers.Dense(2, use_bias=False)
    network = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([np.stack([weights.ravel(), np.zeros(weights.size, np.float32)], axis=-1)])
    return network


@pytest.fixture(scope="module")
def convolutional() -> keras.Model:
    """Small, untrained, smooth: two convolutions, a mean, two numbers."""
    import keras

    keras.utils.set_random_seed(5)
    positive = keras.initializers.RandomUniform(0.1, 1.0)
    inputs = keras.Input((ROWS, COLUMNS, 1))
    x = keras.layers.Conv2D(4, 3, activation="softplus", padding="same")(inputs)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="softplus", padding="same", name="last")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer=positive)(x))


@pytest.fixture
def frames() -> NDArray[np.float32]:
    return np.random.default_rng(2).uniform(0.1, 1.0, (2, ROWS, COLUMNS, 1)).astype(np.float32)


@pytest.mark.parametrize("method", [method for method in MapMethod if method != "grad-cam"])
def test_every_method_finds_the_only_corner_that_counts(
    method: MapMethod, looks_at_corner: keras.Model, frames: NDArray[np.float32]
) -> None:
    frames[:, 4:6, 5:8] += 2.0  # so that covering or blurring changes something
    maps = map_of(method, looks_at_corner, frames, (0, 1))
    assert maps.shape == (2, 2, ROWS, COLUMNS)
    assert maps.dtype == np.float32
    strength = np.abs(maps[0])
    assert strength[(slice(None), *CORNER)].sum() > (0.5 if method == "occlusion" else 0.999) * (
        strength.sum()
    )
    assert not maps[1].any()
    assert method.signed or maps.min() >= 0


def test_parts_of_a_weighted_sum_are_weights_times_change(
    looks_at_corner: keras.Model, weights: NDArray[np.float32], frames: NDArray[np.float32]
) -> None:
    base = blurred(frames)
    found = integrate(looks_at_corner, frames, (0,))
    np.testing.assert_allclose(found.maps[0], weights * (frames - base)[..., 0], atol=1e-5)
    assert found.gaps.max() < 1e-3
    assert (found.steps == FEWEST_STEPS).all()


def test_integrated_gradients_take_more_steps_until_the_parts_add_up() -> None:
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    # A threshold amid the way: few steps miss where it lies.
    steep = keras.layers.Lambda(lambda x: keras.ops.sigmoid(200 * (x - 0.437)))(inputs)
    network = keras.Model(inputs, keras.layers.Flatten()(keras.layers.AveragePooling2D(24)(steep)))
    ones = np.ones((1, ROWS, COLUMNS, 1), np.float32)
    zeros = np.zeros_like(ones)
    few = integrate(network, ones, (0,), baseline=zeros, most_steps=FEWEST_STEPS)
    many = integrate(network, ones, (0,), baseline=zeros)
    assert few.gaps[0, 0] > 0.01 >= many.gaps[0, 0]
    assert many.steps[0] > few.steps[0] == FEWEST_STEPS
    assert many.steps[0] <= 80  # added at the threshold: evenly it would take some 220
    assert many.maps[0, 0].sum() == pytest.approx(1.0, abs=0.01)


def test_a_number_that_comes_back_is_measured_against_its_way() -> None:
    import keras

    # Up by 1 and down again: both ends are the same but for very little, of which the error of
    # any sum is many times as much.
    def hill(x: Any) -> Any:
        return keras.ops.sigmoid(25 * (x - 0.31)) - keras.ops.sigmoid(40 * (x - 0.72))

    inputs = keras.Input((ROWS, COLUMNS, 1))
    mean = keras.layers.AveragePooling2D(24)(keras.layers.Lambda(hill)(inputs))
    network = keras.Model(inputs, keras.layers.Flatten()(mean))
    ones = np.ones((1, ROWS, COLUMNS, 1), np.float32)
    found = integrate(network, ones, (0,), baseline=np.zeros_like(ones))
    ends = numbers_of(network, np.concatenate([np.zeros_like(ones), ones]))[:, 0]
    missed = abs(float(found.maps.sum()) - (ends[1] - ends[0]))
    assert abs(ends[1] - ends[0]) < 0.001
    assert missed > 0.05 * abs(ends[1] - ends[0])
    assert found.gaps[0, 0] <= 0.01
    assert found.steps[0] <= 40


def test_covering_takes_away_what_the_patch_carried(
    looks_at_corner: keras.Model, weights: NDArray[np.float32], frames: NDArray[np.float32]
) -> None:
    base = np.zeros_like(frames)
    # One patch covers the corner and no more, others touch it or do not.
    maps = occlusion(looks_at_corner, frames, (0,), patch=4, baseline=base)
    assert not maps[0, :, 12:, :].any()
    whole = occlusion(looks_at_corner, frames, (0,), patch=28, baseline=base)
    np.testing.assert_allclose(whole[0, 0], (weights * frames[0, ..., 0]).sum(), rtol=1e-4)


def test_only_patches_that_touch_the_sector_are_tried(
    looks_at_corner: keras.Model, frames: NDArray[np.float32]
) -> None:
    sector = np.zeros((ROWS, COLUMNS), bool)
    sector[14:, 14:] = True
    maps = occlusion(looks_at_corner, frames, (0,), patch=4, sector=sector)
    assert not maps.any()


def test_gradcam_is_the_weighted_sum_of_the_last_features(frames: NDArray[np.float32]) -> None:
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    copied = keras.layers.Conv2D(1, 1, use_bias=False)
    dense = keras.layers.Dense(2, use_bias=False)
    x = keras.layers.GlobalAveragePooling2D()(copied(inputs))
    network = keras.Model(inputs, dense(x))
    copied.set_weights([np.ones((1, 1, 1, 1), np.float32)])
    dense.set_weights([np.array([[2.0, -1.0]], np.float32)])
    maps = gradcam(network, frames, (0, 1))
    np.testing.assert_allclose(maps[0], 2.0 * frames[..., 0] / (ROWS * COLUMNS), rtol=1e-4)
    assert not maps[1].any()  # what lowers the output is left out


def test_gradcam_looks_into_networks_within_networks(
    convolutional: keras.Model, frames: NDArray[np.float32]
) -> None:
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    mean = keras.layers.Average()([convolutional(inputs), convolutional(inputs)])
    outer = keras.Model(inputs, mean)
    assert len(features(outer)) == 4
    np.testing.assert_allclose(
        gradcam(outer, frames, (0,)), gradcam(convolutional, frames, (0,)) / 2, rtol=1e-4
    )


def test_gradcam_says_why_it_cannot() -> None:
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    network = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ExplainError, match="another method"):
        gradcam(network, np.zeros((1, ROWS, COLUMNS, 1), np.float32), (0,))


def test_a_label_is_explained_by_its_odds_against_all_others(
    convolutional: keras.Model, frames: NDArray[np.float32]
) -> None:
    label = Target(name="a4c", quantity=Quantity.LOG_ODDS, place=1)
    two = Explained(convolutional, (label,), temperature=2.0)
    raw = numbers_of(convolutional, frames)
    np.testing.assert_allclose(
        numbers_of(two, frames)[:, 0], (raw[:, 1] - raw[:, 0]) / 2, rtol=1e-4
    )


def test_a_tracing_is_explained_by_areas_and_volumes_of_its_chances() -> None:
    import keras

    inputs = keras.Input((ROWS, COLUMNS, 1))
    network = keras.Model(inputs, keras.layers.Concatenate()([-inputs, inputs]))
    frames = np.full((1, ROWS, COLUMNS, 1), -30.0, np.float32)
    frames[0, 4:14, 6:12] = 30.0  # a cylinder on its side: ten discs of six pixels
    targets = [
        Target(name=quantity.name, quantity=quantity, place=1)
        for quantity in (Quantity.AREA, Quantity.VOLUME, Quantity.LOG_VOLUME)
    ]
    area, volume, logarithm = numbers_of(Explained(network, targets), frames)[0]
    assert area == pytest.approx(60.0, rel=1e-4)
    assert volume == pytest.approx(10 * np.pi / 4 * 36, rel=1e-4)
    assert logarithm == pytest.approx(np.log(volume + 1), rel=1e-4)


def test_the_gradient_of_a_logarithm_follows_from_its_volume_s(
    frames: NDArray[np.float32],
) -> None:
    import keras

    keras.utils.set_random_seed(7)
    network = keras.Sequential(
        [keras.Input((ROWS, COLUMNS, 1)), keras.layers.Conv2D(3, 3, padding="same")]
    )
    targets = [
        Target(name=quantity.name, quantity=quantity, place=place)
        for quantity, place in (
            (Quantity.LOG_VOLUME, 1),
            (Quantity.VOLUME, 2),
            (Quantity.VOLUME, 1),
            (Quantity.LOG_VOLUME, 2),
        )
    ]
    numbers = Explained(network, targets)
    assert [numbers.kin(output) for output in range(4)] == [2, None, None, 1]
    together = input_gradient(numbers, frames, (0, 2))
    alone = input_gradient(numbers, frames, (0,))
    assert together[0].max() > 0
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-4, atol=1e-4 * alone.max())
    with pytest.raises(ExplainError, match="like no other"):
        numbers.factor(1, None)


def test_the_share_outside_the_sector_is_measured() -> None:
    sector = np.zeros((100, 100), bool)
    sector[:, :50] = True
    maps = np.zeros((2, 3, 100, 100), np.float32)
    maps[0, :, :, :20] = -1.0
    maps[0, :, :, 80:90] = 1.0
    assert outside_shares(maps, sector).tolist() == pytest.approx([1 / 3, 0.0])


# Second opinions.


def _library(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == name.split(".")[0]:
                pytest.skip(f"{name} is not installed: a second opinion is left out")
            raise


@pytest.fixture
def saliency() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield _library("saliency.core")


def _call(network: keras.Model, output: int) -> Any:
    """A network as the library saliency asks it."""
    import tensorflow as tf

    def call(pictures: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:  # noqa: ARG001
        values = tf.convert_to_tensor(np.asarray(pictures, np.float32))
        with tf.GradientTape() as tape:
            tape.watch(values)
            number = network(values, training=False)[:, output]
        if "INPUT_OUTPUT_GRADIENTS" in expected_keys:
            return {"INPUT_OUTPUT_GRADIENTS": tape.gradient(number, values).numpy()}
        return {"OUTPUT_LAYER_VALUES": number.numpy()}

    return call


def test_saliency_gives_the_same_gradient(
    saliency: Any, convolutional: keras.Model, frames: NDArray[np.float32]
) -> None:
    theirs = saliency.GradientSaliency().GetMask(frames[0], _call(convolutional, 1))
    ours = input_gradient(convolutional, frames, (1,))[0, 0]
    np.testing.assert_allclose(ours, np.abs(theirs[..., 0]), rtol=1e-4, atol=1e-9)


def test_saliency_gives_the_same_integrated_gradients(
    saliency: Any, convolutional: keras.Model, frames: NDArray[np.float32]
) -> None:
    base = np.zeros_like(frames)
    theirs = saliency.IntegratedGradients().GetMask(
        frames[0], _call(convolutional, 1), x_baseline=base[0], x_steps=200, batch_size=50
    )[..., 0]
    ours = integrate(convolutional, frames, (1,), baseline=base).maps[0, 0]
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_saliency_gives_the_same_occlusion(saliency: Any, frames: NDArray[np.float32]) -> None:
    # Theirs adds up over patches one pixel apart; with one patch over all there is one answer.
    import keras

    base = np.zeros_like(frames[:1, :24, :24])
    square = np.ascontiguousarray(frames[:1, :24, :24])
    inputs = keras.Input((24, 24, 1))
    network = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs)))
    theirs = saliency.Occlusion().GetMask(square[0], _call(network, 0), size=24, value=0)
    ours = occlusion(network, square, (0,), patch=24, baseline=base)[0, 0]
    np.testing.assert_allclose(ours, theirs[..., 0] if theirs.ndim == 3 else theirs, rtol=1e-3)


def test_tf_keras_vis_gives_the_same_gradient_and_gradcam(
    convolutional: keras.Model, frames: NDArray[np.float32]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        their_cam = _library("tf_keras_vis.gradcam")
        their_saliency = _library("tf_keras_vis.saliency")

        def score(output: Any) -> Any:
            return output[:, 1]

        gradient = their_saliency.Saliency(convolutional)(
            score, frames, normalize_map=False, keepdims=True
        )
        cam = their_cam.Gradcam(convolutional)(
            score, frames, penultimate_layer="last", normalize_cam=False, expand_cam=False
        )
    ours = input_gradient(convolutional, frames, (1,))[0]
    np.testing.assert_allclose(ours, np.asarray(gradient)[..., 0], rtol=1e-4, atol=1e-9)
    for small, large in zip(np.asarray(cam), gradcam(convolutional, frames, (1,))[0], strict=True):
        image = Image.fromarray(small.astype(np.float32))
        enlarged = np.asarray(image.resize((COLUMNS, ROWS), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(large, enlarged, rtol=1e-3, atol=1e-3 * enlarged.max())
