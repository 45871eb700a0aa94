"""The database's own counts are those of its rows, whatever happens to them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, inspect, select, text, update
from sqlalchemy.pool import NullPool

from storage import catalog
from storage.catalog import DeliveryState, RecordingState
from storage.database import Database, migrate
from storage.soundness import miscounts_of
from storage.tables import Delivery, Recording, Study, Tally
from tests.unit.storage_steps import (
    PSLA,
    STUDY,
    clip,
    complete,
    deliver,
    later,
    name_views,
    receive,
    until_delivering,
)

pytestmark = pytest.mark.both_databases
OTHER = "1.2.826.0.2"


def counted(database: Database) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the database says, and what there is."""
    with database.read() as session:
        status = catalog.queue_status(session)
        said = {
            "study": {state: number for state, number in status.studies.items() if number},
            "recording": {state: number for state, number in status.recordings.items() if number},
            "delivery": {state: number for state, number in status.deliveries.items() if number},
        }
        there = {
            table.__tablename__: dict(Counter(str(state) for state in session.scalars(column)))
            for table, column in (
                (Study, select(Study.state)),
                (Recording, select(Recording.state)),
                (Delivery, select(Delivery.state)),
            )
        }
    return said, there


def agree(database: Database) -> dict[str, Any]:
    """What there is, which is what the database says."""
    said, there = counted(database)
    assert said == there
    return there


def test_counts_follow_a_study_from_its_first_image_to_its_end(database: Database) -> None:
    assert agree(database) == {"study": {}, "recording": {}, "delivery": {}}
    until_delivering(database, "pacs", "vna")
    assert agree(database) == {
        "study": {"delivering": 1}, "recording": {"done": 1}, "delivery": {"waiting": 2},
    }  # fmt: skip
    deliver(database, fails=["vna"])
    assert agree(database)["delivery"] == {"delivered": 1, "failed": 1}

    receive(database, *(clip(10 + n, study_instance_uid=OTHER) for n in range(3)))
    complete(database, OTHER)
    assert agree(database)["recording"] == {"done": 1, "to_view": 3}
    name_views(database, PSLA, queue=False)
    with database.write() as session:
        catalog.hold(session, OTHER, now=later(60))
    assert agree(database) == {
        "study": {"failed": 1, "held": 1},
        "recording": {"done": 1, "skipped": 3},
        "delivery": {"delivered": 1, "failed": 1},
    }


def test_promises_are_counted_by_destination(database: Database) -> None:
    until_delivering(database, "pacs", "vna")
    deliver(database, fails=["vna"])

    with database.read() as session:
        counts = catalog.promise_counts(session)
    assert (counts["pacs"].by_status, counts["pacs"].failed) == (1, 0)
    assert (counts["vna"].by_status, counts["vna"].failed) == (0, 1)
    with database.write() as session:
        session.execute(
            update(Delivery)
            .where(Delivery.destination == "vna")
            .values(destination="archive", state=DeliveryState.SENT)
        )
    with database.read() as session:
        counts = catalog.promise_counts(session)
    assert (set(counts), counts["archive"].waiting) == ({"pacs", "archive"}, 1)
    agree(database)


def test_many_rows_at_once_and_what_goes_with_a_study_are_counted(database: Database) -> None:
    until_delivering(database)
    receive(database, *(clip(10 + n, study_instance_uid=OTHER) for n in range(3)))
    with database.write() as session:
        session.execute(update(Recording).values(state=RecordingState.FAILED))
    assert agree(database)["recording"] == {"failed": 4}
    with database.write() as session:
        session.execute(update(Recording).values(reason="again"))
        session.execute(delete(Study).where(Study.study_instance_uid == STUDY))
    assert agree(database) == {
        "study": {"receiving": 1},
        "recording": {"failed": 3},
        "delivery": {},
    }


def test_what_is_undone_is_not_counted(database: Database) -> None:
    until_delivering(database)
    before = agree(database)

    def breaks_off() -> None:
        with database.write() as session:
            session.execute(update(Recording).values(state=RecordingState.FAILED))
            raise RuntimeError("nothing of this was so")

    with pytest.raises(RuntimeError):
        breaks_off()
    assert agree(database) == before


def test_the_revision_counts_what_is_there_and_leaves_nothing_behind_when_undone(
    database: Database, database_url: str
) -> None:
    until_delivering(database)
    before = agree(database)
    database.close()
    migrate(database_url, "0010")
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        assert "tally" not in inspect(connection).get_table_names()
        connection.execute(text("UPDATE recording SET state = 'failed'"))  # by no trigger
    migrate(database_url)
    again = Database(database_url)
    assert agree(again) == {**before, "recording": {"failed": 1}}
    again.close()


def test_what_many_connections_counted_is_brought_together(
    database: Database, database_url: str
) -> None:
    until_delivering(database)
    before = agree(database)
    for _ in range(3):
        other = Database(database_url)
        deliver(other)
        with other.write() as session:
            catalog.resend(session, STUDY, now=later(45))
        other.close()
    with database.write() as session:
        writers = set(session.scalars(select(Tally.writer)))
        catalog.fold_tallies(session)
        assert set(session.scalars(select(Tally.writer))) == {0}

    assert len(writers) == (1 if database_url.startswith("sqlite") else 4)
    assert agree(database) == {**before, "delivery": {"waiting": 1}}
    with database.read() as session:
        assert all(number >= 0 for number in session.scalars(select(Tally.number)))


def test_wrong_counts_are_found_and_counted_anew(database: Database) -> None:
    until_delivering(database, "pacs", "vna")
    before = agree(database)
    assert list(miscounts_of(database)) == []

    with database.write() as session:  # as by a revision that lost its triggers
        session.execute(
            update(Tally).where(Tally.destination == "vna").values(number=Tally.number + 2)
        )
        session.execute(delete(Tally).where(Tally.what == "study"))
    with database.read() as session:
        wrong = catalog.wrong_tallies(session)
    assert {(what, to): by for (what, to, _, _), by in wrong.items()} == {
        ("delivery", "vna"): 2,
        ("study", ""): -1,
    }
    assert [fault.words for fault in miscounts_of(database)] == [
        "delivery rows counted as waiting vna: 2 more than there are",
        "study rows counted as delivering: 1 fewer than there are",
    ]

    with database.write() as session:
        catalog.recount(session)
    assert list(miscounts_of(database)) == []
    assert agree(database) == before
    deliver(database)
    agree(database)
