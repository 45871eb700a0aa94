"""How long to wait before a destination is tried again."""

from __future__ import annotations

import random
from datetime import timedelta

from node.sections import DeliverySettings

_JITTER = 0.2  # archives that come back are not met by everything at once


def growing_pause(settings: DeliverySettings, tries: int) -> timedelta:
    """Doubling pauses up to the longest, after so many tries."""
    growing = settings.first_pause_s * 2.0 ** min(max(tries, 1) - 1, 30)
    return timedelta(seconds=min(growing, settings.longest_pause_s))


def spread() -> float:
    """What to put pauses a little off by: nodes must not march in step."""
    return random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
