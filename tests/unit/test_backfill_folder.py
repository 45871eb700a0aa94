"""``echonode backfill`` of a folder: found once, taken day by day, gone on with after any stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage
from sqlalchemy import update

from node.backfill import folder as folder_module
from node.cli import main
from node.cli.output import ExitCode
from node.doors.taking import Taker
from node.watch.audit_file import audit_files
from storage import catalog
from storage.catalog import BACKFILL_URGENCY, FileState
from storage.database import Database
from storage.tables import Instance
from tests.folder_files import archive, clip, part10, put

QUICK = ("--rate", "none", "--pause", "0")


class Site:
    """A node's folder and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = folder / "data"
        self.config = folder / "echonode.toml"
        self.source = folder / "years"
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object, code: int = ExitCode.OK) -> str:
        found = main(["--config", str(self.config), *map(str, arguments)])
        self.out, self.err = self.capsys.readouterr()
        assert found == code, self.err
        return self.out

    def run(self, *arguments: object, code: int = ExitCode.OK) -> Any:
        """Go on with the backfill of the folder; gives what it says at its end."""
        return json.loads(
            self("backfill", "--from", self.source, *QUICK, *arguments, "--json", code=code)
        )

    def status(self) -> Any:
        (one,) = json.loads(self("backfill", "status", "--json"))
        return one


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
    assert list((site.data / "incoming").iterdir()) == []


@pytest.fixture
def rows(site: Site) -> Iterator[Database]:
    database = Database(f"sqlite:///{site.data / 'echonode.db'}")
    yield database
    database.close()


@pytest.fixture
def years(site: Site) -> dict[str, str]:
    """Three studies of three years, one of them in an archive; gives their days."""
    put(site.source / "DOE^JANE" / "1.dcm", "1.2.1", 1, StudyDate="20240105")
    put(site.source / "DOE^JANE" / "2.dcm", "1.2.1", 2, StudyDate="20240105")
    put(site.source / "b" / "1", "1.2.2", 1, StudyDate="20230105")
    old = [part10(clip("1.2.3", number, StudyDate="20220105")) for number in (1, 2, 3)]
    archive(site.source / "old.zip", **{f"im{n}": data for n, data in enumerate(old)})
    put(site.source / "ct.dcm", "1.2.4", 1, SOPClassUID=CTImageStorage, Modality="CT")
    (site.source / "viewer.exe").write_bytes(b"MZ" + bytes(500))
    return {"1.2.1": "2024-01-05", "1.2.2": "2023-01-05", "1.2.3": "2022-01-05"}


def studies(rows: Database) -> dict[str, catalog.StudyRecord]:
    with rows.read() as session:
        return {one.study_instance_uid: one for one in catalog.list_studies(session)}


def order_of_coming(rows: Database) -> list[str]:
    return [uid for uid, _ in sorted(studies(rows).items(), key=lambda one: one[1].first_image_at)]


def test_years_come_in_their_order_behind_all_else(
    site: Site, years: dict[str, str], rows: Database
) -> None:
    shown = site.run()

    assert order_of_coming(rows) == list(years)  # the newest day first
    assert {one.urgency for one in studies(rows).values()} == {BACKFILL_URGENCY}
    assert shown["state"] == "done"
    assert shown["days"] == {
        "all": 3,
        "done": 3,
        "listed": 3,
        "not_listed": 0,
        "newest_done": "2024-01-05",
        "oldest_done": "2022-01-05",
    }
    assert (shown["studies"]["taken"], shown["objects"], shown["clips"]["taken"]) == (3, 6, 6)
    assert shown["files"] == {"looked_at": 6, "unreadable": 0}
    assert shown["bytes"] == sum(
        path.stat().st_size for path in (site.data / "objects").rglob("*.dcm")
    )
    with rows.read() as session:
        soon = datetime.now(UTC).timestamp() + 5
        complete = catalog.studies_to_complete(
            session, datetime.fromtimestamp(soon, UTC), 1e6, 1.0, 1e6
        )
    assert {one.study_instance_uid for one in complete} == set(years)  # no long quiet time


def test_nothing_of_a_files_name_is_kept(site: Site, years: dict[str, str]) -> None:
    assert years
    site.run()
    trail = "".join(path.read_text() for path in audit_files(site.data / "audit"))
    assert "1.2.1" in trail
    for text in (trail, site.out, site.err):
        assert "JANE" not in text
    for file in site.data.glob("echonode.db*"):
        assert b"JANE" not in file.read_bytes()


def test_days_narrow_and_the_oldest_may_come_first(
    site: Site, years: dict[str, str], rows: Database
) -> None:
    assert years
    shown = site.run("--date", "2022-01-01..2023-12-31", "--oldest-first")
    assert order_of_coming(rows) == ["1.2.3", "1.2.2"]
    assert (shown["days"]["all"], shown["newest_first"]) == (2, False)


class _Killed(BaseException):
    """As SIGKILL would: nothing of ours runs after it, but for what Python itself unwinds."""


