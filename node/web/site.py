"""The site: its routes, and what the node gives to them.

Each route that needs a role says so with :func:`needs`. What is not named here does not exist.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from node.intake import Intake
from node.settings import Settings
from node.watch.audit import Audit
from node.watch.metrics import Metrics
from node.web.callers import Caller, Callers, NotKnownError
from node.web.dicomweb.pixels import Pixels
from node.web.gate import Application, Gate
from node.web.problems import on_crash, on_http_error, on_invalid, problem
from node.web.users import Role
from storage.database import Database, DatabaseError
from storage.files import FileStore, FileStoreError

log = structlog.get_logger(__name__)

_ASK = 'Basic realm="echonode", charset="UTF-8"'
_OR_BEARER = 'Bearer realm="echonode"'


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the site needs of the node."""

    settings: Settings
    database: Database
    audit: Audit
    callers: Callers
    not_ready: Callable[[], str | None]  #: why objects cannot be taken now, or None
    files: FileStore | None = None  #: where objects and results lie
    intake: Intake | None = None  #: takes what is uploaded
    pixels: Pixels = field(default_factory=Pixels)  #: decodes in a process of its own
    metrics: Metrics | None = None


def make_site(parts: Parts, *routers: APIRouter) -> Application:
    """The whole site, behind its gate."""
    # FastAPI's own pages load scripts from elsewhere.
    site = FastAPI(
        title="echonode",
        summary="Status and the operator's buttons. Research use only, not for diagnosis.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    site.state.parts = parts
    for router in (health, docs, *routers):
        site.include_router(router)
    site.add_exception_handler(StarletteHTTPException, on_http_error)
    site.add_exception_handler(RequestValidationError, on_invalid)
    site.add_exception_handler(DatabaseError, _on_database_error)
    site.add_exception_handler(FileStoreError, _on_store_error)
    site.add_exception_handler(Exception, on_crash)
    return Gate(site, parts.settings.http, parts.settings.dicomweb)


def parts_of(request: Request) -> Parts:
    """The node's parts, for a route."""
    parts: Parts = request.app.state.parts
    return parts


def caller_of(request: Request) -> Caller:
    """Who calls; a wrong password is refused here, none is not."""
    certificate = getattr(request.state, "peer_certificate", None)
    host = request.client.host if request.client is not None else ""
    try:
        return parts_of(request).callers.who(
            host, request.headers.get("authorization"), certificate
        )
    except NotKnownError as error:
        if error.pause_s:
            wait = {"retry-after": str(int(error.pause_s) + 1)}
            raise HTTPException(429, "too many wrong tries; wait", wait) from None
        raise _not_authenticated(str(error)) from None


def needs(role: Role) -> Any:
    """The caller as a parameter of a route, where he has the role.

    401 asks for a password or a token, 403 says that this user has another role.
    """

    def check(request: Request, caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if role in caller.roles:
            return caller
        if not caller.name:
            raise _not_authenticated("")
        route = getattr(request.scope.get("route"), "path", "")
        parts_of(request).callers.forbidden(caller, role, f"{request.method} {route}")
        raise HTTPException(403, f"this needs the role {role}, which {caller.name} does not have")

    return Depends(check)


def _not_authenticated(reason: str) -> HTTPException:
    error = HTTPException(401, reason or "show a password or a token")
    error.headers = {"www-authenticate": f"{_ASK}, {_OR_BEARER}"}
    return error


async def _on_database_error(_request: Request, error: Exception) -> JSONResponse:
    log.error("http-database-error", error=str(error))
    return problem(503, "the database does not answer now", {"retry-after": "5"})


async def _on_store_error(_request: Request, error: Exception) -> JSONResponse:
    log.error("http-store-error", error=str(error))
    return problem(503, "the store cannot be read now", {"retry-after": "30"})


health = APIRouter(tags=["health"])
docs = APIRouter(tags=["documentation"])


@health.get("/healthz")
def healthz() -> dict[str, bool]:
    """Whether the process lives."""
    return {"alive": True}


@health.get("/readyz")
def readyz(request: Request, caller: Annotated[Caller, Depends(caller_of)]) -> JSONResponse:
    """Whether objects can be taken: 200 or 503; why not, for those who may read."""
    reason = parts_of(request).not_ready()
    content: dict[str, Any] = {"ready": reason is None}
    if reason is not None and Role.READ in caller.roles:
        content["reason"] = reason
    return JSONResponse(content, 200 if reason is None else 503)


@docs.get("/api/openapi.json")
def openapi(request: Request, _caller: Annotated[Caller, needs(Role.READ)]) -> JSONResponse:
    """This description, for programs."""
    return JSONResponse(request.app.openapi())


@docs.get("/api/docs")
def openapi_page(request: Request, _caller: Annotated[Caller, needs(Role.READ)]) -> HTMLResponse:
    """This description, for people."""
    rows = [
        f"<tr><td>{method.upper()}<td><code>{html.escape(path)}</code>"
        f"<td>{html.escape(operation.get('description', ''))}"
        for path, operations in sorted(request.app.openapi()["paths"].items())
        for method, operation in operations.items()
    ]
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>echonode API</title>'
        f"<h1>echonode API</h1><table>{''.join(rows)}</table>"
        '<p><a href="/api/openapi.json">openapi.json</a></html>'
    )
