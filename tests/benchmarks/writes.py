"""How many objects and studies a second a database makes durable, with several nodes at once.

    python -m tests.benchmarks.writes [--rounds 5] [--nodes 1,2,4] [--seconds 3] [--sqlite]

Each node is a process with four associations at once. They call the storage functions that a node
calls, each step in a transaction as there, of its own or shared with others; one thread of a node
makes reports and sends. PostgreSQL (Debian's package, as it is configured by default, so that a
commit is on disk when it returns) runs beside them on the same machine. The floor is a file on the
same volume to which pages are appended and synced one after another: what commits that wait for
each other could reach if rows cost nothing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from storage import catalog
from storage.catalog import NewInstance, NewResult, RecordingKind, ResultKind
from storage.database import Database, migrate, open_database
from storage.states import RecordingState
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row
from tests.postgres import postgres
from tests.unit.storage_steps import A4C, EF, LV, NO_VOLUME, PSLA, clip

TITLE = "Rows made durable"
CLIPS = 60
A4C_CLIPS = 4
ASSOCIATIONS = 4  #: threads of each node
_FINDINGS = 6  # of a clip, as the shipped packs give
_DESTINATION = "pacs"
_PAGE = bytes(8192)


@dataclass
class Books:
    """A node's database, and how many transactions it has committed."""

    database: Database
    holder: str  #: what this node's claims bear
    reporting: threading.Lock  #: a node makes one report after the other
    committed: int = 0

    @contextmanager
    def write(self) -> Iterator[Any]:
        """One that waits for its turn."""
        with self.database.write() as session:
            yield session
        self.committed += 1

    @contextmanager
    def beside(self) -> Iterator[Any]:
        """One that does not."""
        with self.database.beside() as session:
            yield session
        self.committed += 1


def take_in(books: Books, study: str, number: int) -> None:
    """An object's rows, beside those of other associations."""
    uid = f"{study}.{number}"
    new: NewInstance = clip(
        number,
        study_instance_uid=study,
        series_instance_uid=f"{study}.0",
        sop_instance_uid=uid,
        content_sha256=hashlib.sha256(uid.encode()).hexdigest(),
        size_bytes=6_000_000,
        recording_kind=RecordingKind.ULTRASOUND,
        received_at=datetime.now(UTC),
    )
    assert books.database.together(partial(catalog.add_plain, new=new))
    books.committed += 1


def objects(books: Books) -> int:
    """The objects of a study; gives how many."""
    study = f"2.25.{secrets.randbits(96)}"
    for number in range(CLIPS):
        take_in(books, study, number)
    return CLIPS


def whole_study(books: Books) -> int:
    """A study from its first object to the archive's answer; gives 1.

    Other nodes claim clips of it as this one claims theirs: whoever has one goes on with it.
    """
    study = f"2.25.{secrets.randbits(96)}"
    now = datetime.now(UTC)
    for number in range(CLIPS):
        take_in(books, study, number)
    with books.database.read() as session:
        study_id = catalog.find_study(session, study).id
    with books.write() as session:
        catalog.note_released(session, [study], now)
    with books.write() as session:
        catalog.begin_analysis(session, study_id, "quiet")
    for _ in range(CLIPS):
        _look(books, RecordingState.TO_VIEW)
    for _ in range(A4C_CLIPS):
        _look(books, RecordingState.QUEUED)
    with books.reporting:
        _report(books)
    return 1


def _report(books: Books) -> None:
    """What a node reports now, and what it then sends."""
    with books.write() as session:
        ready = catalog.claim_reports(session, holder=books.holder)
    for each in ready:
        made = [_result(kind) for kind in (*[ResultKind.SC] * (A4C_CLIPS + 1), ResultKind.SR)]
        with books.write() as session:
            catalog.add_results(
                session, each.study_id, 1, made, [_DESTINATION], holder=books.holder
            )
    with books.write() as session:
        due = catalog.claim_due_deliveries(session, destination=_DESTINATION, holder=books.holder)
    for delivery in due:
        with books.write() as session:
            catalog.record_delivered(
                session, delivery.delivery_id, "success", 0, holder=books.holder
            )


def _look(books: Books, state: RecordingState) -> None:
    with books.beside() as session:
        claimed = catalog.claim_next(session, "pool", states=(state,), holder=books.holder)
    if claimed is None:
        return  # another node has it
    with books.write() as session:
        if state is RecordingState.TO_VIEW:
            a4c = int(claimed.sop_instance_uid.rpartition(".")[2]) < A4C_CLIPS
            catalog.record_view(
                session,
                claimed.recording_id,
                A4C if a4c else PSLA,
                queue=a4c,
                reason="another",
                holder=books.holder,
            )
        else:
            catalog.record_analysis(
                session,
                claimed.recording_id,
                [EF] * _FINDINGS,
                [NO_VOLUME],
                [LV] * 3,
                holder=books.holder,
            )


