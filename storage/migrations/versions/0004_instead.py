"""What a destination refuses, and what it gets in its place.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the column; nothing was refused for its class before."""
    op.create_table(
        "refused_class",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refused_class")),
        sa.UniqueConstraint(
            "destination", "sop_class_uid", name=op.f("uq_refused_class_destination_sop_class_uid")
        ),
    )
    op.add_column("result", sa.Column("stands_for", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Take them away, with the objects that an earlier version would take for results of its own.

    What a destination got in place of a result stays there. The result itself counts as not taken,
    which is true.
    """
    strange = "SELECT id FROM result WHERE stands_for IS NOT NULL OR kind NOT IN ('sr', 'sc')"
    op.execute(f"DELETE FROM delivery WHERE result_id IN ({strange})")  # noqa: S608 - no input
    op.execute("DELETE FROM result WHERE stands_for IS NOT NULL OR kind NOT IN ('sr', 'sc')")
    op.execute("UPDATE delivery SET state = 'failed' WHERE state = 'replaced'")
    op.drop_column("result", "stands_for")
    op.drop_table("refused_class")
