"""A stop is soon over, whatever archives do, and the service manager hears of it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, AllStoragePresentationContexts, evt

from node.app import run
from node.delivery.dimse import DimseSender
from node.delivery.lines import Lines
from node.delivery.stow import StowSender
from node.jobs import Jobs
from node.sections import DicomwebDestination, DimseDestination
from node.service import tell
from node.settings import load_settings
from node.tls import server_context
from storage import catalog
from storage.database import Database
from storage.states import DeliveryState
from tests.certificates import Certificates
from tests.faults.light import ThreadedWorkers
from tests.outbox_steps import Studies
from tests.peers import free_port

pytestmark = [
    # The network library leaves the socket of a failed association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

GRACE_S = 0.3


class Deaf:
    """Takes a connection and never says a word, or speaks TLS and then says no word."""

    def __init__(self, tls: Any = None) -> None:
        self.heard = threading.Event()
        self._tls = tls
        self._taken: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]

    def serve(self) -> None:
        try:
            while True:
                taken, _ = self._listening.accept()
                if self._tls is not None:
                    taken = self._tls.wrap_socket(taken, server_side=True)
                self._taken.append(taken)
                if taken.recv(1):
                    self.heard.set()
        except OSError:
            return  # the test is over

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for taken in self._taken:
            taken.close()


@contextmanager
def deaf(tls: Any = None) -> Iterator[Deaf]:
    peer = Deaf(tls)
    thread = threading.Thread(target=peer.serve, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.close()
        thread.join(10)


class Quiet:
    """A lifecycle in which nothing happens."""

    def complete_quiet(self) -> None: ...

    def report_ready(self) -> None: ...


@pytest.fixture
def studies(database: Database, tmp_path: Path) -> Studies:
    return Studies(database, tmp_path)


def stopped_while_waiting(
    studies: Studies, peer: Any, sender: Any, lines: Lines
) -> list[catalog.DeliveryRecord]:
    """Stop the clock while an answer is awaited; gives what waited for it."""
    outbox = studies.outbox({"pacs": sender})
    uid = studies.add("pacs", results=2)
    jobs = Jobs(
        Quiet(),  # type: ignore[arg-type]
        outbox,
        heartbeat=lambda: None,
        sweep=lambda: None,
        hang_up=lines.hang_up,
        grace_s=GRACE_S,
    )
    jobs.start()
    assert peer.heard.wait(30)
    outbox.stop()
    before = time.monotonic()
    jobs.stop()
    assert time.monotonic() - before < 25, "an association is waited for 30 s, an answer 90 s"
    waiting = studies.detail(uid).deliveries
    assert [delivery.state for delivery in waiting] == [DeliveryState.WAITING] * 2
    return list(waiting)


def test_a_stop_does_not_wait_for_an_archive_that_says_nothing(studies: Studies) -> None:
    lines = Lines()
    with deaf() as peer:
        destination = DimseDestination(
            name="pacs", kind="dimse", host="127.0.0.1", port=peer.port, ae_title="PACS",
            timeout_s=90,
        )  # fmt: skip
        sender = DimseSender(destination, "ECHONODE", lines=lines)
        stopped_while_waiting(studies, peer, sender, lines)


def test_nor_for_one_that_takes_an_object_and_never_answers(studies: Studies) -> None:
    class Archive:
        heard = threading.Event()

    let_go = threading.Event()

    def store(_event: evt.Event) -> int:
        Archive.heard.set()
        let_go.wait(60)
        return 0

    entity = AE("PACS")
    entity.supported_contexts = AllStoragePresentationContexts
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    lines = Lines()
    destination = DimseDestination(
        name="pacs", kind="dimse", host="127.0.0.1", port=port, ae_title="PACS", timeout_s=90
    )
    try:
        sender = DimseSender(destination, "ECHONODE", lines=lines)
        first, _ = stopped_while_waiting(studies, Archive, sender, lines)
    finally:
        let_go.set()
        assert server is not None
        server.shutdown()
    assert "it may have the object" in first.last_answer, "looked for before it is sent again"


@pytest.mark.parametrize("secure", [False, True])
def test_nor_for_one_that_is_spoken_to_by_the_web(
    studies: Studies, certificates: Certificates, secure: bool
) -> None:
    lines = Lines()
    with deaf(server_context(certificates.server_tls()) if secure else None) as peer:
        scheme = "https" if secure else "http"
        destination = DicomwebDestination.model_validate({
            "name": "pacs", "kind": "dicomweb", "timeout_s": 90,
            "url": f"{scheme}://localhost:{peer.port}/dicom-web",
            **({"tls": {"authorities": certificates.authority}} if secure else {}),
        })  # fmt: skip
        sender = StowSender(destination, lines=lines)
        stopped_while_waiting(studies, peer, sender, lines)


def test_after_a_stop_whoever_calls_is_cut_off_at_once() -> None:
    lines = Lines()
    lines.hang_up()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines.add(ours, ours)
        assert theirs.recv(1) == b""


def test_the_service_manager_hears_of_start_life_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.app.WorkerProcesses", ThreadedWorkers)
    monkeypatch.setattr("node.jobs._ALIVE_S", 0.2)
    config = tmp_path / "echonode.toml"
    config.write_text(
        f'data_dir = "data"\n[dimse]\nport = {free_port()}\n[http]\nenabled = false\n'
        "[analysis]\nworkers = 1\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        heard: list[str] = []

        def listen() -> None:
            while "STOPPING=1" not in heard:
                heard.append(manager.recv(100).decode())
                if heard.count("WATCHDOG=1") == 2:
                    os.kill(os.getpid(), signal.SIGTERM)

        listening = threading.Thread(target=listen)
        listening.start()
        run(load_settings(config))
        listening.join(30)
    assert heard[0] in ("READY=1", "WATCHDOG=1")
    assert "READY=1" in heard
    assert heard[-1] == "STOPPING=1"


def test_nobody_is_told_where_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not tell("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not tell("READY=1")


def test_the_abstract_name_space_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"echonode-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert tell("READY=1", "STATUS=well")
        assert manager.recv(100) == b"READY=1\nSTATUS=well"
