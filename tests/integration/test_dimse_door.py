"""The DIMSE door and the intake, with DCMTK and pynetdicom as echo machines."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)
from pynetdicom import AE, build_role

from node.doors.contexts import COMMITMENT_CLASS, RETIRED_KEYWORDS, STORAGE_CLASSES
from node.doors.scp import DimseDoor
from node.doors.transport import Connection
from node.intake import Intake
from node.sections import DimseSettings
from node.watch.transfers import Peer, Transfer, TurnedAway
from storage import catalog
from storage.database import Database
from storage.files import FolderStore
from tests.peers import require, send, wait_until
from tests.running_node import REAL_CINE, variant

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]


@dataclass(frozen=True)
class OpenDoor:
    port: int
    database: Database
    files: FolderStore
    released: list[frozenset[str]]
    refusal: list[str] = field(default_factory=list)  #: a reason in it shuts the door
    transfers: list[Transfer] = field(default_factory=list)
    turned_away: list[TurnedAway] = field(default_factory=list)
    reports: list[tuple[str, int, str]] = field(default_factory=list)

    def kept(self, uid: str) -> catalog.InstanceRecord | None:
        with self.database.read() as session:
            return catalog.find_instance(session, uid)

    def quarantined(self) -> tuple[catalog.QuarantinedRecord, ...]:
        with self.database.read() as session:
            return catalog.list_quarantined(session)


@pytest.fixture
def door(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenDoor]:
    files = FolderStore(tmp_path / "store")
    released: list[frozenset[str]] = []
    settings = DimseSettings(host="127.0.0.1", port=0, **getattr(request, "param", {}))
    seen = OpenDoor(port=0, database=database, files=files, released=released)

    def reported(peer: Peer, event_type: int, information: Dataset) -> int:
        seen.reports.append((peer.ae_title, event_type, str(information.TransactionUID)))
        return 0x0000

    opened = DimseDoor(
        settings,
        Intake(database, files),
        str(files.incoming_folder),
        released=released.append,
        refusing=lambda: seen.refusal[0] if seen.refusal else None,
        commitment_reported=reported,
        transferred=seen.transfers.append,
        turned_away=seen.turned_away.append,
    )
    opened.start()
    yield replace(seen, port=opened.port)
    opened.stop()


def store(door: OpenDoor, dataset: Dataset, syntax: UID | None = None) -> Dataset:
    """C-STORE one data set by pynetdicom; gives the answer."""
    entity = AE("ECHOCART")
    entity.add_requested_context(dataset.SOPClassUID, syntax or dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", door.port, ae_title="ECHONODE")
    assert association.is_established
    answer = association.send_c_store(dataset)
    association.release()
    return answer


def small_image(**attributes: object) -> Dataset:
    """An uncompressed 8 x 8 ultrasound still."""
    dataset = dcmread(REAL_CINE, stop_before_pixels=True)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in ("NumberOfFrames", "FrameTime", "FrameIncrementPointer", "StartTrim"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.6.1")
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(64)
    dataset["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    return dataset


def test_an_echo_is_answered(door: OpenDoor) -> None:
    command = [require("echoscu"), "-aec", "ECHONODE", "127.0.0.1", str(door.port)]

    assert subprocess.run(command, timeout=30, check=False).returncode == 0


def test_a_jpeg_clip_is_kept_byte_for_byte(door: OpenDoor, tmp_path: Path) -> None:
    path = variant(tmp_path)
    sent = send(door.port, path, options=("-xy",))

    original = dcmread(path)
    kept = door.kept(original.SOPInstanceUID)
    assert sent.returncode == 0, sent.stderr
    assert kept is not None
    assert kept.transfer_syntax_uid == JPEGBaseline8Bit
    assert kept.calling_ae == "ECHOCART"
    assert dcmread(door.files.path(kept.file_key)) == original
    assert list(door.files.incoming_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("convert", "option", "syntax"),
    [
        (["dcmcrle"], "-xr", "1.2.840.10008.1.2.5"),
        (["dcmconv", "+ti"], "-xi", "1.2.840.10008.1.2"),
        (["dcmconv", "+tb"], "-xb", "1.2.840.10008.1.2.2"),
    ],
)
def test_each_uncompressed_and_rle_syntax_is_kept_as_sent(
    door: OpenDoor, tmp_path: Path, convert: list[str], option: str, syntax: str
) -> None:
    plain, converted = tmp_path / "plain.dcm", tmp_path / "converted.dcm"
    still = small_image()
    still.save_as(plain, enforce_file_format=True)
    program, *options = convert
    subprocess.run([require(program), *options, str(plain), str(converted)], check=True)

    assert send(door.port, converted, options=("-R", option)).returncode == 0

    kept = door.kept(still.SOPInstanceUID)
    assert kept is not None
    assert kept.transfer_syntax_uid == syntax


def test_the_door_prefers_compressed_syntaxes_whatever_the_machine_lists_first(
    door: OpenDoor,
) -> None:
    entity = AE("ECHOCART")
    entity.add_requested_context(
        "1.2.840.10008.5.1.4.1.1.3.1",
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit],
    )
    association = entity.associate("127.0.0.1", door.port, ae_title="ECHONODE")
    (context,) = association.accepted_contexts
    association.release()

    assert context.transfer_syntax == [JPEGBaseline8Bit]


@pytest.mark.parametrize("sop_class", sorted(RETIRED_KEYWORDS))
def test_retired_ultrasound_classes_of_older_machines_are_kept(
    door: OpenDoor, sop_class: UID
) -> None:
    still = small_image(SOPClassUID=sop_class)

    assert store(door, still).Status == 0x0000
    assert door.kept(still.SOPInstanceUID) is not None


def test_every_class_of_the_list_is_accepted_at_negotiation(door: OpenDoor) -> None:
    entity = AE("ECHOCART")
    for sop_class in STORAGE_CLASSES:
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", door.port, ae_title="ECHONODE")
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    association.release()

    assert accepted == set(STORAGE_CLASSES)


def test_the_same_object_again_succeeds_and_is_kept_once(door: OpenDoor) -> None:
    still = small_image()

    assert store(door, still).Status == 0x0000
    assert store(door, still).Status == 0x0000

    objects = list((door.files.root / "objects").rglob("*.dcm"))
    assert len(objects) == 1
    assert door.quarantined() == ()


def test_the_same_object_in_another_uncompressed_syntax_is_the_same_object(
    door: OpenDoor,
) -> None:
    still = small_image()

    assert store(door, still).Status == 0x0000
    assert store(door, still, ImplicitVRLittleEndian).Status == 0x0000

    assert door.quarantined() == ()


def test_other_content_under_a_known_uid_is_quarantined_and_overwrites_nothing(
    door: OpenDoor,
) -> None:
    still = small_image()
    store(door, still)
    before = door.kept(still.SOPInstanceUID)
    assert before is not None
    content = door.files.path(before.file_key).read_bytes()

    still["PixelData"].value = bytes(63) + b"\x01"
    assert store(door, still).Status == 0x0000

    after = door.kept(still.SOPInstanceUID)
    (quarantined,) = door.quarantined()
    assert after == before
    assert door.files.path(before.file_key).read_bytes() == content
    assert "other content" in quarantined.reason
    assert quarantined.file_key is not None
    assert door.files.path(quarantined.file_key).exists()


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_object_without_its_uids_is_refused_with_a900_and_quarantined(
    door: OpenDoor, missing: str
) -> None:
    answer = store(door, small_image(**{missing: None}))

    (quarantined,) = door.quarantined()
    assert answer.Status == 0xA900
    assert answer.ErrorComment == f"{missing} is missing"
    assert quarantined.reason == f"{missing} is missing"


def test_an_object_that_is_not_what_was_announced_is_refused_with_a900(door: OpenDoor) -> None:
    still = small_image()
    announced = still.SOPInstanceUID
    association = _associate(door, still)
    still.SOPInstanceUID = generate_uid()
    answer = _store_as(association, still, announced)
    association.release()

    assert answer.Status == 0xA900
    assert door.kept(still.SOPInstanceUID) is None
    assert "announced" in door.quarantined()[0].reason


def test_bytes_that_are_no_data_set_are_refused_with_c001_and_quarantined(
    door: OpenDoor, tmp_path: Path
) -> None:
    still = small_image()
    path = tmp_path / "broken.dcm"
    still.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    start = whole.index(b"\x08\x00\x05\x00")
    path.write_bytes(whole[:start] + b"\x08\x00\x16\x00XX\xff\xff\xff\xff" * 9)
    association = _associate(door, still)
    answer = _store_file(association, path)
    association.release()

    assert answer.Status in {0xC001, 0xA900}
    assert len(door.quarantined()) == 1


def test_studies_of_a_released_association_are_told(door: OpenDoor) -> None:
    still = small_image()
    store(door, still)

    assert door.released == [frozenset({str(still.StudyInstanceUID)})]


def test_an_association_that_has_ended_leaves_nothing_in_memory(door: OpenDoor) -> None:
    def connections() -> int:
        gc.collect()
        return sum(isinstance(one, Connection) for one in gc.get_objects())

    before = connections()
    for _ in range(3):
        assert store(door, small_image()).Status == 0x0000
    wait_until(lambda: connections() <= before, what="ended associations are let go")


@pytest.mark.parametrize("door", [{"allowed_calling_aes": ("KNOWNCART",)}], indirect=True)
def test_an_ae_title_that_is_not_on_the_list_is_rejected(door: OpenDoor) -> None:
    stranger, known = AE("STRANGER"), AE("KNOWNCART")
    answers = []
    for entity in (stranger, known):
        entity.add_requested_context("1.2.840.10008.1.1")
        association = entity.associate("127.0.0.1", door.port, ae_title="ECHONODE")
        answers.append(association.is_established)
        if association.is_established:
            association.release()

    assert answers == [False, True]


@pytest.mark.parametrize("door", [{"max_associations": 2}], indirect=True)
def test_over_the_limit_of_associations_a_machine_is_told_to_come_again(door: OpenDoor) -> None:
    entity = AE("ECHOCART")
    entity.add_requested_context("1.2.840.10008.1.1")
    first, second, third = (
        entity.associate("127.0.0.1", door.port, ae_title="ECHONODE") for _ in range(3)
    )

    assert (first.is_established, second.is_established) == (True, True)
    assert third.is_rejected
    assert third.acceptor.primitive.result_str == "Rejected Transient"
    first.release()
    second.release()


def _associate(door: OpenDoor, dataset: Dataset):  # type: ignore[no-untyped-def]
    entity = AE("ECHOCART")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", door.port, ae_title="ECHONODE")
    assert association.is_established
    return association


def _store_as(association, dataset: Dataset, announced: str) -> Dataset:  # type: ignore[no-untyped-def]
    """C-STORE a data set under another instance UID in the command than in the data set."""
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = dataset.SOPClassUID
    request.AffectedSOPInstanceUID = announced
    request.Priority = 2
    encoded = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert encoded is not None
    return _exchange(association, request, encoded)


def _store_file(association, path: Path) -> Dataset:  # type: ignore[no-untyped-def]
    """C-STORE the raw bytes behind a file's meta information, whatever they are."""
    from pynetdicom.dimse_primitives import C_STORE

    raw = path.read_bytes()
    offset = 144 + int.from_bytes(raw[140:144], "little")
    meta = dcmread(path, specific_tags=[], force=True).file_meta
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = meta.MediaStorageSOPClassUID
    request.AffectedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    request.Priority = 2
    return _exchange(association, request, raw[offset:])


