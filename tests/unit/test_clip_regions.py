"""Mode, panels and scale: what the header says of the picture, and whether it is believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from models._regions import (
    Mode,
    PixelSpacing,
    judge_spacing,
    main_region,
    pictures,
    read_regions,
    stated_mode,
)
from models.clip import read_clip
from tests.ultrasound_files import (
    COLUMNS,
    ROWS,
    as_file,
    region,
    speckle,
    ultrasound,
    with_regions,
)


def header(*items: Dataset, **values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.SequenceOfUltrasoundRegions = list(items)
    return ds


def spacing(*items: Dataset, mode: Mode = Mode.TWO_D, **values: Any) -> PixelSpacing:
    ds = header(*items, **values)
    chosen = next(iter(pictures(read_regions(ds))), None)
    return judge_spacing(ds, chosen, mode=mode, rows=ROWS, columns=COLUMNS, sector_rows=ROWS)


def image_type(mask: str) -> list[str]:
    return ["ORIGINAL", "PRIMARY", "TTE", mask]


# --- scale ---


def test_a_region_that_fits_gives_a_scale_to_trust() -> None:
    found = spacing(region(PhysicalDeltaX=0.05, PhysicalDeltaY=0.05))
    assert (found.row_mm, found.column_mm, found.trusted) == (0.5, 0.5, True)


def test_a_negative_delta_counts_by_its_size() -> None:
    found = spacing(region(PhysicalDeltaX=-0.05, PhysicalDeltaY=0.05))
    assert (found.column_mm, found.trusted) == (0.5, True)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region(RegionLocationMaxX1=595, RegionLocationMaxY1=414), "image size disagree"),
        (region(RegionLocationMaxX1=COLUMNS + 4), "image size disagree"),
        (region(PhysicalDeltaX=0.04, PhysicalDeltaY=0.05), "not square"),
        (region(PhysicalDeltaX=0.4, PhysicalDeltaY=0.4), "480 mm deep"),
        (region(PhysicalDeltaX=0.002, PhysicalDeltaY=0.002), "2.4 mm deep"),
        (region(PhysicalUnitsXDirection=4), "states no pixel spacing"),
        (region(PhysicalDeltaX=0.0), "states no pixel spacing"),
        (region(PhysicalDeltaX=float("inf")), "states no pixel spacing"),
    ],
    ids=["other image", "5 px over", "oblong", "too deep", "too shallow", "time", "0", "infinite"],
)  # fmt: skip
def test_a_scale_that_cannot_be_is_not_trusted_and_says_why(item: Dataset, reason: str) -> None:
    found = spacing(item)
    assert not found.trusted
    assert reason in found.reason


def test_a_box_a_few_pixels_too_large_is_forgiven() -> None:
    assert spacing(region(RegionLocationMaxX1=COLUMNS + 3)).trusted


def test_pixel_spacing_stands_in_where_no_region_states_a_scale() -> None:
    found = spacing(PixelSpacing=[0.5, 0.5])
    assert (found.row_mm, found.trusted) == (0.5, True)
    assert not spacing(PixelSpacing=[0.5, 0.7]).trusted
    assert not spacing(PixelSpacing=[-0.5, -0.5]).trusted


def test_imager_pixel_spacing_is_told_but_not_trusted() -> None:
    found = spacing(ImagerPixelSpacing=[0.5, 0.5])
    assert (found.row_mm, found.trusted) == (0.5, False)
    assert "detector" in found.reason


def test_pixel_spacing_does_not_overrule_a_region_of_another_image() -> None:
    far = region(RegionLocationMaxX1=595, RegionLocationMaxY1=414)
    assert not spacing(far, PixelSpacing=[0.5, 0.5]).trusted


@pytest.mark.parametrize("mode", [Mode.PW, Mode.CW, Mode.M_MODE])
def test_a_spectrum_has_no_scale(mode: Mode) -> None:
    assert not spacing(region(), mode=mode, PixelSpacing=[0.5, 0.5]).trusted


@given(
    delta_x=st.floats(-10, 10), delta_y=st.floats(-10, 10),
    right=st.integers(0, 700), bottom=st.integers(0, 700),
)  # fmt: skip
def test_what_is_trusted_is_square_inside_the_image_and_as_deep_as_a_heart(
    delta_x: float, delta_y: float, right: int, bottom: int
) -> None:
    item = region(PhysicalDeltaX=delta_x, PhysicalDeltaY=delta_y)
    item["RegionLocationMaxX1"].value = right
    item["RegionLocationMaxY1"].value = bottom
    found = spacing(item)
    assert found.reason
    if found.trusted:
        assert found.row_mm is not None
        assert found.column_mm is not None
        assert 0.95 <= found.row_mm / found.column_mm <= 1 / 0.95
        assert 30 <= found.row_mm * (bottom + 1) <= 350
        assert right <= COLUMNS + 3
        assert bottom <= ROWS + 3


# --- which region ---


def halves() -> tuple[Dataset, Dataset]:
    return region(RegionLocationMaxX1=79), region(RegionLocationMinX0=80)


def test_two_pictures_side_by_side_are_two_panels_and_the_first_is_looked_at() -> None:
    clip = read_clip(as_file(with_regions(ultrasound(speckle((3, ROWS, COLUMNS))), *halves())))
    assert clip.panels == 2
    assert clip.sector.right <= 80


def test_a_colour_box_inside_the_tissue_is_no_panel() -> None:
    box = region(RegionDataType=2, RegionLocationMinX0=40, RegionLocationMaxX1=100)
    assert len(pictures(read_regions(header(region(), box)))) == 1


def test_regions_of_no_format_ecg_and_bars_are_passed_over() -> None:
    items = (
        region(RegionSpatialFormat=0),
        region(RegionSpatialFormat=4, RegionDataType=10),
        region(RegionSpatialFormat=5, RegionDataType=14),
        region(RegionDataType=18),
    )
    assert main_region(read_regions(header(*items)), Mode.TWO_D) is None


def test_a_region_without_corners_is_left_out() -> None:
    item = region()
    del item.RegionLocationMinX0
    assert read_regions(header(item)) == ()


def test_the_sector_of_a_spectrum_is_its_whole_region() -> None:
    spectrum = region(RegionSpatialFormat=3, RegionDataType=3, RegionLocationMinY0=60)
    small = region(RegionLocationMaxY1=59)
    ds = with_regions(ultrasound(speckle((1, ROWS, COLUMNS))), small, spectrum)
    clip = read_clip(as_file(ds))
    assert clip.mode is Mode.PW
    assert (clip.sector.top, clip.sector.bottom) == (60, ROWS)
    assert clip.sector.mask.all()


# --- mode ---


@pytest.mark.parametrize(
    ("items", "mask", "mode"),
    [
        ([region()], "0001", Mode.TWO_D),
        ([region()], "0011", Mode.COLOUR),
        ([region(RegionDataType=2)], "0001", Mode.COLOUR),
        ([region(), region(RegionSpatialFormat=2)], "0001", Mode.M_MODE),
        ([region(), region(RegionSpatialFormat=3, RegionDataType=3)], "0001", Mode.PW),
        ([region(), region(RegionSpatialFormat=3, RegionDataType=4)], "0001", Mode.CW),
        ([region(), region(RegionSpatialFormat=3, RegionDataType=6)], "0005", Mode.CW),
        ([], "0001", Mode.TWO_D),
        ([], "0002", Mode.M_MODE),
        ([], "0004", Mode.CW),
        ([], "0005", Mode.CW),
        ([], "0008", Mode.PW),
        ([], "0009", Mode.PW),
        ([], "0010", Mode.COLOUR),
        ([], "0020", Mode.M_MODE),
        ([], "ZZ", None),
        ([], "", None),
    ],
)
def test_the_mode_by_regions_then_by_image_type(
    items: list[Dataset], mask: str, mode: Mode | None
) -> None:
    ds = header(*items, ImageType=image_type(mask))
    assert stated_mode(ds, read_regions(ds)) is mode


def coloured(hue: tuple[int, int, int], share: float) -> bytes:
    """A speckled clip with no word on its mode; a share of its rows in one colour."""
    grey = speckle((5, ROWS, COLUMNS))
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    rows = int(share * ROWS)
    rgb[:, :rows] = grey[:, :rows, :, None].astype(float) * np.array(hue) / 255
    return as_file(ultrasound(rgb))


def test_colour_in_the_picture_tells_colour_doppler() -> None:
    assert read_clip(coloured((255, 40, 20), 0.2)).mode is Mode.COLOUR
    assert read_clip(coloured((20, 60, 255), 0.2)).mode is Mode.COLOUR


def test_a_tint_over_the_whole_picture_is_no_flow() -> None:
    assert read_clip(coloured((255, 160, 60), 1.0)).mode is Mode.TWO_D


def test_a_grey_cine_without_a_word_is_2d_and_such_a_still_is_unknown() -> None:
    assert read_clip(as_file(ultrasound(speckle((5, ROWS, COLUMNS))))).mode is Mode.TWO_D
    assert read_clip(as_file(ultrasound(speckle((1, ROWS, COLUMNS))))).mode is Mode.UNKNOWN


# --- heart rate, loss ---


@pytest.mark.parametrize(("rate", "found"), [("72", 72.0), ("0", None), (None, None)])
def test_a_heart_rate_of_zero_is_none(rate: str | None, found: float | None) -> None:
    ds = ultrasound(speckle((1, ROWS, COLUMNS)))
    if rate is not None:
        ds.HeartRate = rate
    assert read_clip(as_file(ds)).heart_rate_bpm == found


@pytest.mark.parametrize(("flag", "lossy"), [("01", True), ("00", False)])
def test_loss_is_told_by_the_header_too(flag: str, lossy: bool) -> None:
    ds = ultrasound(speckle((1, ROWS, COLUMNS)), LossyImageCompression=flag)
    assert read_clip(as_file(ds)).lossy is lossy
