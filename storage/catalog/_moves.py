"""How states change: by the tables of moves, and each with a line of the timeline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.catalog._records import InstanceRecord
from storage.states import RECORDING_MOVES, STUDY_MOVES, EventKind, RecordingState, StudyState
from storage.tables import Delivery, Recording, Study, TimelineEvent


class CatalogError(Exception):
    """What was asked cannot be done; the message is one line for an operator."""


class InstanceExistsError(CatalogError):
    """An object with this SOP instance UID is already kept: compare ``existing``'s digest."""

    def __init__(self, existing: InstanceRecord) -> None:
        super().__init__(f"instance {existing.sop_instance_uid} is already kept")
        self.existing = existing


class RevisionSupersededError(CatalogError):
    """Results came for a revision of a study that a later image has overtaken: drop them."""


def utc_now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def counted(number: int, one: str, more: str) -> str:
    """A number with its noun: "1 result", "2 results"."""
    return f"{number} {one if number == 1 else more}"


def study_by_id(session: Session, study_id: int) -> Study:
    """Return the row, or raise :class:`CatalogError`."""
    study = session.get(Study, study_id)
    if study is None:
        raise CatalogError(f"no study with row {study_id}")
    return study


def study_by_uid(session: Session, study_instance_uid: str) -> Study:
    """Return the row, or raise :class:`CatalogError`."""
    study = session.scalar(select(Study).where(Study.study_instance_uid == study_instance_uid))
    if study is None:
        raise CatalogError(
            f"no study {study_instance_uid} here; `echonode studies` lists those that are"
        )
    return study


def recording_by_id(session: Session, recording_id: int) -> Recording:
    """Return the row, or raise :class:`CatalogError`."""
    recording = session.get(Recording, recording_id)
    if recording is None:
        raise CatalogError(f"no recording with row {recording_id}")
    return recording


def delivery_by_id(session: Session, delivery_id: int) -> Delivery:
    """Return the row, or raise :class:`CatalogError`."""
    delivery = session.get(Delivery, delivery_id)
    if delivery is None:
        raise CatalogError(f"no delivery with row {delivery_id}")
    return delivery


def add_event(
    session: Session,
    study_id: int,
    kind: str,
    message: str,
    *,
    at: datetime | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add a line to a study's timeline. ``details`` must fit into JSON."""
    session.add(
        TimelineEvent(
            study_id=study_id,
            at=at or utc_now(),
            kind=str(kind),
            message=message,
            details=dict(details or {}),
        )
    )


def state_beneath(study: Study) -> StudyState:
    """Where the study is, or would be if it were not held."""
    return study.state_before_hold or study.state


def move_study(
    session: Session,
    study: Study,
    state: StudyState,
    *,
    kind: EventKind,
    reason: str,
    next_step: str = "",
    at: datetime | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Change a study's state and say so in its timeline.

    A held study stays held; what changes is the state that it returns to.

    Raises
    ------
    CatalogError
        If :data:`storage.states.STUDY_MOVES` does not know the move.
    """
    now = at or utc_now()
    before = state_beneath(study)
    if state not in STUDY_MOVES[before]:
        raise CatalogError(
            f"study {study.study_instance_uid} is {before}, which {state} cannot follow"
        )
    study.holder = None
    if study.state is StudyState.HELD:
        study.state_before_hold = state
        study.reason_before_hold = reason
        study.next_step_before_hold = next_step
    else:
        study.state = state
        study.state_since = now
        study.reason = reason
        study.next_step = next_step
    add_event(session, study.id, kind, reason, at=now, details=details)


def move_recording(
    recording: Recording, state: RecordingState, *, at: datetime, reason: str = ""
) -> None:
    """Change a recording's state, and the times of start and end that belong to it.

    Raises
    ------
    CatalogError
        If :data:`storage.states.RECORDING_MOVES` does not know the move.
    """
    if state not in RECORDING_MOVES[recording.state]:
        raise CatalogError(
            f"recording {recording.id} is {recording.state}, which {state} cannot follow"
        )
    if state in (RecordingState.TO_VIEW, RecordingState.QUEUED):
        recording.worker = None
    elif state in (RecordingState.VIEWING, RecordingState.ANALYSING):
        recording.started_at = at
        recording.finished_at = None
    else:
        recording.finished_at = at
    recording.holder = None
    recording.state = state
    recording.reason = reason
