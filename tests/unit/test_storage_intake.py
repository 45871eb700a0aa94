"""Instances into studies: completion, late images, and what never opens a revision."""

from __future__ import annotations

import pytest

from storage import catalog
from storage.catalog import CatalogError, InstanceExistsError, RecordingState, StudyState
from storage.database import Database
from tests.unit.storage_steps import (
    NOW,
    STUDY,
    analyse,
    claim,
    clip,
    complete,
    deliver,
    detail,
    kinds,
    later,
    name_views,
    receive,
    report,
    result,
    until_delivering,
)

pytestmark = pytest.mark.both_databases


def due(database: Database, at: float) -> list[str]:
    with database.read() as session:
        complete = catalog.studies_to_complete(
            session, later(at), quiet_s=30, released_quiet_s=5, max_age_s=600
        )
    return [study.reason for study in complete]


def test_the_first_instance_opens_its_study_with_a_line_in_the_timeline(
    database: Database,
) -> None:
    (kept,) = receive(database, clip(1, accession_number="A1", description="TTE"))
    shown = detail(database)
    assert shown.study.state is StudyState.RECEIVING
    assert (shown.study.revision, shown.study.images) == (1, 1)
    assert (shown.study.accession_number, shown.study.description) == ("A1", "TTE")
    assert shown.study.first_image_at == shown.study.last_image_at == NOW
    assert [event.kind for event in shown.timeline] == ["study-opened"]
    assert kept.study_id == shown.study.id
    assert [recording.id for recording in shown.recordings] == [kept.recording_id]


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    receive(database, clip(1))
    came = detail(database).study.first_image_at
    assert came == NOW
    assert came.utcoffset() is not None
    assert came.microsecond == NOW.microsecond


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="has no zone"):
        receive(database, clip(1, received_at=NOW.replace(tzinfo=None)))


def test_an_instance_is_found_by_its_uid_and_by_no_other(database: Database) -> None:
    (kept,) = receive(database, clip(1))
    with database.read() as session:
        assert catalog.find_instance(session, kept.sop_instance_uid) == kept
        assert catalog.find_instance(session, "1.2.3") is None


def test_the_same_uid_a_second_time_is_told_with_what_is_kept(database: Database) -> None:
    (kept,) = receive(database, clip(1))
    with pytest.raises(InstanceExistsError) as told:
        receive(database, clip(1, content_sha256="f" * 64))
    assert told.value.existing == kept
    assert detail(database).study.images == 1


def test_more_images_while_receiving_stay_in_the_revision(database: Database) -> None:
    receive(database, clip(1), clip(2, received_at=later(10)))
    study = detail(database).study
    assert (study.revision, study.images, study.last_image_at) == (1, 2, later(10))
    assert kinds(database) == ["study-opened"]


def test_a_study_is_complete_after_the_quiet_time_and_not_before(database: Database) -> None:
    receive(database, clip(1), clip(2, received_at=later(20)))
    assert due(database, 49) == []
    assert due(database, 51) == ["no image for 31 s"]


def test_a_released_association_makes_the_quiet_time_shorter(database: Database) -> None:
    receive(database, clip(1))
    with database.write() as session:
        catalog.note_released(session, [STUDY], later(2))
    assert due(database, 6) == []
    assert due(database, 8) == ["association released and no image for 6 s since"]


def test_an_image_after_the_release_asks_for_the_whole_quiet_time_again(
    database: Database,
) -> None:
    receive(database, clip(1))
    with database.write() as session:
        catalog.note_released(session, [STUDY], later(2))
    receive(database, clip(2, received_at=later(3)))
    assert due(database, 20) == []
    assert due(database, 33) == ["no image for 30 s"]


def test_a_study_that_never_becomes_quiet_is_complete_at_its_maximum_age(
    database: Database,
) -> None:
    receive(database, *(clip(number, received_at=later(number * 20)) for number in range(31)))
    assert due(database, 599) == []
    assert due(database, 601) == ["first image came 601 s ago; no longer waited for more"]


def test_the_maximum_age_of_a_later_revision_counts_from_its_own_first_image(
    database: Database,
) -> None:
    receive(database, clip(1))
    complete(database)
    receive(database, clip(2, received_at=later(1000)))
    assert due(database, 1001) == []
    assert due(database, 1031) == ["no image for 31 s"]


