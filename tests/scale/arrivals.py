"""Studies as they come on a working day."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from tests.scale.assumptions import Assumptions, shares
from tests.scale.constants import Constants
from tests.scale.model import ClipLoad, StudyLoad

HOUR_S = 3600.0


def peak_hour(assumed: Assumptions) -> int:
    """The hour in which most studies come."""
    parts = shares(assumed)
    return parts.index(max(parts))


def studies(
    assumed: Assumptions,
    constants: Constants,
    hospitals: int,
    *,
    hours: Sequence[int] = tuple(range(24)),
    grain: int = 1,
) -> list[StudyLoad]:
    """Those that come in some hours, from all hospitals, one independent of the other.

    Parameters
    ----------
    grain
        So many clips that are not A4C are handled as one: for large numbers.
    """
    draw = random.Random(assumed.seed)  # noqa: S311 - nothing is kept secret by it
    parts = shares(assumed)
    loads = []
    for hospital in range(hospitals):
        for hour in hours:
            for _ in range(_poisson(draw, assumed.studies_a_day * parts[hour])):
                at_s = (hour + draw.random()) * HOUR_S
                clips = _clips(draw, assumed, constants, grain)
                loads.append(StudyLoad(at_s=at_s, clips=clips, site=hospital))
    return loads


def _clips(
    draw: random.Random, assumed: Assumptions, constants: Constants, grain: int
) -> tuple[ClipLoad, ...]:
    number = max(10, round(draw.gauss(assumed.clips, assumed.clips_spread)))
    a4c = min(number, 1 + _poisson(draw, max(0.0, assumed.a4c - 1)))
    clips = [clip(constants, _frames(draw, assumed), a4c=True) for _ in range(a4c)]
    left = number - a4c
    while left > 0:
        together = min(grain, left)
        clips.append(joined([clip(constants, _frames(draw, assumed)) for _ in range(together)]))
        left -= together
    draw.shuffle(clips)
    return tuple(clips)


def clip(constants: Constants, frames: float, *, a4c: bool = False) -> ClipLoad:
    """A clip of a full-sized screen."""
    size = int(constants.cine_bytes_frame * frames)
    return ClipLoad(
        bytes=size,
        view_s=constants.view_s(size, frames),
        analysis_s=constants.analysis(frames) if a4c else 0.0,
        picture_s=constants.picture(frames) if a4c else 0.0,
    )


def joined(clips: Sequence[ClipLoad]) -> ClipLoad:
    """Several that are not A4C as one."""
    return ClipLoad(
        bytes=sum(each.bytes for each in clips),
        view_s=sum(each.view_s for each in clips),
        number=len(clips),
    )


def _frames(draw: random.Random, assumed: Assumptions) -> float:
    return draw.uniform(assumed.least_frames, assumed.most_frames)


def _poisson(draw: random.Random, mean: float) -> int:
    """By the product of uniforms, in parts that keep the product above rounding."""
    number = 0
    while mean > 0:
        part = min(mean, 50.0)
        product, mean = 1.0, mean - part
        while (product := product * draw.random()) > math.exp(-part):
            number += 1
    return number
