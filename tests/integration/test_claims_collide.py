"""Several processes at one queue in a real PostgreSQL: no clip is ever two's, and none is left."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from storage.catalog import RecordingKind, RecordingState, StudyState
from storage.database import Database
from storage.tables import Instance, Recording, Study
from tests.postgres import Postgres
from tests.unit.storage_steps import NOW, later

pytestmark = pytest.mark.timeout(180)

PROCESSES = 3
CLIPS = 1200
STUDIES = 40

_NODE = """
import sys
from storage import catalog
from storage.database import Database
database, name = Database(sys.argv[1]), sys.argv[2]
with database.write() as session:
    holder = catalog.join(session, name, pid=1, started_at=catalog.utc_now(), details={})
print("ready", flush=True)
sys.stdin.readline()
while True:
    with database.beside() as session:
        claimed = catalog.claim_next(session, name, holder=holder)
    if claimed is None:
        break
    print(claimed.recording_id, flush=True)
"""


def queue_up(database: Database) -> None:
    """Clips that wait, of several urgencies; those of one study are held."""
    with database.write() as session:
        session.execute(
            insert(Study),
            [
                {
                    "id": number,
                    "study_instance_uid": f"1.2.{number}",
                    "state": StudyState.HELD if number == 1 else StudyState.ANALYSING,
                    "first_image_at": NOW,
                    "revision_opened_at": NOW,
                    "last_image_at": NOW,
                    "state_since": NOW,
                }
                for number in range(1, STUDIES + 1)
            ],
        )
        rows = [(number, 1 + number % STUDIES) for number in range(1, CLIPS + 1)]
        session.execute(
            insert(Instance),
            [
                {
                    "id": number,
                    "study_id": study,
                    "series_instance_uid": f"1.2.{study}.1",
                    "sop_instance_uid": f"1.2.{study}.1.{number}",
                    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.3.1",
                    "transfer_syntax_uid": "1.2.840.10008.1.2.4.50",
                    "content_sha256": "ab" * 32,
                    "size_bytes": 1,
                    "file_key": f"objects/ab/{number:062x}.dcm",
                    "door": "dimse",
                    "received_at": NOW,
                    "revision": 1,
                }
                for number, study in rows
            ],
        )
        session.execute(
            insert(Recording),
            [
                {
                    "id": number,
                    "instance_id": number,
                    "study_id": study,
                    "kind": RecordingKind.ULTRASOUND,
                    "state": RecordingState.QUEUED if number % 3 else RecordingState.TO_VIEW,
                    "urgency": number % 7 == 0,
                    "queued_at": later(number),
                }
                for number, study in rows
            ],
        )


def test_no_clip_is_claimed_twice_or_left(postgres_server: Postgres) -> None:
    url = postgres_server.without_rows()
    database = Database(url)
    queue_up(database)
    nodes = [
        subprocess.Popen(
            [sys.executable, "-c", _NODE, url, f"node-{number}"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for node in nodes:
        assert node.stdout is not None
        assert node.stdout.readline() == "ready\n"
    for node in nodes:
        assert node.stdin is not None
        node.stdin.write("go\n")
        node.stdin.flush()
    claimed = [[int(line) for line in node.communicate()[0].split()] for node in nodes]

    held = {number for number in range(1, CLIPS + 1) if number % STUDIES == 0}
    times = Counter(number for taken in claimed for number in taken)
    assert set(times.values()) == {1}
    assert set(times) == set(range(1, CLIPS + 1)) - held
    assert all(taken for taken in claimed), "one node left nothing to the others"
    for taken in claimed:  # of those that wait for the same, the urgent first and each in its order
        for waits_for_the_same in (lambda number: number % 3, lambda number: not number % 3):
            lot = list(filter(waits_for_the_same, taken))
            assert lot == sorted(lot, key=lambda number: (number % 7 != 0, number))
    with database.read() as session:
        rows = session.execute(
            select(Recording.state, Recording.attempts, func.count())
            .where(Recording.id.not_in(held))
            .group_by(Recording.state, Recording.attempts)
        ).all()
        holders = session.execute(
            select(Recording.worker, func.count(Recording.holder.distinct()))
            .where(Recording.worker.is_not(None))
            .group_by(Recording.worker)
        ).all()
    assert {(state, attempts) for state, attempts, _ in rows} == {
        (RecordingState.VIEWING, 1),
        (RecordingState.ANALYSING, 1),
    }
    assert {tuple(row) for row in holders} == {(f"node-{number}", 1) for number in range(PROCESSES)}
    database.close()
