"""Studies out of real archives, by C-GET, by C-MOVE and by DICOMweb; stopped and gone on."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
import simplejpeg
from pydicom.dataset import FileDataset
from pydicom.uid import ComprehensiveSRStorage, JPEGBaseline8Bit, generate_uid

from node.checkup import look_at_peers
from node.cli import main
from node.cli.output import ExitCode
from node.fetching.dimse import DimseArchive
from node.fetching.model import Outcome, Wish
from node.fetching.web import WebArchive
from node.intake import LATER
from node.sections import DicomwebSource, DimseSource
from node.settings import load_settings
from storage import catalog
from storage.database import Database
from tests.fetch_steps import NAME, Site, Watch, compressed, fetching_site, study_of, uids
from tests.light_node import light_node
from tests.peers import Archive, dcmqrscp, free_port, orthanc, send, wait_until
from tests.ultrasound_files import speckle

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

DOOR = free_port()
WAYS = ("get", "wado")


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    known = {"ECHONODE": DOOR}
    with orthanc(tmp_path_factory.mktemp("orthanc"), modalities=known) as archive:
        yield archive


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    with fetching_site(database, tmp_path) as opened:
        yield opened


def archive(peer: Archive, way: str) -> Any:
    if way == "wado":
        url = f"{peer.url}/dicom-web"
        return WebArchive(DicomwebSource(name="old", kind="dicomweb", url=url))
    source = DimseSource(
        name="old", kind="dimse", host="127.0.0.1", port=peer.port, ae_title=peer.ae_title
    )
    return DimseArchive(source, "ECHONODE", by="get")


def put(peer: Archive, *objects: FileDataset) -> str:
    """Lay objects into the archive; gives the study's UID."""
    for one in objects:
        buffer = io.BytesIO()
        one.save_as(buffer, enforce_file_format=True)
        httpx.post(f"{peer.url}/instances", content=buffer.getvalue()).raise_for_status()
    return str(objects[0].StudyInstanceUID)


def write_settings(peer: Archive, folder: Path, more: str = "") -> Path:
    """Settings with Orthanc as an archive that is only read."""
    config = folder / "echonode.toml"
    config.write_text(
        f'data_dir = "{folder}"\n[disk]\nkeep_free_bytes = 0\n{more}[[archives]]\nname = "old"\n'
        f'kind = "dimse"\nhost = "127.0.0.1"\nport = {peer.port}\nae_title = "ORTHANC"\n'
    )
    return config


def report_of_ours(clip: FileDataset) -> FileDataset:
    """A report that this or another node has sent there."""
    own = study_of(1, StudyInstanceUID=clip.StudyInstanceUID)[0]
    own.SOPClassUID = own.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    own.Modality, own.Manufacturer = "SR", "echonode"
    own.SeriesNumber, own.SeriesDescription = 901, "AI Echo SR (RESEARCH)"
    del own.PixelData
    return own


@pytest.mark.parametrize("way", WAYS)
def test_a_study_comes_as_it_is_kept_there_and_only_once(
    peer: Archive, site: Site, way: str
) -> None:
    clips = study_of(5, series=2)
    frame = simplejpeg.encode_jpeg(speckle((8, 8, 1)), colorspace="GRAY")
    compressed(clips[3], frame)
    uid = put(peer, *clips, report_of_ours(clips[0]))
    wish = Wish(studies=(uid,), modalities=())

    summary = site.fetch(archive(peer, way), wish)

    assert summary.is_whole
    (report,) = summary.studies
    assert (report.outcome, report.taken, report.series) == (Outcome.TAKEN, 5, 2)
    here = site.here(uid)
    assert set(here.received) == uids(clips)
    with site.database.read() as session:
        kept = catalog.find_instance(session, str(clips[3].SOPInstanceUID))
    assert kept is not None
    assert kept.transfer_syntax_uid == JPEGBaseline8Bit
    assert (kept.door, kept.calling_ae) == ("fetch", "ORTHANC" if way == "get" else "old")
    assert site.study(uid).urgency == LATER
    assert site.is_released(uid)
    assert site.left_over() == []

    watch = Watch()
    again = site.fetch(archive(peer, way), wish, watch=watch)
    assert [one.outcome for one in again.studies] == [Outcome.COMPLETE]
    assert again.studies[0].here == 5
    assert watch.begun == []


@pytest.mark.parametrize("way", WAYS)
def test_a_fetch_that_was_stopped_goes_on(peer: Archive, site: Site, way: str) -> None:
    clips = study_of(5)
    uid = put(peer, *clips)

    with pytest.raises(KeyboardInterrupt):
        site.fetch(archive(peer, way), Wish(studies=(uid,)), watch=Watch(stop_after=2))

    assert len(site.here(uid).received) == 2
    assert not site.is_released(uid)
    assert site.left_over() == []
    watch = Watch()
    (report,) = site.fetch(archive(peer, way), Wish(studies=(uid,)), watch=watch).studies
    assert (report.here, report.taken) == (2, 3)
    assert len(watch.taken) == 3
    assert set(site.here(uid).received) == uids(clips)


