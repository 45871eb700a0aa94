"""Which nodes run, by their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.catalog._moves import utc_now
from storage.catalog._records import NodeRecord
from storage.tables import NodeProcess


def write_heartbeat(
    session: Session,
    node_id: str,
    *,
    pid: int,
    started_at: datetime,
    details: Mapping[str, Any],
    now: datetime | None = None,
) -> None:
    """Say that a node runs. ``details`` (addresses, workers) must fit into JSON."""
    session.merge(
        NodeProcess(
            id=node_id,
            pid=pid,
            started_at=started_at,
            heartbeat_at=now or utc_now(),
            details=dict(details),
        )
    )
    session.flush()


def read_nodes(session: Session) -> tuple[NodeRecord, ...]:
    """List the nodes, the newest heartbeat first. How old is too old is the caller's to say."""
    rows = session.scalars(select(NodeProcess).order_by(NodeProcess.heartbeat_at.desc()))
    return tuple(
        NodeRecord(
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
