"""The picture is found on the screen, and nothing else is given out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.clip import Clip, Mode, Sector, find_sector, read_clip
from tests.ultrasound_files import as_file, fan_mask, screen, speckle, ultrasound

TEXTS = [
    (8, 8, "DOE^JANE  F 1951-03-12"),
    (8, 30, "ID 0047431395"),
    (430, 8, "ST. ELSEWHERE HOSPITAL"),
    (8, 100, "Gain 62"),
    (8, 120, "C 50"),
    (520, 420, "72 bpm"),
]


def in_image(sector: Sector, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The sector's mask on the whole image."""
    whole = np.zeros(shape, bool)
    whole[sector.top : sector.bottom, sector.left : sector.right] = sector.mask
    return whole


def overlap(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    return float((found & wanted).sum() / (found | wanted).sum())


def given_out(clip: Clip) -> NDArray[np.uint8]:
    """What frames() gives, put back to its place on the screen."""
    out = np.zeros((clip.frame_count, clip.rows, clip.columns), np.uint8)
    sector = clip.sector
    out[:, sector.top : sector.bottom, sector.left : sector.right] = clip.frames()
    return out


@pytest.mark.parametrize("frame_count", [1, 2, 6, 30])
def test_names_on_the_screen_are_blank_in_what_is_given_out(frame_count: int) -> None:
    frames = screen(frame_count, texts=TEXTS)
    clip = read_clip(as_file(ultrasound(frames)))
    fan = fan_mask()
    shown = given_out(clip)
    assert overlap(shown.max(axis=0) > 0, fan) > 0.95
    names = (frames.max(axis=0) > 0) & ~fan
    assert names.sum() > 1000
    assert not shown[:, names].any()


def test_what_is_inside_the_sector_is_left_as_it_is() -> None:
    frames = screen(4)
    inside = fan_mask() & in_image(find_sector(frames), frames.shape[1:])
    clip = Clip.from_frames(frames)
    assert np.array_equal(given_out(clip)[:, inside], frames[:, inside])


def test_a_text_that_comes_up_in_mid_clip_is_blank() -> None:
    late = screen(20, texts=TEXTS)
    late[:11] = screen(11)
    names = (late[-1] > 0) & ~fan_mask()
    assert not given_out(Clip.from_frames(late))[:, names].any()


def test_a_running_trace_under_the_sector_is_blank() -> None:
    frames = screen(30)
    for place, frame in enumerate(frames):
        canvas = Image.fromarray(frame)
        beat = [(x, 455 - (18 if (x - 9 * place) % 60 < 6 else 0)) for x in range(100, 540)]
        ImageDraw.Draw(canvas).line(beat, fill=220, width=2)
        frames[place] = np.asarray(canvas)
    assert not given_out(Clip.from_frames(frames))[:, 436:].any()


@pytest.mark.parametrize("frame_count", [1, 10])
def test_bars_and_banners_beside_the_sector_are_blank(frame_count: int) -> None:
    frames = screen(frame_count)
    frames[:, :24] = 90  # a banner
    frames[:, 100:300, 600:620] = np.linspace(255, 0, 200).astype(np.uint8)[:, None]
    shown = given_out(Clip.from_frames(frames))
    assert not shown[:, :24].any()
    assert not shown[:, :, 600:].any()


@pytest.mark.parametrize("frame_count", [1, 10])
def test_the_box_of_a_linear_probe_is_found(frame_count: int) -> None:
    frames = np.zeros((frame_count, 400, 600), np.uint8)
    frames[:, 60:340, 150:450] = speckle((frame_count, 280, 300))
    sector = find_sector(frames)
    box = np.zeros((400, 600), bool)
    box[60:340, 150:450] = True
    assert overlap(in_image(sector, (400, 600)), box) > 0.95


def test_the_dim_and_empty_parts_of_a_fan_belong_to_it() -> None:
    fan = fan_mask()
    noise = np.random.default_rng(4).integers(0, 7, (12, *fan.shape), np.uint8)
    frames = np.where(fan, noise, 0).astype(np.uint8)
    frames[:, 200:260, 200:440] += speckle((12, 60, 240)) // 2  # some tissue, and a dark cavity
    frames[:, 320:380, 280:360] = 0
    assert overlap(in_image(find_sector(frames), fan.shape), fan) > 0.95


def test_a_sector_on_grey_ground_is_found() -> None:
    fan = fan_mask()
    frames = np.where(fan, speckle((6, *fan.shape)), np.uint8(40))
    assert overlap(in_image(find_sector(frames), fan.shape), fan) > 0.95


def test_a_frozen_clip_is_taken_as_a_still() -> None:
    frames = np.repeat(screen(1, texts=TEXTS), 20, axis=0)
    assert overlap(in_image(find_sector(frames), (480, 640)), fan_mask()) > 0.95


def test_a_page_of_text_shows_nothing() -> None:
    page = Image.new("L", (640, 480))
    for line in range(14):
        ImageDraw.Draw(page).text((20, 20 + 30 * line), "DOE^JANE  EF 55 %  LVIDd 4.8 cm", fill=255)
    assert not Clip.from_frames(np.asarray(page)[None]).frames().any()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_screen_shows_nothing(level: int) -> None:
    clip = Clip.from_frames(np.full((5, 120, 160), level, np.uint8))
    assert clip.frames().shape == (5, 120, 160)
    assert not clip.frames().any()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 7), rows=st.integers(1, 40), columns=st.integers(1, 40),
    seed=st.integers(0, 2**16), level=st.integers(1, 255),
)  # fmt: skip
def test_any_frames_have_a_tight_convex_sector_inside_the_image(
    count: int, rows: int, columns: int, seed: int, level: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, level, (count, rows, columns), np.uint8)
    sector = find_sector(frames)
    assert 0 <= sector.top < sector.bottom <= rows
    assert 0 <= sector.left < sector.right <= columns
    mask = sector.mask
    assert mask.shape == (sector.bottom - sector.top, sector.right - sector.left)
    if mask.any():
        assert mask.any(axis=0).all()
        assert mask.any(axis=1).all()
        for line in (*mask, *mask.T):  # convex: every row and column is one run
            assert np.diff(np.flatnonzero(line)).max(initial=1) == 1