@pytest.mark.parametrize("at", [2, 5])
def test_a_kill_at_any_object_loses_and_repeats_nothing(
    site: Site,
    years: dict[str, str],
    rows: Database,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    taken = []
    take = Taker.take

    def take_until(self: Taker, opened: Any) -> Any:
        if len(taken) == at - 1:
            raise _Killed
        done = take(self, opened)
        taken.append(done)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Taker, "take", take_until)
        # What a killed process cannot do.
        for name in ("backfill_study_put_back", "leave_backfill"):
            patch.setattr(catalog, name, lambda *_args, **_more: None)
        with pytest.raises(_Killed):
            site.run()
    looked_into: list[Path] = []
    look = folder_module._objects
    monkeypatch.setattr(
        folder_module, "_objects", lambda path: looked_into.append(path) or look(path)
    )
    assert site.status()["running"]  # by its last sign, for a minute

    shown = site.run()

    assert shown["state"] == "done"
    assert set(studies(rows)) == set(years)
    assert (shown["studies"]["taken"], shown["objects"], shown["clips"]["taken"]) == (3, 6, 6)
    assert shown["studies"]["here"] == shown["studies"]["partly"] == 0
    with rows.read() as session:
        for uid, count in (("1.2.1", 2), ("1.2.2", 1), ("1.2.3", 3)):
            assert len(catalog.study_here(session, uid).received) == count
    # Only files of studies that were not done were opened again.
    assert (site.source / "viewer.exe") not in looked_into
    if at > 2:
        assert (site.source / "DOE^JANE" / "1.dcm") not in looked_into


def test_ctrl_c_lets_the_object_at_hand_be_kept_and_the_same_command_goes_on(
    site: Site, years: dict[str, str], rows: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert years
    take = Taker.take

    def interrupted(self: Taker, opened: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return take(self, opened)

    with monkeypatch.context() as patch:
        patch.setattr(Taker, "take", interrupted)
        site.run(code=ExitCode.INTERRUPTED)
    assert "the same command goes on" in site.err
    with rows.read() as session:
        assert len(catalog.study_here(session, "1.2.1").received) == 1
    shown = site.status()
    assert (shown["state"], shown["running"]) == ("open", False)
    assert shown["studies"]["waiting"] == 3

    assert site.run()["objects"] == 6


def test_what_is_here_or_was_given_up_is_not_taken_again(
    site: Site, years: dict[str, str], rows: Database
) -> None:
    assert years
    site.run()
    site("backfill", "--from", site.source)
    assert "was done before; --anew asks for every day again" in site.err
    with rows.write() as session:  # as retention leaves it
        session.execute(
            update(Instance)
            .where(Instance.sop_instance_uid == "1.2.2.1.1")
            .values(file_state=FileState.REMOVED)
        )
    shown = site.run("--anew")
    assert (shown["studies"]["here"], shown["objects"]) == (3, 0)
    with rows.read() as session:
        (removed,) = catalog.study_here(session, "1.2.2").received.values()
    assert removed.file_state is FileState.REMOVED


def test_a_file_that_comes_later_is_found_when_it_goes_on(
    site: Site, years: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert years
    with monkeypatch.context() as patch:
        patch.setattr(Taker, "take", lambda _self, _opened: (_ for _ in ()).throw(_Killed()))
        with pytest.raises(_Killed):
            site.run()
    put(site.source / "late.dcm", "1.2.2", 9, StudyDate="20230105")
    shown = site.run()
    assert (shown["studies"]["taken"], shown["objects"]) == (3, 7)


def test_what_cannot_be_taken_is_told_with_its_reason_and_tried_once_more(
    site: Site, years: dict[str, str]
) -> None:
    assert years
    odd = part10(clip("1.2.1", 7, StudyDate="20240105"))
    assert b"1.2.840.10008.1.2.1\0" in odd
    odd = odd.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    (site.source / "odd.dcm").write_bytes(odd)
    (site.source / "cut.dcm").write_bytes(part10(clip("1.2.8", 1))[:300])

    shown = site.run(code=ExitCode.FAILED)

    assert (shown["state"], shown["studies"]["partly"], shown["objects"]) == ("done", 1, 6)
    (failed,) = shown["failed_studies"]
    assert failed["study_instance_uid"] == "1.2.1"
    assert failed["attempts"] == 2
    assert "transfer syntax" in failed["reason"]
    assert shown["failures"] == {failed["reason"]: 1}
    assert shown["files"]["unreadable"] == 1

    (site.source / "odd.dcm").unlink()
    shown = site.run()  # a done one that is not whole is gone on with
    assert shown["studies"]["partly"] == 0


def test_another_wish_is_refused_until_the_first_is_done_or_given_up(
    site: Site, years: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert years
    with monkeypatch.context() as patch:
        patch.setattr(Taker, "take", lambda _self, _opened: (_ for _ in ()).throw(_Killed()))
        with pytest.raises(_Killed):
            site.run()
    site("backfill", "--from", site.source, "--date", "2022-01-05", code=ExitCode.FAILED)
    assert "is not finished (all days, the newest first, US)" in site.err
    site("backfill", "end", "--from", site.source)
    assert site.run("--date", "2022-01-05")["objects"] == 3