def _exchange(association, request, encoded: bytes) -> Dataset:  # type: ignore[no-untyped-def]
    from io import BytesIO

    request.DataSet = BytesIO(encoded)
    (context,) = association.accepted_contexts
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    answer = Dataset()
    answer.Status = response.Status
    return answer


def test_while_the_store_is_refusing_callers_are_told_to_come_again_and_open_ones_get_a700(
    door: OpenDoor,
) -> None:
    still = small_image()
    association = _associate(door, still)
    door.refusal.append("the disk is nearly full")
    entity = AE("ECHOCART")
    entity.add_requested_context("1.2.840.10008.1.1")
    late = entity.associate("127.0.0.1", door.port, ae_title="ECHONODE")

    answer = association.send_c_store(still)
    rejection = late.acceptor.primitive
    assert answer.Status == 0xA700
    assert late.is_rejected
    assert (rejection.result, rejection.result_source, rejection.diagnostic) == (2, 3, 1)
    assert [away.reason for away in door.turned_away] == ["the disk is nearly full"]
    assert door.kept(still.SOPInstanceUID) is None
    assert list(door.files.incoming_folder.iterdir()) == []

    door.refusal.clear()
    assert association.send_c_store(still).Status == 0x0000
    association.release()


def test_those_who_watch_are_told_what_an_association_brought(door: OpenDoor) -> None:
    still, nameless = small_image(), small_image(StudyInstanceUID=None)
    store(door, still)
    store(door, nameless)
    wait_until(lambda: len(door.transfers) == 2, what="both associations are told of", timeout_s=5)

    kept, refused = door.transfers
    assert (kept.study_instance_uid, kept.count, kept.accepted) == (still.StudyInstanceUID, 1, True)
    assert kept.sop_class_uids == (still.SOPClassUID,)
    assert (kept.peer.ae_title, kept.peer.host) == ("ECHOCART", "127.0.0.1")
    assert (refused.study_instance_uid, refused.accepted) == ("", False)


def test_a_report_of_an_archive_on_its_commitment_is_handed_on(door: OpenDoor) -> None:
    archive = AE("ARCHIVE")
    archive.add_requested_context(COMMITMENT_CLASS)
    association = archive.associate(
        "127.0.0.1",
        door.port,
        ae_title="ECHONODE",
        ext_neg=[build_role(COMMITMENT_CLASS, scp_role=True)],
    )
    information = Dataset()
    information.TransactionUID = "1.2.3"
    status, _ = association.send_n_event_report(
        information, 1, COMMITMENT_CLASS, "1.2.840.10008.1.20.1.1"
    )
    association.release()

    assert status.Status == 0x0000
    assert door.reports == [("ARCHIVE", 1, "1.2.3")]
