"""``echonode simulate --ecg`` writes what was asked for, or says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import GeneralECGWaveformStorage

from models.ecg.reading import read_ecg
from node.cli import main
from node.cli.output import ExitCode


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["simulate", "--ecg", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == ExitCode.OK
    ecgs: list[dict[str, Any]] = json.loads(out)["ecgs"]
    return ecgs


def test_an_ecg_is_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ecg.dcm"
    (ecg,) = answer(
        capsys, "--rate", "52", "--pr", "240", "--qrs", "150", "--qt", "470", "--conduction",
        "lbbb", "--sex", "f", "--sampling", "250", "--duration", "12", "--scheme", "scpecg",
        "--object", "general", "--median", "--annotations", "--seed", "7", "--out", str(out),
    )  # fmt: skip
    written, read = pydicom.dcmread(out), read_ecg(out)
    truths = ecg["truths"]

    assert written.SOPClassUID == GeneralECGWaveformStorage
    assert written.SOPInstanceUID == ecg["sop_instance_uid"]
    lead = written.WaveformSequence[0].ChannelDefinitionSequence[0].ChannelSourceSequence[0]
    assert lead.CodingSchemeDesignator == "SCPECG"
    assert read.rhythm.millivolts.shape == (12, 3000)
    assert read.median is not None
    assert read.measured.pr_ms == pytest.approx(240, abs=3)
    assert truths["heart_rate"] == pytest.approx(52, rel=0.03)
    assert [truths[name] for name in ("lbbb", "sinus_bradycardia", "sex")] == [1, 1, 0]
    assert truths["first_degree_av_block"] == 1


def test_the_same_command_writes_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "one.dcm", tmp_path / "two.dcm"
    for out in (first, second):
        answer(capsys, "--rhythm", "any", "--seed", "3", "--out", str(out))

    assert first.read_bytes() == second.read_bytes()


def test_several_ecgs_are_one_study_with_files_and_pictures_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ecgs = answer(
        capsys, "--rhythm", "af", "--count", "3", "--seed", "5", "--out", str(tmp_path),
        "--png", str(tmp_path / "page.png"), "--truth", str(tmp_path / "truth.json"),
    )  # fmt: skip
    truth = json.loads((tmp_path / "truth.json").read_text())

    assert [Path(ecg["file"]).name for ecg in ecgs] == ["ecg-5.dcm", "ecg-6.dcm", "ecg-7.dcm"]
    assert len({ecg["study_instance_uid"] for ecg in ecgs}) == 1
    assert len({ecg["sop_instance_uid"] for ecg in ecgs}) == 3
    assert all(ecg["truths"]["atrial_fibrillation"] == 1 for ecg in ecgs)
    assert np.asarray(Image.open(tmp_path / "page-6.png")).std() > 10
    assert len(truth) == 3
    assert truth[0]["waves"][0]["p"] is None
    assert len(truth[0]["r_peaks"]) == len(truth[0]["waves"])


def test_the_table_names_no_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--rhythm", "flutter", "--out", str(tmp_path))

    assert code == ExitCode.OK
    assert "flutter" in out
    assert "SIMULATED^PATIENT" not in out + err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--ef", "30"), "--ef: not with --ecg"),
        (("--view", "a4c"), "--view: not with --ecg"),
        (("--pr", "1000"), "pr_ms of 1000"),
        (("--rhythm", "vt"), "--rhythm vt: give one of sinus"),
        (("--conduction", "left"), "--conduction left: give one of normal"),
        (("--sex", "x"), "--sex x: give F or M"),
        (("--scheme", "aha"), "--scheme aha: give one of mdc"),
        (("--sampling", "2000"), "2000 Hz cannot be written"),
        (("--duration", "60"), "at most 16384"),
        (("--count", "0"), "--count 0: give 1 or more"),
        (("--count", "2", "--out", "one.dcm"), "2 ECGs need a folder"),
    ],
)
def test_wrong_options_are_told_in_a_line_and_write_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)

    assert (code, out) == (ExitCode.USAGE, "")
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_options_of_ecgs_are_refused_for_clips(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["simulate", "--rhythm", "af"])

    assert code == ExitCode.USAGE
    assert "--rhythm: only with --ecg" in capsys.readouterr().err
