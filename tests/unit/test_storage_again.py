"""Objects whose file is gone: the next copy is kept, and the row says so. Clocks set back."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from node.intake import Arrival, Intake, Receipt, Status
from storage import catalog
from storage.catalog import DeliveryState, FileState
from storage.database import Database, DatabaseError
from storage.files import FolderStore
from storage.tables import Delivery, Instance
from tests.running_node import REAL_CINE, variant
from tests.unit.storage_steps import (
    NOW,
    clip,
    complete,
    detail,
    kinds,
    later,
    receive,
    until_delivering,
)


class Door:
    """Hands files to an intake, as a door would."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.files = FolderStore(folder / "store")
        self.folder = folder
        self.intake = Intake(database, self.files)

    def bring(self, source: Path) -> Receipt:
        arriving = self.files.incoming_folder / generate_uid()
        shutil.copyfile(source, arriving)
        return self.intake.receive(Arrival(path=arriving, door="dimse", calling_ae="CART"))


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Door:
    return Door(database, tmp_path)


def only_instance(database: Database) -> catalog.InstanceRecord:
    with database.read() as session:
        uids = session.query(Instance.sop_instance_uid).all()
        assert len(uids) == 1
        found = catalog.find_instance(session, uids[0][0])
    assert found is not None
    return found


def say(database: Database, state: FileState) -> None:
    with database.write() as session:
        session.query(Instance).one().file_state = state


@pytest.mark.both_databases
@pytest.mark.parametrize("state", [FileState.REMOVED, FileState.LOST, FileState.REMOVING])
def test_an_object_whose_file_is_gone_is_kept_again_when_it_comes_again(
    door: Door, database: Database, state: FileState
) -> None:
    assert door.bring(REAL_CINE).status == Status.SUCCESS
    first = only_instance(database)
    if state is not FileState.REMOVING:
        door.files.delete(first.file_key)
    say(database, state)

    receipt = door.bring(REAL_CINE)

    again = only_instance(database)
    assert (receipt.status, receipt.comment) == (Status.SUCCESS, "")
    assert again.file_state is FileState.KEPT
    assert door.files.path(again.file_key).stat().st_size == again.size_bytes
    assert kinds(database, again.study_instance_uid)[-1] == "file-again"
    assert door.bring(REAL_CINE).comment == "already kept"


def test_an_object_whose_file_is_missing_or_cut_short_is_kept_again_too(
    door: Door, database: Database
) -> None:
    door.bring(REAL_CINE)
    first = only_instance(database)
    os.truncate(door.files.path(first.file_key), 1000)

    assert door.bring(REAL_CINE).comment == ""
    again = only_instance(database)
    assert door.files.path(again.file_key).stat().st_size == again.size_bytes
    door.files.delete(again.file_key)
    assert door.bring(REAL_CINE).comment == ""
    assert door.files.path(only_instance(database).file_key).is_file()


@pytest.mark.both_databases
def test_another_encoding_is_taken_where_the_first_copy_is_gone(
    door: Door, database: Database, tmp_path: Path
) -> None:
    source = variant(tmp_path, StudyDescription="one")
    door.bring(source)
    first = only_instance(database)
    door.files.delete(first.file_key)
    say(database, FileState.LOST)
    other = variant(
        tmp_path,
        study_uid=first.study_instance_uid,
        StudyDescription="two",
        SOPInstanceUID=first.sop_instance_uid,
    )

    assert door.bring(other).status == Status.SUCCESS
    again = only_instance(database)
    assert again.content_sha256 != first.content_sha256
    assert again.file_state is FileState.KEPT
    with database.read() as session:
        assert catalog.list_quarantined(session) == ()


def test_a_file_that_goes_while_its_object_is_kept_again_is_not_acknowledged(
    door: Door, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.bring(REAL_CINE)
    first = only_instance(database)
    say(database, FileState.REMOVING)
    find = catalog.find_instance
    asked = []

    def retention_is_faster(*arguments: object) -> object:
        asked.append(arguments)
        if len(asked) == 2:  # within the transaction that would say that it is there
            door.files.delete(first.file_key)
        return find(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "find_instance", retention_is_faster)
    assert door.bring(REAL_CINE).status == Status.OUT_OF_RESOURCES
    monkeypatch.undo()
    assert only_instance(database).file_state is FileState.REMOVING
    assert door.bring(REAL_CINE).status == Status.SUCCESS


def test_a_database_that_was_moved_away_takes_nothing_until_it_is_back(
    database: Database, tmp_path: Path
) -> None:
    receive(database, clip(1))
    place, away = tmp_path / "echonode.db", tmp_path / "away.db"
    place.rename(away)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="unable to open database file; see that"):
            receive(database, clip(2))
    assert not place.exists(), "an empty one would take the place of the real one"
    away.rename(place)
    receive(database, clip(2))
    assert detail(database).study.images == 2


def test_a_database_that_was_restored_from_a_copy_is_the_one_that_is_used(
    database: Database, tmp_path: Path
) -> None:
    receive(database, clip(1))
    database.close()
    copy = tmp_path / "copy.db"
    shutil.copyfile(tmp_path / "echonode.db", copy)
    receive(database, clip(2))
    for name in ("echonode.db-wal", "echonode.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    copy.replace(tmp_path / "echonode.db")
    receive(database, clip(3))
    numbers = {item.sop_instance_uid[-1] for item in detail(database).recordings}
    assert numbers == {"1", "3"}


@pytest.mark.both_databases
def test_after_the_clock_was_set_back_nothing_waits_until_it_has_caught_up(
    database: Database,
) -> None:
    until_delivering(database)
    with database.write() as session:
        due = catalog.claim_due_deliveries(session, later(50))
        catalog.record_delivery_retry(
            session,
            due[0].delivery_id,
            "busy",
            0xA700,
            later(50),
            next_attempt_at=later(60),
        )
    receive(database, clip(9, study_instance_uid="1.2.9"), clip(8, study_instance_uid="1.2.8"))
    complete(database, "1.2.8")
    earlier = NOW - timedelta(days=1)

    def completable() -> int:
        with database.read() as session:
            at = earlier + timedelta(seconds=60)
            return len(catalog.studies_to_complete(session, at, 30, 10, 3600))

    assert completable() == 0
    with database.read() as session:
        newest = catalog.newest_time(session)
    assert newest == NOW
    with database.write() as session:
        assert catalog.mend_times(session, earlier, longest_pause_s=900) == 3
        assert catalog.mend_times(session, earlier, longest_pause_s=900) == 0
    assert completable() == 1
    with database.write() as session:
        (delivery,) = session.query(Delivery)
        assert delivery.state is DeliveryState.WAITING
        assert catalog.claim_due_deliveries(session, earlier)
