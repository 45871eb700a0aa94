"""Steps that take a study along its way, each a transaction of its own as in the node."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom.uid import generate_uid

from storage import catalog
from storage.catalog import (
    ClaimedRecording,
    FindingRecord,
    InstanceRecord,
    NewInstance,
    NewResult,
    PackRunRecord,
    RecordingKind,
    RefusalRecord,
    ResultKind,
    StudyDetail,
    ViewOutcome,
)
from storage.database import Database

STUDY = "1.2.826.0.1"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
A4C = ViewOutcome(label="a4c", score=0.97, certain=True, mode="2d", frame_count=30)
PSLA = ViewOutcome(label="psla", score=0.8, certain=True, mode="2d", frame_count=30)
WEIGHTS = hashlib.sha256(b"weights").hexdigest()
EF = FindingRecord(
    output="ef",
    kind="measurement",
    value=55.0,
    unit="%",
    low=48.0,
    high=62.0,
    method="single-plane discs",
    evidence="patients",
    pack="lv",
    pack_version="1.0",
    weights_sha256=WEIGHTS,
    frames=(7, 21),
    per_beat=(53.5, 56.5),
    outside_share=0.25,
)
NO_VOLUME = RefusalRecord(
    output="edv", reason="no scale", pack="lv", pack_version="1.0", weights_sha256=WEIGHTS
)
LV = PackRunRecord(pack="lv", version="1.0", weights_sha256=WEIGHTS)


def later(seconds: float) -> datetime:
    """A time after the first image."""
    return NOW + timedelta(seconds=seconds)


def clip(number: int, **changes: Any) -> NewInstance:
    """The row of an ultrasound clip as the door hands it over."""
    fields: dict[str, Any] = {
        "study_instance_uid": STUDY,
        "series_instance_uid": f"{STUDY}.1",
        "sop_instance_uid": f"{STUDY}.1.{number}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.3.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.4.50",
        "content_sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "size_bytes": 1000 + number,
        "file_key": f"objects/ab/{number:062x}.dcm",
        "door": "dimse",
        "received_at": NOW,
        "calling_ae": "CART",
        "recording_kind": RecordingKind.ULTRASOUND,
    }
    return NewInstance(**{**fields, **changes})


def clip_of(study_uid: str, *, received_at: datetime) -> NewInstance:
    """A clip of a study, another each time."""
    return clip(
        1,
        study_instance_uid=study_uid,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        received_at=received_at,
    )


def receive(database: Database, *instances: NewInstance) -> list[InstanceRecord]:
    """Take instances in."""
    kept = []
    for instance in instances:
        with database.write() as session:
            kept.append(catalog.add_instance(session, instance))
    return kept


def complete(database: Database, study_uid: str = STUDY, at: float = 30) -> int:
    """Take a study as complete; returns its row number."""
    with database.write() as session:
        study = catalog.find_study(session, study_uid)
        catalog.begin_analysis(session, study.id, "no image for 30 s", now=later(at))
    return study.id


def claim(database: Database, at: float = 31) -> ClaimedRecording | None:
    """Take the next recording."""
    with database.write() as session:
        return catalog.claim_next(session, "worker 1", later(at))


def name_views(database: Database, outcome: ViewOutcome = A4C, *, queue: bool = True) -> None:
    """Name the view of everything that waits for it."""
    waiting = [catalog.RecordingState.TO_VIEW]
    while True:
        with database.write() as session:
            claimed = catalog.claim_next(session, "worker 1", later(31), waiting)
            if claimed is None:
                return
            catalog.record_view(
                session,
                claimed.recording_id,
                outcome,
                queue=queue,
                reason="" if queue else "not an apical four-chamber view",
                now=later(32),
            )


def analyse(
    database: Database, findings: Sequence[FindingRecord] = (EF,), at: float = 33
) -> list[int]:
    """Analyse everything that waits for it; returns the recordings' row numbers."""
    done = []
    while claimed := claim(database, at):
        with database.write() as session:
            catalog.record_analysis(
                session, claimed.recording_id, findings, [NO_VOLUME], [LV], now=later(at + 1)
            )
        done.append(claimed.recording_id)
    return done


def result(name: str, kind: ResultKind = ResultKind.SR, **changes: Any) -> NewResult:
    """A result with a UID of its own."""
    fields: dict[str, Any] = {
        "kind": kind,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
        "sop_instance_uid": f"2.25.{int.from_bytes(name.encode())}",
        "series_instance_uid": "2.25.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "file_key": f"results/cd/{'0' * 62}.dcm",
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "size_bytes": 4000,
    }
    return NewResult(**{**fields, **changes})


def report(
    database: Database,
    *results: NewResult,
    destinations: Sequence[str] = ("pacs",),
    study_uid: str = STUDY,
    at: float = 40,
) -> None:
    """Report a study whose recordings all have an end."""
    with database.write() as session:
        study = catalog.find_study(session, study_uid)
        catalog.begin_reporting(session, study.id, now=later(at))
    with database.write() as session:
        catalog.add_results(
            session, study.id, study.revision, results, destinations, now=later(at + 1)
        )


def until_delivering(database: Database, *destinations: str) -> None:
    """Take a study of one clip from its first image to results in the outbox."""
    receive(database, clip(1))
    complete(database)
    name_views(database)
    analyse(database)
    report(database, result("report 1"), destinations=destinations or ("pacs",))


def deliver(database: Database, at: float = 50, *, fails: Sequence[str] = ()) -> int:
    """Send what is due; destinations in ``fails`` refuse for good. Returns how many."""
    with database.write() as session:
        due = catalog.claim_due_deliveries(session, later(at), limit=100)
    for delivery in due:
        with database.write() as session:
            if delivery.destination in fails:
                catalog.record_delivery_failed(
                    session, delivery.delivery_id, "refused: no space", 0xA700, later(at)
                )
            else:
                catalog.record_delivered(session, delivery.delivery_id, "success", 0, later(at))
    return len(due)


def detail(database: Database, study_uid: str = STUDY) -> StudyDetail:
    """All that is known of a study."""
    with database.read() as session:
        return catalog.study_detail(session, study_uid)


def kinds(database: Database, study_uid: str = STUDY) -> list[str]:
    """The slugs of a study's timeline."""
    return [event.kind for event in detail(database, study_uid).timeline]
