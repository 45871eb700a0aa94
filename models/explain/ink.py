"""What the panels are drawn with: colours, the map's palette, letters, contours, overlays.

Colours are safe for colour-blind readers: contours are those of Okabe and Ito (2008), the palette
is inferno (Smith and van der Walt 2015), whose lightness grows evenly.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Colour = tuple[int, int, int]

PAPER: Colour = (16, 17, 20)
PANEL: Colour = (0, 0, 0)
TEXT: Colour = (232, 232, 228)
QUIET: Colour = (160, 163, 168)
LINE: Colour = (62, 65, 71)
WARNING: Colour = (240, 173, 78)
SKY: Colour = (86, 180, 233)
ORANGE: Colour = (230, 159, 0)
PINK: Colour = (222, 143, 186)

_INFERNO = np.array(
    [
        (0, 0, 4), (22, 11, 57), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84),
        (221, 81, 58), (243, 120, 25), (252, 165, 10), (246, 215, 70), (252, 255, 164),
    ],
    dtype=np.float64,
)  # fmt: skip

_STEPS = np.linspace(0, len(_INFERNO) - 1, 256)
_TABLE = np.stack(
    [np.interp(_STEPS, np.arange(len(_INFERNO)), channel) for channel in _INFERNO.T], axis=-1
)
_TABLE = _TABLE.round().astype(np.uint8)

_STRONGEST = 0.9  # how opaque the strongest part of a map is: the tissue stays visible
_VISIBLE_FROM, _OPAQUE_FROM = 0.12, 0.75  # of the scaled map

# Drawn alike in every font.
_PLAIN = str.maketrans({
    "–": "-", "—": "-", "−": "-", "’": "'", "‘": "'", "“": '"', "”": '"',
    "\u00a0": " ", "\u202f": " ",
})  # fmt: skip
_OWN = frozenset("·±°…")  # what Pillow's font has besides ASCII, of what we use
_MISSING = "\uffff"  # no character: drawn as the box that stands for a missing one


def palette(strength: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Inferno: any shape of values 0 to 1 to RGB, a last axis of 3."""
    colours: NDArray[np.uint8] = _TABLE[np.rint(np.clip(strength, 0, 1) * 255).astype(np.uint8)]
    return colours


def opacity(strength: NDArray[np.floating]) -> NDArray[np.float32]:
    """How much of the palette's colour covers the grey: nothing where the map is weak."""
    rise = np.clip((strength - _VISIBLE_FROM) / (_OPAQUE_FROM - _VISIBLE_FROM), 0, 1)
    share: NDArray[np.float32] = (_STRONGEST * rise * rise * (3 - 2 * rise)).astype(np.float32)
    return share


def contour(inside: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.float32]:
    """The outline of a region as opacity, a line two pixels wide, drawn at another size.

    (r, c) to (rows, columns). The mask is taken as a smooth field whose half-way line is the
    outline; the distance to it is value / slope, and the line fades over its last pixel.
    """
    line = np.zeros((rows, columns), np.float32)
    drawn = line_of(inside, rows, columns)
    if drawn is not None:
        line[drawn[0]] = drawn[1]
    return line


def line_of(
    inside: NDArray[np.bool_], rows: int, columns: int
) -> tuple[tuple[slice, slice], NDArray[np.float32]] | None:
    """What :func:`contour` gives where it is not zero everywhere: the place, and what is there."""
    if not inside.any():
        return None
    scale = rows / inside.shape[0], columns / inside.shape[1]
    # Only what is near the region is looked at: this runs for every frame of a clip.
    top, bottom = _near(inside.sum(axis=1), scale[0])
    left, right = _near(inside.sum(axis=0), scale[1])
    mask = Image.fromarray(inside.astype(np.float32))
    box = (left / scale[1], top / scale[0], right / scale[1], bottom / scale[0])
    field = mask.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box)
    smooth = ndimage.gaussian_filter(np.asarray(field), max(1.0, scale[0]))
    down, across = np.gradient(smooth)
    distance = np.abs(smooth - 0.5) / np.maximum(np.hypot(down, across), 1e-6)
    line: NDArray[np.float32] = np.clip(1.5 - distance, 0, 1).astype(np.float32)
    return (slice(top, bottom), slice(left, right)), line


def _near(filled: NDArray[np.integer], scale: float) -> tuple[int, int]:
    """From where to where a row or column has something, with a margin, at the other size."""
    places = np.flatnonzero(filled)
    first, last = max(0, places[0] - 4), min(len(filled), places[-1] + 5)
    return int(first * scale), max(int(first * scale) + 2, int(last * scale))


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The letters: Pillow's own font, so that a picture looks the same on every machine."""
    letters = ImageFont.load_default(size)
    if not isinstance(letters, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType; install its wheel from PyPI")
    return letters


@lru_cache(maxsize=16)
def other_font(size: int) -> ImageFont.FreeTypeFont | None:
    """DejaVu, which comes with matplotlib, for what Pillow's font lacks: ², ×, é, Ж, Ω."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    # Its letters are larger than those of Pillow's font at the same size.
    return ImageFont.truetype(str(file), round(size * 0.92)) if file.exists() else None


def plain(text: str) -> str:
    """The text in characters that can be drawn; a question mark for any other."""
    return "".join(c if _is_own(c) or _in_other(c) else "?" for c in text.translate(_PLAIN))


def _is_own(character: str) -> bool:
    return " " <= character <= "~" or character in _OWN


@lru_cache(maxsize=4096)
def _in_other(character: str) -> bool:
    letters = other_font(20)
    if letters is None or not character.isprintable():
        return False
    return bytes(letters.getmask(character)) != bytes(letters.getmask(_MISSING))


def _runs(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    """The text in parts that one font can draw."""
    for own, part in groupby(plain(text), key=_is_own):
        letters = font(size) if own else other_font(size)
        yield "".join(part), letters or font(size)


def width_of(text: str, size: int) -> float:
    """How wide the text is drawn, in pixels."""
    return sum(letters.getlength(part) for part, letters in _runs(text, size))


def shortened(text: str, size: int, width: float) -> str:
    """The text, cut with an ellipsis where it is wider than that."""
    if width_of(text, size) <= width:
        return text
    while text and width_of(text + "...", size) > width:
        text = text[:-1]
    return text.rstrip() + "..."


def wrapped(text: str, size: int, width: float) -> list[str]:
    """The text in lines of at most this width; a word that is wider is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if width_of(longer, size) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, size, width) for line in lines]


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    size: int,
    colour: Colour = TEXT,
    anchor: str = "lm",
) -> None:
    """Write text; ``anchor`` is "l", "m" or "r" and "m", the middle line, or "s", the base."""
    left, line = place
    left -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * width_of(text, size)
    if anchor[1] == "m":  # one line for both fonts
        ascent, descent = font(size).getmetrics()
        line += (ascent - descent) / 2
    for part, letters in _runs(text, size):
        # At a whole pixel: letters are drawn sharper there.
        draw.text((round(left), round(line)), part, font=letters, fill=colour, anchor="ls")
        left += letters.getlength(part)
