"""Kills the node before a chosen step, to try every moment at which a crash makes a difference.

A process that is killed leaves behind what it had handed to the kernel: what was synced, renamed,
removed, committed and sent. Between two such steps it makes no difference when it dies. So a node
that was killed before each of its steps in turn was killed everywhere.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

_PDU = {1: "A-ASSOCIATE-RQ", 2: "A-ASSOCIATE-AC", 3: "A-ASSOCIATE-RJ", 4: "P-DATA"} | {
    5: "A-RELEASE-RQ",
    6: "A-RELEASE-RP",
    7: "A-ABORT",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class KillAt:
    """Die before the ``nth`` step whose name matches ``pattern`` (a regular expression)."""

    pattern: str
    nth: int = 1

    def arm(self, path: Path) -> None:
        """Write it down for a node that runs, or for the next one."""
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(asdict(self)))
        whole.rename(path)


class Steps:
    """Writes down each step of this process and dies before one of them.

    Parameters
    ----------
    log
        Gets a line for each step, before it is taken. The step that is never taken is the last.
    arm
        A file that says where to die, as :meth:`KillAt.arm` writes it; it may come at any time.
    """

    def __init__(self, log: Path, arm: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        self._arm = arm
        self._kill_at: KillAt | None = None
        self._matched = 0
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Name the step that comes now."""
        with self._lock:
            os.write(self._log, f"{name}\n".encode())
            if self._kill_at is None and self._arm.exists():
                self._kill_at = KillAt(**json.loads(self._arm.read_text()))
            if self._kill_at is None or not re.search(self._kill_at.pattern, name):
                return
            self._matched += 1
            if self._matched == self._kill_at.nth:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # with the lock: nothing is done by others before the signal comes


def watch_steps(steps: Steps, root: Path) -> None:
    """Have this process tell its steps: files, commits, and what goes out on DIMSE."""
    _watch_files(steps, root)
    _watch_commits(steps)
    _watch_network(steps)


def _watch_files(steps: Steps, root: Path) -> None:
    def before(name: str, say: Callable[..., str | None]) -> None:
        real = getattr(os, name)

        @wraps(real)
        def watched(*arguments: Any, **keywords: Any) -> Any:
            said = say(*arguments)
            if said is not None:
                steps.take(f"{name} {said}")
            return real(*arguments, **keywords)

        setattr(os, name, watched)

    def place(path: object) -> str | None:
        try:
            parts = Path(os.fsdecode(path)).relative_to(root).parts  # type: ignore[call-overload]
        except (TypeError, ValueError):
            return None
        # The first folder says what it is; the rest is a digest or a random name.
        return "/".join(parts[:1]) + ("/…" * (len(parts) - 1)) if parts else "."

    before("fsync", lambda handle: place(Path(f"/proc/self/fd/{handle}").readlink()))
    before("replace", lambda _source, target, **_: place(target))
    before("unlink", lambda path, **_: place(path))


def _watch_commits(steps: Steps) -> None:
    from sqlalchemy import Engine, event

    from storage import catalog

    written = threading.local()

    def tell(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def told(*arguments: Any, **keywords: Any) -> Any:
            names = getattr(written, "names", [])
            if name not in names:
                written.names = [*names, name]
            return real(*arguments, **keywords)

        return told

    for name in catalog.__all__:
        value = getattr(catalog, name)
        if callable(value) and not isinstance(value, type):
            setattr(catalog, name, tell(name, value))

    def changes(connection: Any) -> int:
        return int(connection.connection.dbapi_connection.total_changes)

    def begun(connection: Any) -> None:
        written.changes = changes(connection)

    def committing(connection: Any) -> None:
        # The clock's jobs look for work in transactions that mostly change nothing.
        if changes(connection) != written.changes:
            steps.take("commit " + "+".join(getattr(written, "names", [])))
        written.names = []

    def undone(_connection: Any) -> None:
        written.names = []

    event.listen(Engine, "begin", begun)
    event.listen(Engine, "commit", committing)
    event.listen(Engine, "rollback", undone)


def _watch_network(steps: Steps) -> None:
    from pynetdicom.transport import AssociationSocket

    real = AssociationSocket.send

    def send(self: AssociationSocket, data: bytes) -> None:
        steps.take(f"send {_PDU.get(data[0], 'PDU')}")
        real(self, data)

    AssociationSocket.send = send  # type: ignore[method-assign]
