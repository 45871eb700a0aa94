"""What analysing a clip and analysing an ECG share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from models.packs import OutputSpec, Pack
from node.evidence import may_speak

MOST_MAPS = 6
"""A picture explains no more outputs than this, the first ones in the packs' order."""


def speaking(pack: Pack, allow_simulated: bool) -> tuple[OutputSpec, ...]:
    """The outputs of a pack that may stand in a report."""
    return tuple(
        output
        for output in pack.manifest.outputs
        if may_speak(output.name, output.evidence, allow_simulated)
    )


@contextlib.contextmanager
def timed(pack: Pack, took_s: dict[str, float]) -> Iterator[None]:
    """Note how long a pack took."""
    began = time.monotonic()
    yield
    took_s[pack.manifest.name] = time.monotonic() - began
