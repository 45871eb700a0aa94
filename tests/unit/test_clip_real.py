"""Real machines' files: each is read or refused in words, and no name is given out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.examples import get_path

from models.clip import Clip, ClipError, Mode, find_sector, read_clip, read_header


@pytest.fixture(scope="module")
def ultrasound_files(shared_data: Path) -> Path:
    return shared_data / "ultrasound"


READ = {
    # file: mode, where the sector comes from, time source, whether the scale is trusted
    "acme_psax_colordoppler_10f_jpegls_palette": (Mode.COLOUR, "pixels", "FrameTime", False),
    "acme_psax_colordoppler_10f_rle_palette": (Mode.COLOUR, "pixels", "FrameTime", False),
    "acuson_colordoppler_8f_fragmented_nobot_jpeg": (
        Mode.COLOUR, "region", "FrameTimeVector", False),
    "acuson_colordoppler_8f_implicitle_rgb": (Mode.COLOUR, "region", "FrameTimeVector", False),
    "acuson_vascular_1f_jpegextended_ybrfull": (Mode.TWO_D, "region", "still", False),
    "aloka_ssd4000_dual_1f_palette16": (Mode.TWO_D, "region", "still", True),
    "esaote_6100_msk_1f_native_ybr422": (Mode.TWO_D, "region", "still", False),
    "medistim_veriq_epicardial_2f_jpeglossless_rgb": (Mode.TWO_D, "region", "FrameTime", False),
    "philips_epiq7c_tte_measure_1f_jpeglossless_mono": (Mode.TWO_D, "region", "still", True),
    "siemens_s2000_blankliver_1f_rgb": (Mode.TWO_D, "region", "still", True),
    "sonosite_turbo_a4c_120f_jpegbaseline_ybr422": (Mode.TWO_D, "region", "FrameTime", True),
    "sonosite_turbo_a4c_30f_jpegbaseline_ybr422": (Mode.TWO_D, "pixels", "FrameTime", False),
    "tee_colour_1f_rgb_planar": (Mode.COLOUR, "pixels", "still", False),
}  # fmt: skip

# Where these show names, dates, numbers, bars and traces: top, bottom, left, right in pixels.
LETTERS = {
    "acme_psax_colordoppler_10f_rle_palette": [
        (0, 280, 0, 100), (0, 180, 500, 600), (375, 430, 0, 600)],
    "acuson_vascular_1f_jpegextended_ybrfull": [
        (0, 40, 0, 768), (40, 576, 590, 768), (550, 576, 0, 768), (0, 576, 0, 60)],
    "aloka_ssd4000_dual_1f_palette16": [
        (0, 24, 0, 640), (430, 480, 0, 640), (0, 480, 340, 640), (40, 104, 0, 50)],
    "esaote_6100_msk_1f_native_ybr422": [
        (0, 70, 0, 800), (0, 555, 0, 180), (480, 555, 0, 800)],
    "medistim_veriq_epicardial_2f_jpeglossless_rgb": [
        (570, 768, 0, 1024), (0, 768, 0, 200), (0, 768, 830, 1024), (0, 25, 0, 1024)],
    "philips_cx50_2f_rle_palette": [
        (0, 60, 0, 800), (0, 600, 0, 300), (0, 600, 720, 800), (520, 600, 0, 800)],
    "philips_epiq7c_tte_measure_1f_jpeglossless_mono": [
        (0, 150, 0, 400), (0, 130, 0, 1024), (0, 768, 0, 120), (680, 768, 0, 1024)],
    "siemens_s2000_blankliver_1f_rgb": [
        (0, 60, 0, 1024), (0, 768, 860, 1024), (700, 768, 0, 1024)],
    "sonosite_turbo_a4c_120f_jpegbaseline_ybr422": [
        (0, 60, 0, 200), (0, 480, 600, 640), (450, 480, 0, 640)],
    "sonosite_turbo_a4c_30f_jpegbaseline_ybr422": [
        (0, 30, 0, 100), (0, 120, 290, 320), (0, 240, 306, 320), (225, 240, 0, 320)],
}  # fmt: skip


def on_screen(clip: Clip) -> np.ndarray:
    """The brightest of what is given out, at its place on the screen."""
    out = np.zeros((clip.rows, clip.columns), np.uint8)
    sector = clip.sector
    out[sector.top : sector.bottom, sector.left : sector.right] = clip.frames().max(axis=0)
    return out


@pytest.mark.parametrize("name", READ)
def test_a_real_file_is_read_for_what_it_is(ultrasound_files: Path, name: str) -> None:
    mode, sector, times, trusted = READ[name]
    clip = read_clip(ultrasound_files / f"{name}.dcm")
    assert clip.mode is mode
    assert clip.sector.source == sector
    assert clip.time_axis.source == times
    assert clip.spacing.trusted is trusted
    assert clip.frames([0]).any()


@pytest.mark.parametrize("name", LETTERS)
def test_what_is_written_on_a_real_screen_is_blank(ultrasound_files: Path, name: str) -> None:
    shown = on_screen(read_clip(ultrasound_files / f"{name}.dcm"))
    for top, bottom, left, right in LETTERS[name]:
        assert not shown[top:bottom, left:right].any(), (top, bottom, left, right)


def test_every_real_picture_is_read_and_the_ecg_is_refused_in_words(ultrasound_files: Path) -> None:
    paths = sorted(ultrasound_files.glob("*.dcm"))
    assert paths
    for path in paths:
        header = read_header(path)
        assert not [e for e in header.iterall() if e.tag.is_private], path.name
        if "ecg" not in path.name:
            read_clip(path).frames([0])
    with pytest.raises(ClipError, match="12-lead ECG Waveform Storage holds no pixel data"):
        read_clip(ultrasound_files / "mortara_el250_12lead_ecg.dcm")


def test_encodings_of_the_same_real_clip_agree(ultrasound_files: Path) -> None:
    rle, jpeg_ls = (
        read_clip(ultrasound_files / f"acme_psax_colordoppler_10f_{kind}_palette.dcm")
        for kind in ("rle", "jpegls")
    )
    assert np.array_equal(rle.frames(), jpeg_ls.frames())
    raw, jpeg = (
        read_clip(ultrasound_files / f"acuson_colordoppler_8f_{kind}.dcm")
        for kind in ("implicitle_rgb", "fragmented_nobot_jpeg")
    )
    difference = raw.frames().astype(float) - jpeg.frames()
    assert np.abs(difference).mean() < 6.0


def test_the_bundled_a4c_clip_says_that_its_region_is_of_another_image() -> None:
    clip = read_clip(Path(get_path("ybr_color")))
    assert (clip.frame_count, clip.rows, clip.columns) == (30, 240, 320)
    assert clip.time_axis.sample(100.0, 20) == tuple(range(0, 30, 3))
    assert not clip.spacing.trusted
    assert "the region and the image size disagree" in clip.spacing.reason
    assert clip.heart_rate_bpm is None
    assert clip.lossy


def test_the_same_heart_in_full_size_fills_its_fan_and_has_a_scale() -> None:
    path = get_testdata_file("color3d_jpeg_baseline.dcm", download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    clip = read_clip(Path(str(path)))
    assert clip.spacing.trusted
    assert clip.spacing.row_mm == pytest.approx(0.5105, abs=1e-4)
    assert len(clip.time_axis.sample(100.0, 20)) == 20
    sector = clip.sector
    # By eye: the apex at row 44, the arc's foot at row 405, the wings at columns 85 and 595.
    assert sector.top == pytest.approx(44, abs=8)
    assert sector.bottom == pytest.approx(405, abs=8)
    assert sector.left == pytest.approx(85, abs=10)
    assert sector.right == pytest.approx(595, abs=10)


def test_the_sector_of_patients_frames_is_their_fan(shared_data: Path) -> None:
    paths = sorted((shared_data / "camus_a4c").glob("*_4CH_E?.png"))[::30]
    assert len(paths) > 20
    for path in paths:
        grey = np.asarray(Image.open(path))
        sector = find_sector(grey[None])
        found = np.zeros(grey.shape, bool)
        found[sector.top : sector.bottom, sector.left : sector.right] = sector.mask
        assert (found & (grey > 0)).sum() > 0.99 * (grey > 0).sum(), path.name
        assert found.mean() < 1.06 * (grey > 0).mean(), path.name
