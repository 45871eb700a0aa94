"""A copy of database and files that fits together, made while the node runs; and the way back.

A folder holds one backup. Kept files never change, so most of the next one is there already::

    backup.json              what this is; written last: without it there is no whole backup
    database-….db            the rows, as of one moment
    objects/ results/ quarantine/
    beside/                  what else lay in the node's own folder, such as users and serial number

Files are copied before the rows that name them count, and only then is what no row names removed:
at every moment the folder holds the former backup or the new one, whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from storage.database import Database, DatabaseError, migration_state
from storage.files import Area, FileStore, FileStoreError, FolderStore
from storage.states import FileState
from storage.tables import Instance, QuarantinedObject, Result

_MANIFEST = "backup.json"
_MARK = ".echonode-backup"
_RESTORING = "restore-begun"
_BESIDE = "beside"
_FORMAT = 1
_ROUNDS = 3  # a node may remove by retention what was to be copied
_BATCH = 500
_TABLES: tuple[type[Instance] | type[Result] | type[QuarantinedObject], ...] = (
    Instance,
    Result,
    QuarantinedObject,
)


class BackupError(Exception):
    """A backup cannot be made or brought back; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackupRecord:
    """What a backup holds."""

    made_at: datetime
    revision: str  #: of the tables
    files: int
    size_bytes: int  #: of all files, without the database
    copied: int  #: of these, how many were not there before
    missing: tuple[str, ...]  #: keys of files that rows name and that were not there


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    """A file that a row names."""

    table: type[Instance] | type[Result] | type[QuarantinedObject]
    id: int
    key: str
    size_bytes: int


def back_up(
    database: Database,
    files: FileStore,
    folder: Path,
    *,
    beside: Mapping[str, Path],
    made_by: str,
    clock: datetime | None = None,
) -> BackupRecord:
    """Copy all that a node keeps.

    Parameters
    ----------
    folder
        Where to; made if it is not there. One that holds an earlier backup is brought up to date.
    beside
        Further files and folders, by their name in the backup.
    made_by
        Name and version of the program, for people.

    Raises
    ------
    BackupError
        If it cannot be made.
    DatabaseError
        If the database cannot be read.
    """
    if database.url.get_backend_name() != "sqlite":
        raise BackupError("the rows are not in SQLite: back them up by their own database's tools")
    now = clock or datetime.now(UTC)
    try:
        with _held(folder, files.root):
            copied = _copied_from(files, _rows_of(database), folder)[0]
            for _ in range(_ROUNDS):
                rows = folder / f"database-{now:%Y%m%dT%H%M%S%f}Z.db.new"
                _copy_rows(Path(str(database.url.database)), rows)
                with _snapshot(rows) as engine:
                    more, missing = _copied_from(files, _named(engine), folder)
                copied += more
                if all(_still_kept(database, item) for item in missing):
                    break
            _copy_beside(beside, folder / _BESIDE)
            with _snapshot(rows) as engine:
                count, size = _totals(engine)
            kept = BackupRecord(
                made_at=now,
                revision=str(migration_state(str(database.url)).current),
                files=count - len(missing),
                size_bytes=size - sum(item.size_bytes for item in missing),
                copied=copied,
                missing=tuple(item.key for item in missing),
            )
            final = rows.with_suffix("")
            os.sync()
            rows.rename(final)
            _write_manifest(folder, kept, final, made_by)
            _remove_others(folder, final)
            return kept
    except OSError as error:
        raise _failed(folder, error) from error


def bring_back(
    folder: Path,
    root: Path,
    database: Path,
    *,
    places: Mapping[str, Path | None],
    open_files: Callable[[], FileStore] | None = None,
) -> BackupRecord:
    """Lay a backup's files and rows where a node will look for them.

    Parameters
    ----------
    folder
        What :func:`back_up` made.
    root
        The node's own folder: without files in it, or with those of a restore that was broken off.
    database
        Where its database is to be.
    places
        Where what lay beside goes, by its name, if not into ``root``; None leaves it out.
    open_files
        Opens the store that the files go into, if that is not ``root``.

    Raises
    ------
    BackupError
        If the backup is not whole, or something is there that would be overwritten.
    SchemaError
        If the backup is of a later version of echonode.
    """
    manifest = _manifest(folder)
    open_files = open_files or (lambda: FolderStore(root))
    rows = folder / str(manifest["database"]["file"])
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_free(root, database, manifest, _places(folder / _BESIDE, root, places))
        (root / _RESTORING).write_text(str(manifest["made_at"]))
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        arriving = database.with_name(f"{database.name}.restored")
        _copy(rows, arriving)
        if _digest(arriving) != manifest["database"]["sha256"]:
            raise BackupError(f"{rows} is damaged: it is not what was written; take another backup")
        revision = str(migration_state(_url(arriving)).current)  # refuses a later one
        with _snapshot(arriving) as engine:
            copied, missing = _brought_back(open_files(), _named(engine), folder)
        _copy_back(_places(folder / _BESIDE, root, places))
        os.sync()
        for suffix in ("-wal", "-shm"):
            arriving.with_name(arriving.name + suffix).unlink(missing_ok=True)
        arriving.rename(database)
        (root / _RESTORING).unlink()
        os.sync()
    except OSError as error:
        raise _failed(root, error) from error
    return BackupRecord(
        made_at=datetime.fromisoformat(str(manifest["made_at"])),
        revision=revision,
        files=int(manifest["files"])
        - len({item.key for item in missing} - set(manifest["missing"])),
        size_bytes=int(manifest["size_bytes"]),
        copied=copied,
        missing=tuple(item.key for item in missing),
    )


