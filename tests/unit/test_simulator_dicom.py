"""Simulated clips as DICOM objects: valid, and read back as what they were."""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from models.clip import Mode, read_clip
from models.simulator import SimulatedClip, simulate
from models.simulator.dicom import (
    LOSSY_SYNTAXES,
    SUPPORTED_SYNTAXES,
    SYNTAXES,
    read_truth,
    to_bytes,
    to_dicom,
)
from models.views import View

SIZE = (240, 320)
STUDY = "1.2.826.0.1.3680043.8.498.1"


@cache
def drawn(view: View, seed: int, frames: int, colour: bool | None) -> SimulatedClip:
    """A clip that several tests write; nobody changes it."""
    return simulate(view, seed=seed, frames=frames, size=SIZE, colour_flow=colour)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dicom3tools is not installed")
@pytest.mark.parametrize("syntax", SUPPORTED_SYNTAXES)
@pytest.mark.parametrize("frames", [1, 3])
def test_dciodvfy_finds_nothing_wrong(tmp_path: Path, syntax: str, frames: int) -> None:
    for view, colour in ((View.A4C, False), (View.PSLA, True), (View.PW, None)):
        clip = drawn(view, 3, frames, colour)
        path = tmp_path / f"{view}.dcm"
        path.write_bytes(to_bytes(to_dicom(clip, study_uid=STUDY, transfer_syntax=syntax)))
        if syntax == SYNTAXES["deflated"]:  # which dciodvfy does not read
            if not shutil.which("dcmconv"):
                pytest.skip("dcmtk is not installed")
            subprocess.run(["dcmconv", "+te", str(path), str(path)], check=True)

        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)

        assert "Error" not in said.stderr
        assert "Warning" not in said.stderr


@pytest.mark.parametrize("syntax", [s for s in SUPPORTED_SYNTAXES if s not in LOSSY_SYNTAXES])
def test_lossless_syntaxes_keep_every_pixel(syntax: str) -> None:
    clip = drawn(View.A2C, 8, 3, True)
    data = to_bytes(to_dicom(clip, study_uid=STUDY, transfer_syntax=syntax))

    assert np.array_equal(pydicom.dcmread(io.BytesIO(data)).pixel_array, clip.frames)


def test_jpeg_keeps_the_picture_nearly() -> None:
    clip = simulate(View.A4C, seed=8, frames=3, size=SIZE, colour_flow=False)
    read = read_clip(to_bytes(to_dicom(clip, study_uid=STUDY, jpeg_quality=95)))
    box = np.s_[:, read.sector.top : read.sector.bottom, read.sector.left : read.sector.right]
    original = np.where(read.sector.mask, clip.grey[box], 0)

    assert read.lossy
    assert np.abs(read.frames().astype(int) - original).mean() < 4


def test_a_clip_is_read_with_its_times_rate_and_scale() -> None:
    clip = simulate(View.A4C, seed=11, frames=5, size=(480, 640), frame_time_ms=33.0)
    read = read_clip(to_bytes(to_dicom(clip, study_uid=STUDY)))

    assert read.frame_count == 5
    assert read.time_axis.frame_time_ms == pytest.approx(33.0)
    assert read.heart_rate_bpm == round(clip.truth.heart_rate_bpm or 0)
    assert read.spacing.trusted
    assert clip.truth.cm_per_pixel is not None
    assert read.spacing.row_mm == pytest.approx(clip.truth.cm_per_pixel * 10)


@pytest.mark.parametrize(
    ("view", "mode"), [(View.PW, Mode.PW), (View.CW, Mode.CW), (View.M_MODE, Mode.M_MODE)]
)
def test_the_header_of_a_still_tells_its_mode(view: View, mode: Mode) -> None:
    clip = simulate(view, seed=2, size=SIZE)
    for regions in (True, False):
        written = to_dicom(clip, study_uid=STUDY, with_regions=regions)

        assert read_clip(to_bytes(written)).mode is mode


def test_the_same_clip_of_the_same_study_has_the_same_uids() -> None:
    clip = simulate(View.IVC, seed=1, frames=2, size=SIZE)
    first, again = (to_dicom(clip, study_uid=STUDY) for _ in range(2))
    other = to_dicom(clip, study_uid=STUDY + ".2")

    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert first.SeriesInstanceUID == again.SeriesInstanceUID
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_a_syntax_that_cannot_be_written_is_refused() -> None:
    clip = simulate(View.A4C, seed=1, frames=1, size=SIZE)
    with pytest.raises(ValueError, match="cannot be written"):
        to_dicom(clip, study_uid=STUDY, transfer_syntax="1.2.840.10008.1.2.4.100")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_an_object_without_regions_is_still_read(syntax: str) -> None:
    clip = simulate(View.A4C, seed=21, frames=8, size=SIZE, colour_flow=False)
    data = to_bytes(to_dicom(clip, study_uid=STUDY, transfer_syntax=syntax, with_regions=False))
    sector = read_clip(data).sector
    box = clip.sector_box
    assert box is not None

    assert sector.source == "pixels"
    found = (sector.bottom - sector.top) * (sector.right - sector.left)
    assert 0.6 < found / ((box[2] - box[0]) * (box[3] - box[1])) < 1.4


