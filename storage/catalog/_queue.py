"""The queue of recordings: taking the next one, and what came of it.

What came of a recording is told by its ``holder``, and refused
(:class:`storage.catalog.ClaimLostError`) where that is another by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, func, select, union_all
from sqlalchemy.orm import Session, aliased, contains_eager, joinedload, selectinload

from storage.catalog._holders import check_holds, check_lives, is_void
from storage.catalog._moves import (
    CatalogError,
    add_event,
    counted,
    move_recording,
    recording_by_id,
    utc_now,
)
from storage.catalog._records import (
    ClaimedRecording,
    FindingRecord,
    PackRunRecord,
    ReadingRecord,
    RecordingRecord,
    RefusalRecord,
    ViewOutcome,
)
from storage.catalog._rows import recording_record
from storage.states import EventKind, RecordingKind, RecordingState, StudyState
from storage.tables import Finding, PackRun, Recording, Refusal, Study

#: What a claimed recording is in, by what it waited in; and the way back.
_AT_WORK = {
    RecordingState.TO_VIEW: RecordingState.VIEWING,
    RecordingState.QUEUED: RecordingState.ANALYSING,
}
_WAITING = {at_work: waiting for waiting, at_work in _AT_WORK.items()}

_earlier = aliased(Recording)
#: The how-manieth of its study a recording is.
_ORDINAL = (
    select(func.count())
    .select_from(_earlier)
    .where(_earlier.study_id == Recording.study_id, _earlier.id <= Recording.id)
    .correlate(Recording)
    .scalar_subquery()
)


def claim_next(
    session: Session,
    worker: str,
    now: datetime | None = None,
    states: Sequence[RecordingState] = (RecordingState.QUEUED, RecordingState.TO_VIEW),
    *,
    holder: str = "",
) -> ClaimedRecording | None:
    """Take the next waiting recording: the most urgent, and of these the one that waits longest.

    A recording in TO_VIEW goes to VIEWING, one in QUEUED to ANALYSING; the attempt is counted. With
    RECEIVED among ``states``, a recording whose study may still arrive is read ahead (to VIEWING,
    or to ANALYSING where its kind has no views) where nothing as urgent waits.
    Recordings of held studies stay where they are. No two callers ever get the same one: the row
    is locked, and what another is just taking is passed by. Returns None when nothing waits.

    Raises
    ------
    ClaimLostError
        If ``holder`` is void.
    """
    now = now or utc_now()
    turns = _by_turn(session, states)
    if not turns:
        return None
    check_lives(session, holder)
    row = None
    for state in turns:
        row = session.execute(
            _first_of(state)
            .add_columns(_ORDINAL)
            .options(contains_eager(Recording.study), joinedload(Recording.instance))
            .with_for_update(of=Recording, skip_locked=True)
        ).first()
        if row is not None:
            break
    if row is None:
        return None
    recording, ordinal = row
    move_recording(recording, _at_work(recording), at=now)
    recording.attempts += 1
    recording.worker = worker
    recording.holder = holder or None
    session.flush()
    instance = recording.instance
    return ClaimedRecording(
        recording_id=recording.id,
        study_id=recording.study_id,
        study_instance_uid=recording.study.study_instance_uid,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        kind=recording.kind,
        state=recording.state,
        file_key=instance.file_key,
        attempts=recording.attempts,
        ordinal=ordinal,
        view_label=recording.view_label,
        view_score=recording.view_score,
        calling_ae=instance.calling_ae,
        called_ae=instance.called_ae,
        door=instance.door,
        queued_at=recording.queued_at,
        holder=holder,
    )


def _at_work(recording: Recording) -> RecordingState:
    if recording.state is RecordingState.RECEIVED:  # read ahead; it waits for good then
        has_views = recording.kind.has_views
        return RecordingState.VIEWING if has_views else RecordingState.ANALYSING
    return _AT_WORK[recording.state]


def _first_of(state: RecordingState) -> Select[Recording]:
    # One state at a time: the index gives its first row, however many wait.
    return (
        select(Recording)
        .join(Recording.study)
        .where(Recording.state == state, Study.state != StudyState.HELD)
        .order_by(Recording.urgency.desc(), Recording.queued_at, Recording.id)
        .limit(1)
    )


def _by_turn(session: Session, states: Sequence[RecordingState]) -> list[RecordingState]:
    """The states in which something waits, by the turn of the first in each."""
    firsts = [
        _first_of(state)
        .with_only_columns(Recording.state, Recording.urgency, Recording.queued_at, Recording.id)
        .subquery()
        for state in states
    ]
    never = datetime.min.replace(tzinfo=UTC)
    turns = sorted(
        session.execute(union_all(*(select(first) for first in firsts))),
        key=lambda row: (
            -row.urgency,
            row.state is RecordingState.RECEIVED,
            row.queued_at or never,
            row.id,
        ),
    )
    return [row.state for row in turns]


def requeue_interrupted(
    session: Session,
    *,
    max_attempts: int | None = None,
    why: str = "the node stopped",
    now: datetime | None = None,
) -> int:
    """Put back what was at work and is held by no node that lives.

    Attempts stay counted; with ``max_attempts``, a recording that has used them up fails, so that
    one which takes the whole node down does not do so for ever. Returns how many wait again.
    """
    now = now or utc_now()
    wait_again = 0
    for recording in session.scalars(
        select(Recording)
        .where(Recording.state.in_(tuple(_WAITING)), is_void(Recording.holder))
        .order_by(Recording.id)
    ):
        reason = f"{why} while it was at work on this"
        if max_attempts is not None and recording.attempts >= max_attempts:
            _fail(session, recording, reason, now)
            continue
        move_recording(recording, _back(recording), at=now, reason=reason)
        _say(session, recording, EventKind.INTERRUPTED, f"{reason}; it waits again", now)
        wait_again += 1
    session.flush()
    return wait_again


def record_view(
    session: Session,
    recording_id: int,
    outcome: ViewOutcome,
    *,
    queue: bool,
    reason: str = "",
    holder: str = "",
    now: datetime | None = None,
) -> RecordingState:
    """Keep what reading a recording said, and queue it for analysis or leave it at that.

    ``reason`` says why there is nothing more to do, where ``queue`` is False. Returns the state:
    QUEUED, with attempts counted anew, or SKIPPED.
    """
    now = now or utc_now()
    recording = _held(session, recording_id, holder)
    state = RecordingState.QUEUED if queue else RecordingState.SKIPPED
    move_recording(recording, state, at=now, reason=reason)
    recording.view_label = outcome.label
    recording.view_score = outcome.score
    recording.view_certain = outcome.certain
    recording.mode = outcome.mode
    recording.frame_count = outcome.frame_count
    if queue:
        recording.queued_at = now
        recording.attempts = 0
    _say(
        session,
        recording,
        EventKind.VIEW_NAMED,
        f"{_view_words(outcome)}; {'queued for analysis' if queue else reason or 'not analysed'}",
        now,
        view=outcome.label,
        score=outcome.score,
    )
    session.flush()
    return state


def refuse_recording(
    session: Session,
    recording_id: int,
    reason: str,
    *,
    holder: str = "",
    now: datetime | None = None,
) -> None:
    """Say that a recording cannot be read, and why. Its study goes on without it."""
    now = now or utc_now()
    recording = _held(session, recording_id, holder)
    move_recording(recording, RecordingState.REFUSED, at=now, reason=reason)
    words = f"{_what(recording)}cannot be read: {reason}"
    _say(session, recording, EventKind.RECORDING_REFUSED, words, now)
    session.flush()


def skip_recording(
    session: Session,
    recording_id: int,
    reason: str,
    *,
    holder: str = "",
    now: datetime | None = None,
) -> None:
    """Leave a claimed recording at that: it is not to be looked at, and why.

    What may have been found in it before does not count any more.
    """
    now = now or utc_now()
    recording = _held(session, recording_id, holder)
    move_recording(recording, RecordingState.SKIPPED, at=now, reason=reason)
    recording.findings, recording.refusals, recording.pack_runs = [], [], []
    recording.troubles, recording.readings, recording.pages = [], [], []
    _say(session, recording, EventKind.RECORDING_SKIPPED, reason, now)
    session.flush()


def record_analysis(
    session: Session,
    recording_id: int,
    findings: Sequence[FindingRecord],
    refusals: Sequence[RefusalRecord],
    packs: Sequence[PackRunRecord],
    *,
    troubles: Sequence[str] = (),
    readings: Sequence[ReadingRecord] = (),
    pages: Sequence[str] = (),
    note: str = "",
    holder: str = "",
    now: datetime | None = None,
) -> None:
    """Keep what the models said of a recording, in place of what they may have said before.

    ``troubles`` are what cannot be trusted in it, ``readings`` what of it was read, ``pages`` the
    outputs that its picture explains. ``note`` says in the timeline why not all packs ran.
    """
    now = now or utc_now()
    recording = _held(session, recording_id, holder)
    move_recording(recording, RecordingState.DONE, at=now)
    revision = recording.study.revision
    recording.findings = [_finding(finding, revision) for finding in findings]
    recording.refusals = [
        Refusal(
            output=refusal.output,
            reason=refusal.reason,
            pack=refusal.pack,
            pack_version=refusal.pack_version,
            weights_sha256=refusal.weights_sha256,
        )
        for refusal in refusals
    ]
    recording.pack_runs = [
        PackRun(pack=pack.pack, version=pack.version, weights_sha256=pack.weights_sha256)
        for pack in packs
    ]
    recording.troubles = list(troubles)
    recording.readings = [asdict(reading) for reading in readings]
    recording.pages = list(pages)
    _say(
        session,
        recording,
        EventKind.RECORDING_DONE,
        f"{_what(recording)}analysed by {counted(len(packs), 'pack', 'packs')}"
        f"{f' ({note})' if note else ''}: "
        f"{counted(len(findings), 'finding', 'findings')}, "
        f"{counted(len(refusals), 'refusal', 'refusals')}"
        f"{f'; not to be trusted: {_joined(troubles)}' if troubles else ''}",
        now,
        packs=[f"{pack.pack} {pack.version}" for pack in packs],
    )
    session.flush()


def record_failure(
    session: Session,
    recording_id: int,
    reason: str,
    max_attempts: int,
    *,
    holder: str = "",
    now: datetime | None = None,
) -> RecordingState:
    """Note that a worker failed at a recording: it waits again, or fails after ``max_attempts``.

    It waits at the end of its queue, so that it keeps no other from its turn. Returns the state.
    """
    now = now or utc_now()
    recording = _held(session, recording_id, holder)
    if recording.attempts >= max_attempts:
        _fail(session, recording, reason, now)
    else:
        move_recording(recording, _back(recording), at=now, reason=reason)
        recording.queued_at = now
        _say(
            session,
            recording,
            EventKind.RECORDING_AGAIN,
            f"attempt {recording.attempts} of {max_attempts} failed: {reason}; it waits again",
            now,
        )
    session.flush()
    return recording.state


def put_back(
    session: Session,
    recording_id: int,
    reason: str,
    *,
    holder: str = "",
    now: datetime | None = None,
) -> None:
    """Let a claimed recording wait again as if it had not been claimed: nothing was tried."""
    now = now or utc_now()
    recording = _held(session, recording_id, holder)
    move_recording(recording, _back(recording), at=now, reason=reason)
    recording.attempts -= 1
    session.flush()


def recordings_of(session: Session, study_id: int) -> tuple[RecordingRecord, ...]:
    """List a study's recordings with their findings and refusals, in the order they came."""
    recordings = session.scalars(
        select(Recording)
        .where(Recording.study_id == study_id)
        .order_by(Recording.id)
        .options(
            selectinload(Recording.instance),
            selectinload(Recording.findings),
            selectinload(Recording.refusals),
            selectinload(Recording.pack_runs),
        )
    )
    return tuple(recording_record(recording) for recording in recordings)


