"""What an operator may do to a study, and what the catalog shows."""

from __future__ import annotations

import pytest

from storage import catalog
from storage.catalog import (
    CatalogError,
    DeliveryState,
    NewQuarantined,
    RecordingState,
    ResultKind,
    StudyState,
)
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


def hold(database: Database, reason: str = "") -> None:
    with database.write() as session:
        catalog.hold(session, STUDY, reason, now=later(60))


def release(database: Database) -> None:
    with database.write() as session:
        catalog.release(session, STUDY, now=later(70))


def retry(database: Database) -> StudyState:
    with database.write() as session:
        return catalog.retry(session, STUDY, now=later(80))


def fail_recordings(database: Database) -> None:
    while claimed := claim(database):
        with database.write() as session:
            catalog.record_failure(session, claimed.recording_id, "worker died", max_attempts=1)


@pytest.mark.parametrize("command", [catalog.hold, catalog.release, catalog.retry, catalog.resend])
def test_every_command_says_in_one_line_that_it_knows_no_such_study(
    database: Database, command: object
) -> None:
    assert callable(command)
    with database.write() as session, pytest.raises(CatalogError) as told:
        command(session, "1.2.3")
    assert str(told.value) == "no study 1.2.3 here; `echonode studies` lists those that are"


def test_a_held_study_says_why_and_what_to_do(database: Database) -> None:
    receive(database, clip(1))
    hold(database, "wrong patient")
    study = detail(database).study
    assert (study.state, study.state_before_hold) == (StudyState.HELD, StudyState.RECEIVING)
    assert (study.reason, study.state_since) == ("wrong patient", later(60))
    assert study.next_step == f"`echonode release {STUDY}` lets it go on"


def test_a_released_study_goes_on_where_it_was(database: Database) -> None:
    until_delivering(database)
    before = detail(database).study
    hold(database)
    assert deliver(database) == 0
    release(database)
    study = detail(database).study
    assert (study.state, study.reason) == (StudyState.DELIVERING, before.reason)
    assert study.state_before_hold is None
    assert deliver(database) == 1
    assert detail(database).study.state is StudyState.DONE


def test_a_held_study_is_not_completed(database: Database) -> None:
    receive(database, clip(1))
    hold(database)
    with database.read() as session:
        assert catalog.studies_to_complete(session, later(900), 30, 5, 600) == ()


def test_an_image_for_a_study_held_while_receiving_stays_in_the_revision(
    database: Database,
) -> None:
    receive(database, clip(1))
    hold(database)
    receive(database, clip(2, received_at=later(65)))
    release(database)
    study = detail(database).study
    assert (study.state, study.revision, study.images) == (StudyState.RECEIVING, 1, 2)


def test_late_images_of_a_held_study_open_one_revision_that_begins_at_its_release(
    database: Database,
) -> None:
    until_delivering(database)
    hold(database)
    receive(database, clip(2, received_at=later(61)), clip(3, received_at=later(62)))
    study = detail(database).study
    assert (study.state, study.state_before_hold) == (StudyState.HELD, StudyState.RECEIVING)
    assert study.revision == 2
    release(database)
    study = detail(database).study
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
    assert study.reason == "an image came after completion: revision 2"


def test_work_that_was_under_way_at_the_hold_is_not_lost(database: Database) -> None:
    receive(database, clip(1))
    study_id = complete(database)
    name_views(database)
    analyse(database)
    with database.write() as session:
        catalog.begin_reporting(session, study_id)
    hold(database)
    with database.write() as session:
        catalog.add_results(session, study_id, 1, [result("report 1")], ["pacs"])
    assert detail(database).study.state is StudyState.HELD
    assert deliver(database) == 0
    release(database)
    assert detail(database).study.state is StudyState.DELIVERING
    assert deliver(database, at=1e9) == 1


