"""How many rows are in which state, as the database itself counts them.

See :class:`storage.tables.Tally`. Counting the rows takes as long as there are rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.tables import Delivery, Recording, Study, Tally


def count_states(
    session: Session, table: type[Study] | type[Recording] | type[Delivery]
) -> Mapping[str, int]:
    """How many rows of a table are in each state that has any."""
    counts = session.execute(
        select(Tally.state, func.sum(Tally.number))
        .where(Tally.what == table.__tablename__)
        .group_by(Tally.state)
    )
    return {state: int(number) for state, number in counts if number}


def count_deliveries(session: Session) -> Mapping[tuple[str, str, str], int]:
    """How many deliveries there are by destination, state and promise ("": none)."""
    counts = session.execute(
        select(Tally.destination, Tally.state, Tally.promise, func.sum(Tally.number))
        .where(Tally.what == Delivery.__tablename__)
        .group_by(Tally.destination, Tally.state, Tally.promise)
    )
    return {(to, state, promise): int(number) for to, state, promise, number in counts if number}


def fold_tallies(session: Session) -> None:
    """Bring together what connections have counted, most of which are long gone.

    Rows in which one counts at this moment stay for the next time: nobody is waited for. Within
    :meth:`storage.database.Database.write`, so that one folds at a time.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    free = session.scalars(
        select(Tally).where(Tally.writer != 0).with_for_update(skip_locked=True)
    ).all()
    for row in free:
        key = (row.what, row.destination, row.state, row.promise, 0)
        whole = session.get(Tally, key)
        if whole is None:
            whole = Tally(what=key[0], destination=key[1], state=key[2], promise=key[3], writer=0)
            whole.number = 0
            session.add(whole)
        whole.number += row.number
        session.delete(row)
    session.flush()
