"""Archives that do not take every class get every result in a form that they take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from node.delivery.dimse import DimseSender
from node.delivery.outbox import Outbox
from node.delivery.sending import Outgoing, Sender, speaks_of_class
from node.delivery.stow import StowSender
from node.intake import content_digest
from node.results import ClipResult, EncodedObject
from node.results.store import keep_result
from node.sections import DeliverySettings, DicomwebDestination, DimseDestination
from storage import catalog
from storage.database import Database
from storage.files import FolderStore
from storage.states import DeliveryState, ResultKind
from tests.peers import (
    Archive,
    accepts_connections,
    free_port,
    orthanc,
    require,
    running,
    wait_until,
)
from tests.results_examples import (
    A4C,
    LV,
    capture_of,
    source_header,
    study_report,
    tracing_findings,
)
from tests.unit.storage_steps import clip_of

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
CINE = MultiFrameTrueColorSecondaryCaptureImageStorage
OLD_CLASSES = (ComprehensiveSRStorage, SecondaryCaptureImageStorage)


@contextmanager
def choosy(folder: Path, *classes: UID, port: int | None = None) -> Iterator[Archive]:
    """DCMTK's `storescp` with an association profile: it takes these classes and no other."""
    program = require("storescp")
    folder.mkdir(parents=True, exist_ok=True)
    profile = folder.parent / f"{folder.name}.cfg"
    contexts = "\n".join(
        f"PresentationContext{number} = {uid}\\Any" for number, uid in enumerate(classes, start=1)
    )
    profile.write_text(
        "[[TransferSyntaxes]]\n[Any]\nTransferSyntax1 = JPEGBaseline\n"
        "TransferSyntax2 = LocalEndianExplicit\nTransferSyntax3 = LittleEndianImplicit\n"
        f"[[PresentationContexts]]\n[Old]\n{contexts}\n"
        "[[Profiles]]\n[Default]\nPresentationContexts = Old\n"
    )
    port = port or free_port()
    command = [
        program, "-xf", str(profile), "Default", "--bit-preserving", "-aet", "ARCHIVE",
        "-fe", ".dcm", "-od", str(folder), str(port),
    ]  # fmt: skip
    with running(command, log=folder.parent / f"{folder.name}.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        yield Archive(ae_title="ARCHIVE", port=port, folder=folder)


class Place:
    """A database, a file store, and an outbox with one destination."""

    def __init__(self, database: Database, folder: Path, sender: Sender) -> None:
        self.database = database
        self.files = FolderStore(folder / "store")
        self.now = NOW
        self.outbox = Outbox(
            database, self.files, {"pacs": sender}, DeliverySettings(), clock=lambda: self.now
        )

    def study(self, uid: str) -> tuple[EncodedObject, EncodedObject]:
        """A study with a cine and a report in the outbox: (cine, report)."""
        with self.database.write() as session:
            instance = catalog.add_instance(session, clip_of(uid, received_at=NOW))
        cine = capture_of(source_header(1, StudyInstanceUID=uid))
        report = study_report([_read_clip(uid, cine)])
        self.report(instance.study_id, cine, report)
        return cine, report

    def revision(self, uid: str, cine: EncodedObject, first: EncodedObject) -> EncodedObject:
        with self.database.write() as session:
            instance = catalog.add_instance(session, clip_of(uid, received_at=NOW))
        second = study_report([_read_clip(uid, cine)], revision=2, predecessor=first.ref)
        self.report(instance.study_id, cine, second, revision=2)
        return second

    def report(
        self, study_id: int, cine: EncodedObject, report: EncodedObject, revision: int = 1
    ) -> None:
        kept = [
            keep_result(self.files, cine, kind=ResultKind.SC),
            keep_result(self.files, report, kind=ResultKind.SR),
        ]
        with self.database.write() as session:
            catalog.begin_analysis(session, study_id, "quiet", now=self.now)
            claimed = catalog.claim_next(session, "test", self.now)
            assert claimed is not None
            catalog.refuse_recording(session, claimed.recording_id, "a test", now=self.now)
            catalog.begin_reporting(session, study_id, now=self.now)
            catalog.add_results(session, study_id, revision, kept, ["pacs"], now=self.now)

    def deliver(self, rounds: int = 5) -> None:
        """Let the outbox work, as the clock would."""
        for _ in range(rounds):
            self.outbox.deliver_due("pacs")

    def detail(self, uid: str) -> catalog.StudyDetail:
        with self.database.read() as session:
            return catalog.study_detail(session, uid)

    def refused(self) -> set[str]:
        with self.database.read() as session:
            return {each.sop_class_uid for each in catalog.refused_classes(session, "pacs")}

    def events(self, uid: str) -> list[str]:
        return [event.kind for event in self.detail(uid).timeline]


def _read_clip(uid: str, cine: EncodedObject) -> ClipResult:
    return ClipResult(
        header=source_header(1, StudyInstanceUID=uid),
        view=A4C,
        findings=tracing_findings(),
        packs=(LV,),
        capture=cine.ref,
    )


def dimse(archive: Archive) -> DimseSender:
    destination = DimseDestination(
        name="pacs",
        kind="dimse",
        host="127.0.0.1",
        port=archive.port,
        ae_title=archive.ae_title,
    )
    return DimseSender(destination, "ECHONODE", timeout_s=10)


def _ours(dataset: Dataset) -> set[str]:
    """The results of ours that a document's evidence lists."""
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
        if item.ReferencedSOPClassUID in (CINE, SecondaryCaptureImageStorage)
    }


