"""The worker processes: what one job or one death does, and what it must leave alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from pathlib import Path

import pytest

from node.executor import (
    SlotState,
    WorkerDied,
    WorkerError,
    WorkerProcesses,
    WorkerStartFailed,
    WorkerState,
    WorkerTimedOut,
)

_PATIENCE_S = 30.0


def _write_line(path: str, line: str) -> None:
    with Path(path).open("a") as file:
        file.write(line + "\n")


def _sleep_and_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def _mark_and_sleep(path: str, seconds: float) -> None:
    _write_line(path, str(os.getpid()))
    time.sleep(seconds)


def _die(code: int) -> None:
    os._exit(code)


def _fail(message: str) -> None:
    raise ValueError(message)


class _TwoArgumentsError(Exception):
    """Pickles, but cannot be rebuilt: a common mistake in libraries."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def _fail_strangely() -> None:
    raise _TwoArgumentsError("odd", "one")


def _fail_to_start() -> None:
    raise RuntimeError("pack lv: no readable manifest.json")


def _die_at_start(path: str, times: int) -> None:
    _write_line(path, "started")
    if len(Path(path).read_text().splitlines()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def _written_pid(log: Path) -> int:
    _until(lambda: log.exists() and log.read_text().endswith("\n"))
    return int(log.read_text())


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _all_idle(pool: WorkerProcesses) -> tuple[WorkerState, ...]:
    _until(lambda: all(worker.state is SlotState.IDLE for worker in pool.workers()))
    return pool.workers()


@pytest.fixture
def pool() -> Iterator[WorkerProcesses]:
    with WorkerProcesses(1) as pool:
        yield pool


def test_jobs_run_in_the_order_in_which_they_came(pool: WorkerProcesses, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    futures = [pool.submit(_write_line, log, str(number)) for number in range(20)]
    wait_for(futures, _PATIENCE_S)
    assert Path(log).read_text().split() == [str(number) for number in range(20)]


def test_two_slots_work_at_the_same_time() -> None:
    with WorkerProcesses(2) as pool:
        _all_idle(pool)
        pids = list(pool.map(_sleep_and_pid, [0.3, 0.3]))
        assert len(set(pids)) == 2
        assert set(pids) == {worker.pid for worker in pool.workers()}


def test_a_jobs_own_exception_arrives_as_it_was_raised(pool: WorkerProcesses) -> None:
    with pytest.raises(ValueError, match="no such clip") as caught:
        pool.submit(_fail, "no such clip").result(_PATIENCE_S)
    assert "in _fail" in "".join(caught.value.__notes__)
    assert pool.submit(len, "abc").result(_PATIENCE_S) == 3
    assert pool.workers()[0].restarts == 0


def test_an_exception_that_cannot_cross_arrives_by_name(pool: WorkerProcesses) -> None:
    with pytest.raises(WorkerError, match="_TwoArgumentsError: odd one"):
        pool.submit(_fail_strangely).result(_PATIENCE_S)


def test_what_cannot_be_pickled_fails_only_itself(pool: WorkerProcesses) -> None:
    with pytest.raises((AttributeError, TypeError)):
        pool.submit(len, (character for character in "abc")).result(_PATIENCE_S)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(threading.Lock).result(_PATIENCE_S)
    assert pool.submit(len, "abc").result(_PATIENCE_S) == 3


def test_a_killed_worker_fails_its_job_alone_and_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "pid"
    with WorkerProcesses(2) as pool:
        _all_idle(pool)
        doomed = pool.submit(_mark_and_sleep, str(log), 60)
        pid = _written_pid(log)
        neighbour = pool.submit(_sleep_and_pid, 0.5)
        waiting = pool.submit(len, "abc")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"signal 9 \(SIGKILL"):
            doomed.result(_PATIENCE_S)
        assert neighbour.result(_PATIENCE_S) != pid
        assert waiting.result(_PATIENCE_S) == 3
        workers = _all_idle(pool)
        assert sorted(worker.restarts for worker in workers) == [0, 1]
        assert pid not in {worker.pid for worker in workers}
        assert sum(worker.jobs_done for worker in workers) == 2


def test_a_worker_that_leaves_names_its_exit_code(pool: WorkerProcesses) -> None:
    with pytest.raises(WorkerDied, match="exit code 7"):
        pool.submit(_die, 7).result(_PATIENCE_S)
    assert pool.submit(len, "abc").result(_PATIENCE_S) == 3


def test_a_worker_killed_while_idle_costs_no_job(pool: WorkerProcesses) -> None:
    (worker,) = _all_idle(pool)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    _until(lambda: pool.workers()[0].restarts == 1)
    assert pool.submit(len, "abc").result(_PATIENCE_S) == 3


def test_a_job_over_its_time_is_killed_and_the_next_one_runs() -> None:
    with WorkerProcesses(1, time_limit_s=0.5) as pool:
        hung = pool.submit(_sleep_and_pid, 60)
        after = pool.submit(len, "abc")
        with pytest.raises(WorkerTimedOut, match=r"longer than 0\.5 s"):
            hung.result(_PATIENCE_S)
        assert after.result(_PATIENCE_S) == 3


def test_an_initializer_that_fails_is_reported_and_not_tried_for_ever() -> None:
    with WorkerProcesses(2, initializer=_fail_to_start) as pool:
        waiting = pool.submit(len, "abc")
        with pytest.raises(WorkerStartFailed, match="pack lv: no readable manifest"):
            waiting.result(_PATIENCE_S)
        with pytest.raises(WorkerStartFailed, match="pack lv"):
            pool.submit(len, "abc").result(_PATIENCE_S)
        assert {worker.state for worker in pool.workers()} == {SlotState.FAILED}
        assert all("pack lv" in (worker.error or "") for worker in pool.workers())


def test_a_death_in_the_initializer_is_tried_again(tmp_path: Path) -> None:
    log = str(tmp_path / "starts")
    with WorkerProcesses(1, initializer=_die_at_start, initargs=(log, 1)) as pool:
        assert pool.submit(len, "abc").result(_PATIENCE_S) == 3
        assert pool.workers()[0].restarts == 1


def test_workers_come_back_when_the_reason_is_gone(tmp_path: Path) -> None:
    log = str(tmp_path / "starts")
    with WorkerProcesses(
        1, initializer=_die_at_start, initargs=(log, 3), retry_after_s=0.5
    ) as pool:
        with pytest.raises(WorkerStartFailed):
            pool.submit(len, "abc").result(_PATIENCE_S)
        _all_idle(pool)
        assert pool.submit(len, "abc").result(_PATIENCE_S) == 3


def test_deaths_in_the_initializer_end_in_a_plain_reason(tmp_path: Path) -> None:
    log = str(tmp_path / "starts")
    with WorkerProcesses(1, initializer=_die_at_start, initargs=(log, 99)) as pool:
        waiting = pool.submit(len, "abc")
        with pytest.raises(WorkerStartFailed, match="3 times in a row"):
            waiting.result(_PATIENCE_S)
    assert len(Path(log).read_text().splitlines()) == 3


def test_shutdown_finishes_what_waits_and_ends_every_process() -> None:
    pool = WorkerProcesses(1)
    futures = [pool.submit(_sleep_and_pid, 0.05) for _ in range(3)]
    pool.shutdown(wait=True)
    (pid,) = {future.result(0) for future in futures}
    assert not _alive(pid)
    assert [worker.state for worker in pool.workers()] == [SlotState.STOPPED]
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(len, "abc")


def test_shutdown_may_cancel_what_waits_but_not_what_runs(tmp_path: Path) -> None:
    log = tmp_path / "pid"
    pool = WorkerProcesses(1)
    running = pool.submit(_mark_and_sleep, str(log), 0.5)
    waiting = pool.submit(len, "abc")
    _written_pid(log)
    pool.shutdown(wait=True, cancel_futures=True)
    assert running.result(0) is None
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_terminate_ends_what_runs_at_once(tmp_path: Path) -> None:
    log = tmp_path / "pid"
    pool = WorkerProcesses(1)
    running = pool.submit(_mark_and_sleep, str(log), 60)
    pid = _written_pid(log)
    pool.terminate()
    with pytest.raises(WorkerDied, match="it was stopped"):
        running.result(0)
    assert not _alive(pid)


def test_workers_ignore_the_terminals_signals(pool: WorkerProcesses) -> None:
    (worker,) = _all_idle(pool)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
    assert pool.submit(os.getpid).result(_PATIENCE_S) == worker.pid


_A_NODE = """
import os, sys, time
import node.analysis
from node.executor import WorkerProcesses

if __name__ == "__main__":
    pool = WorkerProcesses(2)
    pids = []
    while len(pids) < 2:
        pids = [worker.pid for worker in pool.workers() if worker.state == "idle"]
        time.sleep(0.02)
    pool.submit(time.sleep, 600)
    print(*pids, "tensorflow" in sys.modules or "keras" in sys.modules, flush=True)
    {then}
"""


def _start_a_node(folder: Path, then: str) -> tuple[subprocess.Popen[str], list[int]]:
    script = folder / "a_node.py"
    script.write_text(_A_NODE.format(then=then))
    root = Path(__file__).parents[2]
    node = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert node.stdout is not None
    *pids, has_tensorflow = node.stdout.readline().split()
    assert has_tensorflow == "False"
    return node, [int(pid) for pid in pids]


def test_a_killed_node_leaves_no_worker_behind(tmp_path: Path) -> None:
    node, pids = _start_a_node(tmp_path, "time.sleep(600)")
    with node:
        assert all(_alive(pid) for pid in pids)
        node.kill()
    _until(lambda: not any(_alive(pid) for pid in pids))


def test_a_node_that_ends_without_shutdown_does_not_hang(tmp_path: Path) -> None:
    node, pids = _start_a_node(tmp_path, "sys.exit(0)")
    with node:
        assert node.wait(_PATIENCE_S) == 0
    _until(lambda: not any(_alive(pid) for pid in pids))
