"""Media types as HTTP writes them, and which of them a caller takes (RFC 9110 8.3, 12.5.1).

A DICOM media type comes alone or as the ``type`` of ``multipart/related``, and may name a transfer
syntax (PS3.18 8.7.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PARAMETER = re.compile(r';\s*(?:([!#$%&\'*+.^_`|~\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^;",\s]*)))?\s*')
_TYPE = re.compile(r"\s*([!#$%&'*+.^_`|~\w-]+/[!#$%&'*+.^_`|~\w-]+|\*/\*|\*)\s*")
_LONGEST = 8192
_MOST = 50

ANY = "*"
DICOM = "application/dicom"
OCTETS = "application/octet-stream"
JSON = "application/dicom+json"
PLAIN_JSON = "application/json"
XML = "application/dicom+xml"
RELATED = "multipart/related"


class MediaError(ValueError):
    """What should be a media type is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """A media type with its parameters, names in lower case."""

    name: str
    parameters: Mapping[str, str]

    @property
    def quality(self) -> float:
        """How much the caller wants it, 0 to 1."""
        try:
            return min(1.0, max(0.0, float(self.parameters.get("q", "1"))))
        except ValueError:
            return 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A DICOM media type that a caller takes. ``syntax``: None where he names none.

    ``anything``: he takes whatever comes, in parts or alone.
    """

    name: str
    multipart: bool
    syntax: str | None = None
    anything: bool = False

    def takes(self, name: str) -> bool:
        """Whether a type falls under it."""
        return self.name in (ANY, name) or self.name == f"{name.split('/', maxsplit=1)[0]}/*"


def parse_media(text: str) -> Media:
    """A media type, as ``Content-Type`` has it.

    Raises
    ------
    MediaError
        If it is none.
    """
    found = parse_accept(text)
    if len(found) != 1:
        raise MediaError("no media type can be read there")
    return found[0]


def parse_accept(text: str) -> list[Media]:
    """The types of an ``Accept``, in its order.

    Raises
    ------
    MediaError
        If it cannot be read.
    """
    if len(text) > _LONGEST:
        raise MediaError("a list of media types is too long")
    found: list[Media] = []
    place = 0
    while place < len(text):
        match = _TYPE.match(text, place)
        if match is None or len(found) == _MOST:
            raise MediaError("a media type cannot be read")
        name, place = match[1].lower(), match.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(text, place)) is not None:
            place = parameter.end()
            if parameter[1]:
                quoted = parameter[2]
                value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(parameter[1].lower(), value)
        found.append(Media(name="*/*" if name == ANY else name, parameters=parameters))
        if place < len(text):
            if text[place] != ",":
                raise MediaError("a media type cannot be read")
            place += 1
    return found


def wanted(accept: Sequence[Media]) -> list[Wanted]:
    """What a caller takes, best first; everything where he does not say."""
    takes = [media for media in accept if media.quality > 0]
    if not accept:
        return _anything(None)
    found: list[Wanted] = []
    for media in sorted(takes, key=lambda media: -media.quality):
        syntax = media.parameters.get("transfer-syntax") or None
        if media.name == "*/*":
            found += _anything(syntax)
        elif media.name in (RELATED, "multipart/*"):
            name = media.parameters.get("type", ANY).lower()
            found.append(Wanted(name=ANY if name == "*/*" else name, multipart=True, syntax=syntax))
        else:
            found.append(Wanted(name=media.name, multipart=False, syntax=syntax))
    return found


def _anything(syntax: str | None) -> list[Wanted]:
    return [
        Wanted(name=ANY, multipart=multipart, syntax=syntax, anything=True)
        for multipart in (True, False)
    ]
