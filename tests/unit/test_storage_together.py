"""Those who write at the same moment share one commit, and none of them another's failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import IntegrityError

from storage import catalog
from storage.catalog import NewInstance, RecordingKind
from storage.database import Database, DatabaseError, Rows
from storage.states import StudyState
from storage.tables import Instance, Recording, Study, TimelineEvent
from tests.peers import wait_until
from tests.unit.storage_steps import STUDY, clip, later, receive

pytestmark = pytest.mark.both_databases


def rows_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of studies."""
    with database.read() as session:
        return {
            table.__tablename__: [
                dict(row._mapping)
                for row in session.execute(select(table.__table__).order_by(table.__table__.c.id))
            ]
            for table in (Study, Instance, Recording, TimelineEvent)
        }


def kept(database: Database) -> list[str]:
    """The objects that have a row."""
    with database.read() as session:
        return sorted(session.scalars(select(Instance.sop_instance_uid)))


def all_at_once(
    database: Database, works: list[Callable[[Rows], Any]]
) -> tuple[list[Any], list[str]]:
    """What each gave or raised, where all came while another wrote; and what was said at ends."""
    said: list[str] = []

    def commit(_connection: object) -> None:
        said.append("commit")

    with ThreadPoolExecutor(len(works)) as pool:
        with database.write():
            futures = [pool.submit(database.together, work) for work in works]
            wait_until(lambda: len(database._together._waiting) == len(works), what="all wait")
        event.listen(Engine, "commit", commit)
        try:
            outcomes = [future.exception() or future.result() for future in futures]
        finally:
            event.remove(Engine, "commit", commit)
    return outcomes, said


CASES = {
    "the first of a study": [clip(1)],
    "one more": [clip(1), clip(2, received_at=later(1))],
    "one that came before the last": [clip(1, received_at=later(5)), clip(2)],
    "no recording": [clip(1, recording_kind=None), clip(2, recording_kind=None)],
    "urgent": [clip(1, urgency=5, urgency_reason="a rule"), clip(2, urgency=5)],
    "less urgent than its study": [clip(1, urgency=5), clip(2)],
    "with words": [clip(1, description="echo", accession_number="A1"), clip(2, description="e")],
}


@pytest.mark.parametrize("name", CASES)
def test_a_plain_object_has_the_rows_that_a_session_would_make(
    database: Database, name: str
) -> None:
    for new in CASES[name]:
        assert database.together(partial(catalog.add_plain, new=new)) is True
    plainly = rows_of(database)
    with database.write() as session:
        for study in session.scalars(select(Study)):
            session.delete(study)
    for new in CASES[name]:
        receive(database, new)
    numbers = {"id", "study_id", "instance_id"}
    assert [
        {key: value for key, value in row.items() if key not in numbers}
        for rows in plainly.values()
        for row in rows
    ] == [
        {key: value for key, value in row.items() if key not in numbers}
        for rows in rows_of(database).values()
        for row in rows
    ]


@pytest.mark.parametrize(
    "second",
    [
        clip(1),  # the same again
        clip(2, own=True, recording_kind=None),
        clip(2, urgency=1),
        clip(2, description="what the first did not say"),
    ],
    ids=["known", "own", "urgent", "says more"],
)
def test_what_is_not_plain_changes_nothing(database: Database, second: NewInstance) -> None:
    receive(database, clip(1))
    before = rows_of(database)
    assert database.together(partial(catalog.add_plain, new=second)) is False
    assert rows_of(database) == before


def test_an_object_after_the_end_of_its_study_is_not_plain(database: Database) -> None:
    record = receive(database, clip(1))[0]
    with database.write() as session:
        catalog.begin_analysis(session, record.study_id, "quiet", now=later(60))
    assert database.together(partial(catalog.add_plain, new=clip(2))) is False


def test_who_come_while_another_writes_share_a_commit(database: Database) -> None:
    others = [replace(clip(n), study_instance_uid=f"{STUDY}.{n % 3}") for n in range(12)]
    outcomes, said = all_at_once(database, [partial(catalog.add_plain, new=new) for new in others])
    assert outcomes == [True] * 12
    # The first waited for its turn with what had come until then; all others are in the next.
    assert len(said) <= 2
    assert kept(database) == sorted(new.sop_instance_uid for new in others)
    with database.read() as session:
        states = session.execute(select(Recording.kind, Study.state).join(Study)).all()
    assert set(states) == {(RecordingKind.ULTRASOUND, StudyState.RECEIVING)}


def test_a_piece_that_fails_fails_alone(database: Database) -> None:
    def twice(rows: Rows) -> None:
        catalog.add_plain(rows, clip(20))
        rows.run("INSERT INTO instance (id) VALUES (NULL)")

    def wrong(rows: Rows) -> None:
        catalog.add_plain(rows, clip(21))
        raise ValueError("not so")

    good = [partial(catalog.add_plain, new=clip(n)) for n in (1, 2, 3)]
    outcomes, _ = all_at_once(database, [good[0], twice, good[1], wrong, good[2]])

    assert [outcomes[place] for place in (0, 2, 4)] == [True] * 3
    assert isinstance(outcomes[1], IntegrityError)
    assert isinstance(outcomes[3], ValueError)
    assert kept(database) == sorted(clip(n).sop_instance_uid for n in (1, 2, 3))


def test_where_the_commit_fails_it_fails_for_all_and_the_next_goes_on(database: Database) -> None:
    failing = threading.Event()

    def refuse(_connection: object) -> None:
        if failing.is_set():
            raise DatabaseError("no space")

    failing.set()
    event.listen(Engine, "commit", refuse)
    try:
        with ThreadPoolExecutor(4) as pool:
            futures = [
                pool.submit(database.together, partial(catalog.add_plain, new=clip(n)))
                for n in range(4)
            ]
            outcomes = [future.exception() for future in futures]
    finally:
        event.remove(Engine, "commit", refuse)

    assert all(isinstance(outcome, DatabaseError) for outcome in outcomes)
    assert kept(database) == []
    assert database.together(partial(catalog.add_plain, new=clip(1))) is True
    assert kept(database) == [clip(1).sop_instance_uid]


def test_nobody_waits_for_ever_where_the_turn_does_not_come(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database._BUSY_TIMEOUT_MS", 200)
    with ThreadPoolExecutor(3) as pool, database.write():
        futures = [
            pool.submit(database.together, partial(catalog.add_plain, new=clip(n)))
            for n in range(3)
        ]
        outcomes = [future.exception() for future in futures]
    assert all(isinstance(outcome, DatabaseError) for outcome in outcomes)
    assert database.together(partial(catalog.add_plain, new=clip(1))) is True
