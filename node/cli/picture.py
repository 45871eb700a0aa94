"""One frame of a saliency cine as a picture that every program shows."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame


def write_frame(capture: bytes, path: Path) -> None:
    """Write the middle frame of a saliency cine, given as a Part-10 file, as PNG."""
    dataset = dcmread(BytesIO(capture))
    count = int(dataset.NumberOfFrames)
    frame = get_frame(dataset.PixelData, count // 2, number_of_frames=count)
    Image.open(BytesIO(frame)).save(path, "PNG")
