"""``echonode simulate`` writes what was asked for, or says what is wrong with it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from models.clip import read_clip
from models.simulator.dicom import SYNTAXES, read_truth
from models.views import View
from node.cli import main
from node.cli.output import ExitCode

SMALL = ("--size", "160x200", "--frames", "3", "--no-colour")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["simulate", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == ExitCode.OK
    clips: list[dict[str, Any]] = json.loads(out)["clips"]
    return clips


def test_a_clip_is_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clip.dcm"
    (clip,) = answer(
        capsys, *SMALL, "--view", "a4c", "--ef", "35", "--edv", "150", "--wall", "1.3",
        "--lead-kind", "defibrillator", "--heart-rate", "80", "--age", "70", "--sex", "female",
        "--seed", "7", "--frame-time", "33.3", "--out", str(out),
    )  # fmt: skip
    written = pydicom.dcmread(out)
    read = read_clip(out.read_bytes())
    labels = clip["truth"]["labels"]

    assert (labels["ef"], labels["edv"], labels["lead"], labels["lvh"]) == (35, 150, 1, 1)
    assert (labels["age"], labels["sex"]) == (70, 0)
    assert clip["truth"]["lead_kind"] == "defibrillator"
    assert (read.frame_count, read.heart_rate_bpm) == (3, 80)
    assert read.time_axis.frame_time_ms == pytest.approx(33.3)
    assert (written.Rows, written.Columns) == (160, 200)
    assert written.SOPInstanceUID == clip["sop_instance_uid"]
    assert (read_truth(written) or {})["ef"] == 35


def test_the_same_command_writes_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name in ("one", "two"):
        answer(capsys, *SMALL, "--seed", "5", "--age", "50", "--out", str(tmp_path / name))
        files.append((tmp_path / name / "a4c-5.dcm").read_bytes())

    assert files[0] == files[1]


def test_all_views_and_several_seeds_make_one_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = answer(
        capsys, "--view", "all", "--count", "2", "--size", "120x160", "--frames", "1",
        "--out", str(tmp_path),
    )  # fmt: skip

    assert {clip["view"] for clip in clips} == {view.value for view in View}
    assert len(list(tmp_path.glob("*.dcm"))) == len(clips) == 2 * len(View)
    assert len({clip["study_instance_uid"] for clip in clips}) == 1
    assert len({clip["sop_instance_uid"] for clip in clips}) == len(clips)


@pytest.mark.parametrize("name", ["implicit", "jpeg-lossless", "jpeg-ls"])
def test_the_syntax_is_the_one_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "clip.dcm"
    answer(capsys, *SMALL, "--syntax", name, "--out", str(out))

    assert pydicom.dcmread(out).file_meta.TransferSyntaxUID == SYNTAXES[name]


@pytest.mark.parametrize(("frame_time_ms", "frames"), [(40.0, 6), (16.7, 12), (33.4, 10)])
def test_the_gif_lasts_as_long_as_the_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], frame_time_ms: float, frames: int
) -> None:
    gif = tmp_path / "clip.gif"
    answer(
        capsys, "--size", "120x160", "--frames", str(frames), "--frame-time", str(frame_time_ms),
        "--out", str(tmp_path), "--gif", str(gif),
    )  # fmt: skip
    durations = []
    with Image.open(gif) as shown:
        for index in range(getattr(shown, "n_frames", 1)):
            shown.seek(index)
            durations.append(shown.info["duration"])

    assert sum(durations) == pytest.approx(frames * frame_time_ms, abs=10)
    assert min(durations) >= 20


def test_the_png_shows_the_clip_and_outlines_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, drawn = tmp_path / "plain.png", tmp_path / "drawn.png"
    common = (*SMALL, "--seed", "3", "--out", str(tmp_path))
    (clip,) = answer(capsys, *common, "--png", str(plain))
    answer(capsys, *common, "--png", str(drawn), "--outline")
    one, two = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (plain, drawn))

    assert clip["pictures"] == [str(plain)]
    assert one.shape == (160, 200, 3)
    changed = np.abs(one - two).max(axis=-1) > 20
    assert 0.002 < changed.mean() < 0.1


def test_truth_and_masks_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, masks = tmp_path / "truth.json", tmp_path / "masks.npz"
    answer(
        capsys, *SMALL, "--lead", "--truth", str(truth), "--masks", str(masks),
        "--out", str(tmp_path),
    )  # fmt: skip
    said = json.loads(truth.read_text())
    with np.load(masks) as held:
        found = held["masks"]

    assert len(said["volumes_ml"]) == len(said["phases"]) == 3
    assert said["labels"]["lead"] == 1
    assert found.shape == (3, 160, 200)
    assert {1, 2, 3, 7} <= set(np.unique(found).tolist())


def test_pictures_of_several_clips_have_names_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = answer(
        capsys, *SMALL, "--count", "2", "--out", str(tmp_path), "--png", str(tmp_path / "p.png")
    )

    assert [Path(clip["pictures"][0]).name for clip in clips] == ["p-a4c-0.png", "p-a4c-1.png"]
    assert all(Path(clip["pictures"][0]).is_file() for clip in clips)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--view", "a9c"), "--view a9c: give one of psla"),
        (("--size", "big"), "--size big: give rows and columns"),
        (("--syntax", "mpeg"), "--syntax mpeg: give one of jpeg"),
        (("--count", "0"), "--count 0"),
        (("--ef", "99"), "an ejection fraction of 99 %"),
        (("--age", "7"), "an age of 7 years"),
        (("--sex", "x"), "--sex x: give F or M"),
        (("--lead-kind", "x"), "--lead-kind x: give one of pacemaker"),
        (("--no-lead", "--lead-kind", "pacemaker"), "give one of them"),
        (("--photometric", "RGB"), "does not carry RGB"),
        (("--study-uid", "1..2"), "no UID"),
        (("--out", "x.dcm", "--count", "2"), "2 clips need a folder"),
    ],
)
def test_wrong_options_are_told_in_a_line_and_write_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)

    assert code == ExitCode.USAGE
    assert words in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_what_the_view_does_not_show_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(
        capsys, *SMALL, "--view", "ivc", "--ef", "30", "--weight", "90", "--out", str(tmp_path)
    )

    assert code == ExitCode.OK
    assert err.splitlines() == ["note: --ef is not seen in ivc"]


def test_the_table_names_no_patient_and_all_that_was_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *SMALL, "--ef", "41", "--age", "66", "--out", str(tmp_path))

    assert code == ExitCode.OK
    assert "41" in out
    assert "66 y" in out
    assert err == ""
    held = pydicom.dcmread(io.BytesIO((tmp_path / "a4c-0.dcm").read_bytes()))
    assert str(held.PatientName) == "SIMULATED^PATIENT"
