"""A real S3 server on loopback, of the tests' own, and a way to it that can be made bad.

The server is localbucket, which keeps each object as a file: what it has confirmed is there when it
was killed and is started again. (moto's, the better known, forgets all with its process.) It is of
one file and starts in a third of a second.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.peers import free_port, wait_until

BUCKET = "echo"
FOLDER = "node-a"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class ObjectsServer:
    """A running server; ``folder`` holds its buckets."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What a node writes as ``store_url``."""
        return url_of(self.endpoint)

    def start(self) -> None:
        """Start it, with what it holds, and wait until it answers."""
        (self.folder / BUCKET).mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "localbucket", self.folder, "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, what="the S3 server answers")

    def _answers(self) -> bool:
        with suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("HEAD", f"/{BUCKET}")
            answer = connection.getresponse()
            connection.close()
            return answer.status == http.HTTPStatus.OK
        return False

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def file(self, key: str) -> Path:
        """Where it keeps an object."""
        return self.folder / BUCKET / FOLDER / key


def url_of(endpoint: str) -> str:
    """The address of the tests' store at a server."""
    return f"s3://{BUCKET}/{FOLDER}?endpoint={endpoint}"


@contextmanager
def objects_server(folder: Path) -> Iterator[ObjectsServer]:
    """A running server, which ends with the context."""
    server = ObjectsServer(folder=folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials as an environment has them, and nobody else who is asked for some."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request on its way."""

    method: str
    path: str
    body: bytes


@dataclass
class BadWay:
    """A proxy before a server. Each of its faults is asked first, and may answer in its place.

    ``spoil`` changes a body on its way to the server, ``answer`` is (status, body) in place of the
    server's, ``tag`` the ETag in place of the server's, ``hang_s`` how long nothing happens first,
    ``cut`` after how many bytes of an answer the connection ends. ``on`` chooses requests.
    """

    server: ObjectsServer
    on: Callable[[Asked], bool] = lambda _asked: True
    spoil: Callable[[bytes], bytes] | None = None
    answer: tuple[int, bytes] | None = None
    tag: str | None = None
    hang_s: float = 0.0
    cut: int | None = None
    seen: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """The store by this way."""
        return url_of(f"http://127.0.0.1:{self.port}")

    def mend(self) -> None:
        """A good way again."""
        self.spoil = self.answer = self.tag = self.cut = None
        self.hang_s = 0.0


def _handler(way: BadWay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            pass

        def handle_one_request(self) -> None:
            with suppress(ConnectionError):
                super().handle_one_request()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(method=self.command, path=self.path, body=body)
            way.seen.append(asked)
            bad = way.on(asked)
            if bad and way.hang_s:
                time.sleep(way.hang_s)
            if bad and way.answer is not None:
                self._give(way.answer[0], {}, way.answer[1])
                return
            if bad and way.spoil is not None:
                body = way.spoil(body)
            there = http.client.HTTPConnection("127.0.0.1", way.server.port, timeout=30)
            try:
                headers = dict(self.headers.items()) | {"Content-Length": str(len(body))}
                there.request(self.command, self.path, body, headers)
                answer = there.getresponse()
                found = answer.read()
            except OSError:
                self.close_connection = True
                return
            finally:
                there.close()
            given = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "server", "date")
            }
            if bad and way.tag is not None and "ETag" in given:
                given["ETag"] = f'"{way.tag}"'
            self._give(answer.status, given, found, cut=way.cut if bad else None)

        def _give(
            self, status: int, headers: dict[str, str], body: bytes, *, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            self.close_connection |= cut is not None

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

    return Handler


@contextmanager
def bad_way(server: ObjectsServer) -> Iterator[BadWay]:
    """A way to a server that a test can make bad."""
    way = BadWay(server=server)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(way))
    proxy.daemon_threads = True
    way.port = proxy.server_address[1]
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def environment() -> dict[str, str]:
    """The environment of a process that is let in."""
    return {**os.environ, **CREDENTIALS}
