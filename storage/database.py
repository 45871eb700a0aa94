"""The database: opening it, its transactions, and bringing its tables up to date.

SQLite by default, PostgreSQL where several machines share one. On both there is one writer at a
time: a write transaction takes its turn at its begin and not half-way, so none ever has to be
given up because another was faster. On PostgreSQL short claims go beside them, by locks of rows.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Select, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, NullPool
from sqlalchemy.sql import ClauseElement, Insert
from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    from alembic.config import Config

_T = TypeVar("_T")

_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSIONS = _MIGRATIONS / "versions"  # each file is named by its revision
_BUSY_TIMEOUT_MS = 10_000
_STILL_TIMEOUT_MS = _BUSY_TIMEOUT_MS // 2  # who waits for one that stands still is not given up
_MIGRATION_LOCK_TIMEOUT_S = 60.0
#: PostgreSQL's advisory locks are numbers, shared by a whole database: "echonode" in ASCII ...
_WRITER_LOCK = 0x6563686F6E6F6465
_MIGRATION_LOCK = _WRITER_LOCK + 1
#: A commit is on disk when it returns, whatever the server's settings; nobody waits for ever.
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "options": " ".join(
        f"-c {setting}"
        for setting in (
            "synchronous_commit=on",
            f"lock_timeout={_BUSY_TIMEOUT_MS}",
            # What a machine that is gone had locked is free in a minute, not after two hours.
            "tcp_keepalives_idle=30",
            "tcp_keepalives_interval=10",
            "tcp_keepalives_count=3",
        )
    ),
    "application_name": "echonode",
}
_MOST_TOGETHER = 64  # pieces of writing in one transaction
_QUERY_ONLY = "query_only"  # of a connection's notes: whether it may only read
_PLACE = "place"  # of a pooled connection's notes: the file it was opened on
#: What makes a transaction see one state of the database and change nothing.
_READER: dict[str, dict[str, object]] = {
    "sqlite": {},  # see `_begin_sqlite`
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


class DatabaseError(Exception):
    """The database cannot be used; the message says which, why, and what to do."""


class SchemaError(DatabaseError):
    """The tables are not those that this version of echonode knows."""


class SchemaState(NamedTuple):
    """Which revision the tables are at (None: there are none), and which the code is at."""

    current: str | None
    head: str


class Database:
    """An open database. One for a process; any thread may use it.

    Parameters
    ----------
    url
        As SQLAlchemy knows it: ``sqlite:////var/lib/echonode/echonode.db``.

    Raises
    ------
    DatabaseError
        If the URL is not one, or names an SQLite file that is not there.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        if self.url.get_backend_name() == "sqlite" and not _sqlite_file(self.url).is_file():
            raise DatabaseError(
                f"no database at {_sqlite_file(self.url)}; "
                "`echonode serve` or `echonode db upgrade` makes one"
            )
        self._engine = _engine(self.url)
        self._reader = self._engine.execution_options(**_READER[self.url.get_backend_name()])
        self._writer = self._engine.execution_options(echonode_write=True)
        self._turns = _Turns()
        self._statements = _Statements(self._engine.dialect)
        self._together = _Together(self._commit_together)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One short transaction that sees one state of the database and can change nothing."""
        with self._transaction(self._reader) as session:
            yield session

    def first(self, question: Select[Any], **values: object) -> tuple[Any, ...] | None:
        """The first row that answers a plain question, as the driver gives it; None for none.

        Without a session it takes a tenth of the time: for what each object asks that arrives.
        ``question`` is made once and asked again and again; ``values`` are its parameters'.
        """
        with self._explained():
            connection = self._engine.raw_connection()
            try:
                return self._statements.first(connection, question, values)
            finally:
                connection.close()  # goes back, and forgets what it saw

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One short transaction that may write: committed at the end, undone at an exception.

        Others wait for their turn meanwhile: do nothing slow in it.
        """
        with self._turns.turn(self.url), self._transaction(self._writer) as session:
            yield session

    def together(self, work: Callable[[Rows], _T]) -> _T:
        """Do a small piece of writing; those who come at the same moment share one commit.

        It is committed when this returns. Nobody waits for company: who comes alone commits at
        once, and who comes while others commit is in the next transaction. A piece that fails is
        undone by itself, and fails for its caller alone.
        """
        return cast(_T, self._together.do(work))

    def _commit_together(self, parts: Callable[[], Sequence[_Part]]) -> None:
        with (
            self._explained(),
            self._turns.turn(self.url),
            self._writer.connect() as connection,
            connection.begin(),
        ):
            rows = Rows(self._statements, connection)
            mine = parts()  # all who came while we waited
            for part in mine:
                if len(mine) == 1:
                    part.result = part.work(rows)
                    continue
                rows.run("SAVEPOINT part")
                try:
                    with self._explained():
                        part.result = part.work(rows)
                except Exception as error:  # noqa: BLE001 - it is its caller's
                    rows.run("ROLLBACK TO SAVEPOINT part")  # fails for all where all is undone
                    part.error = error
                rows.run("RELEASE SAVEPOINT part")

    @contextmanager
    def beside(self) -> Iterator[Session]:
        """One short transaction that writes beside others: it waits for no turn.

        For what locks the rows that it changes, and decides by these alone: a claim, a heartbeat.
        SQLite, which locks no rows, knows only :meth:`write`.
        """
        if self.url.get_backend_name() == "sqlite":
            with self.write() as session:
                yield session
        else:
            with self._transaction(self._engine) as session:
                yield session

    @contextmanager
    def alone(self, task: str) -> Iterator[bool]:
        """Do a task that several nodes must not do at once; False where another is doing it.

        An SQLite file has one node. On a server the task's lock is the connection's: it ends with
        a node that dies.
        """
        if self.url.get_backend_name() == "sqlite":
            yield True
            return
        key = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], signed=True)
        try:
            connection = self._engine.connect()
        except DBAPIError as error:
            raise _explained(self.url, error) from error
        mine = False
        try:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            mine = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
        except DBAPIError as error:
            self._give_back(connection, None)
            raise _explained(self.url, error) from error
        try:
            yield mine
        finally:
            self._give_back(connection, key if mine else None)

    def _give_back(self, connection: Connection, key: int | None) -> None:
        try:
            if key is not None:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
        except DBAPIError:
            connection.invalidate()  # the server may be gone, and the lock with it
        finally:
            with suppress(DBAPIError):
                connection.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Session]:
        with (
            self._explained(),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the database in our words."""
        try:
            yield
        except (IntegrityError, DataError, ProgrammingError):
            raise  # a mistake of ours, not a state of the database
        except DBAPIError as error:
            raise _explained(self.url, error) from error
        except DisconnectionError as error:
            raise DatabaseError(f"database {_name(self.url)}: {error}; try again") from error
        except PoolTimeoutError as error:
            raise DatabaseError(
                f"database {_name(self.url)}: every connection is in use; "
                "see in the node's log what keeps them"
            ) from error


class Rows:
    """What a piece of writing in a shared transaction says to the database.

    The driver is asked itself: what a session does besides takes longer than the writing.
    """

    def __init__(self, statements: _Statements, connection: Connection) -> None:
        self._statements = statements
        self._connection = connection.connection

    def first(self, statement: ClauseElement, **values: object) -> tuple[Any, ...] | None:
        """The first row of the answer, as the driver gives it; None for none.

        ``statement`` is made once and used again and again; ``values`` are its parameters'. Of an
        insert, every column's: what a table fills in by itself is not filled in here.
        """
        return self._statements.first(self._connection, statement, values)

    def do(self, statement: ClauseElement, **values: object) -> None:
        """The same, of a statement that answers nothing."""
        self._statements.do(self._connection, statement, values)

    def run(self, words: str) -> None:
        """A statement as it is written."""
        self._statements.run(self._connection, words, ())


class _Plain(NamedTuple):
    """A statement as the driver takes it."""

    words: str
    names: Sequence[str] | None  #: of the parameters, in their order; None where they have names
    compiled: SQLCompiler
    turned: Mapping[str, Callable[[Any], Any]]  #: how values are put for the driver


class _Statements:
    """Statements in the driver's own terms, each put into them once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[ClauseElement, _Plain] = {}

    def first(
        self, connection: Any, statement: ClauseElement, values: dict[str, object]
    ) -> tuple[Any, ...] | None:
        plain = self._plain(statement, values)
        row = self.run(connection, plain.words, _parameters(plain, values), answers=True)
        return None if row is None else tuple(row)

    def do(self, connection: Any, statement: ClauseElement, values: dict[str, object]) -> None:
        plain = self._plain(statement, values)
        self.run(connection, plain.words, _parameters(plain, values))

    def run(self, connection: Any, words: str, parameters: Any, *, answers: bool = False) -> Any:
        base = self._dialect.loaded_dbapi.Error
        try:
            cursor = connection.cursor()
            try:
                cursor.execute(words, parameters)
                return cursor.fetchone() if answers else None
            finally:
                cursor.close()
        except base as error:
            raise DBAPIError.instance(words, None, error, base, dialect=self._dialect) from error

    def _plain(self, statement: ClauseElement, values: dict[str, object]) -> _Plain:
        known = self._known.get(statement)
        if known is None:
            columns = list(values) if isinstance(statement, Insert) else None
            compiled = cast(
                SQLCompiler, statement.compile(dialect=self._dialect, column_keys=columns)
            )
            turned: dict[str, Callable[[Any], Any]] = {}
            for name, parameter in compiled.binds.items():
                kind = parameter.type.dialect_impl(self._dialect)
                processor = kind.bind_processor(self._dialect)
                if processor is not None:
                    turned[name] = processor
            known = self._known[statement] = _Plain(
                str(compiled), compiled.positiontup, compiled, turned
            )
        return known


def _parameters(plain: _Plain, values: dict[str, object]) -> Any:
    whole = plain.compiled.construct_params(values)
    for name, turn in plain.turned.items():
        whole[name] = turn(whole[name])
    return whole if plain.names is None else [whole[name] for name in plain.names]


class _Part:
    """One caller's piece of a shared transaction."""

    def __init__(self, work: Callable[[Rows], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.leads = False
        self.go_on = threading.Event()


class _Together:
    """Who comes first commits for all who are there, and hands on to the first who came since."""

    def __init__(self, commit: Callable[[Callable[[], Sequence[_Part]]], None]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: list[_Part] = []
        self._is_led = False

    def do(self, work: Callable[[Rows], Any]) -> Any:
        part = _Part(work)
        with self._lock:
            self._waiting.append(part)
            part.leads, self._is_led = not self._is_led, True
        if not part.leads:
            part.go_on.wait()  # those before us have a limit to their waiting
        if part.leads:
            self._lead()
        if part.error is not None:
            raise part.error
        return part.result

    def _lead(self) -> None:
        taken: list[_Part] = []

        def take() -> Sequence[_Part]:
            with self._lock:
                taken[:], self._waiting[:] = (
                    self._waiting[:_MOST_TOGETHER],
                    self._waiting[_MOST_TOGETHER:],
                )
            return taken

        try:
            self._commit(take)
        except BaseException as error:  # noqa: BLE001 - each caller raises it
            for part in taken or take():
                part.error = part.error or error
        with self._lock:
            following = self._waiting[0] if self._waiting else None
            self._is_led = following is not None
            if following is not None:
                following.leads = True
        for part in taken:
            part.go_on.set()
        if following is not None:
            following.go_on.set()


class _Turns:
    """Lets the threads of this process write one after another, in the order in which they came.

    SQLite gives its lock to whoever happens to look when it is free. On a busy machine one thread
    could wait in vain for as long as the busy timeout while others wrote, and then say that the
    database was locked.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    @contextmanager
    def turn(self, url: URL) -> Iterator[None]:
        if not self._take(_BUSY_TIMEOUT_MS / 1000):
            raise DatabaseError(
                f"database {_name(url)}: those who write waited {_BUSY_TIMEOUT_MS / 1000:.0f} s "
                "for each other; see in the node's log what keeps them"
            )
        try:
            yield
        finally:
            self._give()

    def _take(self, timeout_s: float) -> bool:
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        if mine.wait(timeout_s):
            return True
        with self._lock:
            if mine.is_set():  # handed over just now
                return True
            self._waiting.remove(mine)
            return False

    def _give(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # it stays taken
            else:
                self._taken = False


def open_database(url: str) -> Database:
    """Open a database whose tables are those that this version of echonode knows.

    Raises
    ------
    DatabaseError
        If it cannot be opened.
    SchemaError
        If its tables are older or newer; the message says what to do.
    """
    database = Database(url)
    try:
        state = migration_state(url)
        if state.current != state.head:
            raise SchemaError(
                f"database {_name(database.url)}: its tables are at revision {state.current}, "
                f"this version of echonode needs {state.head}; run `echonode db upgrade`"
            )
    except DatabaseError:
        database.close()
        raise
    return database


def migrate(url: str, revision: str = "head") -> None:
    """Bring the tables up to date, and make the database where there is none.

    Any number of processes may call this at once: one does it, the others wait. It happens in
    one transaction, whole or not at all.

    Parameters
    ----------
    revision
        An earlier revision takes the tables back to it; "base" removes them.

    Raises
    ------
    SchemaError
        If the tables are newer than this version of echonode.
    DatabaseError
        If the database cannot be opened, or another process keeps the lock.
    """
    from alembic import command

    parsed = _parse(url)
    with _migration_lock(parsed):
        engine = _engine(parsed, foreign_keys=False)
        try:
            with engine.execution_options(echonode_write=True).begin() as connection:
                current = _state(connection, parsed).current
                config = _alembic_config()
                config.attributes["connection"] = connection
                if revision == "head" or _is_later(revision, current):
                    command.upgrade(config, revision)
                else:
                    command.downgrade(config, revision)
                _check_references(connection, parsed)
        except DBAPIError as error:
            raise _explained(parsed, error) from error
        finally:
            engine.dispose()


def migration_state(url: str) -> SchemaState:
    """Return which revision the tables are at and which this version of echonode needs.

    Raises
    ------
    SchemaError
        If the tables are newer than this version of echonode.
    DatabaseError
        If the database cannot be opened.
    """
    database = Database(url)
    try:
        with database.read() as session:
            return _state(session.connection(), database.url)
    finally:
        database.close()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseError(
            f"database_url {url.split(':', maxsplit=1)[0]!r}… is not a database URL; "
            "write one such as sqlite:////var/lib/echonode/echonode.db"
        ) from error
    except ModuleNotFoundError as error:
        raise DatabaseError(
            f"database_url needs the Python package {error.name}, which is not installed here"
        ) from error
    if parsed.get_backend_name() not in _READER:
        raise DatabaseError(
            f"database_url names {parsed.get_backend_name()}; SQLite and PostgreSQL are known here"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise DatabaseError(
            "database_url names an SQLite database in memory, which keeps nothing; name a file"
        )
    return parsed


def _sqlite_file(url: URL) -> Path:
    return Path(str(url.database))


def _name(url: URL) -> str:
    """A database as messages name it: never with a password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)


def _engine(url: URL, *, foreign_keys: bool = True) -> Engine:
    if url.get_backend_name() == "postgresql":
        # A writer must see what was committed while it waited for its turn.
        engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=8,
            max_overflow=32,
            isolation_level="READ COMMITTED",
            connect_args=_POSTGRESQL,
        )
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    if foreign_keys:
        # More threads than these wait: associations, workers' keepers and senders at once.
        # The one that was used last knows most pages: the others would read them again.
        engine = create_engine(url, pool_size=8, max_overflow=56, pool_use_lifo=True)
    else:
        engine = create_engine(url, poolclass=NullPool)
    event.listen(engine, "do_connect", _open_what_is_there)
    event.listen(engine, "checkout", partial(_check_in_place, _sqlite_file(url)))

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        record.info[_PLACE] = _identity(_sqlite_file(url))
        # The driver would begin transactions where it likes: `_begin_sqlite` does it.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_what_is_there(
    _dialect: object, _record: object, arguments: list[str], keywords: dict[str, object]
) -> None:
    # The driver would make an empty file where the database was moved away, and the one that is
    # moved back would meet that one's log.
    if not keywords.get("uri"):  # otherwise the URL says how it is to be opened
        arguments[0] = f"file:{quote(str(arguments[0]))}?mode=rw"
        keywords["uri"] = True


def _check_in_place(
    file: Path, _connection: object, record: ConnectionPoolEntry, _fairy: object
) -> None:
    """Before each use: what is written into a file that was moved away is written nowhere."""
    if record.info.get(_PLACE) != _identity(file):
        raise DisconnectionError(f"{file} is not the file that was opened")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns to writing can meet a lock that no waiting resolves.
    write = bool(connection.get_execution_options().get("echonode_write"))
    if connection.info.get(_QUERY_ONLY) is not (not write):
        connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if write else 'ON'}")
        connection.info[_QUERY_ONLY] = not write
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("postgresql_readonly"):
        return  # it keeps nobody waiting
    # A process that stands still in the midst of writing (a frozen machine, a stopped process)
    # would keep all others from it for as long: the server undoes what it had begun.
    still = "set_config('idle_in_transaction_session_timeout', :still, true)"
    values: dict[str, object] = {"still": str(_STILL_TIMEOUT_MS)}
    if options.get("echonode_write"):
        still += ", pg_advisory_xact_lock(:key)"
        values["key"] = _WRITER_LOCK
    connection.execute(text(f"SELECT {still}"), values)


