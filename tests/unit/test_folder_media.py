"""What is found in folders, archives and on media, and what is refused there."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from node.doors import media
from node.doors.media import Fault, Find, Found, Skipped, objects_in, shown, walk
from tests.folder_files import MEDIUM, archive, clip, medium, part10, put, tree


def names(found: Sequence[Find], kind: type = Found) -> list[str]:
    return [Path(one.name).name for one in found if isinstance(one, kind)]


def read(found: Find) -> bytes:
    assert isinstance(found, Found)
    with found.opened() as stream:
        content = b""
        while more := stream.read(1000):
            content += more
        return content


def test_every_file_is_found_once_wherever_links_lead(tmp_path: Path) -> None:
    put(tmp_path / "b" / "two.dcm")
    put(tmp_path / "a" / "one.dcm")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "same").symlink_to(tmp_path / "a" / "one.dcm")

    found = list(walk(tmp_path))

    assert [path.name for path in found if isinstance(path, Path)] == ["one.dcm", "same", "two.dcm"]
    assert [type(one) for one in found if not isinstance(one, Path)] == [Skipped, Skipped]
    plain = [path for path in walk(tmp_path, follow_links=False) if isinstance(path, Path)]
    assert [path.name for path in plain] == ["one.dcm", "two.dcm"]


def test_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
        (tmp_path / "to-pipe").symlink_to("pipe")
        (tmp_path / "nowhere").symlink_to("not-there")
        found = list(walk(tmp_path))
    assert [type(one) for one in found] == [Fault, Skipped, Skipped, Skipped]

    told: list[Find] = []
    looking = threading.Thread(target=lambda: told.extend(objects_in(tmp_path / "pipe")))
    looking.start()
    looking.join(10)
    assert not looking.is_alive()
    assert names(told, Fault) == ["pipe"]


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "z.dcm")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(folder: Path) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)  # a test that root runs may read everything
    found = list(walk(tmp_path))
    assert found[0] == tmp_path / "z.dcm"
    assert found[1] == Fault(name=str(tmp_path / "closed"), reason="Permission denied")


def test_folders_that_are_left_out_are_not_looked_into(tmp_path: Path) -> None:
    put(tmp_path / "data" / "own.dcm")
    put(tmp_path / "x.dcm")
    assert list(walk(tmp_path, leave_out=[tmp_path / "data", tmp_path / "none"])) == [
        tmp_path / "x.dcm",
        Skipped(name=str(tmp_path / "data"), reason="it was looked into already"),
    ]


def test_too_many_entries_are_told_and_bounded(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").touch()
    found = list(walk(tmp_path, most=3))
    assert [type(one).__name__ for one in found].count("PosixPath") == 3
    assert isinstance(found[0], Fault)


def test_a_name_of_odd_bytes_is_shown_as_plain_text(tmp_path: Path) -> None:
    odd = os.fsdecode(b"M\xfcller\x1b[31m\n")
    path = tmp_path / odd
    path.write_bytes(part10(clip()))
    (found,) = [one for path in walk(tmp_path) for one in objects_in(path)]  # type: ignore[arg-type]
    assert read(found) == part10(clip())
    assert found.name.endswith(r"M\xfcller\x1b[31m\n")
    assert shown("Müller.dcm") == "Müller.dcm"


# Archives.


def test_an_archive_gives_its_members_one_by_one(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", a=part10(clip()), x__b=b"no", x__c=part10(clip(number=2)))
    found = {one.name: read(one) for one in objects_in(path)}
    assert found == {
        f"{path}!a": part10(clip()),
        f"{path}!x/b": b"no",
        f"{path}!x/c": part10(clip(number=2)),
    }
    assert sorted(tmp_path.iterdir()) == [path]


def test_an_archive_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "export.dat", a=part10(clip()))
    lies = put(tmp_path / "clip.zip")
    assert names(list(objects_in(path))) == ["export.dat!a"]
    assert names(list(objects_in(lies))) == ["clip.zip"]


def test_names_in_an_archive_are_never_paths(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("../../outside.dcm", part10(clip()))
        out.writestr("/etc/echonode", part10(clip(number=2)))
    before = sorted(tmp_path.rglob("*"))
    assert [read(one) for one in objects_in(path)] == [part10(clip()), part10(clip(number=2))]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_grows_without_end_is_cut_off_and_the_rest_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "FREE_GROWTH_BYTES", 100_000)
    bomb = part10(clip()) + bytes(10_000_000)
    path = archive(tmp_path / "bomb.zip", a=bomb, b=part10(clip()))
    assert path.stat().st_size < 20_000

    found, faults = [], []
    for one in objects_in(path):
        if isinstance(one, Fault):
            faults.append(one)
            continue
        found.append(one)
        with pytest.raises(OSError, match="unpacks to more than"):
            read(one)

    assert names(found) == ["bomb.zip!a"]
    (fault,) = faults
    assert "the rest is not read" in fault.reason


def test_one_member_has_a_bound_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MOST_MEMBER_BYTES", 5000)
    small = part10(clip())
    path = archive(tmp_path / "a.zip", a=small + bytes(5000), b=small)
    members = objects_in(path)
    with pytest.raises(OSError, match="unpacks to more than"):
        read(next(members))
    assert read(next(members)) == small


def test_a_list_of_members_that_is_absurd_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MOST_MEMBERS", 2)
    path = archive(tmp_path / "a.zip", a=b"1", b=b"2", c=b"3")
    with monkeypatch.context() as patch:
        patch.setattr("node.doors.media.zipfile.ZipFile", None)  # it would hold the whole list
        (fault,) = objects_in(path)
    assert isinstance(fault, Fault)
    assert "more than 2 members" in fault.reason
    # One that says less than it holds.
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\x05\x06")
    content[end + 8 : end + 12] = struct.pack("<HH", 1, 1)
    path.write_bytes(content)
    (fault,) = objects_in(path)
    assert isinstance(fault, Fault)


@pytest.mark.parametrize("cut", [30, -10])
def test_an_archive_without_its_end_is_told(tmp_path: Path, cut: int) -> None:
    whole = archive(tmp_path / "a.zip", a=part10(clip())).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:cut])
    (fault,) = objects_in(tmp_path / "a.zip")
    assert isinstance(fault, Fault)
    assert fault.reason.startswith("the archive cannot be read")


def test_a_member_that_is_damaged_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a", part10(clip()))
        out.writestr("b", part10(clip(number=2)))
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    members = objects_in(path)
    with pytest.raises(OSError, match="it is broken there"):
        read(next(members))
    assert read(next(members)) == part10(clip(number=2))


def test_an_archive_of_any_bytes_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.zip", a=b"hello" * 50, b=b"", c=b"x").read_bytes()
    chance = random.Random(3)  # noqa: S311 - bytes to break, the same ones each time
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(4, len(content))] = chance.choice([0, 1, 255, 0x2F])
        (tmp_path / "a.zip").write_bytes(content)
        for one in objects_in(tmp_path / "a.zip"):
            if isinstance(one, Found):
                with suppress(OSError):
                    read(one)
            else:
                assert one.reason


def test_an_encrypted_member_is_told(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", a=b"1")
    content = path.read_bytes()
    listed = content.rfind(b"PK\x01\x02")
    path.write_bytes(content[: listed + 8] + b"\x01" + content[listed + 9 :])
    (fault,) = objects_in(path)
    assert isinstance(fault, Fault)
    assert "encrypted" in fault.reason


def test_a_directory_in_an_archive_tells_what_the_archive_lacks(tmp_path: Path) -> None:
    listing = medium(tmp_path / "disc", 2)
    inside = {
        "disc__" + str(path.relative_to(listing.parent)).replace("/", "__"): path.read_bytes()
        for path in (tmp_path / "disc").rglob("*")
        if path.is_file()
    }
    lost = next(name for name in inside if name != "disc__DICOMDIR")
    del inside[lost]
    found = list(objects_in(archive(tmp_path / "a.zip", **inside)))
    assert len(names(found)) == 2
    assert names(found, Fault) == [Path(lost.replace("__", "/")).name]


# Media.


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-implicit", "DICOMDIR-bigEnd"])
def test_a_dicomdir_gives_the_files_that_it_lists(name: str) -> None:
    found = list(objects_in(MEDIUM / name, named=True))
    assert len(found) == len(set(names(found))) == 31
    assert all(read(one)[128:132] == b"DICM" for one in found[:3])


def test_names_on_a_medium_are_found_in_small_letters_and_with_versions(tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    listing = medium(tmp_path / "made", 2)
    for path in (tmp_path / "made").rglob("*"):
        if path.is_file() and path != listing:
            place = disc / str(path.relative_to(tmp_path / "made")).lower()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_name(f"{place.name};1").write_bytes(path.read_bytes())
    (disc / "dicomdir").write_bytes(listing.read_bytes())
    found = list(objects_in(disc / "dicomdir", named=True))
    assert len(names(found)) == len(found) == 2


def test_what_a_dicomdir_lists_and_is_not_there_is_told_also_in_a_walk(tmp_path: Path) -> None:
    disc = tree(MEDIUM / "98892003", tmp_path / "98892003").parent
    (disc / "DICOMDIR").write_bytes((MEDIUM / "DICOMDIR").read_bytes())
    found = list(objects_in(disc / "DICOMDIR", named=True))
    assert (len(names(found)), len(names(found, Fault))) == (17, 14)
    told = list(objects_in(disc / "DICOMDIR"))
    assert (len(names(told)), len(names(told, Fault))) == (0, 14)


def test_a_dicomdir_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.dcm")
    listing = medium(tmp_path / "disc", 3)
    places = sorted(p for p in (tmp_path / "disc").rglob("*") if p.is_file() and p != listing)
    for place in places:
        place.unlink()
    places[0].symlink_to(outside)
    last = str(places[1].relative_to(listing.parent)).replace("/", "\\").encode()
    up = b"..\\OUTSIDE.DCM"
    content = listing.read_bytes()
    assert content.count(last) == 1
    content = content.replace(last, up.ljust(len(last), b" "))
    listing.write_bytes(content)
    (tmp_path / "OUTSIDE.DCM").write_bytes(outside.read_bytes())
    found = list(objects_in(listing, named=True))
    assert [type(one) for one in found] == [Fault, Fault, Fault]
    assert "lies elsewhere" in found[0].reason  # type: ignore[union-attr]


def test_a_dicomdir_that_is_broken_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "DICOMDIR"
    content = (MEDIUM / "DICOMDIR").read_bytes()
    path.write_bytes(content[:1500])
    found = list(objects_in(path, named=True))
    assert all(isinstance(one, Fault) for one in found)
