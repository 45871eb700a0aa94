"""The view classifier's data and choices: nothing leaks, nothing depends on workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import packs
from models.data.camus import TracedFrame
from models.packs import InputSpec
from models.simulator import simulate
from models.training.view_patients import LENT_VIEWS, Donor, patient_clip
from models.training.view_set import (
    ViewSet,
    clip_means,
    first_of_clip,
    plan,
    served,
    split_patients,
)
from models.views import View

PACK = Path(packs.__file__).parent / "views"
SPEC = InputSpec(rows=60, columns=80, mean=0.2, std=0.2)
SIZE = (240, 320)


def donor() -> Donor:
    """A four-chamber frame that looks like one of the patients': a sector, a tracing."""
    clip = simulate(View.A4C, seed=5, frames=1, size=SIZE, colour_flow=False)
    box = clip.sector_box
    assert box is not None
    window = np.s_[box[0] : box[2], box[1] : box[3]]
    labels = clip.truth.mask(1)[0][window].astype(np.uint8)
    labels[clip.truth.mask(3)[0][window]] = 3
    return Donor(
        frame=TracedFrame(grey=clip.grey[0][window], labels=labels, row_mm=0.5, column_mm=0.5)
    )


def test_no_clip_is_in_two_splits_and_every_view_is_in_each() -> None:
    jobs = plan(seed=1, clips=3, held_clips=2, test_clips=2, patient_clips=8)

    seeds = [(job.view, job.seed) for job in jobs]
    assert len(set(seeds)) == len(seeds)
    for split in ("train", "held", "test"):
        assert {job.view for job in jobs if job.split == split} == set(View)


def test_patients_pixels_stand_in_for_more_views_than_their_own() -> None:
    jobs = plan(seed=1, clips=3, held_clips=2, test_clips=2, patient_clips=8)
    lent = {job.view for job in jobs if job.lent}

    assert lent == set(LENT_VIEWS)
    assert len(lent - {View.A4C}) >= 4


@pytest.mark.parametrize("view", LENT_VIEWS)
def test_a_stand_in_is_another_picture_than_the_frame_it_was_made_of(view: View) -> None:
    made = donor()
    clip = patient_clip(made, view, rng=np.random.default_rng(2), size=SIZE)
    plain = patient_clip(made, View.A4C, rng=np.random.default_rng(2), size=SIZE, disguise=False)

    assert clip.view is view
    assert clip.grey.std() > 2
    assert not np.array_equal(clip.grey, plain.grey)


def test_a_view_without_stand_in_is_refused() -> None:
    with pytest.raises(ValueError, match="supao"):
        patient_clip(donor(), View.SUPAO, rng=np.random.default_rng(0), size=SIZE)


def test_examples_are_what_the_reader_would_show_the_network() -> None:
    from models.clip import read_clip
    from models.preprocess import fit_grey
    from models.simulator.dicom import to_bytes, to_dicom

    clip = simulate(View.A2C, seed=9, frames=3, size=SIZE, colour_flow=False)
    read = read_clip(to_bytes(to_dicom(clip, study_uid="1.2.3")))

    assert np.array_equal(served(clip, SPEC), fit_grey(read.frames(), SPEC)[0])


def test_the_mean_over_a_clip_keeps_clips_apart() -> None:
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    clip = np.array([4, 4, 7])

    assert clip_means(values, clip).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert first_of_clip([2, 2, 3], clip).tolist() == [2, 3]


def test_a_set_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    made = ViewSet(
        grey=np.zeros((3, 60, 80), np.uint8),
        label=np.array([0, 1, 2]),
        clip=np.array([0, 0, 1]),
        lent=np.array([False, False, True]),
        split=np.array(["train", "train", "held"]),
        mode=np.array(["2d", "2d", "unknown"]),
    )
    made.save(tmp_path / "set.npz")

    read = ViewSet.load(tmp_path / "set.npz")

    assert read.part("held", lent=True).label.tolist() == [2]
    assert read.part("train").clip.tolist() == [0, 0]
    assert read.part("held").mode.tolist() == ["unknown"]
    assert read.with_more(made).clip.tolist() == [0, 0, 1, 2, 2, 3]


def test_camus_validation_patients_are_for_the_test_alone(shared_data: Path) -> None:
    parts = split_patients(shared_data / "camus_a4c", seed=1)
    names = {split: {patient.name for patient in part} for split, part in parts.items()}

    assert len(names["test"]) == 50
    assert not names["train"] & names["held"]
    assert not (names["train"] | names["held"]) & names["test"]


