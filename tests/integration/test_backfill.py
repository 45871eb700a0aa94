"""Years out of a real archive: killed in the middle and gone on with, behind what machines send."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.dataset import FileDataset

from node.cli import main
from node.cli.output import ExitCode
from storage import catalog
from storage.catalog import BACKFILL_URGENCY
from storage.database import Database
from tests.faults import light
from tests.fetch_steps import NAME, study_of, uids
from tests.folder_files import put
from tests.light_node import light_node
from tests.peers import Archive, free_port, orthanc, send, wait_until
from tests.running_node import echonode

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

DOOR = free_port()
QUICK = ("--rate", "none", "--pause", "0")


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with orthanc(tmp_path_factory.mktemp("orthanc"), modalities={"ECHONODE": DOOR}) as archive:
        yield archive


def store(peer: Archive, year: int, **days: int) -> dict[str, list[FileDataset]]:
    """Lay a study a day into the archive, each with so many clips; days are written d0103."""
    kept = {}
    for day, count in days.items():
        clips = study_of(count, day=f"{year}{day[1:]}")
        for one in clips:
            buffer = io.BytesIO()
            one.save_as(buffer, enforce_file_format=True)
            httpx.post(f"{peer.url}/instances", content=buffer.getvalue()).raise_for_status()
        kept[str(clips[0].StudyInstanceUID)] = clips
    return kept


def write_settings(peer: Archive, folder: Path, more: str = "") -> Path:
    config = folder / "echonode.toml"
    config.write_text(
        f'data_dir = "{folder}"\n[disk]\nkeep_free_bytes = 0\n{more}'
        f'[[archives]]\nname = "old"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {peer.port}\n'
        f'ae_title = "ORTHANC"\n'
        f'[[archives]]\nname = "web"\nkind = "dicomweb"\nurl = "{peer.url}/dicom-web"\n'
    )
    return config


class Node:
    """The command, and the rows."""

    def __init__(self, config: Path, database: Database, capfd: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self.database = database
        self.capfd = capfd
        self.out = self.err = ""

    def __call__(self, *arguments: str, code: int = ExitCode.OK) -> str:
        self.capfd.readouterr()
        found = main(["--config", str(self.config), "backfill", *arguments])
        self.out, self.err = self.capfd.readouterr()
        assert found == code, self.err
        return self.out

    def json(self, *arguments: str, code: int = ExitCode.OK) -> Any:
        said = self(*arguments, "--json", code=code)
        return json.loads(said[said.index("{\n") :])

    def here(self, study: str) -> catalog.StudyHere:
        with self.database.read() as session:
            return catalog.study_here(session, study)

    def study(self, uid: str) -> catalog.StudyRecord:
        with self.database.read() as session:
            return catalog.find_study(session, uid)


@pytest.fixture
def node(
    peer: Archive, database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Node:
    return Node(write_settings(peer, tmp_path), database, capfd)


def test_a_backfill_that_was_killed_goes_on_and_loses_and_repeats_nothing(
    peer: Archive, node: Node, tmp_path: Path
) -> None:
    kept = store(peer, 2011, d0103=3, d0104=4, d0106=3)
    by_day = sorted(kept, key=lambda uid: str(kept[uid][0].StudyDate), reverse=True)
    command = ["--from", "old", "--date", "2011-01-01..2011-01-07", "--pause", "0"]
    with (tmp_path / "killed.log").open("wb") as log:
        process = subprocess.Popen(
            echonode("--config", str(node.config), "backfill", *command, "--rate", "4/s"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_until(
                lambda: len(node.here(by_day[1]).received) >= 2,
                what="it is in the middle of the second study",
                pause_s=0.02,
            )
            node(*command, *QUICK[:2], code=ExitCode.FAILED)
            assert "another backfill of old runs here" in node.err
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    before = len(node.here(by_day[1]).received)
    assert 2 <= before <= 4
    assert node.here(by_day[2]).received == {}
    with node.database.read() as session:
        (glance,) = catalog.list_backfills(session)
    assert glance.runner is not None  # nothing of it ran after the kill

    shown = node.json("--from", "old", *QUICK)  # what it is to take, its row says

    assert shown["state"] == "done"
    assert (shown["days"]["all"], shown["days"]["done"]) == (7, 7)
    assert shown["studies"] | {"waiting": 0} == shown["studies"]
    assert (shown["studies"]["taken"], shown["studies"]["partly"]) == (3, 0)
    assert (shown["objects"], shown["clips"]["taken"]) == (10, 10)
    for uid, clips in kept.items():
        assert set(node.here(uid).received) == uids(clips)
        assert node.study(uid).urgency == BACKFILL_URGENCY
        assert node.study(uid).revision == 1
    came = sorted(kept, key=lambda uid: node.study(uid).first_image_at)
    assert came == by_day
    assert len(list((tmp_path / "objects").rglob("*.dcm"))) == 10
    trail = "".join(path.read_text() for path in (tmp_path / "audit").iterdir())
    assert by_day[2] in trail
    for text in (trail, node.out, node.err, (tmp_path / "killed.log").read_text()):
        assert NAME not in text


def test_the_web_way_brings_the_same_and_what_is_here_is_passed_over(
    peer: Archive, node: Node
) -> None:
    kept = store(peer, 2012, d0103=2, d0104=1)
    command = ("--from", "web", "--date", "2012-01-03..2012-01-04", "--oldest-first", *QUICK)
    shown = node.json(*command)
    assert (shown["studies"]["taken"], shown["objects"]) == (2, 3)
    first, second = kept
    assert node.study(first).first_image_at < node.study(second).first_image_at
    shown = node.json("--from", "old", "--date", "2012-01-03..2012-01-04", *QUICK)
    assert (shown["studies"]["here"], shown["objects"]) == (2, 0)


def test_an_archive_that_is_away_is_waited_for_until_somebody_stops_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.backfill.run._SIGN_EVERY_S", 0.05)
    node.config.write_text(
        node.config.read_text()
        .replace("/dicom-web", "")
        .replace(
            'name = "web"\nkind = "dicomweb"\nurl = "http://127.0.0.1:',
            'name = "web"\nkind = "dicomweb"\nurl = "http://127.0.0.1:9/',
        )
        + "[delivery]\nfirst_pause_s = 0.1\n"
    )

    def row() -> Any:
        with node.database.read() as session:
            return catalog.find_backfill(session, "web")

    def stop_it() -> None:
        try:
            wait_until(lambda: row() and "cannot be reached" in row().doing, what="it waits")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=stop_it)
    watcher.start()
    node("--from", "web", "--date", "2012-01-03", *QUICK, code=ExitCode.INTERRUPTED)
    watcher.join()
    assert "waits: web cannot be reached" in node.err
    assert "the same command goes on" in node.err
    (shown,) = json.loads(node("status", "--json"))
    assert (shown["state"], shown["running"], shown["days"]["done"]) == ("open", False, 0)


def test_what_is_moved_to_the_nodes_own_door_stands_behind_all_else_too(
    peer: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    kept = store(peer, 2013, d0103=2)
    config = write_settings(peer, tmp_path, f"[dimse]\nport = {DOOR}\n")
    with light_node(monkeypatch, tmp_path, dimse={"port": DOOR}) as (running, _settings):
        node = Node(config, running._database, capfd)
        shown = node.json("--from", "old", "--date", "2013-01-03", "--by", "move", *QUICK)
        (uid,) = kept
        wait_until(lambda: node.study(uid).state == "ignored", what="the stills were looked at")
    assert (shown["studies"]["taken"], shown["objects"]) == (1, 2)
    assert node.study(uid).urgency == BACKFILL_URGENCY


def test_what_a_machine_sends_goes_before_what_a_backfill_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    years = tmp_path / "years"
    for number in range(6):
        put(years / f"{number}.dcm", f"1.2.{number % 2}", number, StudyDate="20140103")
    live = put(tmp_path / "live.dcm", "1.9", 1)
    folder = tmp_path / "data"
    folder.mkdir()
    config = tmp_path / "echonode.toml"
    config.write_text(f'data_dir = "{folder}"\n[disk]\nkeep_free_bytes = 0\n')
    monkeypatch.setenv(light.SLOW, "0.4")
    with light_node(monkeypatch, folder) as (running, _settings):
        node = Node(config, running._database, capfd)
        node("--from", str(years), *QUICK)

        def clips() -> list[catalog.RecordingRecord]:
            with node.database.read() as session:
                return [
                    one
                    for study in catalog.list_studies(session)
                    for one in catalog.recordings_of(session, study.id)
                ]

        wait_until(lambda: any(one.state == "done" for one in clips()), what="workers began")
        assert send(running.addresses.dimse_port, live).returncode == 0
        wait_until(
            lambda: all(one.state == "done" for one in clips()) and len(clips()) == 7,
            what="all are analysed",
            pause_s=0.5,
        )
        found = clips()
        (status,) = json.loads(node("status", "--json"))
    (own,) = [one for one in found if one.sop_instance_uid == "1.9.1.1"]
    assert own.finished_at is not None
    after = [one for one in found if one.finished_at and one.finished_at > own.finished_at]
    assert len(after) >= 2  # it passed by those that had waited for longer
    assert status["clips"] == {"taken": 6, "analysed": 6, "waiting": 0}
    assert status["last_hour"]["clips_analysed"] == 6
    assert status["estimate"]["basis"] == "nothing is left"
