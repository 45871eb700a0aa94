"""The file store in a folder.

A file is there whole or not at all, and once :meth:`FolderStore.adopt` or
:meth:`FolderStore.write` has returned, a power cut cannot take it back: its bytes are synced, then
it is renamed into place, then its folder is synced.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from storage.files.store import (
    CHUNK_BYTES,
    INCOMING,
    Area,
    FileStoreError,
    KeptFile,
    check_digest,
    check_key,
    clear_folder,
    is_key,
)

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


class FolderStore:
    """Files in a folder. Any thread and any process may use one folder at once.

    Parameters
    ----------
    root
        The folder; made if it is not there. All of it must be on one volume.
    arriving
        Where within ``incoming`` this one receives; empty where no other node has the folder.

    Raises
    ------
    FileStoreError
        If the folder cannot be made or written.
    """

    def __init__(self, root: Path, *, arriving: str = "") -> None:
        self.root = root.absolute()
        self._incoming = self.root / INCOMING / arriving
        self._is_shared = bool(arriving)
        self._lock = threading.Lock()
        self._durable: set[Path] = set()
        try:
            if not self.root.is_dir():
                self.root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
                _sync_folder(self.root.parent)
            for area in (INCOMING, *Area):
                self._make_folder(self.root / area)
            self._make_folder(self._incoming)
        except OSError as error:
            raise self._error("cannot be made", error) from error

    @property
    def place(self) -> str:
        """The folder, for people."""
        return str(self.root)

    @property
    def incoming_folder(self) -> Path:
        """Where doors put files while they receive them, before :meth:`adopt`."""
        return self._incoming

    @property
    def folders(self) -> tuple[Path, ...]:
        """The incoming folder and those of the areas."""
        return (self._incoming, *(self.root / area for area in Area))

    def reach(self, *, write: bool = False) -> None:
        """Nothing to ask: see :attr:`folders`."""

    def adopt(self, temporary: Path, area: Area, digest: str) -> str:
        """Take a file into the store, for good, and return its key.

        The file is moved. One with the same bytes that is there already takes its place; one
        with other bytes under the same digest stays, and the new one gets a key of its own.

        Parameters
        ----------
        temporary
            A whole file on the volume of the store: best in :attr:`incoming_folder`.
        digest
            Lower-case hexadecimal digest of the content, 32 to 128 characters.

        Raises
        ------
        FileStoreError
            If it cannot be kept; ``temporary`` is still there then.
        ValueError
            If the digest is not one.
        """
        check_digest(digest)
        try:
            _sync_file(temporary)
            folder = self._make_folder(self.root / area / digest[:2])
            # Without the lock two callers could both find a name free and one overwrite the other.
            with self._lock:
                target = self._named(temporary, folder, digest[2:])
            _sync_folder(folder)
        except OSError as error:
            raise self._error(f"cannot keep {area}/{digest[:8]}…", error) from error
        return f"{area}/{folder.name}/{target.name}"

    def write(self, area: Area, digest: str, data: bytes) -> str:
        """Keep bytes, for good, and return their key; otherwise as :meth:`adopt`."""
        check_digest(digest)
        temporary = None
        try:
            handle, name = tempfile.mkstemp(dir=self.incoming_folder, prefix="write-")
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            return self.adopt(temporary, area, digest)
        except OSError as error:
            raise self._error(f"cannot keep {area}/{digest[:8]}…", error) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def restore(self, key: str, data: BinaryIO) -> None:
        """Keep what a backup held under its key, in place of what is there.

        Raises
        ------
        FileStoreError
            If it cannot be kept.
        """
        target = self.path(key)
        temporary = None
        try:
            handle, name = tempfile.mkstemp(dir=self.incoming_folder, prefix="restore-")
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                shutil.copyfileobj(data, file, CHUNK_BYTES)
            _sync_file(temporary)
            self._make_folder(target.parent)
            temporary.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise self._error(f"cannot keep {key}", error) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        """Return where the file of a key lies.

        Raises
        ------
        ValueError
            If it is no key of this store: nothing outside the store can be named.
        """
        check_key(key)
        return self.root / key

    def source(self, key: str) -> str:
        """The path of a key's file: where this folder is mounted elsewhere, at the same place."""
        return str(self.path(key))

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """The file itself.

        Raises
        ------
        FileStoreError
            If it is not there.
        """
        path = self.path(key)
        try:
            path.stat()
        except OSError as error:
            raise self._error(f"cannot read {key}", error) from error
        yield path

    def copy_out(self, key: str) -> Path:
        """A kept file under a second name in the incoming folder, for the caller to adopt or drop.

        Raises
        ------
        FileStoreError
            If it is not there, cannot be read, or there is no room.
        """
        again = self._incoming / f"again-{uuid.uuid4().hex}"
        path = self.path(key)
        try:
            os.utime(path)  # what is old in the incoming folder is swept away
            try:
                again.hardlink_to(path)
            except OSError:
                shutil.copyfile(path, again)
        except OSError as error:
            again.unlink(missing_ok=True)
            raise self._error(f"cannot copy {key}", error) from error
        return again

    def size_bytes(self, key: str) -> int | None:
        """How long a kept file is; None where it is not there.

        Raises
        ------
        FileStoreError
            If that cannot be told now.
        """
        path = self.path(key)
        try:
            return path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error(f"cannot look at {key}", error) from error

    def open(self, key: str) -> BinaryIO:
        """Open a kept file for reading.

        Raises
        ------
        FileStoreError
            If it is not there or cannot be read.
        """
        try:
            return self.path(key).open("rb")
        except OSError as error:
            raise self._error(f"cannot read {key}", error) from error

    def check_readable(self, key: str) -> None:
        """Read a kept file from end to end.

        Raises
        ------
        FileStoreError
            If it is not there or cannot be read.
        """
        with self.open(key) as file:
            try:
                while file.read(CHUNK_BYTES):
                    pass
            except OSError as error:
                raise self._error(f"cannot read {key}", error) from error

    def delete(self, key: str) -> None:
        """Delete a kept file, for good. One that is gone already is no error."""
        path = self.path(key)
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync_folder(path.parent)
        except OSError as error:
            raise self._error(f"cannot delete {key}", error) from error

    def listed(self, area: Area) -> Iterator[KeptFile]:
        """Everything in a part of the store, sorted by key, a folder at a time.

        Raises
        ------
        FileStoreError
            If a folder cannot be read.
        """
        try:
            with os.scandir(self.root / area) as entries:
                folders = sorted(entry.name for entry in entries)
            for folder in folders:
                yield from self._listed(f"{area}/{folder}")
        except OSError as error:
            raise self._error(f"cannot list {area}", error) from error

    def _listed(self, name: str) -> list[KeptFile]:
        folder = self.root / name
        if not folder.is_dir() or folder.is_symlink():
            return [KeptFile(key=name, size_bytes=None)]
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                key = f"{name}/{entry.name}"
                try:
                    plain = entry.is_file(follow_symlinks=False) and is_key(key)
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed a moment ago
                changed = max(status.st_mtime, status.st_ctime)
                size = status.st_size if plain else None
                found.append(KeptFile(key=key, size_bytes=size, changed_at=changed))
        return sorted(found, key=lambda item: item.key)

    def free_bytes(self) -> int:
        """How much is free on its volume.

        Raises
        ------
        OSError
            If the folder is not there.
        """
        return shutil.disk_usage(self.root).free

    def clear_incoming(self, older_than_s: float = 0.0) -> int:
        """Delete what was being received when the node stopped: it was never acknowledged.

        Returns how many files. ``older_than_s`` leaves those that were written to lately.
        """
        try:
            return clear_folder(self._incoming, older_than_s)
        except OSError as error:
            name = Path(error.filename or "").name
            raise self._error(f"cannot delete {INCOMING}/{name}", error) from error

    def _named(self, temporary: Path, folder: Path, stem: str) -> Path:
        """Give a file its name in the store."""
        target = _place_for(temporary, folder, stem)
        while self._is_shared and not target.exists():
            try:
                target.hardlink_to(temporary)  # unlike a renaming, it replaces nothing
            except FileExistsError:
                target = _place_for(temporary, folder, stem)  # another node was faster
            else:
                temporary.unlink()
                return target
        os.replace(temporary, target)  # noqa: PTH105  named as the tests watch it
        return target

    def _make_folder(self, folder: Path) -> Path:
        # A folder that is there may have been made, and not yet synced, by another thread or by
        # a process that was killed: only one whose parent we have synced ourselves is durable.
        if folder not in self._durable or not folder.is_dir():
            folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            _sync_folder(folder.parent)
            self._durable.add(folder)
        return folder

    def _error(self, what: str, error: OSError) -> FileStoreError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        steps = {
            errno.ENOSPC: "free space on its volume",
            errno.EDQUOT: "free space on its volume",
            errno.EXDEV: "put files into its incoming folder before they are kept",
            errno.ENOENT: "restore it from a backup",
            errno.EACCES: "see that this user may read and write there",
            errno.EPERM: "see that this user may read and write there",
            errno.EROFS: "its volume can only be read; see why",
        }
        step = steps.get(error.errno or 0, "see to its volume")
        return FileStoreError(
            f"file store {self.root}: {what}: {error.strerror or error}; {step}",
            disk_full=full,
            missing=error.errno == errno.ENOENT and self._is_there(),
        )

    def _is_there(self) -> bool:
        return all((self.root / area).is_dir() for area in Area)


def _place_for(temporary: Path, folder: Path, stem: str) -> Path:
    """The first name that is free, or taken by a file with the same bytes."""
    target = folder / f"{stem}.dcm"
    number = 2
    while target.exists() and not _same_bytes(temporary, target):
        target = folder / f"{stem}-{number}.dcm"
        number += 1
    return target


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(CHUNK_BYTES):
            if chunk != right.read(CHUNK_BYTES):
                return False
    return True


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(handle, _FILE_MODE)
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
