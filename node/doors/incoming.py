"""A data set on its way into the store's incoming folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_ASK_EVERY_BYTES = 16 << 20
_BEGIN_BYTES = 1 << 16
_DIRECT_FROM_BYTES = 1 << 19  # what is smaller goes by the page cache, in one go with its sync
_BLOCK_BYTES = 1 << 19  # two for each large object that is under way
_ALIGNED_BYTES = 4096  # what direct writes want of memory, place and length, on every disk
_MOST_SPARE_BLOCKS = 8
_WRITERS = 4


class IncomingFile:
    """Takes what arrives; what cannot be kept is dropped, with the reason in ``problem``.

    Nothing here raises: a thread of the DIMSE library would end without a word to the sender. It
    reads the object to its end, and the sender hears that it is not kept.

    Parameters
    ----------
    folder
        Where the file is made.
    refusing
        Gives a reason while nothing may be taken; asked at the start and every 16 MiB, so that a
        large object does not fill the disk.
    door
        Begins the file's name.
    """

    def __init__(
        self, folder: Path, refusing: Callable[[], str | None], door: str = "dimse"
    ) -> None:
        self.path = folder / f"{door}-{uuid.uuid4().hex}.dcm"
        self._refusing = refusing
        self._written = 0
        self._handle: int | None = None
        self._begin = bytearray()
        self._digest: hashlib._Hash | None = None
        self._blocks: _Blocks | None = None
        self._direct_from: int | None = _DIRECT_FROM_BYTES
        self.problem = refusing()
        if self.problem is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._handle = os.open(self.path, flags, 0o600)
            except OSError as error:
                self._give_up(f"no file can be made: {error.strerror}")

    def write_head(self, head: bytes) -> None:
        """Write what stands before the data set; all that follows is the data set's."""
        self.write(head)
        self._begin += head
        self._digest = hashlib.sha256()

    @property
    def begin(self) -> bytes:
        """The first bytes of the file, where :meth:`write_head` began it."""
        return bytes(self._begin)

    @property
    def content_sha256(self) -> str | None:
        """The digest of the data set so far, where :meth:`write_head` began the file."""
        return None if self._digest is None else self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append, or drop where nothing can be kept."""
        rest = memoryview(data)
        if self._digest is not None:
            self._digest.update(rest)
            if len(self._begin) < _BEGIN_BYTES:
                self._begin += rest[: _BEGIN_BYTES - len(self._begin)]
        try:
            if self._handle is not None:
                self._put(self._handle, rest)
        except OSError as error:
            self._give_up(f"it cannot be written: {error.strerror}")
        before, self._written = self._written, self._written + len(data)
        if self._handle is not None and before // _ASK_EVERY_BYTES < (
            self._written // _ASK_EVERY_BYTES
        ):
            reason = self._refusing()
            if reason is not None:
                self._give_up(reason)
        return len(data)

    @property
    def written_bytes(self) -> int:
        """How much came so far, dropped or not."""
        return self._written

    @property
    def is_open(self) -> bool:
        """Whether it is still written to."""
        return self._handle is not None

    def flush(self) -> None:
        """Hand all to the kernel; what comes after goes by the page cache."""
        blocks, self._blocks, self._direct_from = self._blocks, None, None
        if blocks is not None:
            try:
                blocks.finish()
            except OSError as error:
                self._give_up(f"it cannot be written: {error.strerror}")

    def close(self) -> None:
        """End the writing. The file stays, for whoever takes it over."""
        self.flush()
        if self._handle is not None:
            # Where an error comes this late, the intake's fsync or its reading meets it again.
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def discard(self) -> None:
        """End the writing and remove the file, where no one has taken it over."""
        blocks, self._blocks = self._blocks, None
        if blocks is not None:
            blocks.drop()
        self.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _give_up(self, reason: str) -> None:
        self.problem = reason
        self.discard()  # gives back at once the space that others may need

    def _put(self, handle: int, data: memoryview) -> None:
        if self._blocks is None and self._direct_from is not None:
            before = self._direct_from - self._written
            if len(data) > before:  # as the rest of a large object does, from a place that is even
                _write_all(handle, data[:before])
                data, self._direct_from = data[before:], None
                self._blocks = _Blocks(handle)
        if self._blocks is None:
            _write_all(handle, data)
        else:
            self._blocks.write(data)

    # What the network library asks of a ``NamedTemporaryFile`` besides.

    @property
    def name(self) -> str:
        """Where it lies, as a string."""
        return str(self.path)

    @property
    def file(self) -> IncomingFile:
        """The file beneath: this one."""
        return self


class _Blocks:
    """Writes a large file's bytes past the page cache, a block behind what comes.

    By the cache each byte costs a copy and a part of a page, and most wait there for the sync.
    A file system that does not write directly gets them by its cache.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._block = _spare_block()
        self._other: mmap.mmap | None = None
        self._filled = 0
        self._pending: Future[None] | None = None
        self._is_direct = _set_direct(handle, True)

    def write(self, data: memoryview) -> None:
        """Take what comes; raises OSError where what came before cannot be written."""
        while data:
            count = min(len(data), _BLOCK_BYTES - self._filled)
            self._block[self._filled : self._filled + count] = data[:count]
            self._filled += count
            data = data[count:]
            if self._filled == _BLOCK_BYTES:
                self._hand_over()

    def finish(self) -> None:
        """Write what is left."""
        try:
            self._settle()
            even = self._filled - self._filled % _ALIGNED_BYTES
            with memoryview(self._block) as block:
                self._write(block[:even])
                if self._filled > even:
                    self._by_cache()
                    self._write(block[even : self._filled])
        finally:
            self.drop()

    def drop(self) -> None:
        """Write no more; nobody reads or writes the blocks when it returns."""
        with suppress(OSError):
            self._settle()
        for block in (self._block, self._other):
            if block is not None and len(_SPARE) < _MOST_SPARE_BLOCKS:
                _SPARE.append(block)
        self._other = None

    def _hand_over(self) -> None:
        self._settle()
        full = self._block
        self._block = self._other or _spare_block()
        self._other, self._filled = full, 0
        self._pending = _POOL.submit(self._write_whole, full)

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write_whole(self, block: mmap.mmap) -> None:
        with memoryview(block) as view:
            self._write(view)

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._handle, data) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                self._by_cache()

    def _by_cache(self) -> None:
        self._is_direct = _set_direct(self._handle, False)


def _spare_block() -> mmap.mmap:
    """A block, aligned as a direct write wants it; what was in one before is written over."""
    try:
        return _SPARE.pop()  # in one step: associations do this at the same moment
    except IndexError:
        return mmap.mmap(-1, _BLOCK_BYTES)


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _set_direct(handle: int, wanted: bool) -> bool:
    """Whether a file is now written directly."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
    except OSError:
        return False  # its file system has no such writing
    return wanted


_SPARE: list[mmap.mmap] = []
_POOL = ThreadPoolExecutor(_WRITERS, "incoming")
