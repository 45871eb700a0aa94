"""What is here of a study that an archive has, and how much waits: for those who fetch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from storage.states import FileState, RecordingState, StudyState
from storage.tables import Instance, QuarantinedObject, Recording, Result, Study

_WAITING = (RecordingState.RECEIVED, RecordingState.TO_VIEW, RecordingState.QUEUED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectHere:
    """An object that was received."""

    series_instance_uid: str
    file_state: FileState
    size_bytes: int
    own: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyHere:
    """What is known of a study, by SOP instance UID."""

    received: Mapping[str, ObjectHere]
    made: frozenset[str]  #: results
    made_series: frozenset[str]
    quarantined: frozenset[str]


def study_here(session: Session, study_instance_uid: str) -> StudyHere:
    """What was received of a study and made for it; nothing where it is not known."""
    received = session.execute(
        select(
            Instance.sop_instance_uid,
            Instance.series_instance_uid,
            Instance.file_state,
            Instance.size_bytes,
            Instance.own,
        )
        .join(Study, Study.id == Instance.study_id)
        .where(Study.study_instance_uid == study_instance_uid)
    ).all()
    made = session.execute(
        select(Result.sop_instance_uid, Result.series_instance_uid)
        .join(Study, Study.id == Result.study_id)
        .where(Study.study_instance_uid == study_instance_uid)
    ).all()
    quarantined = session.scalars(
        select(QuarantinedObject.sop_instance_uid).where(
            QuarantinedObject.study_instance_uid == study_instance_uid
        )
    )
    return StudyHere(
        received={
            row.sop_instance_uid: ObjectHere(
                series_instance_uid=row.series_instance_uid,
                file_state=row.file_state,
                size_bytes=row.size_bytes,
                own=row.own,
            )
            for row in received
        },
        made=frozenset(row.sop_instance_uid for row in made),
        made_series=frozenset(row.series_instance_uid for row in made),
        quarantined=frozenset(uid for uid in quarantined if uid),
    )


def more_to_come(session: Session, study_instance_uid: str, now: datetime) -> None:
    """Say that images of a study still come: its quiet time begins anew.

    Whoever fetches slowly says so in his pauses. The longest time from the first image stays.
    """
    session.execute(
        update(Study)
        .where(
            Study.study_instance_uid == study_instance_uid,
            Study.state == StudyState.RECEIVING,
            Study.last_image_at < now,
        )
        .values(last_image_at=now)
    )


def count_waiting(session: Session) -> int:
    """How many recordings wait for a worker, or for their study to be complete."""
    query = (
        select(func.count())
        .select_from(Recording)
        .join(Study, Study.id == Recording.study_id)
        .where(Recording.state.in_(_WAITING), Study.state != StudyState.HELD)
    )
    return session.scalar(query) or 0
