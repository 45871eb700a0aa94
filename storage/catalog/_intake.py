"""What comes in: instances into studies, and when a study is complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, bindparam, exists, insert, select, update
from sqlalchemy.orm import Session

from storage.catalog._moves import (
    InstanceExistsError,
    add_event,
    move_recording,
    move_study,
    state_beneath,
    study_by_id,
    utc_now,
)
from storage.catalog._records import CompletableStudy, InstanceRecord, NewInstance
from storage.catalog._rows import instance_record
from storage.database import Database, Rows
from storage.states import EventKind, FileState, RecordingKind, RecordingState, StudyState
from storage.tables import Instance, Recording, Study, TimelineEvent

# Each object that arrives asks these while its sender waits: without the mapping to classes they
# take a quarter of the time.
_INSTANCE, _STUDY, _RECORDING, _EVENT = (
    cast(Table, each.__table__) for each in (Instance, Study, Recording, TimelineEvent)
)
_FIND = (
    select(
        _INSTANCE,
        _STUDY.c.study_instance_uid,
        _RECORDING.c.id.label("recording_id"),
    )
    .select_from(
        _INSTANCE.join(_STUDY, _INSTANCE.c.study_id == _STUDY.c.id).outerjoin(
            _RECORDING, _RECORDING.c.instance_id == _INSTANCE.c.id
        )
    )
    .where(_INSTANCE.c.sop_instance_uid == bindparam("uid"))
)
_KNOWN = select(_INSTANCE.c.id).where(_INSTANCE.c.sop_instance_uid == bindparam("uid"))
_FIND_STUDY = select(
    _STUDY.c.id,
    _STUDY.c.state,
    _STUDY.c.revision,
    _STUDY.c.urgency,
    _STUDY.c.study_date.is_(None),
    _STUDY.c.accession_number.is_(None),
    _STUDY.c.description.is_(None),
).where(_STUDY.c.study_instance_uid == bindparam("uid"))
_ADD_STUDY = insert(_STUDY).returning(_STUDY.c.id)
_ADD_EVENT = insert(_EVENT)
_ADD_INSTANCE = insert(_INSTANCE).returning(_INSTANCE.c.id)
_ADD_RECORDING = insert(_RECORDING)
_LATER = bindparam("at", type_=_STUDY.c.last_image_at.type)
_NOTE_IMAGE = (
    update(_STUDY)
    .where(_STUDY.c.id == bindparam("study"), _STUDY.c.last_image_at < _LATER)
    .values(last_image_at=_LATER)
)
_NOTE_RELEASED = (
    update(_STUDY)
    .where(_STUDY.c.study_instance_uid == bindparam("uid"))
    .values(last_released_at=_LATER)
)
_RECORD_FIELDS = tuple(field.name for field in fields(InstanceRecord))
_NEW_COLUMNS = tuple(
    field.name for field in fields(NewInstance) if field.name in _INSTANCE.c and field.name != "id"
)


def is_known(database: Database, sop_instance_uid: str) -> bool:
    """Whether there is a row of an object with this SOP instance UID, quickly."""
    return database.first(_KNOWN, uid=sop_instance_uid) is not None


def find_instance(session: Session, sop_instance_uid: str) -> InstanceRecord | None:
    """Return what is kept under this SOP instance UID, or None."""
    session.flush()
    row = session.connection().execute(_FIND, {"uid": sop_instance_uid}).first()
    if row is None:
        return None
    return InstanceRecord(**{name: getattr(row, name) for name in _RECORD_FIELDS})


def add_instance(session: Session, new: NewInstance, *, looked: bool = False) -> InstanceRecord:
    """Take an object in: its row, its study where it is the first, its recording if it has one.

    A recording that comes after its study was complete opens the study's next revision, which is
    received, analysed and reported like the first; a held study does so when it is released.
    Objects without a recording, and the node's own, change nothing in a study that is there.

    Parameters
    ----------
    looked
        This transaction has asked :func:`find_instance` and knows that the object is new.

    Raises
    ------
    InstanceExistsError
        If an object with this SOP instance UID is kept already.
    """
    existing = None if looked else find_instance(session, new.sop_instance_uid)
    if existing:
        raise InstanceExistsError(existing)
    return _add(session, new)


def add_plain(rows: Rows, new: NewInstance) -> bool:
    """Take in an object as nearly all are: the first of a study, or one more while it is received.

    False where there is more to it, and then nothing is changed: :func:`add_instance` knows what.
    """
    if new.own or rows.first(_KNOWN, uid=new.sop_instance_uid) is not None:
        return False
    study = rows.first(_FIND_STUDY, uid=new.study_instance_uid)
    if study is None:
        study = _open_plainly(rows, new)
    study_id, state, revision, urgency, no_date, no_accession_number, no_description = study
    if (
        state != StudyState.RECEIVING.value
        or new.urgency > urgency
        or (no_date and new.study_date is not None)
        or (no_accession_number and new.accession_number is not None)
        or (no_description and new.description is not None)
    ):
        return False
    values = {name: getattr(new, name) for name in _NEW_COLUMNS}
    added = rows.first(
        _ADD_INSTANCE,
        **values,
        study_id=study_id,
        revision=revision,
        file_state=FileState.KEPT,
    )
    if new.recording_kind is not None:
        rows.do(
            _ADD_RECORDING,
            instance_id=cast(tuple[int], added)[0],
            study_id=study_id,
            kind=RecordingKind(new.recording_kind),
            state=RecordingState.RECEIVED,
            reason="",
            attempts=0,
            urgency=urgency,
        )
    rows.do(_NOTE_IMAGE, study=study_id, at=new.received_at)
    return True


def _add(session: Session, new: NewInstance) -> InstanceRecord:
    study = session.scalar(select(Study).where(Study.study_instance_uid == new.study_instance_uid))
    if study is None:
        study = _open_study(session, new)
    elif not new.own:
        _receive_into(session, study, new)
    instance = Instance(
        study=study,
        series_instance_uid=new.series_instance_uid,
        sop_instance_uid=new.sop_instance_uid,
        sop_class_uid=new.sop_class_uid,
        transfer_syntax_uid=new.transfer_syntax_uid,
        content_sha256=new.content_sha256,
        size_bytes=new.size_bytes,
        file_key=new.file_key,
        calling_ae=new.calling_ae,
        called_ae=new.called_ae,
        peer_host=new.peer_host,
        door=new.door,
        received_at=new.received_at,
        own=new.own,
        revision=study.revision,
    )
    session.add(instance)
    if new.recording_kind is not None and not new.own:
        instance.recording = Recording(
            study=study,
            kind=RecordingKind(new.recording_kind),
            state=RecordingState.RECEIVED,
            urgency=study.urgency,
        )
    session.flush()
    return instance_record(instance)


def note_released(
    session: Session, study_instance_uids: Iterable[str], at: datetime | None = None
) -> None:
    """Remember that an association which carried these studies was released."""
    at = at or utc_now()
    for uid in study_instance_uids:
        session.connection().execute(_NOTE_RELEASED, {"uid": uid, "at": at})


def note_release(rows: Rows, study_instance_uids: Iterable[str], at: datetime) -> None:
    """The same beside others that write at this moment."""
    for uid in study_instance_uids:
        rows.do(_NOTE_RELEASED, uid=uid, at=at)


def studies_to_complete(
    session: Session,
    now: datetime,
    quiet_s: float,
    released_quiet_s: float,
    max_age_s: float,
) -> tuple[CompletableStudy, ...]:
    """List the studies that are to be taken as complete, each with the reason in words.

    A study is complete when its last image is older than ``quiet_s``; or when its association
    was released after the last image and ``released_quiet_s`` have passed since; or when the
    first image of its revision is older than ``max_age_s``.
    """
    complete = []
    for study in session.scalars(
        select(Study)
        .where(Study.state == StudyState.RECEIVING)
        .order_by(Study.urgency.desc(), Study.last_image_at)
    ):
        reason = _why_complete(
            study,
            now=now,
            quiet=timedelta(seconds=quiet_s),
            released_quiet=timedelta(seconds=released_quiet_s),
            max_age=timedelta(seconds=max_age_s),
        )
        if reason:
            complete.append(
                CompletableStudy(
                    study_id=study.id,
                    study_instance_uid=study.study_instance_uid,
                    revision=study.revision,
                    reason=reason,
                )
            )
    return tuple(complete)


def begin_analysis(
    session: Session, study_id: int, reason: str, *, now: datetime | None = None
) -> StudyState:
    """Take a study as complete: its new recordings wait for a worker from now on.

    Returns the study's state: ANALYSING, or IGNORED where it holds no recording at all.

    Raises
    ------
    CatalogError
        If the study is unknown or not receiving.
    """
    now = now or utc_now()
    study = study_by_id(session, study_id)
    if not session.scalar(select(exists().where(Recording.study_id == study_id))):
        reason = f"{reason}; no object in it that a model could look at"
        move_study(
            session, study, StudyState.IGNORED, kind=EventKind.STUDY_IGNORED, reason=reason, at=now
        )
        return StudyState.IGNORED
    waiting = session.scalars(
        select(Recording).where(
            Recording.study_id == study_id, Recording.state == RecordingState.RECEIVED
        )
    ).all()
    move_study(
        session,
        study,
        StudyState.ANALYSING,
        kind=EventKind.STUDY_COMPLETE,
        reason=reason,
        at=now,
        details={"revision": study.revision, "recordings": len(waiting)},
    )
    for recording in waiting:
        waits = RecordingState.TO_VIEW if recording.kind.has_views else RecordingState.QUEUED
        move_recording(recording, waits, at=now)
        recording.queued_at = now
    session.flush()
    return StudyState.ANALYSING


def _open_study(session: Session, new: NewInstance) -> Study:
    study = Study(**_opened(new))
    session.add(study)
    session.flush()
    add_event(session, study.id, EventKind.STUDY_OPENED, study.reason, at=new.received_at)
    if new.urgency_reason:
        _say_urgency(session, study, new)
    return study


def _open_plainly(rows: Rows, new: NewInstance) -> tuple[Any, ...]:
    """The same without a session; gives what is asked of a study that is there."""
    values = _opened(new)
    others = dict.fromkeys(("next_step", "reason_before_hold", "next_step_before_hold"), "")
    study_id = cast(tuple[int], rows.first(_ADD_STUDY, **values, **others))[0]
    events: list[tuple[EventKind, str, dict[str, Any]]] = [
        (EventKind.STUDY_OPENED, values["reason"], {})
    ]
    if new.urgency_reason:
        events.append((EventKind.URGENCY_SET, new.urgency_reason, _urgency_details(new)))
    for kind, message, details in events:
        rows.do(
            _ADD_EVENT,
            study_id=study_id,
            at=new.received_at,
            kind=str(kind),
            message=message,
            details=details,
        )
    nothing_missing = (False, False, False)
    return study_id, StudyState.RECEIVING.value, 1, new.urgency, *nothing_missing


def _opened(new: NewInstance) -> dict[str, Any]:
    """A study as its first object makes it."""
    return {
        "study_instance_uid": new.study_instance_uid,
        "state": StudyState.RECEIVING,
        "reason": f"first object by {new.door} from {new.calling_ae or new.peer_host or 'here'}",
        "revision": 1,
        "urgency": new.urgency,
        "first_image_at": new.received_at,
        "revision_opened_at": new.received_at,
        "last_image_at": new.received_at,
        "state_since": new.received_at,
        "study_date": new.study_date,
        "accession_number": new.accession_number,
        "description": new.description,
    }


def _say_urgency(session: Session, study: Study, new: NewInstance) -> None:
    add_event(
        session,
        study.id,
        EventKind.URGENCY_SET,
        new.urgency_reason,
        at=new.received_at,
        details=_urgency_details(new),
    )


def _urgency_details(new: NewInstance) -> dict[str, Any]:
    return {"urgency": new.urgency, "sop_instance_uid": new.sop_instance_uid}


def _receive_into(session: Session, study: Study, new: NewInstance) -> None:
    if state_beneath(study) is not StudyState.RECEIVING:
        if new.recording_kind is None:
            add_event(
                session,
                study.id,
                EventKind.LATE_OBJECT,
                "an object came after completion; kept, nothing in it for a model",
                at=new.received_at,
                details={"sop_instance_uid": new.sop_instance_uid},
            )
            return
        study.revision += 1
        study.revision_opened_at = new.received_at
        move_study(
            session,
            study,
            StudyState.RECEIVING,
            kind=EventKind.REVISION_OPENED,
            reason=f"an image came after completion: revision {study.revision}",
            at=new.received_at,
            details={"revision": study.revision, "sop_instance_uid": new.sop_instance_uid},
        )
    study.last_image_at = max(study.last_image_at, new.received_at)
    study.study_date = study.study_date or new.study_date
    study.accession_number = study.accession_number or new.accession_number
    study.description = study.description or new.description
    if new.urgency > study.urgency:
        study.urgency = new.urgency
        session.execute(
            update(Recording).where(Recording.study_id == study.id).values(urgency=new.urgency)
        )
        if new.urgency_reason:
            _say_urgency(session, study, new)


def _why_complete(
    study: Study,
    *,
    now: datetime,
    quiet: timedelta,
    released_quiet: timedelta,
    max_age: timedelta,
) -> str | None:
    since_image = now - study.last_image_at
    released = study.last_released_at
    if (
        released is not None
        and released >= study.last_image_at
        and now - released >= released_quiet
    ):
        return (
            f"association released and no image for {(now - released).total_seconds():.0f} s since"
        )
    if since_image >= quiet:
        return f"no image for {since_image.total_seconds():.0f} s"
    age = now - study.revision_opened_at
    if age >= max_age:
        return f"first image came {age.total_seconds():.0f} s ago; no longer waited for more"
    return None
