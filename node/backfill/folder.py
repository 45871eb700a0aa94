"""A backfill out of a folder: looked through once for studies and days, then taken day by day.

Names of files are often patients' names, so no row and no log line has them: rows remember a
digest of each file that was looked into, and its names are gathered anew at each start, which
opens none of those files. In memory a file costs some hundred bytes while its study is to come.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from models.clip import ClipError, read_header
from node.backfill.model import Came, Guard
from node.doors.contexts import STORAGE_CLASSES
from node.doors.media import Fault, Found, objects_in, walk
from node.doors.part10 import NotDicomError, read_beginning
from node.doors.taking import Fate, OpenIntake, RefusedError, Taker
from node.fetching.limits import Pace
from node.fetching.model import is_uid
from node.intake import LATER
from node.results import is_own_object
from storage import catalog
from storage.catalog import BackfilledStudy, FileFound, FileState
from storage.database import DatabaseError

log = structlog.get_logger(__name__)

_BATCH = 200  # files whose rows are written at once
_FIRST_BYTES = (1 << 16, 1 << 20, 1 << 24)  # a header is within these, or it is none
_LOOK_EVERY_S = 5.0
_REASONS_SAID = 3
_IN = "\0"  # stands in no path: between it and the place of an object in it
_GIVEN_UP = (FileState.REMOVING, FileState.REMOVED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What of an object's header decides whether and when it is taken."""

    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    day: date | None
    modality: str
    own: bool


