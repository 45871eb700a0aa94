"""Files that do not begin as PS3.10 says: what the door makes of them, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread, examples
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from node.doors.taking import NotDicomError, RefusedError, UncertainError, copy_in
from node.intake import Arrival, Intake, content_digest
from storage.database import Database
from storage.files import FolderStore
from tests.folder_files import clip, data_set, part10

WHOLE = part10(clip())
DATA = data_set(WHOLE)
META = WHOLE[132 : len(WHOLE) - len(DATA)]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FolderStore]:
    store = FolderStore(tmp_path / "store")
    yield store
    assert list(store.incoming_folder.iterdir()) == []


def copied(files: FolderStore, folder: Path, content: bytes) -> bytes:
    source = folder / "source"
    source.write_bytes(content)
    copy = copy_in(files, source)
    found = copy.read_bytes()
    copy.unlink()
    assert source.read_bytes() == content
    return found


def test_a_file_as_it_should_be_comes_as_it_is(files: FolderStore, tmp_path: Path) -> None:
    assert copied(files, tmp_path, WHOLE) == WHOLE


def test_a_preamble_may_hold_a_program_and_is_emptied(files: FolderStore, tmp_path: Path) -> None:
    assert copied(files, tmp_path, b"MZ" + bytes(126) + WHOLE[128:]) == WHOLE


@pytest.mark.parametrize("start", [b"", b"DICM"], ids=["nothing", "only the mark"])
def test_a_preamble_that_was_left_out_is_put_back(
    files: FolderStore, tmp_path: Path, start: bytes
) -> None:
    assert copied(files, tmp_path, start + META + DATA) == WHOLE


def test_a_length_that_is_missing_or_lies_is_set_right(files: FolderStore, tmp_path: Path) -> None:
    without = bytes(128) + b"DICM" + META[12:] + DATA
    lies = WHOLE[:140] + b"\x04\x00\x00\x00" + WHOLE[144:]
    assert copied(files, tmp_path, without) == WHOLE
    assert copied(files, tmp_path, lies) == WHOLE


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("start", [b"", bytes(128) + b"DICM"], ids=["bare", "marked"])
def test_a_bare_data_set_gets_the_meta_information_that_its_bytes_prove(
    files: FolderStore, tmp_path: Path, syntax: UID, start: bytes
) -> None:
    given = clip()
    given.file_meta.TransferSyntaxUID = syntax
    data = data_set(part10(given))

    found = copied(files, tmp_path, start + data)

    (tmp_path / "found").write_bytes(found)
    meta = dcmread(tmp_path / "found").file_meta
    assert meta.TransferSyntaxUID == syntax
    assert meta.MediaStorageSOPClassUID == given.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == given.SOPInstanceUID
    assert data_set(found) == data


def test_pixels_that_are_compressed_nobody_knows_how_are_not_guessed_at(
    files: FolderStore, tmp_path: Path
) -> None:
    cine = dcmread(examples.get_path("ybr_color"))
    cine.remove_private_tags()
    assert cine.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    with pytest.raises(UncertainError, match="compressed"):
        copied(files, tmp_path, data_set(part10(cine)))


def test_meta_information_of_another_object_is_written_anew(
    files: FolderStore, tmp_path: Path
) -> None:
    other = part10(clip(number=2))
    content = WHOLE[: len(WHOLE) - len(DATA)] + data_set(other)  # as those do who change UIDs

    found = copied(files, tmp_path, content)

    assert found != content
    (tmp_path / "found").write_bytes(found)
    read = dcmread(tmp_path / "found")
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == "1.2.3.1.2"
    assert data_set(found) == data_set(other)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"hello", b"\x08\x00" + bytes(500), b"\x08\x00\x05\x00CS", bytes(4000)],
)
def test_what_is_no_dicom_file_is_none(files: FolderStore, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NotDicomError):
        copied(files, tmp_path, content)


def test_meta_information_without_an_end_goes_to_those_who_keep_broken_files(
    files: FolderStore, tmp_path: Path, database: Database
) -> None:
    broken = WHOLE[:150]
    source = tmp_path / "broken"
    source.write_bytes(broken)
    receipt = Intake(database, files).receive(Arrival(path=copy_in(files, source), door="folder"))
    assert receipt.refused == "cannot-be-read"


def test_the_same_object_has_the_same_digest_however_its_file_begins(
    files: FolderStore, tmp_path: Path
) -> None:
    digests = set()
    for content in (WHOLE, META + DATA, DATA, bytes(128) + b"DICM" + META[12:] + DATA):
        path = tmp_path / "one"
        path.write_bytes(copied(files, tmp_path, content))
        digests.add(content_digest(path))
    assert len(digests) == 1


def test_nothing_is_copied_while_nothing_may_be_taken(files: FolderStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(WHOLE)
    with pytest.raises(RefusedError, match="the disk is nearly full"):
        copy_in(files, source, refusing=lambda: "the disk is nearly full")


def test_a_file_that_is_written_to_meanwhile_is_not_taken(
    files: FolderStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(WHOLE)

    def grows() -> None:
        with source.open("ab") as more:
            more.write(b"more")

    with pytest.raises(OSError, match="written to"):
        copy_in(files, source, refusing=grows)
