"""Simulated clips: what they show is what their truth says."""

from __future__ import annotations

import numpy as np
import pytest

from models.simulator import RegionType, Structure, simulate
from models.simulator.heart import random_heart
from models.simulator.others import KINDS, simulate_other
from models.views import View

SIZE = (240, 320)
SECTIONS = [view for view in View if view not in (View.PW, View.CW, View.M_MODE, View.OTHER)]


@pytest.mark.parametrize("view", list(View))
def test_every_view_gives_frames_of_the_size_asked_for(view: View) -> None:
    clip = simulate(view, seed=1, frames=2, size=SIZE)

    assert clip.view is view
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape[1:3] == SIZE
    assert clip.grey.shape == (len(clip.frames), *SIZE)
    assert clip.grey.std() > 2


@pytest.mark.parametrize("view", [View.A4C, View.CW, View.M_MODE, View.OTHER])
def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(view: View) -> None:
    first, again, other = (simulate(view, seed=seed, frames=2, size=SIZE) for seed in (5, 5, 6))

    assert np.array_equal(first.frames, again.frames)
    assert first.frames.shape != other.frames.shape or not np.array_equal(
        first.frames, other.frames
    )


def test_the_truth_holds_the_ejection_fraction_that_was_asked_for() -> None:
    clip = simulate(View.A4C, seed=3, ef=35.0, size=SIZE)
    truth = clip.truth

    assert truth.ef_percent == 35.0
    assert truth.edv_ml is not None
    assert truth.esv_ml == pytest.approx(0.65 * truth.edv_ml)
    assert max(truth.volumes_ml) == pytest.approx(truth.edv_ml, rel=0.03)
    assert min(truth.volumes_ml) == pytest.approx(truth.esv_ml, rel=0.05)


@pytest.mark.parametrize("ef", [25.0, 60.0])
def test_discs_over_the_cavity_mask_measure_the_volume_of_the_truth(ef: float) -> None:
    # A half ellipsoid's volume from its area and length: V = 8 A^2 / (3 pi L), with A the
    # area of the half ellipse. So area and volume can be checked against each other.
    for seed in range(20):
        clip = simulate(View.A4C, seed=seed, ef=ef, size=(480, 640), colour_flow=False)
        truth = clip.truth
        cavity = truth.mask(Structure.LV_CAVITY)
        assert truth.cm_per_pixel is not None
        assert truth.edv_ml is not None
        largest, smallest = int(np.argmax(truth.volumes_ml)), int(np.argmin(truth.volumes_ml))
        areas = cavity.sum(axis=(1, 2)) * truth.cm_per_pixel**2
        length = _extent(cavity[largest]) * truth.cm_per_pixel
        if areas[largest] < 10 or _touches_edge(cavity[largest], clip.sector_box):
            continue
        measured = 8 * areas[largest] ** 2 / (3 * np.pi * length)
        assert measured == pytest.approx(truth.edv_ml, rel=0.12)
        assert areas[smallest] < areas[largest]
        return
    raise AssertionError("no seed shows the whole ventricle")


def test_the_cavity_is_darker_than_the_muscle() -> None:
    darker = 0
    for seed in range(8):
        clip = simulate(View.A4C, seed=seed, frames=1, size=SIZE, colour_flow=False)
        cavity = clip.grey[clip.truth.mask(Structure.LV_CAVITY)]
        muscle = clip.grey[clip.truth.mask(Structure.MYOCARDIUM)]
        darker += bool(np.median(cavity) < np.median(muscle))
    assert darker >= 7


def test_a_lead_is_marked_only_where_there_is_one() -> None:
    with_lead = simulate(View.A4C, seed=4, frames=1, lead=True, size=SIZE)
    without = simulate(View.A4C, seed=4, frames=1, lead=False, size=SIZE)

    assert with_lead.truth.lead is True
    assert with_lead.truth.mask(Structure.LEAD).any()
    assert not without.truth.mask(Structure.LEAD).any()


def test_frames_cover_one_beat_when_no_number_is_given() -> None:
    clip = simulate(View.PSLA, seed=2, size=SIZE, frame_time_ms=40.0)
    assert clip.truth.heart_rate_bpm is not None
    beat_ms = 60_000 / clip.truth.heart_rate_bpm

    assert beat_ms <= len(clip.frames) * 40.0 < beat_ms + 80.0


def test_the_heart_moves_and_the_screen_around_it_does_not() -> None:
    clip = simulate(View.SAX_MID, seed=7, frames=6, size=SIZE, frame_time_ms=80.0)
    box = clip.sector_box
    assert box is not None
    outside = np.ones(SIZE, bool)
    outside[box[0] : box[2], box[1] : box[3]] = False
    outside[round(SIZE[0] * 0.8) :] = False  # the ECG's strip

    moved = np.ptp(clip.grey.astype(int), axis=0) > 8
    assert moved[box[0] : box[2], box[1] : box[3]].mean() > 0.2
    assert not moved[outside].any()


def test_two_pictures_side_by_side_show_the_same_heart_and_only_one_has_colour() -> None:
    clip = simulate(View.A4C, seed=40, frames=2, size=SIZE, dual=True)
    left, right = clip.regions

    assert left.right <= right.left
    assert (left.type, right.type) == (RegionType.TISSUE, RegionType.COLOUR_FLOW)
    cavity = clip.truth.mask(Structure.LV_CAVITY)[0]
    middle = (left.right + right.left) // 2
    assert cavity[:, :middle].sum() == pytest.approx(cavity[:, middle:].sum(), rel=0.05)
    coloured = np.ptp(clip.frames[0].astype(int), axis=-1) > 60
    assert clip.sector_mask is not None
    assert not (coloured & clip.sector_mask)[:, :middle].any()
    assert (coloured & clip.sector_mask)[:, middle:].any()


def test_a_colour_box_has_a_border_that_stands_still() -> None:
    clip = simulate(View.PSLA, seed=45, frames=3, size=SIZE, colour_flow=True)
    ink = next(
        shade
        for shade in (
            (255, 255, 255),
            (170, 170, 170),
            (80, 200, 255),
            (40, 90, 255),
            (90, 230, 90),
        )
        if (clip.frames[0] == shade).all(axis=-1)[clip.sector_mask].sum() > 40
    )
    drawn = (clip.frames == ink).all(axis=-1) & clip.sector_mask

    assert drawn.all(axis=0).sum() > 40


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_other_can_be_drawn(kind: str) -> None:
    clip = simulate_other(rng=np.random.default_rng(0), seed=0, frames=1, size=SIZE, kind=kind)

    assert clip.view is View.OTHER
    assert clip.truth.kind == kind


def test_an_impossible_ejection_fraction_is_refused() -> None:
    with pytest.raises(ValueError, match="98"):
        random_heart(np.random.default_rng(0), ef_percent=98.0)


def test_a_clip_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        simulate(View.A4C, seed=1, frames=0)


def _extent(mask: np.ndarray) -> float:
    points = np.argwhere(mask).astype(float)
    points -= points.mean(axis=0)
    axis = np.linalg.svd(points, full_matrices=False)[2][0]
    return float(np.ptp(points @ axis))


def _touches_edge(mask: np.ndarray, box: tuple[int, int, int, int] | None) -> bool:
    assert box is not None
    rows, columns = np.nonzero(mask)
    return bool(
        rows.max() >= box[2] - 3 or columns.min() <= box[1] + 3 or columns.max() >= box[3] - 3
    )