class FolderSource:
    """See :class:`node.backfill.model.Source`.

    Parameters
    ----------
    folder
        Where the files lie; they are only read.
    opened
        The way in.
    record, runner
        The backfill, and who goes on with it.
    pace
        How fast files are taken.
    leave_out
        A folder that is not looked into: the node's own.
    guard
        See :data:`node.backfill.model.Guard`.
    says, waits
        Told what goes on, and why nothing does.
    """

    def __init__(
        self,
        folder: Path,
        opened: OpenIntake,
        record: catalog.BackfillRecord,
        runner: str,
        pace: Pace,
        *,
        leave_out: Path,
        guard: Guard,
        says: Callable[[str], None] = lambda _words: None,
        waits: Callable[[str], None] = lambda _words: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._opened = opened
        self._record = record
        self._runner = runner
        self._pace = pace
        self._leave_out = leave_out
        self._guard = guard
        self._says = says
        self._waits = waits
        self._sleep = sleep
        self._taker = Taker(opened.files, opened.intake, opened.refusing, urgency=LATER)
        self._files: dict[int, list[str]] = {}  # of each study that is to come
        self._seen = self._unreadable = 0

    def look_through(self) -> None:
        """Find the studies and days. What was looked into at an earlier start is not opened."""
        backfill_id = self._record.backfill_id
        with self._opened.database.read() as session:
            settled = catalog.settled_studies(session, backfill_id)
        batch: list[Path] = []
        for inside in walk(self._folder, leave_out=[self._leave_out]):
            if isinstance(inside, Fault):
                self._unreadable += 1
            elif isinstance(inside, Path):
                batch.append(inside)
            if len(batch) >= _BATCH:
                self._look_into(batch, settled)
                batch = []
        self._look_into(batch, settled)
        with self._guard(), self._opened.database.write() as session:
            catalog.folder_looked_through(session, backfill_id, self._runner)

    def find(self, day: date | None) -> Mapping[str, int | None]:
        """Nothing more: all days were found by looking through the folder."""
        del day
        return {}

    def take(self, study: BackfilledStudy) -> Came:
        """Take a study's files; what is here, or was, is not read to its end."""
        with self._opened.database.read() as session:
            here = catalog.study_here(session, study.study_instance_uid)
        skip = {
            uid
            for uid, known in here.received.items()
            if known.own or known.file_state is FileState.KEPT or known.file_state in _GIVEN_UP
        }
        reasons: dict[str, None] = {}
        taken, classes = 0, dict[str, None]()
        for found in self._files_of(study):
            if isinstance(found, str):
                reasons[found] = None
                continue
            identity = _identity(found.opened)
            if isinstance(identity, Identity) and identity.sop_instance_uid in skip:
                continue
            fate, reason = self._take(found, study)
            if fate is Fate.TAKEN:
                taken += 1
                if isinstance(identity, Identity):
                    classes[identity.sop_class_uid] = None
                self._says(f"takes a study of {study.day or 'no date'}: {taken} objects")
            elif fate is not Fate.KNOWN:
                reasons[reason] = None
        if not reasons:
            self._opened.released([study.study_instance_uid])
            self._files.pop(study.row_id, None)
        return Came(
            whole=not reasons,
            reason="; ".join(list(reasons)[:_REASONS_SAID]),
            taken=taken,
            sop_classes=tuple(classes),
        )

    # What there is.

    def _look_into(self, paths: list[Path], settled: frozenset[int]) -> None:
        """Find out what is in some files, and remember it."""
        digests = {path: digest for path in paths if (digest := _digest(path, self._folder))}
        backfill_id = self._record.backfill_id
        with self._opened.database.read() as session:
            known = catalog.known_files(session, backfill_id, list(digests.values()))
        new = {path: digest for path, digest in digests.items() if digest not in known}
        found = [self._file(path, digest) for path, digest in new.items()]
        self._seen += len(paths)
        with self._guard(), self._opened.database.write() as session:
            rows = catalog.add_files(session, backfill_id, self._runner, found)
            catalog.count_files(
                session,
                backfill_id,
                self._runner,
                files=self._seen,
                unreadable=self._unreadable,
            )
        for path, digest in digests.items():
            for place, row_id in known.get(digest, ()):
                if row_id not in settled:
                    self._remember(row_id, path, place)
        for path, file in zip(new, found, strict=True):
            for place, uid, _day in file.objects:
                self._remember(rows[uid], path, place)
        self._says(f"looks through the folder: {self._seen} files, {len(self._files)} studies")

    def _remember(self, row_id: int, path: Path, place: int) -> None:
        name = str(path.relative_to(self._folder))
        self._files.setdefault(row_id, []).append(f"{name}{_IN}{place}" if place else name)

    def _file(self, path: Path, digest: str) -> FileFound:
        """What a file holds that is wanted."""
        objects = []
        for place, found in enumerate(_objects(path)):
            identity = _identity(found.opened) if isinstance(found, Found) else found.reason
            if isinstance(identity, Identity):
                if self._is_wanted(identity):
                    objects.append((place, identity.study_instance_uid, identity.day))
            elif identity is not None:
                self._unreadable += 1
        return FileFound(digest=digest, objects=tuple(objects))

    def _is_wanted(self, identity: Identity) -> bool:
        record = self._record
        if identity.own or identity.sop_class_uid not in STORAGE_CLASSES:
            return False
        if record.modalities and identity.modality not in record.modalities:
            return False
        if record.first_day is None or record.last_day is None:
            return True
        return identity.day is not None and record.first_day <= identity.day <= record.last_day

    # What is taken.

    def _files_of(self, study: BackfilledStudy) -> Iterator[Found | str]:
        """The objects of a study, each to be taken before the next; in words what cannot be."""
        names: dict[str, set[int]] = {}
        for name in sorted(self._files.get(study.row_id, ())):
            path, _, number = name.partition(_IN)
            names.setdefault(path, set()).add(int(number or 0))
        if not names:
            yield "its files are not there any more"
        for name, places in names.items():
            left = set(places)
            for place, found in enumerate(_objects(self._folder / name)):
                if place in left and isinstance(found, Found):
                    left.discard(place)
                    yield found
                if not left:
                    break
            if left:
                yield "a file of it cannot be read any more, or has changed"

    def _take(self, found: Found, study: BackfilledStudy) -> tuple[Fate | None, str]:
        """One object, as soon as it may be taken."""
        self._wait(study)
        while True:
            try:
                with self._guard():
                    taken = self._taker.take(found.opened)
            except RefusedError as error:
                self._waits(f"here {error}")
                self._keep_open(study)
                self._sleep(_LOOK_EVERY_S)
                continue
            except OSError:
                return None, "a file of it cannot be read"
            except Exception as error:
                # The edge of a file: the next one comes.
                log.exception("file-not-taken")
                return None, f"an error of echonode's own ({type(error).__name__})"
            self._pace.took(taken.size_bytes)
            return taken.fate, _why(taken.fate, taken.reason)

    def _wait(self, study: BackfilledStudy) -> None:
        """For what the pace owes, with the study kept open meanwhile."""
        while self._pace.owed_s > 0:
            if self._pace.owed_s > _LOOK_EVERY_S:
                self._keep_open(study)
            self._pace.wait(_LOOK_EVERY_S)

    def _keep_open(self, study: BackfilledStudy) -> None:
        try:
            with self._opened.database.write() as session:
                catalog.more_to_come(session, study.study_instance_uid, datetime.now(UTC))
        except DatabaseError as error:
            log.warning("study-not-kept-open", reason=str(error))


def _why(fate: Fate, reason: str) -> str:
    if fate is Fate.QUARANTINED:
        # What a reader says of a broken object may quote it.
        return "in quarantine: " + ("it cannot be read" if "parsed" in reason else reason)
    return f"not taken: {reason or fate.value}"


def _objects(path: Path) -> Iterator[Found | Fault]:
    """What a file is or holds, with a place for each; a listed file that is missing has none."""
    try:
        for found in objects_in(path):
            if isinstance(found, Found | Fault):
                yield found
    except Exception as error:  # noqa: BLE001 - the edge of a file: the next one comes
        yield Fault(name="", reason=type(error).__name__)


def _identity(opened: Callable[[], AbstractContextManager[BinaryIO]]) -> Identity | str | None:
    """What an object is; None: it is no DICOM object; in words why it cannot be read."""
    try:
        with opened() as stream:
            begins, data = read_beginning(stream)
            if begins.is_directory:
                return None
            read = begins.head + data
            for size in _FIRST_BYTES:
                whole = True
                while len(read) < size:
                    more = stream.read(size - len(read))
                    if not more:
                        break
                    read += more
                else:
                    whole = False
                found = _read(read)
                if isinstance(found, Identity) or whole:
                    break
    except NotDicomError:
        return None
    except OSError:
        return "it cannot be read"
    if isinstance(found, str) and not begins.has_mark:
        return None
    return found


def _read(data: bytes) -> Identity | str:
    """The identity in the first bytes of a file; the last of its elements may be cut off."""
    try:
        header = read_header(data)
    except ClipError:
        return "it is no DICOM object that can be read"
    study, instance = str(header.get("StudyInstanceUID")), str(header.get("SOPInstanceUID"))
    if "SeriesInstanceUID" not in header or not (is_uid(study) and is_uid(instance)):
        return "it does not say what it is"
    return Identity(
        study_instance_uid=study,
        sop_instance_uid=instance,
        sop_class_uid=str(header.get("SOPClassUID")),
        day=_day(header.get("StudyDate")),
        modality=str(header.get("Modality") or ""),
        own=is_own_object(header),
    )


def _day(value: object) -> date | None:
    try:
        return datetime.strptime(str(value or ""), "%Y%m%d").date()  # noqa: DTZ007 - a date
    except ValueError:
        return None


def _digest(path: Path, folder: Path) -> str | None:
    """Of a file's place, size and time; None where it has gone."""
    try:
        about = path.stat()
    except OSError:
        return None
    words = (os.fsencode(path.relative_to(folder)), about.st_size, about.st_mtime_ns)
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]