def test_a_study_that_failed_while_held_is_failed_with_its_next_step_when_released(
    database: Database,
) -> None:
    receive(database, clip(1))
    study_id = complete(database)
    hold(database)
    with database.write() as session:
        catalog.fail_study(session, study_id, "no report", "see the log")
    release(database)
    study = detail(database).study
    assert (study.state, study.reason, study.next_step) == (
        StudyState.FAILED,
        "no report",
        "see the log",
    )


def test_only_a_study_on_its_way_can_be_held_and_only_a_held_one_released(
    database: Database,
) -> None:
    until_delivering(database)
    deliver(database)
    with pytest.raises(CatalogError, match=r"is done; only a study on its way can be held"):
        hold(database)
    with pytest.raises(CatalogError, match="is done, not held"):
        release(database)


def test_a_study_is_held_once(database: Database) -> None:
    receive(database, clip(1))
    hold(database)
    with pytest.raises(CatalogError, match="is held; only a study on its way"):
        hold(database)


@pytest.mark.parametrize("command", [catalog.retry, catalog.resend])
def test_a_held_study_is_released_before_anything_else(database: Database, command: object) -> None:
    assert callable(command)
    until_delivering(database)
    hold(database)
    with database.write() as session, pytest.raises(CatalogError, match="first"):
        command(session, STUDY)


def test_retry_sends_again_what_no_destination_took(database: Database) -> None:
    until_delivering(database, "pacs", "archive")
    deliver(database, fails=["archive"])
    assert retry(database) is StudyState.DELIVERING
    assert [line.state for line in detail(database).deliveries] == [
        DeliveryState.DELIVERED,
        DeliveryState.WAITING,
    ]
    assert deliver(database, at=90) == 1
    assert detail(database).study.state is StudyState.DONE


def test_retry_looks_again_at_recordings_that_failed(database: Database) -> None:
    receive(database, clip(1))
    study_id = complete(database)
    fail_recordings(database)
    with database.write() as session:
        catalog.fail_study(session, study_id, "1 of 1 clips failed", "retry it")
    assert retry(database) is StudyState.ANALYSING
    (recording,) = detail(database).recordings
    assert (recording.state, recording.attempts) == (RecordingState.TO_VIEW, 0)
    assert detail(database).study.revision == 1


def test_retry_does_not_name_again_the_view_of_a_clip_whose_analysis_failed(
    database: Database,
) -> None:
    receive(database, clip(1))
    complete(database)
    name_views(database)
    fail_recordings(database)
    retry(database)
    assert detail(database).recordings[0].state is RecordingState.QUEUED


def test_retry_of_a_clip_after_the_report_was_made_leads_to_a_next_revision(
    database: Database,
) -> None:
    receive(database, clip(1), clip(2))
    complete(database)
    name_views(database)
    first = claim(database)
    assert first is not None
    with database.write() as session:
        catalog.record_failure(session, first.recording_id, "worker died", max_attempts=1)
    analyse(database)
    report(database, result("report 1"))
    deliver(database)
    assert retry(database) is StudyState.ANALYSING
    assert detail(database).study.revision == 2
    analyse(database, at=81)
    report(database, result("report 2"), at=90)
    assert [made.current for made in detail(database).results] == [False, True]


def test_retry_makes_anew_a_report_that_could_not_be_made(database: Database) -> None:
    receive(database, clip(1))
    study_id = complete(database)
    name_views(database)
    (recording_id,) = analyse(database)
    with database.write() as session:
        catalog.add_capture(session, recording_id, result("capture", ResultKind.SC))
        catalog.begin_reporting(session, study_id)
        catalog.fail_study(session, study_id, "no report", "see the log")
    assert retry(database) is StudyState.ANALYSING
    assert detail(database).study.revision == 1
    with database.read() as session:
        assert [study.study_id for study in catalog.studies_to_report(session)] == [study_id]


def test_retry_where_nothing_failed_says_so(database: Database) -> None:
    until_delivering(database)
    with pytest.raises(CatalogError, match="nothing in it failed"):
        retry(database)


