"""What is kept of ECGs: stretches that moved a value, doubts, what was read, reports of their own.

Revision 0012, after 0011.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_LISTS = (
    ("finding", "spans_ms"),
    ("recording", "troubles"),
    ("recording", "readings"),
    ("recording", "pages"),
)


def upgrade() -> None:
    """Add the columns. What was found before was found in clips, and so is what was reported."""
    for table, column in _LISTS:
        op.add_column(
            table, sa.Column(column, sa.JSON(), server_default=sa.text("'[]'"), nullable=False)
        )
    op.add_column(
        "result",
        sa.Column("subject", sa.String(length=16), server_default="ultrasound", nullable=False),
    )
    # An ECG has no view to be named: what waits for that waits to be analysed.
    _move({"to_view": "queued", "viewing": "analysing"})


def downgrade() -> None:
    """Take them away. What was reported of ECGs stays: it was sent."""
    _move({"queued": "to_view", "analysing": "viewing"})
    op.drop_column("result", "subject")
    for table, column in reversed(_LISTS):
        op.drop_column(table, column)


def _move(instead: dict[str, str]) -> None:
    recording = sa.table("recording", sa.column("kind", sa.String), sa.column("state", sa.String))
    for state, other in instead.items():
        op.execute(
            recording.update()
            .where(recording.c.kind == "ecg", recording.c.state == state)
            .values(state=other)
        )
