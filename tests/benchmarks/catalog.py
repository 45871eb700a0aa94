"""What the node asks of its database, at a million instances and at ten thousand, in turn.

    python -m tests.benchmarks.catalog [--instances 1000000] [--against 10000] [--rounds 5]
        [--database sqlite] [--keep /tmp/catalog-bench]

Two databases are filled alike (:mod:`tests.many_studies`): as many studies a day, as many clips
waiting, but one has a hundred times as many days behind it. Each figure is the median of several
calls of the very functions that the node calls, and for what goes by HTTP of whole requests to a
server in this process. Which study, and which day, is drawn anew for each call.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy import delete

from node.cli.status import status_json
from node.sections import HttpSettings, LogSettings
from node.settings import Settings
from node.watch import set_up_logging, study_key
from node.watch.audit import Audit
from node.watch.metrics import Metrics, Watched
from node.web import metrics, studies
from node.web.callers import Callers
from node.web.dicomweb.routes import router as dicomweb
from node.web.pages import routes as pages
from node.web.server import HttpServer
from node.web.site import Parts, make_site
from node.web.users import Role, UserFile
from storage import catalog
from storage.catalog import NewInstance, RecordingKind
from storage.database import Database, migrate, open_database
from storage.files import Area, FolderStore
from storage.tables import Study
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row
from tests.many_studies import DESTINATION, ON_THEIR_WAY, Filled, fill
from tests.postgres import Postgres, postgres
from tests.ultrasound_files import speckle, ultrasound

TITLE = "A million instances"
_WANTED = "<= 1.5x"
_CALLS = 9  # of which a figure is the median
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}
_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A filled database, and a node's site over it."""

    database: Database
    settings: Settings
    client: httpx.Client
    filled: Filled
    clock: Callable[[], float]  #: in seconds

    def uid(self) -> str:
        """Any study but the last ones, which are on their way."""
        return self.filled.uid(1 + secrets.randbelow(self.filled.studies - ON_THEIR_WAY - 1))

    def day(self) -> date:
        """Any day of which all studies are there."""
        return self.filled.day(secrets.randbelow(max(1, self.filled.days)))


def claim(archive: Archive) -> float:
    """A worker takes the next clip, in a transaction that is on disk."""
    start = archive.clock()
    with archive.database.beside() as session:
        claimed = catalog.claim_next(session, worker="pool")
    took = archive.clock() - start
    assert claimed is not None
    with archive.database.write() as session:
        catalog.put_back(session, claimed.recording_id, "")
    return took


def claim_alone(archive: Archive) -> float:
    """The same without the transaction's begin and end, which wait for the disk."""
    with archive.database.beside() as session:
        start = archive.clock()
        claimed = catalog.claim_next(session, worker="pool")
        took = archive.clock() - start
        assert claimed is not None
        catalog.put_back(session, claimed.recording_id, "")
    return took


def status(archive: Archive) -> float:
    """What the running node answers to `echonode status`."""
    start = archive.clock()
    with archive.database.read() as session:
        status_json(archive.settings, session)
    return archive.clock() - start


def detail(archive: Archive) -> float:
    """The rows of a study's page."""
    uid = archive.uid()
    start = archive.clock()
    with archive.database.read() as session:
        catalog.study_detail(session, uid)
    return archive.clock() - start


def day_alone(archive: Archive) -> float:
    """The rows of a search by date."""
    day = archive.day()
    start = archive.clock()
    with archive.database.read() as session:
        found = catalog.held_studies(session, first_date=day, last_date=day)
        catalog.first_files(session, found)
        for uid in found:
            catalog.held_objects(session, studies=[uid])
    assert found
    return archive.clock() - start


def clock(archive: Archive) -> float:
    """What the node asks each second, where nothing is to be done."""
    now = archive.filled.end
    start = archive.clock()
    with archive.database.read() as session:
        catalog.studies_to_complete(session, now - timedelta(hours=1), 60, 60, 36000)
    with archive.database.read() as session:
        catalog.anything_to_report(session)
    with archive.database.read() as session:
        catalog.anything_due(session, DESTINATION, now)
    with archive.database.read() as session:
        catalog.promise_requests_due(session, now)
    with archive.database.write() as session:
        catalog.promises_due(session, DESTINATION, now)
    return archive.clock() - start


