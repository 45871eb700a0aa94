"""A cluster on loopback: a scheduler and workers as processes of their own, with stand-ins.

They are forked from a process that has imported everything, so each costs a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from node.sections import AnalysisSettings
from tests.peers import accepts_connections, free_port, wait_until

PATIENCE_S = 60.0


def forks() -> Any:
    """A context whose processes are forked from one that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.compute_cluster", "tests.compute_members"])
    return context


@dataclass
class TestCluster:
    """A scheduler that can be killed and come back, and workers that can be killed."""

    __test__ = False

    folder: Path
    port: int = field(default_factory=free_port)
    tls: dict[str, str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    scheduler: BaseProcess | None = None
    workers: list[BaseProcess] = field(default_factory=list)

    def analysis(self, **values: Any) -> AnalysisSettings:
        """``[analysis]`` of a node that computes here."""
        return AnalysisSettings(
            executor=f"dask://127.0.0.1:{self.port}", tls=self.tls, workers=1, **values
        )

    def start_scheduler(self) -> None:
        """Start one at the same port as ever."""
        self.scheduler = self._process("be_scheduler", self.analysis(), self.port)
        wait_until(lambda: accepts_connections(self.port), what="the scheduler listens")

    def start_worker(self, *packs: Path, **options: Any) -> BaseProcess:
        """Start a worker that has these packs; ``options`` are of its settings."""
        worker = self._process(
            "be_worker", self.analysis(**options), self.port, tuple(map(str, packs))
        )
        self.workers.append(worker)
        return worker

    def _process(self, what: str, *arguments: Any) -> BaseProcess:
        from tests import compute_members

        log = self.folder / f"{what}-{len(self.workers)}.log"
        process: BaseProcess = forks().Process(
            target=compute_members.member, args=(what, str(log), self.environment, *arguments)
        )
        process.start()
        return process

    def kill(self, process: BaseProcess | None) -> None:
        """SIGKILL, and wait until it is gone."""
        assert process is not None
        process.kill()
        process.join(PATIENCE_S)
        assert process.exitcode is not None


@contextmanager
def running_cluster(
    folder: Path, *, scheduler: bool = True, tls: dict[str, str] | None = None, **environment: str
) -> Iterator[TestCluster]:
    """A cluster without workers; all of it ends with the block."""
    cluster = TestCluster(folder=folder, tls=tls, environment=environment)
    try:
        if scheduler:
            cluster.start_scheduler()
        yield cluster
    finally:
        for process in (*cluster.workers, cluster.scheduler):
            if process is not None:
                with suppress(ValueError):
                    process.kill()
                    process.join(PATIENCE_S)
