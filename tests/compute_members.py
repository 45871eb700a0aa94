"""What the processes of :mod:`tests.compute_cluster` do. Its imports are all that they need."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from node.compute import job, scheduler, worker
from node.compute.settings import set_up_dask
from node.sections import AnalysisSettings, LogSettings
from node.watch import set_up_logging
from storage.files import FileStoreError
from tests.faults import light  # what clips are read with, so that forks have it

__all__ = ["light"]

set_up_dask()
import distributed  # noqa: E402, F401 - after its settings; here, so that forks have it

NO_STORE = "ECHONODE_TESTS_NO_STORE"  #: the worker's machine cannot reach the store
NO_START = "ECHONODE_TESTS_NO_START"  #: a file; while it is there no process of a worker starts


def member(what: str, log: str, environment: dict[str, str], *arguments: Any) -> None:
    """Be a scheduler or a worker, with this file as its log, until a signal."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: none outlives the tests
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    set_up_logging(LogSettings(format="json"))
    {"be_scheduler": be_scheduler, "be_worker": be_worker}[what](*arguments)


def be_scheduler(analysis: AnalysisSettings, port: int) -> None:
    """`echonode scheduler` without its command line."""
    scheduler.run(analysis, "127.0.0.1", port, ready=lambda _address: None)


def be_worker(analysis: AnalysisSettings, port: int, packs: tuple[str, ...]) -> None:
    """`echonode worker`, with stand-ins in processes that are forked."""
    fork = multiprocessing.get_context("fork")
    executor: Any = sys.modules["node.executor"]
    executor.multiprocessing.get_context = lambda _method=None: fork
    executor.WorkerProcesses.__init__.__kwdefaults__["retry_after_s"] = 1.0
    if NO_STORE in os.environ:
        reading: Any = job
        reading.local = _not_mounted
    offer = worker.Offer(
        scheduler=f"127.0.0.1:{port}", name="tests", places=analysis.workers, packs=packs
    )
    machine = worker.Machine(offer, analysis, LogSettings(format="json"), prepare=prepare)
    worker.run(machine, analysis, joined=lambda _address: None)


def prepare(*_arguments: object) -> None:
    """Nothing to load, or no memory to load it into."""
    if NO_START in os.environ and Path(os.environ[NO_START]).exists():
        raise MemoryError("no memory for the packs")


def _not_mounted(source: str) -> Any:
    raise FileStoreError(f"nothing is mounted for {source}")


# What clips are read with here; each is called with the path of the clip.


def whole(path: str, *more: object, word: str = "") -> tuple[bytes, tuple[object, ...], str]:
    """The clip and what else came."""
    return Path(path).read_bytes(), more, word


def place(path: str) -> str:
    """Where the clip was read."""
    return path


def whose(_path: str) -> int:
    """The worker whose process reads."""
    return os.getppid()


def slowly(path: str, marks: str) -> int:
    """Say who reads, take a while unless someone has read before, say who did."""
    others = list(Path(marks).iterdir())
    (Path(marks) / str(os.getppid())).touch()
    if not others:
        time.sleep(30)
    return len(Path(path).read_bytes()) and os.getppid()


def wrongly(_path: str) -> None:
    """Fail by itself."""
    raise ValueError("this clip is odd")


def dying(_path: str) -> None:
    """End the process that reads."""
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(_path: str, marks: str) -> None:
    """End the worker whose process reads, and be seen to."""
    (Path(marks) / str(os.getppid())).touch()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)


def endless(_path: str) -> None:
    """Never end."""
    time.sleep(60)
