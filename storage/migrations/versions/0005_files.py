"""Whether the file of a row is there.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = {"instance": "received_at", "result": "created_at", "quarantined_object": "received_at"}


def upgrade() -> None:
    """Add the columns and the indices; up to now every row had its file."""
    for table, came_at in _TABLES.items():
        op.add_column(
            table,
            sa.Column("file_state", sa.String(length=16), server_default="kept", nullable=False),
        )
        op.add_column(table, sa.Column("file_since", sa.DateTime(timezone=True), nullable=True))
        op.create_index(f"ix_{table}_file", table, ["file_state", came_at])


def downgrade() -> None:
    """Take them away.

    An earlier version does not know that a file can be gone while its row stays: it says that the
    file is missing, which is true, and keeps the object again when it is sent again.
    """
    for table in _TABLES:
        op.drop_index(f"ix_{table}_file", table_name=table)
        op.drop_column(table, "file_since")
        op.drop_column(table, "file_state")
