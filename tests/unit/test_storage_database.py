"""The database: what it promises, how it is brought up to date, and what it says when it cannot."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from storage import catalog
from storage import database as database_module
from storage.catalog import InstanceExistsError, ResultKind
from storage.database import (
    Database,
    DatabaseError,
    SchemaError,
    SchemaState,
    migrate,
    migration_state,
    open_database,
)
from storage.states import FileState
from storage.tables import Base, Instance, NodeProcess, Recording, Result, Study, TimelineEvent
from tests.peers import wait_until
from tests.unit.storage_steps import (
    STUDY,
    clip,
    complete,
    detail,
    later,
    receive,
    result,
    until_delivering,
)


def pragma(opened: Database, name: str) -> object:
    with opened.write() as session:
        return session.scalar(text(f"PRAGMA {name}"))


def tables(url: str) -> list[str]:
    engine = create_engine(url, poolclass=NullPool)
    return inspect(engine).get_table_names()


@pytest.mark.parametrize(
    ("name", "value"),
    [("journal_mode", "wal"), ("busy_timeout", 10_000), ("foreign_keys", 1), ("synchronous", 2)],
)
def test_sqlite_is_set_up_to_keep_what_it_has_committed(
    database: Database, name: str, value: object
) -> None:
    assert pragma(database, name) == value


@pytest.mark.both_databases
def test_a_write_is_there_for_others_at_its_end_and_not_before(
    database: Database, database_url: str
) -> None:
    other = Database(database_url)
    with database.write() as session:
        catalog.add_instance(session, clip(1))
        with other.read() as reader:
            assert catalog.list_studies(reader) == ()
    with other.read() as reader:
        assert len(catalog.list_studies(reader)) == 1
    other.close()


@pytest.mark.both_databases
def test_an_exception_undoes_the_whole_write(database: Database) -> None:
    def add_twice() -> None:
        with database.write() as session:
            catalog.add_instance(session, clip(1))
            catalog.add_instance(session, clip(1))

    with pytest.raises(InstanceExistsError):
        add_twice()
    with database.read() as session:
        assert catalog.list_studies(session) == ()


@pytest.mark.both_databases
def test_a_read_sees_one_state_while_others_write(database: Database) -> None:
    with database.read() as session:
        assert catalog.list_studies(session) == ()
        receive(database, clip(1))
        assert catalog.list_studies(session) == ()


@pytest.mark.both_databases
def test_a_read_can_change_nothing(database: Database) -> None:
    with pytest.raises(DatabaseError, match=r"read-?only"), database.read() as session:
        catalog.add_instance(session, clip(1))
    receive(database, clip(1))


@pytest.mark.both_databases
def test_writers_have_their_turn_in_the_order_in_which_they_came(database: Database) -> None:
    came: list[int] = []
    wrote: list[int] = []

    def write(number: int) -> None:
        came.append(number)
        with database.write():
            wrote.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    with database.write():
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda: len(database._turns._waiting) == number + 1, what="it waits")  # noqa: B023 - called at once
    for thread in threads:
        thread.join()

    assert wrote == came == list(range(12))


def test_a_writer_that_waits_too_long_for_others_says_so_and_keeps_no_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 50)
    told: list[str] = []

    def write() -> None:
        try:
            with database.write():
                pass
        except DatabaseError as error:
            told.append(str(error))

    with database.write():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert "waited 0 s for each other" in told[0]
    with database.write():
        pass


@pytest.mark.both_databases
def test_writers_that_read_first_wait_for_each_other_and_none_is_given_up(
    database: Database,
) -> None:
    receive(database, clip(0))

    def count_up() -> None:
        for _ in range(10):
            with database.write() as session:
                study = session.get(Study, 1)
                assert study is not None
                urgency = study.urgency
                time.sleep(0.001)
                study.urgency = urgency + 1

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert detail(database).study.urgency == 40


@pytest.mark.both_databases
def test_a_row_that_points_at_none_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        catalog.add_event(session, 99, "note", "no such study")


@pytest.mark.both_databases
def test_a_deleted_study_takes_everything_of_its_own_along(database: Database) -> None:
    until_delivering(database)
    with database.write() as session:
        study = session.get(Study, 1)
        session.delete(study)
    with database.read() as session:
        assert not any(catalog.queue_status(session).studies.values())
        for table in Base.metadata.sorted_tables:
            if table.name != "tally":  # which counts none of anything
                assert session.execute(table.select()).all() == [], table.name


@pytest.mark.both_databases
def test_migrations_make_exactly_the_tables_that_the_code_declares(database_url: str) -> None:
    migrate(database_url)
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        # PostgreSQL cannot compare the JSON of two defaults; what is there for one is for both.
        defaults = connection.dialect.name == "sqlite"
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": defaults}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_make_the_same_indices_in_the_same_order_as_the_code(
    database_url: str, tmp_path: Path
) -> None:
    migrate(database_url)
    declared = create_engine(f"sqlite:///{tmp_path / 'declared.db'}", poolclass=NullPool)
    Base.metadata.create_all(declared)
    query = text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    with declared.connect() as connection:
        expected = {tuple(row) for row in connection.execute(query)}
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        assert {tuple(row) for row in connection.execute(query)} == expected
    assert "ix_recording_queue" in {name for name, _ in expected}


@pytest.mark.both_databases
def test_migrations_go_down_and_up_again(database_url: str) -> None:
    migrate(database_url)
    head = migration_state(database_url).head
    assert migration_state(database_url) == SchemaState(current=head, head=head)
    migrate(database_url, "base")
    assert migration_state(database_url) == SchemaState(current=None, head=head)
    assert tables(database_url) == ["alembic_version"]
    migrate(database_url)
    assert migration_state(database_url).current == head


@pytest.mark.both_databases
def test_findings_from_before_beats_keep_their_mean_both_ways(
    database: Database, database_url: str
) -> None:
    until_delivering(database)
    (before,) = detail(database).recordings[0].findings
    assert before.per_beat == (53.5, 56.5)
    database.close()
    migrate(database_url, "0001")
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("finding")}
        assert connection.execute(text("SELECT value FROM finding")).scalar_one() == 55.0
    assert "per_beat" not in columns
    migrate(database_url)
    again = open_database(database_url)
    (after,) = detail(again).recordings[0].findings
    again.close()
    assert after == replace(before, per_beat=(), outside_share=None)


@pytest.mark.both_databases
def test_findings_from_before_the_share_outside_stay_both_ways(
    database: Database, database_url: str
) -> None:
    until_delivering(database)
    (before,) = detail(database).recordings[0].findings
    assert before.outside_share == 0.25
    database.close()
    migrate(database_url, "0002")
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("finding")}
        assert connection.execute(text("SELECT value FROM finding")).scalar_one() == 55.0
    assert "outside_share" not in columns
    migrate(database_url)
    again = open_database(database_url)
    (after,) = detail(again).recordings[0].findings
    again.close()
    assert after == replace(before, outside_share=None)


@pytest.mark.both_databases
def test_what_was_sent_instead_is_no_result_of_an_earlier_version_both_ways(
    database: Database, database_url: str
) -> None:
    until_delivering(database)
    frame = result("frame", ResultKind.SC)
    with database.write() as session:
        (due,) = catalog.claim_due_deliveries(session, later(50))
        catalog.send_instead(session, due.delivery_id, [frame], "no such class", later(50))
        catalog.note_refused_class(session, "pacs", "1.2.3", "not supported", later(50))
    database.close()
    migrate(database_url, "0003")
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("result")}
        assert connection.execute(text("SELECT kind FROM result")).scalars().all() == ["sr"]
        assert connection.execute(text("SELECT state FROM delivery")).scalars().all() == ["failed"]
    assert "stands_for" not in columns
    assert "refused_class" not in tables(database_url)
    migrate(database_url)
    again = open_database(database_url)
    shown = detail(again)
    with again.read() as session:
        assert catalog.refused_classes(session) == ()
    again.close()
    assert [made.stands_for for made in shown.results] == [None]
    assert [item.state for item in shown.deliveries] == [catalog.DeliveryState.FAILED]


@pytest.mark.both_databases
def test_whether_a_file_is_there_is_not_known_to_an_earlier_version_both_ways(
    database: Database, database_url: str
) -> None:
    until_delivering(database)
    with database.write() as session:
        for row in (*session.query(Instance), *session.query(Result)):
            assert (row.file_state, row.file_since) == (FileState.KEPT, None)
            row.file_state, row.file_since = FileState.REMOVED, later(60)
    database.close()
    migrate(database_url, "0004")
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        for table in ("instance", "result", "quarantined_object"):
            columns = {column["name"] for column in inspect(connection).get_columns(table)}
            assert not columns & {"file_state", "file_since"}
        assert connection.execute(text("SELECT count(*) FROM instance")).scalar_one() == 1
    migrate(database_url)
    again = open_database(database_url)
    with again.read() as session:
        for row in (*session.query(Instance), *session.query(Result)):
            assert (row.file_state, row.file_since) == (FileState.KEPT, None)
    again.close()


@pytest.mark.both_databases
def test_migrating_again_keeps_every_row(database: Database, database_url: str) -> None:
    receive(database, clip(1))
    migrate(database_url)
    assert detail(database).study.images == 1


@pytest.mark.both_databases
def test_processes_that_start_at_once_migrate_one_after_the_other(database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=migrate, args=(database_url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    open_database(database_url).close()


def test_a_migration_that_breaks_off_leaves_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    def break_off(*_arguments: object, **_keywords: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(op, "create_index", break_off)
    with pytest.raises(RuntimeError, match="power cut"):
        migrate(database_url)
    assert tables(database_url) == []
    monkeypatch.undo()
    migrate(database_url)


def test_a_migration_waits_for_another_only_so_long(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_MIGRATION_LOCK_TIMEOUT_S", 0.1)
    with (
        database_module._file_lock(tmp_path / "echonode.db"),
        pytest.raises(DatabaseError, match="another process has kept"),
    ):
        migrate(database_url)


def test_tables_of_a_later_version_are_left_alone(database_url: str, tmp_path: Path) -> None:
    migrate(database_url)
    with sqlite3.connect(tmp_path / "echonode.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for attempt in (migrate, open_database, migration_state):
        with pytest.raises(SchemaError, match="revision 9999, which this version") as told:
            attempt(database_url)
        assert "install the version that last used it" in str(told.value)


def test_a_database_without_tables_says_how_to_make_them(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "echonode.db").touch()
    with pytest.raises(SchemaError, match="run `echonode db upgrade`"):
        open_database(database_url)
    opened = Database(database_url)
    with pytest.raises(DatabaseError, match="no such table: study; run `echonode db upgrade`"):
        detail(opened)
    opened.close()


def test_a_database_that_is_not_there_is_told_and_not_made(
    database_url: str, tmp_path: Path
) -> None:
    with pytest.raises(DatabaseError, match=f"no database at {tmp_path}/echonode.db"):
        open_database(database_url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_told(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "echonode.db").write_text("a letter to a friend, " * 500)
    for attempt in (migrate, open_database):
        with pytest.raises(DatabaseError, match="file is not a database; the file is something"):
            attempt(database_url)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError, match="see that the folder exists"):
        migrate(f"sqlite:///{tmp_path / 'file' / 'echonode.db'}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "keeps nothing; name a file"),
        ("sqlite:///:memory:", "keeps nothing; name a file"),
        ("echonode.db", "is not a database URL"),
        ("nosuch://user:secret@host/db", "is not a database URL"),
        ("oracle+nosuch://user:secret@host/db", "is not a database URL"),
        ("mssql+pyodbc://user:secret@host/db", "mssql|pyodbc"),
    ],
)
def test_a_url_that_names_no_lasting_database_is_refused(url: str, words: str) -> None:
    for attempt in (Database, migrate, migration_state):
        with pytest.raises(DatabaseError, match=words) as told:
            attempt(url)
        assert "secret" not in str(told.value)


def test_nobody_else_can_read_the_database(database_url: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        migrate(database_url)
        opened = Database(database_url)
        receive(opened, clip(1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        opened.close()
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes


_WRITER = """
import sys
from storage.database import Database
from tests.unit.storage_steps import clip, complete, receive
database = Database(sys.argv[1])
for number in range(1, 10_000):
    uid = f"1.2.{number}"
    receive(database, clip(1, study_instance_uid=uid, sop_instance_uid=f"{uid}.1"))
    print(uid, flush=True)
    complete(database, uid)
