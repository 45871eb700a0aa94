"""A simulated clip as pictures that every program shows: PNG, and GIF at the clip's own speed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from models.simulator.anatomy import Structure
from models.simulator.clip import SimulatedClip

_TICK_MS = 10  # a GIF counts in hundredths of a second
_SHORTEST_MS = 20.0  # programs slow down what is shorter

OUTLINE_COLOURS = {
    Structure.LV_CAVITY: (255, 80, 80),
    Structure.MYOCARDIUM: (90, 220, 90),
    Structure.LEFT_ATRIUM: (90, 160, 255),
    Structure.RIGHT_VENTRICLE: (255, 200, 60),
    Structure.RIGHT_ATRIUM: (230, 120, 255),
    Structure.AORTA: (80, 230, 230),
    Structure.LEAD: (255, 255, 255),
}


def write_png(clip: SimulatedClip, path: Path, *, outline: bool = False) -> None:
    """Write the end-diastolic frame, or the first where there is no ventricle.

    ``outline`` draws the borders of the truth's masks, where the clip has them.
    """
    volumes = clip.truth.volumes_ml
    index = int(np.argmax(volumes)) if volumes else 0
    Image.fromarray(_frame(clip, index, outline)).save(path, "PNG")


def write_gif(clip: SimulatedClip, path: Path, *, outline: bool = False) -> None:
    """Write all frames, in a loop that lasts as long as the clip.

    Frames of less than 20 ms are left out evenly, since programs do not show them in time; the
    rest lasts as long as they did, to a hundredth of a second.
    """
    step = max(1, math.ceil(_SHORTEST_MS / clip.frame_time_ms - 1e-9))
    starts = [*range(0, len(clip.frames), step)]
    ends = np.array([*starts[1:], len(clip.frames)]) * clip.frame_time_ms
    ticks = np.diff(np.rint(ends / _TICK_MS).astype(int), prepend=0)
    durations = [max(1, int(tick)) * _TICK_MS for tick in ticks]
    pictures = [Image.fromarray(_frame(clip, index, outline)) for index in starts]
    if pictures[0].mode == "RGB":
        # One table of colours for all frames, or the picture would flicker.
        table = _montage(pictures).quantize(256, dither=Image.Dither.NONE)
        pictures = [
            picture.quantize(palette=table, dither=Image.Dither.NONE) for picture in pictures
        ]
    pictures[0].save(
        path, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
    )


def _montage(pictures: list[Image.Image]) -> Image.Image:
    chosen = pictures[:: max(1, len(pictures) // 4)]
    sheet = Image.new("RGB", (chosen[0].width, chosen[0].height * len(chosen)))
    for place, picture in enumerate(chosen):
        sheet.paste(picture, (0, place * picture.height))
    return sheet


def _frame(clip: SimulatedClip, index: int, outline: bool) -> NDArray[np.uint8]:
    frame: NDArray[np.uint8] = clip.frames[index]
    if not outline or clip.truth.masks is None:
        return frame
    drawn = np.repeat(frame[..., None], 3, axis=-1) if frame.ndim == 2 else frame.copy()
    for structure, colour in OUTLINE_COLOURS.items():
        found = clip.truth.masks[index] == structure
        drawn[found & ~binary_erosion(found)] = colour
    return drawn
