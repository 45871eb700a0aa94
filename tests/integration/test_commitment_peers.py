"""Promises by real archives: Orthanc, DCMTK's, and one of pynetdicom that lies."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from node.delivery.asking import Kept, Reply
from node.delivery.commitment import Terms
from node.delivery.dimse import DimseSender
from node.delivery.dimse_archive import DimseArchive
from node.delivery.outbox import Outbox
from node.delivery.web_archive import WebArchive
from node.doors.scp import DimseDoor
from node.intake import Intake
from node.sections import DicomwebDestination, DimseDestination, DimseSettings
from storage import catalog
from storage.database import Database
from storage.states import DeliveryState, Promise
from tests.outbox_steps import Studies
from tests.peers import Archive, dcmqrscp, free_port, orthanc, storescp, wait_until

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
    # And its own SCP, which plays the archive, the files of what it receives in pieces.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO"),
    pytest.mark.filterwarnings("ignore:unclosed file <_io:ResourceWarning"),
]

DONE = "done"


class Node:
    """The parts of a node that send, ask and hear, with one archive."""

    def __init__(
        self, database: Database, folder: Path, archive: Archive, *, title: str = "ECHONODE"
    ) -> None:
        self.studies = Studies(database, folder)
        destination = DimseDestination(
            name="pacs",
            kind="dimse",
            host="127.0.0.1",
            port=archive.port,
            ae_title=archive.ae_title,
        )
        asking = DimseArchive(destination, title, timeout_s=10, linger_s=1)
        self.terms = {"pacs": Terms(archive=asking, ae_title=archive.ae_title)}
        sender = DimseSender(destination, title, timeout_s=10)
        self.outbox: Outbox = self.studies.outbox({"pacs": sender}, self.terms)
        self.promises = self.studies.promises(self.terms)
        self.database = database

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """With the door open for reports."""
        door = DimseDoor(
            DimseSettings.model_validate({"host": "127.0.0.1", "port": port}),
            Intake(self.database, self.studies.files),
            str(self.studies.files.incoming_folder),
            commitment_reported=self.promises.reported,
        )
        door.start()
        try:
            yield
        finally:
            door.stop()

    def round(self) -> None:
        self.outbox.deliver_due("pacs")
        self.outbox.ask_due("pacs")

    def state(self, uid: str) -> str:
        return str(self.studies.detail(uid).study.state)

    def promises_of(self, uid: str) -> list[Promise | None]:
        return [item.promise for item in self.studies.detail(uid).deliveries]


DOOR = free_port()


@pytest.fixture(scope="module")
def orthanc_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    known = {"ECHONODE": DOOR, "DEAF": free_port()}
    with orthanc(tmp_path_factory.mktemp("orthanc"), modalities=known) as archive:
        yield archive


def instances(archive: Archive, sop_instance_uid: str) -> list[str]:
    """Orthanc's own names for the objects with a UID."""
    query = {"Level": "Instance", "Query": {"SOPInstanceUID": sop_instance_uid}}
    found: list[str] = httpx.post(f"{archive.url}/tools/find", json=query).json()
    return found


def test_orthanc_promises_what_it_has_and_gets_again_what_it_lost(
    orthanc_archive: Archive, database: Database, tmp_path: Path
) -> None:
    node = Node(database, tmp_path, orthanc_archive)
    kept = node.studies.add("pacs", results=3)
    lost = node.studies.add("pacs", results=2)
    node.outbox.deliver_due("pacs")
    (gone, stays) = node.studies.results(lost)
    for name in instances(orthanc_archive, gone):
        httpx.delete(f"{orthanc_archive.url}/instances/{name}").raise_for_status()

    with node.listening(DOOR):
        node.outbox.ask_due("pacs")
        wait_until(lambda: node.state(kept) == DONE, what="Orthanc promised")
        wait_until(
            lambda: node.studies.states(lost) == [DeliveryState.WAITING, DeliveryState.DELIVERED],
            what="Orthanc said what it does not have",
        )
        assert "0x0112" in node.studies.detail(lost).deliveries[0].last_answer
        node.studies.clock.pass_(seconds=30)
        node.round()
        wait_until(lambda: node.state(lost) == DONE, what="Orthanc promised at last")

    assert set(node.promises_of(kept) + node.promises_of(lost)) == {Promise.COMMITTED}
    assert [len(instances(orthanc_archive, uid)) for uid in (gone, stays)] == [1, 1]


