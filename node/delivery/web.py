"""HTTP to a DICOMweb archive: TLS, who we are, and what its answers say of waiting."""

from __future__ import annotations

import email.utils
import ssl
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from node.delivery.lines import Lines
from node.secrets import Secret, secret_of
from node.sections import ClientTls, DicomwebPeer
from node.tls import client_context

_CONNECT_S = 30.0
_HUNG_UP_S = 1.0  # when the node stops, nobody is waited for
_WHAT = {"destinations": "destination", "archives": "archive"}
_LONGEST_WAIT_S = 86_400.0  # an archive that asks to be left alone for longer is asked anyway


class WebCaller:
    """Makes clients for one destination.

    Parameters
    ----------
    lines
        Where a stop finds the connections that are open.

    Raises
    ------
    TlsError
        If a certificate or key of the settings cannot be used.
    SecretError
        If the token or password cannot be read.
    """

    def __init__(
        self,
        destination: DicomwebPeer,
        *,
        timeout_s: float | None = None,
        lines: Lines | None = None,
    ) -> None:
        self.destination = destination
        self._lines = lines or Lines()
        self._timeout_s = timeout_s or destination.timeout_s
        # In the clear no certificate is looked at; reading authorities takes 40 ms a client.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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
        connect_s = _HUNG_UP_S if self._lines.hung_up else _CONNECT_S
        return _Client(
            self._lines,
            timeout=httpx.Timeout(self._timeout_s, connect=min(connect_s, self._timeout_s)),
            verify=self._tls,
            auth=self._authentication(),
        )

    def _authentication(self) -> httpx.Auth | None:
        to = self.destination
        whose = f"of {_WHAT[to.section]} {to.name!r}"
        token = secret_of(to.token_file, to.token_variable, f"token {whose}")
        if token is not None:
            return _Bearer(token)
        password = secret_of(to.password_file, to.password_variable, f"password {whose}")
        if password is not None and to.user is not None:
            return httpx.BasicAuth(to.user, password.reveal())
        return None


class _Client(httpx.Client):
    """Keeps its connection in sight of those who stop the node."""

    def __init__(self, lines: Lines, **options: Any) -> None:
        self._lines = lines
        super().__init__(event_hooks={"request": [self._watch]}, **options)

    def close(self) -> None:
        super().close()
        self._lines.remove(self)

    def __exit__(self, *what: Any) -> None:
        super().__exit__(*what)
        self._lines.remove(self)

    def _watch(self, request: httpx.Request) -> None:
        request.extensions = {**request.extensions, "trace": self._opened}

    def _opened(self, event: str, details: Mapping[str, Any]) -> None:
        # One request after another: there is one connection at a time.
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._lines.add(self, details["return_value"].get_extra_info("socket"))


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
