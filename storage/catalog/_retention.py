"""Which files may go, and how they go.

A file may go when its study is at its end and every destination has every result. The row is
marked and committed before the file is deleted, and says "removed" only after it: a crash between
the two leaves a mark that the next turn goes on with, and no row that lies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from storage.catalog._moves import add_event, counted, utc_now
from storage.states import DeliveryState, EventKind, FileState, StudyState
from storage.tables import (
    Delivery,
    Instance,
    PromiseRequestItem,
    QuarantinedObject,
    Result,
    Study,
    TimelineEvent,
)

#: The states of a study in which nothing more happens by itself, and nothing is wrong.
_ENDS = (StudyState.DONE, StudyState.IGNORED)
_HAS_IT = (DeliveryState.DELIVERED, DeliveryState.REPLACED)


class Keeping(StrEnum):
    """What is kept, as retention speaks of it."""

    SOURCES = "sources"  #: what was received
    RESULTS = "results"  #: what the node made
    QUARANTINE = "quarantine"  #: what could not be taken


class Stays(StrEnum):
    """Why a file stays."""

    NOT_AT_ITS_END = "not-at-its-end"  #: its study still has a way to go, is held, or failed
    NOT_DELIVERED = "not-delivered"  #: a destination does not have a result of its study
    NO_DESTINATION = "no-destination"  #: a result of its study was never to go anywhere
    PROMISED = "promised"  #: a machine was promised that it is kept
    YOUNG = "young"  #: it may go, but not yet


@dataclass(frozen=True, kw_only=True, slots=True)
class OldEnough:
    """From when on something may go: what came before, and what came before though promised."""

    before: datetime
    promised_before: datetime | None = None  #: None: what was promised never goes


@dataclass(frozen=True, kw_only=True, slots=True)
class Removable:
    """A file that may go."""

    row_id: int
    study_id: int | None
    size_bytes: int
    came_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Staying:
    """How much stays for a reason; ``state`` is the studies' where that is the reason."""

    reason: Stays
    state: StudyState | None
    files: int
    size_bytes: int
    studies: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkedFile:
    """A file that was given up and is to be deleted now."""

    keeping: Keeping
    row_id: int
    file_key: str | None
    shared: bool  #: another row needs the same file


def removable(session: Session, keeping: Keeping, old: OldEnough) -> Iterator[Removable]:
    """List what may go, the oldest first."""
    if keeping is Keeping.QUARANTINE:
        old_ones = (
            select(
                QuarantinedObject.id,
                QuarantinedObject.size_bytes,
                QuarantinedObject.received_at,
            )
            .where(
                QuarantinedObject.file_state == FileState.KEPT,
                QuarantinedObject.received_at < old.before,
            )
            .order_by(QuarantinedObject.received_at, QuarantinedObject.id)
        )
        for row_id, size, at in session.execute(old_ones):
            yield Removable(row_id=row_id, study_id=None, size_bytes=size, came_at=at)
        return
    table, came_at = _table(keeping)
    found = (
        select(table.id, table.study_id, table.size_bytes, came_at)
        .join(Study, Study.id == table.study_id)
        .where(table.file_state == FileState.KEPT, _may_go(keeping, old))
        .order_by(came_at, table.id)
        .execution_options(yield_per=500)
    )
    for row_id, study_id, size, at in session.execute(found):
        yield Removable(row_id=row_id, study_id=study_id, size_bytes=size, came_at=at)


def staying(session: Session, keeping: Keeping, old: OldEnough) -> tuple[Staying, ...]:
    """Say why the rest stays, sources or results."""
    table, _ = _table(keeping)
    reason = case(
        (Study.state.not_in(_ENDS), Stays.NOT_AT_ITS_END.value),
        (_not_delivered(), Stays.NOT_DELIVERED.value),
        (_without_destination(), Stays.NO_DESTINATION.value),
        (and_(_old(keeping, old.before), _promised(keeping)), Stays.PROMISED.value),
        else_=Stays.YOUNG.value,
    )
    rows = session.execute(
        select(
            reason,
            case((Study.state.not_in(_ENDS), Study.state), else_=None),
            func.count(),
            func.sum(table.size_bytes),
            func.count(table.study_id.distinct()),
        )
        .select_from(table)
        .join(Study, Study.id == table.study_id)
        .where(table.file_state == FileState.KEPT, ~_may_go(keeping, old))
        .group_by(reason, case((Study.state.not_in(_ENDS), Study.state), else_=None))
    )
    return tuple(
        Staying(
            reason=Stays(why),
            state=None if state is None else StudyState(state),
            files=files,
            size_bytes=size,
            studies=studies,
        )
        for why, state, files, size, studies in rows
    )


def study_uids(session: Session, study_ids: Collection[int]) -> tuple[str, ...]:
    """The UIDs of studies."""
    return tuple(
        session.scalars(
            select(Study.study_instance_uid).where(Study.id.in_(study_ids)).order_by(Study.id)
        )
    )


def kept_bytes(session: Session) -> int:
    """How much all files take that are there."""
    return sum(
        session.scalar(select(func.sum(table.size_bytes)).where(table.file_state == FileState.KEPT))
        or 0
        for table in (Instance, Result, QuarantinedObject)
    )


