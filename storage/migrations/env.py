"""What Alembic runs: the revisions, on the connection that it is given.

``connection`` among the configuration's attributes is in a transaction already and is committed
by its owner, so that all revisions are applied or none.
"""

from __future__ import annotations

from alembic import context

from storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,  # true of SQLite too, since we begin the transactions ourselves
)
with context.begin_transaction():
    context.run_migrations()
