"""The checks tell a map that is right from one that is not, and a lead's eye from another's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.clip import Clip
from models.explain import quality
from models.explain.gradient import input_gradient
from models.explain.target import ExplainError
from models.simulator import SimulatedClip, simulate
from models.views import View

if TYPE_CHECKING:
    import keras

SIDE = 32
WHERE = np.s_[8:16, 18:26]
SECTOR = np.ones((SIDE, SIDE), bool)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Looks at one square and gives its mean, through two layers that have weights."""
    import keras

    inputs = keras.Input((SIDE, SIDE, 1))
    dense, last = keras.layers.Dense(1, use_bias=False), keras.layers.Dense(1, use_bias=False)
    network = keras.Model(inputs, last(dense(keras.layers.Flatten()(inputs))))
    weights = np.zeros((SIDE, SIDE), np.float32)
    weights[WHERE] = 1 / 64
    dense.set_weights([weights.reshape(-1, 1)])
    last.set_weights([np.ones((1, 1), np.float32)])
    return network


@pytest.fixture(scope="module")
def frame() -> NDArray[np.float32]:
    frame = np.random.default_rng(3).uniform(0.3, 0.5, (SIDE, SIDE, 1)).astype(np.float32)
    frame[WHERE] += 0.5
    return frame


@pytest.fixture(scope="module")
def mask() -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[WHERE] = True
    return mask


