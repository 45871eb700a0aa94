"""What a model says of a recording: the frozen records that leave this package.

A :class:`Finding` is one output's value for one clip. A :class:`Refusal` is an output that
could not be given, with the reason. Both name the pack that speaks and its evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MOST_OUTSIDE = 0.5
"""A larger share of relevance outside the scanning sector is an alarm: more than half of what moved
the value was no picture of the heart. See docs/explanations.md for what is usual."""


class Evidence(StrEnum):
    """What an output was tested on."""

    PATIENTS = "patients"  #: tested on patients whom training never saw
    SIMULATED = "simulated"  #: has only seen the simulator: for demonstration


class Kind(StrEnum):
    """What sort of answer an output gives."""

    MEASUREMENT = "measurement"  #: a number with a unit
    SCORE = "score"  #: 0 to 1: how much the picture looks like the finding


class Method(StrEnum):
    """How a number came about."""

    REGRESSION = "direct regression"  #: a network gave the number, nothing was measured
    SINGLE_PLANE_DISCS = "single-plane discs"  #: summed discs over a tracing of one view
    AREA_LENGTH = "area-length"  #: a volume from the area and length of a tracing of one view
    AREA = "tracing area"  #: the area of a tracing
    CLASSIFICATION = "classification"  #: a network gave a score


@dataclass(frozen=True, kw_only=True, slots=True)
class PackRef:
    """Which pack spoke: enough to find the very weights again."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One output's value for one recording.

    ``value`` is in ``unit`` (UCUM). ``low`` and ``high`` bound a 95 % interval in the same
    unit. ``score`` (0 to 1) is there for outputs of kind SCORE, beside ``threshold``.
    ``frames`` are the zero-based source frames that the value came from, the most telling first.
    ``per_beat`` is what each heartbeat gave, in order, where ``value`` is the mean over beats.
    ``outside_share`` (0 to 1) is how much of what moved the value lay outside the scanning sector;
    None where nobody asked. Above :data:`MOST_OUTSIDE` the value is not to be relied on.
    ``spans_ms`` are the stretches of an ECG that moved the value most, counted from its first
    sample, the most telling first.
    """

    output: str
    kind: Kind
    value: float | None
    unit: str
    pack: PackRef
    evidence: Evidence
    method: Method
    low: float | None = None
    high: float | None = None
    score: float | None = None
    threshold: float | None = None
    frames: tuple[int, ...] = ()
    per_beat: tuple[float, ...] = ()
    outside_share: float | None = None
    spans_ms: tuple[tuple[float, float], ...] = ()

    @property
    def looked_outside(self) -> bool:
        """Whether so much of what moved the value lay outside the sector that it is an alarm."""
        return self.outside_share is not None and self.outside_share > MOST_OUTSIDE


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An output that was not given, and why, in words for a reader."""

    output: str
    reason: str
    pack: PackRef
