"""``echonode import`` on a store of its own, as a user calls it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.cli import main
from node.cli.output import ExitCode
from node.doors.contexts import STORAGE_CLASSES
from node.intake import LATER, Arrival, Intake, Receipt, Status
from node.watch.audit_file import audit_files
from storage import catalog
from storage.database import Database
from storage.files import Area, FolderStore
from tests.folder_files import MEDIUM, archive, clip, medium, part10, put


class Site:
    """A node's folder, the command, and what lies in the store."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = folder / "data"
        self.config = folder / "echonode.toml"
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object, code: int = ExitCode.OK) -> str:
        found = main(["--config", str(self.config), "import", *map(str, arguments)])
        self.out, self.err = self.capsys.readouterr()
        assert found == code, self.err
        return self.out

    def json(self, *arguments: object, code: int = ExitCode.OK) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

    def kept(self) -> int:
        return len(list((self.data / "objects").rglob("*.dcm")))

    def incoming(self) -> list[Path]:
        return list((self.data / "incoming").iterdir())


@pytest.fixture
def site(
    tmp_path: Path, _empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Site]:
    folder = tmp_path / "node"
    (folder / "data").mkdir(parents=True)
    shutil.copyfile(_empty_database, folder / "data" / "echonode.db")
    site = Site(folder, capsys)
    site.config.write_text('data_dir = "data"\n[disk]\nkeep_free_bytes = 0\n')
    yield site
    if (site.data / "incoming").is_dir():
        assert site.incoming() == []


