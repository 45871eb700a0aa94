"""What a node asks often goes by indices: it takes as long with a million rows as with a few."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from storage import catalog
from storage.catalog import StudyState
from storage.database import Database, migrate
from storage.tables import Instance, Study
from tests.many_studies import DESTINATION, Filled, fill
from tests.unit.storage_steps import clip

#: Tables that grow with every study. Others have few rows, or only those that still wait.
LARGE = (
    "study", "instance", "recording", "finding", "refusal", "pack_run", "result", "delivery",
    "commitment", "commitment_item", "timeline_event", "promise_request", "promise_request_item",
)  # fmt: skip
SHORT = (
    # In the order that is wanted: it ends with the first rows.
    "SCAN study USING INDEX ix_study_newest",
    # An index of those rows alone, of which there are few.
    "SCAN commitment_item USING INDEX ix_commitment_item_refused",
)
#: By an index, and yet through nearly all: the files of nearly all objects are there.
KEPT = re.compile(r"SEARCH .* INDEX ix_\w+_file \(file_state=\?\)")
SORTED = "USE TEMP B-TREE FOR ORDER BY"

Asked = Callable[[Session, Filled], object]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Filled]]:
    """A database of a few studies in every state. How a query goes does not depend on how many."""
    url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'echonode.db'}"
    migrate(url)
    made = fill(url, 1000, file_key=f"objects/ab/{'0' * 62}.dcm")
    database = Database(url)
    yield database, made
    database.close()


def _clock(session: Session, made: Filled) -> None:
    """What happens each second."""
    now = made.end
    catalog.studies_to_complete(session, now, 60, 60, 36000)
    catalog.studies_to_report(session)
    catalog.studies_in_reporting(session)
    catalog.anything_to_report(session)
    catalog.anything_due(session, DESTINATION, now)
    catalog.claim_due_deliveries(session, now + timedelta(days=1), DESTINATION)
    catalog.promises_due(session, DESTINATION, now)
    catalog.awaiting_others(session, [DESTINATION])
    catalog.promise_requests_due(session, now)


def _work(session: Session, _made: Filled) -> None:
    """A clip's way, and that of a node that starts."""
    claimed = catalog.claim_next(session, worker="pool")
    assert claimed is not None
    catalog.put_back(session, claimed.recording_id, "")
    catalog.requeue_interrupted(session)
    catalog.requeue_interrupted_deliveries(session)


def _status(session: Session, made: Filled) -> None:
    """The command, the page of now, the metrics and the alerts."""
    catalog.queue_status(session)
    catalog.promise_counts(session)
    catalog.watch_destinations(session, made.end)
    catalog.failures_since(session, made.end - timedelta(hours=1))
    catalog.hours_of(session, [made.end - timedelta(hours=hour) for hour in (2, 1, 0)])


def _lists(session: Session, _made: Filled) -> None:
    catalog.list_studies(session, limit=26)
    catalog.list_studies(session, StudyState.FAILED, limit=26)


def _study(session: Session, made: Filled) -> None:
    catalog.study_detail(session, made.uid(1))
    sop = session.scalars(
        select(Instance.sop_instance_uid)
        .join(Study)
        .where(Study.study_instance_uid == made.uid(1))
        .limit(1)
    ).one()
    catalog.shown_recording(session, made.uid(1), sop)
    catalog.study_here(session, made.uid(1))
    catalog.find_study(session, made.uid(1))


def _search(session: Session, made: Filled) -> None:
    day = made.day(0)
    found = catalog.held_studies(session, first_date=day, last_date=day)
    assert catalog.first_files(session, found)
    held = catalog.held_objects(session, studies=[found[0]])
    catalog.held_objects(session, studies=[found[0]], series=[held[0].series_instance_uid])
    catalog.held_objects(session, instances=[held[0].sop_instance_uid])
    catalog.held_studies(session, series=[held[0].series_instance_uid])
    catalog.held_studies(session, instances=[held[0].sop_instance_uid])
    catalog.was_held(session, study=found[0], instance=held[0].sop_instance_uid)


def _arrival(session: Session, _made: Filled) -> None:
    kept = catalog.add_instance(session, clip(1))
    catalog.note_released(session, [kept.study_instance_uid])


@pytest.mark.parametrize("ask", [_clock, _work, _status, _lists, _study, _search, _arrival])
def test_what_is_asked_often_goes_through_no_large_table(
    filled: tuple[Database, Filled], ask: Asked
) -> None:
    database, made = filled
    with database.write() as session:
        statements = _statements(session, lambda: ask(session, made))
        steps = {step for statement in statements for step in _plan(session, *statement)}
        session.rollback()

    assert len(statements) > 1
    assert sorted(step for step in steps if _is_long(step)) == []


def test_the_newest_studies_are_found_without_sorting_all(
    filled: tuple[Database, Filled],
) -> None:
    database, made = filled
    with database.read() as session:
        for sent in _statements(session, lambda: _lists(session, made)):
            if "ORDER BY" in sent[0]:
                assert SORTED not in _plan(session, *sent), sent[0]


def test_what_goes_through_all_rows_is_known_by_its_plan(
    filled: tuple[Database, Filled],
) -> None:
    database, _ = filled
    with database.read() as session:
        for query in (
            "SELECT * FROM study WHERE description = 'x'",
            "SELECT count(*) FROM recording",
            "SELECT state, count(*) FROM recording GROUP BY state",
            "SELECT * FROM study AS s ORDER BY reason",
            "SELECT * FROM instance WHERE file_state = 'kept' AND door = 'dimse'",
        ):
            assert [step for step in _plan(session, query, ()) if _is_long(step)], query


def _statements(session: Session, work: Callable[[], object]) -> list[tuple[str, Any]]:
    """What is sent to the database meanwhile."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_others: Any) -> None:
        sent.append((statement, parameters))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
        session.flush()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return sent


def _plan(session: Session, statement: str, parameters: Any) -> list[str]:
    if not statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
        return []
    many = isinstance(parameters, list)
    rows = session.connection().exec_driver_sql(
        f"EXPLAIN QUERY PLAN {statement}", parameters[0] if many else parameters
    )
    return [row[3] for row in rows]


def _is_long(step: str) -> bool:
    """Whether a step of a plan goes through a large table, or all of an index of one."""
    if KEPT.fullmatch(step):
        return True
    words = step.split()
    if words[0] != "SCAN" or step.startswith(SHORT):
        return False
    # A name that is none of ours is an alias: nobody knows of what, so it counts. What is asked
    # within a query ("anon_1") has steps of its own.
    small = ("node_process", "tally", "quarantined_object", "refused_class", "(subquery", "anon_")
    return words[1].strip("'") in LARGE or not words[1].startswith(small)
