"""A sheet of examples for a pack's page: frame and overlay, with the true outline where known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from models.explain import ink
from models.explain.sidebyside import PERCENTILE, RESEARCH_WORDS

_SIDE, _GAP, _LINE = 280, 14, 26


def draw_examples(examples: Sequence[Any], path: Path) -> None:
    """Draw (title, method, grey, map, mask or None) examples, two in a row, as PNG."""
    across = 2
    cell = 2 * _SIDE + _GAP
    down = -(-len(examples) // across)
    width = across * cell + (across + 1) * 2 * _GAP
    rows, columns = examples[0][2].shape  # one network sees them all
    scale = _SIDE / max(rows, columns)
    size = round(columns * scale), round(rows * scale)
    height = 2 * _LINE + down * (size[1] + _LINE + _GAP) + _LINE
    sheet = Image.new("RGB", (width, height), ink.PAPER)
    draw = ImageDraw.Draw(sheet)
    method = examples[0][1]
    ink.write(draw, (2 * _GAP, _LINE), f"Simulated clips. {method}", size=16)
    words = RESEARCH_WORDS
    place = (width - 2 * _GAP, _LINE)
    ink.write(draw, place, words, size=16, colour=ink.WARNING, anchor="rm")
    for number, (title, _, grey, strength, mask) in enumerate(examples):
        row, column = divmod(number, across)
        left = 2 * _GAP + column * (cell + 2 * _GAP)
        top = 2 * _LINE + row * (size[1] + _LINE + _GAP)
        text = ink.shortened(title, 14, cell)
        ink.write(draw, (left, top + _LINE // 2), text, size=14)
        frame = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS).convert("RGB")
        smooth = ndimage.gaussian_filter(np.abs(strength), 0.008 * min(rows, columns))
        full = float(np.percentile(smooth[grey > 0] if grey.any() else smooth, PERCENTILE))
        scaled = np.clip(smooth / full, 0, 1) if full > 0 else np.zeros_like(smooth)
        image = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        values = np.asarray(image)
        over = frame.copy()
        cover = Image.fromarray(np.rint(ink.opacity(values) * 255).astype(np.uint8))
        over.paste(Image.fromarray(ink.palette(values)), (0, 0), cover)
        if mask is not None:
            line = ink.contour(mask, size[1], size[0])
            over.paste(
                Image.new("RGB", size, ink.SKY), (0, 0),
                Image.fromarray(np.rint(line * 255).astype(np.uint8)),
            )  # fmt: skip
        sheet.paste(frame, (left, top + _LINE))
        sheet.paste(over, (left + _SIDE + _GAP, top + _LINE))
    words = "Left the frame, right the map over it; blue: the structure's true outline."
    ink.write(draw, (2 * _GAP, height - _LINE // 2), words, size=14, colour=ink.QUIET)
    sheet.save(path, "PNG", optimize=True)
