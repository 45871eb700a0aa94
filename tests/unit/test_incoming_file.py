"""A data set on its way in: kept while it can be, and dropped with the reason when it cannot."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from node.doors import incoming
from node.doors.incoming import IncomingFile

_MIB = 1 << 20


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

    monkeypatch.setattr(incoming.os, "write", full)

    assert file.write(b"the second") == 10
    assert file.problem == "it cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
    file.flush()
    file.discard()  # once more does no harm
