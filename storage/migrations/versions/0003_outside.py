"""How much of what moved a finding lay outside the scanning sector.

Revision 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; findings from before were not asked."""
    op.add_column("finding", sa.Column("outside_share", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take it away; the findings stay."""
    op.drop_column("finding", "outside_share")
