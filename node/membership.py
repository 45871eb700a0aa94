"""This node among others that share its database: its heartbeat, and taking over a dead one's work.

No machine's clock decides who lives. A node is dead when its heartbeat has not changed for as long
as its lease, by the steady clock of whoever watches it, and while the watcher's own heartbeats all
went through: after a silence of the database nobody is judged before all could speak again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from storage import catalog
from storage.database import Database, DatabaseError

log = structlog.get_logger(__name__)

_LONGEST_BEAT_S = 5.0
_BEATS = 4  # in a lease
_NO_MATTER = timedelta(seconds=0.5)  # between two clocks
_FAR_OFF = timedelta(seconds=60)


def beat_every_s(lease_s: float) -> float:
    """How often a node gives a sign of life."""
    return min(_LONGEST_BEAT_S, lease_s / _BEATS)


@dataclass(slots=True)
class _Seen:
    """Another node as it was last seen to change, by our steady clock."""

    node: catalog.NodeRecord
    since: float


class Membership:
    """Joins, gives signs of life, takes over who gives none, and leaves. Any thread may ask.

    Parameters
    ----------
    name
        Under which the node is known to the others.
    seat
        A word of the data folder's: see :func:`storage.catalog.join`.
    lease_s
        After so long a silence of this node others go on with its work.
    max_attempts
        A recording that was at work so often when a node died has failed.
    details
        What a heartbeat tells: addresses, workers.
    taken_up
        Called when there is something to do that was another's.
    steady
        A clock that is never set; for tests.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        seat: str,
        lease_s: float,
        max_attempts: int,
        started_at: datetime,
        details: Callable[[], Mapping[str, Any]] = dict,
        taken_up: Callable[[], None] = lambda: None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._name = name
        self._seat = seat
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._started_at = started_at
        self._details = details
        self._taken_up = taken_up
        self._steady = steady
        self._alone = database.url.get_backend_name() == "sqlite"
        self._holder = ""
        self._beating = threading.Lock()
        self._last_beat = float("-inf")
        self._others: dict[str, _Seen] = {}
        self._offset = timedelta()

    def now(self) -> datetime:
        """The time by the server's clock, which all nodes go by; of a file, by the machine's."""
        return datetime.now(UTC) + self._offset

    def set_clock(self) -> None:
        """Go by the server's clock: a study is quiet at the same time on all nodes."""
        if self._alone:
            return
        with self._database.read() as session:
            catalog.clock_of(session, None)  # the connection is made
            before = datetime.now(UTC)
            there = catalog.clock_of(session, None)
            after = datetime.now(UTC)
        offset = there - (before + (after - before) / 2)
        if abs(offset) > _FAR_OFF >= abs(self._offset):
            log.warning(
                "clock-off",
                seconds=round(offset.total_seconds()),
                next_step="keep the clocks of this machine and of the database's right by NTP",
            )
        self._offset = offset if abs(offset) > _NO_MATTER else timedelta()

    def holder(self) -> str:
        """What this node's claims bear now."""
        return self._holder

    @property
    def alone(self) -> bool:
        """Whether no other node can be there: the database is a file."""
        return self._alone

    def join(self) -> None:
        """Begin: what this node left behind when it last stopped, and what is nobody's, goes on.

        Raises
        ------
        CatalogError
            If another node of this name lives.
        """
        with self._database.write() as session:
            self._holder = catalog.join(
                session,
                self._name,
                pid=os.getpid(),
                started_at=self._started_at,
                details={},
                seat=self._seat,
                lease_s=self._lease_s,
                alone=self._alone,
            )
            taken = catalog.take_up(session, max_attempts=self._max_attempts)
        self.set_clock()
        self._last_beat = self._steady()
        if taken:
            log.info("interrupted-work-taken-up", **_counts(taken))

    def beat(self) -> None:
        """Give a sign of life, and look after the others'."""
        with self._beating:
            details = self._details()
            now = self._steady()
            if now - self._last_beat > self._lease_s / 2:
                self._others.clear()  # who could not speak cannot tell who did
            with self._database.beside() as session:
                kept = catalog.renew(session, self._holder, details=details)
            if not kept:
                self._join_anew()
            self._last_beat = self._steady()
            if not self._alone:
                self.set_clock()
                self._look_after_others()

    def leave(self) -> None:
        """Stop: what is still at work here goes on elsewhere, or at the next start."""
        if not self._holder:
            return
        try:
            with self._database.write() as session:
                catalog.leave(session, self._holder)
                catalog.take_up(session, max_attempts=self._max_attempts)
        except DatabaseError as error:
            # Its heartbeat ends all the same.
            log.warning("stop-not-noted", reason=str(error))

    def _join_anew(self) -> None:
        log.error(
            "lease-lost",
            node=self._name,
            next_step="another node has taken over what this one had begun, or has its name; see "
            "why it could not reach the database",
        )
        try:
            self.join()
        except catalog.CatalogError as error:
            log.error("cannot-join", reason=str(error))  # noqa: TRY400 - says all

    def _look_after_others(self) -> None:
        with self._database.read() as session:
            nodes = catalog.read_nodes(session)
        now = self._steady()
        others = {
            node.holder: node
            for node in nodes
            if node.holder != self._holder and node.taken_over_at is None
        }
        self._others = {holder: seen for holder, seen in self._others.items() if holder in others}
        for holder, node in others.items():
            seen = self._others.get(holder)
            if seen is None or seen.node.heartbeat_at != node.heartbeat_at:
                self._others[holder] = _Seen(node=node, since=now)
            elif now - seen.since >= max(node.lease_s, self._lease_s):
                self._take_over(node)

    def _take_over(self, node: catalog.NodeRecord) -> None:
        with self._database.write() as session:
            taken = catalog.take_over(session, node, self._name, max_attempts=self._max_attempts)
        self._others.pop(node.holder, None)
        if taken is None:
            return
        log.warning("node-taken-over", node=node.node_id, **_counts(taken))
        if taken:
            self._taken_up()


def _counts(taken: catalog.TakenUp) -> dict[str, int]:
    return {
        "recordings": taken.recordings,
        "deliveries": taken.deliveries,
        "reports": taken.reports,
        "promises": taken.promises,
    }
