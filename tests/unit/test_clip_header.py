"""What is read before the pixels, and what is refused before memory is taken."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import data_store
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset
from pydicom.examples import get_path
from pydicom.uid import (
    HEVCMP51,
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
)

from models.clip import ClipError, read_clip, read_header
from tests.ultrasound_files import (
    COLUMNS,
    ROWS,
    as_file,
    jpeg_object,
    region,
    speckle,
    ultrasound,
    with_regions,
    ybr_jpeg,
)

GREY = speckle((3, ROWS, COLUMNS))
SMALL = as_file(with_regions(ultrasound(GREY[:2, :40, :60]), region()))


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """An explicit little-endian element."""
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sxxL", group, number, vr, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def inserted(data: bytes, before: int, what: bytes) -> bytes:
    """The file with ``what`` put before the first element of tag ``before``."""
    place = data.index(struct.pack("<HH", before >> 16, before & 0xFFFF), 132)
    return data[:place] + what + data[place:]


def walk(ds: Dataset) -> None:
    for item in ds.iterall():
        str(item.value)


def refusal(path: Path) -> str | None:
    """Why a file is not read, None where it is."""
    try:
        walk(read_header(path))
        read_clip(path).frames([0])
    except ClipError as error:
        return str(error)
    return None


# --- what is kept ---


def test_a_header_keeps_patient_and_study_and_leaves_the_pixels() -> None:
    header = read_header(SMALL)
    assert header.PatientName == "Test^Patient"
    assert header.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.2"
    assert header.SequenceOfUltrasoundRegions[0].RegionSpatialFormat == 1
    assert header.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert "PixelData" not in header


def test_path_and_bytes_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "clip.dcm"
    path.write_bytes(SMALL)
    assert read_header(path) == read_header(SMALL)
    assert np.array_equal(read_clip(path).frames(), read_clip(SMALL).frames())


def test_private_elements_are_left_out_at_every_depth() -> None:
    item = region()
    item.private_block(0x200D, "Maker", create=True).add_new(1, "LO", "secret")
    ds = with_regions(ultrasound(GREY), item)
    ds.private_block(0x0011, "Maker", create=True).add_new(1, "LO", "secret")
    header = read_header(as_file(ds))
    assert not [e for e in header.iterall() if e.tag.is_private]


def test_private_data_behind_the_pixels_are_not_read() -> None:
    # GE writes its own movie there; here it is broken, and nobody notices.
    data = SMALL + struct.pack("<HH2sxxL", 0x7FE1, 0x1001, b"SQ", 0x7FFFFFFF) + b"junk"
    assert read_header(data) == read_header(SMALL)
    assert read_clip(data).frame_count == 2


@pytest.mark.parametrize("delimiter", [0xE00D, 0xE0DD])
def test_a_stray_delimiter_hides_nothing(delimiter: int) -> None:
    stray = struct.pack("<HHL", 0xFFFE, delimiter, 0)
    data = inserted(SMALL, 0x00280010, stray)
    header = read_header(data)
    walk(header)
    assert header == read_header(SMALL)
    assert np.array_equal(read_clip(data).frames(), read_clip(SMALL).frames())


def test_a_file_that_ends_with_a_stray_delimiter_is_read_to_its_end() -> None:
    pixels = SMALL.index(struct.pack("<HH", 0x7FE0, 0x0010), 132)
    data = SMALL[:pixels] + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    assert read_header(data).Rows == 40


def test_values_that_are_none_are_left_out_and_the_rest_stays() -> None:
    data = inserted(SMALL, 0x00080060, element(0x0008, 0x0020, b"DA", b"yesterday!"))
    data = inserted(data, 0x00180000 + 0x1063, element(0x0018, 0x0040, b"IS", b"fast"))
    header = read_header(data)
    walk(header)
    assert "CineRate" not in header
    assert header.FrameTime == 40


def test_a_broken_character_set_does_not_escape() -> None:
    data = inserted(SMALL, 0x00080016, element(0x0008, 0x0005, b"CS", b"ISO_IR 999"))
    data = data.replace(b"Test^Patient", b"T\xe4st^P\xfftient")
    header = read_header(data)
    walk(header)
    assert "PatientName" in header


def test_a_file_without_preamble_is_read() -> None:
    assert read_header(SMALL[128 + 4 :]).Rows == 40


def test_every_small_object_of_pydicom_is_read_or_refused_in_words() -> None:
    folders = [Path(pydicom.data.__file__).parent, Path(data_store.__file__).parent]
    paths = [p for f in folders for p in sorted(f.rglob("*.dcm")) if p.stat().st_size < 200_000]
    assert len(paths) > 100
    for path in paths:
        reason = refusal(path)
        assert reason is None or len(reason) > 20, path.name


# --- what is refused ---


def changed(**changes: Any) -> FileDataset:
    return ultrasound(GREY, **changes)


@pytest.mark.parametrize(
    ("ds", "reason"),
    [
        (changed(Rows=0), "there is no image"),
        (changed(Columns=None), "there is no image"),
        (changed(Rows=ROWS * 2), "the pixel data hold 57600"),
        (changed(Rows=60000, Columns=60000), "no echo frame is so large"),
        (changed(NumberOfFrames=4), "the header states 4 frames"),
        (changed(NumberOfFrames=2_000_000), "2000000 frames"),
        (changed(NumberOfFrames=-3), "-3 frames"),
        (changed(PixelData=None), "holds no pixel data"),
        (changed(SamplesPerPixel=3), "1 samples a pixel"),
        (changed(PhotometricInterpretation="CMYK"), "'CMYK' is not read"),
        (changed(BitsAllocated=32, BitsStored=32), "32 bits"),
        (changed(PhotometricInterpretation="PALETTE COLOR"), "palette is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_header_that_lies_is_refused_in_words(ds: FileDataset, reason: str) -> None:
    with pytest.raises(ClipError, match=reason):
        read_clip(as_file(ds))


COLOUR = np.repeat(GREY[..., None], 3, axis=-1)


@pytest.mark.parametrize("pieces", [1, 3])
def test_fewer_encoded_frames_than_stated_are_refused(pieces: int) -> None:
    ds = jpeg_object(COLOUR, ybr_jpeg, fragments_per_frame=pieces, NumberOfFrames=3)
    ds.NumberOfFrames = 7
    with pytest.raises(ClipError, match="states 7 frames, but the pixel data hold"):
        read_clip(as_file(ds))


def test_a_file_that_was_cut_off_is_refused() -> None:
    data = as_file(jpeg_object(COLOUR, ybr_jpeg))
    with pytest.raises(ClipError, match="cut off"):
        read_clip(data[: len(data) // 2])


@pytest.mark.parametrize("encode", ["jpeg", "j2k"])
def test_a_frame_of_another_size_than_stated_is_refused_before_it_is_decoded(encode: str) -> None:
    ds = jpeg_object(COLOUR, ybr_jpeg) if encode == "jpeg" else ultrasound(GREY)
    if encode == "j2k":
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    ds.Rows = ROWS // 2
    with pytest.raises(ClipError, match="encoded as 120 x 160 pixels"):
        read_clip(as_file(ds))


@pytest.mark.parametrize("syntax", [MPEG4HP41, HEVCMP51, "1.2.840.10008.1.2.4.110"])
def test_video_and_jpeg_xl_are_refused_by_name(syntax: str) -> None:
    ds = jpeg_object(COLOUR, ybr_jpeg)
    with pytest.raises(ClipError, match=r"is not (decoded here|known)"):
        read_clip(labelled(ds, syntax))


def test_an_unknown_transfer_syntax_is_refused() -> None:
    ds = ultrasound(GREY)
    with pytest.raises(ClipError, match=r"1\.2\.3\.4 is not known"):
        read_clip(labelled(ds, "1.2.3.4"))


def labelled(ds: FileDataset, syntax: str) -> bytes:
    """The file with another transfer syntax stated than it is written in."""
    data = as_file(ds)
    stated = element(0x0002, 0x0010, b"UI", _even(ds.file_meta.TransferSyntaxUID))
    assert stated in data
    return data.replace(stated, element(0x0002, 0x0010, b"UI", _even(syntax)), 1)


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def test_a_frame_that_cannot_be_decoded_fails_when_it_is_asked_for() -> None:
    ds = ultrasound(np.concatenate([GREY] * 10))
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    data = bytearray(as_file(ds))
    start = -1
    for _ in range(4):
        start = data.index(b"\xff\x4f\xff\x51", start + 1)
    data[start + 60 : start + 2000] = bytes(1940)
    clip = read_clip(bytes(data))
    with pytest.raises(ClipError, match="frame 3 cannot be decoded"):
        clip.frames([3])


def test_a_clip_of_nothing_but_broken_frames_is_refused() -> None:
    ds = jpeg_object(COLOUR, lambda rgb: ybr_jpeg(rgb)[:40] + bytes(400))
    with pytest.raises(ClipError, match="frame 0 cannot be decoded"):
        read_clip(as_file(ds))


def test_a_deflated_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models._header.MOST_HEADER_BYTES", 1_000_000)
    meta = ultrasound(GREY[:1, :40, :60])
    meta.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = as_file(meta)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = data.index(DeflatedExplicitVRLittleEndian.encode()) + 22
    bomb = data[:start] + packer.compress(bytes(3_000_000)) + packer.flush()
    refusals = r"grows beyond|cannot be inflated|more than 50000 elements"
    with pytest.raises(ClipError, match=refusals):
        read_header(bomb)


@pytest.mark.parametrize("data", [b"", b"no DICOM at all", bytes(200), b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_is_refused(data: bytes) -> None:
    with pytest.raises(ClipError):
        read_header(data)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="cannot be opened"):
        read_clip(tmp_path / "gone.dcm")


def test_an_object_without_pixels_is_refused_by_its_kind() -> None:
    with pytest.raises(ClipError, match="12-lead ECG Waveform Storage holds no pixel data"):
        read_clip(Path(get_path("waveform")))


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(SMALL)), place=st.integers(132, 1400), value=st.binary(max_size=4))
def test_no_damage_is_answered_with_anything_but_a_clip_error(
    cut: int, place: int, value: bytes
) -> None:
    data = SMALL[:place] + value + SMALL[place + len(value) :]
    for broken in (data, SMALL[:cut]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                walk(read_header(broken))
                read_clip(broken).frames()
            except ClipError:
                pass
