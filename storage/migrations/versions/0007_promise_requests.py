"""What echo machines asked us to promise.

Revision 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; no machine was promised anything before."""
    op.create_table(
        "promise_request",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("peer_host", sa.String(length=255), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_answer", sa.Text(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promise_request")),
        sa.UniqueConstraint(
            "calling_ae",
            "transaction_uid",
            name=op.f("uq_promise_request_calling_ae_transaction_uid"),
        ),
    )
    op.create_index(
        "ix_promise_request_due",
        "promise_request",
        ["reported_at", "given_up_at", "next_attempt_at"],
    )
    op.create_table(
        "promise_request_item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["promise_request.id"],
            name=op.f("fk_promise_request_item_request_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promise_request_item")),
    )
    op.create_index("ix_promise_request_item_request_id", "promise_request_item", ["request_id"])


def downgrade() -> None:
    """Take them away; a machine that still waits for its report asks again, or keeps its images."""
    op.drop_table("promise_request_item")
    op.drop_table("promise_request")
