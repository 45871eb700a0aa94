"""What is taken out of a request to associate is refused as the library would refuse it."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.doors import transport
from node.doors.proposal import without_unknown
from node.doors.scp import DimseDoor
from node.intake import Intake
from node.sections import DimseSettings
from storage.database import Database
from storage.files import FolderStore
from tests.raw_peer import ASSOCIATE_AC, ULTRASOUND, VERIFICATION, RawPeer, associate_request

MAMMOGRAPHY, MAGNETIC = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PROPOSED = (MAGNETIC, ULTRASOUND, MAMMOGRAPHY, VERIFICATION, MAGNETIC)


@pytest.fixture
def port(database: Database, tmp_path: Path):
    files = FolderStore(tmp_path)
    door = DimseDoor(DimseSettings(port=0), Intake(database, files), str(files.incoming_folder))
    door.start()
    yield door.port
    door.stop()


def answer(port: int, request: bytes) -> tuple[int, bytes]:
    with RawPeer(port) as peer:
        peer.send(request)
        return peer.receive()


def test_the_answer_is_the_same_as_without_it(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = answer(port, associate_request(PROPOSED))
    monkeypatch.setattr(transport, "without_unknown", lambda request, _known: (request, b""))
    theirs = answer(port, associate_request(PROPOSED))

    assert ours[0] == ASSOCIATE_AC
    assert ours == theirs
    assert (
        MAMMOGRAPHY.encode()
        not in without_unknown(associate_request(PROPOSED), {ULTRASOUND.encode()})[0]
    )