@pytest.mark.parametrize("way", WAYS)
def test_a_day_is_asked_for_by_modality(peer: Archive, site: Site, way: str) -> None:
    year = 2020 + WAYS.index(way)  # the archive has what the other way left there
    wanted = study_of(2, day=f"{year}0310")
    other_day = study_of(1, day=f"{year}0311")
    other_kind = study_of(1, day=f"{year}0310", Modality="MR")
    for clips in (wanted, other_day, other_kind):
        put(peer, *clips)
    day = date(year, 3, 10)

    plan = site.fetch(archive(peer, way), Wish(first_day=day, last_day=day), dry_run=True)
    found = {one.study.study_instance_uid: one for one in plan.studies}

    assert set(found) == {str(wanted[0].StudyInstanceUID)}
    (study,) = found.values()
    assert (study.outcome, study.wanted, study.series) == (Outcome.WOULD_TAKE, 2, 1)
    assert (study.study.description, study.study.study_date) == ("Echo", day)
    both = Wish(first_day=day, last_day=date(year, 3, 11))
    summary = site.fetch(archive(peer, way), both, limit=1)
    assert summary.cut_short
    assert [one.taken for one in summary.studies] == [2]
    (rest,) = [one for one in site.fetch(archive(peer, way), both).studies if one.taken]
    assert rest.study.study_instance_uid == str(other_day[0].StudyInstanceUID)


def test_a_study_is_moved_to_the_node_that_runs(
    peer: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    clips = study_of(2)
    uid = put(peer, *clips)
    config = write_settings(peer, tmp_path, f"[dimse]\nport = {DOOR}\n")
    command = ["--config", str(config), "fetch", "--from", "old", "--study", uid, "--by", "move"]

    with light_node(monkeypatch, tmp_path, dimse={"port": DOOR}) as (node, _settings):
        assert main([*command, "--json"]) == ExitCode.OK
        said = capfd.readouterr().out  # in this process the node has said something before
        shown = json.loads(said[said.index('{\n  "archive"') :])
        database = node._database

        def record() -> catalog.StudyRecord:
            with database.read() as session:
                return catalog.find_study(session, uid)

        wait_until(lambda: record().state == "ignored", what="the node has looked at the stills")
        with database.read() as session:
            kept = catalog.find_instance(session, str(clips[0].SOPInstanceUID))
        last = record()

    assert (shown["way"], shown["counts"]["instances_taken"]) == ("move", 2)
    assert kept is not None
    assert kept.door == "dimse"
    assert (last.urgency, last.revision) == (LATER, 1)


def test_another_archive_sends_lists_of_instances_of_several_series(
    site: Site, tmp_path: Path
) -> None:
    clips = study_of(4, series=2)
    paths = []
    for clip in clips:
        paths.append(tmp_path / f"{clip.SOPInstanceUID}.dcm")
        clip.save_as(paths[-1], enforce_file_format=True)
    with dcmqrscp(tmp_path) as other:
        assert send(other.port, *paths, ae_title=other.ae_title).returncode == 0
        (report,) = site.fetch(
            archive(other, "get"), Wish(studies=(str(clips[0].StudyInstanceUID),))
        ).studies

    assert (report.outcome, report.taken, report.series) == (Outcome.TAKEN, 4, 2)


def test_the_doctor_says_what_an_archive_lets_us_do(peer: Archive, tmp_path: Path) -> None:
    config = write_settings(peer, tmp_path)
    with config.open("a") as more:
        more.write(f'[[archives]]\nname = "web"\nkind = "dicomweb"\nurl = "{peer.url}/dicom-web"\n')
        more.write(f'[[archives]]\nname = "none"\nkind = "dicomweb"\nurl = "{peer.url}/nothing"\n')
    found = [one for one in look_at_peers(load_settings(config)) if "archive" in one.area]

    assert [(one.area, one.light.value) for one in found] == [
        ("archive old", "green"),
        ("archive old", "green"),
        ("archive web", "green"),
        ("archive none", "red"),
    ]
    assert "by C-GET, in" in found[1].words


def test_the_command_fetches_and_names_nobody(
    peer: Archive, database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uid = put(peer, *study_of(2))
    absent = generate_uid()
    config = write_settings(peer, tmp_path)
    database.close()
    command = ["--config", str(config), "fetch", "--from", "old", "--study", uid, "--rate", "none"]

    assert main([*command, "--pause", "0", "--study", absent, "--json"]) == ExitCode.NOT_FOUND
    said, complained = capfd.readouterr()
    shown = json.loads(said)
    assert shown["way"] == "get"
    assert shown["counts"]["instances_taken"] == 2
    assert shown["not_there"] == [absent]
    assert [one["outcome"] for one in shown["studies"]] == ["taken"]
    trail = "".join(path.read_text() for path in (tmp_path / "audit").iterdir())
    assert uid in trail

    assert main(command) == ExitCode.OK
    more = capfd.readouterr()
    assert "1 were here" in more.out
    for text in (said, complained, more.out, more.err, trail):
        assert NAME not in text
        assert "4711" not in text
