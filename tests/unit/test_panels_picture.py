"""The picture of an explained clip: what is drawn where, and how it leaves the worker."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models import threads
from models.explain import ink, panels
from models.explain.panels import Shown, ShownMap, ShownTracing, draw_clip, encode, poster
from models.explain.sheet import RESEARCH_USE
from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.tasks import TASKS

LV = PackRef(name="lv", version="0.1.0", weights_sha256="0" * 64)
ECHONET = PackRef(name="echonet", version="0.1.0", weights_sha256="1" * 64)
CLASSES = ("background", "cavity", "myocardium", "atrium")
GREY = 90


def _repeated(frames: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    return np.repeat(frames[:1], count, axis=0)


def _finding(
    output: str, pack: PackRef = ECHONET, evidence: Evidence = Evidence.PATIENTS
) -> Finding:
    task = TASKS[output]
    return Finding(
        output=output,
        kind=Kind.MEASUREMENT,
        value=50.0,
        unit=task.unit,
        pack=pack,
        evidence=evidence,
        method=Method.REGRESSION,
        low=40.0,
        high=60.0,
    )


def _frames(count: int = 6, rows: int = 200, columns: int = 240) -> NDArray[np.uint8]:
    return np.full((count, rows, columns), GREY, np.uint8)


def _map(output: str, frames: NDArray[np.uint8], *at: int) -> ShownMap:
    """Strong in the left upper quarter, nothing elsewhere."""
    maps = np.zeros((len(at), *frames.shape[1:]), np.float32)
    maps[:, : frames.shape[1] // 2, : frames.shape[2] // 2] = 1.0
    return ShownMap(finding=_finding(output), maps=maps, frames=at)


def _tracing(frames: NDArray[np.uint8]) -> ShownTracing:
    count, rows, columns = frames.shape
    masks = np.zeros(frames.shape, np.uint8)
    masks[:, rows // 4 : rows // 2, columns // 4 : columns // 2] = 1
    masks[:, rows * 3 // 4 : rows * 7 // 8, columns // 4 : columns // 2] = 3
    return ShownTracing(
        masks=masks,
        frames=tuple(range(count)),
        classes=CLASSES,
        ed_frames=(1,),
        es_frames=(4,),
        volumes_ml=np.linspace(100, 60, count),
    )


def _shown(frames: NDArray[np.uint8], **changes: object) -> Shown:
    count = len(frames)
    shown = Shown(
        frame_times_ms=tuple(33.3 * index for index in range(count)),
        source_frames=tuple(range(count)),
        clip_frames=count,
        findings=(_finding("ef"),),
    )
    return replace(shown, **changes)  # type: ignore[arg-type]


def _full(frames: NDArray[np.uint8]) -> Shown:
    return _shown(
        frames,
        findings=(_finding("ef", LV), _finding("ef"), _finding("edv"), _finding("esv")),
        tracing=_tracing(frames),
        maps=tuple(_map(output, frames, 0, 5) for output in ("ef", "edv", "esv")),
    )


def _bright(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the strong end of the palette is: red and green without blue."""
    bright: NDArray[np.bool_] = picture.astype(int) @ [1, 1, -2] > 120
    return bright


def _panel_area(picture: NDArray[np.uint8]) -> int:
    return int((picture == GREY).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("rows", "columns"), [(200, 240), (186, 174), (400, 120), (100, 301), (801, 1023), (24, 24)]
)
def test_every_sector_fits_into_panels_with_even_sides(rows: int, columns: int) -> None:
    frames = _frames(1, rows, columns)
    for shown in (_full(_repeated(frames, 6)), _shown(frames)):
        picture = draw_clip(frames, shown)
        assert picture.rows % 2 == picture.columns % 2 == 0
        assert picture.frames[0].shape == (picture.rows, picture.columns, 3)


def test_the_sheet_fits_a_common_screen_and_the_clip_is_not_made_small() -> None:
    frames = _frames(6, 150, 195)
    picture = draw_clip(frames, _full(frames))
    assert picture.columns <= 1300
    assert picture.rows <= 1100
    grey = (draw_clip(frames, _shown(frames)).frames[0] == GREY).all(axis=-1)
    assert np.flatnonzero(grey.any(axis=0)).size >= 400


def test_one_output_stands_beside_its_frame_and_several_stand_below() -> None:
    frames = _frames()
    alone = _panel_area(draw_clip(frames, _shown(frames)).frames[0])
    outputs = ("ef", "lvh", "la_area")
    areas = []
    for count in (1, 2, 3):
        maps = tuple(_map(output, frames, 0) for output in outputs[:count])
        areas.append(_panel_area(draw_clip(frames, _shown(frames, maps=_unlike(maps))).frames[0]))
    assert areas[0] == 2 * alone  # the frame and the overlay; the map itself is not grey
    smaller = (305 / 412) ** 2
    assert areas[1] == pytest.approx(alone * (1 + 2 * smaller), rel=0.02)
    assert areas[2] == pytest.approx(alone * (1 + 3 * smaller), rel=0.02)


