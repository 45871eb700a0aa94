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

pytestmark = pytest.mark.both_databases

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


# What goes to a destination in place of a result that it does not take.

SINGLE = "1.2.840.10008.5.1.4.1.1.7"


def take(database: Database, destination: str = "pacs", at: float = 50) -> list[str]:
    """Take what is due to a destination; returns the UIDs, in order."""
    with database.write() as session:
        due = catalog.claim_due_deliveries(session, later(at), destination=destination, limit=100)
    return [delivery.result.sop_instance_uid for delivery in due]


def delivery_id(database: Database, uid: str, destination: str = "pacs") -> int:
    (found,) = [
        item.id
        for item in detail(database).deliveries
        if (item.sop_instance_uid, item.destination) == (uid, destination)
    ]
    return found


def instead(
    database: Database, of: catalog.NewResult, *results: catalog.NewResult, to: str = "pacs"
) -> None:
    with database.write() as session:
        catalog.send_instead(
            session,
            delivery_id(database, of.sop_instance_uid, to),
            results,
            "it takes no such class",
            later(51),
        )


def states(database: Database, destination: str = "pacs") -> dict[str, DeliveryState]:
    return {
        item.sop_instance_uid: item.state
        for item in detail(database).deliveries
        if item.destination == destination
    }


FRAMES = tuple(result(f"frame {n}", ResultKind.SC, sop_class_uid=SINGLE) for n in (1, 2))


def until_refused(database: Database) -> None:
    """The archive `pacs` does not take the cine and is to get two frames; `other` has all."""
    receive(database, clip(1))
    complete(database)
    name_views(database)
    analyse(database)
    report(database, SC, SR, destinations=("pacs", "other"))
    assert take(database) == [SC.sop_instance_uid, SR.sop_instance_uid]
    instead(database, SC, *FRAMES)
    with database.write() as session:
        catalog.put_back_deliveries(
            session, [delivery_id(database, SR.sop_instance_uid)], later(51)
        )


def test_what_is_sent_instead_goes_to_that_destination_only(database: Database) -> None:
    until_refused(database)
    assert states(database) == {
        SC.sop_instance_uid: DeliveryState.REPLACED,
        SR.sop_instance_uid: DeliveryState.WAITING,
        FRAMES[0].sop_instance_uid: DeliveryState.WAITING,
        FRAMES[1].sop_instance_uid: DeliveryState.WAITING,
    }
    assert set(states(database, "other")) == {SC.sop_instance_uid, SR.sop_instance_uid}
    shown = detail(database)
    frames = [made for made in shown.results if made.stands_for is not None]
    assert [made.stands_for for made in frames] == [SC.sop_instance_uid] * 2
    assert all(made.current and made.revision == 1 for made in frames)
    assert "sent-instead" in kinds(database)
    with database.read() as session:
        had = catalog.sent_instead(session, shown.study.id, "pacs")
        assert catalog.sent_instead(session, shown.study.id, "other") == {}
        assert catalog.original_of(session, frames[0].id).sop_instance_uid == SC.sop_instance_uid
    assert {uid: [made.sop_instance_uid for made in made_of] for uid, made_of in had.items()} == {
        SC.sop_instance_uid: [frame.sop_instance_uid for frame in FRAMES]
    }


def test_what_was_put_back_is_due_at_once_with_no_attempt_counted(database: Database) -> None:
    until_refused(database)
    (put_back,) = [d for d in detail(database).deliveries if d.kind is ResultKind.SR][:1]
    assert put_back.attempts == 0
    assert take(database, at=51)[0] == SR.sop_instance_uid


def test_a_study_is_done_when_a_destination_has_what_it_gets_instead(database: Database) -> None:
    until_refused(database)
    deliver(database, at=52)
    assert states(database)[SC.sop_instance_uid] is DeliveryState.REPLACED
    assert detail(database).study.state is StudyState.DONE


def test_nothing_cannot_be_sent_instead(database: Database) -> None:
    until_delivering(database)
    take(database)
    with pytest.raises(CatalogError, match="nothing to send in its place"):
        instead(database, SR)


