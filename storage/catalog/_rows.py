"""From rows to frozen records."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.catalog._records import (
    DeliveryRecord,
    EventRecord,
    FindingRecord,
    InstanceRecord,
    PackRunRecord,
    ReadingRecord,
    RecordingRecord,
    RefusalRecord,
    ResultRecord,
    StudyRecord,
)
from storage.tables import (
    Delivery,
    Finding,
    Instance,
    Recording,
    Result,
    Study,
    TimelineEvent,
)


def instance_record(instance: Instance) -> InstanceRecord:
    """What is kept of an instance."""
    return InstanceRecord(
        id=instance.id,
        study_id=instance.study_id,
        study_instance_uid=instance.study.study_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        content_sha256=instance.content_sha256,
        size_bytes=instance.size_bytes,
        file_key=instance.file_key,
        calling_ae=instance.calling_ae,
        called_ae=instance.called_ae,
        peer_host=instance.peer_host,
        door=instance.door,
        received_at=instance.received_at,
        own=instance.own,
        revision=instance.revision,
        recording_id=instance.recording.id if instance.recording else None,
        file_state=instance.file_state,
    )


def study_records(session: Session, studies: Sequence[Study]) -> tuple[StudyRecord, ...]:
    """What lists show of studies, with their counts in two queries for all of them."""
    ids = [study.id for study in studies]
    images = {
        row[0]: row[1]
        for row in session.execute(
            select(Instance.study_id, func.count())
            .where(Instance.study_id.in_(ids), Instance.own.is_(False))
            .group_by(Instance.study_id)
        )
    }
    recordings: dict[int, dict[str, int]] = {study_id: {} for study_id in ids}
    for study_id, state, count in session.execute(
        select(Recording.study_id, Recording.state, func.count())
        .where(Recording.study_id.in_(ids))
        .group_by(Recording.study_id, Recording.state)
    ):
        recordings[study_id][state.value] = count
    return tuple(
        StudyRecord(
            id=study.id,
            study_instance_uid=study.study_instance_uid,
            state=study.state,
            reason=study.reason,
            next_step=study.next_step,
            revision=study.revision,
            state_before_hold=study.state_before_hold,
            urgency=study.urgency,
            first_image_at=study.first_image_at,
            last_image_at=study.last_image_at,
            state_since=study.state_since,
            study_date=study.study_date,
            accession_number=study.accession_number,
            description=study.description,
            images=images.get(study.id, 0),
            recordings=recordings[study.id],
        )
        for study in studies
    )


def recording_record(recording: Recording) -> RecordingRecord:
    """All that is known of a recording."""
    instance = recording.instance
    return RecordingRecord(
        id=recording.id,
        study_id=recording.study_id,
        study_instance_uid=recording.study.study_instance_uid,
        kind=recording.kind,
        state=recording.state,
        reason=recording.reason,
        series_instance_uid=instance.series_instance_uid,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        file_key=instance.file_key,
        revision=instance.revision,
        mode=recording.mode,
        view_label=recording.view_label,
        view_score=recording.view_score,
        view_certain=recording.view_certain,
        frame_count=recording.frame_count,
        attempts=recording.attempts,
        queued_at=recording.queued_at,
        started_at=recording.started_at,
        finished_at=recording.finished_at,
        worker=recording.worker,
        findings=tuple(_finding_record(finding) for finding in recording.findings),
        refusals=tuple(
            RefusalRecord(
                output=refusal.output,
                reason=refusal.reason,
                pack=refusal.pack,
                pack_version=refusal.pack_version,
                weights_sha256=refusal.weights_sha256,
            )
            for refusal in recording.refusals
        ),
        packs=tuple(
            PackRunRecord(pack=run.pack, version=run.version, weights_sha256=run.weights_sha256)
            for run in recording.pack_runs
        ),
        calling_ae=instance.calling_ae,
        called_ae=instance.called_ae,
        door=instance.door,
        troubles=tuple(recording.troubles),
        readings=tuple(
            ReadingRecord(**{**reading, "channels": tuple(reading["channels"])})
            for reading in recording.readings
        ),
        pages=tuple(recording.pages),
    )


def _finding_record(finding: Finding) -> FindingRecord:
    return FindingRecord(
        output=finding.output,
        kind=finding.kind,
        value=finding.value,
        unit=finding.unit,
        low=finding.low,
        high=finding.high,
        score=finding.score,
        threshold=finding.threshold,
        method=finding.method,
        evidence=finding.evidence,
        pack=finding.pack,
        pack_version=finding.pack_version,
        weights_sha256=finding.weights_sha256,
        frames=tuple(finding.frames),
        per_beat=tuple(finding.per_beat),
        outside_share=finding.outside_share,
        spans_ms=tuple((begin, end) for begin, end in finding.spans_ms),
    )


def result_record(result: Result) -> ResultRecord:
    """What is kept of a result."""
    return ResultRecord(
        id=result.id,
        study_id=result.study_id,
        revision=result.revision,
        recording_id=result.recording_id,
        kind=result.kind,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        file_key=result.file_key,
        sha256=result.sha256,
        size_bytes=result.size_bytes,
        created_at=result.created_at,
        current=result.current,
        stands_for=result.stands_for,
        file_state=result.file_state,
        subject=result.subject,
    )


def delivery_record(delivery: Delivery) -> DeliveryRecord:
    """Where one result is on its way to one destination."""
    return DeliveryRecord(
        id=delivery.id,
        result_id=delivery.result_id,
        sop_instance_uid=delivery.result.sop_instance_uid,
        kind=delivery.result.kind,
        destination=delivery.destination,
        state=delivery.state,
        attempts=delivery.attempts,
        queued_at=delivery.queued_at,
        next_attempt_at=delivery.next_attempt_at,
        last_attempt_at=delivery.last_attempt_at,
        last_answer=delivery.last_answer,
        last_status=delivery.last_status,
        delivered_at=delivery.delivered_at,
        stored_at=delivery.stored_at,
        asks=delivery.asks,
        promise=delivery.promise,
    )


def event_record(event: TimelineEvent) -> EventRecord:
    """A line of a timeline."""
    return EventRecord(at=event.at, kind=event.kind, message=event.message, details=event.details)