def take_in(archive: Archive) -> float:
    """Ten objects of a new study, each in a transaction that is on disk; for one of them."""
    study = f"2.25.{secrets.randbits(96)}"
    start = archive.clock()
    for number in range(10):
        with archive.database.write() as session:
            catalog.add_instance(session, _new(study, number))
    took = (archive.clock() - start) / 10
    with archive.database.write() as session:
        session.execute(delete(Study).where(Study.study_instance_uid == study))
    return took


def page(path: Callable[[Archive], str]) -> Callable[[Archive], float]:
    """A request by HTTP, to its last byte."""

    def take(archive: Archive) -> float:
        where = path(archive)
        start = archive.clock()
        answer = archive.client.get(where)
        took = archive.clock() - start
        assert answer.status_code == 200, f"{where}: {answer.status_code}"
        return took

    return take


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is called, and how much slower a hundred times as many rows may make it."""

    what: str
    take: Callable[[Archive], float]
    wanted: str = ""
    calls: int = _CALLS


MEASURED = (
    Measured(what="claim of the next clip, committed", take=claim, wanted=_WANTED),
    Measured(what="claim of the next clip, its queries", take=claim_alone, wanted=_WANTED),
    Measured(what="`status`, as the node answers it", take=status, wanted=_WANTED),
    Measured(what="status page, by HTTP", take=page(lambda _: "/"), wanted=_WANTED),
    Measured(what="scrape of /metrics, by HTTP", take=page(lambda _: "/metrics")),
    Measured(what="list of studies, by HTTP", take=page(lambda _: "/studies"), wanted=_WANTED),
    Measured(
        what="list of studies in one state, by HTTP",
        take=page(lambda _: "/studies?state=done"),
    ),
    Measured(
        what="study page, by HTTP", take=page(lambda a: f"/studies/{a.uid()}"), wanted=_WANTED
    ),
    Measured(what="study page, its rows", take=detail, wanted=_WANTED),
    Measured(
        what="study page by the key of the logs, by HTTP",
        take=page(lambda a: f"/studies/{study_key(a.uid())}"),
    ),
    Measured(
        what="QIDO by date, 100 studies, by HTTP",
        take=page(lambda a: f"/dicom-web/studies?StudyDate={a.day():%Y%m%d}"),
        wanted=_WANTED,
        calls=3,
    ),
    Measured(what="QIDO by date, its rows", take=day_alone, wanted=_WANTED, calls=3),
    Measured(what="what the clock asks each second", take=clock),
    Measured(what="an object taken in, its rows, committed", take=take_in, calls=3),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill both, measure, and keep the figures."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=10_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--keep", type=Path, help="leave the databases here, and use them again")
    parser.add_argument(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="processor: of this process, with SQLite and the server; for a machine that is busy",
    )
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--calls", type=int, default=_CALLS, help="of which a figure is the median")
    parser.add_argument("--conditions", default="", help="what else the machine did")
    options = parser.parse_args(arguments)
    set_up_logging(LogSettings(level="warning"))  # in a node, too, requests are not in the log
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = None
        if options.database == "postgresql":
            server = stack.enter_context(postgres())
        elif options.keep is not None:
            folder = options.keep
        large, small = (
            stack.enter_context(
                archive(folder / str(number), server, number, CLOCKS[options.clock])
            )
            for number in (options.instances, options.against)
        )
        rows = [
            _compared(replace(one, calls=min(one.calls, options.calls)), large, small, options)
            for one in MEASURED
            if options.only in one.what
        ]
    rounds.keep(
        "catalog",
        TITLE,
        rows,
        conditions={"beside it": options.conditions} if options.conditions else {},
        folder=options.folder,
    )


def _compared(one: Measured, large: Archive, small: Archive, options: Namespace) -> Row:
    if one.calls > 1:
        for each in (large, small):
            one.take(each)  # to warm up
    ours, theirs = rounds.alternate(
        *(
            lambda each=each: 1000 * statistics.median(one.take(each) for _ in range(one.calls))
            for each in (large, small)
        ),
        rounds=options.rounds,
    )
    by = ", processor time" if options.clock == "processor" else ""
    row = Row(
        what=f"{_NAMES[options.database]}, {large.filled.words}: {one.what}{by}",
        against=small.filled.words,
        wanted=one.wanted,
        ours=ours,
        theirs=theirs,
        unit="ms",
    )
    print(  # noqa: T201 - as it comes
        f"{one.what}: {rounds.figures(ours)}, {rounds.figures(theirs)}", file=sys.stderr
    )
    return row


@contextmanager
def archive(
    folder: Path, server: Postgres | None, instances: int, clock: Callable[[], float]
) -> Iterator[Archive]:
    """A filled database with a site over it; what a folder holds already is used again."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{folder / 'echonode.db'}"
    if server is not None:
        url = server.database(folder.name)
    files = FolderStore(folder)
    note = folder / "filled.json"
    if not note.is_file():
        started = time.perf_counter()
        migrate(url)
        made = fill(url, instances, file_key=_any_object(files))
        note.write_text(json.dumps([made.studies, made.instances, made.end.isoformat()]))
        print(  # noqa: T201 - it takes a while
            f"{made.instances} instances in {time.perf_counter() - started:.0f} s", file=sys.stderr
        )
    many, of_them, end = json.loads(note.read_text())
    filled = Filled(studies=many, instances=of_them, end=datetime.fromisoformat(end))
    database = open_database(url)
    try:
        with serving(folder, url, database, files) as (settings, client):
            yield Archive(
                database=database, settings=settings, client=client, filled=filled, clock=clock
            )
    finally:
        database.close()