def _unlike(maps: tuple[ShownMap, ...]) -> tuple[ShownMap, ...]:
    """Maps that differ and yet colour nothing: one pixel each."""
    changed = []
    for at, item in enumerate(maps):
        values = np.zeros_like(item.maps)
        values[0, 0, at] = 1.0
        changed.append(replace(item, maps=values))
    return tuple(changed)


def test_outputs_with_the_same_map_share_one() -> None:
    frames = _frames()
    one = draw_clip(frames, _shown(frames, maps=(_map("ef", frames, 0),)))
    three = draw_clip(
        frames, _shown(frames, maps=tuple(_map(name, frames, 0) for name in ("ef", "edv", "esv")))
    )
    assert (one.rows, one.columns) == (three.rows, three.columns)
    np.testing.assert_array_equal(one.frames[0][100:], three.frames[0][100:])
    assert not np.array_equal(one.frames[0][50:100], three.frames[0][50:100])  # the others' names


def test_a_strong_place_is_coloured_in_map_and_overlay_and_a_weak_one_stays_grey() -> None:
    frames = _frames()
    pixels = draw_clip(frames, _shown(frames, maps=(_map("ef", frames, 0),))).frames[0]
    alone = _panel_area(draw_clip(frames, _shown(frames)).frames[0])
    assert _bright(pixels[52:]).sum() == pytest.approx(2 * alone / 4, rel=0.15)
    assert _panel_area(pixels) == pytest.approx(alone * 1.75, rel=0.05)


def test_a_frame_shows_the_map_of_the_nearest_sampled_frame() -> None:
    frames = _frames()
    item = _map("ef", frames, 0, 5)
    maps = item.maps.copy()
    maps[1] = maps[1, ::-1]  # strong below instead of above
    picture = draw_clip(frames, _shown(frames, maps=(replace(item, maps=maps),)))
    middles = [np.argwhere(_bright(picture.frames[at][52:]))[:, 0].mean() for at in range(6)]
    assert middles[0] == middles[1] == middles[2] < middles[3] == middles[4] == middles[5]


def test_the_outlines_of_cavity_and_atrium_are_drawn_in_their_colours() -> None:
    frames = _frames()
    with_tracing = draw_clip(frames, _shown(frames, tracing=_tracing(frames))).frames[0]
    without = draw_clip(frames, _shown(frames)).frames[0]
    for colour in (ink.SKY, ink.PINK):
        assert (with_tracing == colour).all(axis=-1).sum() > 100
        assert not (without == colour).all(axis=-1).any()


def test_end_diastole_and_end_systole_are_marked_in_their_frames_only() -> None:
    frames = _frames()
    tracing = replace(_tracing(frames), volumes_ml=np.full(6, 80.0))
    picture = draw_clip(frames, _shown(frames, tracing=tracing))
    unmarked = [picture.frames[at] for at in (0, 2, 3, 5)]
    # The mark stands in the panel's right upper corner, where these frames are plain grey.
    assert picture.tracing_box is not None
    left, top, width, _ = picture.tracing_box
    corner = np.s_[top + 8 : top + 38, left + width - 56 : left + width - 8]
    panel = [(frame[corner] == GREY).all() for frame in unmarked]
    assert all(panel)
    assert not (picture.frames[1][corner] == GREY).all()
    assert not (picture.frames[4][corner] == GREY).all()


def test_long_names_and_reasons_stay_inside_the_picture() -> None:
    frames = _frames(6, 186, 174)
    pack = PackRef(name="a-pack-with-a-very-long-name-indeed" * 3, version="1" * 40,
                   weights_sha256="2" * 64)  # fmt: skip
    shown = replace(
        _full(frames),
        findings=tuple(_finding(output, pack) for output in TASKS) * 2,
        refusals=tuple(
            Refusal(output=output, reason="because " * 60, pack=pack) for output in ("edv", "esv")
        ),
    )
    picture = draw_clip(frames, shown)
    pixels = picture.frames[0]
    for margin in (pixels[:, :14], pixels[:, -14:], pixels[:4], pixels[-2:]):
        assert (margin == ink.PAPER).all()


