"""The check of rows against files, and its repair: nothing is lost by it, and all is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import update

from node.intake import Arrival, content_digest
from node.repair import Repair
from storage import catalog
from storage.catalog import DeliveryState, FileState
from storage.database import Database
from storage.files import Area
from storage.soundness import Fault, FaultKind, faults_of, miscounts_of, wrong_contents
from storage.states import RecordingState, ResultKind, StudyState
from storage.tables import Instance, QuarantinedObject, Recording, Study, Tally
from tests.integration.test_life_of_a_study import House, a4c, found

OLD = -1.0  # no file is too young


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


def faults(house: House) -> list[Fault]:
    return list(faults_of(house.database, house.files, grace_s=OLD))


def deep(house: House) -> list[Fault]:
    return list(wrong_contents(house.database, house.files, content_digest))


def kinds(house: House) -> list[FaultKind]:
    return [fault.kind for fault in faults(house)]


def mend(house: House, *more: Fault) -> list[str]:
    repair = Repair(house.database, house.files)
    return [repair.mend(fault) for fault in (*faults(house), *more)]


def received(house: House) -> tuple[str, Path]:
    """A study with one clip: its UID, and the clip's file."""
    uid = generate_uid()
    house.receive(uid)
    return uid, house.files.path(house.detail(uid).recordings[0].file_key)


def reported(house: House) -> str:
    uid, _ = received(house)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.DELIVERING
    return uid


def test_a_sound_store_has_no_faults(house: House) -> None:
    reported(house)
    assert faults(house) == []
    assert deep(house) == []


def test_a_missing_image_is_marked_as_lost_and_taken_when_it_comes_again(
    house: House, tmp_path: Path
) -> None:
    uid, path = received(house)
    copy = tmp_path / "copy"
    shutil.copyfile(path, copy)
    path.unlink()
    assert kinds(house) == [FaultKind.MISSING]
    assert mend(house) == ["marked as lost; the sender's next copy is taken"]
    assert faults(house) == []
    with house.database.read() as session:
        assert session.query(Instance).one().file_state is FileState.LOST
    assert house.detail(uid).timeline[-1].kind == "file-lost"

    arriving = house.files.incoming_folder / "again"
    copy.rename(arriving)
    receipt = house.intake.receive(_arrival(arriving))
    assert receipt.comment == ""
    assert path.is_file()
    assert faults(house) == []
    assert house.detail(uid).timeline[-1].kind == "file-again"


def test_an_image_without_a_row_is_taken_in_again_and_its_study_goes_on(house: House) -> None:
    uid, path = received(house)
    with house.database.write() as session:
        session.delete(session.query(Study).filter_by(study_instance_uid=uid).one())
    assert kinds(house) == [FaultKind.STRAY]
    assert mend(house) == ["taken in again"]
    assert house.detail(uid).study.images == 1
    assert path.is_file()
    assert faults(house) == []


def test_what_is_no_dicom_object_goes_to_quarantine_and_not_away(house: House) -> None:
    key = house.files.write(Area.OBJECTS, "ab" * 32, b"not a DICOM object")
    assert kinds(house) == [FaultKind.STRAY]
    assert "in quarantine" in mend(house)[0]
    assert not house.files.path(key).exists()
    with house.database.read() as session:
        (row,) = catalog.list_quarantined(session)
    assert row.file_key is not None
    assert house.files.path(row.file_key).read_bytes() == b"not a DICOM object"
    assert faults(house) == []


def test_a_second_copy_of_what_is_kept_is_removed(house: House) -> None:
    _, path = received(house)
    key = house.files.write(Area.OBJECTS, "cd" * 32, path.read_bytes())
    assert mend(house) == ["kept already"]
    assert not house.files.path(key).exists()
    assert path.is_file()


def test_a_damaged_image_is_kept_in_quarantine_and_marked_as_lost(house: House) -> None:
    _, path = received(house)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    assert kinds(house) == [FaultKind.WRONG_SIZE]
    assert "the damaged file is in quarantine" in mend(house)[0]
    assert not path.exists()
    with house.database.read() as session:
        (row,) = catalog.list_quarantined(session)
        assert session.query(Instance).one().file_state is FileState.LOST
    assert house.files.path(str(row.file_key)).read_bytes() == whole[:-1000]
    assert faults(house) == []


def test_other_content_of_the_same_length_is_found_when_every_file_is_read(house: House) -> None:
    _, path = received(house)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert faults(house) == []
    (fault,) = deep(house)
    assert fault.kind is FaultKind.WRONG_DIGEST
    mend(house, fault)
    with house.database.read() as session:
        assert session.query(Instance).one().file_state is FileState.LOST


def test_a_file_that_its_row_gave_up_is_taken_back_where_it_is_whole(house: House) -> None:
    _, path = received(house)
    with house.database.write() as session:
        session.query(Instance).one().file_state = FileState.LOST
    assert kinds(house) == [FaultKind.THERE_AFTER_ALL]
    assert mend(house) == ["its row says so now"]
    assert faults(house) == []
    path.write_bytes(b"the rest of it")
    with house.database.write() as session:
        session.query(Instance).one().file_state = FileState.LOST
    assert mend(house) == ["in quarantine"]
    assert faults(house) == []


