"""What every request passes, whatever it asks for: limits, headers, and who may come this way."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from node.sections import DicomwebSettings, HttpSettings, is_loopback
from node.web.problems import problem

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_SILENCE_S = 30.0  # of a caller in the middle of a body
_UNREAD_S = 60.0  # an answer that the caller does not take
_DICOMWEB = "/dicom-web/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
# Whoever shows a token does so himself: a browser's remembered passwords are not let through.
_PREFLIGHT = {
    "access-control-allow-methods": "GET, HEAD, POST, OPTIONS",
    "access-control-allow-headers": "accept, authorization, content-type, range",
    "access-control-max-age": "600",
}
_EXPOSED = "content-location, content-type, retry-after, warning"


class Gate:
    """ASGI middleware around the whole site.

    Parameters
    ----------
    application
        The site.
    settings
        ``[http]``.
    dicomweb
        ``[dicomweb]``: how long an upload may be, and which pages may use it.
    """

    def __init__(
        self,
        application: Application,
        settings: HttpSettings,
        dicomweb: DicomwebSettings | None = None,
    ) -> None:
        self._application = application
        self._settings = settings
        self._dicomweb = dicomweb or DicomwebSettings()
        self._local = is_loopback(settings.host)
        self._proxies = [ipaddress.ip_network(text) for text in settings.proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        began = time.monotonic()
        status = [0]
        headers = Headers(scope=scope)
        shared_with = self._shared_with(scope, headers)
        send = self._sending(scope, send, status, shared_with)
        refused = self._refused(scope, headers, shared_with)
        if refused is not None:
            await refused(scope, receive, send)
        else:
            await self._serve(scope, self._limited(receive, self._most(scope)), send, status)
        route = scope.get("route")
        # The route's pattern: paths hold study UIDs.
        log.debug(
            "http-request",
            method=scope["method"],
            route=getattr(route, "path", None),
            status=status[0],
            caller=scope["client"][0] if scope["client"] else "",
            duration_s=round(time.monotonic() - began, 4),
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, status: list[int]) -> None:
        try:
            await self._application(scope, receive, send)
        except TimeoutError:
            # The connection is closed by the server, which finds the answer incomplete.
            log.warning("http-answer-not-taken")
        except Exception as error:  # noqa: BLE001 - the edge of a request
            # Not the message, nor a trace: they may quote what the caller sent.
            log.error("http-request-failed", error=type(error).__name__, where=_where(error))  # noqa: TRY400
            if not status[0]:
                await problem(500)(scope, receive, send)

    def _refused(self, scope: Scope, headers: Headers, shared_with: str | None) -> Any:
        """An answer to those who may not come this way."""
        peer = scope["client"][0] if scope["client"] else ""
        if self._proxies and self._settings.tls is None:
            proxy = _is_in(peer, self._proxies)
            if proxy:
                forwarded = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
                # What is before the last one was written by the caller himself.
                if _is_address(forwarded):
                    scope["client"] = (forwarded, 0)
                scope["scheme"] = "https"
            elif not _is_address(peer) or not ipaddress.ip_address(peer).is_loopback:
                return problem(403, "only the proxies in [http] proxies may come without TLS")
        host = headers.get("host", "")
        if self._local and not self._proxies and not _names_this_machine(host):
            # Else a page of anywhere could have its own name point at this machine.
            return problem(421, "this server is for its own machine: use localhost or 127.0.0.1")
        if scope["method"] == "OPTIONS" and shared_with is not None:
            return Response(status_code=204, headers=_PREFLIGHT)
        if (
            scope["method"] not in _SAFE
            and shared_with is None
            and _from_another_site(headers, host)
        ):
            return problem(403, "a page of another site may not do this")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._most(scope):
            return problem(413, _too_long(self._most(scope)), {"connection": "close"})
        return None

    def _most(self, scope: Scope) -> int:
        """The longest body of a request; uploads have a limit of their own."""
        if scope["method"] == "POST" and scope["path"].startswith(_DICOMWEB):
            return self._dicomweb.max_request_bytes
        return self._settings.max_request_bytes

    def _shared_with(self, scope: Scope, headers: Headers) -> str | None:
        """The origin of a page that may use DICOMweb, where one of these asks (CORS)."""
        origin = headers.get("origin", "").lower()
        allowed = origin in self._dicomweb.allowed_origins
        return origin if allowed and scope["path"].startswith(_DICOMWEB) else None

    def _limited(self, receive: Receive, most: int) -> Receive:
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            try:
                message = await asyncio.wait_for(receive(), _SILENCE_S)
            except TimeoutError:
                raise HTTPException(408, headers={"connection": "close"}) from None
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, _too_long(most), {"connection": "close"})
            return message

        return limited

    def _sending(
        self, scope: Scope, send: Send, status: list[int], shared_with: str | None
    ) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                headers = MutableHeaders(scope=message)
                if shared_with is not None:
                    headers["access-control-allow-origin"] = shared_with
                    headers["access-control-expose-headers"] = _EXPOSED
                    headers["cross-origin-resource-policy"] = "cross-origin"
                if self._dicomweb.allowed_origins and scope["path"].startswith(_DICOMWEB):
                    headers.add_vary_header("origin")
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("strict-transport-security", "max-age=31536000")
            await asyncio.wait_for(send(message), _UNREAD_S)

        return sending


def _too_long(most: int) -> str:
    return f"a body has {most} bytes at most"


def _is_in(host: str, networks: list[Any]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)


def _from_another_site(headers: Headers, host: str) -> bool:
    """Whether a browser sends this for a page of another site, with what it remembers of a user."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != host


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    place = ""
    while trace is not None:
        place = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
