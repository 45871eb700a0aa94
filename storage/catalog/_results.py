"""From the last recording's end to the results in the outbox."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import CursorResult, Select, func, select, update
from sqlalchemy.orm import Session

from storage.catalog._holders import check_holds, check_lives, is_void
from storage.catalog._moves import (
    CatalogError,
    RevisionSupersededError,
    counted,
    move_study,
    recording_by_id,
    state_beneath,
    study_by_id,
    utc_now,
)
from storage.catalog._records import NewResult, ReportableStudy, ResultRecord
from storage.catalog._rows import result_record
from storage.states import (
    RECORDING_ENDS,
    DeliveryState,
    EventKind,
    FileState,
    RecordingKind,
    RecordingState,
    ResultKind,
    StudyState,
)
from storage.tables import Delivery, Recording, Result, Study


def studies_to_report(session: Session) -> tuple[ReportableStudy, ...]:
    """List the studies in analysis of which every recording has an end, urgent ones first."""
    return tuple(_reportable(study) for study in session.scalars(_to_report()))


def anything_to_report(session: Session, *, holder: str = "") -> bool:
    """Whether :func:`claim_reports` may find something."""
    return any(
        session.scalar(query.with_only_columns(Study.id).limit(1)) is not None
        for query in (_left_in_reporting(holder), _to_report())
    )


def claim_reports(
    session: Session,
    *,
    holder: str = "",
    but_not: Collection[int] = (),
    limit: int = 4,
    now: datetime | None = None,
) -> tuple[ReportableStudy, ...]:
    """Take studies whose results are to be made, those first whose making was broken off.

    Each is in REPORTING from now on, and no other caller gets it until it is put back, or its
    holder is void. A few at a time leave something for other nodes.

    Parameters
    ----------
    but_not
        Studies that were tried a moment ago.

    Raises
    ------
    ClaimLostError
        If ``holder`` is void.
    """
    check_lives(session, holder)
    taken: list[ReportableStudy] = []
    for query in (_left_in_reporting(holder), _to_report()):
        for study in session.scalars(
            query.where(Study.id.not_in(but_not))
            .limit(limit - len(taken))
            .with_for_update(of=Study, skip_locked=True)
        ).all():
            if study.state is not StudyState.REPORTING:
                begin_reporting(session, study.id, holder=holder, now=now)
            study.holder = holder or None
            taken.append(_reportable(study))
        if len(taken) >= limit:
            break
    session.flush()
    return tuple(taken)


def put_back_report(session: Session, study_id: int, *, holder: str = "") -> None:
    """Let the results of a study be made by another: they could not be made here now."""
    study = study_by_id(session, study_id)
    if (study.holder or "") == holder:
        study.holder = None
        session.flush()


def free_reports(session: Session) -> int:
    """Let go on the making of results by nodes that live no more; returns how many studies."""
    freed = session.execute(
        update(Study)
        .where(
            Study.state.in_((StudyState.REPORTING, StudyState.HELD)),
            Study.holder.is_not(None),
            is_void(Study.holder),
        )
        .values(holder=None)
        .execution_options(synchronize_session=False)
    )
    return freed.rowcount if isinstance(freed, CursorResult) else 0


def studies_in_reporting(session: Session) -> tuple[ReportableStudy, ...]:
    """List the studies whose results are being made: after a start, those that are to be made."""
    studies = session.scalars(
        select(Study).where(Study.state == StudyState.REPORTING).order_by(Study.id)
    )
    return tuple(_reportable(study) for study in studies)


def begin_reporting(
    session: Session, study_id: int, *, holder: str = "", now: datetime | None = None
) -> None:
    """Say that the study's results are being made.

    Raises
    ------
    CatalogError
        If the study is not in ANALYSING.
    """
    study = study_by_id(session, study_id)
    move_study(
        session,
        study,
        StudyState.REPORTING,
        kind=EventKind.REPORTING,
        reason="every recording has an end; the results are being made",
        at=now,
    )
    study.holder = holder or None
    session.flush()


def ignore_study(
    session: Session,
    study_id: int,
    reason: str,
    *,
    revision: int | None = None,
    holder: str = "",
    now: datetime | None = None,
) -> None:
    """Say that nothing in the study is for a model, and why.

    Raises
    ------
    RevisionSupersededError
        If ``revision`` is given and a later image has opened another meanwhile, or the study
        receives again: it is not to be given up.
    ClaimLostError
        If another makes its results by now.
    """
    study = _at_revision(study_by_id(session, study_id), revision)
    _check_holds(study, holder)
    move_study(
        session, study, StudyState.IGNORED, kind=EventKind.STUDY_IGNORED, reason=reason, at=now
    )
    session.flush()


def fail_study(
    session: Session,
    study_id: int,
    reason: str,
    next_step: str,
    *,
    revision: int | None = None,
    holder: str = "",
    now: datetime | None = None,
) -> None:
    """Say that the study went wrong, how, and what an operator can do.

    Raises
    ------
    RevisionSupersededError, ClaimLostError
        As :func:`ignore_study`.
    """
    study = _at_revision(study_by_id(session, study_id), revision)
    _check_holds(study, holder)
    move_study(
        session,
        study,
        StudyState.FAILED,
        kind=EventKind.STUDY_FAILED,
        reason=reason,
        next_step=next_step,
        at=now,
    )
    session.flush()


def add_capture(
    session: Session, recording_id: int, capture: NewResult, *, now: datetime | None = None
) -> ResultRecord:
    """Keep the secondary capture of a recording, with its findings and before the study's report.

    It is sent when the study's results are added, and not current before that. One whose SOP
    instance UID is there already stays as it was first kept; one whose file was lost is there
    again with the new one.
    """
    study = recording_by_id(session, recording_id).study
    result = session.scalar(
        select(Result).where(Result.sop_instance_uid == capture.sop_instance_uid)
    )
    if result is None:
        result = _add(study, capture, now or utc_now(), current=False)
        result.recording_id = recording_id
    elif result.file_state is not FileState.KEPT:
        result.file_key, result.sha256 = capture.file_key, capture.sha256
        result.size_bytes = capture.size_bytes
        result.file_state, result.file_since = FileState.KEPT, now or utc_now()
    session.flush()
    return result_record(result)


def add_results(
    session: Session,
    study_id: int,
    revision: int,
    results: Sequence[NewResult],
    destinations: Sequence[str],
    *,
    decided_by: str = "",
    holder: str = "",
    now: datetime | None = None,
) -> tuple[ResultRecord, ...]:
    """Put a revision's results into the outbox; the study is DELIVERING, or DONE without any.

    A result whose SOP instance UID is there already stays as it was first kept, with the
    deliveries that it has. Results that this revision does not name are no longer current. The
    same call twice does nothing the second time. Returns the results in the order given.

    What went somewhere in place of a named result stays current with it. ``decided_by`` says in the
    timeline who chose the destinations.

    Raises
    ------
    RevisionSupersededError
        If a later image has opened another revision meanwhile: these results are to be dropped.
    CatalogError
        If the study is not in REPORTING.
    ClaimLostError
        If another makes its results by now.
    """
    now = now or utc_now()
    study = _at_revision(study_by_id(session, study_id), revision)
    rows = {result.sop_instance_uid: result for result in study.results}
    if state_beneath(study) is not StudyState.REPORTING:
        if all(new.sop_instance_uid in rows for new in results):
            return tuple(result_record(rows[new.sop_instance_uid]) for new in results)
        raise CatalogError(
            f"study {study.study_instance_uid} is {state_beneath(study)}, not reporting; "
            "it takes no results"
        )
    _check_holds(study, holder)
    named = [rows.get(new.sop_instance_uid) or _add(study, new, now) for new in results]
    uids = {row.sop_instance_uid for row in named}
    for row in rows.values():
        row.current = row.stands_for in uids
        if row.current:
            _queue(row, [item.destination for item in row.deliveries], now)
    for row, new in zip(named, results, strict=True):
        row.current = True
        wanted = [
            name for name in destinations if new.destinations is None or name in new.destinations
        ]
        _queue(row, wanted, now)
    _announce(session, study, named, destinations, decided_by, now)
    session.flush()
    settle_deliveries(session, study, now)
    return tuple(result_record(row) for row in named)


def current_report(
    session: Session, study_id: int, subject: RecordingKind = RecordingKind.ULTRASOUND
) -> ResultRecord | None:
    """Return the study's newest Structured Report, which a next one names its predecessor."""
    result = session.scalar(
        select(Result)
        .where(
            Result.study_id == study_id,
            Result.kind == ResultKind.SR,
            Result.subject == subject,
            Result.current.is_(True),
            Result.stands_for.is_(None),
        )
        .order_by(Result.revision.desc(), Result.id.desc())
        .limit(1)
    )
    return result_record(result) if result else None