def _result(kind: ResultKind) -> NewResult:
    uid = f"2.25.{secrets.randbits(96)}"
    digest = hashlib.sha256(uid.encode()).hexdigest()
    return NewResult(
        kind=kind,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid=uid,
        series_instance_uid=f"{uid}.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        file_key=f"results/{digest[:2]}/{digest[2:]}.dcm",
        sha256=digest,
        size_bytes=1_000_000,
    )


WORK: dict[str, Callable[[Books], int]] = {"objects": objects, "studies": whole_study}


def node(url: str, work: str, seconds: float, barrier: Any, said: Any) -> None:
    """What one node does: so much work as it can in so many seconds, begun together."""
    database = open_database(url)
    with database.write() as session:
        holder = catalog.join(
            session,
            f"node-{secrets.token_hex(4)}",
            pid=os.getpid(),
            started_at=datetime.now(UTC),
            details={},
            alone=url.startswith("sqlite"),
        )
    reporting = threading.Lock()
    try:
        WORK[work](Books(database, holder, reporting))  # to warm up
        barrier.wait()
        each = [Books(database, holder, reporting) for _ in range(ASSOCIATIONS)]
        with ThreadPoolExecutor(ASSOCIATIONS) as pool:
            done = list(pool.map(partial(_go_on, work=work, seconds=seconds), each))
        pieces = sum(number for number, _ in done)
        a_second = sum(number / took_s for number, took_s in done)
        said.put((a_second, sum(books.committed for books in each) / max(1, pieces)))
    finally:
        with database.write() as session:
            catalog.leave(session, holder)
        database.close()


def _go_on(books: Books, *, work: str, seconds: float) -> tuple[int, float]:
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        done += WORK[work](books)
    return done, time.perf_counter() - begun


def rate(url: str, work: str, nodes: int, seconds: float) -> tuple[float, float]:
    """Of all nodes together, a second; and the transactions for each piece of work."""
    context = get_context("spawn")
    barrier, said = context.Barrier(nodes), context.SimpleQueue()
    processes = [
        context.Process(target=node, args=(url, work, seconds, barrier, said)) for _ in range(nodes)
    ]
    for each in processes:
        each.start()
    figures = [said.get() for _ in processes]
    for each in processes:
        each.join()
    return sum(one for one, _ in figures), sum(count for _, count in figures) / nodes


def synced_pages(folder: Path, seconds: float) -> float:
    """Pages a second that one writer appends and syncs."""
    file = os.open(folder / "pages", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        begun, done = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            os.write(file, _PAGE)
            os.fdatasync(file)
            done += 1
        return done / (time.perf_counter() - begun)
    finally:
        os.close(file)
        (folder / "pages").unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--nodes", default="1,2,4", help="how many at once, one after another")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure")
    parser.add_argument("--sqlite", action="store_true", help="SQLite too, with its one node")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres(durable=True))
        url = server.database("writes")
        targets = [("PostgreSQL", url, int(one)) for one in options.nodes.split(",")]
        if options.sqlite:
            targets.append(("SQLite", f"sqlite:///{folder / 'echonode.db'}", 1))
        for each in dict.fromkeys(target for _, target, _ in targets):
            migrate(each)
        rows = [
            _row(folder, name, target, nodes, work, options)
            for name, target, nodes in targets
            for work in WORK
        ]
    conditions = {
        "server": "on the same cores and volume as the nodes",
        "study": f"{CLIPS} clips, {A4C_CLIPS} of them A4C",
    }
    rounds.keep("writes", TITLE, rows, conditions=conditions, folder=options.folder)


def _row(folder: Path, name: str, url: str, nodes: int, work: str, options: Any) -> Row:
    counts: list[float] = []

    def take() -> float:
        figure, transactions = rate(url, work, nodes, options.seconds)
        counts.append(transactions)
        return figure

    ours, theirs = rounds.alternate(
        take, lambda: synced_pages(folder, options.seconds / 3), rounds=options.rounds
    )
    whole = "objects taken in" if work == "objects" else "whole studies"
    return Row(
        what=f"{name}, {nodes} {'node' if nodes == 1 else 'nodes'} at once: {whole}",
        against="pages synced one after another",
        wanted="",
        ours=ours,
        theirs=theirs,
        unit="/s",
        more_is_better=True,
        note=f"{sum(counts) / len(counts):.0f} transactions each" if work == "studies" else "",
    )


if __name__ == "__main__":
    main()
