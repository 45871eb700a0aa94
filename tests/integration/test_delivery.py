"""The outbox and the ways out, with DCMTK and Orthanc as archives."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom.transport import AssociationSocket

from node.delivery.dimse import DimseSender
from node.delivery.outbox import Outbox
from node.delivery.sending import Answer, Outgoing, Sender
from node.delivery.stow import StowSender
from node.intake import content_digest
from node.sections import DeliverySettings, DicomwebDestination, DimseDestination
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import Area, FolderStore
from storage.states import DeliveryState, ResultKind
from tests.peers import (
    Archive,
    accepts_connections,
    free_port,
    orthanc,
    require,
    running,
    storescp,
    wait_until,
)
from tests.running_node import variant
from tests.unit.storage_steps import clip_of

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def outgoing(path: Path, delivery_id: int = 1) -> Outgoing:
    header = dcmread(path, stop_before_pixels=True)
    return Outgoing(
        delivery_id=delivery_id,
        path=path,
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
    )


def to(archive: Archive, **changes: object) -> DimseSender:
    values = {
        "name": "pacs",
        "kind": "dimse",
        "host": "127.0.0.1",
        "port": archive.port,
        "ae_title": archive.ae_title,
        **changes,
    }
    return DimseSender(DimseDestination.model_validate(values), "ECHONODE", timeout_s=10)


def only(answers: Iterator[Answer]) -> Answer:
    (answer,) = answers
    return answer


def test_a_jpeg_object_reaches_the_archive_unchanged(tmp_path: Path) -> None:
    path = variant(tmp_path)
    with storescp(tmp_path / "kept") as archive:
        answer = only(to(archive).send([outgoing(path)]))
        (kept,) = archive.files()
        received = dcmread(kept)
        assert content_digest(kept) == content_digest(path)

    assert (answer.accepted, answer.status) == (True, 0x0000)
    assert received.file_meta.TransferSyntaxUID == dcmread(path).file_meta.TransferSyntaxUID
    assert received == dcmread(path)


def test_an_archive_that_takes_no_jpeg_gets_the_same_object_unpacked(tmp_path: Path) -> None:
    path = variant(tmp_path)
    folder = tmp_path / "kept"
    folder.mkdir()
    port = free_port()
    command = [
        require("storescp"),
        "--prefer-uncompr",
        "-fe",
        ".dcm",
        "-od",
        str(folder),
        str(port),
    ]
    with running(command, log=tmp_path / "storescp.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        archive = Archive(ae_title="ARCHIVE", port=port, folder=folder)
        answer = only(to(archive).send([outgoing(path)]))
        (kept,) = archive.files()
        received = dcmread(kept)

    assert answer.accepted
    assert not received.file_meta.TransferSyntaxUID.is_encapsulated
    assert received.SOPInstanceUID == dcmread(path).SOPInstanceUID
    assert received.NumberOfFrames == 30


def test_an_archive_that_is_down_gives_an_answer_for_each_object(tmp_path: Path) -> None:
    one, two = variant(tmp_path), variant(tmp_path)
    nobody = Archive(ae_title="NOBODY", port=free_port())

    answers = list(to(nobody).send([outgoing(one, 1), outgoing(two, 2)]))

    assert [(answer.delivery_id, answer.accepted) for answer in answers] == [(1, False), (2, False)]
    assert "cannot be reached" in answers[0].text


def test_an_archive_that_rejects_us_is_quoted(tmp_path: Path) -> None:
    path = variant(tmp_path)
    port = free_port()
    command = [require("storescp"), "--refuse", "-od", str(tmp_path), str(port)]
    with running(command, log=tmp_path / "storescp.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        answer = only(to(Archive(ae_title="ARCHIVE", port=port)).send([outgoing(path)]))

    assert not answer.accepted
    assert "rejected the association" in answer.text


def test_a_rejection_is_quoted_even_where_the_peer_has_closed_before_we_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = AssociationSocket.__init__

    def late(self: AssociationSocket, *args: Any, **named: Any) -> None:
        plain(self, *args, **named)
        self._ready = _SetOnceClosed(self)

    monkeypatch.setattr(AssociationSocket, "__init__", late)
    port = free_port()
    command = [require("storescp"), "--refuse", "-od", str(tmp_path), str(port)]
    with running(command, log=tmp_path / "storescp.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        archive = Archive(ae_title="ARCHIVE", port=port)
        answer = only(to(archive).send([outgoing(variant(tmp_path))]))

    assert "rejected the association: No reason given" in answer.text


class _SetOnceClosed(threading.Event):
    """For the thread that waits until the connection is open: it comes when that has closed."""

    def __init__(self, connection: AssociationSocket) -> None:
        super().__init__()
        self._connection = connection

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002  as its parent has it
        wait_until(self.is_set, what="the connection was tried")
        wait_until(lambda: not self._connection._is_connected, what="the connection has closed")
        return True


@pytest.fixture(scope="module")
def orthanc_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as archive:
        yield archive


def stow(archive: Archive) -> StowSender:
    destination = DicomwebDestination(name="web", kind="dicomweb", url=f"{archive.url}/dicom-web")
    return StowSender(destination, timeout_s=10)


def test_orthanc_takes_an_object_by_stow_and_has_it(
    orthanc_archive: Archive, tmp_path: Path
) -> None:
    path = variant(tmp_path)

    answer = only(stow(orthanc_archive).send([outgoing(path)]))

    found = httpx.post(
        f"{orthanc_archive.url}/tools/find",
        json={
            "Level": "Instance",
            "Query": {"SOPInstanceUID": str(dcmread(path).SOPInstanceUID)},
        },
    ).json()
    assert (answer.accepted, answer.status) == (True, 200)
    assert len(found) == 1


def test_orthanc_refusing_an_object_by_stow_is_not_taken_for_success(
    orthanc_archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "broken.dcm"
    whole = variant(tmp_path)
    path.write_bytes(b"these bytes are no DICOM object")
    broken = Outgoing(
        delivery_id=1,
        path=path,
        sop_class_uid="1.2",
        sop_instance_uid=generate_uid(),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )

    answers = list(stow(orthanc_archive).send([broken, outgoing(whole, 2)]))

    assert [answer.accepted for answer in answers] == [False, True]


class Scripted:
    """An archive that answers as told, and remembers what it was sent."""

    def __init__(self, *answers: tuple[bool, int | None, str]) -> None:
        self._answers = list(answers)
        self.sent: list[str] = []

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        for item in objects:
            self.sent.append(item.sop_instance_uid)
            accepted, status, text = self._answers.pop(0)
            yield Answer(delivery_id=item.delivery_id, accepted=accepted, status=status, text=text)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class OneResult:
    """A study with one result in the outbox."""

    def __init__(self, database: Database, folder: Path, *destinations: str) -> None:
        self.database = database
        self.files = FolderStore(folder / "store")
        self.clock = Clock()
        self.uid = generate_uid()
        data = b"the bytes of a report"
        digest = hashlib.sha256(data).hexdigest()
        key = self.files.write(Area.RESULTS, digest, data)
        with database.write() as session:
            instance = catalog.add_instance(session, clip_of(self.uid, received_at=NOW))
            study_id = instance.study_id
            catalog.begin_analysis(session, study_id, "quiet", now=NOW)
            claimed = catalog.claim_next(session, "test", NOW)
            assert claimed is not None
            catalog.refuse_recording(session, claimed.recording_id, "a test", now=NOW)
            catalog.begin_reporting(session, study_id, now=NOW)
            result = catalog.NewResult(
                kind=ResultKind.SR,
                sop_class_uid="1.2.3",
                sop_instance_uid=generate_uid(),
                series_instance_uid=generate_uid(),
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                file_key=key,
                sha256=digest,
                size_bytes=len(data),
            )
            catalog.add_results(session, study_id, 1, [result], destinations, now=NOW)

    def outbox(self, senders: dict[str, Sender], **settings: float) -> Outbox:
        return Outbox(
            self.database, self.files, senders, DeliverySettings(**settings), clock=self.clock
        )

    def detail(self) -> catalog.StudyDetail:
        with self.database.read() as session:
            return catalog.study_detail(session, self.uid)


def test_a_refused_result_is_tried_again_with_growing_pauses_and_sent_once(
    database: Database, tmp_path: Path
) -> None:
    waiting = OneResult(database, tmp_path, "pacs")
    archive = Scripted(
        (False, 0xA700, "0xA700 refused"), (False, None, "no answer"), (True, 0, "0x0000 stored")
    )
    outbox = waiting.outbox({"pacs": archive}, first_pause_s=10, longest_pause_s=100)

    pauses = []
    for _ in range(2):
        assert outbox.deliver_due("pacs") == 0
        (delivery,) = waiting.detail().deliveries
        pauses.append((delivery.next_attempt_at - waiting.clock.now).total_seconds())
        assert outbox.deliver_due("pacs") == 0  # not due yet: nothing is sent
        waiting.clock.now = delivery.next_attempt_at
    assert outbox.deliver_due("pacs") == 1

    detail = waiting.detail()
    assert 8 <= pauses[0] <= 12
    assert 16 <= pauses[1] <= 24
    assert len(archive.sent) == 3
    assert detail.study.state == "done"
    assert detail.deliveries[0].last_answer == "0x0000 stored"


def test_a_result_is_given_up_at_its_age_with_the_last_answer(
    database: Database, tmp_path: Path
) -> None:
    waiting = OneResult(database, tmp_path, "pacs")
    archive = Scripted((False, 0x0122, "0x0122 class"), (False, 0x0122, "0x0122 class"))
    outbox = waiting.outbox({"pacs": archive}, give_up_after_s=3600)

    outbox.deliver_due("pacs")
    waiting.clock.now += timedelta(hours=1)
    outbox.deliver_due("pacs")

    detail = waiting.detail()
    assert detail.deliveries[0].state is DeliveryState.FAILED
    assert detail.study.state == "failed"
    assert "0x0122 class" in detail.study.reason
    assert "retry" in detail.study.next_step


def test_a_sender_that_breaks_down_leaves_nothing_in_sending(
    database: Database, tmp_path: Path
) -> None:
    class Broken:
        def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:  # noqa: ARG002
            raise RuntimeError("wires cut")
            yield

    waiting = OneResult(database, tmp_path, "pacs")
    with pytest.raises(RuntimeError, match="wires cut"):
        waiting.outbox({"pacs": Broken()}).deliver_due("pacs")

    (delivery,) = waiting.detail().deliveries
    assert delivery.state is DeliveryState.WAITING
    assert "broke off" in delivery.last_answer


def test_one_destination_that_refuses_does_not_keep_the_other_waiting(
    database: Database, tmp_path: Path
) -> None:
    waiting = OneResult(database, tmp_path, "good", "bad")
    senders: dict[str, Sender] = {
        "good": Scripted((True, 0, "stored")),
        "bad": Scripted((False, 0xA700, "full")),
    }
    outbox = waiting.outbox(senders)

    outbox.deliver_due("bad")
    outbox.deliver_due("good")

    states = {item.destination: item.state for item in waiting.detail().deliveries}
    assert states == {"good": DeliveryState.DELIVERED, "bad": DeliveryState.WAITING}
    assert waiting.detail().study.state == "delivering"


def test_an_answer_that_the_database_does_not_take_now_is_written_down_later(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = OneResult(database, tmp_path, "pacs")
    archive = Scripted((True, 0, "0x0000 stored"))
    whole = catalog.record_delivered
    refused = []

    def locked_at_first(*arguments: Any, **named: Any) -> None:
        if not refused:
            refused.append(1)
            raise DatabaseError("the database is locked")
        whole(*arguments, **named)

    monkeypatch.setattr(catalog, "record_delivered", locked_at_first)
    waiting.outbox({"pacs": archive}).deliver_due("pacs")

    assert refused
    assert len(archive.sent) == 1
    assert waiting.detail().study.state == "done"
