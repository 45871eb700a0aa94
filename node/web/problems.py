"""Errors as problem JSON (RFC 9457), without anything of the inside."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

PROBLEM = "application/problem+json"


def problem(
    status: int, detail: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer that says what is wrong."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail:
        content["detail"] = detail
    return JSONResponse(content, status, dict(headers or {}), media_type=PROBLEM)


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
