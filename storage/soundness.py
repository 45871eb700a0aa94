"""Whether a database file is whole, and whether rows and files say the same.

Built for a million rows beside a running node: rows come sorted by their file's key and are laid
beside the folders' listings, so that one pass finds what is missing on either side and little is
held in memory. What looks wrong is looked at once more before it is told: the node may have been at
work on it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby, islice
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from storage.catalog import wrong_tallies
from storage.database import Database
from storage.files import Area, FileStore, FileStoreError, FolderStore, KeptFile
from storage.states import FileState
from storage.tables import Instance, QuarantinedObject, Result, Study

GRACE_S = 900.0  #: files younger than this may still be on their way to their row
_BATCH = 500
_CHUNK_BYTES = 1 << 20

#: The rows of each part of the store, and the column with the digest of a file's content.
_TABLES: dict[Area, type[Instance] | type[Result] | type[QuarantinedObject]] = {
    Area.OBJECTS: Instance,
    Area.RESULTS: Result,
    Area.QUARANTINE: QuarantinedObject,
}
_DIGESTS = {
    Area.OBJECTS: Instance.content_sha256,
    Area.RESULTS: Result.sha256,
    Area.QUARANTINE: QuarantinedObject.sha256,
}


class FaultKind(StrEnum):
    """What can be wrong with the store."""

    DATABASE = "database"  #: the database's own file is damaged
    MISSING = "missing"  #: a row without its file
    WRONG_SIZE = "wrong-size"  #: a file that is shorter or longer than its row says
    WRONG_DIGEST = "wrong-digest"  #: a file with other content than its row says
    STRAY = "stray"  #: a file without a row
    THERE_AFTER_ALL = "there-after-all"  #: a row says that its file is gone, and it is there
    LEFTOVER = "leftover"  #: half received, and never acknowledged
    STRANGE = "strange"  #: nothing that the store made
    COUNT = "count"  #: the database's own count of rows in a state is not their number


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that is wrong."""

    kind: FaultKind
    words: str
    area: Area | None = None
    key: str = ""  #: of the file, within the store's folder
    row_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    key: str
    id: int
    size_bytes: int
    file_state: FileState


def problems_of(database: Database) -> tuple[str, ...]:
    """What SQLite finds wrong with its own file, a line each; nothing on other databases."""
    if database.url.get_backend_name() != "sqlite":
        return ()
    with database.read() as session:
        pages = [str(row[0]) for row in session.execute(text("PRAGMA quick_check"))]
        strays = session.execute(text("PRAGMA foreign_key_check")).all()
    return (
        *(f"database: {line}" for line in pages if line != "ok"),
        *(f"database: a row of {stray[0]} points at nothing" for stray in strays),
    )


def miscounts_of(database: Database) -> Iterator[Fault]:
    """The counts of states that pages and metrics show, beside the rows themselves."""
    with database.read() as session:
        wrong = wrong_tallies(session)
    for (what, destination, state, promise), by in sorted(wrong.items()):
        named = " ".join(word for word in (state, destination, promise) if word)
        yield Fault(
            kind=FaultKind.COUNT,
            words=f"{what} rows counted as {named}: {abs(by)} {'more' if by > 0 else 'fewer'} than "
            "there are",
        )


def faults_of(database: Database, files: FileStore, *, grace_s: float = GRACE_S) -> Iterator[Fault]:
    """Lay every row beside every file: what is missing, stray, left over, or of a wrong size."""
    before = time.time() - grace_s
    for area in Area:
        found = _laid_side_by_side(database, files, area, before)
        while batch := list(islice(found, _BATCH)):
            yield from _still_so(database, files, area, batch)
    for path in sorted(files.incoming_folder.iterdir()):
        changed = _changed_at(path)
        if changed is not None and changed < before:
            name = str(path.relative_to(files.root))
            yield Fault(
                kind=FaultKind.LEFTOVER,
                words=f"{name}: half received, and never acknowledged",
                key=name,
            )


def wrong_contents(
    database: Database, files: FileStore, content_digest: Callable[[BinaryIO], str]
) -> Iterator[Fault]:
    """Read every file and compare it with its row's digest.

    Parameters
    ----------
    content_digest
        SHA-256 of the part of a received file that is the sender's.
    """
    for area, table in _TABLES.items():
        digest = _DIGESTS[area]
        last = 0
        while True:
            with database.read() as session:
                rows = session.execute(
                    select(table.id, table.file_key, digest)
                    .where(table.id > last, table.file_state == FileState.KEPT)
                    .order_by(table.id)
                    .limit(_BATCH)
                ).all()
            if not rows:
                break
            last = rows[-1][0]
            for row_id, key, expected in rows:
                if key is not None and _is_other(files, key, expected, content_digest):
                    fault = Fault(
                        kind=FaultKind.WRONG_DIGEST,
                        words=f"{key}: its content is not what was kept",
                        area=area,
                        key=key,
                        row_id=row_id,
                    )
                    yield from _still_so(database, files, area, [fault])


def _is_other(
    files: FileStore, key: str, expected: str, content_digest: Callable[[BinaryIO], str]
) -> bool:
    try:
        with files.open(key) as file:
            if content_digest(file) == expected:
                return False
            file.seek(0)
            whole = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                whole.update(chunk)
            return expected != whole.hexdigest()
    except FileStoreError as error:
        if error.missing:
            return False  # told as missing, or just removed
        if isinstance(files, FolderStore):
            return True
        raise  # it is the way there, and not the file
    except OSError:
        return True


