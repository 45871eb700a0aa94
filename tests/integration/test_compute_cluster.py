"""Clips read in a cluster: real schedulers and workers, with stand-ins for the models."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.compute.card import card_of
from node.compute.cluster import Cluster, look_at
from node.compute.settings import ComputeError
from node.executor import (
    SlotState,
    WorkerDied,
    WorkerStartFailed,
    WorkerTimedOut,
)
from node.sections import AnalysisSettings
from node.watch.alerts import sight_of
from storage import catalog
from storage.database import Database
from storage.states import EventKind, RecordingState, StudyState
from tests import compute_members as jobs
from tests.compute_cluster import TestCluster, running_cluster
from tests.faults import light
from tests.light_node import light_node
from tests.peers import require, send, wait_until
from tests.running_node import REAL_CINE, variant

pytestmark = [
    pytest.mark.timeout(180),
    # Sockets of connections that a peer's death has ended are left to the collector by Dask.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

CLIP = str(REAL_CINE)
PATIENCE_S = 60.0


@contextmanager
def executor(cluster: TestCluster, *packs: Path, **options: Any) -> Iterator[Cluster]:
    """A node's side of the cluster."""
    ours = Cluster(cluster.analysis(**options), card_of(packs))
    try:
        yield ours
    finally:
        ours.terminate()


def until(true: Callable[[], object], what: str) -> None:
    wait_until(lambda: bool(true()), what=what, timeout_s=PATIENCE_S, pause_s=0.05)


def until_free(ours: Cluster) -> None:
    until(lambda: ours.refusing() is None, "the cluster has a free place")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def only_mark(marks: Path) -> int:
    until(lambda: list(marks.iterdir()), "a worker reads")
    (mark,) = marks.iterdir()
    return int(mark.name)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestCluster, Cluster]]:
    """A cluster of one worker with a place, for what leaves it as it was."""
    with running_cluster(tmp_path_factory.mktemp("one")) as cluster:
        cluster.start_worker(time_limit_s=4.0)
        with executor(cluster) as ours:
            until_free(ours)
            yield cluster, ours


def test_an_answer_is_what_the_function_says_of_the_clip(one: tuple[TestCluster, Cluster]) -> None:
    _, ours = one

    assert ours.submit(light.analyse, CLIP).result(PATIENCE_S) == light.analyse(CLIP)
    read = ours.submit(jobs.whole, CLIP, 1, word="two").result(PATIENCE_S)
    assert read == (REAL_CINE.read_bytes(), (1,), "two")


def test_what_fails_fails_as_it_does_in_the_processes_here(
    one: tuple[TestCluster, Cluster], tmp_path: Path
) -> None:
    _, ours = one

    with pytest.raises(ValueError, match="this clip is odd") as raised:
        ours.submit(jobs.wrongly, CLIP).result(PATIENCE_S)
    assert "in wrongly" in "".join(raised.value.__notes__)
    with pytest.raises(WorkerDied, match="signal 9"):
        ours.submit(jobs.dying, CLIP).result(PATIENCE_S)
    with pytest.raises(WorkerTimedOut, match="longer than 4 s"):
        ours.submit(jobs.endless, CLIP).result(PATIENCE_S)
    with pytest.raises(AttributeError):
        ours.submit(lambda path: path, CLIP).result(PATIENCE_S)
    with pytest.raises(FileNotFoundError):
        ours.submit(jobs.whole, str(tmp_path / "gone.dcm")).result(PATIENCE_S)
    assert ours.submit(jobs.whose, CLIP).result(PATIENCE_S)
    until(lambda: [worker.restarts for worker in ours.workers()] == [2], "the deaths are shown")


def test_a_full_cluster_says_so_and_is_waited_for(one: tuple[TestCluster, Cluster]) -> None:
    cluster, ours = one
    with executor(cluster) as others:
        until_free(others)
        futures = [others.submit(jobs.whose, CLIP) for _ in range(5)]
        assert others.refusing() == "all 1 places of the cluster are taken"
        futures.append(ours.submit(jobs.whose, CLIP))  # beside what others have put there
        assert len({future.result(PATIENCE_S) for future in futures}) == 1
        assert others.refusing() is None