def results_of(
    session: Session, study_id: int, *, current: bool = False
) -> tuple[ResultRecord, ...]:
    """List a study's results, or only those that no later revision has replaced."""
    query = select(Result).where(Result.study_id == study_id).order_by(Result.id)
    if current:
        query = query.where(Result.current.is_(True))
    return tuple(result_record(result) for result in session.scalars(query))


def settle_deliveries(session: Session, study: Study, now: datetime) -> None:
    """Move a delivering study on when its current results have all come to an end."""
    if state_beneath(study) is not StudyState.DELIVERING:
        return
    deliveries = session.scalars(
        select(Delivery)
        .join(Delivery.result)
        .where(Result.study_id == study.id, Result.current.is_(True))
        .order_by(Delivery.id)
    ).all()
    states = {delivery.state for delivery in deliveries}
    if states & {DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT}:
        return
    failed = [d for d in deliveries if d.state is DeliveryState.FAILED]
    if failed:
        names = ", ".join(sorted({delivery.destination for delivery in failed}))
        move_study(
            session,
            study,
            StudyState.FAILED,
            kind=EventKind.STUDY_FAILED,
            reason=f"{names} did not take {len(failed)} of "
            f"{counted(len(deliveries), 'delivery', 'deliveries')}: "
            f"{failed[-1].last_answer}",
            next_step=f"mend the way to {names}, then `echonode retry {study.study_instance_uid}`",
            at=now,
        )
    else:
        move_study(
            session,
            study,
            StudyState.DONE,
            kind=EventKind.STUDY_DONE,
            reason="every destination has every result",
            at=now,
        )
    session.flush()


