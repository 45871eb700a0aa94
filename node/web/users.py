"""Who may use the HTTP door: a file of users, with hashes of passwords and tokens.

The file is read again whenever it changes, so what ``echonode user`` does takes effect at once. A
file that cannot be read or that others can read lets nobody in.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import argon2

from node.secrets import SecretError, check_private

SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN = re.compile(r"en_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_WHAT = "the file of users"
_VERSION = 1


class Role(StrEnum):
    """What a user may do."""

    SEND = "send"  #: send objects to the node
    READ = "read"  #: see status, studies and results
    OPERATE = "operate"  #: hold, release, retry, resend


class UserError(Exception):
    """What was asked of the users cannot be done; the message says why and what to do."""


class NoSuchUserError(UserError):
    """There is no user, or no token, of this name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token: what a program shows instead of a password."""

    id: str
    sha256: str  #: of 256 random bits, which need no slow hash
    note: str
    made_at: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A user. ``password`` is an argon2id hash, None where there is no password."""

    name: str
    roles: frozenset[Role]
    made_at: datetime
    password: str | None = None
    tokens: tuple[Token, ...] = ()


class UserFile:
    """The users of a node; from any thread and beside other processes.

    Parameters
    ----------
    path
        The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._users: dict[str, User] = {}

    def users(self) -> Mapping[str, User]:
        """All users, by name.

        Raises
        ------
        UserError
            If the file is there and cannot be used.
        """
        with self._lock:
            signature = _signature(self.path)
            if signature != self._seen:
                self._users = {} if not signature else _read(self.path)
                self._seen = signature
            return self._users

    def add(self, name: str, roles: Iterable[Role], password: str | None) -> User:
        """Add a user.

        Raises
        ------
        UserError
            If the name is taken or no name, the password too short, or there is no role.
        """
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r}: a user's name has 1 to 64 letters, digits, or ._@-")
        given = frozenset(roles)
        if not given:
            raise UserError(f"user {name}: name a role at least: {', '.join(Role)}")
        user = User(
            name=name,
            roles=given,
            made_at=datetime.now(UTC),
            password=None if password is None else hash_password(password),
        )
        with self._changing() as users:
            if name in users:
                raise UserError(f"there is a user {name} already; remove that one first")
            users[name] = user
        return user

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password.

        Raises
        ------
        UserError
            If there is no such user or the password is too short.
        """
        hashed = hash_password(password)
        with self._changing() as users:
            users[name] = replace(_known(users, name), password=hashed)

    def remove(self, name: str) -> None:
        """Remove a user and all tokens; raises :class:`UserError` where there is none."""
        with self._changing() as users:
            del users[_known(users, name).name]

    def add_token(self, name: str, note: str = "", days: int | None = None) -> str:
        """Make a token for a user and return it: this is the only time that it can be seen.

        Raises
        ------
        UserError
            If there is no such user.
        """
        now = datetime.now(UTC)
        identifier, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        token = Token(
            id=identifier,
            sha256=_digest(secret),
            note=note[:100],
            made_at=now,
            ends_at=None if days is None else now + timedelta(days=days),
        )
        with self._changing() as users:
            user = _known(users, name)
            users[name] = replace(user, tokens=(*user.tokens, token))
        return f"en_{identifier}_{secret}"

    def remove_token(self, name: str, identifier: str) -> None:
        """Remove a token; raises :class:`UserError` where there is none."""
        with self._changing() as users:
            user = _known(users, name)
            left = tuple(token for token in user.tokens if token.id != identifier)
            if len(left) == len(user.tokens):
                raise NoSuchUserError(f"user {name} has no token {identifier}")
            users[name] = replace(user, tokens=left)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(
                self.path.with_name(f".{self.path.name}.lock"),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
                0o600,
            )
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                users = dict(self.users())
                yield users
                _write(self.path, users)
            finally:
                os.close(handle)
        except OSError as error:
            raise UserError(
                f"{_WHAT} {self.path} cannot be written: {error.strerror}; "
                "run the command as the service user"
            ) from error


def find_token(users: Mapping[str, User], shown: str) -> tuple[User, Token] | None:
    """Whose token this is, or None; in a time that does not tell how much of it is right."""
    match = _TOKEN.fullmatch(shown)
    digest = _digest(match[2] if match else shown)
    found = None
    for user in users.values():
        for token in user.tokens:
            right = hmac.compare_digest(digest, token.sha256)
            if match and token.id == match[1] and right and _lasts(token):
                found = (user, token)
    return found


def hash_password(password: str) -> str:
    """An argon2id hash with the library's present parameters (RFC 9106, second choice).

    Raises
    ------
    UserError
        If the password is too short or too long.
    """
    if len(password) < SHORTEST_PASSWORD or len(password.encode()) > _LONGEST_PASSWORD:
        raise UserError(f"a password has {SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters")
    return argon2.PasswordHasher().hash(password)


def password_fits(hashed: str, password: str) -> bool:
    """Whether a password is the one of the hash."""
    if len(password.encode(errors="replace")) > _LONGEST_PASSWORD:
        return False
    try:
        return argon2.PasswordHasher().verify(hashed, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _lasts(token: Token) -> bool:
    return token.ends_at is None or datetime.now(UTC) < token.ends_at


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _known(users: Mapping[str, User], name: str) -> User:
    if name not in users:
        raise NoSuchUserError(f"there is no user {name}; `echonode user list` lists them")
    return users[name]


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UserError(f"{_WHAT} {path} cannot be read: {error.strerror}") from error
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def _read(path: Path) -> dict[str, User]:
    try:
        check_private(path, _WHAT)
        content = json.loads(path.read_bytes())
        if content["version"] != _VERSION:
            raise ValueError("it is of another version of echonode")  # noqa: TRY301 - said below
        return {item["name"]: _user(item) for item in content["users"]}
    except SecretError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"{_WHAT} {path} cannot be read: {error.strerror}; the service user must own it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{_WHAT} {path} is damaged; restore it, or remove it and add the users again"
        ) from error


def _user(item: Mapping[str, Any]) -> User:
    return User(
        name=str(item["name"]),
        roles=frozenset(Role(role) for role in item["roles"]),
        made_at=datetime.fromisoformat(item["made_at"]),
        password=item["password"],
        tokens=tuple(
            Token(
                id=token["id"],
                sha256=token["sha256"],
                note=token["note"],
                made_at=datetime.fromisoformat(token["made_at"]),
                ends_at=datetime.fromisoformat(token["ends_at"]) if token["ends_at"] else None,
            )
            for token in item["tokens"]
        ),
    )


def _write(path: Path, users: Mapping[str, User]) -> None:
    listed = [
        {**asdict(user), "roles": sorted(user.roles)}
        for user in sorted(users.values(), key=lambda user: user.name)
    ]
    content = json.dumps({"version": _VERSION, "users": listed}, default=_plain, indent=1)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(content + "\n")
        file.flush()
        os.fsync(handle)
    owner = (path if path.exists() else path.parent).stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(new, owner.st_uid, owner.st_gid)  # written by root for the service user
    new.replace(path)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
