"""What the processes of :mod:`tests.compute_cluster` do. Its imports are all that they need."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from typing import Any

from node.compute import scheduler, worker
from node.compute.settings import set_up_dask
from node.sections import AnalysisSettings, LogSettings
from node.watch import set_up_logging
from tests.faults import light

set_up_dask()
import distributed  # noqa: E402, F401 - after its settings; here, so that forks have it


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
    main: Any = sys.modules["node.executor"]
    main.multiprocessing.get_context = lambda _method=None: fork
    offer = worker.Offer(
        scheduler=f"127.0.0.1:{port}", name="tests", places=analysis.workers, packs=packs
    )
    machine = worker.Machine(offer, analysis, LogSettings(format="json"), prepare=light.prepare)
    worker.run(machine, analysis, joined=lambda _address: None)
