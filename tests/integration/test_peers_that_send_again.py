"""The same again: other content under a UID, two machines at once, hours later, our own results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from node.doors.scp import DimseDoor, _answer
from node.intake import Intake, Receipt, Status
from node.sections import DimseSettings
from storage import catalog
from storage.catalog import StudyState
from storage.database import Database
from storage.files import FolderStore
from tests.integration.test_dimse_door import small_image
from tests.peers import orthanc, send
from tests.results_examples import read, study_capture, study_report
from tests.running_node import variant

pytestmark = [
    # The network library leaves the socket of an aborted association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]


@dataclass
class Receiving:
    door: DimseDoor
    database: Database
    files: FolderStore
    folder: Path
    now: list[datetime] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.door.port

    def written(self, dataset: Dataset, name: str = "still.dcm") -> Path:
        path = self.folder / name
        dataset.save_as(path, enforce_file_format=True)
        return path

    def study(self, uid: str) -> catalog.StudyDetail:
        with self.database.read() as session:
            return catalog.study_detail(session, uid)

    def kept(self, uid: str) -> catalog.InstanceRecord | None:
        with self.database.read() as session:
            return catalog.find_instance(session, uid)

    def quarantined(self) -> tuple[catalog.QuarantinedRecord, ...]:
        with self.database.read() as session:
            return catalog.list_quarantined(session)


@pytest.fixture
def receiving(database: Database, tmp_path: Path) -> Iterator[Receiving]:
    files = FolderStore(tmp_path / "store")
    now = [datetime(2026, 1, 5, 12, 0, tzinfo=UTC)]
    door = DimseDoor(
        DimseSettings(host="127.0.0.1", port=0),
        Intake(database, files, clock=lambda: now[0]),
        str(files.incoming_folder),
    )
    door.start()
    yield Receiving(door, database, files, tmp_path, now)
    door.stop()


def test_two_machines_with_the_same_study_at_once_are_both_acknowledged_and_it_is_kept_once(
    receiving: Receiving,
) -> None:
    study = generate_uid()
    stills = [small_image(StudyInstanceUID=study) for _ in range(15)]
    paths = [receiving.written(still, f"{n}.dcm") for n, still in enumerate(stills)]
    ended: list[int] = []
    machines = [
        threading.Thread(
            target=lambda: ended.append(send(receiving.port, *paths, options=("-xe",)).returncode)
        )
        for _ in range(2)
    ]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(60)

    assert ended == [0, 0]
    assert receiving.study(study).study.images == 15
    assert len(list((receiving.files.root / "objects").rglob("*.dcm"))) == 15
    assert receiving.quarantined() == ()


def test_a_name_that_the_archive_corrected_is_put_aside_and_the_first_is_kept(
    receiving: Receiving, tmp_path: Path
) -> None:
    first = variant(tmp_path, PatientName="Planted^Wrong")
    corrected = dcmread(first)
    corrected.PatientName = "Planted^Right"
    assert send(receiving.port, first, options=("-xy",)).returncode == 0
    before = receiving.kept(corrected.SOPInstanceUID)

    again = send(receiving.port, receiving.written(corrected), options=("-xy",))

    (aside,) = receiving.quarantined()
    assert again.returncode == 0  # a router that heard of a failure would send without end
    assert receiving.kept(corrected.SOPInstanceUID) == before
    assert "it differs in PatientName; the pixel data are the same" in aside.reason
    assert "Planted" not in aside.reason
    assert receiving.study(str(corrected.StudyInstanceUID)).study.revision == 1


def test_other_pixels_under_a_known_uid_are_told_as_such(receiving: Receiving) -> None:
    still = small_image()
    send(receiving.port, receiving.written(still), options=("-xe",))
    still["PixelData"].value = bytes(63) + b"\x01"
    still.InstanceNumber = 77
    send(receiving.port, receiving.written(still), options=("-xe",))

    (aside,) = receiving.quarantined()
    assert "it differs in InstanceNumber; the pixel data differ" in aside.reason


def test_images_of_one_study_over_hours_make_revisions_and_not_studies(
    receiving: Receiving,
) -> None:
    study = generate_uid()
    for hours in (0, 2, 5):
        receiving.now[0] += timedelta(hours=hours)
        still = small_image(StudyInstanceUID=study)
        assert send(receiving.port, receiving.written(still), options=("-xe",)).returncode == 0
        with receiving.database.write() as session:
            (complete,) = catalog.studies_to_complete(
                session, receiving.now[0] + timedelta(seconds=60), 30, 10, 3600
            )
            catalog.begin_analysis(session, complete.study_id, complete.reason)

    shown = receiving.study(study).study
    assert (shown.revision, shown.images, shown.state) == (3, 3, StudyState.ANALYSING)


def test_our_own_results_that_an_archive_routes_back_are_kept_and_start_nothing(
    receiving: Receiving, tmp_path: Path
) -> None:
    results = [read(study_report()), read(study_capture())]
    paths = [receiving.written(result, f"{n}.dcm") for n, result in enumerate(results)]
    with orthanc(tmp_path / "orthanc") as archive:
        for path in paths:
            httpx.post(f"{archive.url}/instances", content=path.read_bytes()).raise_for_status()
        node = {"AET": "ECHONODE", "Host": "127.0.0.1", "Port": receiving.port}
        httpx.put(f"{archive.url}/modalities/node", json=node).raise_for_status()
        for study in httpx.get(f"{archive.url}/studies").json():
            httpx.post(
                f"{archive.url}/modalities/node/store", json=study, timeout=30
            ).raise_for_status()

    for result in results:
        kept = receiving.kept(str(result.SOPInstanceUID))
        assert kept is not None
        assert kept.own
        assert kept.recording_id is None
    assert receiving.quarantined() == ()


def test_no_words_of_a_broken_object_go_back_to_its_sender() -> None:
    broken = Receipt(
        status=Status.CANNOT_UNDERSTAND, comment="cannot be parsed: bad value 'Planted^Name'"
    )

    status, comment = _answer(broken)

    assert status == Status.CANNOT_UNDERSTAND
    assert "Planted" not in comment
    assert comment
