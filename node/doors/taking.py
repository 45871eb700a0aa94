"""The way in for those who have files in hand: commands, and the node's watched folders.

A command takes objects in its own process, beside a running node or without one. Files and rows are
all that a node needs: it finds a quiet study in its rows, whoever wrote them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import UID

from models.clip import ClipError, bytes_beside_pixels, read_header
from node.doors.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from node.doors.incoming import IncomingFile
from node.doors.part10 import Beginning, NotDicomError, head_for, read_beginning
from node.intake import Arrival, Intake, Receipt, Status
from node.settings import Settings
from node.watch.disk import DiskWatch, Trouble
from storage import catalog
from storage.database import Database, open_database
from storage.files import Area, FileStore, FileStoreError, open_store, store_folder

__all__ = [
    "DOOR",
    "Fate",
    "NotDicomError",
    "OpenIntake",
    "RefusedError",
    "Taken",
    "Taker",
    "UncertainError",
    "copy_in",
    "open_intake",
    "open_source",
]

DOOR = "folder"
_HERE = "localhost"
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
_CHUNK_BYTES = 1 << 20
_TRIES = 3  # where a node that starts has swept the incoming folder meanwhile


class RefusedError(Exception):
    """Nothing may be taken now, or it cannot be written; the message says why, without a path."""


class UncertainError(Exception):
    """It is DICOM, and something that nobody can know is missing; the message says what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenIntake:
    """The intake with what stands behind it, for a command."""

    database: Database
    files: FileStore
    intake: Intake
    disk: DiskWatch

    def refusing(self) -> str | None:
        """Why nothing may be taken now, in words without a path; None while all is well."""
        return self.disk.refusing()

    def trouble(self) -> Trouble | None:
        """The same for the operator, with the place and the next step. Looks at everything."""
        return self.disk.look().refusing

    def released(self, study_instance_uids: Iterable[str]) -> None:
        """These studies are whole: they need not wait for the long quiet time."""
        with self.database.write() as session:
            catalog.note_released(session, sorted(study_instance_uids), datetime.now(UTC))


@contextmanager
def open_intake(settings: Settings) -> Iterator[OpenIntake]:
    """The intake of the node that these settings are of.

    Raises
    ------
    DatabaseError
        If there is no database, or its tables are not those of this version.
    FileStoreError
        If the store cannot be written, or its volume is not mounted.
    """
    database = open_database(settings.database_url)
    try:
        _check_mounted(settings, database)
        files = open_store(settings.store_url, settings.data_dir)
        yield OpenIntake(
            database=database,
            files=files,
            intake=Intake(database, files, rules=settings.rules),
            disk=DiskWatch(
                settings.disk,
                settings.data_dir,
                database,
                files=files,
                longest_pause_s=settings.delivery.longest_pause_s,
            ),
        )
    finally:
        database.close()


def copy_in(
    files: FileStore, source: Path, *, refusing: Callable[[], str | None] = lambda: None
) -> Path:
    """Copy a DICOM file into the store's incoming folder; the source is only read.

    The copy is the caller's: :meth:`node.intake.Intake.receive` moves it away where it takes it,
    and brings it to the disk for good; what it leaves, the caller removes.

    Parameters
    ----------
    refusing
        Gives a reason while nothing may be taken; asked at the start and every 16 MiB.

    Raises
    ------
    NotDicomError
        If it is none.
    UncertainError
        If nobody can say in which encoding it is.
    RefusedError
        If it cannot be written now.
    OSError
        If the source cannot be read.
    """
    return _copied(files, partial(open_source, source), refusing).path