def _explained(url: URL, error: DBAPIError) -> DatabaseError:
    cause = (str(error.orig).splitlines() or ["no reason given"])[0]
    steps = {
        "unable to open": "see that the folder exists and that this user may write in it",
        "read-only transaction": "this command may only read",
        "readonly": "see that this user may write the file and its folder",
        "read-only": "see that this user may write the file and its folder",
        "idle-in-transaction": "this process stood still in the midst of writing, and what it had "
        "begun was undone; see that its machine is not overloaded or suspended",
        "lock timeout": "another process keeps it; `echonode status` names the node",
        "locked": "another process keeps it; `echonode status` names the node",
        "full": "free space on its volume",
        "not a database": "the file is something else or is damaged; restore it from a backup",
        "malformed": "the file is damaged; restore it from a backup",
        "no such table": "run `echonode db upgrade`",
        "no such column": "run `echonode db upgrade`",
    }
    step = next(
        (step for words, step in steps.items() if words in cause),
        "see that it runs, and its own log",
    )
    return DatabaseError(f"database {_name(url)}: {cause}; {step}")


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _state(connection: Connection, url: URL) -> SchemaState:
    # What Alembic would say, which takes every command a third of a second to import.
    revisions = [path.name.partition("_")[0] for path in sorted(_VERSIONS.glob("[0-9]*_*.py"))]
    current: str | None = None
    if inspect(connection).has_table("alembic_version"):
        current = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if current is not None and current not in revisions:
        raise SchemaError(
            f"database {_name(url)}: its tables are at revision {current}, which this version of "
            "echonode does not know; install the version that last used it, or a later one"
        )
    return SchemaState(current=current, head=revisions[-1])