def test_the_right_map_wins_insertion_and_deletion(
    network: keras.Model, frame: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    maps = [
        mask.astype(np.float32),
        quality.random_map((SIDE, SIDE), 1),
        quality.centre_map(SECTOR),
    ]
    areas = quality.insertion_deletion(network, frame, maps, SECTOR)
    right, random, _ = areas.insertion[:, 0]
    assert right > 0.9 > random
    right, random, _ = areas.deletion[:, 0]
    assert right < 0.1 < random
    flat = np.full_like(frame, 0.4)
    assert np.isnan(quality.insertion_deletion(network, flat, maps[:1], SECTOR).insertion).all()


def test_pointing_tells_a_hit_from_a_miss(mask: NDArray[np.bool_]) -> None:
    hit = quality.pointing(mask.astype(np.float32), mask, SECTOR)
    miss = quality.pointing(np.flipud(mask).astype(np.float32), mask, SECTOR)
    assert hit is not None
    assert miss is not None
    assert (hit.hit, miss.hit) == (True, False)
    assert hit.energy == pytest.approx(1.0)
    assert miss.energy == 0.0
    assert hit.chance == pytest.approx(64 / 1024)
    assert quality.pointing(np.zeros((SIDE, SIDE), np.float32), mask, SECTOR) is None


def test_covering_what_counts_moves_the_number_and_an_equal_patch_does_not(
    network: keras.Model, frame: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    right = quality.covering(network, frame, 0, mask, SECTOR)
    assert right is not None
    assert right.structure == pytest.approx(0.5, abs=0.1)
    assert right.elsewhere < 0.1
    elsewhere = np.zeros_like(mask)
    elsewhere[24:30, 2:8] = True
    wrong = quality.covering(network, frame, 0, elsewhere, SECTOR)
    assert wrong is not None
    assert wrong.structure < 0.05


def test_an_equal_patch_is_as_large_lies_in_the_sector_and_apart(mask: NDArray[np.bool_]) -> None:
    sector = np.tri(SIDE, dtype=bool)[:, ::-1] | mask
    other = quality.equal_patch(mask, sector, seed=4)
    assert other is not None
    assert other.sum() == mask.sum()
    assert not (other & (mask | ~sector)).any()
    assert quality.equal_patch(mask, mask) is None


def test_shuffled_weights_give_another_map_and_are_put_back(
    network: keras.Model, frame: NDArray[np.float32]
) -> None:
    before = [array.copy() for array in network.get_weights()]
    true = input_gradient(network, frame[None], (0,))[0, 0]
    with quality.shuffled(network, 1.0):
        other = input_gradient(network, frame[None], (0,))[0, 0]
    with quality.shuffled(network, 0.5):
        last_only = input_gradient(network, frame[None], (0,))[0, 0]
    assert quality.similarity(true, true, SECTOR) == pytest.approx((1.0, 1.0))
    assert quality.similarity(true, last_only, SECTOR)[0] == pytest.approx(1.0)  # one weight
    rank, ssim = quality.similarity(true, other, SECTOR)
    assert rank < 0.5
    assert ssim < 0.5
    with pytest.raises(ZeroDivisionError), quality.shuffled(network, 1.0):
        _ = 1 / 0
    for one, two in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_network_that_shows_no_layers_cannot_be_shuffled() -> None:
    import keras

    inputs = keras.Input((SIDE, SIDE, 1))
    network = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ExplainError, match="no weights"), quality.shuffled(network, 1.0):
        pass


def test_a_shift_is_undone(frame: NDArray[np.float32]) -> None:
    noisy, moved = quality.disturbed(frame, SECTOR)
    assert 0 < np.abs(noisy - frame).mean() < 0.05
    np.testing.assert_array_equal(quality.moved_back(moved[..., 0]), frame[..., 0])


def test_text_is_burned_in_outside_the_sector_only() -> None:
    sector = np.zeros((160, 160), bool)
    sector[90:, :] = True
    inputs = np.zeros((2, 160, 160, 1), np.float32)
    inputs[:, sector] = 0.5
    texted, letters = quality.with_text(inputs, sector)
    assert letters.any()
    assert not (letters & sector).any()
    np.testing.assert_array_equal(texted[:, sector], inputs[:, sector])
    assert (texted[:, letters] == 0.5).all()


def test_figures_come_with_an_interval_over_clips() -> None:
    one = quality.over_clips([1.0, 2.0, 3.0, float("nan")])
    assert (one.value, one.n) == (2.0, 3)
    assert one.low < 2.0 < one.high
    assert str(quality.over_clips([])) == "not measured"


# The lead.


@pytest.fixture(scope="module")
def leads() -> list[SimulatedClip]:
    return [
        simulate(
            View.A4C, seed=seed, frames=1, lead=True, colour_flow=False, masks=True, size=(180, 240)
        )
        for seed in (11, 12, 13)
    ]


def _sees_bright_lines(clip: Clip) -> float:
    """A planted eye: what is far brighter than all around it, and thin."""
    grey = clip.frames([0])[0].astype(np.float32)
    thin = ndimage.gaussian_filter(grey, 1.5) - ndimage.gaussian_filter(grey, 6)
    inside = ndimage.binary_erosion(clip.sector.mask, iterations=9)
    return float(np.percentile(thin[inside], 99.5))


def test_an_eye_for_bright_lines_passes_the_lead_check(leads: list[SimulatedClip]) -> None:
    from models.simulator import Structure
    from models.simulator.cover import cover

    rng = np.random.default_rng(0)
    pairs = [
        (_sees_bright_lines(quality.clip_of(clip)),
         _sees_bright_lines(quality.clip_of(cover(clip, Structure.LEAD, rng))))
        for clip in leads
    ]  # fmt: skip
    kept = [clip for clip, (seen, gone) in zip(leads, pairs, strict=True) if seen > gone + 1]
    assert kept, pairs
    for clip, (seen, gone) in zip(leads, pairs, strict=True):
        if clip not in kept:
            continue
        found = quality.lead_check(_sees_bright_lines, (seen + gone) / 2, [clip])
        assert found.passed, (found, seen, gone)
        assert found.fall.value > found.fall_elsewhere.value


def test_an_eye_that_looks_elsewhere_fails_the_lead_check(leads: list[SimulatedClip]) -> None:
    def brightness(clip: Clip) -> float:
        return float(clip.frames([0]).mean())

    lowest = min(brightness(quality.clip_of(clip)) for clip in leads)
    found = quality.lead_check(brightness, lowest - 5, leads)
    assert found.seen == found.clips == len(leads)
    assert not found.passed
    assert found.flipped == 0
