"""How many rows are in each state, and the indices that a million rows need.

Revision 0011, after 0010.
"""

# ruff: noqa: S608 - the statements are made of names that stand here, and of nothing else

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

#: What of a row is counted by: its destination, its state, its promise; '' where it has none.
_COUNTED = {
    "study": ("''", "{row}.state", "''"),
    "recording": ("''", "{row}.state", "''"),
    "delivery": ("{row}.destination", "{row}.state", "coalesce({row}.promise, '')"),
}
_COLUMNS = "what, destination, state, promise, writer, number"
_KEY = "what, destination, state, promise, writer"
_INDICES = (
    ("ix_study_newest", "study", ["last_image_at", "id"]),
    ("ix_study_state_newest", "study", ["state", "last_image_at", "id"]),
    ("ix_delivery_stored", "delivery", ["destination", "stored_at"]),
    ("ix_commitment_outcome", "commitment", ["outcome", "destination"]),
    ("ix_commitment_accepted", "commitment", ["destination", "accepted_at"]),
)


def upgrade() -> None:
    """Count what is there, and let the database keep the counts."""
    op.create_table(
        "tally",
        sa.Column("what", sa.String(length=32), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("promise", sa.String(length=16), nullable=False),
        sa.Column("writer", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "what", "destination", "state", "promise", "writer", name=op.f("pk_tally")
        ),
    )
    for name, table, columns in _INDICES:
        op.create_index(name, table, columns)
    op.create_index(
        "ix_commitment_item_refused",
        "commitment_item",
        ["commitment_id"],
        sqlite_where=sa.text("failure_reason IS NOT NULL"),
        postgresql_where=sa.text("failure_reason IS NOT NULL"),
    )
    for table in _COUNTED:
        op.execute(
            f"INSERT INTO tally ({_COLUMNS}) "
            f"SELECT '{table}', destination, state, promise, 0, count(*) "
            f"FROM ({_selected(table, table)}) AS rows GROUP BY destination, state, promise"
        )
        if _on_postgresql():
            _count_on_postgresql(table)
        else:
            _count_on_sqlite(table)


def downgrade() -> None:
    """Take the counts away: an earlier version counts rows."""
    for table in _COUNTED:
        for change in ("insert", "update", "delete"):
            if _on_postgresql():
                op.execute(f"DROP TRIGGER tally_{table}_{change} ON {table}")
            else:
                op.execute(f"DROP TRIGGER tally_{table}_{change}")
        if _on_postgresql():
            op.execute(f"DROP FUNCTION tally_{table}()")
    op.drop_index("ix_commitment_item_refused", table_name="commitment_item")
    for name, table, _ in reversed(_INDICES):
        op.drop_index(name, table_name=table)
    op.drop_table("tally")


def _on_postgresql() -> bool:
    return str(op.get_bind().dialect.name) == "postgresql"


def _by(table: str, row: str) -> list[str]:
    return [column.format(row=row) for column in _COUNTED[table]]


def _selected(table: str, rows: str) -> str:
    destination, state, promise = _by(table, rows)
    return (
        f"SELECT {destination} AS destination, {state} AS state, {promise} AS promise FROM {rows}"
    )


def _count_on_sqlite(table: str) -> None:
    """Row by row: there is one writer at a time."""

    def step(row: str, by: int) -> str:
        return (
            f"INSERT INTO tally ({_COLUMNS}) VALUES ('{table}', {', '.join(_by(table, row))}, 0, "
            f"{by}) ON CONFLICT ({_KEY}) DO UPDATE SET number = number + {by};"
        )

    changed = " OR ".join(
        f"{old} <> {new}"
        for old, new in zip(_by(table, "OLD"), _by(table, "NEW"), strict=True)
        if old != new
    )
    for name, when, steps in (
        ("insert", "INSERT ON", step("NEW", 1)),
        ("update", "UPDATE ON", step("OLD", -1) + " " + step("NEW", 1)),
        ("delete", "DELETE ON", step("OLD", -1)),
    ):
        only = f" WHEN {changed}" if name == "update" else ""
        op.execute(
            f"CREATE TRIGGER tally_{table}_{name} AFTER {when} {table} FOR EACH ROW{only} "
            f"BEGIN {steps} END"
        )


def _count_on_postgresql(table: str) -> None:
    """Statement by statement, each connection in rows of its own: writers wait for none other."""
    old, new = (
        f"SELECT *, {by} AS n FROM ({_selected(table, rows)}) AS {rows}"
        for rows, by in (("old_rows", -1), ("new_rows", 1))
    )

    def add(rows: str) -> str:
        return (
            f"INSERT INTO tally AS kept ({_COLUMNS}) "
            f"SELECT '{table}', destination, state, promise, pg_backend_pid(), sum(n) "
            f"FROM ({rows}) AS changed "
            "GROUP BY destination, state, promise HAVING sum(n) <> 0 "
            f"ON CONFLICT ({_KEY}) DO UPDATE SET number = kept.number + excluded.number;"
        )

    op.execute(
        f"CREATE FUNCTION tally_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF TG_OP = 'INSERT' THEN {add(new)} "
        f"ELSIF TG_OP = 'DELETE' THEN {add(old)} "
        f"ELSE {add(f'{old} UNION ALL {new}')} END IF; "
        "RETURN NULL; END $$"
    )
    for name, tables in (
        ("insert", "NEW TABLE AS new_rows"),
        ("update", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
        ("delete", "OLD TABLE AS old_rows"),
    ):
        op.execute(
            f"CREATE TRIGGER tally_{table}_{name} AFTER {name.upper()} ON {table} "
            f"REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION tally_{table}()"
        )
