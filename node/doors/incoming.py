"""A data set on its way into the store's incoming folder."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ASK_EVERY_BYTES = 16 << 20
_BEGIN_BYTES = 1 << 16


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
            while rest and self._handle is not None:
                rest = rest[os.write(self._handle, rest) :]
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

    def close(self) -> None:
        """End the writing. The file stays, for whoever takes it over."""
        if self._handle is not None:
            # Where an error comes this late, the intake's fsync or its reading meets it again.
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def discard(self) -> None:
        """End the writing and remove the file, where no one has taken it over."""
        self.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _give_up(self, reason: str) -> None:
        self.problem = reason
        self.discard()  # gives back at once the space that others may need

    # What the network library asks of a ``NamedTemporaryFile`` besides.

    @property
    def name(self) -> str:
        """Where it lies, as a string."""
        return str(self.path)

    @property
    def file(self) -> IncomingFile:
        """The file beneath: this one."""
        return self

    def flush(self) -> None:
        """Nothing waits in memory."""
