"""A multipart body, taken apart as it comes (RFC 2046 5.1, RFC 2387).

Nothing of a part's body is held but the few bytes that may be the beginning of a boundary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_MOST_PREAMBLE = 65_536
_MOST_HEADER = 16_384
_MOST_PARTS = 100_000
_MOST_PADDING = 256


class MultipartError(ValueError):
    """The body is not what its content type says; the message is for the caller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartBegins:
    """A part, with its header; names in lower case."""

    header: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartData:
    """The next bytes of the part's body."""

    data: bytes | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class PartEnds:
    """The part's body is whole."""


Event = PartBegins | PartData | PartEnds


class _State(Enum):
    PREAMBLE = auto()
    HEADER = auto()
    BODY = auto()
    DONE = auto()


class MultipartReader:
    """Takes the pieces of a body and gives what they say.

    Raises
    ------
    MultipartError
        If the boundary is none.
    """

    def __init__(self, boundary: str) -> None:
        if not _BOUNDARY.fullmatch(boundary):
            raise MultipartError("the content type has no boundary of 1 to 70 plain characters")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._held = b"\r\n"  # the first boundary may stand at the very beginning
        self._at = 0  # what stands before is passed on
        self._state = _State.PREAMBLE
        self._passed = 0
        self._parts = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """What the next bytes of the body bring.

        Raises
        ------
        MultipartError
            If they cannot belong to such a body.
        """
        if self._state is _State.DONE:
            return  # an epilogue, which means nothing
        self._held = self._held[self._at :] + data
        self._at = 0
        while True:
            if self._state is _State.HEADER:
                header = self._header()
                if header is None:
                    return
                self._state = _State.BODY
                yield PartBegins(header=header)
            before = self._state
            yield from self._to_delimiter()
            if self._state is before or self._state is _State.DONE:
                return

    def finish(self) -> None:
        """Say that the body has ended.

        Raises
        ------
        MultipartError
            If its last boundary has not come.
        """
        if self._state is _State.PREAMBLE:
            raise MultipartError("the body holds no part: its boundary does not come")
        if self._state is not _State.DONE:
            raise MultipartError("the body is cut off: its last boundary does not come")

    def _to_delimiter(self) -> Iterator[Event]:
        """Pass on what stands before the next boundary, and go over it where it is whole."""
        start = self._at
        while (place := self._held.find(self._delimiter, start)) >= 0:
            end, closes = self._behind(place + len(self._delimiter))
            if end is None:
                break  # more must come before it is known to be one
            if end < 0:
                start = place + 1  # it only begins like the boundary
                continue
            yield from self._pass(place)
            if self._state is _State.BODY:
                yield PartEnds()
            self._at = end
            self._state = _State.DONE if closes else _State.HEADER
            if closes:
                self._held, self._at = b"", 0
            return
        keep = len(self._delimiter) - 1 if place < 0 else len(self._held) - place
        yield from self._pass(max(self._at, len(self._held) - keep))

    def _behind(self, place: int) -> tuple[int | None, bool]:
        """Where a boundary's line ends, and whether it is the last; None: not known yet, -1: no."""
        if self._held[place : place + 2] == b"--":
            return place + 2, True
        most = place + _MOST_PADDING + 2
        end = self._held.find(b"\r\n", place, most)
        padding = self._held[place : end if end >= 0 else most]
        if len(padding) > _MOST_PADDING:
            return -1, False
        if end < 0:
            known = padding.strip(b" \t") in (b"", b"-", b"\r")
            return (None if known else -1), False
        return (-1 if padding.strip(b" \t") else end + 2), False

    def _pass(self, end: int) -> Iterator[Event]:
        count = end - self._at
        if not count:
            return
        data = memoryview(self._held)[self._at : end]
        self._at = end
        if self._state is _State.BODY:
            yield PartData(data=data)
            return
        self._passed += count
        if self._passed > _MOST_PREAMBLE:
            raise MultipartError("the boundary does not come: is the body multipart?")

    def _header(self) -> dict[str, str] | None:
        """The part's header, where it is whole."""
        start = end = self._at
        if self._held[start : start + 2] != b"\r\n":
            end = self._held.find(b"\r\n\r\n", start, start + _MOST_HEADER + 4)
            if end < 0:
                if len(self._held) - start > _MOST_HEADER:
                    raise MultipartError(f"a part's header has more than {_MOST_HEADER} bytes")
                return None
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise MultipartError(f"the body has more than {_MOST_PARTS} parts")
        lines = self._held[start:end].decode("latin-1")
        self._at = end + (4 if end > start else 2)
        header: dict[str, str] = {}
        for line in re.sub(r"\r\n[ \t]+", " ", lines).split("\r\n"):
            name, colon, value = line.partition(":")
            if line and not (colon and name.strip()):
                raise MultipartError("a part's header has a line without a name")
            if line:
                header[name.strip().lower()] = value.strip()
        return header