def mark_removing(
    session: Session,
    keeping: Keeping,
    chosen: Sequence[Removable],
    why: str,
    *,
    now: datetime | None = None,
) -> None:
    """Give files up, and say so in their studies' timelines. To be deleted after the commit.

    Choose them in the same transaction: what was removable a moment ago may be so no more.
    """
    now = now or utc_now()
    table = QuarantinedObject if keeping is Keeping.QUARANTINE else _table(keeping)[0]
    session.execute(
        update(table)
        .where(table.id.in_([item.row_id for item in chosen]))
        .values(file_state=FileState.REMOVING, file_since=now)
        .execution_options(synchronize_session=False)
    )
    by_study: dict[int, list[Removable]] = {}
    for item in chosen:
        if item.study_id is not None:
            by_study.setdefault(item.study_id, []).append(item)
    what = "received object" if keeping is Keeping.SOURCES else "result"
    for study_id, items in by_study.items():
        size = sum(item.size_bytes for item in items)
        add_event(
            session,
            study_id,
            EventKind.FILES_REMOVED,
            f"retention gave up the files of {counted(len(items), what, f'{what}s')} "
            f"({size / 1e6:.1f} MB): {why}",
            at=now,
            details={"files": len(items), "bytes": size, "what": keeping.value},
        )
    session.flush()


def marked_files(session: Session, limit: int = 10) -> tuple[MarkedFile, ...]:
    """List files that were given up and are still to be deleted: in the same transaction.

    What came again meanwhile is marked no more.
    """
    marked: list[MarkedFile] = []
    for keeping, table in (
        (Keeping.SOURCES, Instance),
        (Keeping.RESULTS, Result),
        (Keeping.QUARANTINE, QuarantinedObject),
    ):
        rows = session.execute(
            select(table.id, table.file_key)
            .where(table.file_state == FileState.REMOVING)
            .order_by(table.id)
            .limit(limit - len(marked))
        ).all()
        marked += [
            MarkedFile(
                keeping=keeping,
                row_id=row_id,
                file_key=key,
                shared=keeping is Keeping.QUARANTINE and _is_shared(session, row_id, key),
            )
            for row_id, key in rows
        ]
        if len(marked) >= limit:
            break
    return tuple(marked)


def note_removed(
    session: Session, files: Sequence[MarkedFile], *, now: datetime | None = None
) -> None:
    """Say that files are gone. Of what was in quarantine nothing stays."""
    now = now or utc_now()
    for keeping in Keeping:
        ids = [item.row_id for item in files if item.keeping is keeping]
        if not ids:
            continue
        if keeping is Keeping.QUARANTINE:
            session.execute(
                delete(QuarantinedObject)
                .where(QuarantinedObject.id.in_(ids))
                .execution_options(synchronize_session=False)
            )
        else:
            table, _ = _table(keeping)
            session.execute(
                update(table)
                .where(table.id.in_(ids))
                .values(file_state=FileState.REMOVED, file_since=now)
                .execution_options(synchronize_session=False)
            )
    session.flush()


def _table(keeping: Keeping) -> tuple[type[Instance] | type[Result], Any]:
    if keeping is Keeping.SOURCES:
        return Instance, Instance.received_at
    return Result, Result.created_at


def _may_go(keeping: Keeping, old: OldEnough) -> ColumnElement[bool]:
    promised = _promised(keeping)
    unpromised = ~promised
    if old.promised_before is not None:
        unpromised = or_(unpromised, _old(keeping, old.promised_before))
    return and_(
        Study.state.in_(_ENDS),
        _old(keeping, old.before),
        ~_not_delivered(),
        ~_without_destination(),
        unpromised,
    )


def _old(keeping: Keeping, before: datetime) -> ColumnElement[bool]:
    # A study goes as a whole: an image that came late keeps the early ones, too.
    return and_(_table(keeping)[1] < before, Study.last_image_at < before)


def _not_delivered() -> ColumnElement[bool]:
    result = aliased(Result)
    return exists(
        select(Delivery.id)
        .join(result, Delivery.result_id == result.id)
        .where(
            result.study_id == Study.id,
            result.file_state != FileState.LOST,
            Delivery.state.not_in(_HAS_IT),
        )
        .correlate(Study)
    )


def _without_destination() -> ColumnElement[bool]:
    result = aliased(Result)
    return exists(
        select(result.id)
        .where(
            result.study_id == Study.id,
            result.current.is_(True),
            result.file_state == FileState.KEPT,
            ~exists(select(Delivery.id).where(Delivery.result_id == result.id)),
        )
        .correlate(Study)
    )


def _promised(keeping: Keeping) -> ColumnElement[bool]:
    given = exists(
        select(TimelineEvent.id)
        .where(
            TimelineEvent.study_id == Study.id,
            TimelineEvent.kind == EventKind.PROMISE_GIVEN.value,
        )
        .correlate(Study)
    )
    if keeping is Keeping.RESULTS:
        return false()  # machines are promised what they sent, not what we made
    # A promise may be on the wire, and not yet in the timeline.
    asked = Instance.sop_instance_uid.in_(select(PromiseRequestItem.sop_instance_uid))
    return or_(given, asked)


def _is_shared(session: Session, row_id: int, key: str | None) -> bool:
    query = select(QuarantinedObject.id).where(
        QuarantinedObject.file_key == key, QuarantinedObject.id != row_id
    )
    return session.scalar(query.limit(1)) is not None
