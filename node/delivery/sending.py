"""What the outbox and the ways to a destination agree on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from storage.states import Silence

_CLASS_NOT_SUPPORTED = 0x0122
_MISMATCH = 0xA900


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """One encoded result, on its way to one destination."""

    delivery_id: int
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a destination said to one object.

    ``status`` is the DIMSE or HTTP status, or None where no answer came. ``text`` is for the
    operator and names the destination's own words where it gave some. ``class_refused``: it does
    not take objects of this class, whatever is in them, so another form of it may be taken.
    ``silence`` tells, where no answer came, whether it may have the object; ``retry_after_s`` is
    how long it asked to be left alone.
    """

    delivery_id: int
    accepted: bool
    status: int | None
    text: str
    class_refused: bool = False
    silence: Silence | None = None
    retry_after_s: float | None = None


def speaks_of_class(status: int) -> bool:
    """Whether a status says that the class is the trouble: PS3.7 C.5.6 and PS3.4 Table B.2-1.

    0122 SOP class not supported; A9xx the data set does not match its SOP class.
    """
    return status == _CLASS_NOT_SUPPORTED or _MISMATCH <= status <= _MISMATCH | 0xFF


class Sender(Protocol):
    """A way to a destination."""

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        """Send objects in order and yield an answer for every one of them, as soon as it is known.

        Never raises for what a peer does: a peer that cannot be reached answers "not accepted"
        for each object.
        """
        ...  # pragma: no cover