@pytest.fixture
def rows(site: Site) -> Iterator[Database]:
    database = Database(f"sqlite:///{site.data / 'echonode.db'}")
    yield database
    database.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two studies, one of them in an archive, and what is no DICOM."""
    folder = tmp_path / "source"
    put(folder / "a" / "1.dcm", "1.2.3", 1)
    put(folder / "a" / "2", "1.2.3", 2)
    archive(folder / "b.zip", x__1=part10(clip("1.2.4", 1)), readme=b"no")
    (folder / "viewer.exe").write_bytes(b"MZ" + bytes(500))
    return folder


def test_all_that_was_named_is_in_and_the_files_are_as_they_were(
    site: Site, source: Path, rows: Database
) -> None:
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}

    said = site(source)

    assert said == "3 taken, 2 not DICOM; 0.0 MB in 2 studies\n"
    assert "viewer.exe: skipped: it is no DICOM file" in site.err
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    with rows.read() as session:
        studies = catalog.list_studies(session)
        (one, *_) = [catalog.find_instance(session, "1.2.3.1.1")]
    assert {study.study_instance_uid for study in studies} == {"1.2.3", "1.2.4"}
    assert one is not None
    assert (one.door, one.calling_ae) == ("folder", "")


def test_a_whole_study_need_not_wait_for_the_long_quiet_time(
    site: Site, source: Path, rows: Database
) -> None:
    site(source)
    with rows.read() as session:
        due = catalog.studies_to_complete(
            session,
            datetime.now(UTC) + timedelta(seconds=60),
            quiet_s=1e9,
            released_quiet_s=1,
            max_age_s=1e9,
        )
    assert {study.study_instance_uid for study in due} == {"1.2.3", "1.2.4"}


def test_todays_patients_go_first_unless_it_is_meant_otherwise(
    site: Site, source: Path, tmp_path: Path, rows: Database
) -> None:
    site(source)
    site("--now", put(tmp_path / "other.dcm", "1.2.5"))
    with rows.read() as session:
        urgent = {one.study_instance_uid: one.urgency for one in catalog.list_studies(session)}
    assert urgent == {"1.2.3": LATER, "1.2.4": LATER, "1.2.5": 0}


def test_once_more_is_known_and_counts_nothing_twice(
    site: Site, source: Path, rows: Database
) -> None:
    put(source / "other", "1.2.3", 1, InstanceNumber=7)  # another content under a kept UID
    first = site.json(source, code=ExitCode.FAILED)
    second = site.json(source, code=ExitCode.FAILED)

    assert (first["taken"], first["quarantined"]) == (3, 1)
    assert (second["taken"], second["already_kept"], second["quarantined"]) == (0, 3, 1)
    assert site.kept() == 3
    with rows.read() as session:
        assert len(catalog.list_quarantined(session)) == 1
    assert [study["new"] for study in second["studies"]] == [0, 0]


def test_a_dry_run_says_the_same_and_writes_nothing(
    site: Site, source: Path, rows: Database
) -> None:
    put(source / "broken").write_bytes(bytes(128) + b"DICM" + b"\x02\x00")
    foreseen = site.json("--dry-run", source, code=ExitCode.FAILED)
    assert site.kept() == 0
    with rows.read() as session:
        assert (catalog.list_studies(session), catalog.list_quarantined(session)) == ((), ())

    done = site.json(source, code=ExitCode.FAILED)

    assert foreseen.pop("dry_run")
    assert not done.pop("dry_run")
    assert foreseen == done
    again = site.json("--dry-run", source, code=ExitCode.FAILED)
    assert (again["taken"], again["already_kept"], again["quarantined"]) == (0, 3, 1)


def test_what_is_not_in_is_told_with_its_path_and_reason(site: Site, source: Path) -> None:
    put(source / "ct", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    put(source / "nobody", number=9, StudyInstanceUID="")
    (source / "locked.zip").write_bytes(b"PK\x03\x04 and no more")

    told = site.json(source, code=ExitCode.FAILED)

    assert {Path(one["path"]).name: (one["what"], one["reason"]) for one in told["problems"]} == {
        "ct": ("refused", "CT Image Storage is not accepted here"),
        "nobody": ("quarantined", "StudyInstanceUID is missing"),
        "locked.zip": (
            "unreadable",
            "the archive cannot be read: it was not written to its end",
        ),
    }
    assert (told["taken"], told["refused"], told["quarantined"], told["unreadable"]) == (3, 1, 1, 1)
    site(source, code=ExitCode.FAILED)
    assert f"{source}/ct: refused: CT Image Storage is not accepted here" in site.err


def test_many_of_one_reason_are_told_in_a_line(site: Site) -> None:
    ct = "1.2.840.10008.5.1.4.1.1.2"
    assert ct not in STORAGE_CLASSES
    site(MEDIUM / "98892001", MEDIUM / "98892003", MEDIUM / "TINY_ALPHA", code=ExitCode.FAILED)
    lines = [line for line in site.err.splitlines() if "CT Image Storage" in line]
    assert len(lines) == 21
    assert lines[-1].startswith("… and 37 more: CT Image Storage")


def test_a_medium_is_taken_by_its_directory_and_what_it_lacks_is_told(
    site: Site, tmp_path: Path
) -> None:
    listing = medium(tmp_path / "disc", 3)
    lost = next(path for path in (tmp_path / "disc").rglob("IM*") if path.is_file())
    put(tmp_path / "disc" / "not-listed.dcm", number=9)
    lost.unlink()

    told = site.json(listing, code=ExitCode.FAILED)

    assert (told["taken"], told["unreadable"]) == (2, 1)
    assert told["problems"][0]["path"].endswith(lost.name)
    assert site.json(tmp_path / "disc", code=ExitCode.FAILED)["taken"] == 1


@pytest.mark.parametrize(
    ("names", "code", "words"),
    [
        (["none.dcm"], ExitCode.NOT_FOUND, "no such file"),
        (["node/data"], ExitCode.USAGE, "the node's own data_dir"),
        (["node/data/echonode.db"], ExitCode.USAGE, "the node's own data_dir"),
        (["text"], ExitCode.NOT_FOUND, "there is no DICOM object"),
        (["empty"], ExitCode.NOT_FOUND, "there is no DICOM object"),
        (["pipe"], ExitCode.FAILED, "not in"),
    ],
)
def test_what_cannot_be_meant_has_a_code_of_its_own(
    site: Site, tmp_path: Path, names: list[str], code: int, words: str
) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    site(*(tmp_path / name for name in names), code=code)
    assert words in site.err


def test_the_nodes_own_folder_is_never_taken_in(site: Site, source: Path, tmp_path: Path) -> None:
    site(source)
    told = site.json(tmp_path)
    assert (told["taken"], told["already_kept"]) == (0, 3)
    assert str(site.data) in [one["path"] for one in told["skipped"]]


def test_without_a_database_nothing_is_begun(site: Site, source: Path) -> None:
    (site.data / "echonode.db").unlink()
    site(source, code=ExitCode.NOT_REACHABLE)
    assert "no database" in site.err
    assert not (site.data / "incoming").exists()


def test_a_store_that_is_not_mounted_is_not_made_anew(site: Site, source: Path) -> None:
    site(source)
    shutil.rmtree(site.data / "objects")
    site(source, code=ExitCode.FAILED)
    assert "see that its volume is mounted" in site.err
    assert not (site.data / "objects").exists()
    (site.data / "objects").mkdir()


def test_a_full_disk_stops_it_with_a_word_and_later_it_goes_on(site: Site, source: Path) -> None:
    well = site.config.read_text()
    site.config.write_text(well.replace("= 0", f"= {1 << 60}"))
    told = site.json(source, code=ExitCode.NOT_REACHABLE)
    assert (told["taken"], told["problems"]) == (0, [])
    assert "nothing is taken under" in told["stopped"]
    assert "[disk] keep_free_bytes" in site.err
    assert site.kept() == 0

    site.config.write_text(well)
    assert site.json(source)["taken"] == 3


def test_a_disk_that_fills_in_the_midst_loses_nothing(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Intake._receive, []

    def full(self: Intake, arrival: Any) -> Receipt:
        calls.append(arrival)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(self, arrival)

    monkeypatch.setattr(Intake, "_receive", full)
    told = site.json(source, code=ExitCode.NOT_REACHABLE)
    assert told["taken"] == site.kept() == 2
    monkeypatch.undo()
    told = site.json(source)
    assert (told["taken"], told["already_kept"]) == (1, 2)


def test_what_a_starting_node_sweeps_away_is_copied_again(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Intake._receive, []

    def swept(self: Intake, arrival: Any) -> Receipt:
        calls.append(arrival)
        if len(calls) == 1:
            FolderStore(site.data).clear_incoming()
        return real(self, arrival)

    monkeypatch.setattr(Intake, "_receive", swept)
    assert site.json(source)["taken"] == 3
    assert len(calls) == 4


def test_what_another_brings_at_the_same_moment_is_known(
    site: Site, tmp_path: Path, rows: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FolderStore.adopt

    def adopt(self: FolderStore, temporary: Path, area: Area, digest: str) -> str:
        monkeypatch.setattr(FolderStore, "adopt", real)
        other = self.incoming_folder / "other"
        shutil.copyfile(temporary, other)
        assert Intake(rows, self).receive(Arrival(path=other, door="dimse")).new
        return real(self, temporary, area, digest)

    monkeypatch.setattr(FolderStore, "adopt", adopt)
    told = site.json(put(tmp_path / "one.dcm"))
    assert (told["taken"], told["already_kept"], site.kept()) == (0, 1, 1)


def test_ctrl_c_ends_it_after_the_object_at_hand_and_later_it_goes_on(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Intake.receive

    def interrupted(self: Intake, arrival: Any) -> Receipt:
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, arrival)

    monkeypatch.setattr(Intake, "receive", interrupted)
    before = signal.getsignal(signal.SIGINT)
    told = site.json(source, code=ExitCode.INTERRUPTED)
    assert signal.getsignal(signal.SIGINT) is before
    assert told["taken"] == site.kept() == 1
    assert "goes on where it was" in site.err
    monkeypatch.undo()
    told = site.json(source)
    assert (told["taken"], told["already_kept"]) == (2, 1)


def test_a_file_that_vanishes_is_told_and_the_rest_is_in(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Intake.receive, []

    def vanishing(self: Intake, arrival: Any) -> Receipt:
        calls.append(arrival)
        if len(calls) == 2:  # of a/1.dcm, when the folder is listed already
            (source / "a" / "2").unlink()
        return real(self, arrival)

    monkeypatch.setattr(Intake, "receive", vanishing)
    told = site.json(source, code=ExitCode.FAILED)
    assert (told["taken"], told["unreadable"]) == (2, 1)
    assert told["problems"][0]["reason"] == "No such file or directory"


def test_an_error_of_ours_with_one_file_keeps_no_other_out(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Intake.receive

    def fails(self: Intake, arrival: Any) -> Receipt:
        if b"1.2.3.1.1" in arrival.path.read_bytes():
            raise RuntimeError("boom")
        return real(self, arrival)

    monkeypatch.setattr(Intake, "receive", fails)
    told = site.json(source, code=ExitCode.FAILED)
    assert (told["taken"], told["unreadable"]) == (2, 1)
    assert told["problems"][0]["reason"] == "an error of echonode's own (RuntimeError)"


def test_each_study_is_in_the_audit_trail(site: Site, source: Path) -> None:
    site(source)
    trail = "".join(path.read_text() for path in audit_files(site.data / "audit"))
    assert trail.count("110107") == 2  # Import (DICOM PS3.16 CID 400)
    assert "Doe" not in trail


def test_an_error_of_ours_is_not_taken_for_success(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Receipt(status=Status.OUT_OF_RESOURCES, comment="cannot be kept now, try again")
    monkeypatch.setattr(Intake, "receive", lambda *_: answer)
    told = site.json(source, code=ExitCode.NOT_REACHABLE)
    assert (told["taken"], told["stopped"]) == (0, "cannot be kept now, try again")
