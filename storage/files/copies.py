"""Copies of what lies elsewhere, on this machine for as long as they are of use.

A viewer asks for one frame after another of the same clip: it is fetched once. What nobody has
looked at for some minutes goes, and so does what is too much.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_MOST_BYTES = 1 << 30
_IDLE_S = 300.0


@dataclass
class _Copy:
    """One copy; ``users`` are those who are reading it now."""

    users: int = 0
    size_bytes: int = 0
    used_at: float = 0.0
    fetching: threading.Lock = field(default_factory=threading.Lock)


class Copies:
    """Copies in a folder of their own for each process; it goes when the process ends.

    Parameters
    ----------
    folder
        Where the processes' folders lie.
    most_bytes, idle_s
        What may stay of what nobody is reading.
    """

    def __init__(
        self, folder: Path, *, most_bytes: int = _MOST_BYTES, idle_s: float = _IDLE_S
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._own: tempfile.TemporaryDirectory[str] | None = None

    @contextmanager
    def hold(self, key: str, fetch: Callable[[BinaryIO], None]) -> Iterator[Path]:
        """The copy of a key, made if there is none; always at the same place.

        Raises
        ------
        OSError
            If there is no room for it.
        """
        with self._lock:
            if self._own is None:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                prefix = f"{os.getpid()}-"
                self._own = tempfile.TemporaryDirectory(
                    dir=self._folder, prefix=prefix, ignore_cleanup_errors=True
                )
            path = Path(self._own.name) / _name(key)
            copy = self._copies.setdefault(key, _Copy())
            copy.users += 1
        try:
            with copy.fetching:
                if not path.exists():
                    arriving = path.with_suffix(".new")
                    with arriving.open("wb") as file:
                        fetch(file)
                    copy.size_bytes = arriving.stat().st_size
                    arriving.rename(path)
            yield path
        finally:
            with self._lock:
                copy.users -= 1
                copy.used_at = time.monotonic()
                if key in self._copies:
                    self._copies.move_to_end(key)
                self._let_go()

    def drop(self, key: str) -> None:
        """Remove the copy of what was given up; whoever has it open reads on."""
        with self._lock:
            if self._copies.pop(key, None) is not None:
                self._remove(key)

    def sweep(self) -> None:
        """Remove what nobody has looked at lately, and what processes that died have left."""
        with self._lock:
            self._let_go()
        with suppress(OSError):
            for left in self._folder.iterdir():
                pid = left.name.partition("-")[0]
                if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                    shutil.rmtree(left, ignore_errors=True)

    def _let_go(self) -> None:
        size = sum(copy.size_bytes for copy in self._copies.values())
        now = time.monotonic()
        for key, copy in list(self._copies.items()):
            idle = now - copy.used_at > self._idle_s
            if copy.users == 0 and (idle or size > self._most_bytes):
                size -= copy.size_bytes
                del self._copies[key]
                self._remove(key)

    def _remove(self, key: str) -> None:
        if self._own is not None:
            (Path(self._own.name) / _name(key)).unlink(missing_ok=True)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