def test_orthanc_that_cannot_call_back_is_queried(
    orthanc_archive: Archive, database: Database, tmp_path: Path
) -> None:
    node = Node(database, tmp_path, orthanc_archive, title="DEAF")
    uid = node.studies.add("pacs", results=3)
    lost, *_kept = node.studies.results(uid)
    node.round()
    assert node.state(uid) == "delivering"
    for name in instances(orthanc_archive, lost):
        httpx.delete(f"{orthanc_archive.url}/instances/{name}").raise_for_status()

    node.studies.clock.pass_(seconds=601)
    node.outbox.ask_due("pacs")
    assert node.studies.states(uid) == [
        DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.DELIVERED
    ]  # fmt: skip
    assert node.promises_of(uid)[1] is Promise.FOUND


def test_orthanc_that_does_not_know_us_is_believed_by_its_status_when_it_was_silent_often(
    orthanc_archive: Archive, database: Database, tmp_path: Path
) -> None:
    node = Node(database, tmp_path, orthanc_archive, title="STRANGER")
    uid = node.studies.add("pacs", results=2)
    node.round()
    for _ in range(3):  # it ends the association at each request and each query
        assert node.studies.states(uid) == [DeliveryState.SENT] * 2
        node.studies.clock.pass_(seconds=601)
        node.outbox.ask_due("pacs")
    assert node.state(uid) == DONE
    assert node.promises_of(uid) == [Promise.STATUS] * 2
    assert [len(instances(orthanc_archive, each)) for each in node.studies.results(uid)] == [1, 1]


def test_orthanc_shows_what_it_has_by_qido(
    orthanc_archive: Archive, database: Database, tmp_path: Path
) -> None:
    node = Node(database, tmp_path, orthanc_archive)
    uid = node.studies.add("pacs", results=2)
    node.outbox.deliver_due("pacs")
    destination = DicomwebDestination(
        name="web", kind="dicomweb", url=f"{orthanc_archive.url}/dicom-web"
    )
    objects = [
        Kept(
            study_instance_uid=uid,
            series_instance_uid=item.series_instance_uid,
            sop_instance_uid=item.sop_instance_uid,
            sop_class_uid=item.sop_class_uid,
        )
        for item in node.studies.detail(uid).results
    ]
    strange = [
        Kept(
            study_instance_uid=uid,
            series_instance_uid=objects[0].series_instance_uid,
            sop_instance_uid="1.2.3.4",
            sop_class_uid=objects[0].sop_class_uid,
        ),
        Kept(
            study_instance_uid="1.2.3.4",
            series_instance_uid="1.2.3.5",
            sop_instance_uid="1.2.3.6",
            sop_class_uid=objects[0].sop_class_uid,
        ),
    ]
    seen = WebArchive(destination, timeout_s=10).look([*objects, *strange])
    assert seen.reply is Reply.TAKEN, seen.text
    assert seen.found == {item.sop_instance_uid for item in objects}


def test_an_archive_of_dcmtk_that_promises_nothing_shows_what_it_has(
    database: Database, tmp_path: Path
) -> None:
    with dcmqrscp(tmp_path / "qr") as archive:
        node = Node(database, tmp_path, archive)
        uid = node.studies.add("pacs", results=3)
        node.round()
        detail = node.studies.detail(uid)

    assert detail.study.state == DONE, detail.deliveries
    assert {item.promise for item in detail.deliveries} == {Promise.FOUND}
    assert "no storage commitment" in detail.deliveries[0].last_answer


def test_storescp_that_can_be_asked_nothing_is_believed_and_the_timeline_says_so(
    database: Database, tmp_path: Path
) -> None:
    with storescp(tmp_path / "kept") as archive:
        node = Node(database, tmp_path, archive)
        uid = node.studies.add("pacs", results=2)
        node.round()
        files = archive.files()
        with database.write() as session:
            catalog.resend(session, uid, now=node.studies.clock())
        node.round()
        again = archive.files()

    detail = node.studies.detail(uid)
    assert detail.study.state == DONE
    assert {item.promise for item in detail.deliveries} == {Promise.STATUS}
    (message, *_) = [event.message for event in detail.timeline if event.kind == "delivered"]
    assert "could not be asked for a promise" in message
    assert len(files) == len(again) == 2  # what is sent twice is there once


