"""What every file store promises, wherever its files lie."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol

INCOMING = "incoming"
CHUNK_BYTES = 1 << 20

_DIGEST = re.compile(r"[0-9a-f]{32,128}")
_KEY = re.compile(
    r"(?P<area>[a-z]+)/(?P<folder>[0-9a-f]{2})/(?P<name>[0-9a-f]{30,126}(-\d+)?\.dcm)"
)


class Area(StrEnum):
    """A part of the store."""

    OBJECTS = "objects"  #: what was acknowledged
    RESULTS = "results"  #: what the node made
    QUARANTINE = "quarantine"  #: what could not be taken


class FileStoreError(Exception):
    """A file cannot be kept or found; the message says which and what to do.

    ``disk_full`` tells whether it may succeed later, when there is space again; ``missing``, that
    the store is there and this one file is not; ``damaged``, that its bytes are not those that were
    kept. Anything else may be over in a moment.
    """

    def __init__(
        self,
        message: str,
        *,
        disk_full: bool = False,
        missing: bool = False,
        damaged: bool = False,
    ) -> None:
        super().__init__(message)
        self.disk_full = disk_full
        self.missing = missing
        self.damaged = damaged

    @property
    def is_lasting(self) -> bool:
        """Whether the file will not be there by itself."""
        return self.missing or self.damaged


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptFile:
    """What a listing says of a file.

    ``size_bytes`` is None for what lies in the store and is none of its files: then ``key`` is its
    name, and no key.
    """

    key: str
    size_bytes: int | None
    changed_at: float = 0.0  #: seconds since the epoch


class FileStore(Protocol):
    """Files kept under the digest of their content. Any thread and any process may use one.

    Once :meth:`adopt` or :meth:`write` has returned, the file is there, whole, and stays: no power
    cut here takes it back. A file under a key never changes.
    """

    @property
    def place(self) -> str:
        """Where it is, for people: a folder, or a URL without secrets."""

    @property
    def root(self) -> Path:
        """The folder of this machine that it works in: with the files, or only what arrives."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of this machine that must be there, and on one volume."""

    @property
    def incoming_folder(self) -> Path:
        """A folder of this machine where doors put files while they receive them."""

    def reach(self, *, write: bool = False) -> None:
        """Ask whether the store is there; with ``write``, also whether it takes something.

        A folder is not asked: whoever has it can look at it.

        Raises
        ------
        FileStoreError
            If it is not, or does not answer in time.
        """

    def adopt(self, temporary: Path, area: Area, digest: str) -> str:
        """Take a file into the store, for good, and return its key.

        The file is moved. The same bytes again may get the same key; other bytes under the same
        digest never do, and overwrite nothing.

        Parameters
        ----------
        temporary
            A whole file: best in :attr:`incoming_folder`.
        digest
            Lower-case hexadecimal digest of the content, 32 to 128 characters.

        Raises
        ------
        FileStoreError
            If it cannot be kept; ``temporary`` is still there then.
        ValueError
            If the digest is not one.
        """

    def write(self, area: Area, digest: str, data: bytes) -> str:
        """Keep bytes, for good, and return their key; otherwise as :meth:`adopt`."""

    def restore(self, key: str, data: BinaryIO) -> None:
        """Keep what a backup held under its key, in place of what is there.

        Raises
        ------
        FileStoreError
            If it cannot be kept.
        """

    def source(self, key: str) -> str:
        """What :func:`local` takes, on this machine or another: a path, or a URL without secrets.

        Raises
        ------
        ValueError
            If it is no key of a store: nothing outside the store can be named.
        """

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A kept file as one of this machine, to be read only, and only within the context.

        In one process its path is the same each time.

        Raises
        ------
        FileStoreError
            If it is not there or cannot be read.
        """

    def copy_out(self, key: str) -> Path:
        """A kept file under a new name in the incoming folder too, for the caller to adopt or drop.

        Raises
        ------
        FileStoreError
            If it is not there, cannot be read, or there is no room.
        """

    def open(self, key: str) -> BinaryIO:
        """Open a kept file for reading.

        Raises
        ------
        FileStoreError
            If it is not there or cannot be read.
        """

    def size_bytes(self, key: str) -> int | None:
        """How long a kept file is; None where it is not there.

        Raises
        ------
        FileStoreError
            If that cannot be told now.
        """

    def check_readable(self, key: str) -> None:
        """Read a kept file from end to end.

        Raises
        ------
        FileStoreError
            If it is not there or cannot be read.
        """

    def delete(self, key: str) -> None:
        """Delete a kept file, for good. One that is gone already is no error."""

    def listed(self, area: Area) -> Iterator[KeptFile]:
        """Everything in a part of the store, sorted by key.

        Raises
        ------
        FileStoreError
            If it cannot be listed.
        """

    def free_bytes(self) -> int | None:
        """How much room there is; None where nobody can tell.

        Raises
        ------
        OSError
            If its folder is not there.
        """

    def clear_incoming(self, older_than_s: float = 0.0) -> int:
        """Delete what was being received when the node stopped: it was never acknowledged.

        Returns how many files. ``older_than_s`` leaves those that were written to lately.
        """


def clear_folder(folder: Path, older_than_s: float) -> int:
    """Delete the files of a folder that nobody has written to for so long; returns how many.

    Raises
    ------
    OSError
        If one cannot be deleted; its ``filename`` says which.
    """
    before = time.time() - older_than_s
    cleared = 0
    for path in folder.iterdir():
        try:
            status = path.stat()
            if status.st_mtime <= before and not stat.S_ISDIR(status.st_mode):
                path.unlink()
                cleared += 1
        except FileNotFoundError:
            continue  # its owner was faster
    return cleared


def check_digest(digest: str) -> None:
    """Raise ValueError for what cannot name a file."""
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is not a digest in lower-case hexadecimal")


def is_key(text: str) -> bool:
    """Whether a text has the form of a key."""
    match = _KEY.fullmatch(text)
    return match is not None and match["area"] in set(Area)


def check_key(key: str) -> None:
    """Raise ValueError for what is no key."""
    if not is_key(key):
        raise ValueError(f"{key!r} is not a key of the file store")
