"""`echonode analyze`: what the node would say of files, with no node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from models.packs import load_pack, shipped_packs
from node.cli import main, reading
from node.results import is_own_object
from tests.faults import light
from tests.running_node import FEW_FRAMES, REAL_CINE, echonode, variant

pytestmark = pytest.mark.timeout(600)

CLIP_KEYS = {"file", "kind", "sop_instance_uid", "view", "findings", "cautions", "refused"}
FINDING_KEYS = {
    "output", "value", "unit", "low", "high", "score", "pack", "version", "evidence",
    "per_beat", "outside_share", "spans_ms",
}  # fmt: skip


def analyze(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        echonode("analyze", *(str(argument) for argument in arguments)),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of the real cine, a clip cut short, and a file that is no DICOM."""
    folder = tmp_path_factory.mktemp("files")
    variant(folder, study_uid="2.25.11")
    variant(folder, study_uid="2.25.22", frames=FEW_FRAMES)
    whole = variant(folder, study_uid="2.25.22", frames=FEW_FRAMES).read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:400])
    (folder / "notes.txt").write_text("no DICOM")
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def answer(folder: Path, out: Path) -> Any:
    """What it says of the folder and of one file beside it; stdout is JSON and nothing else."""
    done = analyze(folder, folder / "notes.txt", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert "1 files are not DICOM" in done.stderr
    return json.loads(done.stdout)


def read(answer: Any) -> list[Any]:
    return [clip for clip in answer["clips"] if clip["view"] is not None]


def test_each_file_has_an_entry_of_one_shape(answer: Any) -> None:
    assert set(answer) == {"clips", "results"}
    assert len(answer["clips"]) == 5
    for clip in answer["clips"]:
        assert set(clip) == CLIP_KEYS
        for finding in clip["findings"]:
            assert set(finding) == FINDING_KEYS


def test_the_real_cine_is_an_a4c_with_an_ef_tested_on_patients(answer: Any) -> None:
    for clip in read(answer):
        assert clip["view"]["label"] == "a4c"
        assert 0.0 <= clip["view"]["score"] <= 1.0
        assert clip["refused"] is None
        (ef, *_) = [finding for finding in clip["findings"] if finding["output"] == "ef"]
        assert ef["unit"] == "%"
        assert ef["low"] <= ef["value"] <= ef["high"]
        assert ef["evidence"] == "patients"


def test_what_was_not_shown_of_an_output_stands_beside_its_value(answer: Any) -> None:
    doubted = {
        (pack.manifest.name, output.name): output.caution
        for pack in map(load_pack, shipped_packs())
        for output in pack.manifest.outputs
        if output.caution
    }

    for clip in read(answer):
        given = [(finding["pack"], finding["output"]) for finding in clip["findings"]]
        wanted = [doubted[one] for one in given if one in doubted]
        assert wanted
        assert len(clip["cautions"]) == len(wanted)
        for words, caution in zip(wanted, clip["cautions"], strict=True):
            assert words in caution


def test_what_cannot_be_read_says_why_and_keeps_no_other_back(answer: Any) -> None:
    refused = {Path(clip["file"]).name: clip["refused"] for clip in answer["clips"]}

    assert "not a DICOM file" in refused["notes.txt"]
    assert refused["cut.dcm"]
    assert len(read(answer)) == 3


def test_there_is_a_report_and_a_page_for_each_study_and_a_cine_and_a_picture_for_each_clip(
    answer: Any, out: Path
) -> None:
    kinds = [result["kind"] for result in answer["results"]]
    paths = [Path(result["path"]) for result in answer["results"]]

    # And a page for each study, as DICOM and PNG.
    assert sorted(kinds) == ["png"] * 5 + ["sc"] * 5 + ["sr"] * 2
    assert sorted(paths) == sorted(out.iterdir())
    for kind, path in zip(kinds, paths, strict=True):
        if kind == "png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert is_own_object(dcmread(path))
    reports = [dcmread(path) for kind, path in zip(kinds, paths, strict=True) if kind == "sr"]
    assert {report.StudyInstanceUID for report in reports} == {"2.25.11", "2.25.22"}


def test_no_file_name_tells_of_a_patient_or_study(answer: Any) -> None:
    header = dcmread(REAL_CINE, stop_before_pixels=True)
    names = " ".join(Path(result["path"]).name for result in answer["results"])

    assert str(header.PatientName) not in names
    assert "2.25.11" not in names


@pytest.mark.usefixtures("answer")
def test_its_own_results_are_not_read(out: Path, tmp_path: Path) -> None:
    done = analyze(out, "--out", tmp_path / "again", "--json")

    assert done.returncode == 1
    assert "none of the files could be read" in done.stderr
    assert all("echonode made it" in clip["refused"] for clip in json.loads(done.stdout)["clips"])
    assert list((tmp_path / "again").iterdir()) == []


def test_a_reader_gets_a_table_also_of_two_files_with_one_uid_and_a_report_that_names_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With stand-ins for the models: it is about what is printed and kept of what they say."""
    for name, stands_in in (
        ("WorkerProcesses", light.ThreadedWorkers),
        ("prepare_worker", light.prepare),
        ("name_view", light.name_view),
        ("analyse", light.analyse),
    ):
        monkeypatch.setattr(reading, name, stands_in)
    first, out = variant(tmp_path), tmp_path / "out"
    second = tmp_path / "copy.dcm"
    second.write_bytes(first.read_bytes())

    code = main(["analyze", str(first), str(second), "--out", str(out)])

    printed = capsys.readouterr()
    assert code == 0, printed.err
    for words in ("Left ventricular ejection fraction (ef)", "patients", "not for diagnosis"):
        assert words in printed.out
    assert f"{second} has the SOP Instance UID of {first}" in " ".join(printed.err.split("\n"))
    made = [dcmread(path, stop_before_pixels=True) for path in out.glob("*.dcm")]
    assert [item.Modality for item in made].count("SR") == 1
    cines = [item for item in made if "NumberOfFrames" in item and int(item.NumberOfFrames) > 1]
    assert len(cines) == 2, "both are read"
