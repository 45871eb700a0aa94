"""What the frame regressors are taught: whose numbers, moved how, judged by what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.clip import Clip, ClipError
from models.data.camus import CamusDataset
from models.data.dataset import Case
from models.data.simulated import open_dataset
from models.networks import build_network
from models.networks.inception_resnet_v1 import EARLY, MIDDLE
from models.packs import InputSpec, Join, Link
from models.training import echonet, echonet_simulated
from models.training.augment import Geometry
from models.training.echonet_frames import (
    NO_MAP,
    ClipFrames,
    FrameBatches,
    Frames,
    Head,
    Serving,
    Targets,
    Told,
    clip_values,
    labelled_clips,
    map_loss,
    nearest_labels,
    numbers_loss,
    shares,
    stored,
)
from models.training.recipe import RecipeError, Trial

_SPEC = InputSpec(rows=96, columns=96, mean=0.2, std=0.2)
_VOLUME = Head(name="lv_volume", link=Link.LOG, power=3, moves=True)
_SIGN = Head(name="lvh", score=True)
_STILL = Geometry(rotation_degrees=0.0, smallest=1.0, largest=1.0, stretch=0.0, shift=0.0, mirror=0)


def _frames(clips: int, a_clip: int = 3, side: int = 96) -> Frames:
    """Frames whose grey is ten times their clip's number, traced as cavity throughout."""
    number = np.repeat(np.arange(clips), a_clip)
    greys = np.broadcast_to(10 * (1 + number)[:, None, None], (len(number), side, side))
    volumes = np.log(10.0 + np.arange(len(number)))
    return Frames(
        greys=greys.astype(np.uint8),
        labels=np.ones(greys.shape, np.uint8),
        numbers=np.stack([volumes, number % 2], axis=1).astype(np.float32),
        starts=np.arange(clips + 1, dtype=np.int64) * a_clip,
        real=np.full(clips, 2, np.int64),
        truths=np.zeros((clips, 1)),
    )


def _batches(frames: Frames, serving: Serving, grids: Any = ((9, 8),)) -> FrameBatches:
    targets = Targets(mean=np.zeros(2), spread=np.ones(2))
    return FrameBatches(frames, (_VOLUME, _SIGN), targets, _SPEC, serving, grids=grids, seed=3)


def _serving(**more: Any) -> Serving:
    given: dict[str, Any] = {"batch": 4, "geometry": _STILL, "restyled": 0.0, "brightness": 0.0}
    return Serving(**given | more)