@contextmanager
def open_source(path: Path, *, follow_links: bool = True) -> Iterator[BinaryIO]:
    """A file for reading: never a pipe or a device, whose reading could wait for ever.

    Raises
    ------
    OSError
        If it cannot be read, or changes while it is read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    handle = os.open(path, flags if follow_links else flags | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb", buffering=0) as raw:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(0, "it is no regular file")
        yield raw
        after = os.fstat(handle)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise OSError(0, "it was written to while it was read")


class Fate(StrEnum):
    """What became of a file that was looked at."""

    TAKEN = "taken"  #: kept now for the first time
    KNOWN = "already-kept"
    QUARANTINED = "quarantined"  #: kept apart, for the operator
    REFUSED = "refused"  #: DICOM that this node does not take
    NOT_DICOM = "not-dicom"
    DIRECTORY = "directory"  #: a DICOMDIR, which lists other files

    @property
    def failed(self) -> bool:
        """Whether an object is not in."""
        return self in (Fate.QUARANTINED, Fate.REFUSED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What became of one file, and why."""

    fate: Fate
    reason: str = ""
    study_instance_uid: str = ""
    sop_class_uid: str = ""
    size_bytes: int = 0


class Taker:
    """Hands files to the intake, one after the other, as an association hands in objects.

    Parameters
    ----------
    files, intake
        Where they go.
    refusing
        Gives a reason while nothing may be taken.
    urgency
        Of their studies, where no rule says another.
    dry_run
        Only say what would become of them.
    """

    def __init__(
        self,
        files: FileStore,
        intake: Intake,
        refusing: Callable[[], str | None],
        *,
        urgency: int = 0,
        dry_run: bool = False,
    ) -> None:
        self._files = files
        self._intake = intake
        self._refusing = refusing
        self._urgency = urgency
        self._dry_run = dry_run

    def take(self, opened: Callable[[], AbstractContextManager[BinaryIO]]) -> Taken:
        """Take what a stream holds. Once it says so, it is kept for good.

        Raises
        ------
        RefusedError
            If nothing can be taken now: the source must stay.
        OSError
            If the source cannot be read.
        """
        for _ in range(_TRIES):
            try:
                copy = _copied(self._files, opened, self._refusing)
            except NotDicomError as error:
                return Taken(fate=Fate.NOT_DICOM, reason=str(error))
            except UncertainError as error:
                return Taken(fate=Fate.REFUSED, reason=str(error))
            except _IsDirectoryError as error:
                return Taken(fate=Fate.DIRECTORY, reason=str(error))
            except _SweptError:
                continue
            try:
                taken = self._hand_over(copy)
                if taken is not None:
                    return taken
            finally:
                with suppress(OSError):
                    copy.path.unlink(missing_ok=True)
        raise RefusedError("what was received was removed before it was kept")

    def _hand_over(self, copy: _Copy) -> Taken | None:
        """What became of a copy; None where someone removed it."""
        header, size = copy.header, copy.size_bytes
        if header is not None:
            syntax = header.file_meta.TransferSyntaxUID
            sop_class = _uid_in(header, "SOPClassUID")
            if sop_class and sop_class not in STORAGE_CLASSES:
                reason = f"{_shown(sop_class)} is not accepted here"
                return Taken(fate=Fate.REFUSED, reason=reason, size_bytes=size)
            if syntax not in TRANSFER_SYNTAXES:
                reason = f"transfer syntax {_shown(syntax)} is not accepted here"
                return Taken(fate=Fate.REFUSED, reason=reason, size_bytes=size)
        arrival = Arrival(
            path=copy.path,
            door=DOOR,
            peer_host=_HERE,
            urgency=self._urgency,
            comes_again=True,
        )
        receipt = self._intake.foresee(arrival) if self._dry_run else self._intake.receive(arrival)
        if receipt.status == Status.OUT_OF_RESOURCES:
            if not copy.path.exists():
                return None
            raise RefusedError(self._refusing() or receipt.comment)
        return Taken(
            fate=_fate(receipt),
            reason=receipt.comment if receipt.refused else "",
            study_instance_uid=receipt.study_instance_uid or _uid_in(header, "StudyInstanceUID"),
            sop_class_uid=_uid_in(header, "SOPClassUID"),
            size_bytes=size,
        )


def _uid_in(header: Dataset | None, name: str) -> str:
    value = "" if header is None else str(header.get(name))
    return value if _UID.fullmatch(value) else ""


def _fate(receipt: Receipt) -> Fate:
    if receipt.refused is not None:
        return Fate.QUARANTINED
    return Fate.KNOWN if receipt.repeated else Fate.TAKEN


