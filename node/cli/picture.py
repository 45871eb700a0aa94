"""Frames of captures as pictures that every program shows."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame


def write_frame(capture: bytes, path: Path) -> None:
    """Write the frame of a capture that tells most, given as a Part-10 file, as PNG."""
    dataset = dcmread(BytesIO(capture))
    count = int(dataset.get("NumberOfFrames") or 1)
    number = int(dataset.get("RepresentativeFrameNumber") or count // 2 + 1)
    write_jpeg(get_frame(dataset.PixelData, number - 1, number_of_frames=count), path)


def write_page(capture: bytes, path: Path) -> None:
    """Write the first page of a capture of pages, given as a Part-10 file, as PNG."""
    dataset = dcmread(BytesIO(capture))
    count = int(dataset.get("NumberOfFrames") or 1)
    write_jpeg(get_frame(dataset.PixelData, 0, number_of_frames=count), path)


def write_jpeg(frame: bytes, path: Path) -> None:
    """Write a JPEG as PNG."""
    Image.open(BytesIO(frame)).save(path, "PNG")
