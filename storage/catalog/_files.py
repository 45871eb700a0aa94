"""Files that go while their rows stay, and times that a clock set back has made untrue."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from storage.catalog._moves import (
    CatalogError,
    add_event,
    counted,
    move_recording,
    move_study,
    state_beneath,
    utc_now,
)
from storage.catalog._records import InstanceRecord
from storage.catalog._results import settle_deliveries
from storage.catalog._rows import instance_record
from storage.states import DeliveryState, EventKind, FileState, RecordingState, StudyState
from storage.tables import (
    Commitment,
    Delivery,
    Instance,
    NodeProcess,
    PromiseRequest,
    QuarantinedObject,
    Recording,
    Result,
    Study,
)

_GONE = {
    FileState.KEPT: "was missing",
    FileState.REMOVING: "was removed",
    FileState.REMOVED: "was removed",
    FileState.LOST: "was lost",
}


def keep_again(
    session: Session,
    instance_id: int,
    *,
    file_key: str,
    content_sha256: str,
    size_bytes: int,
    transfer_syntax_uid: str,
    now: datetime | None = None,
) -> InstanceRecord:
    """Say that an object whose file was gone came again, and that its file is there from now on.

    There was nothing to compare it with: what came is what is kept, also in another encoding.
    """
    now = now or utc_now()
    instance = session.get(Instance, instance_id)
    if instance is None:
        raise CatalogError(f"no instance with row {instance_id}")
    words = f"an object whose file {_GONE[instance.file_state]} came again and is kept"
    if instance.content_sha256 != content_sha256:
        words += "; its bytes are not those of the first time"
    recording = instance.recording
    if recording is not None and recording.state is RecordingState.FAILED:
        words += f"; `echonode retry {instance.study.study_instance_uid}` analyses it"
    instance.file_key = file_key
    instance.content_sha256 = content_sha256
    instance.size_bytes = size_bytes
    instance.transfer_syntax_uid = transfer_syntax_uid
    instance.file_state = FileState.KEPT
    instance.file_since = now
    add_event(
        session,
        instance.study_id,
        EventKind.FILE_AGAIN,
        words,
        at=now,
        details={"sop_instance_uid": instance.sop_instance_uid},
    )
    session.flush()
    return instance_record(instance)


def newest_time(session: Session) -> datetime | None:
    """The latest time at which the rows say that something happened; None where nothing did."""
    times = (
        session.scalar(
            select(func.max(Instance.received_at)).where(Instance.file_state == FileState.KEPT)
        ),
        session.scalar(select(func.max(NodeProcess.heartbeat_at))),
    )
    return max((time for time in times if time is not None), default=None)


def mend_times(session: Session, now: datetime, *, longest_pause_s: float) -> int:
    """After the clock was set back: what still waits counts its time from now on.

    Otherwise a study would wait for its quiet time, and a result for its next try, until the
    clock has caught up. Times of what is past stay as they were written. Returns how many rows
    were changed.
    """
    latest_try = now + timedelta(seconds=2 * longest_pause_s)
    changed = 0
    for study in session.scalars(
        select(Study).where(
            Study.state.in_((StudyState.RECEIVING, StudyState.HELD)),
            or_(
                Study.last_image_at > now,
                Study.revision_opened_at > now,
                Study.last_released_at > now,
            ),
        )
    ):
        study.last_image_at = min(study.last_image_at, now)
        study.revision_opened_at = min(study.revision_opened_at, now)
        if study.last_released_at is not None:
            study.last_released_at = min(study.last_released_at, now)
        changed += 1
    for recording in session.scalars(
        select(Recording).where(
            Recording.state.in_((RecordingState.TO_VIEW, RecordingState.QUEUED)),
            Recording.queued_at > now,
        )
    ):
        recording.queued_at = now
        changed += 1
    waiting = (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT)
    for delivery in session.scalars(
        select(Delivery).where(
            Delivery.state.in_(waiting),
            or_(
                Delivery.queued_at > now,
                Delivery.next_attempt_at > latest_try,
                Delivery.stored_at > now,
            ),
        )
    ):
        delivery.queued_at = min(delivery.queued_at, now)
        if delivery.stored_at is not None:
            delivery.stored_at = min(delivery.stored_at, now)
        if delivery.next_attempt_at > latest_try:
            delivery.next_attempt_at = now
        changed += 1
    for commitment in session.scalars(
        select(Commitment).where(Commitment.closed_at.is_(None), Commitment.asked_at > now)
    ):
        commitment.due_at = now + (commitment.due_at - commitment.asked_at)
        commitment.asked_at = now
        changed += 1
    for request in session.scalars(
        select(PromiseRequest).where(
            PromiseRequest.reported_at.is_(None),
            PromiseRequest.given_up_at.is_(None),
            PromiseRequest.asked_at > now,
        )
    ):
        request.asked_at = request.next_attempt_at = now
        changed += 1
    session.flush()
    return changed


def mark_instance_lost(
    session: Session, instance_id: int, why: str, *, now: datetime | None = None
) -> None:
    """Say that the file of an object is gone or damaged: the sender's next copy is taken."""
    now = now or utc_now()
    instance = session.get(Instance, instance_id)
    if instance is None or instance.file_state is not FileState.KEPT:
        return
    instance.file_state, instance.file_since = FileState.LOST, now
    add_event(
        session,
        instance.study_id,
        EventKind.FILE_LOST,
        f"the file of an object {why}; send the object again",
        at=now,
        details={"sop_instance_uid": instance.sop_instance_uid},
    )
    session.flush()


