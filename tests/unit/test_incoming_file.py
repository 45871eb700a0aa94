"""A data set on its way in: kept while it can be, and dropped with the reason when it cannot."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import stat
from pathlib import Path

import pytest

from node.doors.incoming import IncomingFile

_MIB = 1 << 20
_DIRECT = 1 << 19


def taking() -> None:
    """Nothing speaks against taking."""


def test_what_is_written_is_there_and_for_the_service_user_alone(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path, taking)
    file.write(b"one ")
    file.write(b"two")
    file.close()

    assert file.path.read_bytes() == b"one two"
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.problem is None


def test_where_nothing_may_be_taken_no_file_is_made(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path, lambda: "the disk is nearly full")
    assert file.write(b"dropped") == 7
    file.close()

    assert file.problem == "the disk is nearly full"
    assert list(tmp_path.iterdir()) == []


def test_a_large_object_stops_filling_a_disk_that_becomes_nearly_full(tmp_path: Path) -> None:
    reasons: list[str] = []
    file = IncomingFile(tmp_path, lambda: reasons[0] if reasons else None)
    for _ in range(15):
        file.write(bytes(_MIB))
    reasons.append("the disk is nearly full")
    assert file.problem is None  # not asked for each piece
    file.write(bytes(_MIB))

    assert file.problem == "the disk is nearly full"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_gives_its_words_and_the_space_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = IncomingFile(tmp_path, taking)
    file.write(b"the first part")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    assert file.write(b"the second") == 10
    assert file.problem == "it cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
    file.flush()
    file.discard()  # once more does no harm


@pytest.mark.parametrize("size", [_DIRECT - 1, _DIRECT, _DIRECT + 1, 3 * _MIB, 5 * _MIB + 4097])
@pytest.mark.parametrize("piece", [131_060, _MIB + 1, 8 * _MIB])
def test_a_large_file_is_the_same_by_whatever_way_it_is_written(
    tmp_path: Path, size: int, piece: int
) -> None:
    whole = random.Random(7).randbytes(size)  # noqa: S311 - any bytes
    file = IncomingFile(tmp_path, taking)
    file.write_head(b"head")
    for place in range(0, size, piece):
        file.write(memoryview(whole)[place : place + piece])
    file.flush()

    assert file.path.read_bytes() == b"head" + whole
    assert file.content_sha256 == hashlib.sha256(whole).hexdigest()
    assert file.written_bytes == 4 + size
    file.write(b"more")
    file.close()
    assert file.path.read_bytes() == b"head" + whole + b"more"
    assert file.problem is None


@pytest.mark.parametrize("refused", ["the flag", "the first write", "a later write"])
def test_where_a_file_system_does_not_write_directly_it_is_written_by_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    direct: list[int] = []
    set_flags, write = fcntl.fcntl, os.write

    def flags(handle: int, what: int, value: int = 0) -> int:
        if what == fcntl.F_SETFL and value & os.O_DIRECT and refused == "the flag":
            raise OSError(errno.EINVAL, "Invalid argument")
        return set_flags(handle, what, value)

    def wants_even(handle: int, content: memoryview) -> int:
        if set_flags(handle, fcntl.F_GETFL) & os.O_DIRECT:
            direct.append(len(content))
            if refused == "the first write" or len(direct) > 1:
                raise OSError(errno.EINVAL, "Invalid argument")
        return write(handle, content)

    monkeypatch.setattr(fcntl, "fcntl", flags)
    monkeypatch.setattr(os, "write", wants_even)
    whole = random.Random(8).randbytes(4 * _MIB + 5)  # noqa: S311 - any bytes
    file = IncomingFile(tmp_path, taking)
    for place in range(0, len(whole), 100_000):
        file.write(whole[place : place + 100_000])
    file.close()

    assert file.path.read_bytes() == whole
    assert file.problem is None
    assert len(direct) == {"the flag": 0, "the first write": 1, "a later write": 2}[refused]


@pytest.mark.parametrize("ends", ["with more", "with its end"])
def test_a_disk_that_is_full_is_told_of_what_was_written_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    file = IncomingFile(tmp_path, taking)
    file.write(bytes(_DIRECT))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    file.write(bytes(_MIB + 1))
    if ends == "with more":
        file.write(bytes(_MIB))
    file.close()

    assert file.problem == "it cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(20):
        file = IncomingFile(tmp_path, taking)
        file.write(bytes(_DIRECT))
        file.write(bytes(2 * _MIB + 1))
        file.discard()
        assert not file.is_open
    assert list(tmp_path.iterdir()) == []