@pytest.mark.parametrize("syntax", SUPPORTED_SYNTAXES)
@pytest.mark.parametrize("frames", [1, 2])
def test_every_syntax_is_read_back_by_the_reader(syntax: str, frames: int) -> None:
    clip = drawn(View.A4C, 8, frames, False)
    read = read_clip(to_bytes(to_dicom(clip, study_uid=STUDY, transfer_syntax=syntax)))
    box = np.s_[:, read.sector.top : read.sector.bottom, read.sector.left : read.sector.right]
    original = np.where(read.sector.mask, clip.grey[box], 0)

    assert read.frame_count == frames
    assert np.abs(read.frames().astype(int) - original).mean() < 4


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dicom3tools is not installed")
@pytest.mark.parametrize(
    ("photometric", "syntax"),
    [
        ("MONOCHROME2", JPEGBaseline8Bit),
        ("MONOCHROME2", JPEGExtended12Bit),
        ("RGB", ExplicitVRLittleEndian),
        ("YBR_FULL", RLELossless),
        ("RGB", JPEGLosslessSV1),
        ("PALETTE COLOR", RLELossless),
        ("PALETTE COLOR", SYNTAXES["big-endian"]),
        ("PALETTE COLOR", SYNTAXES["jpeg-ls"]),
    ],
)
def test_other_ways_to_write_colours_are_valid_and_read(
    tmp_path: Path, photometric: str, syntax: str
) -> None:
    flow = photometric != "MONOCHROME2"
    clip = next(
        made
        for seed in range(9, 40)
        for made in [drawn(View.A4C, seed, 2, flow)]
        if flow or made.frames.ndim == 3
    )
    data = to_bytes(
        to_dicom(clip, study_uid=STUDY, transfer_syntax=syntax, photometric=photometric)
    )
    path = tmp_path / "clip.dcm"
    path.write_bytes(data)
    said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    read = read_clip(data)
    box = np.s_[:, read.sector.top : read.sector.bottom, read.sector.left : read.sector.right]
    original = np.where(read.sector.mask, clip.grey[box], 0)

    assert "Error" not in said.stderr
    assert pydicom.dcmread(path).PhotometricInterpretation == photometric
    assert np.abs(read.frames().astype(int) - original).mean() < 5


@pytest.mark.skipif(not shutil.which("dcmdjpeg"), reason="dcmtk is not installed")
def test_dcmtk_reads_the_same_pixels_from_our_lossless_jpeg(tmp_path: Path) -> None:
    clip = simulate(View.PSLA, seed=4, frames=2, size=SIZE, colour_flow=True)
    path, plain = tmp_path / "lossless.dcm", tmp_path / "plain.dcm"
    path.write_bytes(to_bytes(to_dicom(clip, study_uid=STUDY, transfer_syntax=JPEGLosslessSV1)))

    subprocess.run(["dcmdjpeg", "+cn", str(path), str(plain)], check=True, capture_output=True)

    assert np.array_equal(pydicom.dcmread(plain).pixel_array, clip.frames)


@pytest.mark.parametrize(
    ("photometric", "syntax", "words"),
    [
        ("MONOCHROME1", ExplicitVRLittleEndian, "MONOCHROME1"),
        ("PALETTE COLOR", JPEGBaseline8Bit, "does not carry PALETTE COLOR"),
        ("YBR_FULL_422", RLELossless, "does not carry YBR_FULL_422"),
        ("YBR_FULL", ExplicitVRLittleEndian, "does not carry YBR_FULL"),
        ("MONOCHROME2", RLELossless, "has colours"),
    ],
)
def test_colours_that_a_syntax_does_not_carry_are_refused(
    photometric: str, syntax: str, words: str
) -> None:
    clip = simulate(View.A4C, seed=1, frames=1, size=SIZE, colour_flow=True)
    with pytest.raises(ValueError, match=words):
        to_dicom(clip, study_uid=STUDY, transfer_syntax=syntax, photometric=photometric)


def test_the_truth_travels_in_no_patient_s_attribute() -> None:
    clip = simulate(View.A4C, seed=5, frames=1, size=SIZE)
    written = pydicom.dcmread(io.BytesIO(to_bytes(to_dicom(clip, study_uid=STUDY))))
    truth = read_truth(written)

    assert truth is not None
    assert truth["view"] == "a4c"
    for name, value in clip.truth.labels().items():
        assert truth[name] == pytest.approx(value, abs=1e-3)
    assert written.PatientName == "SIMULATED^PATIENT"
    assert written.PatientSex == "O"
    for name in ("PatientAge", "PatientSize", "PatientWeight", "PatientComments"):
        assert name not in written
