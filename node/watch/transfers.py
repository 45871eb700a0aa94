"""What passes through the doors and out to destinations, as those who keep watch are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Direction(StrEnum):
    """Which way objects went."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """The other side: an AE title where it has one, and its address."""

    host: str
    ae_title: str = ""
    port: int | None = None
    user: str = ""  #: who showed a password, token or certificate


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """Objects of one study that went one way in one association or request."""

    direction: Direction
    peer: Peer
    door: str  #: "dimse", "dicomweb", "folder"; for what goes out, the destination's name
    study_instance_uid: str
    sop_class_uids: tuple[str, ...]  #: each once
    count: int
    accepted: bool  #: all of them were taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Handled:
    """One object that a door handed in, and what became of it."""

    door: str
    calling_ae: str
    size_bytes: int
    took_s: float
    refused: str | None = None  #: why, as docs/metrics.md names it; None: it is kept
    repeated: bool = False  #: it was kept already


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnedAway:
    """A caller that was not let in, and why."""

    peer: Peer
    door: str
    reason: str
