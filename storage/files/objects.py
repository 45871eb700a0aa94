"""The file store in a bucket of an object store.

What arrives lies in a folder of this machine until it is whole. It is kept once the server has
confirmed the upload with a checksum that is ours. A key ends with a mark made of the very bytes:
two nodes that keep the same object at once write the same, and other bytes never get its name. So
nothing is asked of the server but to put, get, delete and list.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from storage.files.address import Address
from storage.files.bucket import Bucket, sha256_of
from storage.files.copies import Copies
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

_MARK_DIGITS = 39  # of 128 bits
_COPIES = "copies"
_PROBE = "probe"  #: beside the areas; written where a write has failed, to see when it is over
_PROBE_BYTES = 4096


class ObjectStore:
    """Files in a bucket. Any thread, process and machine may use one at once.

    Parameters
    ----------
    address
        Where it is.
    data_dir
        The node's own folder; files arrive in ``incoming`` there.

    Raises
    ------
    FileStoreError
        If the folder cannot be made. Nobody is asked yet whether the bucket is there.
    """

    def __init__(self, address: Address, data_dir: Path) -> None:
        self.address = address
        self.root = data_dir.absolute()
        self._bucket = Bucket(address)
        self._copies = Copies(self.root / _COPIES)
        self._refused = False
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.incoming_folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FileStoreError(
                f"the folder {self.incoming_folder} cannot be made: {error.strerror}; see that "
                "this user may write there"
            ) from error

    @property
    def place(self) -> str:
        """Its URL."""
        return str(self.address)

    @property
    def incoming_folder(self) -> Path:
        """Where doors put files while they receive them, before :meth:`adopt`."""
        return self.root / INCOMING

    @property
    def folders(self) -> tuple[Path, ...]:
        """The incoming folder."""
        return (self.incoming_folder,)

    def reach(self, *, write: bool = False) -> None:
        """Ask for the bucket; with ``write``, or where the last upload failed, put something there.

        Raises
        ------
        FileStoreError
            If it is not there, takes nothing, or does not answer in time.
        """
        self._bucket.reach()
        if write or self._refused:
            name = f"{self.address.folder}{_PROBE}"
            self._put(name, io.BytesIO(bytes(_PROBE_BYTES)), _PROBE_BYTES)
            self._bucket.delete(name)

    def adopt(self, temporary: Path, area: Area, digest: str) -> str:
        """Take a file into the store, for good, and return its key.

        The file is removed once the server has confirmed it. Same bytes, same key.

        Raises
        ------
        FileStoreError
            If it cannot be kept; ``temporary`` is still there then.
        ValueError
            If the digest is not one.
        """
        check_digest(digest)
        try:
            with _plain_file(temporary) as file:
                key = _key(area, digest, file)
                self._put(self._name(key), file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise self._no_room(f"cannot keep {area}/{digest[:8]}…", error) from error
        with suppress(OSError):  # it is kept, and this one is swept away later
            temporary.unlink()
        return key

    def write(self, area: Area, digest: str, data: bytes) -> str:
        """Keep bytes, for good, and return their key; otherwise as :meth:`adopt`."""
        check_digest(digest)
        file = io.BytesIO(data)
        key = _key(area, digest, file)
        self._put(self._name(key), file, len(data))
        return key

    def restore(self, key: str, data: BinaryIO) -> None:
        """Keep what a backup held under its key, in place of what is there.

        Raises
        ------
        FileStoreError
            If it cannot be kept.
        """
        check_key(key)
        self._copies.drop(key)
        try:
            with tempfile.TemporaryFile(dir=self.incoming_folder) as file:
                shutil.copyfileobj(data, file, CHUNK_BYTES)
                size = file.tell()
                file.seek(0)
                self._put(self._name(key), file, size)
        except OSError as error:
            raise self._no_room(f"cannot keep {key}", error) from error

    def source(self, key: str) -> str:
        """The URL of a key's file, for :func:`storage.files.local` on any machine."""
        check_key(key)
        return self.address.source(key)

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """A copy of a kept file, which stays for some minutes if there is room.

        Raises
        ------
        FileStoreError
            If it is not there, cannot be read, or is not what was kept.
        """
        check_key(key)
        with ExitStack() as held:
            try:
                fetch = partial(_fetch, self._bucket, key)
                path = held.enter_context(self._copies.hold(key, fetch))
            except OSError as error:
                raise self._no_room(f"cannot copy {key}", error) from error
            yield path

    def open(self, key: str) -> BinaryIO:
        """Open a kept file for reading; its bytes come as they are asked for.

        Raises
        ------
        FileStoreError
            If it is not there or cannot be read: also from what is done with the file.
        """
        check_key(key)
        return self._bucket.open(self._name(key))

    def copy_out(self, key: str) -> Path:
        """A copy of a kept file in the incoming folder, as it is, for the caller to adopt or drop.

        Raises
        ------
        FileStoreError
            If it is not there, cannot be read, or there is no room.
        """
        check_key(key)
        again = self.incoming_folder / f"again-{uuid.uuid4().hex}"
        try:
            with again.open("xb") as file:
                self._bucket.fetch(self._name(key), file.write)
        except BaseException as error:
            again.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._no_room(f"cannot copy {key}", error) from error
            raise
        return again

    def size_bytes(self, key: str) -> int | None:
        """How long a kept file is; None where it is not there.

        Raises
        ------
        FileStoreError
            If that cannot be told now.
        """
        check_key(key)
        return self._bucket.size_bytes(self._name(key))

    def check_readable(self, key: str) -> None:
        """Read a kept file from end to end.

        Raises
        ------
        FileStoreError
            If it is not there, cannot be read, or is not what was kept.
        """
        _fetch(self._bucket, key, None)

    def delete(self, key: str) -> None:
        """Delete a kept file, for good. One that is gone already is no error."""
        check_key(key)
        self._copies.drop(key)
        self._bucket.delete(self._name(key))

    def listed(self, area: Area) -> Iterator[KeptFile]:
        """Everything in a part of the store, sorted by key.

        Raises
        ------
        FileStoreError
            If it cannot be listed.
        """
        skip = len(self.address.folder)
        for item in self._bucket.listed(self._name(f"{area}/")):
            key = item.name[skip:]
            yield KeptFile(
                key=key,
                size_bytes=item.size_bytes if is_key(key) else None,
                changed_at=item.changed_at.timestamp(),
            )

    def free_bytes(self) -> None:
        """Nobody can tell."""

    def clear_incoming(self, older_than_s: float = 0.0) -> int:
        """Delete what was being received when the node stopped: it was never acknowledged.

        Returns how many files. ``older_than_s`` leaves those that were written to lately.
        """
        self._copies.sweep()
        try:
            return clear_folder(self.incoming_folder, older_than_s)
        except OSError as error:
            raise FileStoreError(
                f"cannot delete {error.filename}: {error.strerror}; see that this user may write "
                "there"
            ) from error

    def _no_room(self, what: str, error: OSError) -> FileStoreError:
        return FileStoreError(
            f"{self._bucket}: {what}: {error.strerror or error}; see to the volume of {self.root}",
            disk_full=error.errno in (errno.ENOSPC, errno.EDQUOT),
        )

    def _put(self, name: str, file: BinaryIO, size_bytes: int) -> None:
        try:
            self._bucket.put(name, file, size_bytes)
        except FileStoreError:
            self._refused = True
            raise
        self._refused = False

    def _name(self, key: str) -> str:
        return self.address.folder + key