class _IsDirectoryError(Exception):
    """It is the directory of a medium."""


class _SweptError(Exception):
    """A node that starts has removed the copy, as what an association left half received."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    """A file in the incoming folder; ``header`` None: it cannot be read."""

    path: Path
    size_bytes: int
    header: Dataset | None


def _copied(
    files: FileStore,
    opened: Callable[[], AbstractContextManager[BinaryIO]],
    refusing: Callable[[], str | None],
) -> _Copy:
    copy = None
    try:
        with opened() as stream:
            copy = _copy(files, stream, refusing)
    except BaseException:
        if copy is not None:  # the source says at its end that it changed meanwhile
            with suppress(OSError):
                copy.path.unlink(missing_ok=True)
        raise
    return copy


def _copy(files: FileStore, stream: BinaryIO, refusing: Callable[[], str | None]) -> _Copy:
    begins, first = read_beginning(stream)
    if begins.is_directory:
        raise _IsDirectoryError("it lists the files of a medium")
    path = _write(files, begins.head + first, stream, refusing)
    settled = None
    try:
        header = _header(path)
        head = _other_head(begins, header, path)
        if head is None:
            settled = path
        else:
            with path.open("rb") as old:
                old.seek(len(begins.head))
                settled = _write(files, head, old, refusing)
        return _Copy(path=settled, size_bytes=settled.stat().st_size, header=header)
    except FileNotFoundError as error:
        raise _SweptError from error
    finally:
        if settled != path:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _other_head(begins: Beginning, header: Dataset | None, path: Path) -> bytes | None:
    """What must stand before the data set instead of what stands there; None: it may stay.

    What the data set says of itself counts: those who change it, to take names away, often leave
    the file meta information as it was.
    """
    if header is None or not _has_identity(header):
        if not begins.has_mark:
            raise NotDicomError("it is no DICOM file")
        return None
    states_syntax = _UID.fullmatch(str(header.file_meta.TransferSyntaxUID))
    if not begins.is_whole or begins.speaks_of(header) or not states_syntax:
        return None
    if not begins.transfer_syntax_uid:
        _check_plain(path, header)
    return head_for(header)


def _write(
    files: FileStore,
    head: bytes,
    rest: BinaryIO,
    refusing: Callable[[], str | None],
) -> Path:
    """A new file in the incoming folder."""
    file = IncomingFile(files.incoming_folder, refusing, DOOR)
    try:
        data = head
        while data and file.problem is None:
            file.write(data)
            data = rest.read(_CHUNK_BYTES)
    except BaseException:
        file.discard()
        raise
    file.close()
    if file.problem is not None:
        file.discard()
        raise RefusedError(file.problem)
    return file.path


def _header(path: Path) -> Dataset | None:
    try:
        return read_header(path)
    except ClipError:
        return None  # the intake says why, and keeps it for the operator


def _has_identity(header: Dataset) -> bool:
    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    return all(_UID.fullmatch(str(header.get(name))) for name in names)


def _check_plain(path: Path, header: Dataset) -> None:
    """Without a stated transfer syntax only plain pixels say themselves how they are to be read.

    Whether value representations are written shows in the bytes; how pixels were compressed does
    not show with any certainty.
    """
    if "Rows" in header and bytes_beside_pixels(path) >= path.stat().st_size:
        raise UncertainError("it does not say how its pixels are compressed (no transfer syntax)")


def _shown(value: object) -> str:
    """A UID's name for a reader: a broken file may have anything in its place."""
    text = str(value)
    return UID(text).name if _UID.fullmatch(text) else "what is no UID"


def _check_mounted(settings: Settings, database: Database) -> None:
    """Make no store where the volume of the one that is known is missing."""
    folder = store_folder(settings.store_url, settings.data_dir)
    if folder is None or all((folder / area).is_dir() for area in Area):
        return
    with database.read() as session:
        if catalog.newest_time(session) is not None:
            raise FileStoreError(
                f"file store {folder}: its folders are not there, and the database knows what is "
                "kept in them; see that its volume is mounted"
            )
