"""What the header says of the picture: its regions, its mode, its scale.

Sequence of Ultrasound Regions (0018,6011) is PS3.3 C.8.5.5. Quirks that real files show:

- SonoSite and Philips files that were scaled or cropped after the examination keep the region
  boxes of the old size. A box that leaves the image by more than a few pixels is not believed,
  and neither is its scale.
- Acuson adds a region of format 0 (none) that spans the screen, and writes a negative
  Physical Delta X (the axis runs to the left). Format 0 is passed over; a delta counts by size.
- Acuson also writes a delta ten times too large for any heart: hence the check of the depth.
- Aloka shows two panels: two 2D regions side by side.
- Medistim and Philips describe the ECG strip as a region of format 4: passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom.dataset import Dataset

from models._header import UNREADABLE, number, numbers

TOLERANCE_PX: Final = 4
"""A region may leave the image by so many pixels: boxes are off by one or two in good files."""
SHALLOWEST_MM: Final = 30.0
DEEPEST_MM: Final = 350.0
MOST_ANISOTROPY: Final = 0.05

_PICTURE, _M_MODE, _SPECTRAL = 1, 2, 3  # Region Spatial Format
_TISSUE, _COLOUR_FLOW, _CW = 1, 2, 4  # Region Data Type
_CENTIMETRES: Final = 3  # Physical Units


class Mode(StrEnum):
    """How the machine was scanning."""

    TWO_D = "2d"  #: grey tissue
    COLOUR = "colour"  #: tissue with colour Doppler
    M_MODE = "mmode"  #: one line over time, colour M-mode too
    PW = "pw"  #: pulsed-wave Doppler
    CW = "cw"  #: continuous-wave Doppler
    UNKNOWN = "unknown"  #: neither the header nor the pixels tell


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelSpacing:
    """Millimetres from one pixel to the next, and whether a volume may rest on them.

    ``row_mm`` is the distance between rows (down), ``column_mm`` between columns (across); None
    where the file states none. ``reason`` says in words why they can or cannot be trusted.
    """

    row_mm: float | None
    column_mm: float | None
    trusted: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """One region: its box in pixels (half-open), what it shows and its scale."""

    top: int
    left: int
    bottom: int
    right: int
    spatial_format: int
    data_type: int
    units: tuple[int, int]  #: across, down
    deltas: tuple[float | None, float | None]  #: across, down, as written

    @property
    def area(self) -> int:
        """Its size in pixels."""
        return max(0, self.bottom - self.top) * max(0, self.right - self.left)

    def fits(self, rows: int, columns: int) -> bool:
        """Whether the box lies within the image, by a few pixels."""
        return (
            self.area > 0
            and self.top >= -TOLERANCE_PX
            and self.left >= -TOLERANCE_PX
            and self.bottom <= rows + TOLERANCE_PX
            and self.right <= columns + TOLERANCE_PX
        )

    def covers(self, other: Region) -> bool:
        """Whether at least half of the smaller of the two is shared."""
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        width = min(self.right, other.right) - max(self.left, other.left)
        return max(0, height) * max(0, width) * 2 >= min(self.area, other.area) > 0


# Bits of Image Type value 4, the most telling first: M-mode and colour M-mode are one to us,
# and so are colour flow and colour power.
_MODE_BITS: Final = (
    (0x0004, Mode.CW),
    (0x0008, Mode.PW),
    (0x0022, Mode.M_MODE),
    (0x0110, Mode.COLOUR),
)


def read_regions(header: Dataset) -> tuple[Region, ...]:
    """All regions that can be read, in the order of the file."""
    try:
        items = list(header.get("SequenceOfUltrasoundRegions") or ())
    except UNREADABLE:
        return ()
    found = (_read_region(item) for item in items)
    return tuple(region for region in found if region is not None)


def pictures(regions: Sequence[Region]) -> tuple[Region, ...]:
    """The 2D panels, the largest first. A colour box inside a tissue region is no panel."""
    flat = [
        region
        for region in regions
        if region.spatial_format == _PICTURE and region.data_type in (_TISSUE, _COLOUR_FLOW)
    ]
    panels: list[Region] = []
    for region in sorted(flat, key=lambda region: -region.area):
        if not any(panel.covers(region) for panel in panels):
            panels.append(region)
    return tuple(panels)


def main_region(regions: Sequence[Region], mode: Mode) -> Region | None:
    """The region to look at: the largest that shows what the mode says."""
    if mode in (Mode.PW, Mode.CW):
        shown = [region for region in regions if region.spatial_format == _SPECTRAL]
    elif mode is Mode.M_MODE:
        shown = [region for region in regions if region.spatial_format == _M_MODE]
    else:
        return next(iter(pictures(regions)), None)
    return max(shown, key=lambda region: region.area, default=None)


def stated_mode(header: Dataset, regions: Sequence[Region]) -> Mode | None:
    """The mode by the regions, then by Image Type value 4; None where neither tells.

    A picture of Doppler or M-mode often has a small 2D picture beside it: the former counts.
    Plain tissue is not taken for an answer to the question of colour: the pixels are asked.
    """
    kinds = {(region.spatial_format, region.data_type) for region in regions}
    shapes = {shape for shape, _ in kinds}
    mask = _mode_mask(header)
    if _SPECTRAL in shapes:
        return Mode.CW if (_SPECTRAL, _CW) in kinds or mask & 0x0004 else Mode.PW
    if _M_MODE in shapes:
        return Mode.M_MODE
    for bits, mode in _MODE_BITS:
        if mask & bits:
            return mode
    if (_PICTURE, _COLOUR_FLOW) in kinds:
        return Mode.COLOUR
    return Mode.TWO_D if mask & 0x0001 or (_PICTURE, _TISSUE) in kinds else None


def judge_spacing(
    header: Dataset,
    region: Region | None,
    *,
    mode: Mode,
    rows: int,
    columns: int,
    sector_rows: int,
) -> PixelSpacing:
    """The pixel spacing by the region, else by Pixel Spacing, with a verdict.

    Args:
        header: the object's header.
        region: the chosen 2D region, None where there is none.
        mode: of the picture: a Doppler spectrum or an M-mode has no length to state.
        rows: of the image.
        columns: of the image.
        sector_rows: height of the sector that was found, used where there is no region.
    """
    if mode in (Mode.PW, Mode.CW, Mode.M_MODE):
        return PixelSpacing(
            row_mm=None, column_mm=None, trusted=False, reason="this is no 2D picture"
        )
    if region is not None:
        row_mm, column_mm, wrong = _region_scale(region, rows, columns)
        if row_mm is not None and column_mm is not None:
            wrong = wrong or _implausible(row_mm, column_mm, region.bottom - region.top)
            return PixelSpacing(
                row_mm=row_mm,
                column_mm=column_mm,
                trusted=not wrong,
                reason=wrong or "the ultrasound region states it and fits the image",
            )
        if wrong:
            return PixelSpacing(row_mm=None, column_mm=None, trusted=False, reason=wrong)
    for keyword, in_the_body in (("PixelSpacing", True), ("ImagerPixelSpacing", False)):
        pair = numbers(header, keyword)
        if len(pair) != 2:
            continue
        wrong = _implausible(pair[0], pair[1], sector_rows)
        if not in_the_body and not wrong:
            wrong = "Imager Pixel Spacing is measured at a detector, not in the body"
        return PixelSpacing(
            row_mm=pair[0],
            column_mm=pair[1],
            trusted=not wrong,
            reason=wrong or "Pixel Spacing states it; no ultrasound region contradicts",
        )
    return PixelSpacing(
        row_mm=None, column_mm=None, trusted=False, reason="the file states no pixel spacing"
    )


def _read_region(item: Dataset) -> Region | None:
    keywords = ("MinX0", "MinY0", "MaxX1", "MaxY1")
    corners = [number(item, f"RegionLocation{keyword}") for keyword in keywords]
    if any(corner is None for corner in corners):
        return None
    left, top, right, bottom = (int(corner or 0) for corner in corners)
    return Region(
        top=top,
        left=left,
        bottom=bottom + 1,  # the standard names the last pixel
        right=right + 1,
        spatial_format=int(number(item, "RegionSpatialFormat") or 0),
        data_type=int(number(item, "RegionDataType") or 0),
        units=(
            int(number(item, "PhysicalUnitsXDirection") or 0),
            int(number(item, "PhysicalUnitsYDirection") or 0),
        ),
        deltas=(number(item, "PhysicalDeltaX"), number(item, "PhysicalDeltaY")),
    )


def _mode_mask(header: Dataset) -> int:
    """Image Type value 4: the modes, ORed, in hexadecimal (PS3.3 C.8.5.6.1.1)."""
    value = header.get("ImageType")
    if value is None or isinstance(value, str) or len(value) < 4:
        return 0
    try:
        return int(str(value[3]), 16)
    except ValueError:
        return 0


def _region_scale(
    region: Region, rows: int, columns: int
) -> tuple[float | None, float | None, str]:
    """Spacing down and across in mm, and what is wrong with it ("" for nothing)."""
    across, down = region.deltas
    if region.units != (_CENTIMETRES, _CENTIMETRES) or not across or not down:
        return None, None, ""  # it states no length: Pixel Spacing may
    row_mm, column_mm = abs(down) * 10.0, abs(across) * 10.0
    if not region.fits(rows, columns):
        return (
            row_mm,
            column_mm,
            (
                "the region and the image size disagree: the region spans columns "
                f"{region.left} to {region.right - 1} and rows {region.top} to "
                f"{region.bottom - 1}, the image has {columns} columns and {rows} rows, "
                "so it was scaled or cropped after the examination"
            ),
        )
    return row_mm, column_mm, ""


def _implausible(row_mm: float, column_mm: float, rows: int) -> str:
    """Why this spacing is no heart's; "" where it may be."""
    if not (row_mm > 0 and column_mm > 0):
        return f"a pixel spacing of {row_mm:g} x {column_mm:g} mm is no length"
    if abs(row_mm - column_mm) > MOST_ANISOTROPY * max(row_mm, column_mm):
        return f"the pixels are not square: {row_mm:.4g} mm down, {column_mm:.4g} mm across"
    depth_mm = row_mm * rows
    if not SHALLOWEST_MM <= depth_mm <= DEEPEST_MM:
        return (
            f"the picture would be {depth_mm:.3g} mm deep; a heart is imaged at "
            f"{SHALLOWEST_MM:.0f} to {DEEPEST_MM:.0f} mm"
        )
    return ""
