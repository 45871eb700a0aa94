"""The file of a copy: a cleaned header and blanked frames, written one frame at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    RLELossless,
)
from rle.utils import encode_pixel_data

from models.blanked import BlankedFrames
from models.clip import Clip
from node.results.objects import IMPLEMENTATION_CLASS_UID

_QUALITY: Final = 95
_ITEM: Final = struct.Struct("<HHL")
_LARGEST_OFFSET: Final = 0xFFFFFFFF
_METHODS: Final = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
}


class Coding(StrEnum):
    """How pixels are written."""

    LOSSLESS = "lossless"  #: RLE: every value in the sector as it was decoded
    JPEG = "jpeg"  #: what came with loss as JPEG baseline once more, all else lossless


def write_copy(
    path: Path, header: Dataset, clip: Clip, frames: BlankedFrames, *, coding: Coding, size: int
) -> UID:
    """Write a copy and bring it to the disk; returns its transfer syntax.

    Parameters
    ----------
    header
        Gets what is to be said of the pixels.
    size
        Of the source's file, in bytes.

    Raises
    ------
    ClipError
        If a frame cannot be decoded.
    OSError
        If the file cannot be written.
    """
    as_jpeg = coding is Coding.JPEG and clip.lossy and frames.bits_stored == 8
    as_jpeg = as_jpeg and not frames.signed
    encode = _jpeg if as_jpeg else _rle
    encoded = (_even(encode(frame, frames)) for frame in frames)
    first = next(encoded)
    _describe(header, frames, subsampled=as_jpeg and frames.samples == 3)
    raw = frames.rows * frames.columns * frames.samples * frames.bits_allocated // 8
    if clip.lossy:
        _say_lossy(header, clip, raw * frames.frame_count / max(1, size))
    if as_jpeg:
        _add_loss(header, _METHODS[JPEGBaseline8Bit], raw / len(first))
    syntax = UID(JPEGBaseline8Bit if as_jpeg else RLELossless)
    header.file_meta = _meta(header, syntax)
    with path.open("wb") as file:
        dcmwrite(file, header, enforce_file_format=True)
        _write_frames(file, chain((first,), encoded), frames.frame_count)
        file.flush()
        os.fsync(file.fileno())
    return syntax


def _write_frames(file: BinaryIO, encoded: Iterable[bytes], count: int) -> None:
    """Encapsulated Pixel Data (PS3.5 A.4), with a basic offset table where offsets fit in."""
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    table = file.tell()
    file.write(_ITEM.pack(0xFFFE, 0xE000, 4 * count) + bytes(4 * count))
    begin = file.tell()
    offsets = []
    for frame in encoded:
        offsets.append(file.tell() - begin)
        file.write(_ITEM.pack(0xFFFE, 0xE000, len(frame)) + frame)
    file.write(_ITEM.pack(0xFFFE, 0xE0DD, 0))
    if offsets[-1] > _LARGEST_OFFSET:
        raise OSError(0, "so long a cine is not exported: it takes more than 4 GB", file.name)
    file.seek(table + _ITEM.size)
    file.write(struct.pack(f"<{count}L", *offsets))


def _rle(frame: NDArray[Any], frames: BlankedFrames) -> bytes:
    data: bytes = encode_pixel_data(
        frame.tobytes(),
        rows=frames.rows,
        columns=frames.columns,
        samples_per_pixel=frames.samples,
        bits_allocated=frames.bits_allocated,
        byteorder="<",
    )
    return data


def _jpeg(frame: NDArray[Any], frames: BlankedFrames) -> bytes:
    if frames.samples == 1:
        grey = np.ascontiguousarray(frame[..., np.newaxis])
        return bytes(
            simplejpeg.encode_jpeg(
                grey, quality=_QUALITY, colorspace="GRAY", colorsubsampling="Gray"
            )
        )
    rgb = np.ascontiguousarray(frames.as_rgb(frame))
    return bytes(
        simplejpeg.encode_jpeg(rgb, quality=_QUALITY, colorspace="RGB", colorsubsampling="422")
    )


def _even(data: bytes) -> bytes:
    return data + b"\0" if len(data) % 2 else data


def _describe(header: Dataset, frames: BlankedFrames, *, subsampled: bool) -> None:
    """The Image Pixel module (PS3.3 C.7.6.3) of what is written."""
    header.SamplesPerPixel = frames.samples
    header.PhotometricInterpretation = "YBR_FULL_422" if subsampled else frames.photometric
    if frames.samples == 3:
        # PS3.3 C.8.5.6.1.16: YBR_FULL of an ultrasound image stands plane after plane.
        header.PlanarConfiguration = int(header.PhotometricInterpretation == "YBR_FULL")
    header.Rows, header.Columns = frames.rows, frames.columns
    if frames.frame_count > 1 or "NumberOfFrames" in header:
        header.NumberOfFrames = frames.frame_count
    header.BitsAllocated = frames.bits_allocated
    header.BitsStored = frames.bits_stored
    header.HighBit = frames.bits_stored - 1
    header.PixelRepresentation = int(frames.signed)
    header.LossyImageCompression = "00"


def _say_lossy(header: Dataset, clip: Clip, ratio: float) -> None:
    """What the pixels lost before they came (PS3.3 C.7.6.1.1.5)."""
    header.LossyImageCompression = "01"
    ratios, methods = (
        _listed(header, keyword)
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    )
    if len(ratios) == len(methods) and ratios:
        return
    header.LossyImageCompressionRatio = ratios[0] if ratios else f"{ratio:.4g}"
    method = _METHODS.get(UID(clip.transfer_syntax_uid), _METHODS[JPEGBaseline8Bit])
    header.LossyImageCompressionMethod = methods[0] if methods else method


def _add_loss(header: Dataset, method: str, ratio: float) -> None:
    header.LossyImageCompressionRatio = [
        *_listed(header, "LossyImageCompressionRatio"),
        f"{ratio:.4g}",
    ]
    header.LossyImageCompressionMethod = [*_listed(header, "LossyImageCompressionMethod"), method]


def _listed(header: Dataset, keyword: str) -> list[str]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    many = hasattr(value, "__iter__") and not isinstance(value, str)
    return [str(one) for one in value] if many else [str(value)]


def _meta(header: Dataset, syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    return meta
