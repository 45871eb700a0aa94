"""The audit trail by syslog over TLS, to a server that reads RFC 5425 frames."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.sections import AuditSettings, SyslogSettings
from node.tls import server_context
from node.watch import audit_syslog
from node.watch.audit import Audit
from node.watch.audit_file import audit_files
from tests.audit_schema import faults_of
from tests.certificates import Certificates
from tests.peers import free_port, wait_until

_HEADER = re.compile(
    r"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ echonode \d+ DICOM\+RFC3881 - \ufeff"
)


class SyslogServer:
    """Takes syslog messages; can be away for a while."""

    def __init__(self, context: ssl.SSLContext | None, port: int) -> None:
        self.messages: list[str] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def bodies(self) -> list[str]:
        return [_HEADER.sub("", message) for message in self.messages]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
            except OSError:
                connection.close()
                continue
            self._open.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        kept = b""
        try:
            while True:
                while match := re.match(rb"([1-9][0-9]*) ", kept):
                    end = match.end() + int(match[1])
                    if len(kept) < end:
                        break
                    self.messages.append(kept[match.end() : end].decode())
                    kept = kept[end:]
                more = connection.recv(65536)
                if not more:
                    return
                kept += more
        except OSError:
            return


@contextmanager
def audit_to(folder: Path, syslog: SyslogSettings, **settings: int) -> Iterator[Audit]:
    audit = Audit(AuditSettings(syslog=syslog, **settings), folder, "ECHONODE")
    audit.start()
    try:
        yield audit
    finally:
        audit.stop()


@pytest.fixture
def port() -> int:
    return free_port()


def test_messages_arrive_framed_whole_and_in_order(
    tmp_path: Path, certificates: Certificates, port: int
) -> None:
    server = SyslogServer(server_context(certificates.server_tls(ask_for_client=True)), port)
    syslog = SyslogSettings(
        host="127.0.0.1", port=port, tls=certificates.client_tls(show=certificates.client)
    )

    with audit_to(tmp_path, syslog, max_file_bytes=10_000) as audit:
        for number in range(30):
            audit.exported("root", f"object {number} é")
        wait_until(lambda: len(server.messages) >= 31, what="all messages arrive")
        assert audit.status()["syslog"]["connected"] is True
        assert audit.status()["syslog"]["waiting_bytes"] == 0
    wait_until(lambda: len(server.messages) >= 32, what="the stop arrives too")
    server.close()

    assert all(_HEADER.match(message) for message in server.messages)
    kept = [
        line for path in audit_files(tmp_path / "audit") for line in path.read_text().splitlines()
    ]
    assert len(audit_files(tmp_path / "audit")) > 1
    assert server.bodies == kept
    assert [fault for body in server.bodies for fault in faults_of(body)] == []
    assert "110120" in kept[0]
    assert "110121" in kept[-1]


def test_a_server_that_is_away_misses_nothing(
    tmp_path: Path, certificates: Certificates, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_syslog, "_LONGEST_PAUSE_S", 0.2)
    context = server_context(certificates.server_tls())
    syslog = SyslogSettings(host="127.0.0.1", port=port, tls=certificates.client_tls())
    told = [f"object {number:02d}" for number in range(20)]

    with audit_to(tmp_path, syslog) as audit:
        for what in told[:5]:
            audit.exported("root", what)
        wait_until(lambda: audit.status()["syslog"]["last_error"] != "", what="it is noticed")
        first = SyslogServer(context, port)
        wait_until(lambda: len(first.messages) >= 6, what="the first arrive")
        first.close()
        for what in told[5:10]:
            audit.exported("root", what)
        wait_until(lambda: audit.status()["syslog"]["last_error"] != "", what="it is noticed")
    # A node that stops and starts again goes on where the server had got to.
    with audit_to(tmp_path, syslog) as audit:
        for what in told[10:]:
            audit.exported("root", what)
        second = SyslogServer(context, port)
        wait_until(lambda: any(told[-1] in body for body in second.bodies), what="the last arrives")
    second.close()

    everything = "\n".join(first.bodies + second.bodies)
    assert [what for what in told if what not in everything] == []
    assert not any(told[-1] in body for body in first.bodies)


def test_a_server_that_cannot_show_who_it_is_gets_nothing(
    tmp_path: Path, certificates: Certificates, port: int
) -> None:
    tls = certificates.server_tls().model_copy(
        update={
            "certificate": certificates.elsewhere.certificate,
            "private_key": certificates.elsewhere.private_key,
        }
    )
    server = SyslogServer(server_context(tls), port)
    syslog = SyslogSettings(host="127.0.0.1", port=port, tls=certificates.client_tls())

    with audit_to(tmp_path, syslog) as audit:
        wait_until(lambda: audit.status()["syslog"]["last_error"] != "", what="it is noticed")
        assert "certificate is not good" in audit.status()["syslog"]["last_error"]
        assert audit.status()["syslog"]["waiting_bytes"] > 0
    server.close()

    assert server.messages == []


def test_plain_tcp_is_for_this_machine_alone(tmp_path: Path, port: int) -> None:
    with pytest.raises(ValueError, match="on this machine"):
        SyslogSettings(host="syslog.example", transport="tcp")
    server = SyslogServer(None, port)

    with audit_to(tmp_path, SyslogSettings(host="127.0.0.1", port=port, transport="tcp")):
        wait_until(lambda: len(server.messages) >= 1, what="the start arrives")
    server.close()


def test_what_a_server_took_and_never_read_comes_again(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as deaf:
        deaf.setattr(SyslogServer, "_read", lambda _server, _connection: None)
        first = SyslogServer(None, port)
        syslog = SyslogSettings(host="127.0.0.1", port=port, transport="tcp")
        with audit_to(tmp_path, syslog) as audit:
            audit.exported("root", "object 1")
            wait_until(lambda: audit.status()["syslog"]["waiting_bytes"] == 0, what="all is taken")
            first.close()
            deaf.undo()
            second = SyslogServer(None, port)
            wait_until(
                lambda: any("object 1" in body for body in second.bodies), what="it comes again"
            )
    second.close()