@contextmanager
def _held(folder: Path, root: Path) -> Iterator[None]:
    """A folder for a backup, and nobody else at work in it."""
    here, there = folder.resolve(), root.resolve()
    if here == there or here.is_relative_to(there) or there.is_relative_to(here):
        raise BackupError(f"{folder} lies within the node's own folder, or around it; name another")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = folder / _MARK
    if not mark.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} holds something else than a backup; name a folder of its own")
    with mark.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"another backup into {folder} is at work; wait for it") from None
        for old in folder.glob("database-*.db.new*"):
            old.unlink()
        yield


def _copy_rows(source: Path, target: Path) -> None:
    """By SQLite's own way of copying: one state of the database, whoever writes meanwhile."""
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)
            ) as there,
            contextlib.closing(sqlite3.connect(target)) as here,
        ):
            there.backup(here)
            here.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            problem = str(here.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.Error as error:
        raise BackupError(f"the database {source} cannot be copied: {error}") from error
    if problem != "ok":
        raise BackupError(
            f"the database {source} is damaged: {problem}; restore it from an earlier backup"
        )
    target.chmod(0o600)


@contextmanager
def _snapshot(rows: Path) -> Iterator[Engine]:
    """A copied database, to look at only."""
    address = f"file:{quote(str(rows))}?mode=ro&immutable=1"
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool
    )
    try:
        yield engine
    except SQLAlchemyError as error:
        raise BackupError(f"the copied rows in {rows} cannot be read: {error}") from error
    finally:
        engine.dispose()


def _rows_of(database: Database) -> Iterator[_Named]:
    """What the rows name now, in short looks: the node goes on."""
    for table in _TABLES:
        last = 0
        while True:
            with database.read() as session:
                found = session.execute(_selected(table, last)).all()
            if not found:
                break
            last = found[-1][0]
            yield from (_Named(table=table, id=i, key=k, size_bytes=s) for i, k, s in found)


def _named(engine: Engine) -> Iterator[_Named]:
    for table in _TABLES:
        last = 0
        while True:
            with engine.connect() as connection:
                found = connection.execute(_selected(table, last)).all()
            if not found:
                break
            last = found[-1][0]
            yield from (_Named(table=table, id=i, key=k, size_bytes=s) for i, k, s in found)


def _selected(table: type[Instance] | type[Result] | type[QuarantinedObject], last: int) -> Any:
    return (
        select(table.id, table.file_key, table.size_bytes)
        .where(table.id > last, table.file_state == FileState.KEPT, table.file_key.is_not(None))
        .order_by(table.id)
        .limit(_BATCH)
    )


def _totals(engine: Engine) -> tuple[int, int]:
    sizes: dict[str, int] = {item.key: item.size_bytes for item in _named(engine)}
    return len(sizes), sum(sizes.values())


def _still_kept(database: Database, item: _Named) -> bool:
    """Whether a row still says that its file is there; retention may have been faster."""
    with database.read() as session:
        state = session.scalar(select(item.table.file_state).where(item.table.id == item.id))
    return state is FileState.KEPT


def _copied_from(
    files: FileStore, named: Iterable[_Named], folder: Path
) -> tuple[int, list[_Named]]:
    """Copy what is not there yet; gives how many, and what was nowhere."""
    copied = 0
    missing: dict[str, _Named] = {}
    for item in named:
        target = folder / item.key
        if _size(target) == item.size_bytes:
            continue
        try:
            with files.open(item.key) as there:
                _write(there, target)
        except FileStoreError as error:
            if not error.missing and not isinstance(error.__cause__, FileNotFoundError):
                raise BackupError(str(error)) from error
            if not target.exists():
                missing[item.key] = item
        else:
            copied += 1
    return copied, list(missing.values())


