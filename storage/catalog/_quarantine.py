"""Objects that could not be taken, and those of our own that must not be sent."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.catalog._moves import CatalogError, add_event, study_by_uid
from storage.catalog._records import NewQuarantined, QuarantinedRecord
from storage.states import EventKind
from storage.tables import QuarantinedObject


def add_quarantined(session: Session, new: NewQuarantined) -> QuarantinedRecord:
    """Keep what is known of an object that could not be taken."""
    row = QuarantinedObject(
        received_at=new.received_at,
        reason=new.reason,
        status_sent=new.status_sent,
        sop_class_uid=new.sop_class_uid,
        sop_instance_uid=new.sop_instance_uid,
        study_instance_uid=new.study_instance_uid,
        calling_ae=new.calling_ae,
        peer_host=new.peer_host,
        file_key=new.file_key,
        size_bytes=new.size_bytes,
        sha256=new.sha256,
    )
    session.add(row)
    session.flush()
    return _record(row)


def quarantine_result(session: Session, new: NewQuarantined) -> QuarantinedRecord:
    """Keep an object that the node made and must not send, and say so in its study's timeline.

    Raises
    ------
    CatalogError
        If the study is not here.
    """
    study = study_by_uid(session, new.study_instance_uid)
    record = add_quarantined(session, new)
    add_event(
        session,
        study.id,
        EventKind.RESULT_QUARANTINED,
        f"{new.reason}; `echonode quarantine show {record.id}`",
        at=new.received_at,
        details={"quarantine": record.id, "sop_instance_uid": new.sop_instance_uid},
    )
    session.flush()
    return record


def list_quarantined(
    session: Session, limit: int = 50, offset: int = 0
) -> tuple[QuarantinedRecord, ...]:
    """List what is in quarantine, the newest first, without the first ``offset``."""
    rows = session.scalars(
        select(QuarantinedObject)
        .order_by(QuarantinedObject.received_at.desc(), QuarantinedObject.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return tuple(_record(row) for row in rows)


def get_quarantined(session: Session, quarantined_id: int) -> QuarantinedRecord:
    """Return one; raise :class:`CatalogError` where there is none of this number."""
    return _record(_row(session, quarantined_id))


def remove_quarantined(session: Session, quarantined_id: int) -> QuarantinedRecord:
    """Forget one and return what it was: its file is the caller's to delete, after the commit.

    Where another has the same bytes, and so the same file, the record names none.
    """
    row = _row(session, quarantined_id)
    record = _record(row)
    session.delete(row)
    session.flush()
    shared = session.scalar(
        select(QuarantinedObject.id).where(QuarantinedObject.file_key == record.file_key).limit(1)
    )
    return record if shared is None else replace(record, file_key=None)


def is_quarantined(session: Session, file_key: str, reason: str) -> bool:
    """Whether a file is in quarantine for this reason."""
    return (
        session.scalar(
            select(QuarantinedObject.id)
            .where(QuarantinedObject.file_key == file_key, QuarantinedObject.reason == reason)
            .limit(1)
        )
        is not None
    )


def mend_quarantined(
    session: Session, quarantined_id: int, why: str, *, size_bytes: int | None, sha256: str = ""
) -> None:
    """Say that an object's file is gone (``size_bytes`` None), or is not as it came."""
    row = _row(session, quarantined_id)
    row.reason = f"{row.reason}; its file {why}"
    if size_bytes is None:
        row.file_key = None
    else:
        row.size_bytes, row.sha256 = size_bytes, sha256
    session.flush()


def _row(session: Session, quarantined_id: int) -> QuarantinedObject:
    row = session.get(QuarantinedObject, quarantined_id)
    if row is None:
        raise CatalogError(
            f"no object {quarantined_id} in quarantine; `echonode quarantine` lists those that are"
        )
    return row


def _record(row: QuarantinedObject) -> QuarantinedRecord:
    return QuarantinedRecord(
        id=row.id,
        received_at=row.received_at,
        reason=row.reason,
        status_sent=row.status_sent,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        study_instance_uid=row.study_instance_uid,
        calling_ae=row.calling_ae,
        peer_host=row.peer_host,
        file_key=row.file_key,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
    )