class TestChoices:
    """Temperature and threshold are chosen on clips that no weight saw."""

    def test_overconfident_logits_get_a_temperature_above_one(self) -> None:
        from models.training.views import choose_temperature

        rng = np.random.default_rng(0)
        labels = rng.integers(0, 4, 500)
        given = np.where(rng.random(500) < 0.7, labels, rng.integers(0, 4, 500))
        logits = 20 * np.eye(4, dtype=np.float32)[given]

        assert choose_temperature(logits, labels) > 2

    def test_the_threshold_is_the_lowest_that_keeps_labels_right(self) -> None:
        from models.training.views import choose_threshold

        chances = np.array([[0.9, 0.1]] * 99 + [[0.55, 0.45]] * 5)
        labels = np.array([0] * 99 + [1] * 5)

        assert choose_threshold(chances, labels) == pytest.approx(0.56, abs=0.011)

    def test_wrong_four_chamber_labels_on_patients_pixels_raise_the_threshold(self) -> None:
        from models.training.view_set import CLASSES
        from models.training.views import choose_threshold

        a4c, count = CLASSES.index(View.A4C), 100
        chances = np.zeros((count, len(CLASSES)))
        chances[:, a4c] = np.where(np.arange(count) < 20, 0.7, 0.9)
        labels = np.where(np.arange(count) < 20, 0, a4c)
        lent = np.arange(count) < 20

        assert choose_threshold(chances[~lent], labels[~lent]) == pytest.approx(0.5)
        assert choose_threshold(chances, labels, lent) == pytest.approx(0.71, abs=0.011)

    def test_the_temperature_is_that_of_clips_not_of_frames(self) -> None:
        from models.training.views import choose_temperature

        # One frame in three is wrong, and each clip's vote is right.
        given = np.tile([0, 0, 1], 50)
        logits = 8 * np.eye(2, dtype=np.float32)[given]
        labels, clip = np.zeros(150, np.int64), np.repeat(np.arange(50), 3)

        assert choose_temperature(logits, labels, clip) != choose_temperature(logits, labels)

    def test_batches_show_every_view_as_often_and_patients_a_third_of_the_time(self) -> None:
        from models.training.views import ViewBatches, _sampling

        count = 300
        lent = np.array([False] * 240 + [True] * 10 + [False] * 50)
        data = ViewSet(
            grey=np.full((count, 60, 80), 60, np.uint8),
            label=np.array([4] * 250 + [6] * 50),
            clip=np.arange(count),
            lent=lent,
            split=np.array(["train"] * count),
            mode=np.array(["2d"] * count),
        )
        chances = _sampling(data, 0.35, {})

        inputs, labels = ViewBatches(data, batch=400, steps=1, seed=3)[0]

        assert inputs.shape == (400, 60, 80, 1)
        assert 0.4 < (labels == 4).mean() < 0.6
        assert chances.sum() == pytest.approx(1)
        assert chances[lent].sum() == pytest.approx(0.5 * 0.35)

    def test_a_batch_is_the_same_when_it_is_drawn_again(self) -> None:
        from models.training.views import ViewBatches

        rng = np.random.default_rng(0)
        data = ViewSet(
            grey=rng.integers(0, 255, (20, 60, 80)).astype(np.uint8),
            label=np.arange(20) % 16,
            clip=np.arange(20),
            lent=np.zeros(20, bool),
            split=np.array(["train"] * 20),
            mode=np.array(["2d"] * 20),
        )
        one, other = (ViewBatches(data, batch=8, steps=3, seed=5) for _ in range(2))
        one[0]

        assert np.array_equal(one[2][0], other[2][0])
        assert not np.array_equal(one[1][0], other[2][0])


class TestEvidence:
    """The figures of a page: what the reader would have said."""

    def test_a_declared_still_goes_before_the_picture(self) -> None:
        from models.training.view_evidence import with_header
        from models.training.view_set import CLASSES

        means = np.full((3, len(CLASSES)), 1 / len(CLASSES))
        read = with_header(means, ["cw", "2d", "unknown"])

        assert read[0, CLASSES.index(View.CW)] == 1
        assert read[1, CLASSES.index(View.CW)] == 0
        assert read[1].sum() == pytest.approx(1)
        assert np.array_equal(read[2], means[2])

    def test_the_page_tells_of_certain_four_chamber_calls_and_of_files(self) -> None:
        from models.packs import load_pack
        from models.training.view_evidence import (
            Answers,
            NamedFile,
            Verdict,
            evaluation_page,
            test_figures,
        )
        from models.training.view_set import CLASSES

        a4c = CLASSES.index(View.A4C)
        label = np.array([a4c] * 10 + [0] * 10 + [a4c] * 4 + [0] * 4)
        given = np.where(np.arange(28) % 5 == 0, 1, label)  # 2 of 10 A4C clips are missed
        given[10] = a4c  # and one other clip is taken for A4C
        chances = np.eye(len(CLASSES))[given]
        answers = Answers(
            chances=chances,
            label=label,
            clip=np.arange(28),
            lent=np.arange(28) >= 20,
            mode=np.array(["2d"] * 28),
        )
        named = NamedFile(name="liver", shows="a liver", said="other", score=0.9, certain=True)
        verdict = Verdict(
            simulated=answers,
            patients=np.eye(len(CLASSES))[[a4c, a4c, 0]],
            files=(named,),
            threshold=0.7,
            temperature=1.0,
            same_answers=1.0,
            data_sha256="",
        )

        figures = test_figures(verdict, seed=0)
        page = evaluation_page(load_pack(PACK).manifest, figures)

        read = figures["simulated"]["as_read"]
        assert read["a4c_certain_recall"]["value"] == pytest.approx(0.8)
        assert read["a4c_certain_precision"]["value"] == pytest.approx(8 / 9, abs=1e-4)
        assert read["confusion"][a4c][a4c] == 8
        assert figures["patients"]["certain_and_called_another"] == 1
        assert "| liver | a liver | other | 0.90 | yes |" in page
