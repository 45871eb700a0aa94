"""A node on a volume that takes no socket: it starts, is there, and says why it has no window."""

from __future__ import annotations

from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made from a table
from structlog.testing import capture_logs

from node.window import SOCKET_NAME, look_in
from tests.light_node import light_node
from tests.peers import free_port


def test_it_starts_and_stops_and_its_doors_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    port = free_port()

    def refuses(_window: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("node.window.Window.start", refuses)
    with capture_logs() as said, light_node(monkeypatch, data, dimse={"port": port}):
        assert not (data / SOCKET_NAME).exists()
        assert look_in(data) is None
        caller = AE("CART")
        caller.add_requested_context(Verification)
        association = caller.associate("127.0.0.1", port)
        assert association.is_established
        assert association.send_c_echo().Status == 0x0000
        association.release()

    (warned,) = (line for line in said if line["event"] == "no-window")
    assert warned["reason"] == "Operation not permitted"
