"""What an operator sees and does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from storage.catalog._backfill import BACKFILL_URGENCY
from storage.catalog._files import make_results_again
from storage.catalog._moves import (
    CatalogError,
    add_event,
    counted,
    move_recording,
    move_study,
    study_by_uid,
    utc_now,
)
from storage.catalog._outbox import deliveries_of
from storage.catalog._queue import recordings_of
from storage.catalog._records import QueueStatus, StudyDetail, StudyRecord, Trouble, Waiting
from storage.catalog._results import new_delivery, requeue_delivery, results_of
from storage.catalog._rows import event_record, study_records
from storage.catalog._tallies import count_states
from storage.states import (
    HOLDABLE,
    TROUBLE,
    DeliveryState,
    EventKind,
    FileState,
    RecordingState,
    ResultKind,
    StudyState,
)
from storage.tables import (
    Delivery,
    Instance,
    QuarantinedObject,
    Recording,
    Result,
    Study,
    TimelineEvent,
)


def find_study(session: Session, study_instance_uid: str) -> StudyRecord:
    """Return a study; raise :class:`CatalogError` where there is none of this UID."""
    return study_records(session, [study_by_uid(session, study_instance_uid)])[0]


def list_studies(
    session: Session,
    state: StudyState | None = None,
    limit: int = 50,
    text: str | None = None,
    offset: int = 0,
) -> tuple[StudyRecord, ...]:
    """List studies, the newest first, without the first ``offset``.

    ``text`` finds part of a study UID, an accession number or a description.
    """
    newest = select(Study).order_by(Study.last_image_at.desc(), Study.id.desc())
    query = newest.limit(limit).offset(offset)
    if state is not None:
        query = query.where(Study.state == state)
    if text:
        query = query.where(
            or_(
                Study.study_instance_uid.contains(text, autoescape=True),
                Study.accession_number.icontains(text, autoescape=True),
                Study.description.icontains(text, autoescape=True),
            )
        )
    return study_records(session, session.scalars(query).all())


def study_detail(session: Session, study_instance_uid: str) -> StudyDetail:
    """All that is known of a study; raise :class:`CatalogError` where there is none."""
    study = study_by_uid(session, study_instance_uid)
    events = session.scalars(
        select(TimelineEvent).where(TimelineEvent.study_id == study.id).order_by(TimelineEvent.id)
    )
    return StudyDetail(
        study=study_records(session, [study])[0],
        recordings=recordings_of(session, study.id),
        results=results_of(session, study.id),
        deliveries=deliveries_of(session, study.id),
        timeline=tuple(event_record(event) for event in events),
    )


def hold(
    session: Session, study_instance_uid: str, reason: str = "", *, now: datetime | None = None
) -> None:
    """Stop a study where it is: nothing of it is taken from a queue until it is released.

    Raises
    ------
    CatalogError
        If the study is unknown, held already, or at an end.
    """
    now = now or utc_now()
    study = study_by_uid(session, study_instance_uid)
    if study.state not in HOLDABLE:
        raise CatalogError(
            f"study {study_instance_uid} is {study.state}; only a study on its way can be held"
        )
    reason = reason or "held by an operator"
    study.state_before_hold = study.state
    study.reason_before_hold = study.reason
    study.next_step_before_hold = study.next_step
    study.state = StudyState.HELD
    study.state_since = now
    study.reason = reason
    study.next_step = f"`echonode release {study_instance_uid}` lets it go on"
    add_event(
        session, study.id, EventKind.HELD, reason, at=now, details={"was": study.state_before_hold}
    )
    session.flush()


def release(session: Session, study_instance_uid: str, *, now: datetime | None = None) -> None:
    """Let a held study go on from where it is by now.

    Raises
    ------
    CatalogError
        If the study is unknown or not held.
    """
    now = now or utc_now()
    study = study_by_uid(session, study_instance_uid)
    if study.state_before_hold is None:
        raise CatalogError(f"study {study_instance_uid} is {study.state}, not held")
    study.state = study.state_before_hold
    study.reason = study.reason_before_hold
    study.next_step = study.next_step_before_hold
    study.state_since = now
    study.state_before_hold = None
    study.reason_before_hold = study.next_step_before_hold = ""
    add_event(
        session,
        study.id,
        EventKind.RELEASED,
        f"released by an operator; goes on as {study.state}",
        at=now,
    )
    session.flush()


def retry(session: Session, study_instance_uid: str, *, now: datetime | None = None) -> StudyState:
    """Let go again what failed in a study: recordings, deliveries, or the making of results.

    Recordings that go again after a report was made lead to a next revision of it. Returns the
    study's state after it.

    Raises
    ------
    CatalogError
        If the study is unknown or held, nothing in it failed, or the files are gone.
    """
    now = now or utc_now()
    study = _not_held(session, study_instance_uid)
    recordings = [r for r in study.recordings if r.state is RecordingState.FAILED]
    deliveries = [
        delivery
        for result in study.results
        if result.current
        for delivery in result.deliveries
        if delivery.state is DeliveryState.FAILED
    ]
    _check_there(study, [recording.instance for recording in recordings], "clip")
    if make_results_again(session, study, now) is not None:
        # Those of the others that failed go with the new ones.
        return study.state
    _check_there(study, {delivery.result for delivery in deliveries}, "result")
    if study.state is not StudyState.FAILED and not recordings and not deliveries:
        raise CatalogError(
            f"study {study_instance_uid} is {study.state} and nothing in it failed: "
            "there is nothing to try again"
        )
    for recording in recordings:
        _again(recording, now)
    for delivery in deliveries:
        requeue_delivery(delivery, now)
    _go_on(session, study, recordings, deliveries, now)
    session.flush()
    return study.state


def resend(
    session: Session,
    study_instance_uid: str,
    destination: str | None = None,
    *,
    destinations: Sequence[str] = (),
    now: datetime | None = None,
) -> int:
    """Send a study's current results again, as they are kept; returns how many deliveries.

    Parameters
    ----------
    destination
        Only to this one; otherwise to each that was to have them.
    destinations
        The names in the settings: one of these gets the results even if it was never to.

    Raises
    ------
    CatalogError
        If the study is unknown or held, has no results, or none for the destination, or their
        files are gone.
    """
    now = now or utc_now()
    study = _not_held(session, study_instance_uid)
    # What went in place of a result follows from that one, should it be refused again.
    results = [row for row in study.results if row.current and row.stands_for is None]
    if not results:
        raise CatalogError(
            f"study {study_instance_uid} is {study.state} and has no results to send"
        )
    _check_there(study, results, "result")
    if destination is not None and destination in destinations:
        for result in results:
            # Those are for who asked for them.
            wanted = result.kind not in (ResultKind.TEXT, ResultKind.KEY)
            if wanted and all(item.destination != destination for item in result.deliveries):
                result.deliveries.append(new_delivery(destination, now))
    chosen = [
        delivery
        for result in results
        for delivery in result.deliveries
        if destination in (None, delivery.destination)
    ]
    if not chosen:
        raise CatalogError(_no_such_destination(study, results, destination))
    for delivery in chosen:
        if delivery.state is not DeliveryState.SENDING:
            requeue_delivery(delivery, now)
    message = (
        f"sent again by an operator: {counted(len(chosen), 'delivery', 'deliveries')} "
        f"to {destination or 'every destination'}"
    )
    # Results of an earlier revision may go while the present one is still in the making.
    made = any(_reports(result, study) for result in results)
    if made and study.state in (StudyState.DONE, StudyState.FAILED):
        move_study(
            session, study, StudyState.DELIVERING, kind=EventKind.RESENT, reason=message, at=now
        )
    else:
        add_event(session, study.id, EventKind.RESENT, message, at=now)
    session.flush()
    return len(chosen)


def queue_status(
    session: Session, now: datetime | None = None, *, last_errors: int = 5
) -> QueueStatus:
    """Count what is in which state, and name what waits longest and what went wrong last."""
    now = now or utc_now()
    return QueueStatus(
        studies=_counts(session, Study, StudyState),
        recordings=_counts(session, Recording, RecordingState),
        deliveries=_counts(session, Delivery, DeliveryState),
        quarantined=session.scalar(select(func.count()).select_from(QuarantinedObject)) or 0,
        oldest_recording=_oldest_recording(session, now),
        oldest_delivery=_oldest_delivery(session, now),
        last_errors=_last_errors(session, last_errors),
    )


def _not_held(session: Session, study_instance_uid: str) -> Study:
    study = study_by_uid(session, study_instance_uid)
    if study.state is StudyState.HELD:
        raise CatalogError(
            f"study {study_instance_uid} is held; `echonode release {study_instance_uid}` first"
        )
    return study


def _check_there(study: Study, rows: Collection[Instance | Result], what: str) -> None:
    """Raise where files that are needed are gone."""
    gone = [row for row in rows if row.file_state is not FileState.KEPT]
    if not gone:
        return
    since = max((row.file_since for row in gone if row.file_since is not None), default=None)
    step = (
        "send the study again, then try again"
        if what == "clip"
        else "the destinations that were to have them say what they have"
    )
    raise CatalogError(
        f"study {study.study_instance_uid}: the files of {len(gone)} of "
        f"{counted(len(rows), what, f'{what}s')} are {gone[0].file_state}"
        f"{f' since {since:%Y-%m-%d}' if since else ''}; {step}"
    )


def _again(recording: Recording, now: datetime) -> None:
    viewed = recording.frame_count is not None or not recording.kind.has_views
    state = RecordingState.QUEUED if viewed else RecordingState.TO_VIEW
    move_recording(recording, state, at=now)
    recording.attempts = 0
    recording.queued_at = now


def _go_on(
    session: Session,
    study: Study,
    recordings: Sequence[Recording],
    deliveries: Sequence[Delivery],
    now: datetime,
) -> None:
    message = (
        f"tried again by an operator: {counted(len(recordings), 'recording', 'recordings')}, "
        f"{counted(len(deliveries), 'delivery', 'deliveries')}"
    )
    on_its_way = study.state in (StudyState.RECEIVING, StudyState.ANALYSING)
    if on_its_way or (study.state is StudyState.DELIVERING and not recordings):
        add_event(session, study.id, EventKind.RETRIED, message, at=now)
        return
    made = any(_reports(result, study) for result in study.results)
    if deliveries and not recordings and made:
        state = StudyState.DELIVERING
    else:
        state = StudyState.ANALYSING
        if made:
            # What was sent stands; another answer needs another revision.
            study.revision += 1
            study.revision_opened_at = now
            message += f"; revision {study.revision}"
    move_study(session, study, state, kind=EventKind.RETRIED, reason=message, at=now)


def _reports(result: Result, study: Study) -> bool:
    # Pictures are made with the analysis, before there is a report.
    return result.kind is ResultKind.SR and result.revision == study.revision


def _no_such_destination(study: Study, results: Iterable[Result], destination: str | None) -> str:
    names = sorted({d.destination for result in results for d in result.deliveries})
    there = f"it has some for {', '.join(names)}" if names else "it has none for any destination"
    return (
        f"study {study.study_instance_uid} has nothing for "
        f"{destination or 'any destination'}; {there}"
    )


def _counts(
    session: Session,
    table: type[Study] | type[Recording] | type[Delivery],
    states: type[StrEnum],
) -> dict[str, int]:
    return {**{state.value: 0 for state in states}, **count_states(session, table)}


def _oldest_recording(session: Session, now: datetime) -> Waiting | None:
    # The row first, by its index, and then what belongs to it. What a backfill brought is meant
    # to wait for as long as there is anything else.
    oldest = session.scalar(
        select(Recording.id)
        .where(
            Recording.state.in_((RecordingState.TO_VIEW, RecordingState.QUEUED)),
            Recording.urgency > BACKFILL_URGENCY,
        )
        .order_by(Recording.queued_at, Recording.id)
        .limit(1)
    )
    if oldest is None:
        return None
    row = session.execute(
        select(Study.study_instance_uid, Instance.sop_instance_uid, Recording.queued_at)
        .select_from(Recording)
        .join(Recording.study)
        .join(Recording.instance)
        .where(Recording.id == oldest)
    ).first()
    return _waiting(row[0], row[1], row[2], now) if row else None


def _oldest_delivery(session: Session, now: datetime) -> Waiting | None:
    row = session.execute(
        select(Study.study_instance_uid, Result.sop_instance_uid, Delivery.queued_at)
        .select_from(Delivery)
        .join(Delivery.result)
        .join(Result.study)
        .where(Delivery.state == DeliveryState.WAITING)
        .order_by(Delivery.queued_at, Delivery.id)
        .limit(1)
    ).first()
    return _waiting(row[0], row[1], row[2], now) if row else None


def _waiting(
    study_instance_uid: str, sop_instance_uid: str, since: datetime | None, now: datetime
) -> Waiting:
    since = since or now
    return Waiting(
        study_instance_uid=study_instance_uid,
        sop_instance_uid=sop_instance_uid,
        since=since,
        age_s=(now - since).total_seconds(),
    )


def _last_errors(session: Session, limit: int) -> tuple[Trouble, ...]:
    # Kind by kind, each by its index: asked for at once, SQLite goes through every study.
    last = [
        number
        for kind in TROUBLE
        for number in session.scalars(
            select(TimelineEvent.id)
            .where(TimelineEvent.kind == kind.value)
            .order_by(TimelineEvent.at.desc(), TimelineEvent.id.desc())
            .limit(limit)
        )
    ]
    rows = session.execute(
        select(
            TimelineEvent.at, Study.study_instance_uid, TimelineEvent.kind, TimelineEvent.message
        )
        .join(TimelineEvent.study)
        .where(TimelineEvent.id.in_(last))
        .order_by(TimelineEvent.at.desc(), TimelineEvent.id.desc())
        .limit(limit)
    )
    return tuple(
        Trouble(at=at, study_instance_uid=uid, kind=kind, message=message)
        for at, uid, kind, message in rows
    )
