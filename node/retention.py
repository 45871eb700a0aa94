"""What is given up when it is old, or when space is needed: see :mod:`storage.catalog`'s rules.

Off until the settings say otherwise. Nothing of a study goes while any destination still waits for
any of its results, and what went is told in its timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

import structlog

from node.sections import RetentionSettings
from storage import catalog
from storage.catalog import Keeping, OldEnough, Removable, Staying
from storage.database import Database
from storage.files import FileStore

log = structlog.get_logger(__name__)

_BATCH = 200  # rows marked in one transaction
_FILES = 10  # deleted in one transaction, which keeps others from writing meanwhile
_GAP = 1.1  # of the mark is made free, so that the next object does not call for the next turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """How much was, or would be, given up of a kind, and why."""

    keeping: Keeping
    why: str
    files: int
    size_bytes: int
    studies: frozenset[int] = frozenset()
    oldest: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """What may go, why, and how much of it is enough."""

    keeping: Keeping
    old: OldEnough
    why: str
    enough_bytes: int | None = None  #: None: all of it


class Retention:
    """Gives files up by age and by space.

    Parameters
    ----------
    free_bytes
        How much is free in the store now; None where nobody can tell: then nothing goes for space.
    deleted
        Told of each study of which files went, by its UID, and why.
    """

    def __init__(
        self,
        settings: RetentionSettings,
        database: Database,
        files: FileStore,
        free_bytes: Callable[[], int | None],
        *,
        deleted: Callable[[str, str], None] = lambda _study, _why: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._database = database
        self._files = files
        self._free_bytes = free_bytes
        self._deleted = deleted
        self._clock = clock

    def run(self) -> tuple[Given, ...]:
        """Give up what is to go by now, and go on with what an earlier turn had to leave."""
        self._delete_marked()
        given = [self._apply(rule) for rule in self._by_age()]
        for keeping in (Keeping.SOURCES, Keeping.RESULTS):
            rule = self._by_space(keeping)
            if rule is not None:
                given.append(self._apply(rule))
        return tuple(item for item in given if item.files)

    def plan(self) -> tuple[Given, ...]:
        """What :meth:`run` would give up now."""
        with self._database.read() as session:
            given = [
                _sum(rule, list(catalog.removable(session, rule.keeping, rule.old)))
                for rule in self._by_age()
            ]
            aged = {item.keeping: item.size_bytes for item in given}
            freed = sum(aged.values())
            for keeping in (Keeping.SOURCES, Keeping.RESULTS):
                rule = self._by_space(keeping, freed_bytes=freed)
                if rule is None or rule.enough_bytes is None:
                    continue
                found = catalog.removable(session, keeping, rule.old)
                skipped = _until(found, aged.get(keeping, 0))  # those have gone by their age
                list(skipped)
                taken = _sum(rule, list(_until(found, rule.enough_bytes)))
                freed += taken.size_bytes
                given.append(taken)
        return tuple(item for item in given if item.files)

    def staying(self) -> Mapping[Keeping, tuple[Staying, ...]]:
        """Why the rest stays."""
        by_age = {rule.keeping: rule.old for rule in self._by_age()}
        never = OldEnough(before=datetime.min.replace(tzinfo=UTC))
        with self._database.read() as session:
            return {
                keeping: catalog.staying(session, keeping, by_age.get(keeping, never))
                for keeping in (Keeping.SOURCES, Keeping.RESULTS)
            }

    def _by_age(self) -> Iterator[_Rule]:
        settings = self._settings
        for keeping, days in (
            (Keeping.SOURCES, settings.sources_after_days),
            (Keeping.RESULTS, settings.results_after_days),
            (Keeping.QUARANTINE, settings.quarantine_after_days),
        ):
            if days is not None:
                yield _Rule(
                    keeping=keeping,
                    old=OldEnough(before=self._ago(days), promised_before=self._promised()),
                    why=f"older than {days:g} days, and every destination has every result"
                    if keeping is not Keeping.QUARANTINE
                    else f"older than {days:g} days",
                )

    def _by_space(self, keeping: Keeping, *, freed_bytes: int = 0) -> _Rule | None:
        settings = self._settings
        wanted = 0
        if settings.most_bytes is not None:
            with self._database.read() as session:
                wanted = catalog.kept_bytes(session) - settings.most_bytes
        free, mark = self._free_bytes(), settings.start_when_free_below
        if mark is not None and free is not None and free + freed_bytes < mark:
            wanted = max(wanted, int(mark * _GAP) - free)
        wanted -= freed_bytes
        if wanted <= 0:
            return None
        return _Rule(
            keeping=keeping,
            old=OldEnough(
                before=self._ago(settings.keep_at_least_days), promised_before=self._promised()
            ),
            why="space was needed, and every destination has every result",
            enough_bytes=wanted,
        )

    def _apply(self, rule: _Rule) -> Given:
        """Mark and delete by turns, so that what is marked is never far ahead of what is gone."""
        gone: list[Removable] = []
        while True:
            size = sum(item.size_bytes for item in gone)
            left = None if rule.enough_bytes is None else rule.enough_bytes - size
            with self._database.write() as session:
                # Chosen and marked in one transaction: nothing can become undelivered between.
                found = catalog.removable(session, rule.keeping, rule.old)
                chosen = list(islice(found if left is None else _until(found, left), _BATCH))
                if chosen:
                    catalog.mark_removing(
                        session, rule.keeping, chosen, rule.why, now=self._clock()
                    )
            if not chosen:
                break
            self._delete_marked()
            gone += chosen
            with self._database.read() as session:
                studies = catalog.study_uids(session, _sum(rule, chosen).studies)
            for study in studies:
                self._deleted(study, f"retention: {rule.why}")
        given = _sum(rule, gone)
        if given.files:
            log.info(
                "files-removed",
                what=given.keeping.value,
                files=given.files,
                bytes=given.size_bytes,
                studies=len(given.studies),
                why=given.why,
            )
        return given

    def _delete_marked(self) -> None:
        while self._any_marked():
            with self._database.write() as session:
                # Within the transaction: what is kept again meanwhile is kept after it, or before.
                marked = catalog.marked_files(session, _FILES)
                for item in marked:
                    if item.file_key is not None and not item.shared:
                        self._files.delete(item.file_key)
                catalog.note_removed(session, marked, now=self._clock())

    def _any_marked(self) -> bool:
        with self._database.read() as session:
            return bool(catalog.marked_files(session, 1))

    def _ago(self, days: float) -> datetime:
        return self._clock() - timedelta(days=days)

    def _promised(self) -> datetime | None:
        days = self._settings.promised_after_days
        return None if days is None else self._ago(days)


def _until(found: Iterator[Removable], enough_bytes: int) -> Iterator[Removable]:
    """The first of them that together have so many bytes."""
    size = 0
    while size < enough_bytes:
        item = next(found, None)
        if item is None:
            return
        size += item.size_bytes
        yield item


def _sum(rule: _Rule, items: list[Removable]) -> Given:
    return Given(
        keeping=rule.keeping,
        why=rule.why,
        files=len(items),
        size_bytes=sum(item.size_bytes for item in items),
        studies=frozenset(item.study_id for item in items if item.study_id is not None),
        oldest=min((item.came_at for item in items), default=None),
    )
