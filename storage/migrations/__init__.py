"""The history of the tables, for Alembic. :func:`storage.database.migrate` runs it."""
