"""What the network library is kept from: waiting for a thread that will never say that it waits."""

from __future__ import annotations

import threading

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made from a table

from node.delivery import association as mended


def test_only_an_associations_own_thread_says_that_it_waits_and_one_that_ended_does() -> None:
    assert mended.Caller is not None  # the module mends the library when it is imported
    server = AE("PEER")
    server.add_supported_context(Verification)
    handlers = [(evt.EVT_C_ECHO, lambda _event: 0)]
    listening = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    entity = AE("NODE")
    entity.add_requested_context(Verification)
    line = entity.associate("127.0.0.1", listening.server_address[1])
    assert isinstance(line, Association)
    assert line.is_established

    line._reactor_checkpoint.clear()
    paused = threading.Event()
    while not line._is_paused:
        paused.wait(0.001)
    line._is_paused = False  # as a thread that has served a report does
    assert line._is_paused
    line._reactor_checkpoint.set()
    assert line.send_c_echo().Status == 0

    line.abort()
    line.join(10)
    assert line._is_paused
    listening.shutdown()
