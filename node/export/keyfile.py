"""The key file: the secret behind an export's pseudonyms, and which of them stand for whom.

It is what leads back to the patients, so it is kept apart from the export, readable by its owner
alone. It is replaced as a whole and synced, and while one export uses it no other can.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from node.export.errors import ExportError, RefusedError
from node.export.pseudonyms import SECRET_BYTES, Pseudonyms, new_secret
from node.secrets import SecretError, check_private

_FORMAT: Final = "echonode export key"
_VERSION: Final = 1
_WHAT: Final = "the key file"
_PAUSE: Final = 50  # times as long as it takes to write it


class KeyFile:
    """A key file that is open. Without a path it is a secret that is forgotten at the end."""

    def __init__(self, path: Path | None, content: dict[str, Any]) -> None:
        self.path: Final = path
        self._content: Final = content
        self._changed = False
        self._saved_at = self._took_s = 0.0
        self.pseudonyms: Final = Pseudonyms(bytes.fromhex(content["secret"]))

    def note_patient(self, pseudonym: str, who: dict[str, str]) -> None:
        """Remember who a pseudonym is."""
        self._note("patients", pseudonym, who)

    def note_study(self, uid: str, original: str) -> None:
        """Remember which study a new UID is."""
        self._note("studies", uid, original)

    def save(self) -> None:
        """Bring what was noted to the disk.

        Raises
        ------
        ExportError
            If it cannot be written.
        """
        if self.path is None or not self._changed:
            return
        began = time.monotonic()
        _write(self.path, self._content)
        self._saved_at = time.monotonic()
        self._took_s = self._saved_at - began
        self._changed = False

    def save_now_and_then(self) -> None:
        """The same, unless so long a file was written a moment ago.

        What a kill takes from it comes again when the export is gone on with.
        """
        if time.monotonic() - self._saved_at >= _PAUSE * self._took_s:
            self.save()

    def _note(self, where: str, key: str, value: Any) -> None:
        if self._content[where].get(key) != value:
            self._content[where][key] = value
            self._changed = True


def forgotten_key() -> KeyFile:
    """A key that is kept nowhere: what it makes cannot be led back, nor be gone on with."""
    return KeyFile(None, _empty())


@contextmanager
def open_key(path: Path) -> Iterator[KeyFile]:
    """The key file at a path, made where there is none, and no other export's meanwhile.

    Raises
    ------
    ExportError
        If it cannot be read or made, others may read it, or another export uses it.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(f"{_WHAT} {path} is used by another export; wait for it") from None
        if not path.exists():
            _write(path, _empty())  # before anything is made of the secret
        key = KeyFile(path, _read(path))
        try:
            yield key
        finally:
            key.save()
    finally:
        os.close(handle)


def read_key(path: Path) -> KeyFile:
    """The key file at a path, only to look with.

    Raises
    ------
    ExportError
        If it cannot be read, or others may read it.
    """
    return KeyFile(None, _read(path))


def _empty() -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "secret": new_secret().hex(),
        "patients": {},
        "studies": {},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        check_private(path, _WHAT)
        content = json.loads(path.read_text(encoding="utf-8"))
    except SecretError as error:
        raise RefusedError(str(error)) from error
    except OSError as error:
        raise ExportError(f"{_WHAT} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _broken(path) from error
    if (
        not isinstance(content, dict)
        or content.get("format") != _FORMAT
        or content.get("version") != _VERSION
        or not all(isinstance(content.get(part), dict) for part in ("patients", "studies"))
    ):
        raise _broken(path)
    try:
        if len(bytes.fromhex(content["secret"])) < SECRET_BYTES:
            raise _broken(path)
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path) from error
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(handle)
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _broken(path: Path) -> ExportError:
    return RefusedError(
        f"{_WHAT} {path} is not one, or it is damaged; name the right one, or restore it from a "
        "backup: a new one would give other pseudonyms"
    )


def _unwritable(path: Path, error: OSError) -> ExportError:
    return ExportError(
        f"{_WHAT} {path} cannot be written: {error.strerror}; name a folder that is there and "
        "that you may write"
    )
