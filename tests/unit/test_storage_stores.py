"""What every file store promises, held on each: in a folder, in a shared one, in a bucket."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.files import Area, FileStore, FileStoreError, local, open_store
from tests.objects_server import ObjectsServer, environment, let_in, objects_server

DATA = b"a data set"
DIGEST = hashlib.sha256(DATA).hexdigest()
NONE = f"objects/{'0' * 2}/{'0' * 62}.dcm"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    let_in(monkeypatch)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectsServer]:
    with objects_server(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture(params=["folder", "shared folder", "objects"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return ""
    if request.param == "shared folder":
        return f"file://{tmp_path}/shared"
    running: ObjectsServer = request.getfixturevalue("server")
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    return running.url.replace("node-a", name)  # nothing of the tests before


@pytest.fixture
def store(url: str, tmp_path: Path) -> FileStore:
    return open_store(url, tmp_path / "node")


def incoming(store: FileStore, data: bytes = DATA, name: str = "received") -> Path:
    path = store.incoming_folder / name
    path.write_bytes(data)
    return path


def content(store: FileStore, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()


def test_a_file_that_is_taken_in_is_read_in_every_way(store: FileStore) -> None:
    temporary = incoming(store)
    key = store.adopt(temporary, Area.OBJECTS, DIGEST)
    assert key.startswith(f"objects/{DIGEST[:2]}/{DIGEST[2:]}")
    assert not temporary.exists()
    assert content(store, key) == DATA
    assert store.size_bytes(key) == len(DATA)
    with store.local(key) as path, local(store.source(key)) as fetched:
        assert path.read_bytes() == fetched.read_bytes() == DATA
    again = store.copy_out(key)
    assert again.parent == store.incoming_folder
    assert again.read_bytes() == DATA
    store.check_readable(key)


@pytest.mark.parametrize("area", list(Area))
def test_bytes_are_written_to_every_area_and_leave_nothing_behind(
    store: FileStore, area: Area
) -> None:
    key = store.write(area, DIGEST, DATA)
    assert [item.key for item in store.listed(area)] == [key]
    assert content(store, key) == DATA
    assert list(store.incoming_folder.iterdir()) == []


def test_the_same_bytes_again_are_kept_once(store: FileStore) -> None:
    first = store.write(Area.OBJECTS, DIGEST, DATA)
    assert store.adopt(incoming(store), Area.OBJECTS, DIGEST) == first
    assert len(list(store.listed(Area.OBJECTS))) == 1


def test_other_bytes_under_the_same_digest_never_overwrite_the_first(
    store: FileStore, url: str, tmp_path: Path
) -> None:
    first = store.write(Area.OBJECTS, DIGEST, DATA)
    # The other is another node, where two may have one store.
    other = open_store(url, tmp_path / "other") if url else store
    second = other.write(Area.OBJECTS, DIGEST, b"b data set")
    assert second != first
    assert content(store, first) == DATA
    assert content(store, second) == b"b data set"
    assert store.write(Area.OBJECTS, DIGEST, b"b data set") == second


def test_threads_that_keep_two_contents_of_one_digest_at_once_lose_neither(
    store: FileStore, url: str, tmp_path: Path
) -> None:
    other = open_store(url, tmp_path / "other") if url else store
    kept: list[tuple[str, bytes]] = []

    def keep(where: FileStore, data: bytes) -> None:
        kept.append((where.write(Area.OBJECTS, DIGEST, data), data))

    threads = [
        threading.Thread(target=keep, args=(where, letter * 100_000))
        for where in (store, other)
        for letter in (b"a", b"b", b"a")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == len(threads)
    assert all(content(store, key) == data for key, data in kept)
    assert len(list(store.listed(Area.OBJECTS))) == 2


def test_an_empty_file_and_one_of_several_parts_come_back_as_they_were(store: FileStore) -> None:
    for data in (b"", os.urandom(1000) * 40_000):
        digest = hashlib.sha256(data).hexdigest()
        key = store.adopt(incoming(store, data), Area.OBJECTS, digest)
        assert store.size_bytes(key) == len(data)
        with store.local(key) as path:
            assert path.read_bytes() == data
        assert content(store, key) == data


def test_a_file_is_read_here_and_there(store: FileStore) -> None:
    data = bytes(range(256)) * 8192
    key = store.write(Area.RESULTS, DIGEST, data)
    with store.open(key) as file:
        assert file.read(3) == data[:3]
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.seek(1_000_000) == 1_000_000
        assert file.read(1000) == data[1_000_000:1_001_000]
        assert file.read() == data[1_001_000:]


def test_what_is_not_there_is_told_as_missing(store: FileStore) -> None:
    assert store.size_bytes(NONE) is None
    readings: tuple[Callable[[], object], ...] = (
        lambda: store.open(NONE),
        lambda: store.check_readable(NONE),
        lambda: store.local(NONE).__enter__(),
        lambda: store.copy_out(NONE),
    )
    for read in readings:
        with pytest.raises(FileStoreError) as told:
            read()
        assert told.value.missing
        assert told.value.is_lasting
        assert not told.value.disk_full
    assert list(store.incoming_folder.iterdir()) == []


def test_a_deleted_file_is_gone_and_deleting_it_again_is_no_error(store: FileStore) -> None:
    key = store.write(Area.OBJECTS, DIGEST, DATA)
    with store.local(key) as path:
        assert path.exists()
    store.delete(key)
    assert store.size_bytes(key) is None
    assert not path.exists()
    store.delete(key)
    with pytest.raises(FileStoreError):
        store.open(key)


def test_what_a_backup_held_is_kept_again_under_its_key(store: FileStore) -> None:
    key = store.write(Area.OBJECTS, DIGEST, DATA)
    store.delete(key)
    store.restore(key, io.BytesIO(DATA))
    assert content(store, key) == DATA
    store.restore(NONE, io.BytesIO(b"of a folder"))  # its keys are good elsewhere, too
    with store.local(NONE) as path:
        assert path.read_bytes() == b"of a folder"
    assert list(store.incoming_folder.iterdir()) == []


def test_a_listing_is_sorted_and_says_how_long_and_how_old(store: FileStore) -> None:
    began = time.time()
    keys = [
        store.write(Area.OBJECTS, hashlib.sha256(bytes([one])).hexdigest(), bytes(one))
        for one in range(12)
    ]
    listed = list(store.listed(Area.OBJECTS))
    assert [item.key for item in listed] == sorted(keys)
    assert sorted(item.size_bytes or 0 for item in listed) == list(range(12))
    assert all(abs(item.changed_at - began) < 60 for item in listed)
    assert list(store.listed(Area.RESULTS)) == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", f"objects/../../{DIGEST}", f"incoming/{DIGEST[:2]}/{DIGEST[2:]}.dcm"]
)
def test_a_key_that_is_not_of_the_store_is_refused(store: FileStore, key: str) -> None:
    doings: tuple[Callable[[str], object], ...] = (
        store.source,
        store.open,
        store.size_bytes,
        store.delete,
        store.check_readable,
        lambda key: store.restore(key, io.BytesIO()),
        lambda key: store.local(key).__enter__(),
        store.copy_out,
    )
    for do in doings:
        with pytest.raises(ValueError, match="is not a key of the file store"):
            do(key)


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64])
def test_only_a_digest_gives_a_name(store: FileStore, digest: str) -> None:
    temporary = incoming(store)
    with pytest.raises(ValueError, match="is not a digest"):
        store.adopt(temporary, Area.OBJECTS, digest)
    with pytest.raises(ValueError, match="is not a digest"):
        store.write(Area.OBJECTS, digest, DATA)
    assert temporary.exists()


def test_a_link_is_not_taken_in(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    link = store.incoming_folder / "link"
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(FileStoreError, match="cannot keep"):
        store.adopt(link, Area.OBJECTS, DIGEST)
    assert list(store.listed(Area.OBJECTS)) == []


def test_each_node_clears_what_it_was_receiving_and_nothing_of_another(
    store: FileStore, url: str, tmp_path: Path
) -> None:
    mine = incoming(store, name="old")
    os.utime(mine, (time.time() - 3600,) * 2)
    fresh = incoming(store, name="fresh")
    if url:
        other = open_store(url, tmp_path / "other")
        theirs = incoming(other)
        assert other.clear_incoming() == 1
        assert not theirs.exists()
        assert mine.exists()
    assert store.clear_incoming(older_than_s=600) == 1
    assert (mine.exists(), fresh.exists()) == (False, True)


_WRITER = """
import hashlib, os, sys
from pathlib import Path
from storage.files import Area, open_store
store = open_store(sys.argv[1], Path(sys.argv[2]))
while True:
    data = os.urandom(200_000)
    print(store.write(Area.OBJECTS, hashlib.sha256(data).hexdigest(), data), flush=True)
"""


def test_a_writer_that_is_killed_leaves_every_file_whole(
    store: FileStore, url: str, tmp_path: Path
) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url, str(tmp_path / "node")],
        cwd=Path(__file__).parents[2],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    keys = [writer.stdout.readline().strip() for _ in range(10)]
    writer.kill()
    keys += [line for line in writer.stdout.read().splitlines() if line.endswith(".dcm")]
    writer.wait()
    writer.stdout.close()
    kept = [item.key for item in store.listed(Area.OBJECTS)]
    assert set(keys) <= set(kept)
    for key in kept:
        digest = hashlib.sha256(content(store, key)).hexdigest()
        assert key.startswith(f"objects/{digest[:2]}/{digest[2:]}")
