"""Which nodes run, by their heartbeats."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.catalog._records import Heartbeat
from storage.tables import NodeProcess


def write_heartbeat(session: Session, heartbeat: Heartbeat) -> None:
    """Say that a node runs, in place of what it said last."""
    session.merge(
        NodeProcess(
            id=heartbeat.node_id,
            pid=heartbeat.pid,
            started_at=heartbeat.started_at,
            heartbeat_at=heartbeat.heartbeat_at,
            details=dict(heartbeat.details),
        )
    )
    session.flush()


def read_nodes(session: Session) -> tuple[Heartbeat, ...]:
    """List the nodes, the newest heartbeat first. How old is too old is the caller's to say."""
    rows = session.scalars(select(NodeProcess).order_by(NodeProcess.heartbeat_at.desc()))
    return tuple(
        Heartbeat(
            node_id=row.id,
            pid=row.pid,
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            details=row.details,
        )
        for row in rows
    )


def forget_node(session: Session, node_id: str) -> None:
    """Say that a node has stopped as it should."""
    row = session.get(NodeProcess, node_id)
    if row is not None:
        session.delete(row)
        session.flush()
