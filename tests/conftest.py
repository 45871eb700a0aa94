"""What every test can ask for."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from storage.database import Database, migrate
from tests.certificates import Certificates, make_certificates
from tests.postgres import Postgres, postgres

_REPOSITORY = Path(__file__).parent.parent
_PREPARED = "ECHONODE_ANALYSIS__PREPARED"


def pytest_configure(config: pytest.Config) -> None:
    """One folder of prepared networks for all nodes and commands of a run: the first makes them."""
    if not hasattr(config, "workerinput") and _PREPARED not in os.environ:  # else it is inherited
        os.environ[_PREPARED] = tempfile.mkdtemp(prefix="echonode-prepared-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_PREPARED)))


@pytest.fixture(scope="module", autouse=True)
def _collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a library leaves to the collector is collected where tests expect it, and not later."""
    yield
    if "unclosed" in str(getattr(request.module, "pytestmark", "")):
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """What a command or a worker's work set up in this process, the next module has none of it."""
    root, configured = logging.getLogger(), structlog.is_configured()
    handlers, config = root.handlers[:], structlog.get_config()
    known = {name: one.level for name, one in _loggers().items()}
    level = root.level
    yield
    for handler in root.handlers[:]:
        if handler not in handlers and type(handler) is logging.StreamHandler:
            root.removeHandler(handler)  # pytest's own are of other kinds
    root.setLevel(level)
    for name, one in _loggers().items():
        one.setLevel(known.get(name, logging.NOTSET))
    logging.captureWarnings(False)
    if configured:
        structlog.configure(**config)
    else:
        structlog.reset_defaults()
    if "tensorflow" in sys.modules:
        from node.analysis import NO_REWRITING

        optimizer = sys.modules["tensorflow"].config.optimizer
        optimizer.set_experimental_options(dict.fromkeys(NO_REWRITING, True))


def _loggers() -> dict[str, logging.Logger]:
    found = logging.root.manager.loggerDict.items()
    return {name: one for name, one in found if isinstance(one, logging.Logger)}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real patients' frames and real machines' files; skips where it is not."""
    default = _REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("ECHONODE_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; ECHONODE_SHARED_DATA names the folder")
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of what the database does run on both: their module says ``both_databases``."""
    asks = {"database", "database_url"} & set(metafunc.fixturenames)
    if asks and metafunc.definition.get_closest_marker("both_databases"):
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests of a process."""
    with postgres() as server:
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that has no tables yet; an SQLite file is not there yet."""
    if getattr(request, "param", "sqlite") == "postgresql":
        server: Postgres = request.getfixturevalue("postgres_server")
        wanted = "database" in request.fixturenames
        return server.without_rows() if wanted else server.without_tables()
    return f"sqlite:///{tmp_path / 'echonode.db'}"


@pytest.fixture(scope="session")
def _empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("database") / "empty.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def database(database_url: str, tmp_path: Path, _empty_database: Path) -> Iterator[Database]:
    """An open database with all tables and no rows: SQLite, where the test asks for no other."""
    if database_url.startswith("sqlite"):
        shutil.copyfile(_empty_database, tmp_path / "echonode.db")
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for TLS in and out; see :mod:`tests.certificates`."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))
