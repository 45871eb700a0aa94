"""The window into a running node: what `echonode status` asks before it reads a database."""

from __future__ import annotations

import errno
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import node.window
from node.window import SOCKET_NAME, Window, look_in

Opened = Callable[[Path, Callable[[], Any]], Window]


@pytest.fixture
def opened() -> Iterator[Opened]:
    windows: list[Window] = []

    def open_window(folder: Path, status: Callable[[], Any]) -> Window:
        window = Window(folder, status)
        windows.append(window)
        window.start()
        return window

    yield open_window
    for window in windows:
        window.stop()


def test_who_looks_sees_the_status_of_now(tmp_path: Path, opened: Opened) -> None:
    seen = iter(range(3))
    opened(tmp_path, lambda: {"studies": next(seen)})

    assert [look_in(tmp_path) for _ in range(3)] == [{"studies": n} for n in range(3)]


def test_a_long_status_comes_whole(tmp_path: Path, opened: Opened) -> None:
    status = {"last_errors": ["a disk that is full"] * 100_000}
    opened(tmp_path, lambda: status)

    assert look_in(tmp_path) == status


def test_a_folder_may_lie_deeper_than_a_socket_address_is_long(
    tmp_path: Path, opened: Opened
) -> None:
    folder = tmp_path.joinpath(*["a" * 100] * 3)
    folder.mkdir(parents=True)
    opened(folder, lambda: {"running": True})

    assert look_in(folder) == {"running": True}


def test_only_the_owner_may_look(tmp_path: Path, opened: Opened) -> None:
    opened(tmp_path, dict)

    mode = (tmp_path / SOCKET_NAME).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_where_no_node_is_nobody_answers(tmp_path: Path, opened: Opened) -> None:
    assert look_in(tmp_path / "nowhere") is None
    assert look_in(tmp_path) is None

    opened(tmp_path, dict).stop()

    assert look_in(tmp_path) is None
    assert not (tmp_path / SOCKET_NAME).exists()


def test_a_volume_that_can_only_be_read_keeps_no_node_from_stopping(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = opened(tmp_path, dict)

    def read_only(_path: Path, **_options: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        window.stop()

    assert look_in(tmp_path) is None


def test_a_window_that_could_not_be_opened_is_closed_without_a_word(tmp_path: Path) -> None:
    window = Window(tmp_path / "nowhere", dict)
    with pytest.raises(FileNotFoundError):
        window.start()

    window.stop()


def test_what_a_killed_node_left_keeps_no_one_out(tmp_path: Path, opened: Opened) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / SOCKET_NAME))
    assert look_in(tmp_path) is None

    opened(tmp_path, lambda: {"running": True})

    assert look_in(tmp_path) == {"running": True}


def test_a_status_that_cannot_be_told_sends_away_and_the_next_is_answered(
    tmp_path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a bolt from the blue")

    told = iter([lambda: None, fail, lambda: {"running": True}])
    opened(tmp_path, lambda: next(told)())

    assert [look_in(tmp_path) for _ in range(3)] == [None, None, {"running": True}]
    assert "a bolt from the blue" in caplog.text


def test_nobody_waits_longer_than_the_patience_for_a_node_that_hangs(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.window, "PATIENCE_S", 0.05)
    go_on = threading.Event()
    opened(tmp_path, lambda: {"late": go_on.wait(10)})

    try:
        assert look_in(tmp_path) is None
    finally:
        go_on.set()


@pytest.mark.parametrize("answer", [b"", b"{", b"[1]", b"\xff"])
def test_what_is_no_status_is_no_answer(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / SOCKET_NAME))
        listening.listen(1)

        def send() -> None:
            line, _ = listening.accept()
            with line:
                line.sendall(answer)

        sender = threading.Thread(target=send)
        sender.start()
        assert look_in(tmp_path) is None
        sender.join()
