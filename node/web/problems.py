"""Errors, without anything of the inside: problem JSON (RFC 9457), or a page for a browser."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from node.web.pages.errors import error_page, wants_page

PROBLEM = "application/problem+json"


class ProblemResponse(JSONResponse):
    """Problem JSON; a page where who asks is a browser."""

    media_type = PROBLEM

    def __init__(self, status: int, detail: str, headers: Mapping[str, str]) -> None:
        self._detail = detail
        self._others = dict(headers)
        content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
        if detail:
            content["detail"] = detail
        super().__init__(content, status, self._others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as it was asked."""
        if not wants_page(Headers(scope=scope)):
            await super().__call__(scope, receive, send)
            return
        page = error_page(self.status_code, self._detail)
        page.headers.update(self._others)
        await page(scope, receive, send)


def problem(
    status: int, detail: str = "", headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """An answer that says what is wrong."""
    return ProblemResponse(status, detail, headers or {})


async def on_http_error(_request: Request, error: Exception) -> JSONResponse:
    """For what routes and the framework raise by status."""
    if not isinstance(error, HTTPException):
        return problem(500)
    detail = str(error.detail)
    known = detail if detail != HTTPStatus(error.status_code).phrase else ""
    return problem(error.status_code, known, error.headers)


async def on_invalid(_request: Request, error: Exception) -> JSONResponse:
    """For a request that is not as it should be: where, and what; never the value itself."""
    if not isinstance(error, RequestValidationError):
        return problem(500)
    lines = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
    ]
    return problem(422, "; ".join(lines)[:1000])


async def on_crash(_request: Request, _error: Exception) -> JSONResponse:
    """For what nobody expected; the gate notes it."""
    return problem(500)
