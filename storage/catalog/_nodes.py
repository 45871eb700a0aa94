"""Which nodes live, by their heartbeats, and taking over what a dead one had claimed.

See :mod:`storage.catalog._holders` for what a claim is. No clock decides over life and death: who
watches another node sees its heartbeat change, and takes it over when it did not for as long as
its lease, by the watcher's own steady clock (:mod:`node.membership`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.orm import Session

from storage.catalog._moves import CatalogError, utc_now
from storage.catalog._outbox import requeue_interrupted_deliveries
from storage.catalog._promises import free_promise_requests
from storage.catalog._queue import requeue_interrupted
from storage.catalog._records import NodeRecord, TakenUp
from storage.catalog._results import free_reports
from storage.tables import NodeProcess

_REMEMBERED = timedelta(days=7)


def join(
    session: Session,
    name: str,
    *,
    pid: int,
    started_at: datetime,
    details: Mapping[str, Any],
    seat: str = "",
    lease_s: float = 30.0,
    alone: bool = False,
    now: datetime | None = None,
) -> str:
    """Say that a node runs, and get the holder that its claims are to bear.

    Parameters
    ----------
    details
        Addresses, workers: what fits into JSON.
    seat
        Tells the node from another of the same name: a word that its data folder keeps. A node
        that comes back to its seat takes its own name over, however fresh its heartbeat.
    lease_s
        After so long a silence others may take it over.
    alone
        No other node can work on this database: rows of others are of the past.

    Raises
    ------
    CatalogError
        If another node of this name lives; where there can be one alone, if any other does.
    """
    now = clock_of(session, now)
    for row in session.scalars(select(NodeProcess).with_for_update()).all():
        if (alone or row.id == name) and row.seat not in ("", seat) and _lives(row, now):
            step = "SQLite has one node" if alone else "give this one another name in [node]"
            raise CatalogError(
                f"a node named {row.id} works on this database already (process {row.pid}, last "
                f"sign at {row.heartbeat_at:%H:%M:%S} UTC); {step}, or wait {row.lease_s:.0f} s "
                "where that one has died"
            )
    forgotten = delete(NodeProcess).where(NodeProcess.id != name)
    if not alone:
        forgotten = forgotten.where(NodeProcess.taken_over_at < now - _REMEMBERED)
    session.execute(forgotten.execution_options(synchronize_session=False))
    holder = f"{name}/{secrets.token_hex(4)}"
    session.merge(
        NodeProcess(
            id=name,
            pid=pid,
            started_at=started_at,
            heartbeat_at=now,
            details=dict(details),
            holder=holder,
            seat=seat,
            lease_s=lease_s,
            taken_over_at=None,
            taken_over_by=None,
        )
    )
    session.flush()
    return holder


def renew(
    session: Session, holder: str, *, details: Mapping[str, Any], now: datetime | None = None
) -> bool:
    """Say that a node still lives; False where another has taken it over: it has to join anew."""
    renewed = session.execute(
        update(NodeProcess)
        .where(NodeProcess.holder == holder, NodeProcess.taken_over_at.is_(None))
        .values(heartbeat_at=clock_of(session, now), details=dict(details))
        .execution_options(synchronize_session=False)
    )
    return _count(renewed) == 1


def leave(session: Session, holder: str) -> None:
    """Say that a node has stopped as it should: its holder is void."""
    session.execute(
        delete(NodeProcess)
        .where(NodeProcess.holder == holder)
        .execution_options(synchronize_session=False)
    )


def forget_node(session: Session, name: str) -> None:
    """Say that a node will not come back.

    Raises
    ------
    CatalogError
        If it is not known, or lives.
    """
    row = session.get(NodeProcess, name, with_for_update=True)
    if row is None:
        raise CatalogError(f"no node {name}; `echonode status` names those that are there")
    if _lives(row, clock_of(session, None)):
        raise CatalogError(f"node {name} gave a sign of life a moment ago; stop it first")
    session.delete(row)
    session.flush()


def read_nodes(session: Session, now: datetime | None = None) -> tuple[NodeRecord, ...]:
    """List the nodes, the newest heartbeat first."""
    now = clock_of(session, now)
    rows = session.scalars(
        select(NodeProcess).order_by(NodeProcess.heartbeat_at.desc(), NodeProcess.id)
    )
    return tuple(
        NodeRecord(
            node_id=row.id,
            pid=row.pid,
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            details=row.details,
            holder=row.holder or "",
            seat=row.seat,
            lease_s=row.lease_s,
            alive=_lives(row, now),
            taken_over_at=row.taken_over_at,
            taken_over_by=row.taken_over_by,
        )
        for row in rows
    )


def take_over(
    session: Session,
    node: NodeRecord,
    by: str,
    *,
    max_attempts: int | None = None,
    now: datetime | None = None,
) -> TakenUp | None:
    """Let go on what a dead node held; None where it has given a sign meanwhile.

    Parameters
    ----------
    node
        As it was last seen.
    by
        The name of the node that takes over.
    """
    changed = session.execute(
        update(NodeProcess)
        .where(
            NodeProcess.holder == node.holder,
            NodeProcess.heartbeat_at == node.heartbeat_at,
            NodeProcess.taken_over_at.is_(None),
        )
        .values(taken_over_at=clock_of(session, now), taken_over_by=by)
        .execution_options(synchronize_session=False)
    )
    if _count(changed) != 1:
        return None
    reason = f"node {node.node_id} gave no sign of life"
    return take_up(session, reason=reason, max_attempts=max_attempts, now=now)


def take_up(
    session: Session,
    *,
    reason: str = "the node stopped",
    max_attempts: int | None = None,
    now: datetime | None = None,
) -> TakenUp:
    """Let go on whatever is at work and held by no node that lives.

    Called after :func:`join`, when what the node itself held before is void, and whenever a holder
    becomes void. See :func:`storage.catalog.requeue_interrupted` for ``max_attempts``.
    """
    now = clock_of(session, now)
    taken = TakenUp(
        recordings=requeue_interrupted(session, max_attempts=max_attempts, why=reason, now=now),
        deliveries=requeue_interrupted_deliveries(session, why=reason, now=now),
        reports=free_reports(session),
        promises=free_promise_requests(session, now),
    )
    session.flush()
    return taken


def clock_of(session: Session, now: datetime | None) -> datetime:
    """The time that nodes compare: the server's, where there is one; ``now`` is for tests."""
    if now is not None:
        return now
    if session.get_bind().dialect.name != "postgresql":
        return utc_now()
    there: datetime = session.scalars(select(func.clock_timestamp())).one()
    return there


def _lives(row: NodeProcess, now: datetime) -> bool:
    if row.taken_over_at is not None:
        return False
    # A heartbeat from the future is from before the clock was set back: it says nothing of now.
    return abs(now - row.heartbeat_at) < timedelta(seconds=row.lease_s)


def _count(result: object) -> int:
    return result.rowcount if isinstance(result, CursorResult) else 0
