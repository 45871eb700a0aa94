"""How much of an archive may come in an hour, and when nothing may come at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from node.fetching.limits import Hours, Rate, read_rate

_PER_HOUR = re.compile(
    r"(?P<number>[0-9]+(\.[0-9]+)?) ?(?P<unit>studies|objects|MB|GB|TB|)/h", re.ASCII
)
_SIZE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) ?(?P<unit>MB|GB|TB)", re.ASCII)
_BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hourly:
    """How much may come in an hour; None: as much as comes."""

    studies: float | None = None
    objects: float | None = None
    size_bytes: float | None = None

    def cost_s(self, objects: int, size_bytes: int) -> float:
        """How long a study of so many objects and bytes is to last until the next begins.

        Time that was not used is not saved up: what comes is spread over the hour.
        """
        shares = (
            1 / self.studies if self.studies else 0.0,
            objects / self.objects if self.objects else 0.0,
            size_bytes / self.size_bytes if self.size_bytes else 0.0,
        )
        return max(shares) * _HOUR_S


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How gently.

    ``queue_below``: clips that may wait here; ``keep_free_bytes``: of the node's disk, None: twice
    what the node itself keeps free; ``pause_s``: between two studies.
    """

    rate: Rate = field(default_factory=Rate)
    hourly: Hourly = field(default_factory=Hourly)
    hours: Hours | None = None
    queue_below: int | None = 500
    keep_free_bytes: int | None = None
    pause_s: float = 2.0

    def shown(self) -> dict[str, Any]:
        """As the row keeps it, for whoever asks."""
        return {
            "objects_per_s": self.rate.objects,
            "bits_per_s": self.rate.bits,
            "studies_per_h": self.hourly.studies,
            "objects_per_h": self.hourly.objects,
            "bytes_per_h": self.hourly.size_bytes,
            "hours": None if self.hours is None else str(self.hours),
            "queue_below": self.queue_below,
            "keep_free_bytes": self.keep_free_bytes,
            "pause_s": self.pause_s,
        }


def read_rates(text: str) -> tuple[Rate, Hourly]:
    """Rates as they are written: ``4/s,80Mbit/s,60studies/h,5000/h,40GB/h``, or ``none``.

    Raises
    ------
    ValueError
        If they are none.
    """
    per_second, found = [], dict[str, float]()
    for part in text.split(","):
        match = _PER_HOUR.fullmatch(part.strip())
        if match is None:
            per_second.append(part)
            continue
        value, unit = float(match["number"]), match["unit"] or "objects"
        if value <= 0:
            raise ValueError(f"{part.strip()!r} is no rate: nothing would ever come")
        if unit in _BYTES:
            found["size_bytes"] = value * _BYTES[unit]
        else:
            found[unit] = value
    try:
        rate = read_rate(",".join(per_second)) if per_second else Rate()
    except ValueError:
        raise ValueError(
            f"{text!r} is no rate; write 4/s, 80Mbit/s, 60studies/h, 5000/h or 40GB/h, or several "
            "with commas: 4/s,60studies/h"
        ) from None
    return rate, Hourly(**found)


def read_size(text: str) -> int:
    """A size as it is written: ``200GB``.

    Raises
    ------
    ValueError
        If it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 500MB, 200GB or 2TB")
    return int(float(match["number"]) * _BYTES[match["unit"]])