def test_a_worker_of_other_packs_gets_nothing_and_the_reason_is_shown(
    one: tuple[TestCluster, Cluster], tmp_path: Path
) -> None:
    cluster, _ = one
    packs = []
    for version in ("1", "2"):
        pack = tmp_path / version
        pack.mkdir()
        (pack / "manifest.json").write_text(f'{{"name": "odd", "version": "{version}"}}')
        packs.append(pack)
    with executor(cluster, packs[0]) as ours:
        until(lambda: "pack odd is not loaded there" in str(ours.refusing()), "it is told")
        left = ours.submit(jobs.whose, CLIP)  # as if a worker had gone a moment ago
        other = cluster.start_worker(packs[1])
        until(lambda: len(ours.workers()) == 2, "the other has joined")
        (shown,) = (worker.error for worker in ours.workers() if "is 2" in str(worker.error))
        assert shown is not None
        assert shown.startswith("it gets no clip: pack odd is 2 (")
        assert {worker.state for worker in ours.workers()} == {SlotState.FAILED}
        assert not left.done()
        fitting = cluster.start_worker(packs[0])
        assert left.result(PATIENCE_S) == fitting.pid
        ready = [worker for worker in ours.workers() if worker.state is not SlotState.FAILED]
        until(lambda: ours.refusing() is None, "the fitting one is seen")
        assert len(look_at(cluster.analysis(), card_of(packs[:1]))) == 3
        assert all("tcp://127.0.0.1" in str(worker.place) for worker in ready)
        cluster.kill(other)
        cluster.kill(fitting)


def test_clips_go_on_elsewhere_when_a_worker_is_killed_or_told_to_stop(
    tmp_path: Path, marks: Path
) -> None:
    with running_cluster(tmp_path) as cluster, executor(cluster) as ours:
        workers = {process.pid: process for process in (cluster.start_worker() for _ in range(2))}
        until(lambda: len(ours.workers()) == 2, "both have joined")
        future = ours.submit(jobs.slowly, CLIP, str(marks))
        reader = only_mark(marks)
        cluster.kill(workers.pop(reader))
        assert future.result(PATIENCE_S) in workers

        for mark in marks.iterdir():
            mark.unlink()
        until(lambda: len(ours.workers()) == 1, "the dead one is gone")
        future = ours.submit(jobs.slowly, CLIP, str(marks))
        stopped = workers[only_mark(marks)]
        stopped.terminate()
        stopped.join(PATIENCE_S)
        assert stopped.exitcode == 0
        last = cluster.start_worker()
        assert future.result(PATIENCE_S) == last.pid


def test_a_clip_that_kills_every_worker_has_failed_once_with_the_third(
    tmp_path: Path, marks: Path
) -> None:
    with running_cluster(tmp_path) as cluster, executor(cluster) as ours:
        workers = [cluster.start_worker() for _ in range(4)]
        until_free(ours)
        with pytest.raises(WorkerDied, match="3 workers died while they read it"):
            ours.submit(jobs.deadly, CLIP, str(marks)).result(PATIENCE_S)
        assert len(list(marks.iterdir())) == 3
        left = {worker.pid for worker in workers} - {int(mark.name) for mark in marks.iterdir()}
        assert ours.submit(jobs.whose, CLIP).result(PATIENCE_S) in left


def test_the_clip_goes_back_when_the_scheduler_dies_and_all_find_the_next_one(
    tmp_path: Path, marks: Path
) -> None:
    with running_cluster(tmp_path, scheduler=False) as cluster, executor(cluster) as ours:
        worker = cluster.start_worker()
        until(lambda: "no scheduler answers" in str(ours.refusing()), "it is told")
        assert [state.state for state in ours.workers()] == [SlotState.FAILED]
        with pytest.raises(ComputeError, match=r"no scheduler answers at 127\.0\.0\.1"):
            look_at(cluster.analysis(), card_of(()))
        cluster.start_scheduler()
        until_free(ours)
        lost = ours.submit(jobs.slowly, CLIP, str(marks))
        assert only_mark(marks) == worker.pid
        cluster.kill(cluster.scheduler)
        with pytest.raises(WorkerStartFailed, match="the connection to the cluster was lost"):
            lost.result(PATIENCE_S)
        until(lambda: ours.refusing() is not None, "it is told")
        cluster.start_scheduler()
        until_free(ours)
        cluster.kill(worker)  # what it was reading is lost, and nobody waits for it
        other = cluster.start_worker()
        until_free(ours)
        assert ours.submit(jobs.whose, CLIP).result(PATIENCE_S) == other.pid


def test_a_worker_whose_processes_do_not_start_offers_nothing_until_they_do(
    tmp_path: Path,
) -> None:
    full = tmp_path / "full"
    full.touch()
    with (
        running_cluster(tmp_path, **{jobs.NO_START: str(full)}) as cluster,
        executor(cluster) as ours,
    ):
        worker = cluster.start_worker()
        until(lambda: ours.refusing() == "no worker of the cluster is ready", "it has joined")
        errors = [str(state.error) for state in ours.workers()]
        assert any("no memory for the packs" in error for error in errors)
        full.unlink()
        assert ours.submit(jobs.whose, CLIP).result(PATIENCE_S) == worker.pid