def _to_report() -> Select[Study]:
    # By the states that lead on, few rows by index; by those that end, all that ever came.
    unfinished = select(Recording.study_id).where(
        Recording.state.in_([state for state in RecordingState if state not in RECORDING_ENDS])
    )
    return (
        select(Study)
        .where(Study.state == StudyState.ANALYSING, Study.id.not_in(unfinished))
        .order_by(Study.urgency.desc(), Study.state_since, Study.id)
    )


def _left_in_reporting(holder: str) -> Select[Study]:
    """Studies whose results were being made, by nobody or by the holder himself."""
    return (
        select(Study)
        .where(Study.state == StudyState.REPORTING, func.coalesce(Study.holder, holder) == holder)
        .order_by(Study.id)
    )


def _check_holds(study: Study, holder: str) -> None:
    if state_beneath(study) is StudyState.REPORTING:
        check_holds(study.holder, holder, f"study {study.study_instance_uid}")


def _reportable(study: Study) -> ReportableStudy:
    return ReportableStudy(
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        revision=study.revision,
        holder=study.holder or "",
    )


def _at_revision(study: Study, revision: int | None) -> Study:
    if revision not in (None, study.revision) or state_beneath(study) is StudyState.RECEIVING:
        raise RevisionSupersededError(
            f"study {study.study_instance_uid} is {state_beneath(study)} at revision "
            f"{study.revision}: a later image has overtaken what was found"
        )
    return study


def _add(study: Study, new: NewResult, now: datetime, *, current: bool = True) -> Result:
    result = Result(
        revision=study.revision,
        recording_id=new.recording_id,
        kind=ResultKind(new.kind),
        subject=new.subject,
        sop_class_uid=new.sop_class_uid,
        sop_instance_uid=new.sop_instance_uid,
        series_instance_uid=new.series_instance_uid,
        transfer_syntax_uid=new.transfer_syntax_uid,
        file_key=new.file_key,
        sha256=new.sha256,
        size_bytes=new.size_bytes,
        created_at=now,
        current=current,
    )
    study.results.append(result)
    return result


def add_stand_in(original: Result, new: NewResult, now: datetime) -> Result:
    """Keep a result that goes to a destination in place of another; it has that one's revision."""
    there = next(
        (row for row in original.study.results if row.sop_instance_uid == new.sop_instance_uid),
        None,
    )
    if there is not None:
        return there
    result = _add(original.study, new, now, current=original.current)
    result.revision = original.revision
    result.recording_id = original.recording_id
    result.subject = original.subject
    result.stands_for = original.sop_instance_uid
    return result


def _queue(result: Result, destinations: Sequence[str], now: datetime) -> None:
    """Have a result sent where it was not yet, and again where that failed."""
    for delivery in result.deliveries:
        if delivery.state is DeliveryState.FAILED and delivery.destination in destinations:
            requeue_delivery(delivery, now)
    there = {delivery.destination for delivery in result.deliveries}
    result.deliveries.extend(
        new_delivery(destination, now) for destination in destinations if destination not in there
    )


def new_delivery(destination: str, now: datetime) -> Delivery:
    """A delivery that is due at once."""
    return Delivery(
        destination=destination,
        state=DeliveryState.WAITING,
        attempts=0,
        queued_at=now,
        next_attempt_at=now,
        last_answer="",
    )


def requeue_delivery(delivery: Delivery, now: datetime) -> None:
    """Make a delivery due at once, with attempts and age counted anew."""
    delivery.state = DeliveryState.WAITING
    delivery.attempts = 0
    delivery.queued_at = now
    delivery.next_attempt_at = now
    delivery.silence = None
    delivery.promise = None


def _announce(
    session: Session,
    study: Study,
    results: Sequence[Result],
    destinations: Sequence[str],
    decided_by: str,
    now: datetime,
) -> None:
    if destinations:
        where = f"to go to {', '.join(destinations)}{f', by {decided_by}' if decided_by else ''}"
    else:
        where = f"made; {decided_by + ': sent nowhere' if decided_by else 'no destination is set'}"
    reason = f"revision {study.revision}: {counted(len(results), 'result', 'results')} {where}"
    move_study(
        session,
        study,
        StudyState.DELIVERING if destinations else StudyState.DONE,
        kind=EventKind.RESULTS_MADE,
        reason=reason,
        at=now,
        details={"revision": study.revision, "results": [r.sop_instance_uid for r in results]},
    )
