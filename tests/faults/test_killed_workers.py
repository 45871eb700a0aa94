"""Workers are killed at random while they read: every clip is read once in the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from storage import catalog
from storage.states import DeliveryState, RecordingState, StudyState
from tests.faults import light
from tests.faults.archive import counting_archive
from tests.faults.books import opened
from tests.faults.objects import Sender, make_object
from tests.faults.prepared import PreparedNode, PreparedNodes
from tests.faults.processes import workers
from tests.peers import wait_until

pytestmark = pytest.mark.timeout(600)

KILLS = 8
CLIPS = 4  # of each study


def test_no_clip_is_lost_or_read_twice_when_workers_are_killed(
    nodes: PreparedNodes, tmp_path: Path
) -> None:
    chance = random.Random(11)  # noqa: S311 - chooses moments, keeps no secret
    environment = {
        "ECHONODE_ANALYSIS__WORKERS": "2",
        "ECHONODE_ANALYSIS__MAX_ATTEMPTS": "100",
        light.SLOW: "0.6",
    }
    with counting_archive(tmp_path) as (archive, register):
        node = PreparedNode(
            folder=tmp_path,
            archives=[archive],
            nodes=nodes,
            quiet_s=0.3,
            workers="processes",
            environment=environment,
        )
        with node.serving():
            assert node.pid is not None
            batches = []
            for _ in range(2):
                first = make_object(tmp_path, chance, frames=4)
                others = [
                    make_object(tmp_path, chance, frames=4, study_uid=first.study_uid)
                    for _ in range(CLIPS - 1)
                ]
                batches.append([first, *others])
            for number, batch in enumerate(batches):
                told = Sender(node.port, batch, tmp_path / f"storescu-{number}.txt").wait()
                assert len(told) == CLIPS

            killed: set[int] = set()
            while len(killed) < KILLS:
                wait_until(lambda: at_work(tmp_path), what="a worker reads", pause_s=0.02)
                time.sleep(chance.uniform(0.0, 0.5))
                fresh = [pid for pid in workers(node.pid) if pid not in killed]
                if fresh:
                    victim = chance.choice(fresh)
                    killed.add(victim)
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)

            details = []
            for first, *_ in batches:
                details.append(wait_for_end(tmp_path, first.study_uid))

    again = 0
    for shown in details:
        assert [item.state for item in shown.recordings] == [RecordingState.DONE] * CLIPS
        for recording in shown.recordings:
            assert len(recording.findings) == 1
        events = Counter(event.kind for event in shown.timeline)
        assert events["recording-done"] == CLIPS
        assert events["results-made"] == 1
        again += events["recording-again"]
        assert sum(item.attempts - 1 for item in shown.recordings) <= events["recording-again"]
        assert {item.state for item in shown.deliveries} == {DeliveryState.DELIVERED}
        arrived = register.of(shown.study.study_instance_uid)
        assert {uid: len(digests) for uid, digests in arrived.items()} == {
            result.sop_instance_uid: 1 for result in shown.results
        }
        assert len(arrived) == CLIPS + 2  # a cine for each clip, the report, the page
    assert 1 <= again <= KILLS, "a kill costs its clip one attempt, and only its clip"


def at_work(folder: Path) -> bool:
    """Whether a worker reads a clip."""
    with opened(folder / "data") as database, database.read() as session:
        states = session.execute(text("SELECT state FROM recording")).scalars().all()
    return bool({"viewing", "analysing"} & set(states))


def wait_for_end(folder: Path, study_uid: str) -> catalog.StudyDetail:
    def done() -> bool:
        return detail(folder, study_uid).study.state is StudyState.DONE

    wait_until(done, what="the study is done", timeout_s=180)
    return detail(folder, study_uid)


def detail(folder: Path, study_uid: str) -> catalog.StudyDetail:
    with opened(folder / "data") as database, database.read() as session:
        return catalog.study_detail(session, study_uid)
