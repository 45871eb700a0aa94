"""The view classifier's data and choices: nothing leaks, nothing depends on workers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import camus
from models.data.camus import CamusDataset, TracedFrame
from models.data.dataset import DatasetError
from models.evaluation.table import table
from models.packs import InputSpec, Pack
from models.simulator import simulate
from models.training.recipe import Trial
from models.training.view_patients import LENT_VIEWS, Donor, patient_clip
from models.training.view_set import (
    CLASSES,
    ViewSet,
    clip_means,
    first_of_clip,
    plan,
    served,
    split_patients,
)
from models.views import View, softmax
from node.cli.figures import can_be_printed

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


def test_camus_validation_patients_are_for_the_test_alone(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.zeros((1, 1), np.uint8)
    frame = TracedFrame(grey=nothing, labels=nothing, row_mm=1.0, column_mm=1.0)
    monkeypatch.setattr(camus, "_frame", lambda *_: frame)  # names are enough, and quick to read
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


def _noise(seed: int, *, lent: tuple[bool, ...], modes: tuple[str, ...]) -> ViewSet:
    """Two frames of each of some clips of A4C and parasternal views, all of the test."""
    count = len(lent)
    a4c, psla = CLASSES.index(View.A4C), CLASSES.index(View.PSLA)
    return ViewSet(
        grey=np.random.default_rng(seed).integers(1, 255, (2 * count, 60, 80)).astype(np.uint8),
        label=np.repeat([a4c if clip % 2 else psla for clip in range(count)], 2),
        clip=np.repeat(np.arange(count), 2) + 7,
        lent=np.repeat(lent, 2),
        split=np.array(["test"] * 2 * count),
        mode=np.repeat(modes, 2),
    )


class TestEvidence:
    """The clips of a training as a data set, and what only this pack's report has."""

    def test_a_kept_clip_is_read_as_the_one_that_it_was_made_of(self) -> None:
        from models.preprocess import fit_grey
        from models.training.view_evidence import ViewClips

        data = _noise(1, lent=(False, False, True), modes=("2d", "cw", "unknown"))
        psla, a4c = ViewClips(data=data).cases("valid")

        assert (psla.view, a4c.view) == (View.PSLA, View.A4C)
        assert len({psla.patient, a4c.patient}) == 2
        assert np.array_equal(fit_grey(psla.clip().frames(), SPEC)[0], data.grey[:2])
        assert [one.clip().mode for one in (psla, a4c)] == ["2d", "cw"]
        (lent,) = ViewClips(data=data, lent=True).cases("valid")
        assert np.array_equal(lent.clip().frames(), data.grey[4:])
        assert ViewClips(data=data).cases("held") == ()
        with pytest.raises(DatasetError, match="no split 'test'"):
            ViewClips(data=data).cases("test")

    def test_its_fingerprint_goes_with_frames_and_labels(self) -> None:
        from models.training.view_evidence import ViewClips

        data = _noise(1, lent=(False, False), modes=("2d", "2d"))
        other = replace(data, label=data.label[::-1])
        prints = {ViewClips(data=one).fingerprint for one in (data, other)}

        assert len(prints) == 2
        assert ViewClips(data=data).fingerprint in prints

    def test_stand_ins_called_a4c_are_counted_apart_from_a4c_in_disguise(self) -> None:
        from models.data.dataset import Case
        from models.evaluation.reading import Answer
        from models.training.view_evidence import stand_in_figures
        from models.views import ViewCall

        def answer(truth: View, called: View, *, certain: bool) -> Answer:
            case = Case(patient="", name="", clip=lambda: _never(), view=truth)
            return Answer(case=case, call=ViewCall(view=called, score=0.8, certain=certain))

        found = stand_in_figures(
            [
                answer(View.A2C, View.A4C, certain=True),
                answer(View.A2C, View.A4C, certain=False),
                answer(View.A2C, View.A2C, certain=True),
                answer(View.PSLA, View.OTHER, certain=True),
                answer(View.A4C, View.A4C, certain=True),
            ]
        )

        assert (found["bent"]["clips"], found["bent"]["called_a4c"]) == (4, 2)
        assert found["bent"]["certain_and_called_a4c"] == 1
        assert found["bent"]["called_as_meant"][0] == 0.25
        assert found["disguised_a4c"]["called_a4c_share"][0] == 1.0


def _never() -> Any:
    raise AssertionError("no clip is read for this")


