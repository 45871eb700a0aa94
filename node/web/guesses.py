"""Makes guessing slow: who shows wrong passwords or tokens is not heard for a while."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_FREE = 5  # wrong ones for one user from one address before the first pause
_FREE_FOR_ADDRESS = 20  # for all users together
_LONGEST_PAUSE_S = 300.0
_FORGOTTEN_AFTER_S = 900.0
_MOST = 4096


@dataclass(slots=True)
class _Tries:
    wrong: int = 0
    last: float = 0.0
    heard_again: float = 0.0


class Guesses:
    """Counts wrong tries by address and by address and user, in bounded memory.

    A user is never shut out for all addresses: nobody can lock an administrator out by guessing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[tuple[str, str | None], _Tries] = OrderedDict()

    def pause_s(self, host: str, user: str) -> float:
        """For how long this caller is not heard; 0 if he is."""
        now = self._clock()
        with self._lock:
            return max(
                (
                    tries.heard_again - now
                    for key in _keys(host, user)
                    if (tries := self._tries.get(key)) is not None and tries.heard_again > now
                ),
                default=0.0,
            )

    def wrong(self, host: str, user: str) -> bool:
        """Count a wrong try; returns whether the caller is now not heard for a while."""
        now = self._clock()
        paused = False
        with self._lock:
            for key, free in zip(_keys(host, user), (_FREE_FOR_ADDRESS, _FREE), strict=True):
                tries = self._tries.pop(key, None)
                if tries is None or now - tries.last > _FORGOTTEN_AFTER_S:
                    tries = _Tries()
                tries.wrong += 1
                tries.last = now
                if tries.wrong >= free:
                    pause = min(_LONGEST_PAUSE_S, 2.0 ** min(tries.wrong - free, 16))
                    tries.heard_again = now + pause
                    paused = True
                self._tries[key] = tries  # the newest at the end
            while len(self._tries) > _MOST:
                self._tries.popitem(last=False)
        return paused

    def right(self, host: str, user: str) -> None:
        """Forget a user's wrong tries from this address; those for other users stay counted."""
        with self._lock:
            self._tries.pop(_keys(host, user)[1], None)


def _keys(host: str, user: str) -> tuple[tuple[str, None], tuple[str, str]]:
    network = _network(host)
    return (network, None), (network, user[:64])


def _network(host: str) -> str:
    """An IPv6 caller has a whole /64 to call from."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host
