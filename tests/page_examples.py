"""A node's database and files as the page's tests want them: made by hand, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.examples import get_path

from models.clip import read_clip, read_header
from models.explain import panels
from models.explain.panels import Shown, ShownMap, ShownTracing
from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.packs import Manifest, shipped_packs
from models.views import View, ViewCall
from node.records import finding_to_row, pack_to_row, refusal_to_row
from node.results import ClipResult, EncodedObject, build_page, build_report
from node.results.store import keep_result
from storage import catalog
from storage.catalog import (
    DeliveryState,
    NewInstance,
    NewQuarantined,
    NewResult,
    Promise,
    RecordingKind,
    RecordingState,
    ResultKind,
    ViewOutcome,
)
from storage.database import Database
from storage.files import Area, FolderStore
from storage.tables import Delivery
from tests.results_examples import SETTINGS, capture_of
from tests.ultrasound_files import as_file, screen, ultrasound
from tests.unit.storage_steps import clip_of

NAME, NUMBER = "ZEBULON^QUUX", "MRN-77123"
FRAMES = 10
DONE, FAILED, HELD = "1.2.826.0.1.77.1", "1.2.826.0.1.77.2", "1.2.826.0.1.77.3"
RECEIVING, IGNORED = "1.2.826.0.1.77.4", "1.2.826.0.1.77.5"


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What was made: UIDs of the clips and results of the study that is done."""

    cine_clip: str
    plain_clip: str
    ecg: str
    report: str
    summary: str
    cine: str


@cache
def packs() -> dict[str, PackRef]:
    """The shipped packs, as findings name them."""
    found = {}
    for folder in shipped_packs():
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        found[manifest.name] = PackRef(
            name=manifest.name, version=manifest.version, weights_sha256=manifest.weights_sha256
        )
    return found


def findings() -> tuple[Finding, ...]:
    """What two packs say of the clip: one from patients, one from the simulator alone."""

    def measured(output: str, number: float, unit: str, pack: str, **others: Any) -> Finding:
        evidence = Evidence.SIMULATED if pack == "echonet-simulated" else Evidence.PATIENTS
        return Finding(
            **{
                "output": output, "kind": Kind.MEASUREMENT, "value": number, "unit": unit,
                "pack": packs()[pack], "evidence": evidence, "frames": (3,),
                "method": Method.SINGLE_PLANE_DISCS if pack == "lv" else Method.REGRESSION,
                **others,
            }
        )  # fmt: skip

    return (
        measured("ef", 58.2, "%", "lv", low=42.5, high=74.0, per_beat=(57.1, 59.3)),
        measured("edv", 102.4, "mL", "lv", low=75.0, high=119.0, per_beat=(101.0, 103.8)),
        measured("esv", 42.8, "mL", "lv", low=21.0, high=58.0, per_beat=(43.3, 42.3)),
        measured("ef", 51.0, "%", "echonet", low=30.0, high=70.0, outside_share=0.61),
        measured("ra_length", 4.6, "cm", "echonet-simulated", low=3.4, high=5.7),
    )


REFUSAL = ("la_volume", "the atrium is cut by the edge of the sector")


def source(study: str, number: int) -> Dataset:
    """pydicom's real cine, with a name in its header."""
    whole = dcmread(get_path("ybr_color"))
    whole.StudyInstanceUID = study
    whole.SeriesInstanceUID = f"{study}.1"
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.{number}"
    whole.InstanceNumber = number
    whole.PatientName, whole.PatientID = NAME, NUMBER
    return whole


def named_screen(study: str, number: int) -> bytes:
    """A speckled fan on a screen that also shows a name."""
    frames = screen(6, texts=[(6, 4, f"{NAME} {NUMBER}"), (6, 455, NUMBER)])
    made = ultrasound(
        frames,
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        SOPInstanceUID=f"{study}.1.{number}",
        PatientName=NAME,
        PatientID=NUMBER,
    )
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return as_file(made)