def _check_references(connection: Connection, url: URL) -> None:
    # They are not enforced while tables are copied.
    if url.get_backend_name() == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise DatabaseError(
                f"database {_name(url)}: a row of {broken[0]} points at none of {broken[2]}; "
                "nothing was changed; restore it from a backup"
            )


def _is_later(revision: str, current: str | None) -> bool:
    if current is None:
        return revision != "base"
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_alembic_config())
    if revision == "base":
        return False
    return revision not in {s.revision for s in scripts.iterate_revisions(current, "base")}


@contextmanager
def _migration_lock(url: URL) -> Iterator[None]:
    if url.get_backend_name() == "sqlite":
        with _file_lock(_sqlite_file(url)):
            yield
        return
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            # Held by the connection, and so given back even when this process is killed.
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
            yield
    except OperationalError as error:
        raise _explained(url, error) from error
    finally:
        engine.dispose()


@contextmanager
def _file_lock(database: Path) -> Iterator[None]:
    lock = database.with_name(database.name + ".migrate.lock")
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The log files that SQLite puts beside it take the mode of the database file.
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseError(
            f"database {database}: {error.strerror}: {error.filename}; "
            "see that the folder exists and that this user may write in it"
        ) from error
    try:
        _wait_for(handle, lock)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, lock: Path) -> None:
    deadline = time.monotonic() + _MIGRATION_LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"another process has kept {lock} for {_MIGRATION_LOCK_TIMEOUT_S:.0f} s; "
                    "see whether an upgrade hangs"
                ) from None
            time.sleep(0.05)
        else:
            return


__all__ = [
    "Database",
    "DatabaseError",
    "Rows",
    "SchemaError",
    "SchemaState",
    "migrate",
    "migration_state",
    "open_database",
]