@contextmanager
def serving(
    folder: Path, url: str, database: Database, files: FolderStore
) -> Iterator[tuple[Settings, httpx.Client]]:
    """The whole site of a node, and a client that may do everything."""
    settings = Settings(data_dir=folder, database_url=url, http=HttpSettings(port=0))
    users = UserFile(folder / "users.json")
    if not users.path.is_file():
        users.add("bench", list(Role), None)
    audit = Audit(settings.audit, folder, "ECHONODE")
    counted = Metrics()
    counted.watch(Watched(database=database))
    parts = Parts(
        settings=settings,
        database=database,
        audit=audit,
        callers=Callers(settings.http, users, audit),
        not_ready=lambda: None,
        files=files,
        metrics=counted,
    )
    server = HttpServer(settings.http, users)
    headers = {"authorization": f"Bearer {users.add_token('bench')}"}
    try:
        server.start(make_site(parts, metrics.router, studies.router, pages.router, dicomweb))
        with httpx.Client(
            base_url=server.url, headers=headers, timeout=600.0, trust_env=False
        ) as client:
            yield settings, client
    finally:
        server.stop()
        audit.close()


def _any_object(files: FolderStore) -> str:
    """A small object in the store: what a search reads of every study's first one."""
    written = io.BytesIO()
    ultrasound(speckle((1, 24, 32))).save_as(written, enforce_file_format=True)
    data = written.getvalue()
    return files.write(Area.OBJECTS, hashlib.sha256(data).hexdigest(), data)


def _new(study: str, number: int) -> NewInstance:
    uid = f"{study}.{number}"
    digest = hashlib.sha256(uid.encode()).hexdigest()
    return NewInstance(
        study_instance_uid=study,
        series_instance_uid=f"{study}.0",
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.3.1",
        transfer_syntax_uid="1.2.840.10008.1.2.4.50",
        content_sha256=digest,
        size_bytes=4_000_000,
        file_key=f"objects/{digest[:2]}/{digest[2:]}.dcm",
        door="dimse",
        received_at=datetime.now(UTC),
        recording_kind=RecordingKind.ULTRASOUND,
        study_date=datetime.now(UTC).date(),
    )


if __name__ == "__main__":
    main()
