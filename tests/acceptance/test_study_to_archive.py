"""The whole way, as a hospital would see it: a study goes in, a report and a cine come out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import highdicom
import pytest
from pydicom import Dataset, dcmread

from models.clip import read_header
from node.window import look_in
from tests.peers import Archive, require, send, storescp, wait_until
from tests.running_node import FEW_FRAMES, REAL_CINE, RunningNode, variant

pytestmark = pytest.mark.timeout(600)

SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
SC_CLASS = "1.2.840.10008.5.1.4.1.1.7.4"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with storescp(tmp_path_factory.mktemp("archive") / "kept") as peer:
        yield peer


@pytest.fixture(scope="module")
def node(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with RunningNode(folder=tmp_path_factory.mktemp("node"), archives=[archive]).serving() as it:
        yield it


def at_archive(archive: Archive, study_uid: str, sop_class: str) -> list[Dataset]:
    datasets = [dcmread(path) for path in archive.files()]
    return [
        dataset
        for dataset in datasets
        if dataset.StudyInstanceUID == study_uid and dataset.SOPClassUID == sop_class
    ]


@pytest.fixture(scope="module")
def real_study(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The UID of a study with the real cine that has gone all the way."""
    path = variant(tmp_path_factory.mktemp("real"))
    sent = send(node.port, path, options=("-xy",))
    assert sent.returncode == 0, sent.stdout + sent.stderr
    uid = str(dcmread(path).StudyInstanceUID)
    shown = node.wait_for(uid, "done", "failed", "ignored")
    assert shown["study"]["state"] == "done", shown["timeline"]
    return uid