@pytest.mark.parametrize("lost", [{ResultKind.SR}, {ResultKind.SC}, set(ResultKind)])
def test_a_lost_result_that_nobody_has_yet_is_made_again(
    house: House, lost: set[ResultKind]
) -> None:
    uid = reported(house)
    for result in house.detail(uid).results:
        if result.kind in lost:
            house.files.delete(result.file_key)
    assert "it is made again: revision 2" in mend(house)
    assert house.state(uid) is StudyState.ANALYSING

    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()

    detail = house.detail(uid)
    assert detail.study.state is StudyState.DELIVERING
    current = {result.kind: result for result in detail.results if result.current}
    assert set(current) == {ResultKind.SR, ResultKind.SC}
    waiting = {d.result_id for d in detail.deliveries if d.state is DeliveryState.WAITING}
    assert waiting >= {result.id for result in current.values()}
    for result in current.values():
        assert house.files.path(result.file_key).is_file()
        assert result.file_state is FileState.KEPT
    assert faults(house) == []


def test_a_lost_result_that_every_destination_has_is_told_and_not_sent_again(
    house: House,
) -> None:
    uid = reported(house)
    with house.database.write() as session:
        for due in catalog.claim_due_deliveries(session, limit=10):
            catalog.record_delivered(session, due.delivery_id, "success", 0)
    assert house.state(uid) is StudyState.DONE
    for result in house.detail(uid).results:
        house.files.delete(result.file_key)
    assert mend(house) == ["no destination still waits for it"] * 2
    assert house.state(uid) is StudyState.DONE
    with (
        pytest.raises(catalog.CatalogError, match="the files of 2 of 2 results are lost since"),
        house.database.write() as session,
    ):
        catalog.resend(session, uid)


def test_a_lost_result_whose_clip_is_lost_too_is_made_when_the_study_came_again(
    house: House, tmp_path: Path
) -> None:
    uid = reported(house)
    source = house.files.path(house.detail(uid).recordings[0].file_key)
    copy = tmp_path / "copy"
    source.rename(copy)
    for result in house.detail(uid).results:
        house.files.delete(result.file_key)
    mend(house)
    assert house.state(uid) is StudyState.FAILED
    assert "lost here before it was sent" in house.detail(uid).study.reason
    with (
        pytest.raises(catalog.CatalogError, match=r"2 results lost, and .* send the study again"),
        house.database.write() as session,
    ):
        catalog.retry(session, uid)
    arriving = house.files.incoming_folder / "again"
    copy.rename(arriving)
    house.intake.receive(_arrival(arriving))
    with house.database.write() as session:
        assert catalog.retry(session, uid) is StudyState.ANALYSING
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.DELIVERING
    for result in house.detail(uid).results:
        assert not result.current or house.files.path(result.file_key).is_file()


def test_a_retry_of_clips_whose_files_are_gone_says_so(house: House) -> None:
    uid, path = received(house)
    path.unlink()
    mend(house)
    with house.database.write() as session:
        session.query(Recording).one().state = RecordingState.FAILED
    with (
        pytest.raises(catalog.CatalogError, match=r"of 1 of 1 clip are lost.*send the study again"),
        house.database.write() as session,
    ):
        catalog.retry(session, uid)


def test_a_result_without_a_row_goes_to_quarantine(house: House) -> None:
    house.files.write(Area.RESULTS, "ab" * 32, b"a report that was never sent")
    assert mend(house) == ["in quarantine"]
    with house.database.read() as session:
        assert "no study names" in catalog.list_quarantined(session)[0].reason
    assert faults(house) == []


def test_half_received_files_are_removed(house: House) -> None:
    path = house.files.incoming_folder / "dimse-half"
    path.write_bytes(b"half")
    assert kinds(house) == [FaultKind.LEFTOVER]
    assert mend(house) == ["removed"]
    assert not path.exists()


def test_what_is_young_is_left_alone(house: House) -> None:
    house.files.write(Area.OBJECTS, "ab" * 32, b"on its way to its row")
    (house.files.incoming_folder / "dimse-half").write_bytes(b"half")
    assert list(faults_of(house.database, house.files)) == []


def test_one_of_two_rows_in_quarantine_can_go_without_the_other(house: House) -> None:
    key = house.files.write(Area.QUARANTINE, "ab" * 32, b"twice")
    with house.database.write() as session:
        for _ in range(2):
            session.add(
                QuarantinedObject(
                    received_at=house.now, reason="no", status_sent=0xC001, file_key=key,
                    size_bytes=5,
                )
            )  # fmt: skip
        session.flush()
        assert catalog.remove_quarantined(session, 1).file_key is None
        assert catalog.remove_quarantined(session, 2).file_key == key


def test_the_command_says_what_it_found_and_what_it_did(house: House, tmp_path: Path) -> None:
    """By the command line, beside the database in use."""
    _, path = received(house)
    path.unlink()
    old = house.files.incoming_folder / "dimse-half"
    old.write_bytes(b"half")
    config = tmp_path / "echonode.toml"
    config.write_text(
        f'data_dir = "{tmp_path / "store"}"\ndatabase_url = "sqlite:///{tmp_path}/echonode.db"\n'
    )

    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "--config", str(config),
         "db", "check", "--repair", "--deep", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout)

    assert (done.returncode, told["ok"]) == (0, True)
    assert [fault["kind"] for fault in told["faults"]] == ["missing"], "what is young stays"
    assert told["faults"][0]["mended"].startswith("marked as lost")
    assert "store-mended" in done.stderr
    old.unlink()
    assert faults(house) == []


def _arrival(path: Path) -> Arrival:
    return Arrival(path=path, door="test")


def test_a_wrong_count_is_told_and_counted_anew(house: House) -> None:
    received(house)
    with house.database.write() as session:
        session.execute(update(Tally).values(number=Tally.number + 3))
    wrong = list(miscounts_of(house.database))
    assert {fault.kind for fault in wrong} == {FaultKind.COUNT}

    assert set(mend(house, *wrong)) == {"counted anew"}
    assert list(miscounts_of(house.database)) == []