def test_the_same_frames_always_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "clip.dcm"
    path.write_bytes(as_file(ultrasound(screen(6, texts=TEXTS))))
    first, again = read_clip(path), read_clip(path)
    assert np.array_equal(first.frames([4, 1]), again.frames()[[4, 1]])


def test_a_sector_of_a_clip_of_480_lines_is_found_quickly() -> None:
    frames = screen(30, texts=TEXTS)
    find_sector(frames)
    start = time.process_time()
    find_sector(frames)
    assert time.process_time() - start < 0.5  # 0.02 s on a quiet machine


def test_frames_beyond_the_clip_are_no_frames() -> None:
    clip = Clip.from_frames(screen(3))
    assert clip.frames([]).shape == (0, *clip.sector.mask.shape)
    for index in (3, -1):
        with pytest.raises(IndexError, match=f"frame {index} of a clip of 3"):
            clip.frames([index])


def test_a_clip_of_frames_in_memory_says_what_it_was_given() -> None:
    clip = Clip.from_frames(screen(5), frame_time_ms=20.0, spacing_mm=0.4, heart_rate_bpm=60.0)
    assert clip.time_axis.frame_time_ms == 20.0
    assert (clip.spacing.row_mm, clip.spacing.trusted) == (0.4, True)
    assert (clip.mode, clip.heart_rate_bpm) == (Mode.TWO_D, 60.0)
    assert clip.sop_instance_uid == Clip.from_frames(screen(5)).sop_instance_uid
    with pytest.raises(ValueError, match="uint8"):
        Clip.from_frames(np.zeros((5, 5), np.uint8))
