"""A covered lead is gone from the picture, and an equal patch elsewhere leaves it."""

from __future__ import annotations

import numpy as np
import pytest

from models.simulator import Lead, SimulatedClip, Structure, simulate
from models.simulator.cover import cover, elsewhere, patch_of
from models.views import View


@pytest.fixture(scope="module")
def clip() -> SimulatedClip:
    return simulate(
        View.A4C, seed=21, frames=3, size=(240, 320), lead=Lead.DEFIBRILLATOR, colour_flow=False,
        frame_time_ms=120,
    )  # fmt: skip


def brightness(clip: SimulatedClip, where: np.ndarray) -> float:
    return float(np.percentile(clip.grey[where], 90))


def test_a_covered_lead_is_no_brighter_than_what_lies_around_it(clip: SimulatedClip) -> None:
    lead = clip.truth.mask(Structure.LEAD)
    around = patch_of(clip, Structure.LEAD, margin_px=14) & ~patch_of(clip, Structure.LEAD)
    covered = cover(clip, Structure.LEAD, np.random.default_rng(0))

    assert brightness(clip, lead) > brightness(clip, around) + 25
    assert brightness(covered, lead) < brightness(clip, around) + 15
    assert float(np.median(covered.grey[lead])) > 0.4 * float(np.median(clip.grey[around]))
    assert not covered.truth.mask(Structure.LEAD).any()
    assert covered.truth.lead is True


def test_the_rest_of_the_picture_stays(clip: SimulatedClip) -> None:
    patch = patch_of(clip, Structure.LEAD)
    covered = cover(clip, Structure.LEAD, np.random.default_rng(0))

    assert np.array_equal(covered.frames[~patch], clip.frames[~patch])


def test_the_patch_has_speckle_like_its_surroundings(clip: SimulatedClip) -> None:
    patch = patch_of(clip, Structure.LEAD)
    covered = cover(clip, patch, np.random.default_rng(0))

    assert covered.grey[patch].std() > 0.25 * clip.grey[patch].std()


def test_a_patch_elsewhere_is_as_large_in_the_sector_and_apart(clip: SimulatedClip) -> None:
    patch = patch_of(clip, Structure.LEAD)
    for seed in range(5):
        other = elsewhere(clip, patch, np.random.default_rng(seed))

        assert np.array_equal(other.sum(axis=(1, 2)), patch.sum(axis=(1, 2)))
        assert not (other & patch).any()
        assert clip.sector_mask is not None
        assert not (other & ~clip.sector_mask).any()


def test_covering_elsewhere_leaves_the_lead(clip: SimulatedClip) -> None:
    rng = np.random.default_rng(1)
    patch = patch_of(clip, Structure.LEAD)
    covered = cover(clip, elsewhere(clip, patch, rng), rng)

    assert np.array_equal(covered.frames[patch], clip.frames[patch])
    assert np.array_equal(covered.truth.mask(Structure.LEAD), clip.truth.mask(Structure.LEAD))


def test_a_colour_clip_is_covered_in_every_channel() -> None:
    clip = simulate(View.A4C, seed=2, frames=1, size=(240, 320), lead=True, colour_flow=True)
    covered = cover(clip, Structure.LEAD, np.random.default_rng(0))

    assert covered.frames.shape == clip.frames.shape
    assert not np.array_equal(covered.frames, clip.frames)


def test_nothing_to_cover_is_said() -> None:
    without = simulate(View.A4C, seed=21, frames=1, size=(160, 200), lead=False)
    with pytest.raises(ValueError, match="in no frame"):
        cover(without, Structure.LEAD, np.random.default_rng(0))
    still = simulate(View.CW, seed=1, size=(160, 200))
    with pytest.raises(ValueError, match="no two-dimensional picture"):
        cover(still, Structure.LEAD, np.random.default_rng(0))


def test_a_patch_without_room_elsewhere_is_refused(clip: SimulatedClip) -> None:
    assert clip.sector_mask is not None
    everything = np.repeat(clip.sector_mask[None], 3, axis=0)
    with pytest.raises(ValueError, match="no room"):
        elsewhere(clip, everything, np.random.default_rng(0))