def test_resend_sends_the_kept_results_again_to_one_destination_or_all(
    database: Database,
) -> None:
    until_delivering(database, "pacs", "archive")
    deliver(database)
    with database.write() as session:
        assert catalog.resend(session, STUDY, "archive", now=later(60)) == 1
    assert detail(database).study.state is StudyState.DELIVERING
    assert deliver(database, at=60) == 1
    with database.write() as session:
        assert catalog.resend(session, STUDY, now=later(61)) == 2
    assert deliver(database, at=61) == 2
    shown = detail(database)
    assert shown.study.state is StudyState.DONE
    assert len(shown.results) == 1


def test_resend_to_an_unknown_destination_names_those_there_are(database: Database) -> None:
    until_delivering(database, "pacs", "archive")
    with database.write() as session, pytest.raises(CatalogError) as told:
        catalog.resend(session, STUDY, "pasc")
    assert str(told.value).endswith("has nothing for pasc; it has some for archive, pacs")


def test_resend_to_a_destination_that_came_into_the_settings_later(database: Database) -> None:
    until_delivering(database)
    deliver(database)
    with database.write() as session:
        sent = catalog.resend(session, STUDY, "new", destinations=["pacs", "new"], now=later(60))
    assert sent == 1
    assert [(line.destination, line.state) for line in detail(database).deliveries] == [
        ("pacs", DeliveryState.DELIVERED),
        ("new", DeliveryState.WAITING),
    ]


def test_resend_of_a_study_without_results_says_so(database: Database) -> None:
    receive(database, clip(1))
    with database.write() as session, pytest.raises(CatalogError, match="has no results to send"):
        catalog.resend(session, STUDY)


def test_resend_while_a_second_revision_is_in_the_making_leaves_that_alone(
    database: Database,
) -> None:
    until_delivering(database)
    deliver(database)
    receive(database, clip(2, received_at=later(60)))
    with database.write() as session:
        assert catalog.resend(session, STUDY, now=later(61)) == 1
    assert detail(database).study.state is StudyState.RECEIVING


def test_studies_are_listed_newest_first_and_found_by_state_and_text(
    database: Database,
) -> None:
    for number, description in enumerate(["TTE adult", "Stress echo", "100% TTE"]):
        uid = f"1.2.{number}"
        receive(
            database,
            clip(
                1,
                study_instance_uid=uid,
                sop_instance_uid=f"{uid}.1",
                received_at=later(number),
                description=description,
                accession_number=f"ACC{number}",
            ),
        )
    complete(database, "1.2.1")

    def listed(**criteria: object) -> list[str]:
        with database.read() as session:
            studies = catalog.list_studies(session, **criteria)  # type: ignore[arg-type]
        return [study.study_instance_uid for study in studies]

    assert listed() == ["1.2.2", "1.2.1", "1.2.0"]
    assert listed(limit=1) == ["1.2.2"]
    assert listed(state=StudyState.ANALYSING) == ["1.2.1"]
    assert listed(text="tte") == ["1.2.2", "1.2.0"]
    assert listed(text="acc1") == ["1.2.1"]
    assert listed(text="1.2.0") == ["1.2.0"]
    assert listed(text="%") == ["1.2.2"]


def test_a_listed_study_counts_its_images_and_its_recordings_by_state(
    database: Database,
) -> None:
    receive(database, clip(1), clip(2), clip(3, recording_kind=None), clip(4, own=True))
    complete(database)
    claim(database)
    with database.read() as session:
        (study,) = catalog.list_studies(session)
    assert study.images == 3
    assert study.recordings == {"to_view": 1, "viewing": 1}