def _laid_side_by_side(
    database: Database, files: FileStore, area: Area, before: float
) -> Iterator[Fault]:
    """Faults as they seem, in the order of the folders."""
    with database.read() as session:
        rows = groupby(_rows(session, area), key=lambda row: _folder_of(row.key, area))
        listed = groupby(files.listed(area), key=lambda item: _folder_of(item.key, area))
        ahead, here = next(rows, None), next(listed, None)
        while ahead is not None or here is not None:
            if ahead is not None and (here is None or ahead[0] < here[0]):
                yield from _compared(area, ahead[1], (), before)
                ahead = next(rows, None)
            elif here is not None and (ahead is None or here[0] < ahead[0]):
                yield from _compared(area, (), here[1], before)
                here = next(listed, None)
            elif ahead is not None and here is not None:
                yield from _compared(area, ahead[1], here[1], before)
                ahead, here = next(rows, None), next(listed, None)


def _rows(session: Session, area: Area) -> Iterator[_Row]:
    table = _TABLES[area]
    found = session.execute(
        select(table.file_key, table.id, table.size_bytes, table.file_state)
        .where(table.file_key.is_not(None))
        .order_by(table.file_key)
        .execution_options(yield_per=5000)
    )
    for key, row_id, size, state in found:
        if key is None:
            continue  # an object that left no bytes
        yield _Row(key=key, id=row_id, size_bytes=size, file_state=state)


def _folder_of(key: str, area: Area) -> str:
    """What of a key its neighbours share, also of what is no key."""
    return "/".join(key.split("/")[:2]) if key.startswith(f"{area}/") else key


def _compared(
    area: Area, rows: Iterable[_Row], files: Iterable[KeptFile], before: float
) -> Iterator[Fault]:
    listed = {item.key: item for item in files}
    named = set()
    for row in rows:
        named.add(row.key)
        status = listed.get(row.key)
        if status is not None and status.size_bytes is None:
            status = None  # something else in its place
        kind, words = None, ""
        if row.file_state is FileState.KEPT and status is None:
            kind, words = FaultKind.MISSING, "its file is missing"
        elif row.file_state is FileState.KEPT and status is not None:
            if status.size_bytes != row.size_bytes:
                kind = FaultKind.WRONG_SIZE
                words = f"{status.size_bytes} bytes long, and was {row.size_bytes}"
        elif status is not None and row.file_state is not FileState.REMOVING:
            kind, words = FaultKind.THERE_AFTER_ALL, f"is there, and its row says {row.file_state}"
        if kind is not None:
            yield Fault(
                kind=kind, words=f"{row.key}: {words}", area=area, key=row.key, row_id=row.id
            )
    for key in sorted(listed.keys() - named):
        status = listed[key]
        if status.size_bytes is None:
            yield Fault(
                kind=FaultKind.STRANGE, words=f"{key}: nothing of the store's", area=area, key=key
            )
        elif status.changed_at < before:
            yield Fault(
                kind=FaultKind.STRAY, words=f"{key}: a file without a row", area=area, key=key
            )


def _still_so(
    database: Database, files: FileStore, area: Area, faults: Iterable[Fault]
) -> Iterator[Fault]:
    """Those that are still so: the node may have removed, or kept again, what they speak of."""
    faults = list(faults)
    table = _TABLES[area]
    ids = [fault.row_id for fault in faults if fault.row_id is not None]
    strays = [fault.key for fault in faults if fault.kind is FaultKind.STRAY]
    with database.read() as session:
        now = {
            row_id: (key, state, size)
            for row_id, key, state, size in session.execute(
                select(table.id, table.file_key, table.file_state, table.size_bytes).where(
                    table.id.in_(ids)
                )
            )
        }
        studies: dict[int, str] = {}
        if area is not Area.QUARANTINE:
            of_a_study = Instance if area is Area.OBJECTS else Result
            of_rows = (
                select(of_a_study.id, Study.study_instance_uid)
                .join(Study, Study.id == of_a_study.study_id)
                .where(of_a_study.id.in_(ids))
            )
            studies = {row[0]: row[1] for row in session.execute(of_rows)}
        known = (
            set(session.scalars(select(table.file_key).where(table.file_key.in_(strays))))
            if strays
            else set()
        )
    for fault in faults:
        if fault.row_id is None:
            if fault.key not in known:
                yield fault
            continue
        key, state, size = now.get(fault.row_id, ("", None, 0))
        if key != fault.key:
            continue
        size_there = files.size_bytes(key)
        there = size_there is not None
        kept = state is FileState.KEPT
        if (
            (fault.kind is FaultKind.MISSING and kept and not there)
            or (fault.kind is FaultKind.WRONG_SIZE and kept and there and size_there != size)
            or (fault.kind is FaultKind.WRONG_DIGEST and kept and there)
            or (fault.kind is FaultKind.THERE_AFTER_ALL and there and not kept)
        ):
            study = studies.get(fault.row_id)
            yield replace(fault, words=f"study {study}: {fault.words}") if study else fault


def _changed_at(path: Path) -> float | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return max(status.st_mtime, status.st_ctime)