@contextmanager
def fetched_from(source: str) -> Iterator[Path]:
    """The file that :meth:`ObjectStore.source` named, for a worker.

    Raises
    ------
    FileStoreError
        If it cannot be fetched.
    """
    try:
        address, key = Address.of_source(source)
    except ValueError as error:
        raise FileStoreError(f"this names no file of an object store: {error}") from error
    with fetched(_bucket(address), key) as path:
        yield path


@cache
def _bucket(address: Address) -> Bucket:
    return Bucket(address)


@contextmanager
def fetched(bucket: Bucket, key: str) -> Iterator[Path]:
    """A copy of an object in a file without a name: it goes with the process that has it open."""
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            _fetch(bucket, key, file)
        except OSError as error:
            raise FileStoreError(
                f"{bucket}: {key} cannot be fetched into {tempfile.gettempdir()}: "
                f"{error.strerror}; free space there, or set TMPDIR",
                disk_full=error.errno in (errno.ENOSPC, errno.EDQUOT),
            ) from error
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _fetch(bucket: Bucket, key: str, file: BinaryIO | None) -> None:
    """Read an object, into a file or not, and compare its bytes with the mark in its key."""
    check_key(key)
    digest = hashlib.sha256()

    def take(chunk: bytes) -> None:
        digest.update(chunk)
        if file is not None:
            file.write(chunk)

    bucket.fetch(bucket.address.folder + key, take)
    mark = _mark_in(key)
    if mark is not None and mark != _mark(digest.digest()):
        raise FileStoreError(
            f"{bucket}: {key}: its bytes are not those that were kept; see to the server, then "
            "`echonode db check --deep`",
            damaged=True,
        )


def _key(area: Area, digest: str, file: BinaryIO) -> str:
    return f"{area}/{digest[:2]}/{digest[2:]}-{_mark(sha256_of(file))}.dcm"


def _mark(sha256: bytes) -> str:
    return f"{int.from_bytes(sha256[:16], 'big'):0{_MARK_DIGITS}d}"


def _mark_in(key: str) -> str | None:
    """The mark of a key; None in one that came from a folder with a restored backup."""
    mark = key.removesuffix(".dcm").rpartition("-")[2]
    return mark if mark.isdecimal() and len(mark) == _MARK_DIGITS else None


def _plain_file(path: Path) -> BinaryIO:
    """Open a file that is no link."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file")
    return file