def _held(session: Session, recording_id: int, holder: str) -> Recording:
    recording = recording_by_id(session, recording_id)
    check_holds(recording.holder, holder, f"recording {recording_id}")
    return recording


def _back(recording: Recording) -> RecordingState:
    waiting = _WAITING.get(recording.state)
    if waiting is None:
        raise CatalogError(f"recording {recording.id} is {recording.state}: no worker has it")
    return waiting


def _fail(session: Session, recording: Recording, reason: str, now: datetime) -> None:
    move_recording(recording, RecordingState.FAILED, at=now, reason=reason)
    _say(
        session,
        recording,
        EventKind.RECORDING_FAILED,
        f"given up after {recording.attempts} attempts: {reason}",
        now,
    )


def _say(
    session: Session,
    recording: Recording,
    kind: EventKind,
    message: str,
    at: datetime,
    **details: Any,
) -> None:
    details["sop_instance_uid"] = recording.instance.sop_instance_uid
    add_event(session, recording.study_id, kind, message, at=at, details=details)


def _what(recording: Recording) -> str:
    """What is spoken of, where it is no clip."""
    return "ECG: " if recording.kind is RecordingKind.ECG else ""


def _joined(troubles: Sequence[str]) -> str:
    return "; ".join(trouble.rstrip(".") for trouble in troubles)


def _view_words(outcome: ViewOutcome) -> str:
    if outcome.label is None:
        return "read"
    score = "" if outcome.score is None else f" ({outcome.score:.2f})"
    return f"view {outcome.label}{score}{', uncertain' if outcome.certain is False else ''}"


def _finding(finding: FindingRecord, revision: int) -> Finding:
    return Finding(
        revision=revision,
        output=finding.output,
        kind=str(finding.kind),
        value=finding.value,
        unit=finding.unit,
        low=finding.low,
        high=finding.high,
        score=finding.score,
        threshold=finding.threshold,
        method=str(finding.method),
        evidence=str(finding.evidence),
        pack=finding.pack,
        pack_version=finding.pack_version,
        weights_sha256=finding.weights_sha256,
        frames=[int(frame) for frame in finding.frames],
        per_beat=[float(value) for value in finding.per_beat],
        outside_share=finding.outside_share,
        spans_ms=[[float(begin), float(end)] for begin, end in finding.spans_ms],
    )
