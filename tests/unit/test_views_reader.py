"""Naming views: what the reader makes of a clip, by the pack that ships."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom.examples import get_path

from models import packs
from models.clip import Clip, Mode, Sector, read_clip
from models.packs import Pack, PackError, load_pack
from models.simulator import simulate
from models.simulator.dicom import to_bytes, to_dicom
from models.views import View, ViewReader, softmax

PACK = Path(packs.__file__).parent / "views"
SIZE = (240, 320)
NOT_CARDIAC = (
    "philips_cx50_2f_rle_palette.dcm",
    "aloka_ssd4000_dual_1f_palette16.dcm",
    "siemens_s2000_blankliver_1f_rgb.dcm",
    "esaote_6100_msk_1f_native_ybr422.dcm",
    "acuson_vascular_1f_jpegextended_ybrfull.dcm",
)


@cache
def reader() -> ViewReader:
    return ViewReader(load_pack(PACK))


def clip_of(view: View, seed: int, **wishes: object) -> Clip:
    frames = 1 if view in (View.PW, View.CW, View.M_MODE) else 10
    made = simulate(view, seed=seed, frames=frames, size=SIZE, masks=False)
    return read_clip(to_bytes(to_dicom(made, study_uid="1.2.3", **wishes)))  # type: ignore[arg-type]


def test_a_real_four_chamber_cine_of_another_maker_is_named_with_certainty() -> None:
    call = reader().read(read_clip(Path(get_path("ybr_color"))))

    assert call.view is View.A4C
    assert call.certain
    assert call.reason == ""


def test_the_long_real_cine_is_named_too(shared_data: Path) -> None:
    file = shared_data / "ultrasound" / "sonosite_turbo_a4c_120f_jpegbaseline_ybr422.dcm"

    assert reader().read(read_clip(file)).view is View.A4C


@pytest.mark.parametrize("name", NOT_CARDIAC)
def test_pictures_of_other_organs_are_not_taken_for_a_four_chamber_view(
    shared_data: Path, name: str
) -> None:
    call = reader().read(read_clip(shared_data / "ultrasound" / name))

    assert call.view is not View.A4C


def test_simulated_clips_of_every_view_are_mostly_named_right() -> None:
    calls = [
        (view, reader().read(clip_of(view, seed=9_000 + seed)))
        for view in View
        for seed in range(2)
    ]
    right = sum(call.view is view for view, call in calls)

    assert right >= 0.8 * len(calls)


@pytest.mark.parametrize(
    ("view", "words"),
    [(View.PW, "pulsed-wave"), (View.CW, "continuous-wave"), (View.M_MODE, "M-mode")],
)
def test_what_the_header_says_of_the_mode_goes_before_the_picture(view: View, words: str) -> None:
    call = reader().read(clip_of(view, seed=1))

    assert call.view is view
    assert call.certain
    assert words in call.reason


def test_an_object_that_is_declared_two_dimensional_is_never_called_a_still() -> None:
    still = simulate(View.CW, seed=3, size=SIZE)
    clip = Clip.from_frames(still.grey, mode=Mode.TWO_D)

    chances = reader().chances(clip)

    by_view = dict(zip(reader().pack.manifest.classes, chances, strict=True))
    assert by_view["pw"] == by_view["cw"] == by_view["mmode"] == 0
    assert chances.sum() == pytest.approx(1)


def test_a_screen_without_a_picture_is_other() -> None:
    nothing = np.zeros(SIZE, bool)
    sector = Sector(top=0, left=0, bottom=SIZE[0], right=SIZE[1], mask=nothing, source="pixels")
    clip = Clip.from_frames(np.zeros((1, *SIZE), np.uint8), sector=sector)

    call = reader().read(clip)

    assert call.view is View.OTHER
    assert call.certain
    assert "no ultrasound picture" in call.reason


def test_a_score_below_the_packs_threshold_is_not_certain() -> None:
    strict = Pack(
        folder=PACK,
        manifest=load_pack(PACK).manifest.model_copy(update={"certain_from": 1.0}),
    )
    call = ViewReader(strict).read(clip_of(View.A3C, seed=4))

    assert not call.certain
    assert "below 1.00" in call.reason


def test_a_label_under_colour_doppler_is_not_certain() -> None:
    clip = read_clip(Path(get_path("ybr_color")))
    object.__setattr__(clip, "mode", Mode.COLOUR)

    call = reader().read(clip)

    assert not call.certain
    assert "colour Doppler" in call.reason


def test_the_vote_is_the_mean_over_frames_spread_over_the_clip() -> None:
    clip = clip_of(View.PSLA, seed=12)
    each = reader().frame_chances(clip)

    assert each.shape == (10, len(reader().pack.manifest.classes))
    expected = each.mean(axis=0)
    still = [reader().pack.manifest.classes.index(name) for name in ("pw", "cw", "mmode")]
    expected[still] = 0
    assert reader().chances(clip) == pytest.approx(expected / expected.sum())


def test_the_same_clip_gets_the_same_answer_twice() -> None:
    clip = clip_of(View.SUB4C, seed=5)

    assert reader().read(clip) == reader().read(clip)


def test_a_pack_of_another_kind_is_refused() -> None:
    manifest = load_pack(PACK).manifest.model_copy(update={"kind": packs.PackKind.TRACING})

    with pytest.raises(PackError, match="tracing"):
        ViewReader(Pack(folder=PACK, manifest=manifest))


def test_a_pack_with_a_view_that_does_not_exist_is_refused() -> None:
    manifest = load_pack(PACK).manifest.model_copy(update={"classes": ("a4c", "a9c")})

    with pytest.raises(PackError, match="a9c"):
        ViewReader(Pack(folder=PACK, manifest=manifest))


def test_the_shipped_pack_carries_its_licence_card_and_evidence() -> None:
    for name in ("LICENSE", "MODEL_CARD.md", "evaluation.json"):
        assert (PACK / name).is_file(), name
    assert "CC BY-NC-SA" in (PACK / "LICENSE").read_text()
    assert "CAMUS" in (PACK / "MODEL_CARD.md").read_text()


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "views"
    shutil.copytree(PACK, copy)
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")

    with pytest.raises(PackError, match="SHA-256"):
        load_pack(copy)


def test_a_higher_temperature_makes_probabilities_more_even() -> None:
    logits = np.array([[3.0, 1.0, 0.0]])
    cold, warm = softmax(logits, temperature=0.5), softmax(logits, temperature=3.0)

    assert cold.sum() == pytest.approx(1)
    assert cold.max() > softmax(logits).max() > warm.max()