def test_the_status_counts_every_state_and_names_what_waits_longest(
    database: Database,
) -> None:
    with database.read() as session:
        empty = catalog.queue_status(session, NOW)
    assert set(empty.studies) == set(StudyState)
    assert set(empty.recordings) == set(RecordingState)
    assert not any(empty.studies.values())
    assert (empty.oldest_recording, empty.oldest_delivery, empty.last_errors) == (None, None, ())

    receive(database, clip(1), clip(2))
    complete(database)
    claim(database)
    with database.read() as session:
        status = catalog.queue_status(session, later(90))
    assert (status.studies["analysing"], status.recordings["viewing"]) == (1, 1)
    assert status.recordings["to_view"] == 1
    assert status.oldest_recording is not None
    assert status.oldest_recording.sop_instance_uid == clip(2).sop_instance_uid
    assert status.oldest_recording.age_s == pytest.approx(60)


def test_the_status_names_the_oldest_delivery_and_the_last_errors(database: Database) -> None:
    until_delivering(database, "pacs", "archive")
    with database.write() as session:
        due = catalog.claim_due_deliveries(session, later(50), "pacs")
        catalog.record_delivery_failed(
            session, due[0].delivery_id, "refused: no space", 0xA700, later(50)
        )
        status = catalog.queue_status(session, later(141))
    assert status.oldest_delivery is not None
    assert status.oldest_delivery.age_s == pytest.approx(100)
    assert [(trouble.kind, trouble.message) for trouble in status.last_errors] == [
        ("delivery-failed", "pacs never took the SR (attempt 1): refused: no space")
    ]


def test_the_timeline_tells_the_whole_way(database: Database) -> None:
    until_delivering(database)
    deliver(database)
    assert kinds(database) == [
        "study-opened",
        "study-complete",
        "view-named",
        "recording-done",
        "reporting",
        "results-made",
        "delivered",
        "study-done",
    ]
    times = [event.at for event in detail(database).timeline]
    assert times == sorted(times)


def test_the_node_can_add_lines_of_its_own(database: Database) -> None:
    (kept,) = receive(database, clip(1))
    with database.write() as session:
        catalog.add_event(
            session, kept.study_id, "note", "seen by hand", at=later(5), details={"by": "cli"}
        )
    line = detail(database).timeline[-1]
    assert (line.kind, line.message, line.details) == ("note", "seen by hand", {"by": "cli"})


def test_quarantine_is_listed_newest_first_shown_and_forgotten(database: Database) -> None:
    with database.write() as session:
        for at, reason in [(1, "no SOP instance UID"), (2, "not DICOM")]:
            catalog.add_quarantined(
                session,
                NewQuarantined(
                    received_at=later(at),
                    reason=reason,
                    status_sent=0xA900,
                    file_key=f"quarantine/ab/{at:062x}.dcm",
                ),
            )
    with database.read() as session:
        newest, oldest = catalog.list_quarantined(session)
        assert catalog.get_quarantined(session, oldest.id) == oldest
        assert catalog.queue_status(session).quarantined == 2
    assert (newest.reason, oldest.status_sent) == ("not DICOM", 0xA900)
    with database.write() as session:
        assert catalog.remove_quarantined(session, newest.id) == newest
    with database.write() as session:
        assert catalog.list_quarantined(session) == (oldest,)
        with pytest.raises(CatalogError, match="no object 99 in quarantine"):
            catalog.remove_quarantined(session, 99)


def test_a_nodes_heartbeat_replaces_its_last_and_a_stopped_one_is_forgotten(
    database: Database,
) -> None:
    for at in (0, 10):
        with database.write() as session:
            catalog.join(
                session, "here", pid=7, started_at=NOW, details={"port": 11112}, now=later(at)
            )
    with database.read() as session:
        (node,) = catalog.read_nodes(session)
    assert (node.node_id, node.pid, node.heartbeat_at) == ("here", 7, later(10))
    assert node.details == {"port": 11112}
    with database.write() as session:
        catalog.forget_node(session, "here")
        assert catalog.read_nodes(session) == ()
