"""The way in for those who have files in hand: commands, and the node's watched folders.

A command takes objects in its own process, beside a running node or without one. Files and rows are
all that a node needs: it finds a quiet study in its rows, whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from node.doors.incoming import IncomingFile
from node.intake import Intake
from node.settings import Settings
from node.watch.disk import DiskWatch, Trouble
from storage import catalog
from storage.database import Database, open_database
from storage.files import Area, FileStore, FileStoreError

_CHUNK_BYTES = 1 << 20
_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_META_BEGINS = b"\x02\x00\x00\x00UL\x04\x00"  # (0002,0000), which PS3.10 7.1 puts first
_HEAD_BYTES = _PREAMBLE_BYTES + len(_MAGIC)


class NotDicomError(Exception):
    """The bytes are no DICOM file (PS3.10)."""


class RefusedError(Exception):
    """Nothing may be taken now, or it cannot be written; the message says why, without a path."""


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
        _check_mounted(settings.data_dir, database)
        files = FileStore(settings.data_dir)
        yield OpenIntake(
            database=database,
            files=files,
            intake=Intake(database, files),
            disk=DiskWatch(
                settings.disk,
                settings.data_dir,
                database,
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
    RefusedError
        If it cannot be written now.
    OSError
        If the source cannot be read.
    """
    with source.open("rb") as stream:
        return write_in(files, stream, refusing=refusing)


def write_in(
    files: FileStore,
    stream: BinaryIO,
    *,
    refusing: Callable[[], str | None] = lambda: None,
    door: str = "folder",
) -> Path:
    """Write what a stream holds into the store's incoming folder, as :func:`copy_in`."""
    head = part10_head(stream.read(_HEAD_BYTES))
    file = IncomingFile(files.incoming_folder, refusing, door)
    try:
        data = head
        while data and file.problem is None:
            file.write(data)
            data = stream.read(_CHUNK_BYTES)
    except BaseException:
        file.discard()
        raise
    file.close()
    if file.problem is not None:
        file.discard()
        raise RefusedError(file.problem)
    return file.path


def part10_head(head: bytes) -> bytes:
    """How the copy of a file begins that begins so.

    The preamble may hold a program or another format's header (PS3.10 7.5) and is emptied. Some
    leave it out, and "DICM" with it; what then must come first shows that it is a DICOM file.

    Raises
    ------
    NotDicomError
        If it is none.
    """
    if head[_PREAMBLE_BYTES:_HEAD_BYTES] == _MAGIC:
        return bytes(_PREAMBLE_BYTES) + head[_PREAMBLE_BYTES:]
    if head.startswith(_META_BEGINS):
        return bytes(_PREAMBLE_BYTES) + _MAGIC + head
    raise NotDicomError("it is no DICOM file (PS3.10)")


def _check_mounted(data_dir: Path, database: Database) -> None:
    """Make no store where the volume of the one that is known is missing."""
    if all((data_dir / area).is_dir() for area in Area):
        return
    with database.read() as session:
        if catalog.newest_time(session) is not None:
            raise FileStoreError(
                f"file store {data_dir}: its folders are not there, and the database knows what is "
                "kept in them; see that its volume is mounted"
            )