def test_many_findings_never_run_into_the_curve() -> None:
    frames = _frames()
    few, many = (
        draw_clip(
            frames, replace(_full(frames), findings=tuple(_finding(name) for name in names))
        ).frames[0]
        for names in (["ef"] * 40, list(TASKS) * 3)
    )
    lowest = 52 + 30 + 384  # the bottom of the first row of panels
    np.testing.assert_array_equal(few[lowest - 80 : lowest + 4], many[lowest - 80 : lowest + 4])


def test_an_output_that_only_saw_the_simulator_says_so_in_the_warning_colour() -> None:
    frames = _frames()
    counts = []
    for evidence in Evidence:
        finding = _finding("ef", evidence=evidence)
        pixels = draw_clip(frames, _shown(frames, findings=(finding,))).frames[0]
        counts.append(int((pixels[60:] == ink.WARNING).all(axis=-1).sum()))
    assert counts[0] == 0
    assert counts[1] > 10


def test_a_caution_stands_below_the_findings_in_the_warning_colour() -> None:
    frames = _frames()
    counts = []
    for cautions in ((), ("Mind: EF was not shown to be better than saying the mean.",)):
        pixels = draw_clip(frames, _shown(frames, cautions=cautions)).frames[0]
        counts.append(int((pixels[60:] == ink.WARNING).all(axis=-1).sum()))
    assert counts[0] == 0
    assert counts[1] > 50


def test_a_caution_is_not_cut_where_there_are_more_findings_than_room() -> None:
    frames = _frames()
    shown = _shown(frames, findings=tuple(_finding(name) for name in TASKS) * 3)
    plain = draw_clip(frames, shown).frames[0]
    warned = draw_clip(frames, replace(shown, cautions=("DO NOT RELY ON EF.",))).frames[0]
    assert not (plain[60:] == ink.WARNING).all(axis=-1).any()
    assert (warned[60:] == ink.WARNING).all(axis=-1).sum() > 20


def test_every_frame_warns_that_it_is_for_research_only() -> None:
    frames = _frames()
    picture = draw_clip(frames, _full(frames))
    for at in range(len(frames)):
        header = picture.frames[at][:44]
        assert (header == ink.WARNING).all(axis=-1).sum() > 400
    assert "NOT FOR DIAGNOSTIC USE" in RESEARCH_USE


def test_what_does_not_fit_together_is_refused() -> None:
    frames = _frames()
    wrong = _map("ef", frames[:, :-1], 0)
    with pytest.raises(ValueError, match="over 1 frames"):
        draw_clip(frames, _shown(frames, maps=(wrong,)))
    with pytest.raises(ValueError, match="fewer times"):
        draw_clip(frames, _shown(frames, frame_times_ms=(0.0,)))
    with pytest.raises(ValueError, match="n of 1 or more"):
        draw_clip(frames[:0], _shown(frames))


def test_encoded_frames_are_baseline_jpeg_with_half_the_colour_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from PIL.JpegImagePlugin import get_sampling

    frames = _frames()
    picture = draw_clip(frames, _full(frames))
    encoded = encode(picture)
    assert encoded.source_frames == tuple(range(6))
    assert encoded.frame_times_ms == picture.frame_times_ms
    assert encoded.raw_bytes == 6 * picture.rows * picture.columns * 3
    for data in encoded.jpeg_frames:
        assert b"\xff\xc0" in data  # SOF0: baseline
        image = Image.open(io.BytesIO(data))
        assert image.size == (encoded.columns, encoded.rows)
        assert get_sampling(image) == 1  # 4:2:2
    monkeypatch.setattr(threads, "_lanes", 2)
    monkeypatch.setattr(panels, "_AT_ONCE", 2)
    assert encode(draw_clip(frames, _full(frames))).jpeg_frames == encoded.jpeg_frames


def test_a_very_long_clip_is_cut_to_its_first_frames() -> None:
    frames = _frames(panels.MOST_FRAMES + 5, 20, 20)
    picture = draw_clip(frames, _shown(frames))
    assert len(picture.frames) == panels.MOST_FRAMES
    assert picture.source_frames == tuple(range(panels.MOST_FRAMES))
    with pytest.raises(IndexError):
        picture.frames[panels.MOST_FRAMES]


def test_a_tracing_that_goes_on_after_the_picture_is_cut_with_it() -> None:
    frames = _frames()
    shown = _shown(frames, tracing=_tracing(frames))
    for at in range(4):
        whole = draw_clip(frames[:4], shown).frames[at]
        tracing = _tracing(frames[:4])
        cut = replace(tracing, volumes_ml=np.linspace(100, 60, 6)[:4], ed_frames=(1,), es_frames=())
        expected = draw_clip(frames[:4], _shown(frames[:4], tracing=cut, clip_frames=6)).frames[at]
        np.testing.assert_array_equal(whole, expected)


