"""The rows of a backfill: whose it is, what is next, what came, how far it is."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from storage import catalog
from storage.catalog import (
    BACKFILL_URGENCY,
    BackfilledState,
    BackfillLostError,
    BackfillState,
    CatalogError,
    FileFound,
    NewBackfill,
)
from storage.database import Database
from tests.unit.storage_steps import (
    NOW,
    analyse,
    claim,
    clip,
    complete,
    later,
    name_views,
    receive,
)

pytestmark = pytest.mark.both_databases
ME, OTHER = "here/1/aa", "there/2/bb"
FIRST, LAST = date(2024, 1, 30), date(2024, 2, 2)


def begin(database: Database, **changes: Any) -> int:
    """A backfill of four days that this process goes on with."""
    fields: dict[str, Any] = {"source": "pacs", "first_day": FIRST, "last_day": LAST, **changes}
    with database.write() as session:
        number = catalog.add_backfill(session, NewBackfill(**fields), now=NOW).backfill_id
        catalog.take_backfill(
            session, number, ME, seat="a", terms={"hours": None}, lease_s=60, now=NOW
        )
    return number


def next_day(database: Database, number: int) -> Any:
    with database.read() as session:
        return catalog.next_backfill_day(session, number)


def list_day(database: Database, number: int, *uids: str) -> Any:
    """The next day has these studies."""
    day = next_day(database, number)
    with database.write() as session:
        catalog.backfill_day_listed(session, number, ME, day.day_id, dict.fromkeys(uids))
    with database.read() as session:
        return day, catalog.studies_of_day(session, day.day_id)


def begin_study(database: Database, number: int, row_id: int, at: float = 0) -> None:
    with database.write() as session:
        catalog.backfill_study_begins(session, number, ME, row_id, now=later(at))


def end_study(
    database: Database, number: int, row_id: int, at: float = 1, **words: Any
) -> BackfilledState:
    with database.write() as session:
        return catalog.backfill_study_ended(
            session, number, ME, row_id, now=later(at), **{"whole": True, **words}
        )


@pytest.mark.parametrize("newest_first", [True, False])
def test_days_come_in_the_order_wished_for_and_those_begun_first(
    database: Database, newest_first: bool
) -> None:
    number = begin(database, newest_first=newest_first)
    days = [FIRST + timedelta(days=one) for one in range(4)]
    order = days[::-1] if newest_first else days
    assert next_day(database, number).day == order[0]
    list_day(database, number, "1.2.1")
    with database.write() as session:
        catalog.leave_backfill(session, number, ME, "stopped")
        catalog.take_backfill(session, number, OTHER, seat="b", terms={}, lease_s=60)
    assert next_day(database, number).day == order[0]
    with database.write() as session:
        catalog.backfill_day_done(session, number, OTHER, next_day(database, number).day_id)
    assert next_day(database, number).day == order[1]


def test_two_of_one_source_refuse_each_other_until_one_is_silent(database: Database) -> None:
    number = begin(database)
    with database.write() as session, pytest.raises(CatalogError, match="not finished"):
        catalog.add_backfill(session, NewBackfill(source="pacs"))
    with database.write() as session:
        catalog.add_backfill(session, NewBackfill(source="other"))

    def take(at: float, seat: str) -> None:
        with database.write() as session:
            catalog.take_backfill(
                session, number, OTHER, seat=seat, terms={}, lease_s=60, now=later(at)
            )

    with pytest.raises(CatalogError, match=r"runs on here \(last sign 59 s ago\)"):
        take(59, "b")
    with database.write() as session:
        catalog.sign_backfill(session, number, ME, "fetches", now=later(30))
    with pytest.raises(CatalogError, match="runs on here"):
        take(61, "b")
    take(91, "b")

    for write in (
        lambda session: catalog.sign_backfill(session, number, ME, "fetches"),
        lambda session: catalog.leave_backfill(session, number, ME, "stopped"),
        lambda session: catalog.backfill_study_ended(session, number, ME, 1, whole=True),
        lambda session: catalog.add_files(session, number, ME, []),
    ):
        with database.write() as session, pytest.raises(BackfillLostError):
            write(session)


def test_of_its_own_seat_a_dead_one_is_followed_at_once(database: Database) -> None:
    number = begin(database)
    with database.write() as session:
        catalog.take_backfill(session, number, OTHER, seat="a", terms={}, lease_s=60, now=later(1))
    with database.write() as session, pytest.raises(BackfillLostError):
        catalog.sign_backfill(session, number, ME, "fetches")


def test_what_came_is_counted_by_rows_also_from_before_a_kill(database: Database) -> None:
    number = begin(database)
    receive(database, clip(1, received_at=later(-9)))  # was here before
    day, (study,) = list_day(database, number, "1.2.826.0.1")
    begin_study(database, number, study.row_id)
    receive(database, clip(2, received_at=later(1)))

    # Killed, and gone on with by another run.
    with database.read() as session:
        assert catalog.is_backfilled(session, "1.2.826.0.1")
        (study,) = catalog.studies_of_day(session, day.day_id)
    assert (study.broken_off, study.attempts) == (True, 1)
    begin_study(database, number, study.row_id, at=10)
    receive(database, clip(3, received_at=later(11), recording_kind=None))
    state = end_study(database, number, study.row_id, at=12, whole=False, reason="one is missing")

    assert state is BackfilledState.PARTLY
    with database.read() as session:
        assert not catalog.is_backfilled(session, "1.2.826.0.1")
        counts = catalog.backfill_counts(session, number)
        assert catalog.studies_of_day(session, day.day_id) == ()
        (failure,) = catalog.failed_backfilled(session, number)
    assert (counts["objects"], counts["size_bytes"], counts["clips"]) == (2, 1002 + 1003, 1)
    assert (counts["studies"], counts["settled"]) == (1, 1)
    assert (failure.reason, failure.attempts) == ("one is missing", 2)

    # Once more, and whole: nothing is counted twice.
    with database.read() as session:
        (again,) = catalog.studies_to_try_again(session, number, later(13))
    begin_study(database, number, again.row_id, at=14)
    assert end_study(database, number, again.row_id, at=15) is BackfilledState.TAKEN
    with database.read() as session:
        assert catalog.studies_to_try_again(session, number, later(99)) == ()
        assert catalog.backfill_counts(session, number)["objects"] == 2
        assert catalog.backfill_counts(session, number)["settled"] == 1


def test_a_study_of_which_nothing_was_missing_is_no_attempt_at_anything(database: Database) -> None:
    number = begin(database)
    receive(database, clip(1, received_at=later(-9)))
    _day, (study,) = list_day(database, number, "1.2.826.0.1")
    begin_study(database, number, study.row_id)
    assert end_study(database, number, study.row_id) is BackfilledState.HERE


def test_progress_tells_clips_that_wait_from_those_at_their_end(database: Database) -> None:
    number = begin(database)
    _day, (study, other) = list_day(database, number, "1.2.826.0.1", "1.2.9")
    begin_study(database, number, study.row_id)
    receive(
        database,
        *(clip(one, received_at=later(1), urgency=BACKFILL_URGENCY) for one in range(3)),
        clip(1, study_instance_uid="1.5", sop_instance_uid="1.5.1", series_instance_uid="1.5.2"),
    )
    end_study(database, number, study.row_id, at=2)

    def progress(at: float) -> catalog.BackfillProgress:
        with database.read() as session:
            return catalog.backfill_progress(session, number, now=later(at))

    one = progress(10)
    assert (one.days, one.days_listed, one.days_done) == (4, 1, 0)
    assert (one.studies, one.settled) == (2, 1)
    assert one.by_state == {"taken": 1, "waiting": 1}
    assert (one.clips, one.clips_waiting, one.clips_analysed) == (3, 3, 0)
    assert (one.window_studies, one.window_objects, one.window_clips) == (1, 3, 0)

    complete(database)
    name_views(database)
    analyse(database)
    one = progress(60)
    assert (one.clips, one.clips_waiting, one.clips_analysed, one.window_clips) == (3, 0, 3, 3)
    one = progress(3600 + 40)
    assert (one.window_studies, one.window_clips) == (0, 0)
    assert other.row_id


def test_live_work_that_arrives_goes_before_what_a_backfill_brought(database: Database) -> None:
    receive(database, clip(1, urgency=BACKFILL_URGENCY))
    complete(database)
    name_views(database)  # it waits for analysis already, which is not to help it
    live = clip(
        5,
        study_instance_uid="1.7",
        sop_instance_uid="1.7.5",
        series_instance_uid="1.7.1",
        urgency=-1000,  # the least that a rule may give
        received_at=later(40),
    )
    receive(database, live)
    complete(database, "1.7", at=70)
    with database.read() as session:
        oldest = catalog.queue_status(session, later(100)).oldest_recording
    assert oldest is not None
    assert oldest.study_instance_uid == "1.7"  # nobody is told that years of archive wait
    claimed = claim(database, at=80)
    assert claimed is not None
    assert claimed.study_instance_uid == "1.7"
    claimed = claim(database, at=81)
    assert claimed is not None
    assert claimed.study_instance_uid == "1.2.826.0.1"
    with database.read() as session:
        assert catalog.queue_status(session, later(100)).oldest_recording is None


def test_files_are_remembered_by_digests_with_what_is_in_them(database: Database) -> None:
    number = begin(database, source="/srv/years", from_folder=True, first_day=None, last_day=None)
    day = date(2024, 1, 5)
    with database.write() as session:
        rows = catalog.add_files(
            session,
            number,
            ME,
            [
                FileFound(digest="aa", objects=((0, "1.2.1", day), (2, "1.2.2", None))),
                FileFound(digest="bb"),
            ],
        )
        catalog.folder_looked_through(session, number, ME)
    with database.read() as session:
        known = catalog.known_files(session, number, ["aa", "bb", "cc"])
    assert known == {"aa": ((0, rows["1.2.1"]), (2, rows["1.2.2"])), "bb": ()}
    days = []
    while (found := next_day(database, number)) is not None:
        days.append(found.day)
        with database.read() as session:
            (study,) = catalog.studies_of_day(session, found.day_id)
        begin_study(database, number, study.row_id)
        end_study(database, number, study.row_id)
        with database.write() as session:
            catalog.backfill_day_done(session, number, ME, found.day_id)
    assert days == [day, None]  # what has no date comes last

    with database.write() as session:  # a file of a study that was settled
        catalog.add_files(
            session, number, ME, [FileFound(digest="dd", objects=((0, "1.2.1", day),))]
        )
        catalog.folder_looked_through(session, number, ME)
    found = next_day(database, number)
    assert found is not None
    assert found.day == day
    with database.write() as session:
        catalog.leave_backfill(session, number, ME, "done", state=BackfillState.DONE)
    with database.read() as session:
        assert catalog.known_files(session, number, ["aa"]) == {}
