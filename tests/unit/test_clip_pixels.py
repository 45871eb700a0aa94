"""Frames of every encoding come out as the same grey."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.examples import get_path
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from models._header import open_object
from models._pixels import FrameReader
from models.clip import read_clip
from tests.ultrasound_files import (
    COLUMNS,
    ROWS,
    as_file,
    jpeg_object,
    rgb_jpeg,
    speckle,
    ultrasound,
    without_marks,
    ybr_jpeg,
)

GREY = speckle((3, ROWS, COLUMNS))
RGB = speckle((3, ROWS, COLUMNS, 3), seed=1)
WEIGHTS = np.array([0.299, 0.587, 0.114])
LUMA = RGB @ WEIGHTS


def greys(source: Path | bytes | FileDataset) -> NDArray[np.uint8]:
    """Every frame's whole grey, text and all."""
    data = as_file(source) if isinstance(source, FileDataset) else source
    reader = FrameReader(open_object(data))
    return np.stack(list(reader.greys(range(reader.layout.frame_count))))


def off_by(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.abs(found.astype(float) - wanted).max())


def in_syntax(ds: FileDataset, syntax: str) -> bytes:
    """The object in another native transfer syntax, or compressed."""
    if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        ds.compress(syntax, generate_instance_uid=False)
        return as_file(ds)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds._read_little = ds._read_implicit = None
    return as_file(ds)


SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
]
by_name = pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)


@by_name
def test_grey_of_every_transfer_syntax_is_exact(syntax: str) -> None:
    assert np.array_equal(greys(in_syntax(ultrasound(GREY), syntax)), GREY)


@by_name
def test_colour_of_every_transfer_syntax_becomes_luma(syntax: str) -> None:
    assert off_by(greys(in_syntax(ultrasound(RGB), syntax)), LUMA) <= 0.51


@by_name
def test_sixteen_bits_give_their_upper_eight_stored_ones(syntax: str) -> None:
    deep = GREY.astype(np.uint16) << 4 | 7
    ds = ultrasound(deep, BitsStored=12, HighBit=11)
    assert np.array_equal(greys(in_syntax(ds, syntax)), GREY)


def test_native_planes_one_after_the_other() -> None:
    ds = ultrasound(RGB, PlanarConfiguration=1)
    ds.PixelData = np.ascontiguousarray(RGB.transpose(0, 3, 1, 2)).tobytes()
    assert off_by(greys(ds), LUMA) <= 0.51


@pytest.mark.parametrize("label", [0, 1])
def test_the_planes_of_rle_follow_each_other_whatever_the_header_says(label: int) -> None:
    ds = ultrasound(RGB)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.PlanarConfiguration = label
    assert off_by(greys(ds), LUMA) <= 0.51


def test_bytes_that_travel_as_big_endian_words_are_put_in_order() -> None:
    odd = speckle((3, 7, 9))  # frames of odd length share words
    ds = ultrasound(odd)
    padded = odd.tobytes() + b"\0"
    ds.PixelData = np.frombuffer(padded, "u2").byteswap().tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds._read_little = ds._read_implicit = None
    assert np.array_equal(greys(ds), odd)


def test_monochrome1_is_turned_about() -> None:
    assert np.array_equal(greys(ultrasound(GREY, photometric="MONOCHROME1")), 255 - GREY)


def test_few_bits_are_stretched() -> None:
    ds = ultrasound(GREY >> 4, BitsStored=4, HighBit=3)
    assert np.array_equal(greys(ds), (GREY >> 4) * 17)


def test_bits_above_the_stored_ones_mean_nothing() -> None:
    ds = ultrasound(GREY.astype(np.uint16) << 4 | 0xF000, BitsStored=12, HighBit=11)
    assert np.array_equal(greys(ds), GREY)


def test_signed_samples_are_lifted() -> None:
    signed = (GREY.astype(np.int16) - 128).astype(np.int8)
    assert np.array_equal(greys(ultrasound(signed)), GREY)