def test_the_poster_is_end_diastole_with_its_own_map() -> None:
    frames = _frames()
    shown = replace(_full(frames), maps=(_map("ef", frames, 0, 3),))
    picture = draw_clip(frames, shown)
    assert picture.poster_position == 0  # end diastole is frame 1, and frame 0 has a map
    image = np.asarray(Image.open(io.BytesIO(poster(picture))))
    np.testing.assert_array_equal(image, picture.frames[0])
    assert poster(encode(picture)).startswith(b"\x89PNG")


def test_the_palettes_lightness_grows_evenly() -> None:
    linear = (ink.palette(np.linspace(0, 1, 64)) / 255.0) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(np.maximum(luminance, 0.008856)) - 16
    steps = np.diff(lightness[lightness > 8])
    assert (steps > 0).all()
    assert steps.max() < 2.5 * steps.mean()


def test_a_contour_lies_on_the_edge_of_its_region() -> None:
    rows, columns = np.mgrid[:100, :120]
    inside = np.hypot(rows - 50, columns - 60) < 30
    line = ink.contour(inside, 400, 480)
    drawn = np.argwhere(line > 0.5)
    radius = np.hypot(drawn[:, 0] + 0.5 - 202, drawn[:, 1] + 0.5 - 242)
    assert np.abs(radius - 118).max() < 6
    angles = np.arctan2(drawn[:, 0] - 202, drawn[:, 1] - 242)
    assert len(np.unique(np.round(angles, 1))) >= 63  # all the way round
    assert ink.contour(np.zeros((10, 10), bool), 40, 40).max() == 0


def test_the_font_has_every_letter_that_is_written() -> None:
    words = " ".join(
        [RESEARCH_USE, *(task.title + task.unit for task in TASKS.values()), "10 ± 2 cm² ≥ 5 · µ"]
    )
    assert ink.plain(words) == words
    own, other = ink.font(14), ink.other_font(14)
    assert other is not None
    for letter in set(words) - {" "}:
        boxes = [
            bytes(letters.getmask(letter)) == bytes(letters.getmask("\uffff"))
            for letters in (own, other)
        ]
        assert not all(boxes), letter


def test_letters_of_other_languages_are_drawn_and_unknown_ones_are_told() -> None:
    assert ink.plain("Größe Ж Ω 1–2") == "Größe Ж Ω 1-2"
    assert ink.plain("心エコー\n") == "?????"
    image = Image.new("RGB", (200, 30))
    ink.write(ImageDraw.Draw(image), (4, 15), "Ж é", size=16)
    assert np.asarray(image).any()
    assert ink.width_of("Ж", 16) > 5


def test_text_is_cut_and_wrapped_to_its_room() -> None:
    assert ink.shortened("short", 14, 200) == "short"
    cut = ink.shortened("a title that is much too long", 14, 80)
    assert cut.endswith("...")
    assert ink.width_of(cut, 14) <= 80
    lines = ink.wrapped("the region and the image size disagree " + "x" * 80, 14, 120)
    assert len(lines) > 2
    assert all(ink.width_of(line, 14) <= 120 for line in lines)


def test_of_a_fast_clip_frames_are_left_out_but_not_those_of_the_beat() -> None:
    frames = _frames(61)
    tracing = replace(_tracing(frames), ed_frames=(7,), es_frames=(33,))
    times = tuple(10.0 * at for at in range(61))
    shown = _shown(frames, frame_times_ms=times, tracing=tracing)
    every = draw_clip(frames, shown)
    assert every.source_frames == tuple(range(61))
    picture = draw_clip(frames, shown, panels.PictureSettings(frames_per_second=25))
    assert 14 <= len(picture.frames) <= 17
    assert {7, 33} <= set(picture.source_frames)
    assert picture.frame_times_ms == tuple(10.0 * at for at in picture.source_frames)
    marked = {mark.kind.name: picture.source_frames[mark.position] for mark in picture.marks}
    assert marked == {"END_DIASTOLE": 7, "END_SYSTOLE": 33}
    assert picture.curve == every.curve
    assert len(draw_clip(frames, shown, panels.PictureSettings(frames_per_second=100)).frames) == 61


def test_the_curve_is_told_beside_the_picture_in_its_unit() -> None:
    frames = _frames()
    curve = draw_clip(frames, _full(frames)).curve
    assert curve is not None
    assert curve.unit == "mL"
    assert curve.values == tuple(np.linspace(100, 60, 6).round(3))
    assert curve.times_ms == pytest.approx([33.3 * at for at in range(6)])
    unscaled = draw_clip(frames, _shown(frames, tracing=replace(_tracing(frames), volumes_ml=None)))
    assert unscaled.curve is not None
    assert unscaled.curve.unit == "%"
    assert max(unscaled.curve.values) == 100
