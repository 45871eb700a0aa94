"""Broken objects over the network: what the sender hears, and that the door stays open."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from node.doors.contexts import TRANSFER_SYNTAXES
from node.doors.scp import DimseDoor
from node.intake import Arrival, Intake, Status
from node.sections import DimseSettings
from storage import catalog
from storage.database import Database
from storage.files import FolderStore
from tests.fuzz.corpus import corpus
from tests.fuzz.draft import Draft, Part, take_apart
from tests.fuzz.trial import broken_object
from tests.peers import require
from tests.ultrasound_files import as_file, speckle, ultrasound

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # the sender's own, of what it sends
]

_SEED = 21
_CLASS = "1.2.840.10008.5.1.4.1.1.3.1"
_ANSWERS = {0x0000, 0xC001, 0xA900, 0x0122}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("door")


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Iterator[tuple[int, FolderStore]]:
    files = FolderStore(tmp_path / "store")
    settings = DimseSettings(host="127.0.0.1", port=0)
    opened = DimseDoor(settings, Intake(database, files), str(files.incoming_folder))
    opened.start()
    yield opened.port, files
    opened.stop()


def _as_sent(data: bytes, number: int) -> tuple[bytes, str]:
    """A broken data set behind file meta information that is whole: a sender needs that."""
    draft = take_apart(data)
    stated = next((p.value.rstrip(b"\0 ") for p in draft.meta if p.tag == 0x00020010), b"")
    syntax = stated.decode("ascii", "replace")
    syntax = syntax if syntax in TRANSFER_SYNTAXES else TRANSFER_SYNTAXES[0]
    uids = {0x00020002: _CLASS, 0x00020003: f"1.2.{_SEED}.{number}", 0x00020010: syntax}
    values = {tag: uid.encode() + b"\0" * (len(uid) % 2) for tag, uid in uids.items()}
    meta = [Part(0x00020001, b"OB", b"\0\1"), *(Part(t, b"UI", v) for t, v in values.items())]
    length = sum(len(part.encode("<")) for part in meta)
    head = Draft(bytes(128) + b"DICM", [Part(0x00020000, b"UL", length.to_bytes(4, "little"))], [])
    body = data[len(draft.preamble) + sum(len(part.encode("<")) for part in draft.meta) :]
    return head.encode() + b"".join(part.encode("<") for part in meta) + body, syntax


def test_every_broken_object_gets_an_answer_and_the_door_stays_open(
    door: tuple[int, FolderStore], database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, files = door
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # as the bytes stand
    bases = corpus(folder)
    answers = []
    for number in range(30):
        _, _, data = broken_object(bases, _SEED, number)
        sent, syntax = _as_sent(data, number)
        path = folder / f"{number}.dcm"
        path.write_bytes(sent)
        entity = AE("ECHOCART")
        entity.add_requested_context(UID(_CLASS), UID(syntax))
        association = entity.associate("127.0.0.1", port, ae_title="ECHONODE")
        assert association.is_established
        answers.append(association.send_c_store(path))
        association.release()
    statuses = [answer.get("Status") for answer in answers]
    assert set(statuses) <= _ANSWERS
    assert {0x0000, 0xA900} <= set(statuses)
    for answer in answers:
        assert answer.Status == 0 or answer.ErrorComment
    _is_open(port)
    with database.read() as session:
        quarantined = catalog.list_quarantined(session, 1000)
    assert len(quarantined) >= sum(status != 0 for status in statuses)
    assert all(item.reason for item in quarantined)
    assert not list(files.incoming_folder.iterdir())


def test_storescu_is_answered_whatever_it_manages_to_read(
    door: tuple[int, FolderStore], database: Database, folder: Path
) -> None:
    port, files = door
    program, bases, paths = require("storescu"), corpus(folder), []
    for number in range(100, 140):
        _, kind, data = broken_object(bases, _SEED, number)
        if kind in ("values", "numbers", "texts", "uids", "geometry", "regions", "codestream"):
            paths.append(folder / f"storescu-{number}.dcm")
            paths[-1].write_bytes(data)
    sent = subprocess.run(
        [program, "-v", "--no-halt", "-xs", "-aec", "ECHONODE", "127.0.0.1", str(port)]
        + [str(path) for path in paths],
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = sent.stdout.decode("latin-1") + sent.stderr.decode("latin-1")
    assert "Received Store Response" in said
    assert "0110" not in said
    _is_open(port)
    assert not list(files.incoming_folder.iterdir())
    with database.read() as session:
        assert all(item.reason for item in catalog.list_quarantined(session, 1000))


@pytest.mark.parametrize(
    "uid",
    [
        b"../../../../tmp/escaped", b"/etc/passwd", b"1.2.3\n", b"1.2\x003", b"1" * 65,
        b"1." + b"2" * 5000, "١.٢.٣".encode(), "１.２".encode(), b"..", b"1..2", b"1.2.", b".1",
        b"1.2.3 4", b"DOE^JANE", b"~root", b"%2e%2e", b"1.2\\1.3", b"C:\\x", b"-1.2", b"1.2.3\r",
    ],
)  # fmt: skip
@pytest.mark.parametrize("tag", [0x00080018, 0x0020000D, 0x0020000E])
def test_no_uid_with_path_characters_reaches_a_path(
    uid: bytes, tag: int, database: Database, tmp_path: Path
) -> None:
    """It is quarantined under its digest, and read back by that name alone."""
    draft = take_apart(as_file(ultrasound(speckle((1, 8, 8)))))
    draft.put(tag, b"UI", uid)
    files = FolderStore(tmp_path / "store")
    path = files.incoming_folder / "object"
    path.write_bytes(draft.encode())
    receipt = Intake(database, files).receive(Arrival(path=path, door="test"))
    (kept,) = [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.startswith("echonode.")]
    assert kept.is_relative_to(tmp_path / "store")
    assert set(kept.name) <= set("0123456789abcdef.dcm")
    with database.read() as session:
        rows = catalog.list_quarantined(session)
        held = catalog.find_instance(session, "1.2.3")
    if receipt.status == Status.SUCCESS:  # a line's end behind a UID is no part of it
        assert uid.strip() == b"1.2.3"
        assert not rows
        assert (held is not None) == (tag == 0x00080018)
        return
    assert receipt.status == Status.DOES_NOT_MATCH_CLASS
    assert receipt.comment.endswith("is not a UID")
    assert kept.parent.parent.name == "quarantine"
    assert rows[0].file_key is not None
    assert files.path(rows[0].file_key) == kept


def _is_open(port: int) -> None:
    entity = AE("ECHOCART")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, ae_title="ECHONODE")
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()


def test_a_name_that_a_command_gives_as_a_uid_is_in_no_row(
    database: Database, tmp_path: Path
) -> None:
    files = FolderStore(tmp_path / "store")
    path = files.incoming_folder / "object"
    path.write_bytes(b"no DICOM")
    Intake(database, files).receive(
        Arrival(
            path=path,
            door="test",
            announced_class_uid="DOE^JANE",
            announced_instance_uid="DOE^JANE",
        )
    )
    with database.read() as session:
        (row,) = catalog.list_quarantined(session)
    assert "DOE" not in str(row)
