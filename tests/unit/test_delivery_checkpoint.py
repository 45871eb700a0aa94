"""An association's own thread rests while another talks to the peer, and takes no answer away."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from node.delivery.association import Checkpoint
from tests.peers import wait_until


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads take turns a thousand times as often, so that each order is met."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_switched")
def test_a_thread_that_was_let_go_on_and_has_not_run_yet_does_not_pass_later() -> None:
    checkpoint = Checkpoint()
    passed = [0]
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            checkpoint.wait()
            passed[0] += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        for turn in range(300):
            checkpoint.clear()
            before = passed[0]
            time.sleep(0.0005)
            assert passed[0] == before
            checkpoint.set()
            if turn % 3 == 0:  # between the others it has no time to run
                wait_until(
                    lambda before=before: passed[0] > before, what="it goes on", pause_s=0.0001
                )
    finally:
        over.set()
        checkpoint.set()
        thread.join(5)
    assert passed[0] >= 100


def test_a_thread_that_has_ended_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.delivery.association._LONGEST_TURN_S", 0.01)
    checkpoint = Checkpoint()
    checkpoint.set()

    checkpoint.clear()

    assert not checkpoint.is_set()


@pytest.mark.usefixtures("often_switched")
def test_every_association_of_the_library_has_one_and_its_answers_arrive() -> None:
    entity = AE()
    entity.add_supported_context(Verification)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda _event: 0x0000)]
    )
    assert server is not None
    caller = AE()
    caller.add_requested_context(Verification)
    try:
        association = caller.associate("127.0.0.1", server.server_address[1])
        assert isinstance(association._reactor_checkpoint, Checkpoint)
        statuses = [association.send_c_echo().get("Status") for _ in range(100)]
        association.release()
    finally:
        server.shutdown()
    assert statuses == [0x0000] * 100
