"""What comes in: instances into studies, and when a study is complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import cast

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
from storage.database import Database
from storage.states import EventKind, FileState, RecordingKind, RecordingState, StudyState
from storage.tables import Instance, Recording, Study

# Each object that arrives asks these while its sender waits: without the mapping to classes they
# take a quarter of the time.
_INSTANCE, _STUDY, _RECORDING = (
    cast(Table, each.__table__) for each in (Instance, Study, Recording)
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
_FIND_STUDY = select(_STUDY).where(_STUDY.c.study_instance_uid == bindparam("uid"))
_NOTE_IMAGE = (
    update(_STUDY).where(_STUDY.c.id == bindparam("study")).values(last_image_at=bindparam("at"))
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
    return _add_next(session, new) or _add(session, new)


def _add_next(session: Session, new: NewInstance) -> InstanceRecord | None:
    """One more object of a study that is being received; None where there is more to it."""
    if len(session.identity_map) or session.new:
        return None  # what is loaded would not be told
    connection = session.connection()
    study = connection.execute(_FIND_STUDY, {"uid": new.study_instance_uid}).first()
    if (
        study is None
        or new.own
        or study.state is not StudyState.RECEIVING
        or new.urgency > study.urgency
        or (study.study_date is None and new.study_date is not None)
        or (study.accession_number is None and new.accession_number is not None)
        or (study.description is None and new.description is not None)
    ):
        return None
    values = {name: getattr(new, name) for name in _NEW_COLUMNS}
    values |= {"study_id": study.id, "revision": study.revision}
    added = connection.execute(insert(_INSTANCE), values).inserted_primary_key
    instance_id = int(cast(Sequence[int], added)[0])
    recording_id = None
    if new.recording_kind is not None:
        recording = {
            "instance_id": instance_id,
            "study_id": study.id,
            "kind": RecordingKind(new.recording_kind),
            "state": RecordingState.RECEIVED,
            "urgency": study.urgency,
        }
        recorded = connection.execute(insert(_RECORDING), recording).inserted_primary_key
        recording_id = int(cast(Sequence[int], recorded)[0])
    if new.received_at > study.last_image_at:
        connection.execute(_NOTE_IMAGE, {"study": study.id, "at": new.received_at})
    return InstanceRecord(
        **values,
        id=instance_id,
        study_instance_uid=new.study_instance_uid,
        recording_id=recording_id,
        file_state=FileState.KEPT,
    )


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
    session.execute(
        update(Study)
        .where(Study.study_instance_uid.in_(tuple(study_instance_uids)))
        .values(last_released_at=at or utc_now())
    )


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
        move_recording(recording, RecordingState.TO_VIEW, at=now)
        recording.queued_at = now
    session.flush()
    return StudyState.ANALYSING


def _open_study(session: Session, new: NewInstance) -> Study:
    study = Study(
        study_instance_uid=new.study_instance_uid,
        state=StudyState.RECEIVING,
        reason=f"first object by {new.door} from {new.calling_ae or new.peer_host or 'here'}",
        revision=1,
        urgency=new.urgency,
        first_image_at=new.received_at,
        revision_opened_at=new.received_at,
        last_image_at=new.received_at,
        state_since=new.received_at,
        study_date=new.study_date,
        accession_number=new.accession_number,
        description=new.description,
    )
    session.add(study)
    session.flush()
    add_event(session, study.id, EventKind.STUDY_OPENED, study.reason, at=new.received_at)
    if new.urgency_reason:
        _say_urgency(session, study, new)
    return study


def _say_urgency(session: Session, study: Study, new: NewInstance) -> None:
    add_event(
        session,
        study.id,
        EventKind.URGENCY_SET,
        new.urgency_reason,
        at=new.received_at,
        details={"urgency": new.urgency, "sop_instance_uid": new.sop_instance_uid},
    )


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
