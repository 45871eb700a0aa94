"""What each heartbeat of a clip measured, beside their mean.

Revision 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; findings from before have no beats."""
    op.add_column(
        "finding", sa.Column("per_beat", sa.JSON(), nullable=False, server_default=sa.text("'[]'"))
    )


def downgrade() -> None:
    """Take it away; the means stay."""
    op.drop_column("finding", "per_beat")
