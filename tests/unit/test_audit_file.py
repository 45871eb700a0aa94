"""The audit trail's files: private, in order, and whole after a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from node.sections import AuditSettings
from node.watch import audit_file
from node.watch.audit import Audit
from node.watch.audit_file import AuditFile, AuditFileError, audit_files, read_lines


def lines(folder: Path) -> list[str]:
    return [line for path in audit_files(folder) for line in path.read_text().splitlines()]


def test_files_are_for_the_service_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "audit"

    file = AuditFile(folder, max_file_bytes=10_000)
    file.append("one")

    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in audit_files(folder)] == [0o600]


def test_a_new_file_is_begun_by_size_and_the_order_is_kept(tmp_path: Path) -> None:
    file = AuditFile(tmp_path, max_file_bytes=100)
    told = [f"message {number:03d}" for number in range(50)]

    for line in told:
        file.append(line)

    assert len(audit_files(tmp_path)) > 3
    assert lines(tmp_path) == told


def test_after_a_restart_the_newest_file_goes_on(tmp_path: Path) -> None:
    AuditFile(tmp_path, max_file_bytes=10_000).append("one")
    AuditFile(tmp_path, max_file_bytes=10_000).append("two")

    assert len(audit_files(tmp_path)) == 1
    assert lines(tmp_path) == ["one", "two"]


def test_a_full_disk_loses_nothing_and_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AuditFile(tmp_path, max_file_bytes=10_000)
    file.append("before")
    real = os.write
    room = [4]

    def nearly_full(handle: int, content: bytes) -> int:
        part = content[: room[0]]
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(part)
        return real(handle, part)

    monkeypatch.setattr(os, "write", nearly_full)
    file.append("during 1")
    file.append("during 2")
    assert file.flush() is False
    monkeypatch.setattr(os, "write", real)

    assert file.flush() is True
    # Half of a line stays where the room ended; whole it stands on the next.
    assert lines(tmp_path) == ["before", "duri", "during 1", "during 2"]
    assert file.lost == 0


def test_memory_is_bounded_and_what_is_lost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "_KEPT_IN_MEMORY", 3)
    audit = Audit(AuditSettings(), tmp_path, "ECHONODE")
    real = os.write

    def full(_handle: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for number in range(5):
        audit.exported("root", f"object {number}")
    monkeypatch.setattr(os, "write", real)
    audit._turn(1)

    told = lines(tmp_path / "audit")
    assert audit.status()["lost"] == 2
    assert [f"object {number}" in line for number, line in zip((2, 3, 4), told, strict=False)] == [
        True
    ] * 3
    assert "110133" in told[3]
    assert "2 messages were lost" in told[3]


def test_old_files_are_deleted_unless_they_are_still_to_be_sent(tmp_path: Path) -> None:
    file = AuditFile(tmp_path, max_file_bytes=100)
    for number in range(50):
        file.append(f"message {number:03d}")
    first, second, third, *_ = audit_files(tmp_path)
    for path in audit_files(tmp_path):
        os.utime(path, (0, 0))
    newest = audit_files(tmp_path)[-1]

    assert file.delete_older(30, before=second) == 1
    assert not first.exists()
    assert third.exists()
    file.delete_older(30, before=None)
    assert audit_files(tmp_path) == [newest]


def test_only_whole_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "audit-00000001-20261121.log"
    path.write_bytes(b"one\ntwo\nthr")

    assert list(read_lines(path, 0, 10)) == [("one", 4), ("two", 8)]
    assert list(read_lines(path, 4, 10)) == [("two", 8)]


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file")

    with pytest.raises(AuditFileError, match=r"set another \[audit\] folder"):
        Audit(AuditSettings(), tmp_path, "ECHONODE")


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    audit = Audit(AuditSettings(enabled=False), tmp_path, "ECHONODE")
    audit.start()
    audit.exported("root", "object 1")
    audit.stop()

    assert list(tmp_path.iterdir()) == []
