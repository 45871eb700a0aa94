"""The file store: whole or not at all, durable in the right order, and closed to the outside."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.files import Area, FileStoreError, FolderStore

DATA = b"a data set"
DIGEST = hashlib.sha256(DATA).hexdigest()
KEY = f"objects/{DIGEST[:2]}/{DIGEST[2:]}.dcm"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def incoming(store: FolderStore, data: bytes = DATA, name: str = "received") -> Path:
    path = store.incoming_folder / name
    path.write_bytes(data)
    return path


def test_a_file_is_taken_in_under_its_digest(store: FolderStore) -> None:
    temporary = incoming(store)
    assert store.adopt(temporary, Area.OBJECTS, DIGEST) == KEY
    assert store.path(KEY).read_bytes() == DATA
    assert not temporary.exists()


@pytest.mark.parametrize("area", list(Area))
def test_bytes_are_written_to_every_area_and_read_back(store: FolderStore, area: Area) -> None:
    key = store.write(area, DIGEST, DATA)
    assert key.startswith(f"{area}/")
    with store.open(key) as file:
        assert file.read() == DATA
    assert list(store.incoming_folder.iterdir()) == []


def record(
    monkeypatch: pytest.MonkeyPatch, name: str, log: list[str], say: Callable[..., str]
) -> None:
    real = getattr(os, name)

    def recorded(*arguments: Any, **keywords: Any) -> Any:
        log.append(say(*arguments))
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, name, recorded)


def test_bytes_are_synced_before_the_rename_and_the_folders_after(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def name_of(handle: int) -> str:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        return f"sync {path.relative_to(store.root)}"

    temporary = incoming(store)
    record(monkeypatch, "fsync", log, name_of)
    record(monkeypatch, "replace", log, lambda *_: "rename")
    store.adopt(temporary, Area.OBJECTS, DIGEST)
    assert (
        log
        == [
            "sync incoming/received",
            "sync objects",  # the new folder's name in its parent
            "rename",
            f"sync objects/{DIGEST[:2]}",
        ]
    )


def test_a_folder_that_another_process_made_is_synced_once_by_this_one_too(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "objects" / DIGEST[:2]).mkdir()
    synced: list[str] = []
    record(
        monkeypatch,
        "fsync",
        synced,
        lambda handle: Path(f"/proc/self/fd/{handle}").readlink().name,
    )
    store.write(Area.OBJECTS, DIGEST, DATA)
    assert synced[1] == "objects"
    synced.clear()
    store.write(Area.OBJECTS, DIGEST[:2] + "0" * 62, b"other")
    assert "objects" not in synced


def test_the_same_bytes_again_are_kept_once(store: FolderStore) -> None:
    assert store.write(Area.OBJECTS, DIGEST, DATA) == KEY
    assert store.adopt(incoming(store), Area.OBJECTS, DIGEST) == KEY
    assert len(list(store.path(KEY).parent.iterdir())) == 1


def test_other_bytes_under_the_same_digest_never_overwrite_the_first(store: FolderStore) -> None:
    first = store.write(Area.OBJECTS, DIGEST, DATA)
    second = store.write(Area.OBJECTS, DIGEST, b"b data set")
    assert second == KEY.replace(".dcm", "-2.dcm")
    assert store.path(first).read_bytes() == DATA
    assert store.path(second).read_bytes() == b"b data set"
    assert store.write(Area.OBJECTS, DIGEST, b"b data set") == second


def test_threads_that_keep_the_same_object_at_once_all_get_its_key(store: FolderStore) -> None:
    keys: list[str] = []

    def keep() -> None:
        keys.append(store.write(Area.OBJECTS, DIGEST, DATA * 10_000))

    threads = [threading.Thread(target=keep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys == [KEY] * 8
    assert store.path(KEY).read_bytes() == DATA * 10_000


def test_only_the_owner_can_read_what_is_kept(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = FolderStore(tmp_path / "store")
        temporary = incoming(store)
        temporary.chmod(0o666)
        key = store.adopt(temporary, Area.OBJECTS, DIGEST)
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.path(key).stat().st_mode) == 0o600
    for folder in (store.root, store.incoming_folder, store.path(key).parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "key",
    [
        "",
        "objects",
        "/etc/passwd",
        "../store/objects/ab",
        f"objects/../../{DIGEST}",
        f"objects/{DIGEST[:2]}/../{DIGEST[2:]}.dcm",
        f"objects/{DIGEST[:2]}/{DIGEST[2:]}.dcm/../../../x",
        f"incoming/{DIGEST[:2]}/{DIGEST[2:]}.dcm",
        f"objects/{DIGEST[:2]}/{DIGEST[2:].upper()}.dcm",
        f"objects/{DIGEST[:2]}/{DIGEST[2:]}.dcm\n",
        f"objects/{DIGEST[:2]}/{DIGEST[2:]}.dcm\0",
    ],
)
def test_a_key_that_is_not_of_the_store_is_refused(store: FolderStore, key: str) -> None:
    for attempt in (store.path, store.open, store.delete):
        with pytest.raises(ValueError, match="is not a key of the file store"):
            attempt(key)


@given(st.text())
def test_no_text_names_a_file_outside_the_store(key: str) -> None:
    store = object.__new__(FolderStore)
    store.root = Path("/var/lib/store")
    try:
        path = store.path(key)
    except ValueError:
        return
    assert path.is_relative_to(store.root)
    assert ".." not in path.parts


@pytest.mark.parametrize("digest", ["", "ab", "../../etc", "g" * 64, "A" * 64, "a" * 64 + "\n"])
def test_only_a_digest_gives_a_name(store: FolderStore, digest: str) -> None:
    temporary = incoming(store)
    with pytest.raises(ValueError, match="is not a digest"):
        store.adopt(temporary, Area.OBJECTS, digest)
    with pytest.raises(ValueError, match="is not a digest"):
        store.write(Area.OBJECTS, digest, DATA)
    assert temporary.exists()


def test_a_link_is_not_taken_in(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    link = store.incoming_folder / "link"
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(FileStoreError, match="cannot keep"):
        store.adopt(link, Area.OBJECTS, DIGEST)


def test_a_file_that_is_not_there_is_told(store: FolderStore) -> None:
    with pytest.raises(FileStoreError, match=f"cannot read {KEY}: No such file"):
        store.open(KEY)


def test_a_deleted_file_is_gone_and_deleting_it_again_is_no_error(store: FolderStore) -> None:
    key = store.write(Area.OBJECTS, DIGEST, DATA)
    store.delete(key)
    assert not store.path(key).exists()
    store.delete(key)
    store.delete(f"results/00/{'0' * 62}.dcm")


def test_a_full_disk_is_told_as_such_and_leaves_nothing_behind(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(FileStoreError, match="No space left on device; free space") as told:
        store.write(Area.OBJECTS, DIGEST, DATA)
    assert told.value.disk_full
    assert list(store.incoming_folder.iterdir()) == []
    assert not store.path(KEY).exists()


def test_a_file_that_could_not_be_kept_is_left_to_its_door(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_paths: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", broken)
    temporary = incoming(store)
    with pytest.raises(FileStoreError) as told:
        store.adopt(temporary, Area.OBJECTS, DIGEST)
    assert not told.value.disk_full
    assert temporary.read_bytes() == DATA


def test_a_folder_removed_by_hand_is_made_again(store: FolderStore) -> None:
    key = store.write(Area.OBJECTS, DIGEST, DATA)
    store.path(key).unlink()
    store.path(key).parent.rmdir()
    assert store.write(Area.OBJECTS, DIGEST, DATA) == key
    assert store.path(key).read_bytes() == DATA


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileStoreError, match="cannot be made"):
        FolderStore(tmp_path / "file" / "store")


def test_what_was_half_received_is_cleared_and_what_is_fresh_is_left(store: FolderStore) -> None:
    old = incoming(store, name="old")
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    fresh = incoming(store, name="fresh")
    assert store.clear_incoming(older_than_s=600) == 1
    assert (old.exists(), fresh.exists()) == (False, True)
    assert store.clear_incoming() == 1


_WRITER = """
import hashlib, os, sys
from pathlib import Path
from storage.files import Area, FolderStore
store = FolderStore(Path(sys.argv[1]))
while True:
    data = os.urandom(200_000)
    print(store.write(Area.OBJECTS, hashlib.sha256(data).hexdigest(), data), flush=True)
"""


def test_a_writer_that_is_killed_leaves_every_file_whole(store: FolderStore) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(store.root)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    keys = [writer.stdout.readline().strip() for _ in range(20)]
    writer.kill()
    keys += [line for line in writer.stdout.read().splitlines() if line.endswith(".dcm")]
    writer.wait()
    writer.stdout.close()

    kept = {
        str(path.relative_to(store.root)): path for path in (store.root / "objects").rglob("*.dcm")
    }
    assert set(keys) <= set(kept)
    for key, path in kept.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert key == f"objects/{digest[:2]}/{digest[2:]}.dcm"
