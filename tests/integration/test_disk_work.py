"""Analysis and reports while the disk is full or not there: they wait, and no attempt is spent."""

from __future__ import annotations

import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apscheduler.schedulers.base
import apscheduler.triggers.interval
import pytest
from pydicom.uid import generate_uid

from node import jobs as jobs_module
from node.analysis import ClipView
from node.dispatch import Dispatcher, DispatchSettings, Work
from node.jobs import Jobs
from node.sections import DiskSettings
from node.watch import disk
from node.watch.disk import DiskWatch, TroubleKind
from storage import catalog
from storage.database import Database
from storage.files import FileStoreError, FolderStore
from storage.states import RecordingState, StudyState
from tests.integration.test_life_of_a_study import House, a4c, found
from tests.peers import wait_until
from tests.unit.storage_steps import clip_of, receive

MB = 1_000_000
Space = namedtuple("Space", "f_bavail f_blocks f_frsize f_flag")


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


class Volume:
    """A volume with as much free as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 100 * MB
        monkeypatch.setattr(disk.os, "statvfs", lambda _path: Space(self.free, 1000 * MB, 1, 0))


@pytest.fixture
def volume(monkeypatch: pytest.MonkeyPatch) -> Volume:
    return Volume(monkeypatch)


def watch(database: Database, folder: Path, now: datetime | None = None) -> DiskWatch:
    FolderStore(folder)
    settings = DiskSettings(keep_free_bytes=20 * MB, keep_free_percent=1, go_on_percent=150)
    return DiskWatch(settings, folder, database, clock=lambda: now or datetime.now(UTC))


def test_refusing_begins_under_one_mark_and_ends_at_a_higher_one(
    database: Database, tmp_path: Path, volume: Volume
) -> None:
    watching = watch(database, tmp_path)
    for free, refuses in [
        (21, False),
        (19, True),
        (25, True),
        (29, True),
        (30, False),
        (21, False),
    ]:
        volume.free = free * MB
        watching.look()
        assert (watching.refusing() is not None) is refuses, free
    assert watching.state.volumes[0].mark_bytes == 20 * MB


def test_a_share_of_the_volume_counts_where_it_is_more(
    database: Database, tmp_path: Path, volume: Volume
) -> None:
    settings = DiskSettings(keep_free_bytes=20 * MB, keep_free_percent=5)
    FolderStore(tmp_path)
    watching = DiskWatch(settings, tmp_path, database)
    volume.free = 49 * MB
    assert watching.look().troubles[0].kind is TroubleKind.DISK_FULL
    assert watching.refusing() == "the disk is nearly full"


def test_space_that_was_taken_a_moment_ago_is_missed_at_once(
    database: Database, tmp_path: Path, volume: Volume
) -> None:
    watching = watch(database, tmp_path)
    watching.look()
    assert watching.refusing() is None
    volume.free = 0
    assert watching.refusing() == "the disk is nearly full"


def test_a_store_looks_again_by_itself_when_it_is_asked_after_a_while(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = watch(database, tmp_path)
    watching.look()
    (tmp_path / "objects").rmdir()
    assert watching.refusing() is None
    monkeypatch.setattr(disk, "_FRESH_S", -1.0)
    assert watching.refusing() is not None


def test_a_clock_set_back_is_told_refuses_nothing_and_holds_up_no_study(
    database: Database, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    receive(database, clip_of("1.2.3", received_at=now + timedelta(days=2)))
    watching = watch(database, tmp_path, now)

    state = watching.look()

    assert [item.kind for item in state.troubles] == [TroubleKind.CLOCK]
    assert "48 h 0 min behind" in state.troubles[0].words
    assert watching.refusing() is None
    with database.read() as session:
        assert catalog.studies_to_complete(session, now + timedelta(seconds=31), 30, 10, 3600)
        assert catalog.find_study(session, "1.2.3").last_image_at == now


def test_since_when_a_trouble_lasts_does_not_change_with_each_look(
    database: Database, tmp_path: Path, volume: Volume
) -> None:
    volume.free = 0
    times = iter(datetime(2026, 1, 1, 0, second, tzinfo=UTC) for second in range(60))
    FolderStore(tmp_path)
    watching = DiskWatch(DiskSettings(), tmp_path, database, clock=lambda: next(times))
    first = watching.look().refusing
    again = watching.look().refusing
    assert first is not None
    assert again is not None
    assert first.since == again.since


@contextmanager
def dispatching(house: House, work: Work, refusing: object):  # type: ignore[no-untyped-def]
    with ThreadPoolExecutor(1) as executor:
        dispatcher = Dispatcher(
            house.database,
            house.files,
            executor,
            DispatchSettings(slots=1, max_attempts=3, allow_simulated_evidence=False),
            house.report_settings,
            work=work,
            refusing=refusing,  # type: ignore[arg-type]
        )
        dispatcher.start()
        try:
            yield dispatcher
        finally:
            dispatcher.stop()


def test_no_clip_is_begun_while_the_disk_is_full(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    reason: list[str | None] = ["the disk is nearly full"]
    asked = threading.Event()

    def refusing() -> str | None:
        asked.set()
        return reason[0]

    work = Work(name_view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    with dispatching(house, work, refusing) as dispatcher:
        assert asked.wait(10)
        assert house.recordings(uid) == [RecordingState.TO_VIEW]
        reason[0] = None
        dispatcher.wake()
        wait_until(lambda: house.recordings(uid) == [RecordingState.DONE], what="it goes on")
    assert house.detail(uid).recordings[0].attempts == 1


def test_a_clip_whose_store_was_not_there_is_not_refused_but_waits(
    house: House, tmp_path: Path
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    objects, away = tmp_path / "store" / "objects", tmp_path / "away"

    def lose_the_store(_path: str) -> ClipView:
        objects.rename(away)
        return ClipView(view=None, refused="the file cannot be opened: No such file or directory")

    with dispatching(house, Work(name_view=lose_the_store), lambda: None):
        wait_until(
            lambda: house.detail(uid).recordings[0].reason == "the store cannot be read",
            what="it waits",
        )
    away.rename(objects)
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    recording = house.detail(uid).recordings[0]
    assert (recording.state, recording.attempts) == (RecordingState.DONE, 1)


def test_a_clip_whose_own_file_is_gone_fails_and_says_so(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.files.delete(house.detail(uid).recordings[0].file_key)
    refused = ClipView(view=None, refused="the file cannot be opened: No such file or directory")
    house.run(uid, view=lambda _path: refused, analyse=lambda _path, **_options: found())
    recording = house.detail(uid).recordings[0]
    assert recording.state is RecordingState.FAILED
    assert "its file is not in the store" in recording.reason


def test_a_report_waits_for_space_and_is_then_made(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    write = FolderStore.write

    def full(*_arguments: object) -> str:
        raise FileStoreError("file store: no space left; free space", disk_full=True)

    monkeypatch.setattr(FolderStore, "write", full)
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.REPORTING
    monkeypatch.setattr(FolderStore, "write", write)
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.DELIVERING


def test_a_report_waits_while_the_store_is_away_and_fails_where_only_its_files_are(
    house: House, tmp_path: Path
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    objects, away = tmp_path / "store" / "objects", tmp_path / "away"
    objects.rename(away)
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.REPORTING
    away.rename(objects)
    house.files.delete(house.detail(uid).recordings[0].file_key)
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.FAILED
    assert "the files of 1 of its 1 clips are gone" in house.detail(uid).study.reason


class _SetBack(datetime):
    """A clock that can be set back."""

    by = timedelta(0)

    @classmethod
    def now(cls, tz=None):  # type: ignore[no-untyped-def,override]
        return datetime.now(tz) - cls.by


def test_jobs_go_on_when_the_clock_is_set_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (
        apscheduler.schedulers.base,
        apscheduler.triggers.interval,
        jobs_module,
    ):
        monkeypatch.setattr(module, "datetime", _SetBack)
    monkeypatch.setattr(jobs_module, "_TICK_S", 0.1)
    monkeypatch.setattr(jobs_module, "_WATCH_S", 0.1)
    turns: list[int] = []

    class NoOutbox:
        destinations = ()
        asked = ()

    jobs = Jobs(
        house.lifecycle,
        NoOutbox(),  # type: ignore[arg-type]
        heartbeat=lambda: None,
        sweep=lambda: None,
        watch=lambda: turns.append(1),
    )
    jobs.start()
    try:
        wait_until(lambda: len(turns) > 2, what="the clock runs")
        monkeypatch.setattr(_SetBack, "by", timedelta(days=1))
        before = len(turns)
        wait_until(lambda: len(turns) > before + 3, what="it runs on", timeout_s=20)
    finally:
        jobs.stop()