def test_workers_read_the_store_or_are_sent_what_they_cannot_read(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster, executor(cluster, send_bytes=False) as ours:
        near = cluster.start_worker()
        until_free(ours)
        assert ours.submit(jobs.place, CLIP).result(PATIENCE_S) == CLIP
        cluster.kill(near)
        cluster.environment[jobs.NO_STORE] = "1"
        cluster.start_worker()
        assert ours.submit(jobs.place, CLIP).result(PATIENCE_S).startswith("/proc/self/fd/")
        assert ours.submit(jobs.whole, CLIP).result(PATIENCE_S)[0] == REAL_CINE.read_bytes()


def test_only_members_with_a_certificate_of_the_cluster_come_in(tmp_path: Path) -> None:
    def named(authority: str, name: str) -> dict[str, str]:
        return {
            "authorities": str(tmp_path / f"{authority}.pem"),
            "certificate": str(tmp_path / f"{name}.pem"),
            "private_key": str(tmp_path / f"{name}.key"),
        }

    for authority, name in (("ours", "member"), ("theirs", "stranger")):
        make_certificate(tmp_path, authority)
        make_certificate(tmp_path, name, authority)
    with running_cluster(tmp_path, tls=named("ours", "member")) as cluster:
        with executor(cluster) as ours:
            worker = cluster.start_worker()
            until_free(ours)
            assert ours.submit(jobs.whose, CLIP).result(PATIENCE_S) == worker.pid
        for tls in (None, named("theirs", "stranger"), named("ours", "stranger")):
            analysis = AnalysisSettings(executor=f"dask://127.0.0.1:{cluster.port}", tls=tls)
            with pytest.raises(ComputeError, match="no scheduler answers"):
                look_at(analysis, card_of(()))
        Path(named("ours", "member")["private_key"]).chmod(0o644)
        with pytest.raises(ComputeError, match="can be read or changed by others"):
            look_at(cluster.analysis(), card_of(()))


def make_certificate(folder: Path, name: str, signed_by: str | None = None) -> None:
    """A certificate for every use, as members of a cluster have them."""
    command = [require("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}"]
    command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    if signed_by is not None:
        command += ["-CA", str(folder / f"{signed_by}.pem")]
        command += ["-CAkey", str(folder / f"{signed_by}.key")]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    (folder / f"{name}.key").chmod(0o600)


def test_a_study_waits_for_the_cluster_outlives_its_workers_and_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {light.SLOW: "1.0"}
    with (
        running_cluster(tmp_path, scheduler=False, **slow) as cluster,
        light_node(
            monkeypatch,
            tmp_path / "data",
            analysis={"executor": f"dask://127.0.0.1:{cluster.port}"},
        ) as (node, settings),
    ):
        clip = variant(tmp_path, frames=4)
        assert send(node.addresses.dimse_port, clip, options=("-xy",)).returncode == 0
        database = Database(settings.database_url)

        def detail() -> catalog.StudyDetail:
            with database.read() as session:
                (study,) = catalog.list_studies(session)
                return catalog.study_detail(session, study.study_instance_uid)

        until(lambda: detail().study.state is StudyState.ANALYSING, "the study is complete")
        (waiting,) = detail().recordings
        assert (waiting.state, waiting.attempts) == (RecordingState.TO_VIEW, 0)
        shown = node._details()["workers"]
        assert [worker["state"] for worker in shown] == ["failed"]
        alarms = sight_of(settings.alerts, database, {}, node._executor.workers()).alarms
        assert "no worker of the cluster can read" in alarms[0].words

        cluster.start_scheduler()
        workers = [cluster.start_worker() for _ in range(2)]
        until(lambda: detail().recordings[0].state is RecordingState.ANALYSING, "it is read")
        reader = next(worker for worker in workers if is_reading(worker.pid))

        cluster.kill(reader)
        until(lambda: detail().study.state is StudyState.DONE, "the study is done")

        found = detail()
        (done,) = found.recordings
        assert done.attempts == 1
        kinds = [event.kind for event in found.timeline]
        assert kinds.count(EventKind.RECORDING_DONE) == 1
        assert EventKind.RECORDING_AGAIN not in kinds
        assert kinds.count(EventKind.RESULTS_MADE) == 1
        expected = light.analyse(str(clip)).findings[0].value
        assert [finding.value for finding in done.findings] == [expected]
        database.close()


def is_reading(worker: int | None) -> bool:
    """Whether a worker's process has a clip in memory: the file without a name."""
    found = subprocess.run(
        ["pgrep", "-P", str(worker)], capture_output=True, text=True, check=False
    ).stdout.split()
    for pid in found:
        try:
            handles = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        if any("memfd:clip" in handle for handle in handles):
            return True
    return False
