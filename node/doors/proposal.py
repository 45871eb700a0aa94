"""Requests to associate, without what needs no thought.

A general sender proposes all the storage classes that there are, 128 contexts of several transfer
syntaxes each, and the same each time. The network library takes milliseconds for them. So it is
shown those alone that need it; the plain ones are granted, and unknown classes refused, in its
answer, as it would do itself.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_ITEMS_AT = 74  # PS3.8 9.3.2 and 9.3.3: in request and answer alike
_APPLICATION, _PROPOSED, _ANSWERED, _ABSTRACT, _TRANSFER = 0x10, 0x20, 0x21, 0x30, 0x40
_USER = 0x50
# Of the user information: longest PDU, implementation, operations at once. Roles and whatever else
# may speak of a class change what is granted.
_PLAIN_USER = (0x51, 0x52, 0x53, 0x55)
_GRANTED, _CLASS_NOT_SUPPORTED = 0, 3
_HEAD = struct.Struct(">BBH")
_REMEMBERED = 32  # proposals: a program's are the same each time it calls


class _OddError(Exception):
    """Lengths that do not fit; the library says what is wrong."""


class Grant(NamedTuple):
    """A context that is accepted."""

    context_id: int
    sop_class_uid: str
    transfer_syntax_uid: str


class Shortened(NamedTuple):
    """A request as the library is to see it, and what it does not see."""

    request: bytes
    answers: bytes = b""  #: the items of an answer for the rest of the contexts
    granted: Sequence[Grant] = ()  #: those of them that are accepted


class Proposals:
    """Shortens requests to associate, and completes the answers to them.

    Parameters
    ----------
    known
        The classes that the door takes, each with its transfer syntaxes, the best first.
    plain
        Those that are granted to whoever proposes one of these syntaxes.
    """

    def __init__(self, known: Mapping[str, Sequence[str]], plain: Container[str]) -> None:
        self._known = {
            uid.encode(): [syntax.encode() for syntax in syntaxes] if uid in plain else []
            for uid, syntaxes in known.items()
        }
        self._shortened = lru_cache(_REMEMBERED)(self._shorten)
        self._completed = lru_cache(_REMEMBERED)(_complete)

    def shorten(self, request: bytes) -> Shortened:
        """A-ASSOCIATE-RQ without contexts that need no thought, all but one.

        A request that is put in an unusual way stays as it is.
        """
        items, answers, granted = self._shortened(request[_ITEMS_AT:])
        return Shortened(_pdu(request, items) if answers else request, answers, granted)

    def complete(self, answer: bytes, answers: bytes) -> bytes:
        """A-ASSOCIATE-AC that also speaks of what the library was not shown."""
        return _pdu(answer, self._completed(answer[_ITEMS_AT:], answers))

    def _shorten(self, items: bytes) -> Shortened:
        kept: list[bytes] = []
        answers: list[bytes] = []
        granted: list[Grant] = []
        ids: set[int] = set()
        shown = False
        try:
            grants = _is_plain(items)
            for kind, item in _items(items):
                if kind != _PROPOSED:
                    kept.append(item)
                    continue
                parts = list(_items(item, 8))
                classes = [part[4:].rstrip(b"\0") for sub, part in parts if sub == _ABSTRACT]
                syntaxes = [part for sub, part in parts if sub == _TRANSFER]
                odd = len(classes) != 1 or not syntaxes or len(parts) != 1 + len(syntaxes)
                if odd or item[4] in ids:
                    return Shortened(items)
                ids.add(item[4])
                taken = self._known.get(classes[0])
                best = _best(taken or (), syntaxes) if grants else None
                if taken is None:
                    answers.append(_answer(item[4], _CLASS_NOT_SUPPORTED, syntaxes[0]))
                elif best is None or not shown:
                    kept.append(item)
                    shown = True
                else:
                    answers.append(_answer(item[4], _GRANTED, best))
                    granted.append(Grant(item[4], classes[0].decode(), best[4:].decode()))
        except (_OddError, struct.error, IndexError, UnicodeDecodeError):
            return Shortened(items)
        if not shown:
            return Shortened(items)
        return Shortened(b"".join(kept), b"".join(answers), tuple(granted))


def _is_plain(items: bytes) -> bool:
    """Whether nothing is asked for but contexts."""
    users = [item for kind, item in _items(items) if kind == _USER]
    return all(kind in _PLAIN_USER for user in users for kind, _ in _items(user, 4))


def _best(taken: Sequence[bytes], proposed: Sequence[bytes]) -> bytes | None:
    """The item of the syntax that will be chosen, where that is plain to see."""
    by_uid = {item[4:]: item for item in proposed}
    if any(uid.endswith(b"\0") for uid in by_uid):
        return None
    return next((by_uid[uid] for uid in taken if uid in by_uid), None)


def _answer(context_id: int, result: int, syntax: bytes) -> bytes:
    body = bytes((context_id, 0, result, 0)) + syntax
    return _HEAD.pack(_ANSWERED, 0, len(body)) + body


def _complete(items: bytes, answers: bytes) -> bytes:
    whole = [item for _, item in _items(items)]
    every = [item for item in whole if item[0] == _ANSWERED]
    every += [item for _, item in _items(answers)]
    first = next(place for place, item in enumerate(whole) if item[0] != _APPLICATION)
    others = [item for item in whole if item[0] != _ANSWERED]
    return b"".join(others[:first] + sorted(every, key=_place) + others[first:])


def _pdu(like: bytes, items: bytes) -> bytes:
    return like[:2] + (_ITEMS_AT - 6 + len(items)).to_bytes(4, "big") + like[6:_ITEMS_AT] + items


def _items(data: bytes, place: int = 0) -> Iterator[tuple[int, bytes]]:
    while place < len(data):
        kind, _, length = _HEAD.unpack_from(data, place)
        behind = place + _HEAD.size + length
        if behind > len(data):
            raise _OddError
        yield kind, data[place:behind]
        place = behind


def _place(item: bytes) -> tuple[bool, int]:
    """As the library puts them: what is accepted comes first, then by context."""
    return item[6] != 0, item[4]
