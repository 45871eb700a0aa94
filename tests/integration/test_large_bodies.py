"""A large body reaches the application whole, past the parser, and nothing of the next request."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.sections import HttpSettings
from node.web.server import HttpServer
from node.web.users import UserFile
from tests.peers import wait_until

_MIB = 1 << 20
BODY = random.Random(5).randbytes(3 * _MIB + 17)  # noqa: S311 - any bytes
SMALL = b"POST /small HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nsmall"


class Seen:
    """An application that reads bodies and answers with their digests."""

    def __init__(self) -> None:
        self.pieces = 0
        self.cut_off = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        digest = hashlib.sha256()
        more = scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.cut_off += 1
                return
            self.pieces += bool(message["body"])
            digest.update(message["body"])
            more = message["more_body"]
        length = [(b"content-length", b"64")]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": digest.hexdigest().encode()})


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def port(seen: Seen, tmp_path: Path) -> Iterator[int]:
    server = HttpServer(HttpSettings(port=0), UserFile(tmp_path / "users.json"))
    server.start(seen)
    yield server.port
    server.stop()


def request(more: str = "", path: str = "/", length: int = len(BODY)) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    connection.settimeout(20)
    said = b""
    while piece := connection.recv(1 << 16):
        said += piece
    return said


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


@pytest.mark.parametrize("first", [0, 1, 70_000, len(BODY)])
@pytest.mark.parametrize("before", [b"", SMALL])
def test_it_comes_whole_however_it_is_cut(port: int, seen: Seen, first: int, before: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        if before:
            connection.sendall(before)
            said = b""
            while digest(b"small") not in said:
                said += connection.recv(1 << 16)
        connection.sendall(request() + BODY[:first])
        wait_until(lambda: first == 0 or seen.pieces > 0, what="the first piece was read")
        connection.sendall(BODY[first:])
        said = answer(connection)

    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in said.lower()
    assert said.endswith(digest(BODY))


def test_requests_that_follow_each_other_without_waiting_are_told_apart(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(SMALL + request() + BODY + SMALL)
        said = answer(connection)
    # What follows a large body is not answered: its connection ends. The parser may have had it.
    assert said.index(digest(b"small")) < said.index(digest(BODY))


def test_what_has_no_plain_length_goes_by_the_parser(port: int) -> None:
    chunks = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
    head = (
        b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + chunks)
        assert answer(connection).endswith(digest(BODY))


def test_a_caller_who_waits_to_be_told_to_go_on_is_told(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request("Expect: 100-continue\r\n"))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100")
        connection.sendall(BODY)
        assert answer(connection).endswith(digest(BODY))


def test_a_body_that_is_cut_off_is_told(port: int, seen: Seen) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request() + BODY[: 2 * _MIB])
        wait_until(lambda: seen.pieces > 0, what="a piece was read")
    wait_until(lambda: seen.cut_off == 1, what="the application hears of the end")


def test_an_answer_that_does_not_wait_for_the_body_ends_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request(path="/early"))
        assert answer(connection).endswith(digest(b""))
