"""Small ultrasound objects with known pixels, made in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    UltrasoundMultiFrameImageStorage,
)

ROWS, COLUMNS = 120, 160


def speckle(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    """Grey of 30 to 200 that differs from pixel to pixel."""
    return np.random.default_rng(seed).integers(30, 200, shape, np.uint8)


def fan_mask(rows: int = 480, columns: int = 640) -> NDArray[np.bool_]:
    """A phased-array sector of 80 degrees, apex near the top."""
    y, x = np.mgrid[:rows, :columns]
    down, across = y - 0.08 * rows, x - 0.5 * columns
    reach = np.hypot(down, across)
    angle = np.degrees(np.arctan2(across, np.maximum(down, 1e-6)))
    return (down > 0) & (np.abs(angle) < 40) & (reach < 0.8 * rows)


def screen(frame_count: int, *, texts: Sequence[tuple[int, int, str]] = ()) -> NDArray[np.uint8]:
    """An echo machine's screen: a moving speckled fan on black, texts at (x, y)."""
    mask = fan_mask()
    frames = np.where(mask, speckle((frame_count, *mask.shape)), np.uint8(0))
    for place, frame in enumerate(frames):
        canvas = Image.fromarray(frame)
        pen = ImageDraw.Draw(canvas)
        for x, y, words in texts:
            pen.text((x, y), words, fill=255, font_size=16)
        frames[place] = np.asarray(canvas)
    return frames


def region(**changes: Any) -> Dataset:
    """A 2D tissue region of 0.4 mm pixels that spans the standard test image."""
    item = Dataset()
    item.RegionSpatialFormat = 1
    item.RegionDataType = 1
    item.RegionFlags = 0
    item.RegionLocationMinX0 = 0
    item.RegionLocationMinY0 = 0
    item.RegionLocationMaxX1 = COLUMNS - 1
    item.RegionLocationMaxY1 = ROWS - 1
    item.PhysicalUnitsXDirection = 3
    item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX = 0.04
    item.PhysicalDeltaY = 0.04
    for keyword, value in changes.items():
        setattr(item, keyword, value)
    return item


def ultrasound(
    frames: NDArray[Any], *, photometric: str | None = None, **changes: Any
) -> FileDataset:
    """An uncompressed multi-frame object of ``(n, rows, columns[, 3])`` samples.

    ``changes`` are attributes to set; None removes one.
    """
    count, rows, columns = frames.shape[:3]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.826.0.1.3680043.8.498.1")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = UltrasoundMultiFrameImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    ds.Modality = "US"
    ds.PatientName = "Test^Patient"
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, count
    ds.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    ds.PhotometricInterpretation = photometric or ("RGB" if frames.ndim == 4 else "MONOCHROME2")
    if frames.ndim == 4:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * frames.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(frames.dtype.kind == "i")
    ds.FrameTime = "40"
    ds.PixelData = frames.tobytes()
    ds["PixelData"].VR = "OB" if frames.dtype.itemsize == 1 else "OW"
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def jpeg_object(
    rgb: NDArray[np.uint8],
    encode: Callable[[NDArray[np.uint8]], bytes],
    *,
    photometric: str = "YBR_FULL_422",
    has_bot: bool = True,
    fragments_per_frame: int = 1,
    **changes: Any,
) -> FileDataset:
    """A JPEG baseline object whose frames are made by ``encode``."""
    ds = ultrasound(rgb, photometric=photometric, **changes)
    frames = [encode(frame) for frame in rgb]
    ds.PixelData = encapsulate(frames, fragments_per_frame=fragments_per_frame, has_bot=has_bot)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return ds


def ybr_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """A JFIF stream of YCbCr planes."""
    return bytes(simplejpeg.encode_jpeg(rgb, quality=95, colorspace="RGB", colorsubsampling="422"))


def rgb_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """A stream of RGB planes, marked so by Adobe's marker."""
    out = BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=95, keep_rgb=True)
    return out.getvalue()


def without_marks(stream: bytes) -> bytes:
    """A JPEG stream with its JFIF and Adobe markers cut out."""
    out, place = bytearray(stream[:2]), 2
    while stream[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        if stream[place + 1] not in (0xE0, 0xEE):
            out += stream[place:end]
        place = end
    return bytes(out + stream[place:])


def as_file(ds: FileDataset) -> bytes:
    """The object as a Part 10 file."""
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def with_regions(ds: FileDataset, *items: Dataset) -> FileDataset:
    """The object with these ultrasound regions."""
    ds.SequenceOfUltrasoundRegions = DicomSequence(items)
    return ds