def test_a_real_cine_becomes_a_report_with_an_ef_unit_and_evidence(
    archive: Archive, real_study: str
) -> None:
    (report,) = at_archive(archive, real_study, SR_CLASS)

    read = highdicom.sr.srread(
        next(
            path
            for path in archive.files()
            if dcmread(path).SOPInstanceUID == report.SOPInstanceUID
        )
    )
    groups = read.content.get_planar_roi_measurement_groups() or (
        read.content.get_image_measurement_groups()
    )
    measurements = [item for group in groups for item in group.get_measurements()]
    by_meaning = {item.name.meaning.lower(): item for item in measurements}
    ejection = [item for name, item in by_meaning.items() if "ejection fraction" in name]
    assert ejection
    assert {item.unit.value for item in ejection} == {"%"}
    assert all(5.0 < float(item.value) < 90.0 for item in ejection)

    text = subprocess.run(
        [require("dsrdump"), "+Pl", str(_path_of(archive, report))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Apical four chamber" in text
    assert re.search(r"RESEARCH USE ONLY", text, re.IGNORECASE)
    assert "patients" in text  # the evidence level of what was reported


def test_the_report_and_the_cine_pass_the_validators(archive: Archive, real_study: str) -> None:
    for sop_class in (SR_CLASS, SC_CLASS):
        (result,) = at_archive(archive, real_study, sop_class)
        judged = subprocess.run(
            [require("dciodvfy"), str(_path_of(archive, result))],
            capture_output=True,
            text=True,
            check=False,
        )
        errors = [line for line in judged.stderr.splitlines() if line.startswith("Error")]
        assert errors == []


def test_the_cine_plays_at_the_speed_of_its_source(archive: Archive, real_study: str) -> None:
    (cine,) = at_archive(archive, real_study, SC_CLASS)
    source = dcmread(REAL_CINE, stop_before_pixels=True)

    assert cine.NumberOfFrames == source.NumberOfFrames
    assert float(cine.FrameTime) == pytest.approx(float(source.FrameTime), rel=0.01)
    assert cine.PhotometricInterpretation == "YBR_FULL_422"
    assert cine.PatientID == source.PatientID
    assert cine.PatientName == source.PatientName


def test_the_same_study_sent_twice_gives_one_report(
    node: RunningNode, archive: Archive, real_study: str
) -> None:
    (report,) = at_archive(archive, real_study, SR_CLASS)
    again = next(
        path
        for path in (node.folder / "data").rglob("*.dcm")
        if dcmread(path, stop_before_pixels=True).StudyInstanceUID == real_study
        and dcmread(path, stop_before_pixels=True).SOPClassUID.name.startswith("Ultrasound")
    )
    sent = send(node.port, again, options=("-xy",))

    assert sent.returncode == 0
    shown = node.study(real_study)["study"]
    assert (shown["state"], shown["revision"]) == ("done", 1)
    assert [item.SOPInstanceUID for item in at_archive(archive, real_study, SR_CLASS)] == [
        report.SOPInstanceUID
    ]


def test_a_late_clip_makes_a_second_revision_that_names_the_first(
    node: RunningNode, archive: Archive, tmp_path: Path
) -> None:
    first = variant(tmp_path, frames=FEW_FRAMES)
    uid = str(dcmread(first).StudyInstanceUID)
    send(node.port, first, options=("-xy",))
    node.wait_for(uid, "done")
    (report,) = at_archive(archive, uid, SR_CLASS)

    send(node.port, variant(tmp_path, study_uid=uid, frames=FEW_FRAMES), options=("-xy",))
    node.wait_for(uid, "done", revision=2)

    reports = at_archive(archive, uid, SR_CLASS)
    assert len(reports) == 2
    revised = next(item for item in reports if item.SOPInstanceUID != report.SOPInstanceUID)
    predecessor = revised.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert predecessor.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
    assert revised.SeriesInstanceUID == report.SeriesInstanceUID
    assert int(revised.InstanceNumber) == 2
    assert len(at_archive(archive, uid, SC_CLASS)) == 2


def test_an_operator_holds_releases_and_resends_while_the_node_runs(
    node: RunningNode, archive: Archive, tmp_path: Path
) -> None:
    clip = variant(tmp_path, frames=FEW_FRAMES)
    uid = str(dcmread(clip).StudyInstanceUID)
    send(node.port, clip, options=("-xy",))
    node.ask("hold", uid)
    time.sleep(4)  # longer than the quiet time that would complete it
    assert node.state(uid) == "held"

    node.ask("release", uid)
    node.wait_for(uid, "done")
    before = {path.name: path.read_bytes() for path in archive.files()}
    node.ask("resend", uid)
    node.wait_for(uid, "done")
    after = node.study(uid)

    assert {item["attempts"] for item in after["deliveries"]} == {1}
    delivered = sum(event["kind"] == "delivered" for event in after["timeline"])
    assert delivered == 6, "report, cine and page, each twice"
    assert {path.name: path.read_bytes() for path in archive.files()} == before
    node.ask("retry", uid, status=1)
    node.ask("study", "1.2.3", status=3)
    status = node.ask("status")
    assert status["running"]
    assert [worker["state"] for worker in status["workers"]] == ["idle"]
    told = look_in(node.folder / "data")
    assert told is not None, "the node itself answers"
    assert told.keys() == status.keys()


def test_other_content_under_a_known_uid_is_shown_in_quarantine(
    node: RunningNode, real_study: str, tmp_path: Path
) -> None:
    (clip,) = node.study(real_study)["clips"]
    changed = variant(
        tmp_path, study_uid=real_study, SOPInstanceUID=clip["sop_instance_uid"], Rows=120
    )
    send(node.port, changed, options=("-xy",))

    (entry,) = [
        item
        for item in node.ask("quarantine")
        if item["sop_instance_uid"] == clip["sop_instance_uid"]
    ]
    assert "other content" in entry["reason"]
    assert node.state(real_study) == "done"


def test_every_real_file_is_kept_and_named_or_plainly_refused(
    node: RunningNode, shared_data: Path
) -> None:
    files = sorted((shared_data / "ultrasound").glob("*.dcm"))
    assert files
    for path in files:
        sent = send(node.port, path, options=_propose(path))
        assert sent.returncode == 0, f"{path.name}: {sent.stdout}{sent.stderr}"

    for path in files:
        header = read_header(path)
        uid = str(header.StudyInstanceUID)
        shown = node.wait_for(uid, "done", "ignored", "failed")
        assert shown["study"]["state"] != "failed", (path.name, shown["timeline"])
        (clip,) = (
            item for item in shown["clips"] if item["sop_instance_uid"] == header.SOPInstanceUID
        )
        read = clip["kind"] == "ecg" and clip["findings"]  # an ECG has no view
        assert clip["view"] is not None or clip["reason"] or read, path.name
    assert node.process is not None
    assert node.process.poll() is None


# The last, since it ends the node of the tests before.
def test_a_clip_outlives_the_death_of_its_worker_and_of_its_node_and_is_reported_once(
    node: RunningNode, archive: Archive, tmp_path: Path
) -> None:
    clip = variant(tmp_path)
    uid = str(dcmread(clip).StudyInstanceUID)
    (worker,) = node.ask("status")["workers"]
    send(node.port, clip, options=("-xy",))
    node.wait_for_clip(uid, "analysing")
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(
        lambda: node.ask("status")["workers"][0]["restarts"] == 1, what="the restart is told"
    )
    node.wait_for_clip(uid, "analysing")
    node.kill()
    assert at_archive(archive, uid, SR_CLASS) == []

    with node.serving():
        shown = node.wait_for(uid, "done", "failed", timeout_s=400)

    assert shown["study"]["state"] == "done", shown["timeline"]
    kinds = [event["kind"] for event in shown["timeline"]]
    assert kinds.index("recording-again") < kinds.index("interrupted") < kinds.index("reporting")
    assert len(at_archive(archive, uid, SR_CLASS)) == 1
    assert len(at_archive(archive, uid, SC_CLASS)) == 1


def _path_of(archive: Archive, dataset: Dataset) -> Path:
    return next(
        path
        for path in archive.files()
        if dcmread(path, stop_before_pixels=True).SOPInstanceUID == dataset.SOPInstanceUID
    )


_PROPOSALS = {
    "1.2.840.10008.1.2": ("-xi",),
    "1.2.840.10008.1.2.1": ("-xe",),
    "1.2.840.10008.1.2.2": ("-xb",),
    "1.2.840.10008.1.2.4.50": ("-xy",),
    "1.2.840.10008.1.2.4.51": ("-xx",),
    "1.2.840.10008.1.2.4.70": ("-xs",),
    "1.2.840.10008.1.2.4.80": ("-xt",),
    "1.2.840.10008.1.2.4.90": ("-xv",),
    "1.2.840.10008.1.2.5": ("-xr",),
}


def _propose(path: Path) -> tuple[str, ...]:
    syntax = str(read_header(path).file_meta.TransferSyntaxUID)
    return ("-R", *_PROPOSALS[syntax])