def results_of(data: bytes) -> tuple[EncodedObject, EncodedObject, EncodedObject]:
    """The cine, the summary page and the report of a clip; a disc stands for what models trace."""
    clip, header = read_clip(data), read_header(data)
    frames = clip.frames(range(FRAMES))
    said = findings()
    rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]]
    far = np.hypot(rows - 0.4 * frames.shape[1], columns - 0.5 * frames.shape[2])
    sizes = [30 + 12 * np.cos(2 * np.pi * at / FRAMES) for at in range(FRAMES)]
    masks = np.stack([far < size for size in sizes]).astype(np.uint8)
    shown = Shown(
        frame_times_ms=tuple(33.3 * at for at in range(FRAMES)),
        source_frames=tuple(range(FRAMES)),
        clip_frames=clip.frame_count,
        findings=said,
        tracing=ShownTracing(
            masks=masks,
            frames=tuple(range(FRAMES)),
            classes=("background", "cavity"),
            ed_frames=(0,),
            es_frames=(5,),
        ),
        maps=(
            ShownMap(
                finding=said[3],
                maps=np.stack([np.exp(-far / size) for size in sizes]).astype(np.float32),
                frames=tuple(range(FRAMES)),
            ),
        ),
    )
    cine = capture_of(header, panels.encode(panels.draw_clip(frames, shown)), findings=said)
    result = ClipResult(
        header=header,
        view=ViewCall(view=View.A4C, score=0.97, certain=True),
        findings=said,
        capture=cine.ref,
        packs=tuple(packs()[name] for name in ("lv", "echonet")),
    )
    now = datetime.now(UTC)
    page = build_page(
        [result],
        {cine.ref.sop_instance_uid: cine.data},
        revision=1,
        settings=SETTINGS,
        created_at=now,
    )
    return (
        cine,
        page,
        build_report([result], revision=1, predecessor=None, settings=SETTINGS, created_at=now),
    )


@cache
def _made() -> tuple[bytes, EncodedObject, EncodedObject, EncodedObject]:
    buffer = BytesIO()
    source(DONE, 1).save_as(buffer, enforce_file_format=True)
    return (buffer.getvalue(), *results_of(buffer.getvalue()))


def prepare(database: Database, folder: Path, now: datetime | None = None) -> Example:
    """Fill a database and the files beside it with a day's work."""
    now = now or datetime.now(UTC)
    files = FolderStore(folder)
    example = _done(database, files, now - timedelta(hours=2))
    _failed(database, now - timedelta(hours=5))
    for uid, ago in ((HELD, 4), (RECEIVING, 0)):
        with database.write() as session:
            catalog.add_instance(session, clip_of(uid, received_at=now - timedelta(hours=ago)))
    with database.write() as session:
        catalog.hold(session, HELD, "the cart sends it again", now=now)
        study_id = catalog.add_instance(
            session, replace(clip_of(IGNORED, received_at=now), recording_kind=None)
        ).study_id
        catalog.begin_analysis(session, study_id, "quiet", now=now)
        _quarantine(session, now)
    return example


def heartbeat(database: Database) -> None:
    """Let a node with two workers give a sign of life now."""
    now = datetime.now(UTC)
    workers = [
        {"pid": 4711, "state": "busy", "since": now.isoformat(), "jobs_done": 12, "restarts": 0,
         "error": ""},
        {"pid": 4712, "state": "idle", "since": now.isoformat(), "jobs_done": 11, "restarts": 1,
         "error": "it ended with signal 9 while it analysed a clip"},
    ]  # fmt: skip
    with database.write() as session:
        catalog.join(
            session,
            "node-1",
            pid=4710,
            started_at=now - timedelta(hours=5),
            details={
                "addresses": {
                    "ae_title": "ECHONODE",
                    "dimse_host": "127.0.0.1",
                    "dimse_port": 11112,
                },
                "associations": 1,
                "workers": workers,
            },
        )


def many(database: Database, count: int, now: datetime | None = None) -> list[str]:
    """So many more studies, each older than the one before."""
    now = now or datetime.now(UTC)
    uids = [f"1.2.826.0.1.78.{number}" for number in range(1, count + 1)]
    for number, uid in enumerate(uids):
        with database.write() as session:
            new = clip_of(uid, received_at=now - timedelta(days=2, minutes=number))
            catalog.add_instance(session, replace(new, accession_number=f"ACC-{number:03}"))
    return uids