def mark_result_lost(
    session: Session, result_id: int, why: str, *, now: datetime | None = None
) -> str:
    """Say that the file of a result is gone or damaged; returns what becomes of it, in words.

    One that some destination was still to have is made again, where its clip is there: as the
    next revision of the study, since other bytes are another object.
    """
    now = now or utc_now()
    result = session.get(Result, result_id)
    if result is None or result.file_state is not FileState.KEPT:
        return "nothing"
    result.file_state, result.file_since = FileState.LOST, now
    open_deliveries = [
        delivery
        for delivery in result.deliveries
        if delivery.state in (DeliveryState.WAITING, DeliveryState.FAILED)
    ]
    for delivery in open_deliveries:
        delivery.state = DeliveryState.FAILED
        delivery.last_answer = "its file was lost here before it was sent"
    session.flush()
    becomes = _made_again(session, result, needed=bool(open_deliveries), now=now)
    add_event(
        session,
        result.study_id,
        EventKind.FILE_LOST,
        f"the file of the {result.kind.upper()} {why}; {becomes}",
        at=now,
        details={"sop_instance_uid": result.sop_instance_uid},
    )
    session.flush()
    settle_deliveries(session, result.study, now)
    return becomes


def make_results_again(session: Session, study: Study, now: datetime) -> str | None:
    """Begin to make the results whose files were lost before all had them; None where none was.

    Raises
    ------
    CatalogError
        If the files of the clips are gone, too.
    """
    lost = [
        result
        for result in study.results
        if result.current
        and result.file_state is FileState.LOST
        and any(delivery.state is DeliveryState.FAILED for delivery in result.deliveries)
    ]
    if not lost:
        return None
    before = study.revision
    words = ""
    for result in lost:
        words = _made_again(session, result, needed=True, now=now)
    if study.revision == before:
        raise CatalogError(
            f"study {study.study_instance_uid}: {counted(len(lost), 'result', 'results')} lost, "
            f"and {words}; send the study again, then try again"
        )
    return words


def mark_there(
    session: Session,
    is_result: bool,
    row_id: int,
    *,
    size_bytes: int,
    digests: Collection[str],
    now: datetime | None = None,
) -> bool:
    """Say that a file which a row gave up is there after all; False where it is not that file."""
    now = now or utc_now()
    row: Instance | Result | None
    row = session.get(Result, row_id) if is_result else session.get(Instance, row_id)
    if row is None or row.file_state in (FileState.KEPT, FileState.REMOVING):
        return False
    digest = row.content_sha256 if isinstance(row, Instance) else row.sha256
    if size_bytes != row.size_bytes or digest not in digests:
        return False
    words = f"a file that was {row.file_state} is there after all"
    row.file_state, row.file_since = FileState.KEPT, now
    add_event(session, row.study_id, EventKind.FILE_AGAIN, words, at=now)
    session.flush()
    return True


def is_named(session: Session, file_key: str) -> bool:
    """Whether any row speaks of a file."""
    return any(
        session.scalar(select(table.id).where(table.file_key == file_key).limit(1)) is not None
        for table in (Instance, Result, QuarantinedObject)
    )


def _made_again(session: Session, result: Result, *, needed: bool, now: datetime) -> str:
    study = result.study
    if not result.current or not needed:
        return "no destination still waits for it"
    state = state_beneath(study)
    on_its_way = state not in (StudyState.DELIVERING, StudyState.DONE, StudyState.FAILED)
    analysing = state in (StudyState.RECEIVING, StudyState.ANALYSING)
    if on_its_way and not (analysing and result.recording_id is not None):
        return "the study is on its way to new results"
    recordings = session.scalars(select(Recording).where(Recording.study_id == study.id)).all()
    gone = [item for item in recordings if item.instance.file_state is not FileState.KEPT]
    if gone or not recordings:
        return "it cannot be made again, since the clips' files are gone, too"
    for recording in recordings:
        if recording.id == result.recording_id and recording.state is RecordingState.DONE:
            move_recording(recording, RecordingState.QUEUED, at=now)
            recording.attempts = 0
            recording.queued_at = now
    if on_its_way:
        return "its clip is analysed again"
    study.revision += 1
    study.revision_opened_at = now
    words = f"it is made again: revision {study.revision}"
    move_study(session, study, StudyState.ANALYSING, kind=EventKind.FILE_LOST, reason=words, at=now)
    return words