def test_native_ybr_full_422_gives_its_y() -> None:
    pairs = np.full((3, ROWS, COLUMNS // 2, 4), 128, np.uint8)
    pairs[..., :2] = GREY.reshape(3, ROWS, COLUMNS // 2, 2)
    ds = ultrasound(RGB, photometric="YBR_FULL_422")
    ds.PixelData = pairs.tobytes()
    assert np.array_equal(greys(ds), GREY)


def test_native_ybr_full_422_that_is_not_subsampled_is_seen_for_what_it_is() -> None:
    full = np.full((*GREY.shape, 3), 128, np.uint8)
    full[..., 0] = GREY
    assert np.array_equal(greys(ultrasound(full, photometric="YBR_FULL_422")), GREY)


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
def test_native_planes_are_told_by_the_pixels_not_the_label(label: str) -> None:
    ybr = np.full((*GREY.shape, 3), 128, np.uint8)
    ybr[..., 0] = GREY
    assert np.array_equal(greys(ultrasound(ybr, photometric=label)), GREY)
    rgb = np.repeat(GREY[..., None], 3, axis=-1)
    assert np.array_equal(greys(ultrasound(rgb, photometric=label)), GREY)


# --- palette ---


def palette(ds: FileDataset, table: NDArray[Any], *, first: int = 0, bits: int = 16) -> FileDataset:
    for column, channel in enumerate(("Red", "Green", "Blue")):
        descriptor = [len(table) % 65536, first, bits]
        setattr(ds, f"{channel}PaletteColorLookupTableDescriptor", descriptor)
        data = np.ascontiguousarray(table[:, column]).tobytes()
        setattr(ds, f"{channel}PaletteColorLookupTableData", data)
    return ds


TABLE = speckle((256, 3), seed=2)


@pytest.mark.parametrize(
    ("table", "bits"),
    [
        (TABLE.astype(np.uint16) << 8, 16),
        (TABLE.astype(np.uint16) << 8 | TABLE, 16),
        (TABLE.astype(np.uint16), 16),
        (TABLE.astype(np.uint16), 8),
        (TABLE, 8),
    ],
    ids=["upper byte", "both bytes", "8-bit values in 16", "8 bits in words", "bytes"],
)
def test_a_palette_is_applied_however_it_is_written(table: NDArray[Any], bits: int) -> None:
    ds = palette(ultrasound(GREY, photometric="PALETTE COLOR"), table, bits=bits)
    assert off_by(greys(ds), (TABLE @ WEIGHTS)[GREY]) <= 0.51


def test_a_palette_of_a_big_endian_object_is_applied() -> None:
    ds = palette(ultrasound(GREY, photometric="PALETTE COLOR"), TABLE.astype(">u2") << 8)
    for channel in ("Red", "Green", "Blue"):
        data = getattr(ds, f"{channel}PaletteColorLookupTableData")
        swapped = np.frombuffer(data, "<u2").astype(">u2").tobytes()
        setattr(ds, f"{channel}PaletteColorLookupTableData", swapped)
    assert off_by(greys(in_syntax(ds, ExplicitVRBigEndian)), (TABLE @ WEIGHTS)[GREY]) <= 0.51


def test_a_palette_of_sixteen_bit_indices_may_be_short_and_start_late() -> None:
    indices = np.arange(400, dtype=np.uint16).reshape(1, 20, 20)
    ds = ultrasound(indices, photometric="PALETTE COLOR")
    palette(ds, TABLE.astype(np.uint16) << 8, first=100)
    wanted = (TABLE @ WEIGHTS)[np.clip(indices.astype(int) - 100, 0, 255)]
    assert off_by(greys(ds), wanted) <= 0.51


# --- JPEG ---

SCENE = np.repeat(
    np.kron(speckle((2, ROWS // 8, COLUMNS // 8), seed=3), np.ones((8, 8), np.uint8))[..., None],
    3,
    axis=-1,
)
SCENE[:, 40:60, 40:80] = (220, 30, 20)  # a patch of flow
SCENE[:, 80:, :] = 0
SCENE_LUMA = SCENE @ WEIGHTS


@pytest.mark.parametrize("label", ["YBR_FULL_422", "YBR_FULL", "RGB"])
@pytest.mark.parametrize(
    "encode",
    [ybr_jpeg, rgb_jpeg, lambda rgb: without_marks(ybr_jpeg(rgb)),
     lambda rgb: without_marks(rgb_jpeg(rgb))],
    ids=["YCbCr", "RGB", "YCbCr unmarked", "RGB unmarked"],
)  # fmt: skip
def test_jpeg_grey_is_right_whatever_label_and_markers_say(
    encode: Callable[[NDArray[np.uint8]], bytes], label: str
) -> None:
    found = greys(jpeg_object(SCENE, encode, photometric=label))
    assert np.abs(found - SCENE_LUMA).mean() < 2.0


def test_jpeg_grey_is_the_y_plane_of_the_whole_decode() -> None:
    path = Path(get_path("ybr_color"))
    found = greys(path)
    for index in (0, 7, 29):
        y = pixel_array(path, index=index, raw=True)[..., 0]
        assert off_by(found[index], y) <= 1


@pytest.mark.parametrize("has_bot", [True, False], ids=["table", "no table"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_fragmented_frames_are_joined(pieces: int, has_bot: bool) -> None:
    whole = greys(jpeg_object(SCENE, ybr_jpeg))
    cut = jpeg_object(SCENE, ybr_jpeg, has_bot=has_bot, fragments_per_frame=pieces)
    assert np.array_equal(greys(cut), whole)


def test_a_wrong_offset_table_is_not_believed() -> None:
    ds = jpeg_object(SCENE, ybr_jpeg, fragments_per_frame=3)
    data = bytearray(ds.PixelData)
    data[12:16] = (5).to_bytes(4, "little")  # the second frame's offset
    ds.PixelData = bytes(data)
    assert np.array_equal(greys(ds), greys(jpeg_object(SCENE, ybr_jpeg)))


def test_a_missing_end_of_the_fragments_is_forgiven() -> None:
    data = as_file(jpeg_object(SCENE, ybr_jpeg))
    assert data.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    assert np.array_equal(greys(data[:-8]), greys(data))


def test_only_the_frames_asked_for_are_decoded() -> None:
    ds = jpeg_object(np.concatenate([SCENE] * 20), ybr_jpeg)
    data = bytearray(as_file(ds))
    clip = read_clip(bytes(data))
    assert clip.frames([39, 3, 3]).shape[0] == 3
    broken = read_clip(bytes(_spoil_frame(data, 5)))
    assert np.array_equal(broken.frames([3, 39]), clip.frames([3, 39]))


def _spoil_frame(data: bytearray, index: int) -> bytearray:
    """The file with the inside of one frame's stream zeroed."""
    start = -1
    for _ in range(index + 1):
        start = data.index(b"\xff\xd8\xff", start + 1)
    data[start + 2 : start + 60] = bytes(58)
    return data


# --- real objects that come with pydicom ---


@pytest.mark.parametrize(
    "name",
    [
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "US1_J2KI.dcm",
        "US1_J2KR.dcm",
        "US1_UNCI.dcm",
        "JPEGLSNearLossless_08.dcm",
        "gdcm-US-ALOKA-16.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "examples_palette.dcm",
        "examples_rgb_color.dcm",
        "examples_jpeg2k.dcm",
        "ExplVR_BigEnd.dcm",
    ],
)
def test_real_objects_agree_with_pydicom(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} does not come with the installed pydicom and pydicom-data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(str(path))
        array = ds.pixel_array
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            array = pydicom.pixels.apply_color_lut(array, ds) >> 8
    wanted = array if array.ndim == 2 else array @ WEIGHTS
    found = greys(Path(str(path)))[0]
    assert np.abs(found - wanted).mean() < 1.0


def test_a_big_endian_palette_still_equals_its_little_endian_twin() -> None:
    little, big = (
        get_testdata_file(f"gdcm-US-ALOKA-16{end}.dcm", download=False) for end in ("", "_big")
    )
    assert np.array_equal(greys(Path(str(little))), greys(Path(str(big))))


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-LL.dcm", "JPEGLSNearLossless_16.dcm"])
def test_deep_samples_of_other_modalities_are_cut_to_eight_bits(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    ds = pydicom.dcmread(path)
    lift = ds.PixelRepresentation << (ds.BitsStored - 1)
    wanted = (pixel_array(path).astype(int) + lift) >> (ds.BitsStored - 8)
    assert np.array_equal(greys(path)[0], wanted)
