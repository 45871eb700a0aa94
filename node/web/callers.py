"""Who calls: by password (Basic), token (Bearer) or client certificate, and what he may do."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog

from node.sections import HttpSettings
from node.watch.audit import Audit
from node.watch.transfers import Peer
from node.web.guesses import Guesses
from node.web.users import Role, User, UserError, UserFile, find_token, hash_password, password_fits

log = structlog.get_logger(__name__)

DOOR = "http"
_REMEMBERED = 1024
_REMEMBERED_S = 300.0
_AT_ONCE = 2  # password hashes: each takes 64 MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Someone at the door. Without a name he showed nothing."""

    peer: Peer
    roles: frozenset[Role]

    @property
    def name(self) -> str:
        """As the audit names him."""
        return self.peer.user


class NotKnownError(Exception):
    """Wrong or missing credentials. ``pause_s``: tries are not looked at for so long."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Callers:
    """Finds out who calls.

    Parameters
    ----------
    settings, users, audit
        What is open to whom, who is known, and who is told.
    """

    def __init__(self, settings: HttpSettings, users: UserFile, audit: Audit) -> None:
        self._settings = settings
        self._users = users
        self._audit = audit
        self._guesses = Guesses()
        self._hashing = threading.BoundedSemaphore(_AT_ONCE)
        self._key = os.urandom(32)
        self._lock = threading.Lock()
        #: A digest of what was shown -> until when it need not be checked again, and its hash then.
        self._remembered: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def who(
        self, host: str, authorization: str | None, certificate: Mapping[str, Any] | None
    ) -> Caller:
        """Who calls, and what he may do.

        Parameters
        ----------
        host
            The caller's address.
        authorization
            The header of this name, where there is one.
        certificate
            What TLS has verified, as ``SSLSocket.getpeercert`` gives it.

        Raises
        ------
        NotKnownError
            If what is shown is wrong.
        """
        free = frozenset({Role.READ} if self._settings.anyone_may_look else ())
        if authorization is not None:
            user = self._shown(host, authorization)
            return Caller(peer=Peer(host=host, user=user.name), roles=user.roles | free)
        if certificate:
            peer = Peer(host=host, user=common_name(certificate))
            if self._is_new(f"{host} {certificate.get('serialNumber')} {peer.user}"):
                self._audit.authenticated(peer, DOOR)
            given = frozenset(Role(role) for role in self._settings.certificate_roles)
            return Caller(peer=peer, roles=given | free)
        return Caller(peer=Peer(host=host), roles=free)

    def forbidden(self, caller: Caller, role: Role, what: str) -> None:
        """Note that someone known asked for what he may not do."""
        self._audit.forbidden(caller.peer, DOOR, f"{what} needs the role {role}")

    def _shown(self, host: str, authorization: str) -> User:
        scheme, _, value = authorization.partition(" ")
        match scheme.lower():
            case "basic":
                name, password = _basic(value.strip())
            case "bearer":
                name, password = "", value.strip()
            case _:
                raise NotKnownError("only Basic and Bearer are understood")
        pause = self._guesses.pause_s(host, name)
        # A token cannot be guessed: a right one is heard whatever others from there have tried.
        if pause and name:
            raise NotKnownError("too many wrong tries", pause)
        try:
            users = self._users.users()
        except UserError as error:
            log.error("users-not-read", error=str(error))  # noqa: TRY400 - it says all
            raise NotKnownError("nobody can be let in now") from error
        remembered = self._is_remembered(authorization)
        user = (
            self._by_password(users, name, password, remembered)
            if name
            else self._by_token(users, password)
        )
        if user is None and pause:
            raise NotKnownError("too many wrong tries", pause)
        if user is None:
            self._refuse(host, name)
            raise NotKnownError("user and password, or token, are wrong")
        if not remembered:
            self._guesses.right(host, name)
            self._audit.authenticated(Peer(host=host, user=user.name), DOOR)
        self._remember(authorization, user.password if name else "")
        return user

    def _by_password(
        self, users: Mapping[str, User], name: str, password: str, remembered: str | None
    ) -> User | None:
        user = users.get(name)
        hashed = user.password if user is not None and user.password else None
        if hashed is not None and remembered == hashed:
            return user
        with self._hashing:
            # One that nobody has is checked too: the time must not tell which users there are.
            right = password_fits(hashed or _nobodys(), password)
        return user if right and hashed is not None else None

    def _by_token(self, users: Mapping[str, User], shown: str) -> User | None:
        found = find_token(users, shown)
        return found[0] if found is not None else None

    def _refuse(self, host: str, name: str) -> None:
        locked = self._guesses.wrong(host, name)
        peer = Peer(host=host, user=name[:64])
        reason = "wrong password" if name else "wrong token"
        if locked:
            reason = f"too many times a {reason}"
        self._audit.not_authenticated(peer, DOOR, reason, locked=locked)

    def _is_new(self, what: str) -> bool:
        if self._is_remembered(what) is not None:
            return False
        self._remember(what, "")
        return True

    def _is_remembered(self, shown: str) -> str | None:
        """The password's hash when this was shown and right a moment ago; "" of a token."""
        with self._lock:
            until, hashed = self._remembered.get(self._digest(shown), (0.0, None))
        return hashed if until > time.monotonic() else None

    def _remember(self, shown: str, hashed: str | None) -> None:
        key = self._digest(shown)
        with self._lock:
            until = self._remembered.pop(key, (0.0, ""))[0]
            now = time.monotonic()
            self._remembered[key] = (until if until > now else now + _REMEMBERED_S, hashed or "")
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)

    def _digest(self, shown: str) -> bytes:
        # Keyed anew in every process: what is in memory cannot be compared with anything else.
        return hashlib.blake2b(shown.encode(errors="replace"), key=self._key).digest()


def common_name(certificate: Mapping[str, Any]) -> str:
    """The common name of a certificate's subject, or "certificate"."""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)[:64]
    return "certificate"


def _basic(value: str) -> tuple[str, str]:
    """User and password (RFC 7617)."""
    try:
        text = base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise NotKnownError("the header is not understood") from None
    name, colon, password = text.partition(":")
    if not (colon and name):
        raise NotKnownError("the header is not understood")
    return name, password


@cache
def _nobodys() -> str:
    return hash_password("a password that nobody has")
