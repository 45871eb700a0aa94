"""Studies with results in the outbox, and a clock that a test moves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from node.delivery.commitment import Promises, Terms
from node.delivery.outbox import Outbox
from node.delivery.sending import Answer, Outgoing, Sender
from node.sections import DeliverySettings
from storage import catalog
from storage.database import Database
from storage.files import Area, FolderStore
from storage.states import DeliveryState, ResultKind
from tests.unit.storage_steps import clip_of

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **time: float) -> None:
        """Let time pass."""
        self.now += timedelta(**time)


def small_object(folder: Path, study_uid: str, series_uid: str, *, rows: int = 4) -> Path:
    """A secondary capture of a few pixels, as a file."""
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series_uid
    dataset.Modality = "OT"
    dataset.PatientID = "T"
    dataset.PatientName = "T"
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ConversionType = "WSD"
    dataset.InstanceNumber = dataset.SeriesNumber = 1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = rows
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(rows * rows)
    dataset.file_meta = meta = _meta(dataset)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dcmwrite(path, dataset, enforce_file_format=True)
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    return path


def _meta(dataset: Dataset) -> Dataset:
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


@dataclass
class Studies:
    """A database and a file store with studies whose results wait in the outbox."""

    database: Database
    folder: Path

    def __post_init__(self) -> None:
        self.files = FolderStore(self.folder / "store")
        self.clock = Clock()
        (self.folder / "made").mkdir(exist_ok=True)

    def add(self, *destinations: str, results: int = 1, rows: int = 4) -> str:
        """A study with so many results for some destinations; gives its UID."""
        uid, series = generate_uid(), generate_uid()
        made = [
            self._kept(small_object(self.folder / "made", uid, series, rows=rows))
            for _ in range(results)
        ]
        now = self.clock()
        with self.database.write() as session:
            study_id = catalog.add_instance(session, clip_of(uid, received_at=now)).study_id
            catalog.begin_analysis(session, study_id, "quiet", now=now)
            claimed = catalog.claim_next(session, "test", now)
            assert claimed is not None
            catalog.refuse_recording(session, claimed.recording_id, "a test", now=now)
            catalog.begin_reporting(session, study_id, now=now)
        with self.database.write() as session:
            catalog.add_results(session, study_id, 1, made, destinations, now=now)
        return uid

    def _kept(self, path: Path) -> catalog.NewResult:
        data = path.read_bytes()
        header = dcmread(path, stop_before_pixels=True)
        digest = hashlib.sha256(data).hexdigest()
        return catalog.NewResult(
            kind=ResultKind.SC,
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
            series_instance_uid=str(header.SeriesInstanceUID),
            transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
            file_key=self.files.write(Area.RESULTS, digest, data),
            sha256=digest,
            size_bytes=len(data),
        )

    def outbox(
        self,
        senders: dict[str, Sender],
        terms: dict[str, Terms] | None = None,
        **settings: float,
    ) -> Outbox:
        """An outbox; with ``terms``, one that asks for promises."""
        rules = DeliverySettings(**settings)
        promises = None if terms is None else self.promises(terms, **settings)
        return Outbox(
            self.database, self.files, senders, rules, promises=promises, clock=self.clock
        )

    def promises(self, terms: dict[str, Terms], **settings: float) -> Promises:
        """What asks and hears."""
        return Promises(self.database, terms, DeliverySettings(**settings), clock=self.clock)

    def detail(self, uid: str) -> catalog.StudyDetail:
        """All that is known of a study."""
        with self.database.read() as session:
            return catalog.study_detail(session, uid)

    def states(self, uid: str) -> list[DeliveryState]:
        """The states of its deliveries, in their order."""
        return [item.state for item in self.detail(uid).deliveries]

    def kinds(self, uid: str) -> list[str]:
        """The kinds of events in its timeline."""
        return [event.kind for event in self.detail(uid).timeline]

    def results(self, uid: str) -> list[str]:
        """The SOP instance UIDs of its results."""
        return [item.sop_instance_uid for item in self.detail(uid).results]

    def next_attempt_in_s(self, uid: str) -> float:
        """How long until the first delivery of a study is due."""
        (delivery, *_others) = self.detail(uid).deliveries
        return (delivery.next_attempt_at - self.clock()).total_seconds()


class Taking:
    """An archive that stores everything, and remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        """Take each."""
        for item in objects:
            self.sent.append(item.sop_instance_uid)
            yield Answer(
                delivery_id=item.delivery_id, accepted=True, status=0, text="0x0000 stored"
            )
