"""Small studies in an archive, and a fetch of them in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import JPEGBaseline8Bit, generate_uid

from node.doors.taking import OpenIntake, open_intake
from node.fetching.limits import Pace, Rate
from node.fetching.model import Archive, StudyReport, Wish
from node.fetching.plan import Plan
from node.fetching.receiving import Receiver
from node.fetching.run import Fetch, Summary, Terms
from node.settings import Settings
from storage import catalog
from storage.database import Database
from tests.ultrasound_files import speckle, ultrasound

NAME = "Geheim^Patient"


def study_of(
    count: int, *, day: str = "20260105", series: int = 1, **changes: Any
) -> list[FileDataset]:
    """Uncompressed clips of a study, spread over series."""
    study = changes.pop("StudyInstanceUID", None) or generate_uid()
    numbers = [generate_uid() for _ in range(series)]
    clips = []
    for number in range(count):
        clip = ultrasound(
            speckle((1, 8, 8), number),
            StudyInstanceUID=study,
            SeriesInstanceUID=numbers[number % series],
            SOPInstanceUID=generate_uid(),
            StudyDate=day,
            StudyDescription="Echo",
            AccessionNumber="A1",
            PatientName=NAME,
            PatientID="4711",
            SeriesNumber=number % series + 1,
            StudyTime="101112",
            StudyID="1",
            InstanceNumber=number + 1,
            **changes,
        )
        clip.file_meta.MediaStorageSOPInstanceUID = clip.SOPInstanceUID
        clips.append(clip)
    return clips


def compressed(clip: FileDataset, frame: bytes) -> FileDataset:
    """The same with a frame that is JPEG already."""
    from pydicom.encaps import encapsulate

    clip.PixelData = encapsulate([frame])
    clip["PixelData"].is_undefined_length = True
    clip.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return clip


@dataclass
class Watch:
    """Writes down what it is told."""

    waited: list[tuple[str, float | None]] = field(default_factory=list)
    begun: list[Plan] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    reports: list[StudyReport] = field(default_factory=list)
    stop_after: int | None = None  #: objects, after which somebody presses Ctrl-C

    def asked(self, question: str, found: int) -> None:
        """A query was answered."""

    def begins(self, plan: Plan) -> None:
        """A study is fetched now."""
        self.begun.append(plan)

    def took(self, size_bytes: int) -> None:
        """An object was taken."""
        self.taken.append(size_bytes)
        if self.stop_after is not None and len(self.taken) >= self.stop_after:
            raise KeyboardInterrupt

    def ended(self, report: StudyReport) -> None:
        """A study has come to its end."""
        self.reports.append(report)

    def waits(self, why: str, wait_s: float | None) -> None:
        """The fetch holds itself back."""
        self.waited.append((why, wait_s))


@dataclass
class Site:
    """The node's side of a fetch, without a node."""

    opened: OpenIntake
    slept: list[float] = field(default_factory=list)

    @property
    def database(self) -> Database:
        """Its rows."""
        return self.opened.database

    def fetch(
        self,
        archive: Any,
        wish: Wish,
        *,
        watch: Watch | None = None,
        rate: Rate | None = None,
        title: str = "ECHONODE",
        **terms: Any,
    ) -> Summary:
        """Fetch without a pause that is waited for."""
        work = self.prepare(archive, watch or Watch(), rate or Rate(), title, **terms)
        return work.run(wish)

    def prepare(
        self, archive: Archive, watch: Watch, rate: Rate, title: str = "ECHONODE", **terms: Any
    ) -> Fetch:
        """A fetch that has not begun."""
        pace = Pace(rate, sleep=self.slept.append)
        receiver = Receiver(self.opened, archive, title, pace, told=watch.took)
        setattr(archive, "receiver", receiver)  # noqa: B010 - of both kinds
        return Fetch(
            archive, self.opened, receiver, pace, Terms(**terms), watch, sleep=self.slept.append
        )

    def here(self, study: str) -> catalog.StudyHere:
        """What is here of a study."""
        with self.database.read() as session:
            return catalog.study_here(session, study)

    def study(self, uid: str) -> catalog.StudyRecord:
        """Its row."""
        with self.database.read() as session:
            return catalog.find_study(session, uid)

    def is_released(self, uid: str) -> bool:
        """Whether it need not wait for the long quiet time."""
        soon = datetime.now(UTC) + timedelta(seconds=5)
        with self.database.read() as session:
            complete = catalog.studies_to_complete(session, soon, 1e6, 1.0, 1e6)
        return uid in {one.study_instance_uid for one in complete}

    def left_over(self) -> list[Path]:
        """Files that are half received."""
        return list(self.opened.files.incoming_folder.iterdir())


@contextmanager
def fetching_site(database: Database, folder: Path) -> Iterator[Site]:
    """A store beside a database that is there."""
    settings = Settings(
        data_dir=folder, database_url=str(database.url), disk={"keep_free_bytes": 0}
    )
    with open_intake(settings) as opened:
        yield Site(opened=opened)


def uids(clips: Sequence[Dataset]) -> set[str]:
    """SOP instance UIDs."""
    return {str(clip.SOPInstanceUID) for clip in clips}
