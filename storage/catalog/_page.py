"""What the page asks: what was done in each hour, and where the pictures of a clip lie."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.catalog._moves import CatalogError
from storage.catalog._records import HourRecord, ShownRecording
from storage.states import EventKind, FileState, ResultKind
from storage.tables import Instance, Recording, Result, Study, TimelineEvent

_MOST_REPORTS = 20_000  # looked at for how long they took


def hours_of(session: Session, edges: Sequence[datetime]) -> tuple[HourRecord, ...]:
    """What came, was analysed and was reported between each two of these times.

    A report's time is that from the study's last image to its results. A study that got a later
    image since then has no such time.
    """
    took = _reports(session, edges)
    return tuple(
        HourRecord(
            begins_at=begin,
            received=_received(session, begin, end),
            analysed=_analysed(session, begin, end),
            reported=len(seconds),
            median_s=statistics.median(known) if known else None,
            slowest_s=max(known, default=None),
        )
        for (begin, end), seconds in zip(pairwise(edges), took, strict=True)
        for known in [[second for second in seconds if second >= 0]]
    )


def _received(session: Session, begin: datetime, end: datetime) -> int:
    query = select(func.count()).where(
        Instance.file_state.in_(tuple(FileState)),  # all: so that the index of both is used
        Instance.received_at >= begin,
        Instance.received_at < end,
        Instance.own.is_(False),
    )
    return session.scalar(query) or 0


def _analysed(session: Session, begin: datetime, end: datetime) -> int:
    query = select(func.count()).where(
        TimelineEvent.kind == EventKind.RECORDING_DONE.value,
        TimelineEvent.at >= begin,
        TimelineEvent.at < end,
    )
    return session.scalar(query) or 0


def _reports(session: Session, edges: Sequence[datetime]) -> list[list[float]]:
    rows = session.execute(
        select(TimelineEvent.at, Study.last_image_at)
        .join(TimelineEvent.study)
        .where(
            TimelineEvent.kind == EventKind.RESULTS_MADE.value,
            TimelineEvent.at >= edges[0],
            TimelineEvent.at < edges[-1],
        )
        .order_by(TimelineEvent.at)
        .limit(_MOST_REPORTS)
    ).all()
    return [
        [(at - last).total_seconds() for at, last in rows if begin <= at < end]
        for begin, end in pairwise(edges)
    ]


def shown_recording(
    session: Session, study_instance_uid: str, sop_instance_uid: str
) -> ShownRecording:
    """Where the pictures of a recording lie.

    Raises
    ------
    CatalogError
        If the study has no such recording.
    """
    row = session.execute(
        select(Recording, Instance.file_key, Instance.file_state)
        .join(Recording.instance)
        .join(Recording.study)
        .where(
            Study.study_instance_uid == study_instance_uid,
            Instance.sop_instance_uid == sop_instance_uid,
        )
    ).first()
    if row is None:
        raise CatalogError(f"study {study_instance_uid} has no clip {sop_instance_uid}")
    recording, file_key, file_state = row
    cine = session.scalar(
        select(Result.file_key)
        .where(
            Result.recording_id == recording.id,
            Result.kind == ResultKind.SC,
            Result.stands_for.is_(None),
            Result.file_state == FileState.KEPT,
        )
        .order_by(Result.id.desc())
        .limit(1)
    )
    return ShownRecording(
        kind=recording.kind,
        mode=recording.mode,
        frame_count=recording.frame_count,
        file_key=file_key if file_state is FileState.KEPT else None,
        cine_key=cine,
    )
