"""A whole node that starts with results in its outbox, and Orthanc, which promises to keep them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database import Database
from storage.files import FolderStore
from tests.outbox_steps import Studies
from tests.peers import free_port, orthanc, wait_until
from tests.running_node import RunningNode


@pytest.fixture
def database(tmp_path: Path, _empty_database: Path) -> Iterator[Database]:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    shutil.copyfile(_empty_database, folder / "echonode.db")
    opened = Database(f"sqlite:///{folder / 'echonode.db'}")
    yield opened
    opened.close()


def test_a_node_delivers_what_waits_and_takes_the_archives_word_by_its_own_door(
    database: Database, tmp_path: Path
) -> None:
    studies = Studies(database, tmp_path)
    studies.files = FolderStore(tmp_path / "data")  # the node's own
    uid = studies.add("orthanc", results=3)
    port = free_port()
    with orthanc(tmp_path / "orthanc", modalities={"ECHONODE": port}) as archive:
        node = RunningNode(tmp_path, [archive], port=port)
        with node.serving():
            wait_until(
                lambda: studies.detail(uid).study.state == "done",
                what="the study is done",
                timeout_s=180,
            )

    deliveries = studies.detail(uid).deliveries
    assert {item.promise for item in deliveries} == {"committed"}
