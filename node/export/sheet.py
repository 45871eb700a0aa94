"""A contact sheet: a copy's frames side by side, for a person to look for letters in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.pixels.utils import iter_pixels

_COLUMNS: Final = 4
_TILES: Final = 8
_TILE_PX: Final = 360
_GAP_PX: Final = 4
_GROUND: Final = (64, 64, 96)


def draw_sheet(copy: Path, out: Path) -> None:
    """Draw the brightest that each pixel ever was, then frames from the first to the last.

    What stands still shows in the first tile, however the heart moves. Dim grey is lifted, so
    that letters in it can be seen; colours are those that a viewer would show.
    """
    header = dcmread(copy, stop_before_pixels=True)
    count = int(header.get("NumberOfFrames") or 1)
    wanted = set(np.linspace(0, count - 1, min(count, _TILES - 1)).astype(int).tolist())
    brightest: NDArray[Any] | None = None
    tiles = []
    for place, frame in enumerate(iter_pixels(copy)):
        shown = _rgb(frame, header)
        brightest = shown if brightest is None else np.maximum(brightest, shown)
        if place in wanted:
            tiles.append((f"frame {place + 1} of {count}", _tile(shown)))
    if brightest is not None:
        tiles.insert(0, ("brightest of all", _tile(brightest)))
    width, height = tiles[0][1].size
    rows = -(-len(tiles) // _COLUMNS)
    across = min(len(tiles), _COLUMNS)
    size = (across * (width + _GAP_PX) + _GAP_PX, rows * (height + 16 + _GAP_PX) + _GAP_PX)
    sheet = Image.new("RGB", size, _GROUND)
    pen = ImageDraw.Draw(sheet)
    for place, (words, tile) in enumerate(tiles):
        left = _GAP_PX + place % _COLUMNS * (width + _GAP_PX)
        top = _GAP_PX + place // _COLUMNS * (height + 16 + _GAP_PX)
        pen.text((left, top), words, fill="white")
        sheet.paste(tile, (left, top + 16))
    part = out.with_name(f".{out.name}.part")
    sheet.save(part, "PNG")
    part.replace(out)


def _rgb(frame: NDArray[Any], header: Any) -> NDArray[np.uint8]:
    values = frame.astype(np.float32)
    if values.ndim == 2:
        low = -(1 << (header.BitsStored - 1)) if header.PixelRepresentation else 0
        values = (values - low) * (255.0 / ((1 << header.BitsStored) - 1))
        if header.PhotometricInterpretation == "MONOCHROME1":
            values = 255.0 - values
        values = np.repeat(values[..., np.newaxis], 3, axis=-1)
    lifted: NDArray[np.uint8] = (np.sqrt(np.clip(values, 0, 255) / 255.0) * 255.0).astype(np.uint8)
    return lifted


def _tile(rgb: NDArray[np.uint8]) -> Image.Image:
    tile = Image.fromarray(rgb)
    tile.thumbnail((_TILE_PX, _TILE_PX))
    return tile
