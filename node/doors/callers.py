"""Who may come in, and what is told of those who may not."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from node.watch.transfers import Peer, TurnedAway

log = structlog.get_logger(__name__)

_ONE_LINE_A_HOST_S = 10.0
_HOSTS_REMEMBERED = 256


class Addresses:
    """The addresses that may call; an empty list lets all call."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def refuse(self, host: str) -> str | None:
        """Give the reason why an address may not call, or None."""
        if not self._networks:
            return None
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return "not an address"
        if any(address in network for network in self._networks):
            return None
        return "address is not in allowed_addresses"


class TurnedAwayBook:
    """Counts those who were turned away, and tells of them without being flooded.

    Parameters
    ----------
    door
        Whose book it is.
    told
        Told of one caller a host and ten seconds; the reason says how many more there were.
    counted
        Called for every one, with the door and the reason.
    """

    def __init__(
        self,
        door: str,
        told: Callable[[TurnedAway], None],
        counted: Callable[[str, str], None] = lambda _door, _reason: None,
    ) -> None:
        self._door = door
        self._told = told
        self._counted = counted
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._untold: dict[str, int] = {}
        self.count = 0

    def enter(self, peer: Peer, reason: str) -> None:
        """Note a caller that was not let in."""
        self._counted(self._door, reason)
        now = time.monotonic()
        with self._lock:
            self.count += 1
            if now - self._last.get(peer.host, -_ONE_LINE_A_HOST_S) < _ONE_LINE_A_HOST_S:
                self._untold[peer.host] = self._untold.get(peer.host, 0) + 1
                return
            if len(self._last) >= _HOSTS_REMEMBERED:
                self._forget_old(now)
            if len(self._last) >= _HOSTS_REMEMBERED:
                return  # a flood from everywhere: the count says so
            more = self._untold.pop(peer.host, 0)
            self._last[peer.host] = now
        log.warning(
            "caller-turned-away",
            door=self._door,
            reason=reason,
            calling_ae=peer.ae_title,
            peer=peer.host,
            more=more,
        )
        words = (
            f"{reason} (and {more} more of this address since the last line)" if more else reason
        )
        try:
            self._told(TurnedAway(peer=peer, door=self._door, reason=words))
        except Exception:
            log.exception("not-told", what="TurnedAway")  # those who watch hold up no one

    def _forget_old(self, now: float) -> None:
        for host in [h for h, at in self._last.items() if now - at >= _ONE_LINE_A_HOST_S]:
            del self._last[host]
            self._untold.pop(host, None)
