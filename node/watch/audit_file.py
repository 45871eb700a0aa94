"""The audit trail's files: a message a line, appended, readable by the service user alone.

``audit-00000001-20261121.log`` and so on; the number gives the order. A line goes to the operating
system before the caller goes on, so a killed node loses none, and to the disk within a second, so
a power cut loses at most that second. A new file is begun by size; files of more than the set age
are deleted once they need not be sent any more.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_NAME = re.compile(r"audit-(\d{8})-(\d{8})\.log")
_KEPT_IN_MEMORY = 10_000  # messages, while the file cannot be written
_DAY_S = 86_400.0


class AuditFileError(Exception):
    """The folder cannot be used; the message says why and what to do."""


class AuditFile:
    """Appends lines; from any thread, and beside other processes that append too.

    Parameters
    ----------
    folder
        Made where it is not there.
    max_file_bytes
        A file of this size is followed by the next.
    rotate
        Whether to begin new files and delete old ones: the node does, a command does not.
    """

    def __init__(self, folder: Path, *, max_file_bytes: int, rotate: bool = True) -> None:
        self.folder = folder
        self._max_file_bytes = max_file_bytes
        self._rotate = rotate
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._path: Path | None = None
        self._dirty = False
        self._torn = False
        self._waiting: deque[bytes] = deque()
        self.lost = 0  #: messages that neither file nor memory could hold
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock:
                self._open()
        except OSError as error:
            raise AuditFileError(
                f"the audit trail cannot be written to {folder}: {error.strerror}; give the "
                "service user the folder, or set another [audit] folder"
            ) from error

    def append(self, line: str) -> None:
        """Write a line; keep it in memory for a while where that fails."""
        with self._lock:
            if len(self._waiting) >= _KEPT_IN_MEMORY:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(line.encode() + b"\n")
            self._write_waiting()

    def flush(self) -> bool:
        """Write what could not be written before, and bring all to the disk.

        Returns whether all is on the disk.
        """
        with self._lock:
            self._write_waiting()
            handle = self._handle
            if not self._dirty or handle is None:
                return not self._waiting
            self._dirty = False
            duplicate = os.dup(handle)
        try:
            os.fsync(duplicate)  # without the lock: a slow disk holds up nobody
        except OSError as error:
            with self._lock:
                self._dirty = True
            log.error("audit-not-on-disk", error=error.strerror)  # noqa: TRY400 - says all
            return False
        finally:
            os.close(duplicate)
        return not self._waiting

    def delete_older(self, days: int, *, before: Path | None, now: float | None = None) -> int:
        """Delete files that were last written to so long ago.

        ``before``: only files before this one, which is still needed; None: all but the newest.
        """
        oldest = (time.time() if now is None else now) - days * _DAY_S
        gone = 0
        for path in audit_files(self.folder)[:-1]:
            if before is not None and path.name >= before.name:
                break
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def close(self) -> None:
        """Bring all to the disk and close."""
        self.flush()
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
            self._handle = None

    def _write_waiting(self) -> None:
        while self._waiting:
            try:
                self._write(self._waiting[0])
            except OSError as error:
                if len(self._waiting) == 1:
                    log.error("audit-not-written", error=error.strerror)  # noqa: TRY400
                return
            self._waiting.popleft()

    def _write(self, line: bytes) -> None:
        self._begin_next_if_full()
        handle = self._handle
        if handle is None:
            handle = self._open()
        # After half a line a new one begins, so that a reader loses that one only.
        content = b"\n" + line if self._torn else line
        self._dirty = True
        written = os.write(handle, content)
        self._torn = written < len(content)
        if self._torn:
            raise OSError(28, "no room for a whole line")

    def _begin_next_if_full(self) -> None:
        handle = self._handle
        if handle is None or not self._rotate or os.fstat(handle).st_size < self._max_file_bytes:
            return
        os.fsync(handle)
        self._open(after=self._path)
        os.close(handle)

    def _open(self, after: Path | None = None) -> int:
        """Open the newest file, or, with ``after``, the one that follows it."""
        there = audit_files(self.folder)
        if there and after is None:
            path = there[-1]
        else:
            match = _NAME.fullmatch(there[-1].name) if there else None
            number = int(match[1]) + 1 if match else 1
            path = self.folder / f"audit-{number:08d}-{datetime.now(UTC):%Y%m%d}.log"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(path, flags, 0o600)
        size = os.fstat(handle).st_size
        self._torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        self._handle, self._path = handle, path
        return handle


def audit_files(folder: Path) -> list[Path]:
    """The trail's files, the oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def read_lines(path: Path, offset: int, limit: int) -> Iterator[tuple[str, int]]:
    """Whole lines from ``offset`` on, each with the offset after it; at most ``limit``."""
    with path.open("rb") as file:
        file.seek(offset)
        for _ in range(limit):
            line = file.readline()
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line.decode("utf-8", errors="replace").rstrip("\n"), offset