def _done(database: Database, files: FolderStore, at: datetime) -> Example:
    data, cine, page, report = _made()
    instances = [
        _instance(files, data, DONE, 1, at, description="Echo, transthoracic"),
        _instance(files, named_screen(DONE, 2), DONE, 2, at),
        replace(
            _instance(files, named_screen(DONE, 3), DONE, 3, at), recording_kind=RecordingKind.ECG
        ),
    ]
    with database.write() as session:
        records = [catalog.add_instance(session, each) for each in instances]
        study_id = records[0].study_id
        catalog.begin_analysis(session, study_id, "no image for 30 s", now=at)
    outcomes = {
        f"{DONE}.1.1": ViewOutcome(
            label="a4c", score=0.97, certain=True, mode="2d", frame_count=30
        ),
        f"{DONE}.1.2": ViewOutcome(
            label="psla", score=0.61, certain=False, mode="2d", frame_count=6
        ),
    }
    while True:
        with database.write() as session:
            claimed = catalog.claim_next(session, "4711", at, [RecordingState.TO_VIEW])
            if claimed is None:
                break
            outcome = outcomes[claimed.sop_instance_uid]
            queue = outcome.label == "a4c"
            catalog.record_view(
                session, claimed.recording_id, outcome, queue=queue, now=at,
                reason="" if queue else "the view is uncertain",
            )  # fmt: skip
    with database.write() as session:
        waiting = [catalog.claim_next(session, "4711", at) for _ in range(2)]
        claimed, ecg = sorted(filter(None, waiting), key=lambda one: one.kind is RecordingKind.ECG)
        catalog.refuse_recording(session, ecg.recording_id, "every lead is flat", now=at)
        lv, echonet = (pack_to_row(packs()[name]) for name in ("lv", "echonet"))
        refusal = Refusal(output=REFUSAL[0], reason=REFUSAL[1], pack=packs()["lv"])
        catalog.record_analysis(
            session, claimed.recording_id, [finding_to_row(each) for each in findings()],
            [refusal_to_row(refusal)], [lv, echonet], now=at + timedelta(seconds=21),
        )  # fmt: skip
        kept = keep_result(files, cine, kind=ResultKind.SC, recording_id=claimed.recording_id)
        catalog.add_capture(session, claimed.recording_id, kept, now=at)
    results = [
        kept,
        keep_result(files, page, kind=ResultKind.SC),
        keep_result(files, report, kind=ResultKind.SR),
    ]
    _report(database, study_id, results, ["pacs", "research"], at + timedelta(seconds=75))
    _delivered(database, at + timedelta(seconds=80))
    return Example(
        cine_clip=f"{DONE}.1.1",
        plain_clip=f"{DONE}.1.2",
        ecg=f"{DONE}.1.3",
        report=report.ref.sop_instance_uid,
        summary=page.ref.sop_instance_uid,
        cine=cine.ref.sop_instance_uid,
    )


def _delivered(database: Database, at: datetime) -> None:
    """Every destination has what is for it, by its promise or by its status alone."""
    with database.write() as session:
        due = catalog.claim_due_deliveries(session, at, limit=100)
    for delivery in due:
        with database.write() as session:
            catalog.record_delivered(session, delivery.delivery_id, "0x0000 stored", 0, at)
            row = session.get(Delivery, delivery.delivery_id)
            assert row is not None
            assert row.state is DeliveryState.DELIVERED
            row.promise = Promise.COMMITTED if delivery.destination == "pacs" else Promise.STATUS


def _failed(database: Database, at: datetime) -> None:
    """A study whose report the archive refused."""
    with database.write() as session:
        study_id = catalog.add_instance(session, clip_of(FAILED, received_at=at)).study_id
        catalog.begin_analysis(session, study_id, "quiet", now=at)
        claimed = catalog.claim_next(session, "4711", at)
        assert claimed is not None
        catalog.refuse_recording(session, claimed.recording_id, "it is <b>broken</b>", now=at)
    result = NewResult(
        kind=ResultKind.SR,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.4711",
        series_instance_uid="2.25.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        file_key=f"results/cd/{'0' * 62}.dcm",
        sha256="0" * 64,
        size_bytes=4000,
    )
    _report(database, study_id, [result], ["pacs"], at + timedelta(minutes=4))
    with database.write() as session:
        for delivery in catalog.claim_due_deliveries(session, at + timedelta(minutes=5), limit=9):
            catalog.record_delivery_failed(
                session, delivery.delivery_id, "0xA700 out of resources", 0xA700,
                at + timedelta(minutes=5),
            )  # fmt: skip


def _report(
    database: Database,
    study_id: int,
    results: Sequence[NewResult],
    destinations: Sequence[str],
    at: datetime,
) -> None:
    with database.write() as session:
        catalog.begin_reporting(session, study_id, now=at)
    with database.write() as session:
        catalog.add_results(session, study_id, 1, results, destinations, now=at)


def _instance(
    files: FolderStore, data: bytes, study: str, number: int, at: datetime, **changes: Any
) -> NewInstance:
    digest = hashlib.sha256(data).hexdigest()
    return replace(
        clip_of(study, received_at=at),
        series_instance_uid=f"{study}.1",
        sop_instance_uid=f"{study}.1.{number}",
        content_sha256=digest,
        file_key=files.write(Area.OBJECTS, digest, data),
        size_bytes=len(data),
        **changes,
    )


def _quarantine(session: Any, now: datetime) -> None:
    for reason, sender, status in (
        ("no SOP Instance UID (0008,0018): <script>alert(1)</script>", "CART1", 0xA900),
        ("the SR made here has a fault and is not sent: no template", "", 0),
    ):
        catalog.add_quarantined(
            session,
            NewQuarantined(
                received_at=now, reason=reason, status_sent=status, calling_ae=sender,
                size_bytes=1234, sha256="0" * 64, sop_instance_uid="1.2.3",
                file_key=f"quarantine/cd/{'0' * 62}.dcm",
            ),
        )  # fmt: skip
