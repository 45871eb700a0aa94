"""Requests to associate, without the classes that nobody here knows.

A general sender proposes all the storage classes that there are, 128 contexts; the door takes a
few. The network library needs four times as long for all of them as for those that matter. So the
others are taken out before it sees the request, and refused in its answer as it would do itself.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator

_ITEMS_AT = 74  # PS3.8 9.3.2 and 9.3.3: in request and answer alike
_APPLICATION, _PROPOSED, _ANSWERED, _ABSTRACT, _TRANSFER = 0x10, 0x20, 0x21, 0x30, 0x40
_CLASS_NOT_SUPPORTED = 3
_HEAD = struct.Struct(">BBH")


class _OddError(Exception):
    """Lengths that do not fit; the library says what is wrong."""


def without_unknown(request: bytes, known: Container[bytes]) -> tuple[bytes, bytes]:
    """A-ASSOCIATE-RQ without contexts of unknown classes, and the items that refuse these.

    A request that is put in an unusual way, or would have no context left, stays as it is.
    """
    kept, refused = [], []
    left = 0
    try:
        for kind, item in _items(request, _ITEMS_AT, len(request)):
            if kind != _PROPOSED:
                kept.append(item)
                continue
            parts = list(_items(item, 8, len(item)))
            classes = [part[4:] for sub, part in parts if sub == _ABSTRACT]
            syntaxes = [part for sub, part in parts if sub == _TRANSFER]
            if len(classes) != 1 or not syntaxes or len(parts) != 1 + len(syntaxes):
                return request, b""
            if classes[0].rstrip(b"\0") in known:
                left += 1
                kept.append(item)
            else:
                result = bytes((item[4], 0, _CLASS_NOT_SUPPORTED, 0)) + syntaxes[0]
                refused.append(_HEAD.pack(_ANSWERED, 0, len(result)) + result)
    except (_OddError, struct.error, IndexError):
        return request, b""
    if not left or not refused:
        return request, b""
    return _pdu(request, kept), b"".join(refused)


def with_refused(answer: bytes, refused: bytes) -> bytes:
    """A-ASSOCIATE-AC that also refuses what the library was not shown."""
    items = [item for _, item in _items(answer, _ITEMS_AT, len(answer))]
    answers = [item for item in items if item[0] == _ANSWERED]
    answers += [item for _, item in _items(refused, 0, len(refused))]
    first = next(place for place, item in enumerate(items) if item[0] != _APPLICATION)
    others = [item for item in items if item[0] != _ANSWERED]
    whole = others[:first] + sorted(answers, key=_place) + others[first:]
    return _pdu(answer, whole)


def _pdu(like: bytes, items: list[bytes]) -> bytes:
    body = like[6:_ITEMS_AT] + b"".join(items)
    return like[:2] + len(body).to_bytes(4, "big") + body


def _items(data: bytes, place: int, end: int) -> Iterator[tuple[int, bytes]]:
    while place < end:
        kind, _, length = _HEAD.unpack_from(data, place)
        behind = place + _HEAD.size + length
        if behind > end:
            raise _OddError
        yield kind, data[place:behind]
        place = behind


def _place(item: bytes) -> tuple[bool, int]:
    """As the library puts them: what is accepted comes first, then by context."""
    return item[6] != 0, item[4]
