"""Who holds a claim: what every claim and every word of its outcome is checked by.

A node joins under its name and gets a *holder*: the name and a word drawn for this very start
(:func:`storage.catalog.join`). What it claims bears the holder, and only who bears it may say what
came of that. A holder is void when no row of a node knows it: the node has stopped, has started
anew, or was taken over by another after a silence as long as its lease.

The empty holder is that of a caller who never joined: nobody else can have it.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from storage.catalog._moves import CatalogError
from storage.tables import NodeProcess


class ClaimLostError(CatalogError):
    """What was claimed is not the caller's any more: another goes on with it. Drop the outcome."""


def is_void(holder: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
    """Whether what bears this holder is claimed by nobody who lives."""
    living = select(NodeProcess.holder).where(
        NodeProcess.holder.is_not(None), NodeProcess.taken_over_at.is_(None)
    )
    return or_(holder.is_(None), holder.not_in(living))


def check_lives(session: Session, holder: str) -> None:
    """Before a claim: see that the holder was not taken over, and keep it from being so meanwhile.

    Whoever takes a node over changes its row first: it waits for this claim and then sees it, or
    this claim waits for it and is refused.

    Raises
    ------
    ClaimLostError
        If the holder is void.
    """
    if not holder:
        return
    living = (
        select(NodeProcess.id)
        .where(NodeProcess.holder == holder, NodeProcess.taken_over_at.is_(None))
        .with_for_update(read=True)
    )
    if session.scalar(living) is None:
        raise ClaimLostError(f"{holder} was taken over by another node and can claim nothing")


def check_holds(held_by: str | None, holder: str, what: str) -> None:
    """Before an outcome is written down: see that it is the holder's to say.

    Raises
    ------
    ClaimLostError
        If another goes on with it.
    """
    if (held_by or "") != holder:
        raise ClaimLostError(
            f"{what} is not {holder or 'the caller'}'s any more; "
            f"{held_by or 'whoever is next'} goes on with it"
        )


def shown(holder: str | None) -> str:
    """The name of the node that a holder belongs to."""
    return (holder or "").rpartition("/")[0]
