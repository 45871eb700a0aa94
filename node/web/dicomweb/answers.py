"""Answers that are sent as they are read: objects, frames and data sets, one after the other."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from starlette.responses import StreamingResponse

from node.web.dicomweb.media import JSON, RELATED, XML
from node.web.dicomweb.model import Json, xml_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an answer. Its body is read when it is sent."""

    media: str  #: with its parameters
    body: Iterable[bytes]
    location: str = ""
    header: Mapping[str, str] = field(default_factory=dict)


def several(
    parts: Iterable[Part], kind: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """A multipart answer; ``kind`` is the type of its parts."""
    boundary = uuid.uuid4().hex
    return StreamingResponse(
        _parts(parts, boundary),
        status,
        dict(headers or {}),
        media_type=f'{RELATED}; type="{kind}"; boundary={boundary}',
    )


def alone(part: Part, headers: Mapping[str, str] | None = None) -> StreamingResponse:
    """An answer that is one part's body."""
    found = {**part.header, **(headers or {})}
    if part.location:
        found["content-location"] = part.location
    return StreamingResponse(part.body, 200, found, media_type=part.media)


def data_sets(
    models: Iterable[Json],
    kind: str,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """Data sets as one JSON array, or each as a part in XML."""
    if kind == XML:
        return several(
            (Part(media=XML, body=[xml_of(model)]) for model in models), XML, 200, headers
        )
    return StreamingResponse(_array(models), 200, dict(headers or {}), media_type=kind or JSON)


def _parts(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    for part in parts:
        lines = [f"--{boundary}", f"Content-Type: {part.media}"]
        lines += [f"{name}: {value}" for name, value in part.header.items()]
        if part.location:
            lines.append(f"Content-Location: {part.location}")
        yield "\r\n".join([*lines, "", ""]).encode()
        yield from part.body
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _array(models: Iterable[Json]) -> Iterator[bytes]:
    before = b"["
    for model in models:
        yield before + json.dumps(model, separators=(",", ":"), allow_nan=False).encode()
        before = b",\n"
    yield b"]" if before == b",\n" else b"[]"
