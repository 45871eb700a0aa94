"""How pages are made: templates, words for numbers and times, parts that renew themselves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_HERE = Path(__file__).parent
STATIC = _HERE / "static"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""What a page of ours may load: its own files, nothing written into the page, nothing from
elsewhere."""

_HEADERS = {
    "content-security-policy": POLICY,
    # Without any referrer a browser sends a form's Origin as "null", which the gate refuses.
    "referrer-policy": "same-origin",
}
_NOTHING = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of a page that renews itself; ``digest`` tells whether it has changed."""

    html: Markup
    digest: str


def page(template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A whole page."""
    html = _environment().get_template(template).render(context)
    return HTMLResponse(html, status, _HEADERS)


def part(
    name: str,
    address: str,
    *,
    every_s: int,
    query: Mapping[str, str] | None = None,
    careful: bool = False,
    **context: Any,
) -> Part:
    """A part of the page at ``address``, made from the template ``_NAME.html``.

    It asks for itself again; who has what it would say is told that nothing changed. A
    ``careful`` one waits while somebody is at its buttons or plays a clip in it.
    """
    body = _environment().get_template(f"_{name}.html").render(context)
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    asked = urlencode({**(query or {}), "part": name, "seen": digest})
    html = (
        _environment()
        .get_template("_part.html")
        .render(
            name=name,
            address=f"{address}?{asked}",
            every_s=every_s,
            careful=careful,
            body=Markup(body),  # noqa: S704 - made by a template, which escapes
        )
    )
    return Part(html=Markup(html), digest=digest)  # noqa: S704 - the same


def renewed(made: Part, seen: str | None) -> Response:
    """A part for somebody who has seen one of this digest: 204 where nothing changed."""
    if seen == made.digest:
        return Response(status_code=204)
    return HTMLResponse(made.html, 200, _HEADERS)


@cache
def static_address(name: str) -> str:
    """Where a file of ours lies; another content has another address."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def when(value: datetime | str | None) -> Markup:
    """A time of this machine's clock."""
    if value is None:
        return Markup("–")
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    shown = time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{}</time>').format(time.isoformat(), shown)


def duration(seconds: float | None) -> str:
    """How long something takes, short."""
    if seconds is None:
        return _NOTHING
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{timedelta(seconds=seconds).days} days"


def size(count: int | None) -> str:
    """Bytes, short."""
    if count is None:
        return _NOTHING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def words(text: str) -> Markup:
    """A sentence; what stands in backticks is a command."""
    pieces = re.split(r"`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    )


def said(state: str) -> str:
    """A state as a word of a sentence."""
    return state.replace("_", " ")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_address
    environment.filters.update(when=when, duration=duration, size=size, words=words, said=said)
    return environment
