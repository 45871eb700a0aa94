"""The connections that are open to others now, so that a stop can end them.

A library's call waits for its peer, and an archive may take its time. Whoever stops the node waits
for a while and then hangs up: the calls end as when the peer had gone.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from weakref import WeakKeyDictionary


class Lines:
    """Connections by their sockets. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Weak: whoever is forgotten without a word keeps nothing in memory.
        self._open: WeakKeyDictionary[object, socket.socket] = WeakKeyDictionary()
        self._hung_up = False

    @property
    def hung_up(self) -> bool:
        """Whether whoever calls now is cut off at once."""
        return self._hung_up

    def add(self, owner: object, connection: socket.socket) -> None:
        """Keep a connection in sight for its owner; one that comes late is ended at once."""
        with self._lock:
            self._open[owner] = connection
            late = self._hung_up
        if late:
            _end(connection)

    def remove(self, owner: object) -> None:
        """Let an owner's connection out of sight; one that is not in sight is no error."""
        with self._lock:
            self._open.pop(owner, None)

    def hang_up(self) -> None:
        """End every connection, and those that are opened from now on."""
        with self._lock:
            self._hung_up = True
            connections = list(self._open.values())
        for connection in connections:
            _end(connection)


def _end(connection: socket.socket) -> None:
    # Unlike a close, it also wakes who waits in another thread. By the plain socket's method: TLS's
    # own would take the session away from that thread.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