def test_an_operator_who_sends_again_sends_the_result_itself_and_what_stands_for_it_follows(
    database: Database,
) -> None:
    until_refused(database)
    deliver(database, at=52)
    with database.write() as session:
        assert catalog.resend(session, STUDY, "pacs", now=later(60)) == 2
    assert take(database, at=60) == [SC.sop_instance_uid, SR.sop_instance_uid]
    instead(database, SC, *FRAMES)  # refused again
    assert states(database)[FRAMES[0].sop_instance_uid] is DeliveryState.WAITING
    assert len([made for made in detail(database).results if made.stands_for]) == 2


def test_the_result_itself_may_come_back_in_place_of_what_stood_for_it(
    database: Database,
) -> None:
    until_refused(database)
    take(database, at=52)
    instead(database, FRAMES[0], SC)
    assert states(database)[SC.sop_instance_uid] is DeliveryState.WAITING
    assert states(database)[FRAMES[0].sop_instance_uid] is DeliveryState.REPLACED
    with database.read() as session:
        assert catalog.sent_instead(session, detail(database).study.id, "pacs") == {}


def test_frames_stay_current_as_long_as_their_cine_and_are_tried_again_with_it(
    database: Database,
) -> None:
    until_refused(database)
    deliver(database, at=52, fails=["pacs"])
    receive(database, clip(2))
    study_id = complete(database, at=70)
    name_views(database)
    analyse(database)
    with database.write() as session:
        catalog.begin_reporting(session, study_id, now=later(80))
    second = result("report 2")
    with database.write() as session:
        catalog.add_results(session, study_id, 2, [SC, second], ["pacs", "other"], now=later(81))
    shown = detail(database)
    current = {made.sop_instance_uid for made in shown.results if made.current}
    assert current == {
        SC.sop_instance_uid, second.sop_instance_uid, *(f.sop_instance_uid for f in FRAMES),
    }  # fmt: skip
    assert states(database)[FRAMES[0].sop_instance_uid] is DeliveryState.WAITING
    assert states(database)[SC.sop_instance_uid] is DeliveryState.REPLACED


def test_the_newest_report_is_never_one_that_stands_for_another(database: Database) -> None:
    until_delivering(database)
    take(database)
    instead(database, SR, result("older class", sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33"))
    with database.read() as session:
        newest = catalog.current_report(session, 1)
    assert newest is not None
    assert newest.sop_instance_uid == SR.sop_instance_uid


def test_a_result_for_some_destinations_goes_to_no_other(database: Database) -> None:
    receive(database, clip(1))
    complete(database)
    name_views(database)
    analyse(database)
    words = result("words", ResultKind.TEXT, destinations=("other",))
    report(database, SR, words, destinations=("pacs", "other"))
    assert set(states(database)) == {SR.sop_instance_uid}
    assert set(states(database, "other")) == {SR.sop_instance_uid, words.sop_instance_uid}
    deliver(database)
    with database.write() as session:
        catalog.resend(session, STUDY, "third", destinations=("third",), now=later(60))
    assert set(states(database, "third")) == {SR.sop_instance_uid}


def test_a_refused_class_is_remembered_with_its_time_until_it_is_old_or_forgotten(
    database: Database,
) -> None:
    with database.write() as session:
        catalog.note_refused_class(session, "pacs", SINGLE, "not supported", later(0))
        catalog.note_refused_class(session, "other", SINGLE, "no", later(0))
        catalog.note_refused_class(session, "pacs", SINGLE, "still not supported", later(10))
    with database.read() as session:
        (refused,) = catalog.refused_classes(session, "pacs")
        assert (refused.sop_class_uid, refused.refused_at, refused.answer) == (
            SINGLE, later(10), "still not supported",
        )  # fmt: skip
        assert catalog.refused_classes(session, "pacs", since=later(11)) == ()
        assert len(catalog.refused_classes(session, "pacs", since=later(10))) == 1
        assert len(catalog.refused_classes(session)) == 2
    with database.write() as session:
        assert catalog.forget_refused_classes(session, "pacs") == 1
        assert catalog.forget_refused_classes(session, "pacs") == 0
    with database.read() as session:
        assert [each.destination for each in catalog.refused_classes(session)] == ["other"]