class Liar:
    """An archive that stores, and answers requests for promises as a test tells it."""

    def __init__(self, how: Callable[[Liar, Association, Dataset], None]) -> None:
        self.how = how
        self.stored: list[str] = []
        self.requests: list[Dataset] = []
        self.answers: list[int | None] = []
        self.door: int | None = None
        self.title = "LIAR"
        entity = AE("LIAR")
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(StorageCommitmentPushModel)
        self._server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._asked)],
        )
        self.archive = Archive(ae_title="LIAR", port=self._server.server_address[1])
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *_error: object) -> None:
        for thread in self._threads:
            thread.join(20)
        self._server.shutdown()
        gc.collect()  # what it left open is left here, and not in another test

    def _store(self, event: evt.Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))  # type: ignore[union-attr]
        return 0x0000

    def _asked(self, event: evt.Event) -> tuple[int, Dataset | None]:
        request = event.action_information
        self.requests.append(request)
        thread = threading.Thread(target=self.how, args=(self, event.assoc, request))
        self._threads.append(thread)
        thread.start()
        return 0x0000, None

    def on_another(self, request: Dataset, *, keeps: bool) -> None:
        """Report to the node's own port, as PS3.4 J.3.3 has it."""
        assert self.door is not None
        entity = AE(self.title)
        association = entity.associate(
            "127.0.0.1",
            self.door,
            contexts=[build_context(StorageCommitmentPushModel, ImplicitVRLittleEndian)],
            ae_title="ECHONODE",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        assert association.is_established
        self.on(association, request, keeps=keeps)
        association.release()

    def on(self, association: Association, request: Dataset, *, keeps: bool) -> None:
        """Report on an association."""
        information = Dataset()
        information.TransactionUID = request.TransactionUID
        if keeps:
            information.ReferencedSOPSequence = request.ReferencedSOPSequence
        else:
            information.FailedSOPSequence = request.ReferencedSOPSequence
            for item in information.FailedSOPSequence:
                item.FailureReason = 0x0112
        status, _ = association.send_n_event_report(
            information,
            1 if keeps else 2,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        self.answers.append(status.Status if "Status" in status else None)


def test_a_report_on_the_same_association_is_taken(database: Database, tmp_path: Path) -> None:
    with Liar(lambda liar, line, request: liar.on(line, request, keeps=True)) as liar:
        node = Node(database, tmp_path, liar.archive)
        uid = node.studies.add("pacs", results=2)
        node.round()
        assert node.state(uid) == DONE
        assert node.promises_of(uid) == [Promise.COMMITTED] * 2
        wait_until(lambda: liar.answers == [0x0000], what="the report was answered")


def test_reports_on_other_associations_twice_and_from_the_wrong_one(
    database: Database, tmp_path: Path
) -> None:
    with Liar(lambda _liar, _line, _request: None) as liar:
        node = Node(database, tmp_path, liar.archive)
        liar.door = free_port()
        with node.listening(liar.door):
            uid = node.studies.add("pacs")
            node.round()
            assert node.state(uid) == "delivering"  # it took the request and was silent
            (request,) = liar.requests

            liar.title = "STRANGER"
            liar.on_another(request, keeps=True)
            assert node.state(uid) == "delivering"
            liar.title = "LIAR"
            liar.on_another(request, keeps=True)
            assert node.state(uid) == DONE
            liar.on_another(request, keeps=True)
            liar.on_another(request, keeps=False)
            assert node.state(uid) == DONE

    assert liar.answers == [0x0112, 0x0000, 0x0000, 0x0000]
    assert len(liar.stored) == 1


def test_an_archive_that_stores_and_always_says_no_gets_the_same_object_until_it_has_failed(
    database: Database, tmp_path: Path
) -> None:
    with Liar(lambda liar, line, request: liar.on(line, request, keeps=False)) as liar:
        node = Node(database, tmp_path, liar.archive)
        node.outbox = node.studies.outbox(
            {"pacs": node.outbox._senders["pacs"]}, node.terms, give_up_after_s=60
        )
        uid = node.studies.add("pacs")
        for _ in range(8):
            node.round()
            if node.state(uid) == "failed":
                break
            node.studies.clock.pass_(seconds=node.studies.next_attempt_in_s(uid))

    assert node.state(uid) == "failed"
    assert len(liar.stored) >= 3
    assert set(liar.stored) == set(node.studies.results(uid))
    assert "0x0112" in node.studies.detail(uid).study.reason