def _brought_back(
    files: FileStore, named: Iterable[_Named], folder: Path
) -> tuple[int, list[_Named]]:
    """Keep what is not there yet; gives how many, and what was nowhere."""
    copied = 0
    missing: dict[str, _Named] = {}
    try:
        for item in named:
            if files.size_bytes(item.key) == item.size_bytes:
                continue
            try:
                there = (folder / item.key).open("rb")
            except FileNotFoundError:
                if files.size_bytes(item.key) is None:
                    missing[item.key] = item
                continue
            with there:
                files.restore(item.key, there)
            copied += 1
    except FileStoreError as error:
        raise BackupError(str(error)) from error
    return copied, list(missing.values())


def _copy(source: Path, target: Path) -> None:
    """A copy that is whole where it has its name, readable by its owner alone."""
    with source.open("rb") as there:
        _write(there, target)


def _write(there: BinaryIO, target: Path) -> None:
    arriving = target.with_name(f"{target.name}.new")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as here:
        shutil.copyfileobj(there, here, 1 << 20)
    arriving.rename(target)


def _copy_beside(beside: Mapping[str, Path], to: Path) -> None:
    wanted = set()
    for name, path in beside.items():
        for source in _files_in(path):
            target = to / name / source.relative_to(path) if path.is_dir() else to / name
            wanted.add(target)
            with contextlib.suppress(FileNotFoundError):  # removed a moment ago
                _copy(source, target)
    for old in _files_in(to):
        if old not in wanted:
            old.unlink()


def _places(beside: Path, root: Path, places: Mapping[str, Path | None]) -> list[tuple[Path, Path]]:
    """What lay beside, and where each goes."""
    found = []
    for source in _files_in(beside):
        name, *rest = source.relative_to(beside).parts
        place = places.get(name, root / name)
        if place is not None:
            found.append((source, place.joinpath(*rest)))
    return found


def _copy_back(beside: Iterable[tuple[Path, Path]]) -> None:
    for source, target in beside:
        _copy(source, target)


def _files_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(item for item in path.rglob("*") if item.is_file() and not item.is_symlink())


def _write_manifest(folder: Path, kept: BackupRecord, rows: Path, made_by: str) -> None:
    manifest = {
        "format": _FORMAT,
        "made_at": kept.made_at.isoformat(),
        "made_by": made_by,
        "revision": kept.revision,
        "database": {"file": rows.name, "sha256": _digest(rows)},
        "files": kept.files,
        "size_bytes": kept.size_bytes,
        "missing": list(kept.missing),
    }
    arriving = folder / f"{_MANIFEST}.new"
    with arriving.open("w") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    arriving.rename(folder / _MANIFEST)
    os.sync()


def _remove_others(folder: Path, rows: Path) -> None:
    """Remove what only an earlier backup had."""
    for old in folder.glob("database-*.db"):
        if old != rows:
            old.unlink()
    with _snapshot(rows) as engine:
        keys = {item.key for item in _named(engine)}
    for area in Area:
        for path in _files_in(folder / area):
            if str(path.relative_to(folder)) not in keys:
                path.unlink()


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
        known = manifest["format"] == _FORMAT and bool(manifest["database"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(
            f"{folder} holds no whole backup: its {_MANIFEST} cannot be read"
        ) from error
    if not known:
        raise BackupError(f"{folder} is a backup of a later version of echonode; install that one")
    return manifest


def _check_free(
    root: Path,
    database: Path,
    manifest: Mapping[str, Any],
    beside: Iterable[tuple[Path, Path]],
) -> None:
    begun = root / _RESTORING
    if begun.is_file() and begun.read_text() == manifest["made_at"]:
        return  # the same restore, broken off
    there = [database] if database.exists() else []
    there += [path for area in Area for path in _files_in(root / area)[:1]]
    there += [to for source, to in beside if to.exists() and _digest(to) != _digest(source)]
    if there:
        raise BackupError(
            f"{there[0]} is there already; nothing is overwritten: move {root} away, then try again"
        )


def _url(file: Path) -> str:
    return URL.create("sqlite", database=str(file)).render_as_string()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _failed(folder: Path, error: OSError) -> BackupError:
    steps = {
        errno.ENOSPC: "free space on its volume, then try again: it goes on where it was",
        errno.EDQUOT: "free space on its volume, then try again: it goes on where it was",
        errno.EACCES: "see that this user may read and write there",
        errno.EPERM: "see that this user may read and write there",
        errno.EROFS: "its volume can only be read",
    }
    step = steps.get(error.errno or 0, "see to its volume")
    return BackupError(f"{error.filename or folder}: {error.strerror or error}; {step}")


__all__ = ["BackupError", "BackupRecord", "DatabaseError", "back_up", "bring_back"]