def test_frames_of_a_clip_come_together_with_their_own_numbers() -> None:
    inputs, (numbers, _) = _batches(_frames(4), _serving())[0]
    grey = ((inputs[:, 0, 0, 0] * 0.2 + 0.2) * 255).round().astype(int)
    assert grey[0] == grey[1] != grey[2] == grey[3]
    clip = grey // 10 - 1
    volumes = np.exp(numbers[:, 0]).round().astype(int) - 10
    assert (volumes // 3 == clip).all()
    assert len(set(volumes.tolist())) == 4
    assert (numbers[:, 1] == clip % 2).all()


def test_real_frames_alone_are_taken_where_that_is_asked_for() -> None:
    batches = _batches(_frames(40), _serving(batch=80, real=1.0))
    _, (numbers, _) = batches[0]
    places = np.exp(numbers[:, 0]).round().astype(int) - 10
    assert set(places % 3) == {0, 1}


def test_a_larger_picture_of_a_heart_is_a_larger_volume_in_pixels() -> None:
    larger = Geometry(
        rotation_degrees=0.0, smallest=1.2, largest=1.2, stretch=0.0, shift=0.0, mirror=0.0
    )
    frames = _frames(4)
    _, (plain, _) = _batches(frames, _serving())[0]
    _, (zoomed, _) = _batches(frames, _serving(geometry=larger))[0]
    assert zoomed[:, 0] - plain[:, 0] == pytest.approx(3 * np.log(1.2), abs=1e-5)
    assert (zoomed[:, 1] == plain[:, 1]).all()


def test_the_paper_s_way_takes_every_frame_once_an_epoch() -> None:
    batches = _batches(_frames(4), _serving(a_clip=1), grids=())
    numbers = np.concatenate([batches[index][1] for index in range(len(batches))])
    assert sorted(np.exp(numbers[:, 0]).round().tolist()) == list(range(10, 22))


def test_a_batch_depends_on_seed_and_epoch_alone() -> None:
    serving = _serving(geometry=Geometry(), restyled=1.0)
    one, other = (_batches(_frames(4), serving) for _ in range(2))
    other[1]
    assert np.array_equal(one[0][0], other[0][0])
    other.begin(1)
    assert not np.array_equal(one[0][0], other[0][0])


def test_a_cell_s_share_is_that_of_what_its_layer_sees() -> None:
    masks = np.zeros((1, 96, 96, 2), np.float32)
    masks[0, 17:25, 9:17, 1] = 1.0  # one cell of stride 8: the second row, the first column
    found = shares(masks, 9, 8)
    assert found[0, 1, 0].tolist() == [0.0, 1.0]
    assert found.sum() == 1.0


def test_the_inner_layers_have_the_strides_that_maps_are_made_for() -> None:
    network = build_network("inception_resnet_v1", _SPEC, {"outputs": 1, "width": 0.01})
    for name, stride in ((EARLY, 8), (MIDDLE, 16)):
        cells = int(network.get_layer(name).output.shape[1])
        assert shares(np.ones((1, 96, 96, 1), np.float32), cells, stride).min() == 1.0
        assert 96 - cells * stride < 4 * stride


def test_the_loss_minds_differences_within_a_clip_and_nothing_unknown() -> None:
    loss = numbers_loss((_VOLUME, _SIGN), 2, 2.0)
    truth = np.array([[0.0, 1.0], [0.0, np.nan]], np.float32)
    alike = float(loss(truth, np.array([[1.0, 0.0], [1.0, 9.0]], np.float32)))
    apart = float(loss(truth, np.array([[1.0, 0.0], [-1.0, -9.0]], np.float32)))
    assert alike == pytest.approx(1.0 + np.log(2) / 2, abs=1e-5)
    assert apart == pytest.approx(alike + 2.0, abs=1e-5)


def test_nobody_s_tracing_teaches_no_map() -> None:
    truth = np.zeros((1, 1, 2, 4), np.float32)
    truth[..., 3] = 1.0  # untraced
    assert float(map_loss(truth, np.ones((1, 1, 2, 4), np.float32))) == 0.0
    truth[0, 0, 0] = (1.0, 0.0, 0.0, 0.0)
    logits = np.zeros((1, 1, 2, 4), np.float32)
    assert float(map_loss(truth, logits)) == pytest.approx(np.log(4) / 2, abs=1e-5)


def test_frames_are_made_once_and_again_for_another_question(tmp_path: Path) -> None:
    made = []

    def clips() -> Iterator[ClipFrames]:
        made.append(1)
        for count in (2, 3):
            yield ClipFrames(
                greys=np.full((count, 8, 8), count, np.uint8),
                labels=np.full((count, 8, 8), NO_MAP, np.uint8),
                numbers=np.full((count, 1), float(count)),
                real=1,
                truths=np.array([7.0]),
            )

    for _ in range(2):
        frames = stored(tmp_path, {"side": 8, "about": 1}, clips)
    assert made == [1]
    assert frames.clips == 2
    assert frames.greys[:, 0, 0].tolist() == [2, 2, 3, 3, 3]
    assert frames.starts.tolist() == [0, 2, 5]
    stored(tmp_path, {"side": 8, "about": 2}, clips)
    assert made == [1, 1]


def test_a_clip_without_trusted_spacing_teaches_scores_and_no_sizes() -> None:
    grey = np.random.default_rng(0).integers(1, 255, (4, 96, 96)).astype(np.uint8)

    def broken() -> Clip:
        raise ClipError("no pixels")

    def case(number: int, spacing_mm: float | None) -> Case:
        return Case(
            patient=str(number),
            name=str(number),
            clip=lambda: Clip.from_frames(grey, frame_time_ms=100.0, spacing_mm=spacing_mm),
            truths={"edv": 80.0, "lvh": 1.0},
        )

    heads = (Head(name="edv", power=3), _SIGN)
    told = (Told(name="edv", head=0), Told(name="lvh", head=1))
    cases = (case(1, 2.0), case(2, None), Case(patient="3", name="3", clip=broken))
    scaled, unscaled = labelled_clips(cases, _SPEC, heads, told)
    assert scaled.numbers[0].tolist() == pytest.approx([10.0, 1.0])
    assert np.isnan(unscaled.numbers[0, 0])
    assert unscaled.numbers[0, 1] == 1.0
    assert scaled.truths.tolist() == pytest.approx([10.0, 1.0])
    assert (scaled.labels == NO_MAP).all()


def test_volumes_and_fraction_come_of_one_head() -> None:
    told = (
        Told(name="ef", head=0, join=Join.EJECTION),
        Told(name="edv", head=0, join=Join.HIGHEST),
        Told(name="esv", head=0, join=Join.LOWEST),
        Told(name="lvh", head=1),
    )
    targets = Targets(mean=np.array([np.log(50.0), 0.0]), spread=np.array([2.0, 1.0]))
    raw = np.array([[np.log(2.0) / 2, 0.0], [0.0, 0.0]])
    values = clip_values(raw, (_VOLUME, _SIGN), told, targets)
    assert values.tolist() == pytest.approx([50.0, 100.0, 50.0, 0.5])


def test_a_tracing_is_fitted_as_its_frame_is() -> None:
    from models.preprocess import fit_grey

    labels = np.zeros((60, 120), np.uint8)
    labels[20:40, 40:80] = 1
    grey, fit = fit_grey((labels * 200)[np.newaxis], _SPEC)
    fitted = nearest_labels(labels, fit)
    assert ((grey[0] > 100) == (fitted == 1)).mean() > 0.99
    assert not fitted[: fit.top].any()


def test_the_paper_s_protocol_is_the_paper_s() -> None:
    paper = echonet.paper("edv")
    assert (paper.spec.rows, paper.spec.columns, paper.width) == (299, 299, 1.0)
    assert (paper.spec.frames, paper.spec.interval_ms) == (20, 100.0)
    assert (paper.serving.batch, paper.serving.a_clip, paper.serving.brightness) == (24, 1, 0.1)
    geometry = paper.serving.geometry
    assert geometry.rotation_degrees == 20.0
    assert (geometry.smallest, geometry.largest, geometry.shift, geometry.mirror) == (1, 1, 0, 0)
    assert not paper.maps
    assert not paper.own_frame
    assert len(echonet.RECIPE.grid) == 24


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"protocol": "other"}, "there are frames and paper"),
        ({"protocol": "paper", "task": "mood"}, "no task"),
        ({"speed": 3}, "no setting speed"),
    ],
)
def test_a_setting_that_is_none_is_refused(
    tmp_path: Path, settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(RecipeError, match=why):
        echonet.RECIPE.fit([], Trial(seed=1, work=tmp_path, settings=settings))


def test_each_recipe_refuses_the_other_s_data(tmp_path: Path) -> None:
    trial = Trial(seed=1, work=tmp_path)
    with pytest.raises(RecipeError, match="protocol=paper"):
        echonet.RECIPE.fit([open_dataset("simulated:clips=1")], trial)
    camus = CamusDataset(folder=tmp_path)
    with pytest.raises(RecipeError, match="simulated clips alone"):
        echonet_simulated.RECIPE.fit([camus], trial)
