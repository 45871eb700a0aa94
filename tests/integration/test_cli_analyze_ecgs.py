"""`echonode analyze` of ECGs: as DICOM objects, WFDB records and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from models.ecg.reading import read_ecg
from models.ecg.recording import LEADS
from models.packs import Pack, load_pack
from node.analysis import load_packs, worker
from node.cli import reading
from node.cli.analyze import _files
from node.results import is_own_object, render_report
from node.settings import Settings
from tests.ecg_packs import INTERVALS, REAL_ECG, SCORES, beat_pack, flat_ecg, rhythm_pack
from tests.faults import light


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Pack]:
    root = tmp_path_factory.mktemp("packs")
    return [
        load_pack(make(root / make.__name__.replace("_", "-"))) for make in (rhythm_pack, beat_pack)
    ]


@pytest.fixture
def here(packs: list[Pack], monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are threads of this process, which has the packs loaded."""
    monkeypatch.setattr(worker, "_packs", None)
    load_packs([pack.folder for pack in packs])
    monkeypatch.setattr(reading, "WorkerProcesses", light.ThreadedWorkers)
    monkeypatch.setattr(reading, "prepare_worker", light.prepare)


def read(files: list[Path], packs: list[Pack], out: Path) -> reading.Outcome:
    out.mkdir(exist_ok=True)
    return reading.read_files(files, packs, out, Settings(data_dir=out / "data"))


def table(path: Path) -> Path:
    """The real ECG as a table: a column for each lead in mV."""
    ecg = read_ecg(REAL_ECG).rhythm
    times = np.arange(ecg.millivolts.shape[1]) / ecg.rate_hz
    lines = [",".join(("time_s", *LEADS))]
    lines += [
        ",".join(f"{value:.4f}" for value in (at, *row))
        for at, row in zip(times, ecg.millivolts.T, strict=True)
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.usefixtures("here")
def test_a_dicom_ecg_gets_a_report_of_its_own_and_a_picture(
    packs: list[Pack], tmp_path: Path
) -> None:
    outcome = read([REAL_ECG], packs, tmp_path / "out")
    (ecg,) = outcome.clips
    told = ecg.json()
    assert told["kind"] == "ecg"
    assert told["view"] is None
    assert [one["output"] for one in told["findings"]] == [*SCORES, *INTERVALS]
    assert all(one["spans_ms"] for one in told["findings"])
    kinds = [result.kind for result in outcome.results]
    assert sorted(kinds) == ["png"] * 4 + ["sc", "sr"]
    made = {result.kind: Path(result.path) for result in outcome.results}
    assert is_own_object(dcmread(made["sr"]))
    report = render_report(made["sr"].read_bytes())
    assert "12-Lead ECG" in report
    assert "QRS" in report
    assert made["png"].read_bytes().startswith(b"\x89PNG")
    assert outcome.problems == ()


@pytest.mark.usefixtures("here")
def test_what_is_no_dicom_gets_findings_and_pictures_and_no_report(
    packs: list[Pack], tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wfdb", reason="the extra ecg-files is not installed")
    files = [table(tmp_path / "own.csv"), shared_data / "ecg12" / "A0001.hea"]
    outcome = read(files, packs, tmp_path / "out")
    for ecg in outcome.clips:
        assert ecg.findings
        assert ecg.sop_instance_uid is None
    assert {result.kind for result in outcome.results} == {"png"}
    names = {Path(result.path).name for result in outcome.results}
    assert {"ecg-own-page-1.png", "ecg-A0001-page-1.png"} <= names
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("it names neither patient nor study") == 2


@pytest.mark.usefixtures("here")
def test_an_ecg_that_cannot_be_used_says_why_and_keeps_no_other_back(
    packs: list[Pack], tmp_path: Path
) -> None:
    flat, notes = tmp_path / "flat.dcm", tmp_path / "notes.txt"
    flat_ecg(SOPInstanceUID="2.25.7").save_as(flat)
    notes.write_text("no ECG")
    outcome = read([flat, notes, REAL_ECG], packs, tmp_path / "out")
    refused = [ecg.refused for ecg in outcome.clips]
    assert refused[0]
    assert "not a DICOM file" in (refused[1] or "")
    assert refused[2] is None
    report = next(Path(one.path) for one in outcome.results if one.kind == "sr")
    assert (refused[0] or "").rstrip(".") in " ".join(render_report(report.read_bytes()).split())


def test_a_folder_gives_each_record_once_and_leaves_what_is_no_ecg(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    for name in ("A0001.hea", "A0001.mat"):
        (folder / name).write_bytes((shared_data / "ecg12" / name).read_bytes())
    table(folder / "own.csv")
    (folder / "list.csv").write_text("name,age\na,3\n")
    found: list[Any] = [path.name for path in _files([folder])]
    assert found == ["A0001.hea", "own.csv"]
    assert "1 files are not DICOM" in capsys.readouterr().err
