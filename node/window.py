"""A window into the running node: its status, through a Unix socket in the data folder.

Whoever may read the data folder may look. A command that looks needs neither the database nor the
settings' machinery, so it answers at once also where both cores are at work; where nobody answers,
it reads the rows itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

SOCKET_NAME = "node.sock"
PATIENCE_S = 3.0  #: after which whoever looks goes elsewhere
_WAITING = 8
_CHUNK_BYTES = 1 << 16

log = logging.getLogger(__name__)


def look_in(data_dir: Path) -> dict[str, Any] | None:
    """What the node that runs on a data folder says of itself; None where none answers."""
    answer = bytearray()
    try:
        with (
            _reachable(data_dir) as address,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line,
        ):
            line.settimeout(PATIENCE_S)
            line.connect(address)
            while chunk := line.recv(_CHUNK_BYTES):
                answer += chunk
        shown = json.loads(answer)
    except (OSError, ValueError):
        return None  # no node, one that is just ending, or one whose database is away
    return shown if isinstance(shown, dict) else None


class Window:
    """Answers each caller with the status and hangs up.

    Parameters
    ----------
    data_dir
        The folder that holds the socket; this process alone may use it.
    status
        Gives what can be written as JSON, or None where it cannot be told now: who looks then
        gets no answer and goes elsewhere.
    """

    def __init__(self, data_dir: Path, status: Callable[[], Mapping[str, Any] | None]) -> None:
        self._data_dir = data_dir
        self._status = status
        self._stopping = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._run, name="window", daemon=True)

    def start(self) -> None:
        """Open it.

        Raises
        ------
        OSError
            If the socket cannot be made.
        """
        path = self._data_dir / SOCKET_NAME
        path.unlink(missing_ok=True)  # of a node that was killed: we hold the folder now
        with _reachable(self._data_dir) as address:
            self._socket.bind(address)
        path.chmod(0o600)
        self._socket.listen(_WAITING)
        self._thread.start()

    def stop(self) -> None:
        """Close it."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # it was never opened
            self._socket.shutdown(socket.SHUT_RDWR)  # close() alone does not end accept()
        self._socket.close()
        if self._thread.is_alive():
            self._thread.join(timeout=PATIENCE_S)
        with contextlib.suppress(OSError):  # a volume that can only be read keeps it; it harms none
            (self._data_dir / SOCKET_NAME).unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                line, _ = self._socket.accept()
            except OSError:
                if not self._stopping.is_set():
                    log.exception("the window for `echonode status` has closed")
                return
            with line:
                line.settimeout(PATIENCE_S)
                try:
                    status = self._status()
                    if status is not None:
                        line.sendall(json.dumps(status).encode())
                except OSError:
                    continue  # hung up, or asleep
                except Exception:
                    # The edge of a thread: the next one may be answered.
                    log.exception("the status cannot be told")


@contextlib.contextmanager
def _reachable(data_dir: Path) -> Iterator[str]:
    """The socket's address: one that is short enough, however deep the folder lies."""
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
