"""Secrets: passwords, tokens and keys, from files or variables, and never shown.

Settings name where a secret is, a file or an environment variable, and never hold one; so
``echonode config show`` has none to show. What is read here goes about as a :class:`Secret`, which
does not print itself; a message names the file, never what stands in it.
"""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

_LONGEST_BYTES = 16_384  # longer than any token; a wrong file is not read whole
_OTHERS = stat.S_IRWXO
_GROUP_CHANGES = stat.S_IWGRP | stat.S_IXGRP


class SecretError(Exception):
    """A secret cannot be used; the message names it, its place and the next step, not its value."""


class Secret:
    """A text that is not printed: not by ``repr`` or ``str``, nor in a traceback or a log."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the one place that sends it."""
        return self._value

    def equals(self, other: str) -> bool:
        """Compare in a time that does not tell where the two differ."""
        return hmac.compare_digest(self._value.encode(), other.encode())

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, _spec: str) -> str:
        return "***"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled; hand on the name of its file")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.equals(other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))


def read_secret(file: Path, what: str) -> str:
    """The text of a secret's file, without white space around it.

    Parameters
    ----------
    file
        The file; only its owner may read it, see :func:`check_private`.
    what
        Whose it is, for messages: ``"the token of destination 'pacs'"``.

    Raises
    ------
    SecretError
        If the file cannot be read, is open to others, or holds no text of one line.
    """
    check_private(file, what)
    try:
        with file.open("rb") as opened:
            content = opened.read(_LONGEST_BYTES + 1)
    except OSError as error:
        raise SecretError(_unreadable(file, what, error)) from None
    return _text(content, f"file {file}", what)


def read_variable(name: str, what: str) -> str:
    """The same from an environment variable.

    Raises
    ------
    SecretError
        If it is not set, or holds no text of one line.
    """
    value = os.environ.get(name)
    if value is None:
        raise SecretError(f"{what}: the variable {name} is not set; set it, or name a file")
    return _text(value.encode(errors="surrogateescape"), f"variable {name}", what)


def secret_of(file: Path | None, variable: str | None, what: str) -> Secret | None:
    """A secret of which the settings name a file, a variable, or neither (None).

    Raises
    ------
    SecretError
        If it cannot be had, or both are named.
    """
    if file is not None and variable is not None:
        raise SecretError(f"{what}: name a file or a variable, not both")
    if file is not None:
        return Secret(read_secret(file, what))
    return Secret(read_variable(variable, what)) if variable is not None else None


def check_private(file: Path, what: str) -> None:
    """Refuse a file of ours that others may read, and one that others may change.

    A file that belongs to someone else (root, mostly) may be readable to its group: this is how
    administrators, systemd and Kubernetes hand a service its secrets.

    Raises
    ------
    SecretError
        With the ``chmod`` that mends it.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise SecretError(_unreadable(file, what, error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise SecretError(f"{what}: {file} is not a file; name the file that holds it")
    ours = found.st_uid == os.geteuid()
    refused = _OTHERS | (stat.S_IRWXG if ours else _GROUP_CHANGES)
    if stat.S_IMODE(found.st_mode) & refused:
        mode = "600" if ours else "640"
        raise SecretError(
            f"{what}: {file} can be read or changed by others "
            f"(mode {stat.S_IMODE(found.st_mode):03o}); run: chmod {mode} {file}"
        )


def _text(content: bytes, place: str, what: str) -> str:
    if len(content) > _LONGEST_BYTES:
        raise SecretError(f"{what}: {place} is longer than any secret; name the right one")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = "\0"
    if not text:
        raise SecretError(f"{what}: {place} is empty; write the secret into it")
    if not text.isprintable():
        raise SecretError(f"{what}: {place} holds more than one line of plain text")
    return text


def _unreadable(file: Path, what: str, error: OSError) -> str:
    return (
        f"{what}: {file} cannot be read: {error.strerror}; "
        "see that it is there and that the service user may read it"
    )
