"""Backups made while a node is at work, and restored: nothing missing, nothing twice."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom.uid import generate_uid

from node.cli.app import main
from node.sections import LogSettings
from node.watch import set_up_logging
from storage import backup as backups
from storage import catalog
from storage.database import Database, migrate
from storage.files import Area
from storage.states import FileState, StudyState
from storage.tables import Instance
from tests.integration.test_life_of_a_study import House, a4c, found


@pytest.fixture(autouse=True)
def house(tmp_path: Path) -> Iterator[House]:
    """A node's parts on the folder and database that the settings name."""
    data = tmp_path / "store"
    data.mkdir(mode=0o700)
    (tmp_path / "echonode.toml").write_text('data_dir = "store"\n[audit]\nenabled = false\n')
    migrate(f"sqlite:///{data}/echonode.db")
    database = Database(f"sqlite:///{data}/echonode.db")
    (data / "device-serial").write_text("0123456789abcdef\n")
    (data / "users.json").write_text("{}")
    set_up_logging(LogSettings(level="error"))  # what commands print is read as JSON
    yield House(database, tmp_path)
    structlog.reset_defaults()
    database.close()


class Site:
    """The command line beside it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.backup = folder / "backup"
        self._capsys = capsys

    def run(self, *arguments: str, status: int = 0) -> Any:
        code = main(["--config", str(self.folder / "echonode.toml"), *arguments, "--json"])
        said = self._capsys.readouterr()
        self.complaint = said.err
        assert code == status, said.err
        return json.loads(said.out) if said.out else None

    def lose_all(self) -> None:
        shutil.move(self.folder / "store", self.folder / "lost")


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


def reported(house: House) -> str:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()
    return uid


def test_what_was_backed_up_while_the_node_worked_is_whole_when_it_is_restored(
    house: House, site: Site
) -> None:
    uid = reported(house)
    stopping = threading.Event()

    def receive() -> None:
        while not stopping.is_set():
            house.receive(generate_uid())

    machine = threading.Thread(target=receive)
    machine.start()
    try:
        made = site.run("backup", str(site.backup))
        again = site.run("backup", str(site.backup))
    finally:
        stopping.set()
        machine.join()
    assert made["missing"] == again["missing"] == []
    assert made["copied"] == made["files"] >= 3
    assert again["files"] > made["files"], "more came meanwhile"
    assert again["copied"] == again["files"] - made["files"], "only what is new"
    rows = [path.name for path in site.backup.glob("database-*")]
    assert len(rows) == 1, "one file, without a log beside it"

    house.database.close()
    site.lose_all()
    restored = site.run("restore", str(site.backup))
    assert restored["files"] == restored["copied"] == again["files"]
    assert site.run("db", "check", "--deep") == {"ok": True, "problems": [], "faults": []}
    shown = site.run("study", uid)
    assert shown["study"]["state"] == StudyState.DELIVERING, "it goes on where it was"
    data = site.folder / "store"
    assert (data / "device-serial").read_text() == "0123456789abcdef\n"
    assert (data / "users.json").read_text() == "{}"
    assert not (data / "echonode.toml").exists()
    for path in data.rglob("*"):
        assert not path.stat().st_mode & 0o077, f"{path} is open to others"
    assert sqlite3.connect(data / "echonode.db").execute("PRAGMA integrity_check").fetchone() == (
        "ok",
    )


def test_what_retention_removed_between_is_in_no_backup(house: House, site: Site) -> None:
    uid = reported(house)
    site.run("backup", str(site.backup))
    key = house.detail(uid).recordings[0].file_key
    with house.database.write() as session:
        session.query(Instance).one().file_state = FileState.REMOVED
    house.files.delete(key)
    made = site.run("backup", str(site.backup))
    assert not (site.backup / key).exists()
    assert made["copied"] == 0


def test_a_file_that_goes_while_it_is_copied_is_asked_for_again(
    house: House, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = reported(house)
    key = house.detail(uid).recordings[0].file_key
    copy = backups._copy_rows
    rounds = []

    def then_remove(source: Path, target: Path) -> None:
        copy(source, target)
        rounds.append(target)
        if len(rounds) == 1:
            (site.backup / key).unlink()
            house.files.delete(key)
            with house.database.write() as session:
                session.query(Instance).one().file_state = FileState.REMOVED

    monkeypatch.setattr(backups, "_copy_rows", then_remove)
    assert site.run("backup", str(site.backup))["missing"] == []
    assert len(rounds) == 2


def test_a_file_that_is_nowhere_is_told_and_the_rest_is_kept(house: House, site: Site) -> None:
    uid = reported(house)
    key = house.detail(uid).recordings[0].file_key
    house.files.path(key).unlink()
    made = site.run("backup", str(site.backup), status=1)
    assert made["missing"] == [key]
    assert "1 files that rows name were not there" in site.complaint
    assert (site.backup / "backup.json").is_file()


def test_a_backup_that_is_broken_off_leaves_the_former_one(
    house: House, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(house)
    first = site.run("backup", str(site.backup))
    reported(house)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", str(site.backup))

    monkeypatch.setattr(backups, "_write_manifest", full)
    site.run("backup", str(site.backup), status=1)
    assert "free space on its volume" in site.complaint
    monkeypatch.undo()
    house.database.close()
    site.lose_all()
    assert site.run("restore", str(site.backup))["files"] == first["files"]
    assert site.run("db", "check", "--deep")["ok"]


def test_a_restore_overwrites_nothing_and_goes_on_where_it_was_broken_off(
    house: House, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(house)
    made = site.run("backup", str(site.backup))
    site.run("restore", str(site.backup), status=1)
    assert "nothing is overwritten" in site.complaint
    house.database.close()
    site.lose_all()
    users = site.folder / "store" / "users.json"
    users.parent.mkdir(mode=0o700)
    users.write_text("of somebody else")
    site.run("restore", str(site.backup), status=1)
    assert f"{users} is there already" in site.complaint
    users.unlink()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", str(site.folder))

    monkeypatch.setattr(backups, "_copy_back", full)
    site.run("restore", str(site.backup), status=1)
    assert "it goes on where it was" in site.complaint
    monkeypatch.undo()
    again = site.run("restore", str(site.backup))
    assert (again["copied"], again["files"]) == (0, made["files"])
    assert site.run("db", "check", "--deep")["ok"]


def test_a_running_node_is_not_restored_over(site: Site) -> None:
    site.run("backup", str(site.backup))
    with (site.folder / "store" / "node.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        site.run("restore", str(site.backup), status=1)
    assert "stop it, then restore" in site.complaint


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda folder: (folder / "backup.json").unlink(), "holds no whole backup"),
        (lambda folder: _cut(next(folder.glob("database-*"))), "is damaged"),
        (lambda folder: _older(folder), "does not know"),
    ],
)
def test_what_is_no_backup_is_not_restored(
    house: House, site: Site, harm: Any, complaint: str
) -> None:
    reported(house)
    site.run("backup", str(site.backup))
    harm(site.backup)
    house.database.close()
    site.lose_all()
    site.run("restore", str(site.backup), status=1)
    assert complaint in site.complaint
    assert not (site.folder / "store" / "echonode.db").exists()


def test_a_folder_of_something_else_takes_no_backup(house: House, site: Site) -> None:
    site.backup.mkdir()
    (site.backup / "photographs").touch()
    site.run("backup", str(site.backup), status=1)
    assert "something else" in site.complaint
    site.run("backup", str(site.folder / "store" / "backup"), status=1)
    assert "within the node's own folder" in site.complaint
    with house.database.read() as session:
        assert catalog.list_studies(session) == ()


def test_quarantine_is_part_of_it(house: House, site: Site) -> None:
    key = house.files.write(Area.QUARANTINE, "ab" * 32, b"nobody knows what")
    with house.database.write() as session:
        from storage.tables import QuarantinedObject

        session.add(
            QuarantinedObject(
                received_at=house.now, reason="no", status_sent=0xC001, file_key=key,
                size_bytes=17,
            )
        )  # fmt: skip
    site.run("backup", str(site.backup))
    assert (site.backup / key).read_bytes() == b"nobody knows what"


def _cut(rows: Path) -> None:
    rows.write_bytes(rows.read_bytes()[:-4096])


def _older(folder: Path) -> None:
    """As if a later version had made it."""
    rows = next(folder.glob("database-*"))
    connection = sqlite3.connect(rows)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    manifest = json.loads((folder / "backup.json").read_text())
    manifest["database"]["sha256"] = backups._digest(rows)
    (folder / "backup.json").write_text(json.dumps(manifest))
