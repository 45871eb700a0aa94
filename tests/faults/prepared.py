"""Nodes that start in a fraction of a second: forked from a process that has imported everything.

    python -m tests.faults.prepared

reads orders, a line of JSON each, and runs `node.app.run` in a child for every one: the node
itself, in a process of its own, without the seconds that imports and checksums of weights take.
The children's workers are stand-ins (:mod:`tests.faults.light`), in threads or in processes.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.steps import KillAt, Steps, watch_steps
from tests.peers import accepts_connections, wait_until
from tests.running_node import RunningNode

_START_S = 180.0


class PreparedNodes:
    """The process that nodes are forked from. Use it as a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.prepared"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(30)
        self._process.stdout.close()  # type: ignore[union-attr]

    def ask(self, **order: Any) -> int:
        """Give an order and read the number that comes back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@dataclass
class PreparedNode(RunningNode):
    """A node forked from :class:`PreparedNodes`: the same settings, files and port at each start.

    ``workers`` are "threads" or "processes"; ``environment`` is added to the node's.
    """

    nodes: PreparedNodes | None = None
    workers: str = "threads"
    environment: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None

    @property
    def step_log(self) -> Path:
        """The steps of the last start that watched them."""
        return self.folder / "steps.log"

    @property
    def arm(self) -> Path:
        """Where a node that watches its steps looks for the one to die at."""
        return self.folder / "kill-at.json"

    def start(self, *, steps: bool = False, kill_at: KillAt | None = None) -> None:
        """Fork a node; it does not listen yet. With ``steps`` it can be killed at one."""
        assert self.nodes is not None
        self.arm.unlink(missing_ok=True)
        if kill_at is not None:
            kill_at.arm(self.arm)
        self.pid = self.nodes.ask(
            config=str(self.config),
            log=str(self.folder / "node.log"),
            root=str(self.folder / "data"),
            workers=self.workers,
            environment=dict(self.environment),
            steps=str(self.step_log) if steps or kill_at else None,
            arm=str(self.arm),
        )

    def wait_listening(self) -> None:
        """Wait until it takes associations."""
        wait_until(
            lambda: accepts_connections(self.port) or self.ended,
            what="the node listens",
            timeout_s=_START_S,
            pause_s=0.01,
        )
        log = (self.folder / "node.log").read_text(errors="replace")
        assert not self.ended, f"the node ended in its start:\n{log[-4000:]}"

    @property
    def ended(self) -> bool:
        """Whether the last node that was started is dead."""
        if self.pid is not None:
            assert self.nodes is not None
            if self.nodes.ask(poll=self.pid):
                self.pid = None
        return self.pid is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: self.ended, what="the node is dead", pause_s=0.005)

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Run the node; kill it at the end, as every end here."""
        self.write_config()
        self.start()
        self.wait_listening()
        try:
            yield self
        finally:
            self.kill()


def main() -> None:
    """Import once, then fork a node for each order."""
    import node.app

    _know_the_packs(node.app)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            gone, _status = os.waitpid(order["poll"], os.WNOHANG)
            number = 1 if gone else 0
        else:
            number = os.fork()
            if number == 0:
                _become_node(order)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
    os._exit(0)  # nothing here needs the seconds that taking the libraries apart costs


def _know_the_packs(app: Any) -> None:
    """Check the packs once for all children."""
    known: dict[Path, Any] = {}
    load = app.load_pack

    def load_once(folder: Path) -> Any:
        if folder not in known:
            known[folder] = load(folder)
        return known[folder]

    app.load_pack = load_once
    for folder in app.shipped_packs():
        load_once(folder)


def _become_node(order: dict[str, Any]) -> None:
    status = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no node outlives the tests
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for handle, source in ((0, nowhere), (1, log), (2, log)):
            os.dup2(source, handle)
        _serve(order)
        status = 0
    except BaseException:
        traceback.print_exc()  # to the node's log
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


def _serve(order: dict[str, Any]) -> None:
    from functools import partial

    import node.app
    import node.dispatch
    import node.jobs
    from node.settings import load_settings
    from node.watch import set_up_logging
    from tests.faults import light

    os.environ.update(order["environment"])
    settings = load_settings(Path(order["config"]))
    set_up_logging(settings.log)
    if order["steps"]:
        watch_steps(Steps(Path(order["steps"]), Path(order["arm"])), Path(order["root"]))
    app: Any = node.app
    app.Work = lambda **_work: node.dispatch.Work(
        name_view=light.name_view, analyse=partial(light.analyse)
    )
    app.prepare_worker = light.prepare
    if order["workers"] == "threads":
        app.WorkerProcesses = light.ThreadedWorkers
    else:
        # Workers are forked from a server that has imported what they need, and not this module.
        main_module: Any = sys.modules["__main__"]
        main_module.__spec__ = main_module.__file__ = None
        app.WorkerProcesses = partial(app.WorkerProcesses, retry_after_s=1.0)
        multiprocessing.set_forkserver_preload(["tests.faults.light", "node.executor"])
        fork = multiprocessing.get_context("forkserver")
        multiprocessing.get_context = lambda _method=None: fork
    jobs: Any = node.jobs
    jobs._TICK_S = 0.2  # the clock of the tests
    node.app.run(settings)


if __name__ == "__main__":
    main()
