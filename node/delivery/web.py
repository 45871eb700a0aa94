"""HTTP to a DICOMweb archive: TLS, who we are, and what its answers say of waiting."""

from __future__ import annotations

import email.utils
import ssl
from collections.abc import Generator
from datetime import UTC, datetime

import httpx

from node.secrets import Secret, secret_of
from node.sections import ClientTls, DicomwebDestination
from node.tls import client_context

_CONNECT_S = 30.0
_LONGEST_WAIT_S = 86_400.0  # an archive that asks to be left alone for longer is asked anyway


class WebCaller:
    """Makes clients for one destination.

    Raises
    ------
    TlsError
        If a certificate or key of the settings cannot be used.
    SecretError
        If the token or password cannot be read.
    """

    def __init__(self, destination: DicomwebDestination, *, timeout_s: float | None = None) -> None:
        self.destination = destination
        self._timeout_s = timeout_s or destination.timeout_s
        self._tls: ssl.SSLContext | bool = True
        if destination.url.startswith("https:"):
            self._tls = client_context(destination.tls or ClientTls())
        self._authentication()  # what cannot be read is told at the start

    def client(self) -> httpx.Client:
        """A client for a batch. Its secret is read anew: it may have been changed.

        Raises
        ------
        SecretError
            If the token or password cannot be read now.
        """
        return httpx.Client(
            timeout=httpx.Timeout(self._timeout_s, connect=min(_CONNECT_S, self._timeout_s)),
            verify=self._tls,
            auth=self._authentication(),
        )

    def _authentication(self) -> httpx.Auth | None:
        to = self.destination
        token = secret_of(to.token_file, to.token_variable, f"token of destination {to.name!r}")
        if token is not None:
            return _Bearer(token)
        password = secret_of(
            to.password_file, to.password_variable, f"password of destination {to.name!r}"
        )
        if password is not None and to.user is not None:
            return httpx.BasicAuth(to.user, password.reveal())
        return None


class _Bearer(httpx.Auth):
    """RFC 6750."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Show the token."""
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        yield request


def retry_after_s(response: httpx.Response, now: datetime | None = None) -> float | None:
    """How long the archive asks to be left alone: seconds or a date (RFC 9110 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        seconds = float(text) if text.isdecimal() else _until(text, now or datetime.now(UTC))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_S)


def _until(text: str, now: datetime) -> float:
    then = email.utils.parsedate_to_datetime(text)
    return (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()