def test_an_archive_of_old_classes_gets_the_same_in_them_and_is_not_asked_again(
    database: Database, tmp_path: Path
) -> None:
    uid, other = generate_uid(), generate_uid()
    with choosy(tmp_path / "kept", *OLD_CLASSES) as archive:
        place = Place(database, tmp_path, dimse(archive))
        cine, report = place.study(uid)
        place.deliver()
        kept = [dcmread(path) for path in archive.files()]

        assert {each.SOPClassUID for each in kept} == set(OLD_CLASSES)
        assert kept[-1].SOPClassUID == ComprehensiveSRStorage  # after what it points at
        pictures = {str(each.SOPInstanceUID) for each in kept[:-1]}
        assert _ours(kept[-1]) == pictures
        assert place.refused() == {CINE, Comprehensive3DSRStorage}
        shown = place.detail(uid)
        assert shown.study.state == "done"
        states = {item.sop_instance_uid: item.state for item in shown.deliveries}
        assert states[cine.ref.sop_instance_uid] is DeliveryState.REPLACED
        assert states[report.ref.sop_instance_uid] is DeliveryState.REPLACED
        arrived = {content_digest(path) for path in archive.files()}
        stood_in = [
            made
            for made in shown.results
            if states[made.sop_instance_uid] is DeliveryState.DELIVERED
        ]
        assert {each.stands_for for each in stood_in} == {
            cine.ref.sop_instance_uid,
            report.ref.sop_instance_uid,
        }
        assert {content_digest(place.files.path(made.file_key)) for made in stood_in} == arrived

        # The next study's results go in their other form at once.
        place.study(other)
        place.deliver(2)
        assert len(archive.files()) == 2 * len(kept)
        tries = {item.kind: item.last_answer for item in place.detail(other).deliveries
                 if item.state is DeliveryState.REPLACED}  # fmt: skip
        assert set(tries.values()) == {""}  # nothing of it was even offered

        # A revision names what the archive has of the first report.
        first = kept[-1]
        place.revision(uid, cine, report)
        place.deliver()
        (second,) = [
            each
            for each in map(dcmread, archive.files())
            if each.StudyInstanceUID == uid and each.InstanceNumber == 2
        ]
        named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
        assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
        assert second.SeriesInstanceUID == first.SeriesInstanceUID
        assert _ours(second) == pictures


def test_an_archive_that_learned_a_class_is_asked_anew_after_a_while_or_when_told(
    database: Database, tmp_path: Path
) -> None:
    port = free_port()
    uids = [generate_uid() for _ in range(3)]
    with choosy(tmp_path / "before", *OLD_CLASSES, port=port) as archive:
        place = Place(database, tmp_path, dimse(archive))
        place.study(uids[0])
        place.deliver()
        assert place.refused() == {CINE, Comprehensive3DSRStorage}
    with choosy(tmp_path / "after", *OLD_CLASSES, CINE, port=port) as archive:
        place.study(uids[1])
        place.deliver()
        assert CINE not in {dcmread(path).SOPClassUID for path in archive.files()}
        place.now += timedelta(days=8)
        place.study(uids[2])
        place.deliver()
        asked = [dcmread(path) for path in archive.files()]
        of_last = {each.SOPClassUID for each in asked if each.StudyInstanceUID == uids[2]}
        assert of_last == {CINE, ComprehensiveSRStorage}
        with database.write() as session:
            assert catalog.forget_refused_classes(session, "pacs") >= 1
        assert place.refused() == set()


