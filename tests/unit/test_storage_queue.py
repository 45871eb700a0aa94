"""The queue of recordings: order, claims that never collide, failures and restarts."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter

import pytest
from sqlalchemy import update

from storage import catalog
from storage.catalog import CatalogError, RecordingState, ViewOutcome
from storage.database import Database
from storage.tables import Recording
from tests.unit.storage_steps import (
    A4C,
    EF,
    LV,
    NO_VOLUME,
    PSLA,
    STUDY,
    analyse,
    claim,
    clip,
    complete,
    detail,
    kinds,
    later,
    name_views,
    receive,
)

pytestmark = pytest.mark.both_databases


def waiting(database: Database, count: int) -> None:
    receive(database, *(clip(number) for number in range(1, count + 1)))
    complete(database)


def states(database: Database) -> list[RecordingState]:
    return [recording.state for recording in detail(database).recordings]


def test_an_empty_queue_gives_nothing(database: Database) -> None:
    assert claim(database) is None


def test_a_claim_names_the_file_and_counts_the_attempt(database: Database) -> None:
    waiting(database, 2)
    claim(database)
    claimed = claim(database)
    assert claimed is not None
    assert claimed.sop_instance_uid == clip(2).sop_instance_uid
    assert claimed.file_key == clip(2).file_key
    assert claimed.state is RecordingState.VIEWING
    assert (claimed.attempts, claimed.ordinal) == (1, 2)
    recording = detail(database).recordings[1]
    assert (recording.worker, recording.started_at) == ("worker 1", later(31))


def test_urgent_recordings_come_first_and_then_those_that_wait_longest(
    database: Database,
) -> None:
    for number, (at, urgency) in enumerate([(20, 0), (10, 0), (30, 2), (5, 1)]):
        uid = f"1.2.{number}"
        receive(
            database,
            clip(1, study_instance_uid=uid, sop_instance_uid=f"{uid}.1", urgency=urgency),
        )
        complete(database, uid, at)
    order = []
    while claimed := claim(database):
        order.append(claimed.study_instance_uid)
    assert order == ["1.2.2", "1.2.3", "1.2.1", "1.2.0"]


def test_a_claim_can_be_of_one_kind_of_work_only(database: Database) -> None:
    waiting(database, 1)
    with database.write() as session:
        assert catalog.claim_next(session, "w", later(31), [RecordingState.QUEUED]) is None
        assert catalog.claim_next(session, "w", later(31), [RecordingState.TO_VIEW]) is not None


def test_a_named_view_is_kept_and_queued_with_attempts_counted_anew(database: Database) -> None:
    waiting(database, 1)
    name_views(database, A4C)
    (recording,) = detail(database).recordings
    assert recording.state is RecordingState.QUEUED
    assert (recording.view_label, recording.view_score, recording.view_certain) == (
        "a4c",
        0.97,
        True,
    )
    assert (recording.mode, recording.frame_count, recording.attempts) == ("2d", 30, 0)
    assert detail(database).timeline[-1].message == "view a4c (0.97); queued for analysis"


def test_a_view_that_is_not_for_a_model_is_skipped_with_the_reason(database: Database) -> None:
    waiting(database, 1)
    name_views(database, PSLA, queue=False)
    (recording,) = detail(database).recordings
    assert recording.state is RecordingState.SKIPPED
    assert recording.reason == "not an apical four-chamber view"
    assert claim(database) is None


def test_an_uncertain_view_says_so_in_the_timeline(database: Database) -> None:
    waiting(database, 1)
    unsure = ViewOutcome(label="a4c", score=0.4, certain=False, mode="2d", frame_count=1)
    name_views(database, unsure)
    assert "view a4c (0.40), uncertain" in detail(database).timeline[-1].message


def test_what_the_models_said_comes_back_as_it_was_given(database: Database) -> None:
    waiting(database, 1)
    name_views(database)
    analyse(database)
    (recording,) = detail(database).recordings
    assert recording.state is RecordingState.DONE
    assert recording.findings == (EF,)
    assert recording.refusals == (NO_VOLUME,)
    assert recording.packs == (LV,)


def test_another_analysis_replaces_the_findings_of_the_first(database: Database) -> None:
    waiting(database, 1)
    name_views(database)
    (recording_id,) = analyse(database)
    with database.write() as session:
        session.execute(update(Recording).values(state=RecordingState.QUEUED))
    claim(database, 60)
    with database.write() as session:
        catalog.record_analysis(session, recording_id, [EF, EF], [], [], now=later(61))
    (recording,) = detail(database).recordings
    assert len(recording.findings) == 2
    assert recording.refusals == ()
    assert recording.packs == ()


def test_a_recording_that_cannot_be_read_is_refused_alone(database: Database) -> None:
    waiting(database, 2)
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        catalog.refuse_recording(session, claimed.recording_id, "no pixel data")
    refused, other = detail(database).recordings
    assert (refused.state, refused.reason) == (RecordingState.REFUSED, "no pixel data")
    assert other.state is RecordingState.TO_VIEW


def test_a_failure_is_tried_again_behind_the_others_and_the_third_is_the_last(
    database: Database,
) -> None:
    waiting(database, 2)
    seen = []
    for at in (31, 32, 33, 34):
        claimed = claim(database, at)
        assert claimed is not None
        seen.append(claimed.sop_instance_uid)
        if claimed.sop_instance_uid == clip(1).sop_instance_uid:
            with database.write() as session:
                state = catalog.record_failure(
                    session, claimed.recording_id, "worker died", 3, now=later(at)
                )
    assert seen == [clip(number).sop_instance_uid for number in (1, 2, 1, 1)]
    assert state is RecordingState.FAILED
    assert detail(database).recordings[0].reason == "worker died"
    assert kinds(database)[-3:] == ["recording-again", "recording-again", "recording-failed"]


def test_failures_at_the_view_do_not_count_against_the_analysis(database: Database) -> None:
    waiting(database, 1)
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        catalog.record_failure(session, claimed.recording_id, "worker died", 3)
    name_views(database)
    again = claim(database)
    assert again is not None
    assert (again.state, again.attempts) == (RecordingState.ANALYSING, 1)


def test_put_back_leaves_no_trace_of_an_attempt(database: Database) -> None:
    waiting(database, 1)
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        catalog.put_back(session, claimed.recording_id, "no worker starts")
    (recording,) = detail(database).recordings
    assert (recording.state, recording.attempts) == (RecordingState.TO_VIEW, 0)
    assert recording.reason == "no worker starts"
    with database.write() as session, pytest.raises(CatalogError, match="no worker has it"):
        catalog.put_back(session, claimed.recording_id, "twice")


def test_what_was_at_work_at_a_stop_waits_again_with_its_attempts(database: Database) -> None:
    waiting(database, 2)
    name_views(database)
    claim(database)
    receive(database, clip(3, study_instance_uid="1.9", sop_instance_uid="1.9.3", urgency=1))
    complete(database, "1.9")
    claim(database)
    with database.write() as session:
        assert catalog.requeue_interrupted(session) == 2
    assert states(database) == [RecordingState.QUEUED, RecordingState.QUEUED]
    assert [r.attempts for r in detail(database).recordings] == [1, 0]
    assert [r.state for r in detail(database, "1.9").recordings] == [RecordingState.TO_VIEW]
    assert kinds(database)[-1] == "interrupted"


def test_a_recording_that_takes_the_node_down_each_time_fails_in_the_end(
    database: Database,
) -> None:
    waiting(database, 1)
    for _ in range(3):
        assert claim(database) is not None
        with database.write() as session:
            catalog.requeue_interrupted(session, max_attempts=3)
    assert states(database) == [RecordingState.FAILED]


def test_an_outcome_for_a_recording_that_nobody_took_is_refused(database: Database) -> None:
    waiting(database, 1)
    (recording,) = detail(database).recordings
    with (
        pytest.raises(CatalogError, match="is to_view, which done cannot follow"),
        database.write() as session,
    ):
        catalog.record_analysis(session, recording.id, [EF], [], [])
    assert detail(database).recordings[0].findings == ()


def test_recordings_of_a_held_study_stay_where_they_are(database: Database) -> None:
    waiting(database, 1)
    with database.write() as session:
        catalog.hold(session, STUDY)
    assert claim(database) is None
    with database.write() as session:
        catalog.release(session, STUDY)
    assert claim(database) is not None


def test_threads_that_claim_at_once_never_get_the_same_recording(database: Database) -> None:
    waiting(database, 40)
    taken: list[int] = []

    def work() -> None:
        while claimed := claim(database):
            taken.append(claimed.recording_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [recording.id for recording in detail(database).recordings]


def claim_everything(url: str, taken: multiprocessing.Queue[list[int]]) -> None:
    database = Database(url)
    mine = []
    while claimed := claim(database):
        mine.append(claimed.recording_id)
    taken.put(mine)
    database.close()


def test_processes_that_claim_at_once_never_get_the_same_recording(
    database: Database, database_url: str
) -> None:
    waiting(database, 40)
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    processes = [
        context.Process(target=claim_everything, args=(database_url, taken)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    counts = Counter(number for _ in processes for number in taken.get(timeout=60))
    for process in processes:
        process.join()
    assert len(counts) == 40
    assert set(counts.values()) == {1}
