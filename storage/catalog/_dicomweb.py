"""What is kept, as DICOMweb lists it: objects received and results made, those whose file is there.

A result that stands for another one at some destinations is not listed, and found by its UID.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from storage.states import FileState
from storage.tables import Instance, Result, Study


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldObject:
    """An object whose file is there."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file_key: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldStudy:
    """A study with at least one object whose file is there, and the file of one of them."""

    study_instance_uid: str
    file_key: str


def held_objects(
    session: Session,
    *,
    studies: Collection[str] | None = None,
    series: Collection[str] | None = None,
    instances: Collection[str] | None = None,
) -> tuple[HeldObject, ...]:
    """The objects of these studies, series and instances, in order of arrival, results last.

    At least one of the three must be named.
    """
    if studies is None and series is None and instances is None:
        raise ValueError("name studies, series or instances: all that is kept is too much")
    found: dict[str, HeldObject] = {}
    for table in (Instance, Result):
        query = (
            select(
                Study.study_instance_uid,
                table.series_instance_uid,
                table.sop_instance_uid,
                table.sop_class_uid,
                table.transfer_syntax_uid,
                table.file_key,
                table.size_bytes,
            )
            .join(Study, Study.id == table.study_id)
            .where(table.file_state == FileState.KEPT)
            .order_by(table.id)
        )
        if studies is not None:
            query = query.where(Study.study_instance_uid.in_(tuple(studies)))
        if series is not None:
            query = query.where(table.series_instance_uid.in_(tuple(series)))
        if instances is not None:
            query = query.where(table.sop_instance_uid.in_(tuple(instances)))
        elif table is Result:
            query = query.where(Result.stands_for.is_(None))
        for row in session.execute(query):
            # A result that came back through a door is the same object.
            found.setdefault(row.sop_instance_uid, HeldObject(**row._mapping))
    return tuple(found.values())


def was_held(
    session: Session, *, study: str, series: str | None = None, instance: str | None = None
) -> bool:
    """Whether there are rows of such objects, with files or without."""
    for table in (Instance, Result):
        query = (
            select(table.id)
            .join(Study, Study.id == table.study_id)
            .where(Study.study_instance_uid == study)
        )
        if series is not None:
            query = query.where(table.series_instance_uid == series)
        if instance is not None:
            query = query.where(table.sop_instance_uid == instance)
        if session.scalar(query.limit(1)) is not None:
            return True
    return False


def held_studies(
    session: Session,
    *,
    studies: Collection[str] | None = None,
    series: Collection[str] | None = None,
    instances: Collection[str] | None = None,
    first_date: date | None = None,
    last_date: date | None = None,
    accession_number: str | None = None,
) -> tuple[str, ...]:
    """The studies that these conditions do not rule out, the newest first.

    Those with no date, or none that could be read, are ruled out by any date.
    """
    query = select(Study.study_instance_uid).order_by(Study.id.desc())
    if studies is not None:
        query = query.where(Study.study_instance_uid.in_(tuple(studies)))
    if first_date is not None:
        query = query.where(Study.study_date >= first_date)
    if last_date is not None:
        query = query.where(Study.study_date <= last_date)
    if accession_number is not None:
        query = query.where(Study.accession_number == accession_number)
    if series is not None:
        query = query.where(_has("series_instance_uid", series))
    if instances is not None:
        query = query.where(_has("sop_instance_uid", instances))
    return tuple(session.scalars(query))


def first_files(session: Session, studies: Collection[str]) -> tuple[HeldStudy, ...]:
    """One file of each of these studies, the first that came; studies without any are left out."""
    keys: dict[str, str] = {}
    tables: tuple[type[Instance | Result], ...] = (Instance, Result)
    for table in tables:
        # Study by study: asked for all at once, SQLite goes through every object that is kept.
        of_it = aliased(table)
        first = select(of_it.id).where(
            of_it.study_id == Study.id, of_it.file_state == FileState.KEPT
        )
        if table is Result:
            first = first.where(of_it.stands_for.is_(None))  # type: ignore[union-attr]  # Result's
        first = first.order_by(of_it.id).limit(1).correlate(Study)
        query = (
            select(Study.study_instance_uid, table.file_key)
            .join(table, table.id == first.scalar_subquery())
            .where(Study.study_instance_uid.in_(tuple(studies)))
        )
        for uid, key in session.execute(query):
            keys.setdefault(uid, key)
    return tuple(
        HeldStudy(study_instance_uid=uid, file_key=keys[uid]) for uid in studies if uid in keys
    )


def _has(column: str, values: Collection[str]) -> ColumnElement[bool]:
    received, made = (
        select(table.study_id).where(getattr(table, column).in_(tuple(values)))
        for table in (Instance, Result)
    )
    return Study.id.in_(received) | Study.id.in_(made)
