"""What the node says to the service manager that started it (systemd: sd_notify).

A service manager that wants to hear of its service names a datagram socket in ``NOTIFY_SOCKET``.
Without one nothing is said.
"""

from __future__ import annotations

import os
import socket

import structlog

log = structlog.get_logger(__name__)

_VARIABLE = "NOTIFY_SOCKET"
_LONGEST_WAIT_S = 1.0  # nobody may hold the node up by not listening


def tell(*words: str) -> bool:
    """Say such as ``READY=1``; gives whether anybody was told."""
    name = os.environ.get(_VARIABLE, "")
    if not name.startswith(("/", "@")):
        return False
    # A name that begins with @ is one of the abstract name space, which begins with a zero byte.
    address = f"\0{name[1:]}" if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.settimeout(_LONGEST_WAIT_S)
            listener.connect(address)
            listener.sendall("\n".join(words).encode())
    except OSError as error:
        log.warning("service-manager-not-told", reason=error.strerror)
        return False
    return True