def test_an_archive_that_takes_no_form_says_so_and_is_tried_again(
    database: Database, tmp_path: Path
) -> None:
    uid = generate_uid()
    with choosy(tmp_path / "kept", ComprehensiveSRStorage) as archive:
        place = Place(database, tmp_path, dimse(archive))
        place.study(uid)
        place.deliver()
        kept = [dcmread(path) for path in archive.files()]
    assert [each.SOPClassUID for each in kept] == [ComprehensiveSRStorage]
    waiting = [item for item in place.detail(uid).deliveries if item.state is DeliveryState.WAITING]
    assert {item.kind for item in waiting} == {ResultKind.SC}
    assert "enable SOP class Secondary Capture Image Storage" in waiting[0].last_answer
    assert place.detail(uid).study.state == "delivering"


def test_an_archive_that_takes_not_one_of_our_classes_is_told_apart_from_one_that_is_away(
    tmp_path: Path,
) -> None:
    report = study_report()
    path = tmp_path / "report.dcm"
    path.write_bytes(report.data)
    going = Outgoing(
        delivery_id=1,
        path=path,
        sop_class_uid=report.ref.sop_class_uid,
        sop_instance_uid=report.ref.sop_instance_uid,
        transfer_syntax_uid=report.transfer_syntax_uid,
    )
    with choosy(tmp_path / "kept", SecondaryCaptureImageStorage) as archive:
        (answer,) = dimse(archive).send([going])
    assert answer.class_refused
    assert "accepted none of our presentation contexts" in answer.text
    (answer,) = dimse(Archive(ae_title="NOBODY", port=free_port())).send([going])
    assert not answer.class_refused


@pytest.mark.parametrize(
    ("status", "refused"),
    [(0x0122, True), (0xA900, True), (0xA9FF, True), (0xA700, False), (0xAA00, False),
     (0xC000, False), (0x0000, False), (0xB007, False), (0x0124, False)],
)  # fmt: skip
def test_a_status_speaks_of_the_class_or_of_something_else(status: int, refused: bool) -> None:
    assert speaks_of_class(status) is refused


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (409, None, True),
        (409, 0x0122, True),
        (400, 0xA900, True),
        (409, 0x0110, False),
        (409, 0xA700, False),
        (503, None, False),
    ],
)
def test_an_archive_tells_by_stow_that_it_does_not_take_a_class(
    status: int, body: int | None, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(b"bytes")
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [body]}}]}}

    def answers(_client: httpx.Client, _url: str, **_options: object) -> httpx.Response:
        return httpx.Response(status, content=b"" if body is None else json.dumps(failed).encode())

    monkeypatch.setattr(httpx.Client, "post", answers)
    sender = StowSender(DicomwebDestination(name="web", kind="dicomweb", url="http://127.0.0.1:9"))
    going = Outgoing(
        delivery_id=1, path=path, sop_class_uid="1.2", sop_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )  # fmt: skip
    (answer,) = sender.send([going])
    assert not answer.accepted
    assert answer.class_refused is refused


def test_what_goes_instead_is_found_at_orthanc_as_it_was_sent(
    database: Database, tmp_path: Path
) -> None:
    uid = generate_uid()
    with orthanc(tmp_path / "orthanc") as archive:
        destination = DicomwebDestination(
            name="pacs", kind="dicomweb", url=f"{archive.url}/dicom-web"
        )
        place = Place(database, tmp_path, StowSender(destination, timeout_s=10))
        with database.write() as session:  # Orthanc takes every class: it is said to take few
            for refused in (CINE, Comprehensive3DSRStorage):
                catalog.note_refused_class(session, "pacs", refused, "a test", NOW)
        place.study(uid)
        place.deliver()
        assert place.detail(uid).study.state == "done"
        stood_in = [made for made in place.detail(uid).results if made.stands_for is not None]
        for made in stood_in:
            found = httpx.get(
                f"{archive.url}/dicom-web/instances",
                params={"SOPInstanceUID": made.sop_instance_uid},
                headers={"Accept": "application/dicom+json"},
            ).json()
            assert found[0]["00080016"]["Value"] == [made.sop_class_uid]
        (identifier,) = httpx.post(
            f"{archive.url}/tools/find",
            json={"Level": "Instance",
                  "Query": {"StudyInstanceUID": uid, "Modality": "SR"}},
        ).json()  # fmt: skip
        sent = next(made for made in stood_in if made.kind is ResultKind.SR)
        there = httpx.get(f"{archive.url}/instances/{identifier}/file").content
        assert there == place.files.path(sent.file_key).read_bytes()
