"""Two whole nodes with one PostgreSQL and one store: what one leaves lying the other finishes."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from storage import catalog
from storage.catalog import NodeRecord, StudyDetail
from storage.database import Database, DatabaseError
from storage.states import DeliveryState, RecordingState, StudyState
from storage.tables import Recording, Study
from tests.faults import light
from tests.faults.archive import Register, counting_archive
from tests.faults.objects import Sender, Sent, make_object
from tests.faults.prepared import PreparedNode, PreparedNodes
from tests.peers import Archive, wait_until
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(300)

LEASE_S = 2.0
CLIPS = 3  # of a study


class Cluster:
    """Nodes that share a database and a store, and the archive that they send to."""

    def __init__(
        self, folder: Path, url: str, archive: Archive, register: Register, nodes: PreparedNodes
    ) -> None:
        self.database = Database(url)
        self.register = register
        self.chance = random.Random(5)  # noqa: S311 - makes UIDs and pixels
        self.folder = folder
        self.sendings = 0
        self.nodes = {}
        for name in ("one", "two"):
            (folder / name).mkdir()
            self.nodes[name] = PreparedNode(
                folder=folder / name,
                archives=[archive],
                nodes=nodes,
                quiet_s=0.3,
                environment={
                    "ECHONODE_DATABASE_URL": url,
                    "ECHONODE_STORE_URL": f"file://{folder / 'store'}",
                    "ECHONODE_NODE__NAME": name,
                    "ECHONODE_NODE__LEASE_S": str(LEASE_S),
                    light.SLOW: "1.5",
                },
            )

    def send(self, to: str) -> str:
        """A study of several clips, acknowledged by one node; gives its UID."""
        first = make_object(self.folder, self.chance, frames=4)
        batch = [first, *(self._clip(first.study_uid) for _ in range(CLIPS - 1))]
        self.sendings += 1
        log = self.folder / f"storescu-{self.sendings}.txt"
        assert len(Sender(self.nodes[to].port, batch, log).wait()) == CLIPS
        return first.study_uid

    def _clip(self, study_uid: str) -> Sent:
        return make_object(self.folder, self.chance, frames=4, study_uid=study_uid)

    def detail(self, uid: str) -> StudyDetail:
        with self.database.read() as session:
            return catalog.study_detail(session, uid)

    def node(self, name: str) -> NodeRecord:
        with self.database.read() as session:
            return next(one for one in catalog.read_nodes(session) if one.node_id == name)

    def at_work(self, uid: str, name: str) -> bool:
        """Whether a worker of a node has a clip of a study."""
        has = (
            select(Recording.id)
            .join(Recording.study)
            .where(
                Study.study_instance_uid == uid,
                Recording.worker == name,
                Recording.state.in_((RecordingState.VIEWING, RecordingState.ANALYSING)),
            )
        )
        with self.database.read() as session:
            return session.scalar(has.limit(1)) is not None

    def wait_at_work(self, uid: str, *names: str) -> None:
        wait_until(
            lambda: all(self.at_work(uid, name) for name in names),
            what=f"clips at work in {' and '.join(names)}",
            timeout_s=60,
            pause_s=0.05,
        )

    def wait_for_end(self, uid: str) -> StudyDetail:
        def done() -> bool:
            try:
                with self.database.read() as session:
                    return catalog.find_study(session, uid).state is StudyState.DONE
            except DatabaseError:
                return False  # the server is just away

        wait_until(done, what="the study is done", timeout_s=120, pause_s=0.5)
        return self.detail(uid)

    def check_reported_once(self, uid: str) -> StudyDetail:
        """Every clip read, one report of one revision, each result at the archive with one set
        of bytes."""
        shown = self.wait_for_end(uid)
        events = Counter(event.kind for event in shown.timeline)
        assert [clip.state for clip in shown.recordings] == [RecordingState.DONE] * CLIPS
        assert all(len(clip.findings) == 1 for clip in shown.recordings)
        assert events["recording-done"] == CLIPS
        assert events["results-made"] == events["study-done"] == 1
        assert shown.study.revision == 1
        assert [result.kind.value for result in shown.results].count("sr") == 1
        assert {item.state for item in shown.deliveries} == {DeliveryState.DELIVERED}
        arrived = self.register.of(uid)
        assert set(arrived) == {result.sop_instance_uid for result in shown.results}
        assert all(len(set(digests)) == 1 for digests in arrived.values())
        return shown


@contextmanager
def two_nodes(folder: Path, url: str, nodes: PreparedNodes) -> Iterator[Cluster]:
    with counting_archive(folder) as (archive, register):
        cluster = Cluster(folder, url, archive, register, nodes)
        try:
            for node in cluster.nodes.values():
                node.write_config()
                node.start()
            for node in cluster.nodes.values():
                node.wait_listening()
            yield cluster
        finally:
            for node in cluster.nodes.values():
                node.kill()
            cluster.database.close()


def test_what_one_node_leaves_lying_the_other_finishes_and_reports_once(
    postgres_server: Postgres, nodes: PreparedNodes, tmp_path: Path
) -> None:
    with two_nodes(tmp_path, postgres_server.without_rows(), nodes) as cluster:
        one, two = cluster.nodes.values()

        # Killed in the midst of a clip, with the other at work beside it.
        uid = cluster.send("one")
        cluster.wait_at_work(uid, "one", "two")
        one.kill()
        shown = cluster.check_reported_once(uid)
        told = [event.message for event in shown.timeline if event.kind == "interrupted"]
        assert [words.split(" while ")[0] for words in told] == ["node one gave no sign of life"]
        assert cluster.node("one").taken_over_by == "two"
        assert not cluster.node("one").alive

        # Back again, and then only silent for longer than its lease: what it says then is too late.
        one.start()
        one.wait_listening()
        wait_until(lambda: cluster.node("one").alive, what="it is back")
        uid = cluster.send("two")
        cluster.wait_at_work(uid, "one", "two")
        before = cluster.node("one").holder
        assert one.pid is not None
        os.kill(one.pid, signal.SIGSTOP)
        wait_until(lambda: not cluster.at_work(uid, "one"), what="it is taken over")
        os.kill(one.pid, signal.SIGCONT)
        cluster.check_reported_once(uid)
        wait_until(
            lambda: cluster.node("one").alive and cluster.node("one").holder != before,
            what="it has joined anew",
        )
        log = (one.folder / "node.log").read_text()
        assert "lease-lost" in log
        assert "outcome-dropped" in log

        # A server that is away for longer than a lease condemns neither.
        uid = cluster.send("one")
        cluster.wait_at_work(uid, "one", "two")
        before = cluster.node("one").holder, cluster.node("two").holder
        postgres_server.stop()
        wait_until(
            lambda: missed_beats(one) > 5 and missed_beats(two) > 5, what="a lease without a sign"
        )
        postgres_server.start()
        shown = cluster.check_reported_once(uid)
        assert "interrupted" not in {event.kind for event in shown.timeline}
        assert [clip.attempts for clip in shown.recordings] == [1] * CLIPS
        assert (cluster.node("one").holder, cluster.node("two").holder) == before


def missed_beats(node: PreparedNode) -> int:
    """How often a node could not give its sign of life; it tries four times in a lease."""
    return (node.folder / "node.log").read_text().count('"job": "heartbeat"')
