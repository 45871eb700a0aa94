"""Searches by date and by series.

Revision 0008, after 0007.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_INDICES = (
    ("study", "study_date"),
    ("instance", "series_instance_uid"),
    ("result", "series_instance_uid"),
)


def upgrade() -> None:
    """Add indices; nothing that is kept changes."""
    for table, column in _INDICES:
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    """Take them away."""
    for table, column in reversed(_INDICES):
        op.drop_index(f"ix_{table}_{column}", table)
