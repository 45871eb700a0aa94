"""What is kept of ECGs: their way through the queue, what was found, and reports of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from storage import catalog
from storage.catalog import (
    CatalogError,
    ClaimedRecording,
    FindingRecord,
    NewInstance,
    PackRunRecord,
    ReadingRecord,
    RecordingKind,
    RecordingState,
    ResultKind,
)
from storage.database import Database, migrate, open_database
from tests.unit.storage_steps import (
    STUDY,
    WEIGHTS,
    analyse,
    claim,
    clip,
    complete,
    detail,
    later,
    name_views,
    receive,
    result,
)

pytestmark = pytest.mark.both_databases

AF = FindingRecord(
    output="atrial_fibrillation",
    kind="score",
    value=0.91,
    unit="{score}",
    score=0.91,
    threshold=0.4,
    method="classification",
    evidence="patients",
    pack="ecg-rhythm",
    pack_version="1.0",
    weights_sha256=WEIGHTS,
    spans_ms=((4210.0, 4350.5), (120.0, 260.0)),
)
RHYTHM = PackRunRecord(pack="ecg-rhythm", version="1.0", weights_sha256=WEIGHTS)
READ = ReadingRecord(
    pack="ecg-rhythm", signal="rhythm", group=1, channels=(1, 2, 4), begin_ms=0.0, end_ms=10_000.0
)


def ecg(number: int) -> NewInstance:
    return clip(number, recording_kind=RecordingKind.ECG)


def taken(database: Database) -> ClaimedRecording:
    claimed = claim(database)
    assert claimed is not None
    return claimed


def until_analysed(database: Database) -> None:
    receive(database, ecg(1))
    complete(database)
    claimed = taken(database)
    with database.write() as session:
        catalog.record_analysis(
            session,
            claimed.recording_id,
            [AF],
            [],
            [RHYTHM],
            troubles=["lead V6 is flat", "limb leads look swapped."],
            readings=[READ],
            pages=["atrial_fibrillation"],
            now=later(40),
        )


def test_an_ecg_has_no_view_to_be_named_and_waits_to_be_analysed(database: Database) -> None:
    receive(database, clip(1), ecg(2))
    complete(database)
    states = {one.kind: one.state for one in detail(database).recordings}
    assert states[RecordingKind.ULTRASOUND] is RecordingState.TO_VIEW
    assert states[RecordingKind.ECG] is RecordingState.QUEUED
    name_views(database)
    assert {taken(database).state for _ in range(2)} == {RecordingState.ANALYSING}


def test_an_ecg_that_is_read_ahead_is_analysed_and_waits_for_that_after_a_stop(
    database: Database,
) -> None:
    receive(database, ecg(1))
    with database.write() as session:
        claimed = catalog.claim_next(session, "worker 1", later(1), [RecordingState.RECEIVED])
    assert claimed is not None
    assert claimed.state is RecordingState.ANALYSING
    with database.write() as session:
        assert catalog.requeue_interrupted(session) == 1
    (recording,) = detail(database).recordings
    assert recording.state is RecordingState.QUEUED


def test_what_was_said_of_an_ecg_comes_back_with_its_troubles_and_what_was_read(
    database: Database,
) -> None:
    until_analysed(database)
    (recording,) = detail(database).recordings
    assert recording.findings == (AF,)
    assert recording.troubles == ("lead V6 is flat", "limb leads look swapped.")
    assert recording.readings == (READ,)
    assert recording.pages == ("atrial_fibrillation",)
    (line,) = [one.message for one in detail(database).timeline if one.kind == "recording-done"]
    assert line == (
        "ECG: analysed by 1 pack: 1 finding, 0 refusals; "
        "not to be trusted: lead V6 is flat; limb leads look swapped"
    )


def test_an_ecg_that_cannot_be_read_is_refused_alone(database: Database) -> None:
    receive(database, clip(1), ecg(2))
    complete(database)
    claimed = next(one for one in (taken(database), taken(database)) if one.kind.value == "ecg")
    with database.write() as session:
        catalog.refuse_recording(session, claimed.recording_id, "it has no leads", now=later(40))
    clip_, ecg_ = detail(database).recordings
    assert (ecg_.state, ecg_.reason) == (RecordingState.REFUSED, "it has no leads")
    assert clip_.state is RecordingState.VIEWING
    assert "ECG: cannot be read: it has no leads" in [
        line.message for line in detail(database).timeline
    ]


def test_a_retry_of_an_ecg_analyses_it_and_names_no_view(database: Database) -> None:
    receive(database, ecg(1))
    study_id = complete(database)
    claimed = taken(database)
    with database.write() as session:
        catalog.record_failure(session, claimed.recording_id, "it died", 1, now=later(40))
        catalog.fail_study(session, study_id, "1 of 1 failed", "retry", now=later(41))
        catalog.retry(session, STUDY, now=later(42))
    assert detail(database).recordings[0].state is RecordingState.QUEUED


def test_a_study_of_clips_and_ecgs_has_a_newest_report_of_each(database: Database) -> None:
    receive(database, clip(1), ecg(2))
    study_id = complete(database)
    name_views(database)
    analyse(database)
    of_clips = result("echo", ResultKind.SR)
    of_ecgs = replace(result("ecg", ResultKind.SR), subject=RecordingKind.ECG)
    with database.write() as session:
        catalog.begin_reporting(session, study_id)
        catalog.add_results(session, study_id, 1, [of_clips, of_ecgs], ["pacs"], now=later(50))
        newest = catalog.current_report(session, study_id)
        of_ecg = catalog.current_report(session, study_id, RecordingKind.ECG)
    assert newest is not None
    assert newest.sop_instance_uid == of_clips.sop_instance_uid
    assert of_ecg is not None
    assert of_ecg.sop_instance_uid == of_ecgs.sop_instance_uid
    assert of_ecg.subject is RecordingKind.ECG


def test_findings_of_an_earlier_version_stay_both_ways_and_ecgs_wait_as_they_did(
    database: Database, database_url: str
) -> None:
    until_analysed(database)
    receive(database, clip(7, recording_kind=RecordingKind.ECG, study_instance_uid="1.2.7"))
    complete(database, "1.2.7")
    database.close()
    migrate(database_url, "0011")
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        found = connection.execute(text("SELECT output, value FROM finding")).all()
        states = connection.execute(text("SELECT state FROM recording ORDER BY id")).scalars().all()
        columns = {
            column["name"]
            for table in ("finding", "recording", "result")
            for column in inspect(connection).get_columns(table)
        }
    assert found == [("atrial_fibrillation", 0.91)]
    assert states == ["done", "to_view"]
    assert not columns & {"spans_ms", "troubles", "readings", "pages", "subject"}
    migrate(database_url)
    again = open_database(database_url)
    (recording,) = detail(again).recordings
    with again.read() as session:
        (other,) = catalog.study_detail(session, "1.2.7").recordings
        assert not catalog.wrong_tallies(session)
    again.close()
    assert recording.findings == (replace(AF, spans_ms=()),)
    assert (recording.troubles, recording.readings, recording.pages) == ((), (), ())
    assert other.state is RecordingState.QUEUED


def test_an_ecg_that_nobody_took_gets_no_outcome(database: Database) -> None:
    receive(database, ecg(1))
    complete(database)
    recording_id = detail(database).recordings[0].id
    with database.write() as session, pytest.raises(CatalogError):
        catalog.record_analysis(session, recording_id, [AF], [], [RHYTHM])