def test_completion_lets_the_recordings_wait_for_a_worker(database: Database) -> None:
    receive(database, clip(1), clip(2))
    assert claim(database) is None
    complete(database)
    shown = detail(database)
    assert shown.study.state is StudyState.ANALYSING
    assert shown.study.reason == "no image for 30 s"
    assert {recording.state for recording in shown.recordings} == {RecordingState.TO_VIEW}
    assert shown.timeline[-1].details == {"revision": 1, "recordings": 2}


def test_a_study_without_recordings_is_ignored_with_the_reason(database: Database) -> None:
    receive(database, clip(1, recording_kind=None))
    complete(database)
    study = detail(database).study
    assert study.state is StudyState.IGNORED
    assert study.reason == "no image for 30 s; no object in it that a model could look at"


def test_a_study_is_completed_once(database: Database) -> None:
    receive(database, clip(1))
    complete(database)
    with pytest.raises(CatalogError, match="is analysing, which analysing cannot follow"):
        complete(database)


@pytest.mark.parametrize("state", ["analysing", "reporting", "delivering", "done", "failed"])
def test_a_late_image_opens_revision_2_wherever_the_study_is(
    database: Database, state: str
) -> None:
    receive(database, clip(1))
    study_id = complete(database)
    if state != "analysing":
        name_views(database)
        analyse(database)
    if state == "reporting":
        with database.write() as session:
            catalog.begin_reporting(session, study_id)
    elif state != "analysing":
        report(database, result("report 1"))
    if state in ("done", "failed"):
        deliver(database, fails=["pacs"] if state == "failed" else [])
    assert detail(database).study.state == state

    receive(database, clip(2, received_at=later(100)))

    shown = detail(database)
    assert (shown.study.state, shown.study.revision) == (StudyState.RECEIVING, 2)
    assert shown.timeline[-1].kind == "revision-opened"
    assert [recording.revision for recording in shown.recordings] == [1, 2]


def test_a_late_image_opens_revision_2_of_an_ignored_study(database: Database) -> None:
    receive(database, clip(1, recording_kind=None))
    complete(database)
    receive(database, clip(2, received_at=later(100)))
    assert detail(database).study.revision == 2
    assert detail(database).study.state is StudyState.RECEIVING


def test_two_late_images_open_one_revision(database: Database) -> None:
    until_delivering(database)
    receive(database, clip(2, received_at=later(100)), clip(3, received_at=later(101)))
    assert detail(database).study.revision == 2
    assert kinds(database).count("revision-opened") == 1


def test_recordings_of_the_first_revision_are_not_looked_at_again(database: Database) -> None:
    until_delivering(database)
    receive(database, clip(2, received_at=later(100)))
    complete(database, at=130)
    states = [recording.state for recording in detail(database).recordings]
    assert states == [RecordingState.DONE, RecordingState.TO_VIEW]


def test_a_late_object_that_no_model_can_look_at_is_kept_and_changes_nothing(
    database: Database,
) -> None:
    until_delivering(database)
    deliver(database)
    receive(database, clip(2, recording_kind=None, received_at=later(100)))
    study = detail(database).study
    assert (study.state, study.revision, study.images) == (StudyState.DONE, 1, 2)
    assert kinds(database)[-1] == "late-object"


def test_the_nodes_own_objects_open_nothing_and_are_never_analysed(database: Database) -> None:
    until_delivering(database)
    deliver(database)
    before = kinds(database)
    (kept,) = receive(database, clip(2, own=True, received_at=later(100)))
    shown = detail(database)
    assert kept.recording_id is None
    assert (shown.study.state, shown.study.revision) == (StudyState.DONE, 1)
    assert shown.study.images == 1
    assert kinds(database) == before


def test_an_own_object_does_not_put_off_completion(database: Database) -> None:
    receive(database, clip(1), clip(2, own=True, received_at=later(29)))
    assert due(database, 31) == ["no image for 31 s"]


def test_an_urgent_image_makes_the_whole_study_urgent(database: Database) -> None:
    receive(database, clip(1))
    receive(database, clip(5, study_instance_uid="1.2.9", sop_instance_uid="1.2.9.5"))
    complete(database)
    complete(database, "1.2.9")
    receive(
        database,
        clip(6, study_instance_uid="1.2.9", sop_instance_uid="1.2.9.6", urgency=1),
    )
    claimed = claim(database)
    assert claimed is not None
    assert claimed.study_instance_uid == "1.2.9"


def test_unknown_rows_are_told_in_one_line(database: Database) -> None:
    with database.read() as session, pytest.raises(CatalogError, match="no study with row 7"):
        catalog.begin_analysis(session, 7, "quiet")
