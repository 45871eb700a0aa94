"""A real PostgreSQL server on loopback, of the tests' own: made, started, and ended here."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from storage.database import migrate
from storage.tables import Base
from tests.peers import free_port, require_postgres, wait_until

_USER = "postgres"  # Debian's; the server does not run as root
_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off")


@dataclass
class Postgres:
    """A running server. One test at a time uses a database of it."""

    programs: Path
    folder: Path
    who: dict[str, object]  #: as whom its programs run
    port: int = field(default_factory=free_port)
    durable: bool = False  #: commits are on disk, as by default; slow, and nobody pulls the plug
    process: subprocess.Popen[bytes] | None = None
    _names: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start it, with what it holds, and wait until it takes connections."""
        options = ("listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=")
        chosen = options if self.durable else (*options, *_QUICK)
        arguments = [part for option in chosen for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                **self.who,  # type: ignore[call-overload]  # its keywords depend on who runs this
            )
        process = self.process
        wait_until(
            lambda: self.answers() or process.poll() is not None,
            what="PostgreSQL takes connections",
        )
        assert process.poll() is None, (self.folder / "log").read_text()

    def stop(self) -> None:
        """End it; clients lose their connections."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)  # SIGTERM would wait for clients to leave
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def without_tables(self) -> str:
        """The URL of an empty database."""
        url = self.database("bare")
        with self._connection(self._names["bare"]) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return url

    def without_rows(self) -> str:
        """The URL of a database with all tables and no rows."""
        new = "whole" not in self._names
        url = self.database("whole")
        if new:
            migrate(url)
        with self._connection(self._names["whole"]) as connection:
            names = ", ".join(f'"{table}"' for table in Base.metadata.tables)
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE".encode())
        return url

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            self._connection("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def database(self, purpose: str) -> str:
        """The URL of a database for a purpose, without tables at first.

        Making one takes a second, so the tests of a process share it, one after another.
        """
        if purpose not in self._names:
            self._names[purpose] = f"echonode_{purpose}"
            with self._connection("postgres") as connection:
                connection.execute(f'CREATE DATABASE "{self._names[purpose]}"'.encode())
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/{self._names[purpose]}"

    def _connection(self, name: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=_USER, dbname=name, autocommit=True
        )


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a server; skips where Debian's package ``postgresql`` is not installed, fails in CI."""
    programs = require_postgres()
    # pytest's own folders are closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="echonode-postgres-"))
    server = Postgres(programs, folder, _user_for(folder), durable=durable)
    try:
        made = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", _USER, "-A", "trust", "-E", "UTF8"],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            **server.who,  # type: ignore[call-overload]  # its keywords depend on who runs this
        )
        assert made.returncode == 0, made.stderr
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _user_for(folder: Path) -> dict[str, object]:
    """Whom the server runs as, who then owns the folder: never root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(_USER)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
