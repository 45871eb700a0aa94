"""What those who plan, ask and take agree on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from node.watch.transfers import Peer

_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)+")
Found = TypeVar("Found")


class FetchError(Exception):
    """The archive cannot be fetched from at all; the message says why and what to do."""


class UnreachableError(Exception):
    """The archive cannot be reached, fell silent or has too much to do: it is tried again later.

    ``after_s``: how long it asked to be left alone.
    """

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class RefusedError(Exception):
    """The archive answered, and will not do what it was asked for; the message says why."""


def is_uid(text: str) -> bool:
    """Whether a text is a UID; leading zeros, which some machines write, are let pass."""
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One query at the study level."""

    study_instance_uid: str | None = None
    day: date | None = None
    accession_number: str | None = None
    modality: str | None = None

    def __str__(self) -> str:
        parts = (
            self.study_instance_uid and f"study {self.study_instance_uid}",
            self.day and self.day.isoformat(),
            self.accession_number and "an accession number",
            self.modality,
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """Which studies are wanted. Named studies, or days, or an accession number, or both of these.

    ``modalities`` are of the series; none takes every one.
    """

    studies: tuple[str, ...] = ()
    first_day: date | None = None
    last_day: date | None = None
    accession_number: str | None = None
    modalities: tuple[str, ...] = ("US",)

    def questions(self) -> Iterator[Question]:
        """What to ask, one after another: day by day, since archives cut off long answers."""
        for uid in dict.fromkeys(self.studies):
            yield Question(study_instance_uid=uid, accession_number=self.accession_number)
        if self.studies:
            return
        for day in self._days():
            for modality in self.modalities or (None,):
                yield Question(day=day, accession_number=self.accession_number, modality=modality)

    def _days(self) -> Iterator[date | None]:
        if self.first_day is None or self.last_day is None:
            yield None
            return
        day = self.first_day
        while day <= self.last_day:
            yield day
            day += timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundStudy:
    """A study as an archive tells of it. Nothing here says whose it is."""

    study_instance_uid: str
    study_date: date | None = None
    accession_number: str | None = None
    description: str | None = None
    instances: int | None = None  #: None where it does not say


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSeries:
    """A series of a study."""

    series_instance_uid: str
    modality: str | None = None
    number: int | None = None
    description: str | None = None
    manufacturer: str | None = None
    instances: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundObject:
    """An instance of a series."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers(Generic[Found]):
    """What a query brought; ``dropped`` answers were no answer to it."""

    found: tuple[Found, ...]
    dropped: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is to be sent: instances of a series, or a series, or the study."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    objects: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """As the query/retrieve level names it."""
        if self.objects:
            return "IMAGE"
        return "STUDY" if self.series_instance_uid is None else "SERIES"


@dataclass(frozen=True, kw_only=True, slots=True)
class Got:
    """How an archive answered a request. What came, the receiver knows."""

    trouble: str = ""  #: empty where it says that all went well
    failed: tuple[str, ...] = ()  #: SOP instance UIDs that it names as failed


class Asker(Protocol):
    """Answers queries. All of it raises UnreachableError; study queries raise RefusedError."""

    def studies(self, question: Question) -> Answers[FoundStudy]:
        """The studies that fit."""
        ...  # pragma: no cover

    def series(self, study_instance_uid: str) -> Answers[FoundSeries] | None:
        """The series of a study; None where the archive does not answer that."""
        ...  # pragma: no cover

    def objects(
        self, study_instance_uid: str, series_instance_uid: str
    ) -> Answers[FoundObject] | None:
        """The instances of a series; None where the archive does not answer that."""
        ...  # pragma: no cover


class Getter(Protocol):
    """Lets the archive send. Raises UnreachableError, and FetchError where there is no way."""

    def get(self, request: Request) -> Got:
        """Return when the archive has sent what it was asked for, or has said that it will not."""
        ...  # pragma: no cover


class Archive(Protocol):
    """An archive that is fetched from: one association or connection at a time."""

    name: str
    way: str  #: "get", "move" or "wado"; "get or move" until it is known
    batch: int  #: how many instances one request asks for
    peer: Peer

    def asking(self) -> AbstractContextManager[Asker]:
        """For queries."""
        ...  # pragma: no cover

    def getting(self, sop_classes: Sequence[str]) -> AbstractContextManager[Getter]:
        """For objects of these classes; none named: of all that are taken here."""
        ...  # pragma: no cover


class Outcome(StrEnum):
    """What became of a study."""

    TAKEN = "taken"  #: all that was missing here has come
    COMPLETE = "complete"  #: nothing was missing
    WOULD_TAKE = "would-take"  #: a dry run
    PARTLY = "partly"  #: something did not come, or could not be kept


@dataclass(kw_only=True, slots=True)
class StudyReport:
    """What was found, and what became of it."""

    study: FoundStudy
    outcome: Outcome = Outcome.COMPLETE
    series: int = 0  #: from which something is wanted
    wanted: int | None = 0  #: instances; None where the archive does not list them
    here: int = 0  #: instances that are here, or were
    own: int = 0  #: that the node made itself, and are left there
    other: int = 0  #: of classes that are not taken here
    taken: int = 0
    size_bytes: int = 0
    refused: int = 0  #: came, and lie in quarantine
    missing: int = 0  #: did not come
    reasons: list[str] = field(default_factory=list)
    sop_classes: tuple[str, ...] = ()  #: of what was taken
