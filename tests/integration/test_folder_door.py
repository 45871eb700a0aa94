"""Files that are left in a watched folder: taken when they rest, gone only when they are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from structlog.testing import capture_logs

from node.checkup import here
from node.cli import main
from node.doors import folder as folder_module
from node.doors.folder import FolderDoor
from node.doors.media import objects_in
from node.intake import Intake, Receipt
from node.sections import AlertsSettings, WatchedFolder
from node.settings import Settings, load_settings
from node.settings_file import SettingsError
from node.watch.alerts import sight_of
from node.watch.transfers import Transfer
from storage import catalog
from storage.database import Database
from storage.files import FolderStore
from tests.folder_files import MEDIUM, archive, clip, part10, put
from tests.light_node import light_node
from tests.peers import wait_until

NAME = "Doe^Jane.dcm"


class Watch:
    """A watched folder with a clock that stands until it is moved."""

    def __init__(self, folder: Path, files: FolderStore, database: Database) -> None:
        self.path = folder
        self.files = files
        self.database = database
        self.at = 0.0
        self.full: str | None = None
        self.told: list[Transfer] = []
        self.door: FolderDoor

    def open(self, after: Literal["leave", "delete", "move"] = "delete") -> FolderDoor:
        """A door with nothing remembered, as after a start."""
        self.door = FolderDoor(
            WatchedFolder(path=self.path, after=after, unchanged_s=10),
            self.files,
            Intake(self.database, self.files),
            refusing=lambda: self.full,
            transferred=self.told.append,
            clock=lambda: self.at,
        )
        return self.door

    def look(self, after_s: float = 10.0) -> dict[str, Any]:
        self.at += after_s
        self.door.look()
        return self.door.shown()

    def rest(self) -> dict[str, Any]:
        """Long enough that what lies there is taken."""
        self.look()
        return self.look()

    def lying(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()
        )

    def kept(self) -> int:
        with self.database.read() as session:
            return sum(study.images for study in catalog.list_studies(session))


@pytest.fixture
def watch(tmp_path: Path, database: Database) -> Iterator[Watch]:
    (tmp_path / "drop").mkdir()
    watch = Watch(tmp_path / "drop", FolderStore(tmp_path / "store"), database)
    watch.open()
    yield watch
    assert list(watch.files.incoming_folder.iterdir()) == []


def test_a_file_that_rests_is_taken_and_deleted(watch: Watch) -> None:
    put(watch.path / "sub" / NAME)
    assert watch.look()["waiting"] == 1
    assert watch.look(after_s=9.9)["waiting"] == 1
    assert watch.kept() == 0
    shown = watch.look(after_s=0.2)
    assert (shown["taken"], shown["waiting"], shown["trouble"]) == (1, 0, None)
    assert (watch.kept(), watch.lying()) == (1, [])
    assert [(one.door, one.count, one.accepted) for one in watch.told] == [("folder", 1, True)]


def test_a_file_that_is_still_written_waits_until_it_rests(watch: Watch) -> None:
    whole = part10(clip())
    path = watch.path / NAME
    path.write_bytes(whole[:1000])
    watch.look()
    path.write_bytes(whole[:2000])
    assert watch.look()["waiting"] == 1
    path.write_bytes(whole)
    assert watch.look()["waiting"] == 1
    assert watch.look()["taken"] == 1
    assert watch.lying() == []


def test_moved_files_lie_where_they_lay_and_overwrite_nothing(watch: Watch) -> None:
    watch.open("move")
    for number in (1, 2):
        put(watch.path / "sub" / NAME, number=number)
        watch.rest()
    assert watch.lying() == ["taken/sub/Doe^Jane-2.dcm", f"taken/sub/{NAME}"]
    assert watch.kept() == 2
    assert watch.look()["taken"] == 2  # what lies in the subfolder is not taken again


def test_files_that_are_left_are_read_once_and_after_a_start_are_known(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.open("leave")
    path = put(watch.path / NAME)
    (watch.path / "note.txt").write_text("hello")
    watch.rest()
    opened = count_openings(monkeypatch)
    assert watch.look()["taken"] == 1
    assert opened == []
    put(path, number=2)
    watch.rest()
    assert {Path(one) for one in opened} == {path}
    assert watch.kept() == 2

    watch.open("leave")
    shown = watch.rest()
    assert (shown["taken"], watch.kept(), len(watch.lying())) == (0, 2, 2)


def count_openings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    real, opened = objects_in, []

    def counting(path: Path, **options: Any) -> Any:
        opened.append(path)
        return real(path, **options)

    monkeypatch.setattr(folder_module, "objects_in", counting)
    return opened


def test_more_files_than_are_remembered_are_told(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "MOST_FILES", 3)
    watch.open("leave")
    for number in range(5):
        put(watch.path / f"{number}.dcm", number=number)
    shown = watch.rest()
    assert shown["taken"] == 3
    assert "more than 3 files" in shown["trouble"]


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.parametrize("where", ["rename", "unlink"])
def test_a_kill_between_receipt_and_deletion_costs_only_another_look(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    put(watch.path / NAME)
    watch.look()

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if where == "rename":
            patch.setattr(folder_module, "_renamed", killed)
        else:
            patch.setattr(Path, "unlink", only_ours(killed))
        with pytest.raises(Killed):
            watch.look()
    assert (watch.kept(), len(watch.lying())) == (1, 1)

    watch.open()
    shown = watch.rest()
    assert (watch.kept(), watch.lying(), shown["taken"]) == (1, [], 0)


def only_ours(killed: Callable[..., None]) -> Callable[..., None]:
    real = Path.unlink

    def unlink(self: Path, **options: Any) -> None:
        if self.name.startswith(".echonode-"):
            killed()
        real(self, **options)

    return unlink


def test_a_file_that_took_its_place_meanwhile_is_not_deleted(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(watch.path / NAME)
    watch.look()
    real = Intake.receive

    def replaced(self: Intake, arrival: Any) -> Receipt:
        receipt = real(self, arrival)
        path.unlink()
        put(path, number=2)
        return receipt

    with monkeypatch.context() as patch:
        patch.setattr(Intake, "receive", replaced)
        watch.look()
    assert (watch.kept(), watch.lying()) == (1, [NAME])
    watch.rest()
    assert (watch.kept(), watch.lying()) == (2, [])


def test_while_nothing_may_be_taken_files_stay_and_later_they_come_in(watch: Watch) -> None:
    put(watch.path / NAME)
    put(watch.path / "2.dcm", number=2)
    watch.full = "the disk is nearly full"
    shown = watch.rest()
    assert (shown["waiting"], shown["taken"]) == (2, 0)
    assert shown["trouble"] == "its files wait: the disk is nearly full"
    watch.full = None
    shown = watch.look()
    assert (shown["taken"], shown["trouble"], watch.lying()) == (2, None, [])


def test_a_file_that_cannot_be_kept_now_stays(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(watch.path / NAME)

    def full(*_: Any) -> Receipt:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Intake, "_receive", full)
        shown = watch.rest()
    assert (shown["waiting"], watch.lying()) == (1, [NAME])
    assert watch.look()["taken"] == 1


def test_what_a_starting_node_sweeps_away_is_copied_again(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(watch.path / NAME)
    real, calls = Intake._receive, []

    def swept(self: Intake, arrival: Any) -> Receipt:
        calls.append(arrival)
        if len(calls) == 1:
            watch.files.clear_incoming()
        return real(self, arrival)

    monkeypatch.setattr(Intake, "_receive", swept)
    assert watch.rest()["taken"] == 1
    assert len(calls) == 2


@pytest.mark.parametrize("after", ["delete", "move"])
def test_what_is_not_in_lies_apart_with_the_reason(
    watch: Watch, after: Literal["delete", "move"]
) -> None:
    watch.open(after)
    put(watch.path / "one" / NAME)
    watch.rest()
    put(watch.path / "other.dcm", InstanceNumber=7)
    put(watch.path / "ct.dcm", number=3, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    (watch.path / "broken").write_bytes(bytes(128) + b"DICM")
    shown = watch.rest()
    assert shown["failed"] == 3
    left = [name for name in watch.lying() if not name.startswith("taken")]
    assert left == sorted(
        f"failed/{name}{end}" for name in ("other.dcm", "ct.dcm", "broken") for end in ("", ".txt")
    )
    reason = (watch.path / "failed" / "other.dcm.txt").read_text()
    assert "the UID is already kept with other content" in reason
    assert watch.look()["failed"] == 3
    with watch.database.read() as session:
        assert len(catalog.list_quarantined(session)) == 2


def test_an_archive_goes_when_all_of_it_is_in_and_lies_apart_where_not(watch: Watch) -> None:
    archive(watch.path / "good.zip", a=part10(clip()), readme=b"no")
    archive(watch.path / "bad.zip", a=part10(clip(number=2)), b=bytes(128) + b"DICM")
    (watch.path / "cut.zip").write_bytes(b"PK\x03\x04 and no more")
    watch.rest()
    assert watch.kept() == 2
    assert watch.lying() == [
        "failed/bad.zip",
        "failed/bad.zip.txt",
        "failed/cut.zip",
        "failed/cut.zip.txt",
    ]
    assert "bad.zip!b: " in (watch.path / "failed" / "bad.zip.txt").read_text()


def test_what_is_no_dicom_stays_and_links_are_not_followed(watch: Watch, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.dcm")
    (watch.path / "link.dcm").symlink_to(outside)
    (watch.path / "folder").symlink_to(tmp_path)
    os.mkfifo(watch.path / "pipe")
    (watch.path / "Thumbs.db").write_bytes(bytes(1000))
    (watch.path / "empty.dcm").touch()
    shutil.copyfile(MEDIUM / "DICOMDIR", watch.path / "DICOMDIR")
    shown = watch.rest()
    assert (shown["not_dicom"], shown["taken"], shown["failed"]) == (3, 0, 0)
    assert len(list(watch.path.iterdir())) == 6
    assert outside.exists()


def test_a_folder_that_is_gone_is_told_and_taken_up_when_it_is_back(watch: Watch) -> None:
    put(watch.path / NAME)
    watch.look()
    away = watch.path.with_name("away")
    watch.path.rename(away)
    shown = watch.look()
    assert "No such file or directory" in shown["trouble"]
    assert "mounted" in shown["next_step"]
    since = shown["since"]
    assert watch.look()["since"] == since
    away.rename(watch.path)
    assert watch.look()["trouble"] is None
    assert watch.look()["taken"] == 1


def test_a_folder_that_cannot_be_written_keeps_its_files_and_says_so(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(watch.path / NAME)
    opened = count_openings(monkeypatch)

    def denied(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self), None, str(target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", denied)
        shown = watch.rest()
        watch.look()
    assert (shown["taken"], watch.kept(), len(opened)) == (1, 1, 1)
    assert "cannot be deleted" in shown["trouble"]
    shown = watch.look()
    assert (shown["trouble"], watch.lying(), len(opened)) == (None, [], 1)


def test_an_error_of_ours_with_one_file_keeps_no_other_out(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(watch.path / "1.dcm", number=1)
    put(watch.path / "2.dcm", number=2)
    real = Intake.receive

    def fails(self: Intake, arrival: Any) -> Receipt:
        if b"1.2.3.1.1" in arrival.path.read_bytes():
            raise RuntimeError(NAME)
        return real(self, arrival)

    monkeypatch.setattr(Intake, "receive", fails)
    shown = watch.rest()
    assert (shown["taken"], shown["failed"], watch.lying()) == (1, 1, ["1.dcm"])


def test_no_name_of_a_file_is_logged_or_shown(watch: Watch) -> None:
    structlog.reset_defaults()
    with capture_logs() as lines:
        put(watch.path / "Doe" / NAME)
        put(watch.path / "Doe" / f"{NAME}.2", InstanceNumber=7)
        (watch.path / "Doe" / "Doe.zip").write_bytes(b"PK\x03\x04")
        shown = watch.rest()
        shutil.rmtree(watch.path)
        again = watch.look()
    assert {"folder-file-failed", "folder-trouble"} <= {line["event"] for line in lines}
    assert "Doe" not in f"{lines}{shown}{again}"


def test_names_of_odd_bytes_come_in_too(watch: Watch) -> None:
    put(watch.path / os.fsdecode(b"M\xfcller\n.dcm"))
    path = watch.path / os.fsdecode(b"\xff.dcm")
    path.write_bytes(bytes(128) + b"DICM")
    watch.rest()
    assert watch.kept() == 1
    assert [os.fsencode(name) for name in watch.lying()] == [
        b"failed/\xff.dcm",
        b"failed/\xff.dcm.txt",
    ]


def test_a_stop_ends_a_look_and_keeps_what_is_not_kept(watch: Watch) -> None:
    put(watch.path / NAME)
    watch.look()
    watch.door.stop()
    watch.look()
    assert (watch.kept(), watch.lying()) == (0, [NAME])


# The settings.


@pytest.mark.parametrize("place", ["data", "data/objects", "."])
def test_a_folder_of_the_nodes_own_is_refused(tmp_path: Path, place: str) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text(f'data_dir = "data"\n[[folders]]\npath = "{place}"\n')
    with pytest.raises(SettingsError, match="must lie apart from data_dir"):
        load_settings(config)


def test_folders_in_one_another_are_refused_also_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    with pytest.raises(ValueError, match="must lie apart"):
        Settings(
            data_dir=tmp_path / "data",
            folders=[{"path": tmp_path / "a"}, {"path": tmp_path / "link"}],
        )


# Who is told.


def test_a_folder_in_trouble_is_told_by_alerts_and_by_the_doctor(
    watch: Watch, tmp_path: Path
) -> None:
    put(watch.path / NAME)
    well = watch.rest()
    watch.path.rename(watch.path.with_name("away"))
    gone = watch.look()
    sight = sight_of(AlertsSettings(), watch.database, {}, folders=[well, gone])
    assert [(one.kind, one.subject) for one in sight.alarms] == [("folder", str(watch.path))]

    (tmp_path / "there").mkdir()
    folders = [{"path": tmp_path / "there", "after": "move"}, {"path": watch.path}]
    settings = Settings(data_dir=tmp_path / "data", folders=folders)
    assert [finding.light for finding in here._folders(settings)] == ["green", "red"]


# A whole node.


def test_a_node_takes_what_is_left_and_status_says_how_the_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drop = tmp_path / "drop"
    put(drop / NAME)
    folders = [
        {"path": drop, "after": "delete", "unchanged_s": 0.2, "every_s": 0.1},
        {"path": tmp_path / "gone", "every_s": 0.1},
    ]
    monkeypatch.setattr("node.jobs._HEARTBEAT_S", 0.2)
    config = tmp_path / "echonode.toml"
    config.write_text(f'data_dir = "{tmp_path / "data"}"\n[disk]\nkeep_free_bytes = 0\n')
    with light_node(monkeypatch, tmp_path / "data", folders=folders) as (node, _):
        wait_until(lambda: not (drop / NAME).exists(), what="the file is taken")
        with node._database.read() as session:
            assert [study.images for study in catalog.list_studies(session)] == [1]
        wait_until(
            lambda: node._folders.shown()[1]["trouble"] is not None, what="the other is told"
        )

        def told() -> str:
            assert main(["--config", str(config), "status"]) == 0
            return capsys.readouterr().out

        wait_until(
            lambda: "1 objects taken" in told() and "gone: it cannot" in told(), what="status"
        )
