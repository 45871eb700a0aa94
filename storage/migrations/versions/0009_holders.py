"""Which node is at work on what.

Revision 0009, after 0008.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_CLAIMED = ("study", "recording", "delivery", "commitment", "promise_request")


def upgrade() -> None:
    """Add the columns. What is at work has no holder, and so goes on at the next start."""
    for table in _CLAIMED:
        op.add_column(table, sa.Column("holder", sa.String(length=64), nullable=True))
    op.add_column("node_process", sa.Column("holder", sa.String(length=64), nullable=True))
    op.add_column(
        "node_process",
        sa.Column("seat", sa.String(length=32), server_default=sa.text("''"), nullable=False),
    )
    op.add_column(
        "node_process",
        sa.Column("lease_s", sa.Double(), server_default=sa.text("30"), nullable=False),
    )
    op.add_column(
        "node_process", sa.Column("taken_over_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("node_process", sa.Column("taken_over_by", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Take them away: an earlier version takes up at its start whatever is at work."""
    for column in ("taken_over_by", "taken_over_at", "lease_s", "seat", "holder"):
        op.drop_column("node_process", column)
    for table in reversed(_CLAIMED):
        op.drop_column(table, "holder")
