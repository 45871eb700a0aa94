"""Results exist once, go out as they are kept, and end a study."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from storage import catalog
from storage.catalog import (
    CatalogError,
    DeliveryState,
    ResultKind,
    RevisionSupersededError,
    StudyState,
)
from storage.database import Database
from tests.unit.storage_steps import (
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

SR = result("report 1")
SC = result("capture", ResultKind.SC)


def until_reporting(database: Database) -> int:
    receive(database, clip(1))
    study_id = complete(database)
    name_views(database)
    analyse(database)
    with database.write() as session:
        catalog.begin_reporting(session, study_id, now=later(40))
    return study_id


def add(database: Database, study_id: int, *results: catalog.NewResult, revision: int = 1) -> None:
    with database.write() as session:
        catalog.add_results(session, study_id, revision, results, ["pacs"], now=later(41))


def ready(database: Database) -> list[int]:
    with database.read() as session:
        return [study.study_id for study in catalog.studies_to_report(session)]


def test_a_study_is_ready_when_its_last_recording_has_an_end(database: Database) -> None:
    receive(database, clip(1), clip(2))
    study_id = complete(database)
    assert ready(database) == []
    name_views(database)
    assert ready(database) == []
    analyse(database)
    assert ready(database) == [study_id]


def test_recordings_that_were_skipped_refused_or_failed_keep_no_study_from_its_report(
    database: Database,
) -> None:
    receive(database, clip(1), clip(2), clip(3))
    study_id = complete(database)
    for number in (1, 2):
        claimed = claim(database)
        assert claimed is not None
        with database.write() as session:
            if number == 1:
                catalog.refuse_recording(session, claimed.recording_id, "no pixel data")
            else:
                catalog.record_failure(session, claimed.recording_id, "died", max_attempts=1)
    assert ready(database) == []
    name_views(database, queue=False)
    assert ready(database) == [study_id]


def test_a_study_whose_report_a_stop_interrupted_is_found_again(database: Database) -> None:
    study_id = until_reporting(database)
    assert ready(database) == []
    with database.read() as session:
        (found,) = catalog.studies_in_reporting(session)
    assert (found.study_id, found.revision) == (study_id, 1)


def test_results_go_into_the_outbox_for_every_destination_in_one_step(
    database: Database,
) -> None:
    receive(database, clip(1))
    complete(database)
    name_views(database)
    analyse(database)
    report(database, SC, SR, destinations=("pacs", "archive"))
    shown = detail(database)
    assert shown.study.state is StudyState.DELIVERING
    assert [made.sop_instance_uid for made in shown.results] == [
        SC.sop_instance_uid,
        SR.sop_instance_uid,
    ]
    assert all(made.current and made.revision == 1 for made in shown.results)
    assert [(d.kind, d.destination, d.state) for d in shown.deliveries] == [
        (ResultKind.SC, "pacs", DeliveryState.WAITING),
        (ResultKind.SC, "archive", DeliveryState.WAITING),
        (ResultKind.SR, "pacs", DeliveryState.WAITING),
        (ResultKind.SR, "archive", DeliveryState.WAITING),
    ]


def test_without_a_destination_a_study_is_done_with_its_results_kept(
    database: Database,
) -> None:
    receive(database, clip(1))
    complete(database)
    name_views(database)
    analyse(database)
    report(database, SR, destinations=())
    shown = detail(database)
    assert shown.study.state is StudyState.DONE
    assert shown.study.reason == "revision 1: 1 result made; no destination is set"
    assert len(shown.results) == 1


def test_the_same_results_a_second_time_change_nothing(database: Database) -> None:
    study_id = until_reporting(database)
    add(database, study_id, SC, SR)
    before = detail(database)
    add(database, study_id, SC, SR)
    assert detail(database) == before
    deliver(database)
    before = detail(database)
    add(database, study_id, SC, SR)
    assert detail(database) == before


def test_results_of_a_study_that_is_not_being_reported_are_refused(database: Database) -> None:
    receive(database, clip(1))
    study_id = complete(database)
    with pytest.raises(CatalogError, match="is analysing, not reporting"):
        add(database, study_id, SR)
    assert detail(database).results == ()


def test_results_that_a_late_image_has_overtaken_are_refused(database: Database) -> None:
    study_id = until_reporting(database)
    receive(database, clip(2, received_at=later(100)))
    with pytest.raises(RevisionSupersededError, match="at revision 2"):
        add(database, study_id, SR)
    shown = detail(database)
    assert (shown.study.state, shown.results) == (StudyState.RECEIVING, ())


@pytest.mark.parametrize(
    "give_up",
    [
        lambda session, study_id: catalog.ignore_study(session, study_id, "no A4C clip"),
        lambda session, study_id: catalog.fail_study(session, study_id, "no report", "see log"),
    ],
    ids=["ignored", "failed"],
)
def test_a_study_that_receives_again_is_not_given_up(
    database: Database, give_up: Callable[[Session, int], None]
) -> None:
    study_id = until_reporting(database)
    receive(database, clip(2, received_at=later(100)))
    with database.write() as session, pytest.raises(RevisionSupersededError):
        give_up(session, study_id)
    assert detail(database).study.state is StudyState.RECEIVING


def test_a_second_revision_replaces_the_report_and_knows_its_predecessor(
    database: Database,
) -> None:
    until_delivering(database)
    deliver(database)
    receive(database, clip(2, received_at=later(100)))
    study_id = complete(database, at=130)
    name_views(database)
    analyse(database, at=131)
    with database.read() as session:
        predecessor = catalog.current_report(session, study_id)
    assert predecessor is not None
    assert predecessor.sop_instance_uid == SR.sop_instance_uid
    report(database, result("report 2"), at=140)
    first, second = detail(database).results
    assert (first.revision, first.current) == (1, False)
    assert (second.revision, second.current) == (2, True)
    with database.read() as session:
        assert catalog.results_of(session, study_id, current=True) == (second,)
        assert catalog.current_report(session, study_id) == second
    deliver(database, at=150)
    assert detail(database).study.state is StudyState.DONE


def test_a_capture_that_a_second_revision_makes_alike_is_not_sent_twice(
    database: Database,
) -> None:
    study_id = until_reporting(database)
    add(database, study_id, SC, SR)
    deliver(database)
    receive(database, clip(2, received_at=later(100)))
    complete(database, at=130)
    name_views(database)
    analyse(database, at=131)
    report(database, SC, result("report 2"), at=140)
    assert deliver(database, at=150) == 1
    current = [made.sop_instance_uid for made in detail(database).results if made.current]
    assert current == [SC.sop_instance_uid, result("report 2").sop_instance_uid]
    assert detail(database).study.state is StudyState.DONE


def test_a_capture_is_kept_with_its_findings_and_sent_with_the_report(
    database: Database,
) -> None:
    receive(database, clip(1))
    study_id = complete(database)
    name_views(database)
    (recording_id,) = analyse(database)
    with database.write() as session:
        kept = catalog.add_capture(session, recording_id, SC)
    assert (kept.recording_id, kept.current) == (recording_id, False)
    assert deliver(database) == 0
    with database.write() as session:
        assert catalog.add_capture(session, recording_id, SC).id == kept.id
        catalog.begin_reporting(session, study_id)
    add(database, study_id, SC, SR)
    shown = detail(database)
    assert [(made.id, made.current) for made in shown.results] == [
        (kept.id, True),
        (shown.results[1].id, True),
    ]
    assert len(shown.deliveries) == 2


def test_a_delivery_is_taken_once_and_names_its_bytes(database: Database) -> None:
    until_delivering(database)
    with database.write() as session:
        (due,) = catalog.claim_due_deliveries(session, later(50))
        assert catalog.claim_due_deliveries(session, later(50)) == ()
    assert (due.destination, due.attempts, due.study_instance_uid) == ("pacs", 1, STUDY)
    assert (due.result.file_key, due.result.sha256) == (SR.file_key, SR.sha256)


def test_deliveries_can_be_taken_for_one_destination_and_no_more_than_a_limit(
    database: Database,
) -> None:
    receive(database, clip(1))
    complete(database)
    name_views(database)
    analyse(database)
    report(database, SC, SR, destinations=("pacs", "archive"))
    with database.write() as session:
        taken = catalog.claim_due_deliveries(session, later(50), "archive", limit=1)
    assert [(due.destination, due.result.kind) for due in taken] == [("archive", ResultKind.SC)]


def test_a_delivery_to_be_tried_again_waits_for_its_time(database: Database) -> None:
    until_delivering(database)
    with database.write() as session:
        (due,) = catalog.claim_due_deliveries(session, later(50))
        catalog.record_delivery_retry(
            session, due.delivery_id, "no answer", None, later(50), next_attempt_at=later(110)
        )
    assert detail(database).study.state is StudyState.DELIVERING
    with database.write() as session:
        assert catalog.claim_due_deliveries(session, later(109)) == ()
        (again,) = catalog.claim_due_deliveries(session, later(110))
    assert again.attempts == 2
    (line,) = detail(database).deliveries
    assert (line.last_answer, line.last_attempt_at) == ("no answer", later(110))


def test_a_study_is_done_when_the_last_destination_has_everything(database: Database) -> None:
    until_delivering(database, "pacs", "archive")
    with database.write() as session:
        first, second = catalog.claim_due_deliveries(session, later(50))
        catalog.record_delivered(session, first.delivery_id, "success", 0, later(51))
    assert detail(database).study.state is StudyState.DELIVERING
    with database.write() as session:
        catalog.record_delivered(session, second.delivery_id, "success", 0, later(52))
    shown = detail(database)
    assert shown.study.state is StudyState.DONE
    assert shown.deliveries[1].delivered_at == later(52)
    assert [event.kind for event in shown.timeline[-3:]] == [
        "delivered",
        "delivered",
        "study-done",
    ]


def test_a_study_fails_with_a_next_step_when_a_destination_never_takes_it(
    database: Database,
) -> None:
    until_delivering(database, "pacs", "archive")
    deliver(database, fails=["archive"])
    study = detail(database).study
    assert study.state is StudyState.FAILED
    assert study.reason == "archive did not take 1 of 2 deliveries: refused: no space"
    assert f"echonode retry {STUDY}" in study.next_step


def test_a_given_up_delivery_does_not_fail_a_study_while_another_still_waits(
    database: Database,
) -> None:
    until_delivering(database, "pacs", "archive")
    with database.write() as session:
        first, second = catalog.claim_due_deliveries(session, later(50))
        catalog.record_delivery_failed(session, first.delivery_id, "refused", 0xA700, later(51))
    assert detail(database).study.state is StudyState.DELIVERING
    with database.write() as session:
        catalog.record_delivered(session, second.delivery_id, "success", 0, later(52))
    assert detail(database).study.state is StudyState.FAILED


def test_an_answer_for_a_delivery_that_nobody_sends_is_refused(database: Database) -> None:
    until_delivering(database)
    (line,) = detail(database).deliveries
    with database.write() as session, pytest.raises(CatalogError, match="waiting, not being sent"):
        catalog.record_delivered(session, line.id, "success", 0)


def test_what_was_being_sent_at_a_stop_is_sent_again(database: Database) -> None:
    until_delivering(database)
    with database.write() as session:
        catalog.claim_due_deliveries(session, later(50))
    with database.write() as session:
        assert catalog.requeue_interrupted_deliveries(session, now=later(60)) == 1
    with database.write() as session:
        (again,) = catalog.claim_due_deliveries(session, later(60))
    assert again.attempts == 2
    assert kinds(database)[-1] == "interrupted"


def test_deliveries_of_the_first_revision_still_go_while_the_second_is_in_the_making(
    database: Database,
) -> None:
    until_delivering(database)
    receive(database, clip(2, received_at=later(100)))
    assert deliver(database, at=101) == 1
    assert detail(database).study.state is StudyState.RECEIVING
