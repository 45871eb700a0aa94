"""Files in an object store, a real server's, that is killed, slow, full, or gives other bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread

from node.cli import main
from node.intake import Arrival, Intake, Status
from storage import catalog
from storage.backup import back_up, bring_back
from storage.database import Database, DatabaseError, migrate
from storage.files import Area, FileStore, FileStoreError, local, open_store
from storage.files import bucket as bucket_module
from storage.files.address import Address
from tests.light_node import light_node
from tests.objects_server import (
    CREDENTIALS,
    Asked,
    BadWay,
    ObjectsServer,
    bad_way,
    let_in,
    objects_server,
    url_of,
)
from tests.peers import send, storescp, wait_until
from tests.running_node import REAL_CINE, variant

pytestmark = [
    pytest.mark.timeout(180),
    # pynetdicom leaves the socket open of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    let_in(monkeypatch)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectsServer]:
    with objects_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def one_way(one_server: ObjectsServer) -> Iterator[BadWay]:
    with bad_way(one_server) as bad:
        yield bad


@pytest.fixture
def server(one_server: ObjectsServer) -> ObjectsServer:
    shutil.rmtree(one_server.file(""), ignore_errors=True)
    return one_server


@pytest.fixture
def way(server: ObjectsServer, one_way: BadWay) -> BadWay:
    assert one_way.server is server
    one_way.mend()
    one_way.seen.clear()
    one_way.on = lambda asked: asked.method in ("PUT", "POST")
    return one_way


@pytest.fixture
def store(way: BadWay, tmp_path: Path) -> FileStore:
    made = open_store(way.url, tmp_path / "node")
    made.reach()  # the client is made
    return made


def arrived(store: FileStore, data: bytes = DATA) -> Path:
    path = store.incoming_folder / "received"
    path.write_bytes(data)
    return path


def kept_by(server: ObjectsServer) -> list[Path]:
    folder = server.file(str(Area.OBJECTS))
    return [path for path in folder.rglob("*") if path.is_file()]


def refused(store: FileStore, data: bytes = DATA) -> FileStoreError:
    temporary = arrived(store, data)
    with pytest.raises(FileStoreError) as told:
        store.adopt(temporary, Area.OBJECTS, DIGEST)
    assert temporary.read_bytes() == data
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(told.value)
    return told.value


def xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>x</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "full"),
    [
        (507, "", True),
        (403, "QuotaExceeded", True),
        (500, "InternalError", False),
        (400, "BadDigest", False),
    ],
)
def test_a_server_that_takes_nothing_gets_no_acknowledgement_and_is_asked_until_it_does(
    store: FileStore, way: BadWay, server: ObjectsServer, status: int, code: str, full: bool
) -> None:
    way.answer = (status, xml(code) if code else b"")
    error = refused(store)
    assert error.disk_full is full
    assert not error.missing
    assert kept_by(server) == []
    with pytest.raises(FileStoreError):
        store.reach()  # so it asks by a small object whether it is over
    way.mend()
    store.reach()
    assert list(server.file("").rglob("probe")) == []
    key = store.adopt(arrived(store), Area.OBJECTS, DIGEST)
    assert server.file(key).read_bytes() == DATA


def test_bytes_that_were_changed_on_their_way_are_not_acknowledged_and_do_not_stay(
    store: FileStore, way: BadWay, server: ObjectsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    way.spoil = lambda body: body[:-1] + bytes([body[-1] ^ 1]) if len(body) > 1000 else body
    assert "other bytes than were sent" in str(refused(store))
    assert kept_by(server) == []
    monkeypatch.setattr(bucket_module, "PART_BYTES", 5 << 20)
    assert "other bytes than were sent" in str(refused(store, DATA * 40))
    assert kept_by(server) == []


def test_a_server_whose_tags_are_no_checksums_is_read_back(
    store: FileStore, way: BadWay, server: ObjectsServer
) -> None:
    way.tag = "0" * 32
    key = store.adopt(arrived(store), Area.OBJECTS, DIGEST)
    assert server.file(key).read_bytes() == DATA
    assert [asked.method for asked in way.seen[-2:]] == ["PUT", "GET"]


def test_an_upload_in_parts_whose_last_answer_is_lost_is_read_back(
    store: FileStore, way: BadWay, server: ObjectsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "PART_BYTES", 5 << 20)
    completions: list[Asked] = []

    def first(asked: Asked) -> bool:
        completions.extend([asked] * (asked.method == "POST" and "uploadId" in asked.path))
        return bool(completions) and completions[0] is asked

    way.on, way.cut = first, 0
    key = store.adopt(arrived(store, DATA * 20), Area.OBJECTS, DIGEST)
    assert len(completions) == 2
    assert server.file(key).read_bytes() == DATA * 20
    assert way.seen[-1].method == "GET"


def test_nobody_waits_for_ever(
    store: FileStore, way: BadWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_SHORT_S", 0.5)
    monkeypatch.setattr(bucket_module, "_LONG_S", 0.5)
    way.on, way.hang_s = lambda _asked: True, 2.0
    assert "no answer within" in str(refused(store))
    for ask in (store.reach, lambda: store.size_bytes(f"objects/00/{'0' * 62}.dcm")):
        with pytest.raises(FileStoreError, match="no answer within"):
            ask()


def test_what_a_killed_server_has_confirmed_is_there_when_it_is_back(
    store: FileStore, server: ObjectsServer
) -> None:
    key = store.adopt(arrived(store), Area.OBJECTS, DIGEST)
    server.kill()
    error = refused(store, b"other")
    assert not error.is_lasting
    for ask in (store.reach, lambda: store.open(key), lambda: store.size_bytes(key)):
        with pytest.raises(FileStoreError) as told:
            ask()
        assert not told.value.is_lasting
    server.start()
    store.reach()
    with store.local(key) as path:
        assert path.read_bytes() == DATA


def test_a_reading_that_is_cut_off_goes_on_or_fails_and_is_never_short(
    store: FileStore, way: BadWay
) -> None:
    key = store.adopt(arrived(store), Area.OBJECTS, DIGEST)
    readings: list[Asked] = []

    def first(asked: Asked) -> bool:
        readings.extend([asked] * (asked.method == "GET"))
        return len(readings) == 1

    way.on, way.cut = first, 200_000
    with store.local(key) as path:
        assert path.read_bytes() == DATA
    assert len(readings) == 2
    way.on, way.cut = lambda asked: asked.method == "GET", 10
    with pytest.raises(FileStoreError) as told, local(store.source(key)):
        pass
    assert not told.value.is_lasting
    with pytest.raises(FileStoreError):
        store.check_readable(key)


def test_other_bytes_under_a_key_are_told_and_never_handed_on(
    store: FileStore, server: ObjectsServer
) -> None:
    key = store.adopt(arrived(store), Area.OBJECTS, DIGEST)
    server.file(key).write_bytes(DATA[:-1] + b"x")
    for read in (store.local(key), local(store.source(key))):
        with pytest.raises(FileStoreError, match="not those that were kept") as told, read:
            pass
        assert told.value.damaged
    with pytest.raises(FileStoreError, match="not those that were kept"):
        store.check_readable(key)


def test_a_worker_leaves_no_file_behind_however_it_ends(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.adopt(arrived(store), Area.OBJECTS, DIGEST)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with local(store.source(key)) as path:
        assert path.read_bytes() == DATA
        assert list((tmp_path / "scratch").iterdir()) == []  # a kill here leaves nothing
    assert not path.exists()


def test_the_row_comes_after_the_confirmation_and_a_second_try_keeps_one(
    store: FileStore, way: BadWay, server: ObjectsServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url = f"sqlite:///{tmp_path}/rows.db"
    migrate(url)
    database = Database(url)
    intake = Intake(database, store)
    uid = str(dcmread(REAL_CINE, stop_before_pixels=True).SOPInstanceUID)

    def receive() -> Status:
        return intake.receive(Arrival(path=arrived(store, REAL_CINE.read_bytes()), door="t")).status

    def row() -> catalog.InstanceRecord | None:
        with database.read() as session:
            return catalog.find_instance(session, uid)

    seen_at_put: list[Any] = []

    def put(asked: Asked) -> bool:
        if asked.method == "PUT":
            seen_at_put.append(row())
        return False

    way.on, way.answer = lambda asked: asked.method == "PUT", (507, b"")
    assert receive() is Status.OUT_OF_RESOURCES
    assert row() is None
    way.mend()
    way.on = put

    def locked(*_: object, **__: object) -> Any:
        raise DatabaseError("the database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "add_plain", locked)
        assert receive() is Status.OUT_OF_RESOURCES
    assert (row(), len(kept_by(server))) == (None, 1)
    assert receive() is Status.SUCCESS
    found = row()
    assert found is not None
    assert seen_at_put == [None, None]
    assert kept_by(server) == [server.file(found.file_key)]
    assert receive() is Status.SUCCESS  # the same again
    assert len(kept_by(server)) == 1
    database.close()


def test_a_backup_of_a_bucket_is_brought_back_into_another(
    store: FileStore, server: ObjectsServer, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/rows.db"
    migrate(url)
    database = Database(url)
    arrival = Arrival(path=arrived(store, REAL_CINE.read_bytes()), door="t")
    assert Intake(database, store).receive(arrival).status is Status.SUCCESS
    made = back_up(database, store, tmp_path / "backup", beside={}, made_by="a test")
    assert (made.files, made.copied, made.missing) == (1, 1, ())
    other = url_of(server.endpoint).replace("node-a", "node-b")
    root = tmp_path / "restored"
    brought = bring_back(
        tmp_path / "backup",
        root,
        root / "rows.db",
        places={},
        open_files=lambda: open_store(other, root),
    )
    assert (brought.files, brought.copied, brought.missing) == (1, 1, ())
    for item in store.listed(Area.OBJECTS):
        with open_store(other, root).local(item.key) as path:
            assert path.read_bytes() == REAL_CINE.read_bytes()
    database.close()


def test_credentials_come_from_a_file_that_is_private_and_are_never_shown(
    server: ObjectsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    url = f"{server.url}&credentials={file}"
    store = open_store(url, tmp_path / "node")
    with pytest.raises(FileStoreError, match="cannot be read"):
        store.reach()
    file.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = hush\n")
    file.chmod(0o644)
    with pytest.raises(FileStoreError, match="open to others"):
        store.reach()
    file.chmod(0o600)
    file.write_text("[default]\naws_secret_access_key hush\n")
    with pytest.raises(FileStoreError) as told:
        store.reach()
    assert "hush" not in str(told.value)
    file.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = hush\n")
    key = store.write(Area.RESULTS, DIGEST, DATA)
    source = store.source(key)
    assert "hush" not in source
    with local(source) as path:
        assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://key:hush@bucket/x",
        "s3://bucket/../x",
        "s3://bucket?password=hush",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=https://key:hush@host",
        "s3://bucket?credentials=relative",
        "s3://bucket?endpoint=",
    ],
)
def test_what_is_no_address_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as told:
        Address.parse(url)
    assert "hush" not in str(told.value)


def test_an_address_is_written_as_it_is_read() -> None:
    for text in (
        "s3://bucket",
        "s3://bucket/a/b?endpoint=https://host:9000&region=eu&credentials=/a/b&authorities=/c",
    ):
        address = Address.parse(text)
        assert str(address) == text
        key = f"objects/ab/{'c' * 62}-{'1' * 39}.dcm"
        assert Address.of_source(address.source(key)) == (address, key)
    assert Address.parse("s3://bucket?endpoint=http://10.0.0.1").is_in_the_clear
    assert not Address.parse("s3://bucket?endpoint=http://127.0.0.1:9").is_in_the_clear


def test_a_study_goes_its_way_and_a_server_that_was_away_is_waited_for(
    server: ObjectsServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = variant(tmp_path), variant(tmp_path)
    uids = [str(dcmread(path).StudyInstanceUID) for path in (first, second)]
    with storescp(tmp_path / "archive") as archive:
        to = {
            "name": "pacs", "kind": "dimse", "host": "127.0.0.1", "port": archive.port,
            "ae_title": "ARCHIVE", "commitment": "off",
        }  # fmt: skip
        data = tmp_path / "data"
        with light_node(monkeypatch, data, store_url=server.url, destinations=[to]) as (
            node,
            settings,
        ):
            database = Database(settings.database_url)

            def state_of(uid: str) -> str:
                with database.read() as session:
                    try:
                        return catalog.find_study(session, uid).state.value
                    except catalog.CatalogError:
                        return ""

            def get(path: str) -> httpx.Response:
                return httpx.get(f"{node.addresses.http_url}{path}", trust_env=False, timeout=20)

            assert send(node.addresses.dimse_port, first, options=("-xy",)).returncode == 0
            wait_until(lambda: state_of(uids[0]) == "done", what="the study is done")
            assert len(archive.files()) == 3
            assert list((data / "incoming").iterdir()) == []
            assert not (data / "objects").exists()
            instance = str(dcmread(first).SOPInstanceUID)
            series = str(dcmread(first).SeriesInstanceUID)
            there = f"/dicom-web/studies/{uids[0]}/series/{series}/instances/{instance}"
            for page in ("/", f"/studies/{uids[0]}", f"{there}/metadata", f"{there}/frames/1,3"):
                assert get(page).status_code == 200, page
            assert b"DICM" in get(there).content

            config = tmp_path / "echonode.toml"
            config.write_text(f'data_dir = "{data}"\nstore_url = "{server.url}"\n')
            for command in (("status",), ("study", uids[0]), ("db", "check", "--deep")):
                assert main(["--config", str(config), *command, "--json"]) == 0, command
            assert "s3://echo/node-a/results" in capsys.readouterr().out

            server.kill()
            wait_until(lambda: get("/readyz").status_code == 503, what="it says so")
            assert send(node.addresses.dimse_port, second, options=("-xy",)).returncode != 0
            assert get(there).status_code == 503
            assert get(f"{there}/frames/2").status_code == 200  # a copy of it is here
            assert main(["--config", str(config), "status", "--json"]) == 0
            assert "no connection" in capsys.readouterr().out
            server.start()
            wait_until(lambda: get("/readyz").status_code == 200, what="it goes on")
            assert send(node.addresses.dimse_port, second, options=("-xy",)).returncode == 0
            wait_until(lambda: state_of(uids[1]) == "done", what="the second is done")
            assert state_of(uids[0]) == "done"
            assert len(archive.files()) == 6
            assert main(["--config", str(config), "db", "check", "--deep"]) == 0
            database.close()
