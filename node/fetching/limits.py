"""How fast, at what hours: so that the archive does not suffer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as time_of_day

_CREDIT_S = 1.0  # time not used is not saved up for longer than this
_UNITS = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
_RATE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) ?(?P<unit>bit|kbit|Mbit|Gbit|)/s")
_HOURS = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])-([01]?[0-9]|2[0-3]|24):([0-5][0-9])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How much may come in a second; None: as much as comes."""

    objects: float | None = None
    bits: float | None = None


def read_rate(text: str) -> Rate:
    """A rate as it is written: ``4/s``, ``50Mbit/s``, both with a comma, or ``none``.

    Raises
    ------
    ValueError
        If it is none.
    """
    if text.strip() == "none":
        return Rate()
    objects = bits = None
    for part in text.split(","):
        match = _RATE.fullmatch(part.strip())
        value = float(match["number"]) if match else 0.0
        if match is None or value <= 0:
            raise ValueError(f"{text!r} is no rate; write 4/s or 50Mbit/s, or both: 4/s,50Mbit/s")
        if match["unit"]:
            bits = value * _UNITS[match["unit"]]
        else:
            objects = value
    return Rate(objects=objects, bits=bits)


class Pace:
    """Makes whoever takes objects wait, so that a rate is held on the average of a second.

    Parameters
    ----------
    clock, sleep
        For tests.
    """

    def __init__(
        self,
        rate: Rate,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    def took(self, size_bytes: int) -> None:
        """An object has come."""
        cost_s = 1.0 / self._rate.objects if self._rate.objects else 0.0
        if self._rate.bits:
            cost_s = max(cost_s, 8 * size_bytes / self._rate.bits)
        self._free_at = max(self._free_at, self._clock() - _CREDIT_S) + cost_s

    @property
    def owed_s(self) -> float:
        """How long to wait before the next may come."""
        return max(0.0, self._free_at - self._clock())

    def wait(self, longest_s: float) -> None:
        """Wait as long as is owed, but no longer than this."""
        pause_s = min(self.owed_s, longest_s)
        if pause_s > 0:
            self._sleep(pause_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hours:
    """The hours of a day, by the machine's clock; they may go over midnight."""

    begin: time_of_day
    end: time_of_day

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"

    def wait_s(self, now: datetime) -> float:
        """How long until they begin; 0 within them."""
        at = now.time()
        within = (
            self.begin <= at < self.end
            if self.begin < self.end
            else at >= self.begin or at < self.end
        )
        if within:
            return 0.0
        return _until(self.begin, now)

    def left_s(self, now: datetime) -> float:
        """How long they last from now on; 0 outside of them."""
        return 0.0 if self.wait_s(now) > 0 else _until(self.end, now)


def _until(at: time_of_day, now: datetime) -> float:
    then = datetime.combine(now.date(), at, now.tzinfo)
    if then <= now:
        then += timedelta(days=1)
    return (then - now).total_seconds()


def read_hours(text: str) -> Hours:
    """Hours as they are written: ``20:00-06:00``.

    Raises
    ------
    ValueError
        If they are none.
    """
    match = _HOURS.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ValueError(f"{text!r} are no hours; write 20:00-06:00")
    first, first_minute, last, last_minute = (int(part) for part in match.groups())
    if last == 24 and last_minute:
        raise ValueError(f"{text!r} are no hours; a day ends at 24:00")
    hours = Hours(begin=time_of_day(first, first_minute), end=time_of_day(last % 24, last_minute))
    if hours.begin == hours.end:
        raise ValueError(f"{text!r} begin when they end; leave them out for the whole day")
    return hours