@pytest.mark.filterwarnings("ignore:Even though the .tf.config.experimental_run_functions_eag")
@pytest.mark.timeout(600)
class TestPacking:
    """From a training's folder to a pack with its report, by the road of every pack."""

    @pytest.fixture(scope="class")
    @classmethod
    def packed(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Trial, Path]:
        """A training of two steps on noise, packed; its CAMUS has two patients of the test."""
        import tensorflow as tf

        from models.training import views_recipe
        from models.training.packing import pack_with_evidence

        root = tmp_path_factory.mktemp("views")
        camus, work = root / "camus", root / "work"
        _write_camus(camus)
        work.mkdir()
        every = [
            replace(
                _noise(seed, lent=(False,) * 6 + (True,) * 2, modes=("2d",) * 4 + ("unknown",) * 4),
                split=np.array([split] * 16),
            )
            for seed, split in enumerate(("train", "held", "test"))
        ]
        every[0].with_more(every[1]).with_more(every[2]).save(work / "data.npz")
        trial = Trial(
            seed=1,
            work=work,
            epochs=2,
            settings={"steps": 1, "batch": 4, "widths": [2, 2, 2]},
            command="echonode train views",
        )
        datasets = [CamusDataset(folder=camus)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("models.training.loop.draw_curves", lambda *_, **__: None)
            tf.config.run_functions_eagerly(run_eagerly=True)  # two steps: not worth compiling
            try:
                views_recipe.RECIPE.fit(datasets, trial)
            finally:
                tf.config.run_functions_eagerly(run_eagerly=False)
            states = sorted(path.name for path in work.glob("state*"))
            assert states == ["state-learn.npz", "state-settle.npz"]
            fewer = partial(pack_with_evidence, draws=20)
            patch.setattr("models.training.views.pack_with_evidence", fewer)
            return views_recipe.RECIPE.pack(datasets, trial, root / "pack"), trial, camus

    def test_it_has_the_report_of_every_pack_and_sections_of_its_own(
        self, packed: tuple[Pack, Trial, Path]
    ) -> None:
        pack = packed[0]
        held = json.loads((pack.folder / "evaluation.json").read_text())
        page = (pack.folder / "evaluation.md").read_text()

        assert pack.manifest.training_command == "echonode train views"
        simulated, patients = held["reports"]
        assert simulated["dataset"]["evidence"] == "simulated"
        assert simulated["dataset"]["clips"] == 6
        assert (patients["dataset"]["name"], patients["dataset"]["patients"]) == ("camus-a4c", 2)
        assert {one["view"] for one in simulated["views"]["by_view"]} == {"a4c", "psla"}
        assert {one["view"] for one in patients["views"]["by_view"]} == {"a4c"}
        assert set(held["sections"]) == {"stored", "stand_ins", "files", "limits"}
        assert held["sections"]["stand_ins"]["bent"]["clips"] == 1
        assert held["sections"]["stand_ins"]["disguised_a4c"]["clips"] == 1
        assert "view" in held["sections"]["stored"]["outputs"]
        assert "| ybr_color | A4C 30 frames |" in page
        for picture in pack.folder.glob("*.png"):
            assert f"({picture.name})" in page
        assert {path.name for path in pack.folder.glob("evaluation-simulated-views-*.png")} == {
            "evaluation-simulated-views-ranking.png",
            "evaluation-simulated-views-views.png",
            "evaluation-simulated-views-votes.png",
        }
        assert can_be_printed(held)

    def test_the_answers_of_the_pack_are_those_of_the_network_by_hand(
        self, packed: tuple[Pack, Trial, Path]
    ) -> None:
        from models.preprocess import normalise

        pack, trial, _ = packed
        data = ViewSet.load(trial.work / "data.npz").part("test", lent=False)
        logits = np.asarray(pack.network(normalise(data.grey, pack.manifest.input)))
        means = clip_means(softmax(logits, temperature=pack.manifest.temperature), data.clip)
        right = means.argmax(axis=1) == first_of_clip(data.label, data.clip)
        report = json.loads((pack.folder / "evaluation.json").read_text())["reports"][0]

        assert report["views"]["accuracy_by_picture"][0] == pytest.approx(right.mean())

    def test_renewing_its_evidence_keeps_the_sections_and_the_readme_s_table_reads_it(
        self, packed: tuple[Pack, Trial, Path], tmp_path: Path
    ) -> None:
        from models.training.packing import renew_evidence

        pack, _, camus = packed
        folder = tmp_path / "views"
        shutil.copytree(pack.folder, folder)
        before = json.loads((folder / "evaluation.json").read_text())["sections"]
        renew_evidence(folder, [CamusDataset(folder=camus)], draws=20, plots=False)

        held = json.loads((folder / "evaluation.json").read_text())
        assert held["sections"] == before
        assert "ybr_color" in (folder / "evaluation.md").read_text()
        assert [one["dataset"]["name"] for one in held["reports"]] == ["camus-a4c"]
        rows = [line for line in table([pack.folder]).splitlines() if line.startswith("| View")]
        assert len(rows) == 4
        assert "2 classes" in rows[0]
        assert "all a4c" in rows[3]


def _write_camus(folder: Path) -> None:
    """Two patients of the split for tests: frames of noise, tracings that measure nothing."""
    folder.mkdir()
    frames = np.random.default_rng(3).integers(1, 255, (40, 50)).astype(np.uint8)
    index = ["patient\tphase\tmm_per_px_y\tmm_per_px_x"]
    volumes = ["patient\tsplit\tedv_ml\tesv_ml\tef_percent\tla_area_max_cm2"]
    for name in ("p1", "p2"):
        volumes.append(f"{name}\tvalid\t100\t50\t50\t15")
        for phase in ("ED", "ES"):
            index.append(f"{name}\t{phase}\t0.5\t0.5")
            Image.fromarray(frames).save(folder / f"{name}_4CH_{phase}.png")
            Image.fromarray(np.zeros_like(frames)).save(folder / f"{name}_4CH_{phase}_gt.png")
    (folder / "index.tsv").write_text("\n".join(index) + "\n")
    (folder / "volumes.tsv").write_text("\n".join(volumes) + "\n")
