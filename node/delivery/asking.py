"""What the node asks an archive beside taking objects: whether it has them and will keep them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from pydicom import Dataset

from node.watch.transfers import Peer

#: Hears a report on a transaction: who sent it, event type, event information; gives the status.
Report = Callable[[Peer, int, Dataset], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """An object that an archive is asked about."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


class Reply(Enum):
    """How an archive takes a question."""

    TAKEN = auto()  #: it answers it
    NOT_OFFERED = auto()  #: it does not have this service
    NOT_NOW = auto()  #: it has it, and refused, failed or fell silent this time
    NOT_REACHED = auto()  #: it cannot be reached now


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """How an archive took a request for its promise; ``text`` is for the operator."""

    reply: Reply
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Which objects an archive showed, by SOP instance UID; ``text`` is for the operator."""

    reply: Reply
    found: frozenset[str] = frozenset()
    text: str = ""


class Archive(Protocol):
    """An archive that can be asked. Nothing raises for what a peer does."""

    def ask(
        self,
        transaction_uid: str,
        objects: Sequence[Kept],
        *,
        taken: Callable[[], None],
        report: Report,
    ) -> Asked:
        """Ask it to promise that it keeps objects: storage commitment (PS3.4 Annex J).

        ``taken`` is called as soon as it has taken the request, ``report`` for every report that
        comes while the line is held for it.
        """
        ...  # pragma: no cover

    def look(self, objects: Sequence[Kept]) -> Seen:
        """Ask which of the objects it shows."""
        ...  # pragma: no cover
