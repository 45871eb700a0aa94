"""What a destination has stored, and what it has promised to keep.

Revision 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COLUMNS = ("stored_at", "asks", "promise", "silence")


def upgrade() -> None:
    """Add the columns and the tables.

    What was delivered up to now was delivered by status: no destination was asked for a promise.
    """
    op.add_column("delivery", sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("delivery", sa.Column("asks", sa.Integer(), server_default="0", nullable=False))
    op.add_column("delivery", sa.Column("promise", sa.String(length=16), nullable=True))
    op.add_column("delivery", sa.Column("silence", sa.String(length=16), nullable=True))
    op.execute(
        "UPDATE delivery SET stored_at = delivered_at, promise = 'status' WHERE state = 'delivered'"
    )
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitment_transaction_uid")),
    )
    op.create_index("ix_commitment_open", "commitment", ["destination", "closed_at", "due_at"])
    op.create_table(
        "commitment_item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("commitment_id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["commitment_id"],
            ["commitment.id"],
            name=op.f("fk_commitment_item_commitment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["delivery.id"],
            name=op.f("fk_commitment_item_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_item")),
        sa.UniqueConstraint(
            "commitment_id",
            "delivery_id",
            name=op.f("uq_commitment_item_commitment_id_delivery_id"),
        ),
    )
    op.create_index("ix_commitment_item_delivery_id", "commitment_item", ["delivery_id"])


def downgrade() -> None:
    """Take them away.

    An earlier version knows no promise, and counts a study as done with its last answer: what waits
    for a promise is sent once more, as the same object, and then delivered by that answer.
    """
    op.drop_index("ix_commitment_item_delivery_id", table_name="commitment_item")
    op.drop_table("commitment_item")
    op.drop_index("ix_commitment_open", table_name="commitment")
    op.drop_table("commitment")
    op.execute("UPDATE delivery SET state = 'waiting' WHERE state = 'sent'")
    for column in _COLUMNS:
        op.drop_column("delivery", column)
