"""What the loop of a backfill and its sources agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from storage.catalog import BackfilledState, BackfilledStudy

Guard = Callable[[], AbstractContextManager[None]]
"""Lets a step come to its end before Ctrl-C is heeded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Came:
    """What came of a study: all, or why not."""

    whole: bool
    reason: str = ""
    taken: int = 0
    sop_classes: tuple[str, ...] = ()


class Source(Protocol):
    """An archive, or a folder. All of it raises DatabaseError, and Broken or FetchError where
    nothing can come any more before somebody sees to it.
    """

    def look_through(self) -> None:
        """Before the first day: find out what is there, where only that tells the days."""
        ...  # pragma: no cover

    def find(self, day: date | None) -> Mapping[str, int | None]:
        """The studies of a day, each with its number of instances where that is known.

        Raises
        ------
        RefusedError
            If it will not say.
        """
        ...  # pragma: no cover

    def take(self, study: BackfilledStudy) -> Came:
        """Take what is missing of a study."""
        ...  # pragma: no cover


class Watcher(Protocol):
    """Is told how it goes."""

    def says(self, words: str) -> None:
        """What it does now; changes all the time."""
        ...  # pragma: no cover

    def tells(self, line: str) -> None:
        """Something to know."""
        ...  # pragma: no cover

    def ended(self, study: BackfilledStudy, came: Came, state: BackfilledState) -> None:
        """A study has come to its end."""
        ...  # pragma: no cover
