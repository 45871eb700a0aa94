"""Whether a database file is whole."""

from __future__ import annotations

from sqlalchemy import text

from storage.database import Database


def problems_of(database: Database) -> tuple[str, ...]:
    """What SQLite finds wrong with its own file, a line each; nothing on other databases."""
    if database.url.get_backend_name() != "sqlite":
        return ()
    with database.read() as session:
        pages = [str(row[0]) for row in session.execute(text("PRAGMA quick_check"))]
        strays = session.execute(text("PRAGMA foreign_key_check")).all()
    return (
        *(f"database: {line}" for line in pages if line != "ok"),
        *(f"database: a row of {stray[0]} points at nothing" for stray in strays),
    )
