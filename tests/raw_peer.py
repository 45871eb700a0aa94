"""A DICOM peer by hand, on a bare socket: it can say what a library would not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

VERIFICATION = "1.2.840.10008.1.1"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
_COMMAND, _LAST = 1, 2  # PS3.8 E.2, the bits of a message control header


class RawPeer:
    """A connection to a door.

    Parameters
    ----------
    port
        The door's port on loopback.
    address
        Where to call from: any address of loopback.
    """

    def __init__(self, port: int, *, address: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=20, source_address=(address, 0)
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and what follows its length."""
        head = self._exactly(6)
        kind, _, length = struct.unpack(">BBL", head)
        return kind, self._exactly(length)

    def associate(self, *contexts: str) -> int:
        """Ask for an association; gives the type of the answer."""
        self.send(associate_request(contexts or (ULTRASOUND, VERIFICATION)))
        return self.receive()[0]

    def last_words(self) -> bytes:
        """All that still comes until the other side ends the connection."""
        heard = bytearray()
        try:
            while piece := self.socket.recv(65536):
                heard += piece
        except ConnectionError:
            pass
        return bytes(heard)

    def close(self) -> None:
        """Close without a word."""
        self.socket.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the other side closed")
            data += piece
        return bytes(data)


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """A PDU; ``length`` is what it says of itself."""
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


def associate_request(contexts: Sequence[str], *, calling: str = "RAWPEER") -> bytes:
    """An A-ASSOCIATE-RQ, with context IDs 1, 3, 5, ... (PS3.8 9.3.2)."""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, abstract in enumerate(contexts):
        syntaxes = _item(0x40, EXPLICIT.encode()) + _item(0x40, IMPLICIT.encode())
        head = bytes((2 * number + 1, 0, 0, 0))
        items += _item(0x20, head + _item(0x30, abstract.encode()) + syntaxes)
    items += _item(0x50, _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3.4"))
    titles = b"ECHONODE".ljust(16) + calling.encode().ljust(16)
    return pdu(ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + bytes(32) + items)


def pdata(context: int, header: int, data: bytes, *, length: int | None = None) -> bytes:
    """A P-DATA-TF with one PDV; ``length`` is what the PDV says of itself."""
    said = len(data) + 2 if length is None else length
    return pdu(P_DATA, struct.pack(">LBB", said, context, header) + data)


def command(context: int, elements: dict[int, bytes], *, last: bool = True) -> bytes:
    """A command set as one PDU; ``elements`` are of group 0000."""
    encoded = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in sorted(elements.items())
    )
    group_length = struct.pack("<HHLL", 0, 0, 4, len(encoded))
    return pdata(context, _COMMAND | (_LAST if last else 0), group_length + encoded)


def data(context: int, value: bytes, *, last: bool = False) -> bytes:
    """A piece of a data set as one PDU."""
    return pdata(context, _LAST if last else 0, value)


def echo_request(context: int = 3, message: int = 1) -> bytes:
    """A C-ECHO-RQ."""
    return command(
        context,
        {
            0x0002: _uid(VERIFICATION),
            0x0100: struct.pack("<H", 0x0030),
            0x0110: struct.pack("<H", message),
            0x0800: struct.pack("<H", 0x0101),
        },
    )


def store_request(context: int = 1, uid: str = "1.2.3", message: int = 1) -> bytes:
    """A C-STORE-RQ, whose data set is to follow."""
    return command(
        context,
        {
            0x0002: _uid(ULTRASOUND),
            0x0100: struct.pack("<H", 0x0001),
            0x0110: struct.pack("<H", message),
            0x0700: struct.pack("<H", 0),
            0x0800: struct.pack("<H", 0x0001),
            0x1000: _uid(uid),
        },
    )


def status_of(answer: bytes) -> int:
    """The status in the body of a P-DATA-TF that holds a response."""
    at = answer.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
    return int(struct.unpack_from("<H", answer, at)[0])


def _uid(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value
