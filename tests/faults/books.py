"""The books: what was sent and acknowledged, against what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from storage import catalog
from storage.database import Database
from storage.files import Area, FolderStore
from tests.faults.objects import Sent


@contextmanager
def opened(data_dir: Path) -> Iterator[Database]:
    """The node's database, seen from outside."""
    database = Database(f"sqlite:///{data_dir / 'echonode.db'}")
    try:
        yield database
    finally:
        database.close()


def not_kept(data_dir: Path, acknowledged: Iterable[Sent]) -> list[str]:
    """What was acknowledged and has no row, no file, or not the bytes that were sent."""
    files = FolderStore(data_dir)
    complaints = []
    with opened(data_dir) as database, database.read() as session:
        for sent in acknowledged:
            row = catalog.find_instance(session, sent.uid)
            if row is None:
                complaints.append(f"{sent.uid} was acknowledged and has no row")
            elif not files.path(row.file_key).is_file():
                complaints.append(f"{sent.uid} was acknowledged and has no file")
            elif not sent.is_whole_in(files.path(row.file_key)):
                complaints.append(f"{sent.uid} was acknowledged and its file has other bytes")
    return complaints


def not_whole(data_dir: Path, sent: Mapping[str, Sent]) -> list[str]:
    """Rows without a whole file and files in the store that are not whole, acknowledged or not."""
    files = FolderStore(data_dir)
    with opened(data_dir) as database, database.read() as session:
        rows = session.execute(text("SELECT sop_instance_uid, file_key FROM instance")).all()
        (damage,) = session.execute(text("PRAGMA integrity_check")).scalars()
    complaints = [] if damage == "ok" else [f"the database: {damage}"]
    complaints += [
        f"{uid} has a row and no whole file"
        for uid, key in rows
        if uid in sent
        and not (files.path(key).is_file() and sent[uid].is_whole_in(files.path(key)))
    ]
    by_length = {item.length for item in sent.values()}
    for path in (data_dir / Area.OBJECTS).rglob("*"):
        if path.is_file() and not any(path.stat().st_size > length for length in by_length):
            complaints.append(f"{path.name} is shorter than anything that was sent")
    return complaints


def waiting(data_dir: Path) -> tuple[int, int]:
    """How many recordings and deliveries have no end yet."""
    recordings = "('received', 'to_view', 'viewing', 'queued', 'analysing')"
    deliveries = "('waiting', 'sending', 'sent')"
    with opened(data_dir) as database, database.read() as session:
        counts = [
            session.execute(text(f"SELECT count(*) FROM {table} WHERE state IN {states}"))  # noqa: S608 - our words
            for table, states in (("recording", recordings), ("delivery", deliveries))
        ]
        one, other = (count.scalar_one() for count in counts)
    return int(one), int(other)


def half_received(data_dir: Path) -> list[str]:
    """What lies in the folder of things that are being received."""
    return [path.name for path in (data_dir / "incoming").iterdir()]