"""


def test_a_writer_that_is_killed_leaves_all_it_committed_and_nothing_half(
    database: Database, database_url: str
) -> None:
    repository = Path(__file__).parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, database_url],
        cwd=repository,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(25)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()

    assert acknowledged[0] == "1.2.1"
    with database.write() as session:
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
        kept = {study.study_instance_uid: study for study in session.query(Study)}
        assert set(acknowledged) <= set(kept)
        for study in kept.values():
            events = [
                event.kind for event in session.query(TimelineEvent).filter_by(study_id=study.id)
            ]
            recordings = session.query(Recording).filter_by(study_id=study.id).all()
            assert session.query(Instance).filter_by(study_id=study.id).count() == 1
            assert (str(study.state), events, [str(r.state) for r in recordings]) in [
                ("receiving", ["study-opened"], ["received"]),
                ("analysing", ["study-opened", "study-complete"], ["to_view"]),
            ]


def test_the_queue_stays_fast_beside_many_finished_recordings(database: Database) -> None:
    receive(database, clip(1))
    complete(database)
    with database.write() as session:
        plan = session.execute(
            text(
                "EXPLAIN QUERY PLAN SELECT id FROM recording WHERE state = 'to_view' "
                "ORDER BY urgency DESC, queued_at, id LIMIT 1"
            )
        ).all()
    assert len(plan) == 1
    assert "ix_recording_queue" in plan[0][3]
    assert detail(database).study.study_instance_uid == STUDY


def test_a_migrations_file_is_named_by_its_revision_in_their_order(database_url: str) -> None:
    """So that a command knows the revisions without importing Alembic."""
    scripts = ScriptDirectory.from_config(database_module._alembic_config())
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    names = [path.name.partition("_")[0] for path in sorted(database_module._VERSIONS.glob("0*"))]

    migrate(database_url)

    assert names == revisions
    assert migration_state(database_url) == (revisions[-1], revisions[-1])


@pytest.mark.both_databases
def test_what_one_node_does_alone_no_other_does_meanwhile(
    database: Database, database_url: str
) -> None:
    on_a_server = not database_url.startswith("sqlite")  # a file has one node
    other = Database(database_url)
    with database.alone("tidying") as mine, other.alone("tidying") as theirs:
        assert (mine, theirs) == (True, not on_a_server)
        with other.alone("something else") as theirs:
            assert theirs
    with other.alone("tidying") as theirs:
        assert theirs
    other.close()


@pytest.mark.both_databases
@pytest.mark.parametrize("way", ["write", "beside"])
def test_who_stands_still_in_the_midst_of_writing_keeps_no_other_node_out(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("a file has one node, and its lock ends with that process")
    monkeypatch.setattr(database_module, "_STILL_TIMEOUT_MS", 500)
    still = {"write": database.write, "beside": database.beside}[way]
    other = Database(database_url)
    with other.write() as session:
        catalog.join(session, "there", pid=1, started_at=later(0), details={})
    broken = pytest.raises(DatabaseError, match="stood still in the midst of writing")
    with broken, still() as session:
        row = session.get_one(NodeProcess, "there", with_for_update=True)
        row.pid = 2
        session.flush()
        with other.write() as theirs:  # waits for the row, and for the turn
            theirs.get_one(NodeProcess, "there", with_for_update=True).pid = 3
        session.get_one(NodeProcess, "there", populate_existing=True)
    with database.write() as session:  # on a connection of its own
        assert session.get_one(NodeProcess, "there").pid == 3
    other.close()


@pytest.mark.both_databases
def test_who_writes_beside_others_waits_for_no_turn_on_a_server(
    database: Database, database_url: str
) -> None:
    done = threading.Event()

    def beside() -> None:
        with database.beside() as session:
            catalog.join(session, "here", pid=1, started_at=later(0), details={})
        done.set()

    thread = threading.Thread(target=beside)
    with database.write():
        thread.start()
        assert done.wait(0.5 if database_url.startswith("sqlite") else 10) != (
            database_url.startswith("sqlite")
        )
    thread.join()
    with database.read() as session:
        assert [node.node_id for node in catalog.read_nodes(session)] == ["here"]
