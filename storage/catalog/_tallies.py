"""How many rows are in which state, as the database itself counts them.

See :class:`storage.tables.Tally`. Counting the rows takes as long as there are rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, literal, select, text, union_all
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


def wrong_tallies(session: Session) -> Mapping[tuple[str, str, str, str], int]:
    """Where the counts differ from the rows, by table, destination, state and promise: by how many.

    One statement, so that both are of one moment. It goes through all rows.
    """
    kept = select(*_KEY, Tally.number.label("number"))
    number = func.sum(literal(-1)).label("number")
    both = union_all(kept, *(_counted(table, number) for table in _COUNTED)).subquery()
    columns = both.c
    key = (columns.what, columns.destination, columns.state, columns.promise)
    rows = session.execute(
        select(*key, func.sum(columns.number)).group_by(*key).having(func.sum(columns.number) != 0)
    )
    return {(what, to, state, promise): int(by) for what, to, state, promise, by in rows}


def recount(session: Session) -> None:
    """Count all rows anew. Within :meth:`storage.database.Database.write`."""
    if session.get_bind().dialect.name == "postgresql":
        tables = ", ".join(table.__tablename__ for table in _COUNTED)
        # Whoever changes a state waits; claims go on beside each other otherwise.
        session.execute(text(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"))
    session.execute(delete(Tally))
    names = ["what", "destination", "state", "promise", "writer", "number"]
    for table in _COUNTED:
        rows = _counted(table, literal(0).label("writer"), func.count().label("number"))
        session.execute(insert(Tally).from_select(names, rows))


_KEY = (Tally.what, Tally.destination, Tally.state, Tally.promise)
_COUNTED: tuple[type[Study] | type[Recording] | type[Delivery], ...] = (Study, Recording, Delivery)


def _counted(
    table: type[Study] | type[Recording] | type[Delivery], *more: ColumnElement[int]
) -> Select[*tuple[Any, ...]]:
    """The rows of a table by what they are counted by."""
    to: ColumnElement[str] = literal("")
    promise: ColumnElement[str] = literal("")
    if table is Delivery:
        to, promise = Delivery.destination.expression, func.coalesce(Delivery.promise, "")
    what = literal(table.__tablename__).label("what")
    key = (to.label("destination"), table.state.label("state"), promise.label("promise"))
    return select(what, *key, *more).group_by(*key)
