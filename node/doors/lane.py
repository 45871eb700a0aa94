"""C-STORE requests, taken from a connection's bytes as they come.

The network library copies each byte of an object five times and hands each message from thread to
thread. Nearly all that comes in at the door are C-STORE requests, so these go by a lane of their
own: what the socket gave is written to the object's file from where it lies, and the answer is
written by the thread that reads. Everything else, and every request that is put in an unusual
way, is left to the library.
"""

from __future__ import annotations

import mmap
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from node.doors.contexts import STORAGE_CLASSES
from node.doors.incoming import IncomingFile

_P_DATA = 0x04
_COMMAND, _LAST = 1, 2  # PS3.8 E.2, the bits of a message control header
_C_STORE_RQ, _C_STORE_RSP, _NO_DATA_SET = 0x0001, 0x8001, 0x0101
_UID = re.compile(rb"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64
_PDV_HEAD = struct.Struct(">LBB")
_ELEMENT = struct.Struct("<HHL")
_LEAST_ROOM_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 19


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreRequest:
    """What a C-STORE-RQ says (PS3.7 9.3.1.1)."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    move_originator: str = ""  #: the AE title of who had it sent by C-MOVE


class LaneError(Exception):
    """What came cannot follow what came before; the association is to be ended."""


class Lane:
    """Takes the C-STORE requests of one association.

    Parameters
    ----------
    syntax_of
        The transfer syntax of an accepted presentation context; None for any other.
    new_file
        Makes the file for a data set.
    serve
        Called with each request when its data set is whole.
    """

    def __init__(
        self,
        syntax_of: Callable[[int], str | None],
        new_file: Callable[[], IncomingFile],
        serve: Callable[[StoreRequest, IncomingFile], None],
    ) -> None:
        self._syntax_of = syntax_of
        self._new_file = new_file
        self._serve = serve
        self._request: StoreRequest | None = None
        self._file: IncomingFile | None = None

    @property
    def is_taking(self) -> bool:
        """Whether a data set is under way."""
        return self._request is not None

    def take(self, items: memoryview) -> memoryview | None:
        """Take the items of a P-DATA-TF; gives those that are for the library, or None.

        Raises
        ------
        LaneError
            If they cannot follow.
        """
        place = 0
        while place < len(items):
            end = place
            if len(items) - place >= _PDV_HEAD.size:
                length, context_id, control = _PDV_HEAD.unpack_from(items, place)
                end = place + 4 + length
            if not place + _PDV_HEAD.size <= end <= len(items):
                if self._request is None:
                    return items[place:]  # the library says what is wrong with it
                raise LaneError("an item has a wrong length")
            data = items[place + _PDV_HEAD.size : end]
            if self._request is None or self._file is None:
                if not self._begins(context_id, control, data):
                    return items[place:]
            elif control & _COMMAND:
                raise LaneError("a command comes within a data set")
            else:
                self._file.write(data)
                if control & _LAST:
                    request, file = self._request, self._file
                    file.flush()
                    self._request = self._file = None
                    self._serve(request, file)
            place = end
        return None

    def _begins(self, context_id: int, control: int, data: memoryview) -> bool:
        if control & 3 != _COMMAND | _LAST:
            return False
        request = _store_request(context_id, bytes(data))
        syntax = self._syntax_of(context_id)
        if request is None or syntax is None:
            return False
        self._request, self._file = request, self._new_file()
        self._file.write_head(file_head(request.sop_class_uid, request.sop_instance_uid, syntax))
        return True


class Inbox:
    """What a socket gave and nobody has taken yet, in one buffer."""

    def __init__(self, longest_bytes: int) -> None:
        # Memory is taken as it is used: those who only ask whether we are there use little.
        self._room = mmap.mmap(-1, max(_BUFFER_BYTES, longest_bytes + _LEAST_ROOM_BYTES))
        self._view = memoryview(self._room)
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def peek(self, count: int) -> memoryview:
        """The next bytes, where they lie; valid until more is read."""
        return self._view[self._start : self._start + count]

    def skip(self, count: int) -> None:
        """Go on behind them."""
        self._start += count

    def clear(self) -> None:
        """Forget all."""
        self._start = self._end = 0

    def read(self, source: socket.socket, wanted: int) -> bool:
        """Read once, for a need of so many bytes from here; False where the peer has closed."""
        room = len(self._view) - self._start
        if room < wanted or len(self._view) - self._end < _LEAST_ROOM_BYTES:
            waiting = len(self)
            self._room.move(0, self._start, waiting)
            self._start, self._end = 0, waiting
        elif self._start == self._end:
            self._start = self._end = 0
        count = source.recv_into(self._view[self._end :])
        self._end += count
        return count > 0


def file_head(sop_class_uid: str, sop_instance_uid: str, syntax: str) -> bytes:
    """What stands before the data set in a Part-10 file (PS3.10 7.1), as the library writes it."""
    elements = [
        b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01",
        _meta(0x0002, b"UI", sop_class_uid.encode()),
        _meta(0x0003, b"UI", sop_instance_uid.encode()),
        _meta(0x0010, b"UI", syntax.encode()),
        _meta(0x0012, b"UI", str(PYNETDICOM_IMPLEMENTATION_UID).encode()),
        _meta(0x0013, b"SH", PYNETDICOM_IMPLEMENTATION_VERSION.encode()),
    ]
    group = b"".join(elements)
    length = b"\x02\x00\x00\x00UL\x04\x00" + len(group).to_bytes(4, "little")
    return bytes(128) + b"DICM" + length + group


def store_answer(
    request: StoreRequest, status: int, comment: str, longest_pdu_bytes: int
) -> Iterator[bytes]:
    """The PDUs of a C-STORE-RSP (PS3.7 9.3.1.2)."""
    elements = [
        _command(0x0002, _even(request.sop_class_uid.encode(), b"\0")),
        _command(0x0100, struct.pack("<H", _C_STORE_RSP)),
        _command(0x0120, struct.pack("<H", request.message_id)),
        _command(0x0800, struct.pack("<H", _NO_DATA_SET)),
        _command(0x0900, struct.pack("<H", status)),
    ]
    if comment:
        elements.append(_command(0x0902, _even(comment.encode("ascii", "replace"), b" ")))
    elements.append(_command(0x1000, _even(request.sop_instance_uid.encode(), b"\0")))
    group = b"".join(elements)
    whole = _command(0x0000, struct.pack("<L", len(group))) + group
    step = max(1, longest_pdu_bytes - _PDV_HEAD.size) if longest_pdu_bytes else len(whole)
    for place in range(0, len(whole), step):
        piece = whole[place : place + step]
        control = _COMMAND | (_LAST if place + step >= len(whole) else 0)
        item = _PDV_HEAD.pack(len(piece) + 2, request.context_id, control) + piece
        yield struct.pack(">BBL", _P_DATA, 0, len(item)) + item


def _store_request(context_id: int, command: bytes) -> StoreRequest | None:
    """A whole command set that is a plain C-STORE-RQ; None for any other."""
    elements: dict[int, bytes] = {}
    place = 0
    while place < len(command):
        if len(command) - place < _ELEMENT.size:
            return None
        group, element, length = _ELEMENT.unpack_from(command, place)
        place += _ELEMENT.size
        if group or element in elements or place + length > len(command):
            return None
        elements[element] = command[place : place + length]
        place += length
    numbers = [elements.get(element, b"") for element in (0x0100, 0x0110, 0x0700, 0x0800)]
    if any(len(number) != 2 for number in numbers):
        return None
    field, message_id, priority, data_set = (int.from_bytes(one, "little") for one in numbers)
    uids = [elements.get(element, b"").rstrip(b"\0") for element in (0x0002, 0x1000)]
    plain = all(len(uid) <= _LONGEST_UID and _UID.fullmatch(uid) for uid in uids)
    if field != _C_STORE_RQ or data_set == _NO_DATA_SET or priority > 2 or not plain:
        return None
    if uids[0].decode() not in STORAGE_CLASSES:
        return None
    originator = elements.get(0x1030, b"").strip(b" \0")
    if not originator.isascii():
        return None
    return StoreRequest(
        context_id=context_id,
        message_id=message_id,
        sop_class_uid=uids[0].decode(),
        sop_instance_uid=uids[1].decode(),
        move_originator=originator.decode(),
    )


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    value = _even(value, b"\0" if vr == b"UI" else b" ")
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _command(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)
