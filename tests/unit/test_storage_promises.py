"""What machines asked us to promise: kept until the report has been taken or was given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from storage import catalog
from storage.catalog import PromiseItem
from storage.database import Database, migrate
from tests.unit.storage_steps import clip, detail, receive

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ITEM = PromiseItem(sop_class_uid="1.2.840.10008.5.1.4.1.1.3.1", sop_instance_uid="1.2.3")


def asked(database: Database, uid: str = "1.9", *, at: datetime = NOW, ae: str = "CART1") -> int:
    with database.write() as session:
        return catalog.add_promise_request(
            session,
            transaction_uid=uid,
            calling_ae=ae,
            peer_host="10.0.0.1",
            items=[ITEM],
            first_attempt_at=at + timedelta(seconds=10),
            now=at,
        ).id


def due(database: Database, after_s: float) -> list[int]:
    with database.read() as session:
        found = catalog.promise_requests_due(session, NOW + timedelta(seconds=after_s))
    return [request.id for request in found]


@pytest.mark.both_databases
def test_a_request_is_due_at_its_time_and_until_it_is_reported(database: Database) -> None:
    request = asked(database)

    assert due(database, 9) == []
    assert due(database, 10) == [request]
    with database.write() as session:
        catalog.promise_reported(session, request, [], answer="taken", now=NOW)
    assert due(database, 1000) == []
    with database.read() as session:
        kept = catalog.promise_request(session, request)
    assert kept is not None
    assert (kept.items, kept.attempts, kept.last_answer) == ((ITEM,), 1, "taken")


@pytest.mark.both_databases
def test_a_report_that_was_not_taken_comes_again_until_it_is_given_up(database: Database) -> None:
    request = asked(database)
    with database.write() as session:
        catalog.promise_report_retry(
            session, request, answer="no one there", next_attempt_at=NOW + timedelta(seconds=60)
        )
    assert (due(database, 59), due(database, 60)) == ([], [request])
    with database.write() as session:
        catalog.hasten_promise_report(session, request, NOW)
    assert due(database, 0) == [request]
    with database.write() as session:
        catalog.promise_report_given_up(session, request, answer="too old", now=NOW)
    assert due(database, 1000) == []


@pytest.mark.both_databases
def test_the_same_transaction_asked_again_is_one_request_and_another_machine_s_is_its_own(
    database: Database,
) -> None:
    first = asked(database)
    with database.write() as session:
        catalog.promise_reported(session, first, [], answer="taken", now=NOW)
    again, other = asked(database), asked(database, ae="CART2")

    assert due(database, 10) == [again, other]
    with database.read() as session:
        assert len(catalog.list_promise_requests(session)) == 2


@pytest.mark.both_databases
def test_requests_that_ended_long_ago_are_forgotten(database: Database) -> None:
    old = asked(database, "1.1")
    with database.write() as session:
        catalog.promise_reported(session, old, [], answer="taken", now=NOW)
    asked(database, "1.2", at=NOW + timedelta(days=91))

    with database.read() as session:
        known = catalog.list_promise_requests(session)
    assert [request.transaction_uid for request in known] == ["1.2"]


@pytest.mark.both_databases
def test_a_promise_given_is_told_in_the_timeline_of_its_study(database: Database) -> None:
    (kept,) = receive(database, clip(1))
    request = asked(database)
    with database.write() as session:
        catalog.promise_reported(
            session, request, [kept.sop_instance_uid, "1.2.999"], answer="taken", now=NOW
        )

    messages = [event.message for event in detail(database).timeline]
    assert "promised CART1 to keep 1 object" in messages


def test_the_tables_come_and_go_with_their_migration(database_url: str, tmp_path: Path) -> None:
    def tables() -> set[str]:
        engine = create_engine(database_url, poolclass=NullPool)
        return set(inspect(engine).get_table_names())

    migrate(database_url)
    assert {"promise_request", "promise_request_item"} <= tables()
    migrate(database_url, "0006")
    assert not {"promise_request", "promise_request_item"} & tables()
    migrate(database_url)
    assert (tmp_path / "echonode.db").exists()
