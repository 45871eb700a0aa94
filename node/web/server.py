"""The HTTP server: uvicorn in a thread of its own, with an event loop of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from node.secrets import SecretError, check_private
from node.sections import HttpSettings
from node.tls import TlsError, server_context
from node.web.exposure import ExposureError, check_exposure
from node.web.gate import Application
from node.web.users import UserFile

log = structlog.get_logger(__name__)

_START_S = 30.0
_STOP_S = 5
_HEADER_S = 20.0  # from a connection's first byte to a request
_LONGEST_HEADER = 16_384
_READ_BYTES = 1 << 20
_LARGE_BODY_BYTES = 1 << 20


class HttpError(Exception):
    """The server cannot start; the message names the thing, the place and the next step."""


class HttpServer:
    """Listens for HTTP.

    Parameters
    ----------
    settings
        ``[http]``.
    users
        Whether there are any is asked before the server opens to the network.
    """

    def __init__(self, settings: HttpSettings, users: UserFile) -> None:
        self._settings = settings
        self._users = users
        self._socket: socket.socket | None = None
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, site: Application) -> None:
        """Bind the port and serve from a thread of its own.

        Raises
        ------
        HttpError
            If the settings would open the node to the network, the certificate cannot be used, or
            the port is taken.
        """
        try:
            check_exposure(self._settings, self._users)
            context = self._context()
        except (ExposureError, TlsError, SecretError) as error:
            raise HttpError(str(error)) from error
        self._socket = self._bound()
        config = uvicorn.Config(
            site,
            http=_protocol(self._settings.max_connections),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_STOP_S,
            h11_max_incomplete_event_size=_LONGEST_HEADER,
            ssl_context_factory=None if context is None else (lambda _config, _default: context),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        end = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise HttpError("the HTTP server did not start; the log says why")
            time.sleep(0.01)
        log.info("http-started", url=self.url)

    @property
    def url(self) -> str:
        """Where it answers."""
        scheme = "http" if self._settings.tls is None else "https"
        host = self._settings.host
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}:{self.port}"

    @property
    def port(self) -> int:
        """The port that is bound."""
        if self._socket is None:
            raise RuntimeError("the server is not started")
        return self._port

    def stop(self) -> None:
        """Take no more requests, finish those that run, and end."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(2 * _STOP_S)
        if self._socket is not None:
            self._socket.close()

    def _run(self) -> None:
        try:
            assert self._server is not None  # noqa: S101 - set before the thread starts
            self._server.run(sockets=[self._socket] if self._socket is not None else None)
        except Exception:
            # The edge of the thread: the node goes on without it.
            log.exception("http-failed")

    def _context(self) -> Any:
        tls = self._settings.tls
        if tls is None:
            return None
        check_private(tls.private_key, "[http.tls] private_key")
        return server_context(tls)

    def _bound(self) -> socket.socket:
        wanted = self._settings.port
        try:
            bound = _bind(self._settings.host, wanted)
        except OSError as error:
            named = "port" in self._settings.model_fields_set
            if named or not wanted:
                raise HttpError(
                    f"cannot listen on {self._settings.host}:{wanted} for HTTP: {_reason(error)}; "
                    "choose another [http] port or stop what uses it"
                ) from error
            try:
                bound = _bind(self._settings.host, 0)
            except OSError as second:
                raise HttpError(
                    f"cannot listen on {self._settings.host} for HTTP: {_reason(second)}; "
                    "set [http] host to an address of this machine"
                ) from second
            log.warning(
                "http-port-taken", port=wanted, instead=bound.getsockname()[1], error=_reason(error)
            )
        self._port = bound.getsockname()[1]
        return bound


def _reason(error: OSError) -> str:
    # The library's own words repeat the address.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    bound = socket.create_server((host, port), family=family, backlog=128)
    # Connections have it from their listener; asyncio sets it only where a socket names its
    # protocol. Without it an answer on a kept connection waits 40 ms for an acknowledgement.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.set_inheritable(False)
    return bound


def _protocol(max_connections: int) -> type[H11Protocol]:
    """uvicorn's protocol with what it lacks: limits, and a way past its parser for large bodies."""

    class Protocol(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None
        _is_past_parser = False  # a large body goes to the application by itself
        _body_left = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # How much asyncio reads at once: each reading costs as much as copying a megabyte.
            transport.max_size = _READ_BYTES  # type: ignore[attr-defined]
            if len(self.connections) > max_connections:
                transport.abort()
                return
            tls = transport.get_extra_info("ssl_object")
            if tls is not None:
                # What TLS has verified goes to the routes as request.state.peer_certificate.
                self.app_state = {**self.app_state, "peer_certificate": tls.getpeercert()}
            self._await_request()

        def data_received(self, data: bytes) -> None:
            if self._is_past_parser:
                self._pass_on(data)
            else:
                before = self.cycle
                super().data_received(data)
                if self.cycle is not before:
                    self._look_at_body(self.cycle)
            if self.cycle is not None and not self.cycle.response_complete:
                self._cancel()
            else:
                self._await_request()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            super().connection_lost(exc)

        def _look_at_body(self, cycle: RequestResponseCycle) -> None:
            """Whether a request has just begun whose body need not be parsed: its length is stated.

            The parser copies each byte several times. It does not hear of this body's end, so the
            connection ends with the answer.
            """
            headers = dict(self.headers)
            stated = headers.get(b"content-length", b"")
            if b"transfer-encoding" in headers or not stated.isdigit() or not cycle.more_body:
                return
            left = int(stated) - len(cycle.body)  # nothing of it has been taken yet
            if left >= _LARGE_BODY_BYTES:
                self._is_past_parser, self._body_left = True, left
                cycle.keep_alive = False
                cycle.default_headers = [*cycle.default_headers, (b"connection", b"close")]

        def _pass_on(self, data: bytes) -> None:
            cycle = self.cycle
            if cycle.response_complete or not self._body_left:
                return
            piece = data if len(data) <= self._body_left else data[: self._body_left]
            self._body_left -= len(piece)
            cycle.body = cycle.body + piece if cycle.body else piece  # type: ignore[assignment]
            cycle.more_body = self._body_left > 0
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

        def _await_request(self) -> None:
            if self._waiting is None:
                self._waiting = self.loop.call_later(_HEADER_S, self.transport.abort)

        def _cancel(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Protocol
