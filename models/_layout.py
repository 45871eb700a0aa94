"""The Image Pixel module of a header (PS3.3 C.7.6.3), checked before any memory is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from models._colour import Planes
from models._header import ClipError, number, shown, text
from models._limits import MOST_FRAMES, MOST_PIXELS

_PLANES: Final = {
    "MONOCHROME1": Planes.INVERTED,
    "MONOCHROME2": Planes.GREY,
    "PALETTE COLOR": Planes.PALETTE,
    "RGB": Planes.RGB,
    "YBR_FULL": Planes.YBR,
    "YBR_FULL_422": Planes.YBR,
    "YBR_PARTIAL_422": Planes.YBR,
    "YBR_PARTIAL_420": Planes.YBR,
    # A JPEG 2000 decoder undoes these two itself.
    "YBR_ICT": Planes.RGB,
    "YBR_RCT": Planes.RGB,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How the pixels of an object are laid out. ``planes`` is what the header says they mean."""

    rows: int
    columns: int
    frame_count: int
    samples: int
    photometric: str
    planes: Planes
    bits_allocated: int
    bits_stored: int
    signed: bool
    planar: bool


def read_layout(header: Dataset) -> Layout:
    """The Image Pixel module of a header.

    Raises:
        ClipError: a size is missing, zero or absurd, or the pixels are of a kind not read here.
    """
    rows, columns = _whole(header, "Rows", 0), _whole(header, "Columns", 0)
    if rows < 1 or columns < 1:
        raise ClipError(f"the image size is {rows} rows by {columns} columns: there is no image")
    if rows * columns > MOST_PIXELS:
        raise ClipError(f"the header states {rows} x {columns} pixels: no echo frame is so large")
    frame_count = _whole(header, "NumberOfFrames", 1) or 1
    if not 1 <= frame_count <= MOST_FRAMES:
        raise ClipError(f"the header states {frame_count} frames: 1 to {MOST_FRAMES} are read")
    samples = _whole(header, "SamplesPerPixel", 1)
    photometric = text(header, "PhotometricInterpretation").upper()
    photometric = photometric or ("RGB" if samples == 3 else "MONOCHROME2")
    planes = _PLANES.get(photometric)
    if planes is None:
        raise ClipError(f"the photometric interpretation {shown(photometric)!r} is not read")
    wanted = 3 if planes in (Planes.RGB, Planes.YBR) else 1
    if samples != wanted:
        raise ClipError(f"{photometric} has {wanted} samples a pixel; the header states {samples}")
    allocated = _whole(header, "BitsAllocated", 8)
    stored = _whole(header, "BitsStored", allocated) or allocated
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise ClipError(f"{stored} bits stored in {allocated} allocated are not read: 8 or 16 are")
    return Layout(
        rows=rows,
        columns=columns,
        frame_count=frame_count,
        samples=samples,
        photometric=photometric,
        planes=planes,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=_whole(header, "PixelRepresentation", 0) == 1,
        planar=_whole(header, "PlanarConfiguration", 0) == 1,
    )


def _whole(header: Dataset, keyword: str, default: int) -> int:
    value = number(header, keyword)
    return default if value is None else int(value)
