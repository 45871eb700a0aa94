"""Errors for people: a page where a browser asks for one."""

from __future__ import annotations

from http import HTTPStatus

from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers

from node.web.pages.rendering import page

_STEPS = {
    401: "Load the page again and give your user and password. An administrator makes users with "
    "`echonode user add`.",
    403: "Ask an administrator for the role: `echonode user list` shows who has which.",
    404: "See the list of studies, or go back. Files and rows may have been removed by retention.",
    409: "Go back, load the page again and see what state it is in now.",
    429: "Wait, then load the page again.",
    500: "The node's log says what failed. Nothing that was acknowledged is lost.",
    503: "Wait a few seconds and load the page again; `echonode status` says more.",
}


def wants_page(headers: Headers) -> bool:
    """Whether a browser asks, that shows what comes back to somebody."""
    return "text/html" in headers.get("accept", "") and "hx-request" not in headers


def error_page(status: int, detail: str) -> HTMLResponse:
    """What is wrong, and the next step."""
    return page(
        "error.html",
        status=status,
        code=status,
        title=HTTPStatus(status).phrase,
        detail=detail,
        step=_STEPS.get(status, ""),
    )
