"""A simulated person shapes the heart, the picture and the labels that a data set takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from models.simulator import VISIBLE, Lead, Person, Sex, Structure, random_person, simulate
from models.simulator.clip import MOST_WALL_CM, SEVERE_LA_ML_PER_M2, Truth
from models.simulator.heart import Heart, random_heart
from models.simulator.person import shape_heart
from models.tasks import CLIP_TASKS
from models.views import View

SIZE = (160, 200)
MIDDLE = Person(age_years=60, sex=Sex.MALE, weight_kg=78, height_cm=172)


def hearts(person: Person) -> list[Heart]:
    """The same thirty hearts, as they would be in this person."""
    return [
        shape_heart(random_heart(np.random.default_rng(seed)), person, np.random.default_rng(seed))
        for seed in range(30)
    ]


def mean(person: Person, name: str) -> float:
    return float(np.mean([getattr(heart, name) for heart in hearts(person)]))


@pytest.mark.parametrize(
    ("changed", "name", "least"),
    [
        ({"sex": Sex.FEMALE}, "edv_ml", 0.85),
        ({"height_cm": 190.0}, "edv_ml", 1.05),
        ({"weight_kg": 110.0}, "chest_cm", 1.5),
        ({"age_years": 85.0}, "calcium", 1.6),
        ({"age_years": 85.0}, "aorta_radius_cm", 1.03),
    ],
)
def test_each_property_of_the_person_changes_its_part_of_the_heart(
    changed: dict[str, Any], name: str, least: float
) -> None:
    ratio = mean(replace(MIDDLE, **changed), name) / mean(MIDDLE, name)

    assert ratio < least if least < 1 else ratio > least


def test_no_property_alone_settles_the_size_of_the_heart() -> None:
    women = [heart.edv_ml for heart in hearts(replace(MIDDLE, sex=Sex.FEMALE, height_cm=162))]
    men = [heart.edv_ml for heart in hearts(MIDDLE)]

    assert max(women) > np.median(men)
    assert min(men) < np.median(women)


def test_age_brightens_the_annulus_in_the_picture_and_leaves_the_muscle() -> None:
    young, old = (
        simulate(
            View.A4C,
            seed=3,
            frames=1,
            size=(300, 400),
            colour_flow=False,
            person=replace(MIDDLE, age_years=years),
            edv_ml=120,
        ).grey[0].astype(float)
        for years in (22.0, 90.0)
    )  # fmt: skip
    change = old - young

    assert np.percentile(change, 99.5) > 25
    assert abs(np.median(change[young > 0])) < 5


def test_weight_puts_the_heart_deeper() -> None:
    def top(weight: float) -> float:
        clip = simulate(
            View.A4C, seed=5, frames=1, size=(300, 400), person=replace(MIDDLE, weight_kg=weight)
        )
        rows = np.flatnonzero(clip.truth.mask(Structure.LV_CAVITY)[0].any(axis=1))
        return float(rows[0])

    assert top(130.0) > top(60.0) + 5


def test_the_labels_have_the_names_and_ranges_of_the_tasks() -> None:
    for seed in range(12):
        labels = simulate(View.A4C, seed=seed, frames=1, size=SIZE, masks=False).truth.labels()

        assert set(labels) == set(CLIP_TASKS)
        for name, value in labels.items():
            assert CLIP_TASKS[name].low <= value <= CLIP_TASKS[name].high


@pytest.mark.parametrize("view", list(View))
def test_a_view_has_the_labels_that_it_shows_and_no_others(view: View) -> None:
    labels = simulate(view, seed=1, frames=1, size=SIZE, masks=False).truth.labels()

    assert set(labels) == {name for name, views in VISIBLE.items() if view in views}


@pytest.mark.parametrize(("wall", "sex", "thick"), [
    (0.95, Sex.FEMALE, 1.0), (0.95, Sex.MALE, 0.0), (1.05, Sex.MALE, 1.0), (0.85, Sex.FEMALE, 0.0),
])  # fmt: skip
def test_hypertrophy_starts_above_the_normal_wall_of_the_sex(
    wall: float, sex: Sex, thick: float
) -> None:
    person = replace(MIDDLE, sex=sex)
    clip = simulate(View.A4C, seed=1, frames=1, size=SIZE, person=person, wall_cm=wall)

    assert clip.truth.wall_cm == wall
    assert clip.truth.labels()["lvh"] == thick
    assert MOST_WALL_CM[Sex.FEMALE] < MOST_WALL_CM[Sex.MALE]


def test_dilation_is_severe_by_volume_over_body_surface() -> None:
    surface = MIDDLE.bsa_m2
    truth = Truth(kind="a4c", person=MIDDLE, la_volume_ml=(SEVERE_LA_ML_PER_M2 + 1) * surface)

    assert truth.labels()["la_dilation"] == 1.0
    smaller = replace(truth, la_volume_ml=(SEVERE_LA_ML_PER_M2 - 1) * surface)
    assert smaller.labels()["la_dilation"] == 0.0
    assert surface == pytest.approx(1.91, abs=0.02)  # Du Bois, 78 kg and 172 cm


def test_what_is_asked_for_is_what_the_truth_says() -> None:
    clip = simulate(
        View.A4C, seed=2, frames=1, size=SIZE, person=MIDDLE, ef=40, edv_ml=150, wall_cm=1.4,
        heart_rate_bpm=100, lead=Lead.DEFIBRILLATOR,
    )  # fmt: skip
    truth = clip.truth

    assert (truth.ef_percent, truth.edv_ml, truth.wall_cm) == (40, 150, 1.4)
    assert truth.heart_rate_bpm == 100
    assert truth.lead_kind is Lead.DEFIBRILLATOR
    assert truth.labels()["age"] == 60


def test_a_larger_atrium_is_larger_in_truth_and_mask() -> None:
    usual, large = (
        simulate(View.A4C, seed=9, frames=1, size=(300, 400), la_scale=scale).truth
        for scale in (1.0, 1.4)
    )
    assert usual.la_volume_ml is not None
    assert large.la_volume_ml == pytest.approx(usual.la_volume_ml * 1.4**3)
    sizes = [truth.mask(Structure.LEFT_ATRIUM).sum() for truth in (usual, large)]
    assert sizes[1] > 1.4 * sizes[0]


def test_the_right_atrium_of_the_mask_is_as_long_as_the_truth_says() -> None:
    ratios = []
    for seed in range(8):
        clip = simulate(
            View.A4C, seed=seed, frames=12, size=(240, 320), frame_time_ms=80, colour_flow=False
        )
        assert clip.sector_mask is not None
        assert clip.truth.cm_per_pixel is not None
        masks = clip.truth.mask(Structure.RIGHT_ATRIUM)
        largest = masks[int(masks.sum(axis=(1, 2)).argmax())]
        if (largest & ~binary_erosion(clip.sector_mask, iterations=2)).any():
            continue  # cut by the sector's edge
        points = np.argwhere(largest) - np.argwhere(largest).mean(axis=0)
        axis = np.linalg.svd(points, full_matrices=False)[2][0]
        length = float(np.ptp(points @ axis)) * clip.truth.cm_per_pixel
        assert clip.truth.ra_length_cm is not None
        ratios.append(length / clip.truth.ra_length_cm)

    assert len(ratios) >= 4
    assert float(np.mean(ratios)) == pytest.approx(1.0, abs=0.08)


def test_a_defibrillator_s_lead_is_thicker_than_a_pacemaker_s() -> None:
    thin, thick = (
        simulate(View.A4C, seed=4, frames=1, size=(300, 400), lead=lead)
        .truth.mask(Structure.LEAD)
        .sum()
        for lead in Lead
    )
    assert thick > 1.3 * thin > 0


def test_the_person_changes_the_heart_and_not_the_screen() -> None:
    one, two = (
        simulate(View.PSLA, seed=6, frames=1, size=(240, 320), person=person)
        for person in (MIDDLE, replace(MIDDLE, age_years=30, sex=Sex.FEMALE))
    )
    assert one.frames.shape == two.frames.shape
    assert one.sector_mask is not None
    assert two.sector_mask is not None
    outside = ~(one.sector_mask | two.sector_mask)
    outside[48:] = False  # the depth and its ticks may differ; the header does not
    assert np.array_equal(one.frames[0][outside], two.frames[0][outside])


def test_drawn_persons_keep_what_was_given() -> None:
    for seed in range(20):
        person = random_person(np.random.default_rng(seed), age_years=70, sex=Sex.FEMALE)
        assert (person.age_years, person.sex) == (70, Sex.FEMALE)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"ef": 90}, "an ejection fraction of 90 %"),
        ({"edv_ml": 500}, "an end-diastolic volume of 500 mL"),
        ({"wall_cm": 3}, "a wall of 3 cm"),
        ({"la_scale": 4}, "an atrium of 4 times"),
        ({"heart_rate_bpm": 10}, "a heart rate of 10 a minute"),
        ({"frame_time_ms": 0.5}, "a time between frames of 0.5 ms"),
        ({"size": (20, 200)}, "a side of the screen of 20 pixels"),
        ({"seed": -1}, "a seed"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_the_range(
    asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        simulate(View.A4C, **{"seed": 1, "frames": 1, "size": SIZE, **asked})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"age_years": 4}, "an age of 4 years"),
        ({"weight_kg": 400}, "a weight of 400 kg"),
        ({"height_cm": 90}, "a height of 90 cm"),
    ],
)
def test_a_person_out_of_range_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(MIDDLE, **given)
