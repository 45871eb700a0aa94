"""The audit trail to a syslog server: RFC 5424 messages, framed by RFC 5425, over TLS (PS3.15 A.6).

The trail's files are the queue: a thread of its own reads them from where it was and sends, so a
server that is away holds up nobody and misses nothing. Syslog has no answers. A message counts as
sent once the server's system has acknowledged its bytes and the connection has lived on for a
while; after a break those of the last seconds go again, and may come twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import ssl
import struct
import termios
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import structlog

from node.sections import SyslogSettings
from node.tls import client_context
from node.watch.audit_file import audit_files, read_lines

log = structlog.get_logger(__name__)

_PRIORITY = 10 * 8 + 5  # A.6.1: facility security/authorization, severity notice
_MESSAGE_ID = "DICOM+RFC3881"  # A.6.1
_BATCH = 100
_POLL_S = 0.5
_CONNECT_S = 10.0
_SEND_S = 20.0
_SETTLED_S = 5.0
_LONGEST_PAUSE_S = 60.0
_TOLD_EVERY_S = 300.0
_DATE = re.compile(r'EventDateTime="([0-9T:.Z-]{20,32})"')


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the trail: all before it is sent."""

    file: str
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SyslogStatus:
    """How the sending goes."""

    connected: bool
    waiting_bytes: int
    last_error: str


class SyslogSender:
    """Sends the trail's lines, from a thread of its own.

    Parameters
    ----------
    settings
        The server.
    folder
        Of the trail. The position is kept there, too; without one, sending begins at the end.
    """

    def __init__(self, settings: SyslogSettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._context = client_context(settings.tls) if settings.transport == "tls" else None
        self._host = socket.gethostname() or "-"
        self._kept = folder / "syslog-position.json"
        self._settled = self._read_position()
        self._write_position()
        self._position = self._settled
        self._unsettled: deque[tuple[float, Position]] = deque()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-syslog", daemon=True)
        self._connection: socket.socket | None = None
        self._error = ""
        self._told_at = -_TOLD_EVERY_S

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what can be sent at once, and end."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def needed_from(self) -> Path:
        """The oldest file that is still needed."""
        return self._folder / self._settled.file

    def status(self) -> SyslogStatus:
        """How it goes."""
        waiting = 0
        for path in audit_files(self._folder):
            if path.name == self._position.file:
                waiting += max(0, path.stat().st_size - self._position.offset)
            elif path.name > self._position.file:
                waiting += path.stat().st_size
        return SyslogStatus(
            connected=self._connection is not None, waiting_bytes=waiting, last_error=self._error
        )

    def _run(self) -> None:
        pause_s = 1.0
        while True:
            try:
                self._send_all()
                pause_s = 1.0
                if self._stopping.is_set():
                    break
                self._wake.wait(_POLL_S)
                self._wake.clear()
            except OSError as error:
                self._broken(error)
                if self._stopping.wait(pause_s):
                    break
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
            except Exception:
                # The edge of the thread: the trail goes on in its files.
                log.exception("audit-syslog-failed")
                if self._stopping.wait(_LONGEST_PAUSE_S):
                    break
        if self._connection is not None:
            self._settled = self._position
            self._close()
        self._write_position()

    def _send_all(self) -> None:
        while batch := self._next_batch():
            frames, position = batch
            connection = self._connected()
            connection.sendall(b"".join(frames))
            _wait_until_acknowledged(connection)
            self._position = position
            self._unsettled.append((time.monotonic(), position))
            self._settle()
        if self._connection is not None:
            _see_that_it_lives(self._connection)
            self._settle()

    def _next_batch(self) -> tuple[list[bytes], Position] | None:
        """The frames that come next, and the place after them."""
        for path in audit_files(self._folder):
            if path.name < self._position.file:
                continue
            offset = self._position.offset if path.name == self._position.file else 0
            frames: list[bytes] = []
            for line, after in read_lines(path, offset, _BATCH):
                offset = after
                if line.endswith("</AuditMessage>"):  # what a full disk cut off is not sent
                    frames.append(_frame(line, self._host))
            if offset and (path.name, offset) != (self._position.file, self._position.offset):
                return frames, Position(path.name, offset)
        return None

    def _connected(self) -> socket.socket:
        if self._connection is None:
            address = (self._settings.host, self._settings.port)
            plain = socket.create_connection(address, timeout=_CONNECT_S)
            try:
                plain.settimeout(_SEND_S)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                self._connection = (
                    plain
                    if self._context is None
                    else self._context.wrap_socket(plain, server_hostname=self._settings.host)
                )
            except BaseException:
                plain.close()
                raise
            self._error = ""
            log.info("audit-syslog-connected", host=address[0], port=address[1])
        return self._connection

    def _settle(self) -> None:
        now = time.monotonic()
        before = self._settled
        while self._unsettled and self._unsettled[0][0] <= now - _SETTLED_S:
            self._settled = self._unsettled.popleft()[1]
        if self._settled != before:
            self._write_position()

    def _broken(self, error: OSError) -> None:
        self._close()
        self._position = self._settled
        self._unsettled.clear()
        self._error = _words(error)
        if time.monotonic() - self._told_at > _TOLD_EVERY_S:
            self._told_at = time.monotonic()
            log.warning(
                "audit-syslog-not-reached",
                host=self._settings.host,
                port=self._settings.port,
                error=self._error,
                next_step="what is not sent waits in the audit folder",
            )

    def _close(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except OSError:
                log.debug("audit-syslog-close-failed")
            self._connection = None

    def _read_position(self) -> Position:
        try:
            kept = json.loads(self._kept.read_text())
            return Position(str(kept["file"]), int(kept["offset"]))
        except (OSError, ValueError, KeyError, TypeError):
            newest = audit_files(self._folder)[-1]
            return Position(newest.name, newest.stat().st_size)

    def _write_position(self) -> None:
        new = self._kept.with_suffix(".new")
        try:
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump({"file": self._settled.file, "offset": self._settled.offset}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._kept)
        except OSError as error:
            # A disk that is full: after a restart some messages go twice.
            log.warning("audit-syslog-position-not-kept", error=error.strerror)


def _frame(line: str, host: str) -> bytes:
    """RFC 5425 4.3: the length in octets, a space, and a message of RFC 5424."""
    found = _DATE.search(line)
    at = found[1] if found else "-"
    header = f"<{_PRIORITY}>1 {at} {host} echonode {os.getpid()} {_MESSAGE_ID} - "
    message = header.encode() + b"\xef\xbb\xbf" + line.encode()
    return f"{len(message)} ".encode() + message


def _wait_until_acknowledged(connection: socket.socket) -> None:
    """Wait until the other system has taken all bytes (Linux: SIOCOUTQ is TIOCOUTQ)."""
    end = time.monotonic() + _SEND_S
    while True:
        _see_that_it_lives(connection)
        (unsent,) = struct.unpack(
            "i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        )
        if not unsent:
            return
        if time.monotonic() > end:
            raise TimeoutError("the syslog server takes nothing more")
        time.sleep(0.005)


def _see_that_it_lives(connection: socket.socket) -> None:
    """Notice that the server has closed: it says nothing else."""
    timeout = connection.gettimeout()
    connection.setblocking(False)
    try:
        if connection.recv(1024) == b"":
            raise ConnectionResetError("the syslog server has closed the connection")
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return
    finally:
        connection.settimeout(timeout)


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    return error.strerror or str(error) or type(error).__name__
