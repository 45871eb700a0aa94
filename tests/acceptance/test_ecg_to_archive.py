"""The whole way of an ECG: it goes in like a clip, a report and a picture of it come out.

The packs are tiny and untrained: this is about the way, not about what is found.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from node.results import render_report
from tests.ecg_packs import INTERVALS, SCORES, beat_pack, flat_ecg, real_ecg, rhythm_pack
from tests.peers import Archive, require, send, storescp
from tests.running_node import FEW_FRAMES, RunningNode, variant

pytestmark = pytest.mark.timeout(600)

SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
PICTURES = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4")
ECG = "AI ECG SR (RESEARCH)"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with storescp(tmp_path_factory.mktemp("archive") / "kept") as peer:
        yield peer


@pytest.fixture(scope="module")
def node(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    folder = tmp_path_factory.mktemp("node")
    packs = [rhythm_pack(folder / "rhythm"), beat_pack(folder / "beat")]
    listed = ", ".join(f'"{pack}"' for pack in packs)
    wanted = RunningNode(folder=folder, archives=[archive], analysis=f"packs = [{listed}]")
    with wanted.serving() as it:
        yield it


def send_ecg(node: RunningNode, folder: Path, ecg: Dataset) -> str:
    path = folder / f"{ecg.SOPInstanceUID}.dcm"
    ecg.save_as(path, enforce_file_format=True)
    sent = send(node.port, path)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    return str(ecg.StudyInstanceUID)


def at_archive(archive: Archive, study_uid: str) -> list[Path]:
    return [path for path in archive.files() if dcmread(path).StudyInstanceUID == study_uid]


def reports(archive: Archive, study_uid: str) -> dict[str, Path]:
    """The reports of a study, by what their series is called."""
    return {
        str(dcmread(path).SeriesDescription): path
        for path in at_archive(archive, study_uid)
        if dcmread(path).SOPClassUID == SR_CLASS
    }


@pytest.fixture(scope="module")
def done(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The UID of a study of one real ECG that has gone all the way."""
    ecg = real_ecg(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    uid = send_ecg(node, tmp_path_factory.mktemp("sent"), ecg)
    shown = node.wait_for(uid, "done", "failed", "ignored")
    assert shown["study"]["state"] == "done", shown["timeline"]
    return uid


def test_an_ecg_becomes_a_report_and_a_picture_at_the_archive(
    node: RunningNode, archive: Archive, done: str
) -> None:
    (ecg,) = node.study(done)["clips"]
    assert (ecg["kind"], ecg["state"], ecg["view"]) == ("ecg", "done", None)
    assert {*SCORES, *INTERVALS} <= {finding["output"] for finding in ecg["findings"]}

    (report,) = reports(archive, done).values()
    told = render_report(report.read_bytes())
    assert "12-Lead ECG" in told
    assert "QRS" in told
    (picture,) = [
        dcmread(path) for path in at_archive(archive, done) if dcmread(path).Modality != "SR"
    ]
    assert picture.SOPClassUID in PICTURES
    assert picture.BurnedInAnnotation == "NO"
    assert str(picture.SOPInstanceUID) in dcmread(report).to_json()
    assert dcmread(report).PatientID == picture.PatientID == real_ecg().PatientID


def test_the_validator_has_no_complaint(archive: Archive, done: str) -> None:
    for path in at_archive(archive, done):
        judged = subprocess.run(
            [require("dciodvfy"), str(path)], capture_output=True, text=True, check=False
        )
        errors = [line for line in judged.stderr.splitlines() if line.startswith("Error")]
        assert errors == [], path


def test_an_echo_and_its_ecg_get_a_report_each(
    node: RunningNode, archive: Archive, tmp_path: Path
) -> None:
    uid = generate_uid()
    clip = variant(tmp_path, study_uid=uid, frames=FEW_FRAMES)
    ecg = real_ecg(StudyInstanceUID=uid, SOPInstanceUID=generate_uid())
    ecg.PatientID, ecg.PatientName = dcmread(clip).PatientID, dcmread(clip).PatientName
    assert send(node.port, clip, options=("-xy",)).returncode == 0
    send_ecg(node, tmp_path, ecg)

    shown = node.wait_for(uid, "done", "failed", "ignored")
    assert shown["study"]["state"] == "done", shown["timeline"]
    made = reports(archive, uid)
    echo = next(words for words in made if "ECG" not in words)
    assert len(made) == 2
    of_clip = render_report(made[echo].read_bytes())
    assert "ejection fraction" in of_clip.lower()
    assert "ECG" not in of_clip
    assert "ejection fraction" not in render_report(made[ECG].read_bytes()).lower()


def test_an_ecg_of_which_nothing_may_be_said_is_refused_and_the_next_is_read(
    node: RunningNode, archive: Archive, tmp_path: Path
) -> None:
    flat = flat_ecg(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    uid = send_ecg(node, tmp_path, flat)
    shown = node.wait_for(uid, "done", "failed", "ignored")
    assert shown["study"]["state"] == "ignored"
    assert "no ECG that a model can read" in shown["study"]["reason"]
    assert shown["clips"][0]["refused"]
    assert at_archive(archive, uid) == []

    again = real_ecg(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    after = send_ecg(node, tmp_path, again)
    assert node.wait_for(after, "done", "failed")["study"]["state"] == "done"
