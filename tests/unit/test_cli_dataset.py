"""``echonode dataset``: building from a folder and from the node's store, and showing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data import sheet
from models.data.dataset import open_dataset
from node.cli import main
from node.cli.output import ExitCode
from storage.database import Database
from storage.files import Area, FolderStore
from tests.unit.storage_steps import NOW, clip, receive
from tests.unit.test_data_built import ROOT, clip_file

SIMULATED = "simulated:clips=2,views=a4c+pw,frames=1,size=96x128"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "_draw_labels", lambda *_: None)
    monkeypatch.setattr(sheet, "_draw_clips", lambda *_: None)


@pytest.fixture
def site(tmp_path: Path, database: Database, database_url: str) -> list[str]:
    """Options of a node with a database, and a table for its three patients."""
    assert database  # it is there before the command asks for it
    file = tmp_path / "echonode.toml"
    file.write_text(
        f'data_dir = "{tmp_path / "data"}"\ndatabase_url = "{database_url}"\n', encoding="utf-8"
    )
    lines = [f"{ROOT}.2.{patient},{0.5 + patient / 100},a4c" for patient in range(3)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["StudyInstanceUID,LVEF,view", *lines]) + "\n", encoding="utf-8")
    options = ["--labels", str(table), "--map", "LVEF=ef_fraction", "--out", str(tmp_path / "out")]
    return ["--config", str(file), "dataset", "build", *options]


def test_a_folder_becomes_a_data_set_that_can_be_shown(
    site: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for patient in range(4):
        (folder / f"IM{patient}").write_bytes(clip_file(patient))
    (folder / "README.txt").write_text("not an object")
    (folder / "broken.dcm").write_bytes(b"nothing" * 40)
    words = [*site, "--from", str(folder), "--licence", "ours alone", "--json"]
    assert main(words) == ExitCode.OK
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["splits"]["train"]["clips"] == 1
    assert sum(split["clips"] for split in told["splits"].values()) == 3
    assert told["left_out"]["no line of the table has its StudyInstanceUID"] == 1
    assert "1 files are not DICOM objects" in err
    assert f"{folder / 'broken.dcm'}: cannot be read" in err
    assert "5 of 5 objects" in err

    assert main(["dataset", "show", str(tmp_path / "out"), "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["licence"] == "ours alone"
    assert shown["labels"]["ef"] == {"unit": "%", "known": {"train": 1, "held": 1, "valid": 1}}
    assert main(["dataset", "show", str(tmp_path / "out")]) == ExitCode.OK
    assert "ours alone" in capsys.readouterr().out

    assert main(words) == ExitCode.FAILED
    assert "there already" in capsys.readouterr().err


def test_what_the_node_received_becomes_a_data_set(
    site: list[str], tmp_path: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    files = FolderStore(tmp_path / "data")
    for patient in range(4):  # of the fourth the table knows nothing
        data = clip_file(patient)
        received = clip(
            patient,
            study_instance_uid=f"{ROOT}.2.{patient}",
            sop_instance_uid=f"{ROOT}.1.{patient}.0",
            file_key=files.write(Area.OBJECTS, f"{patient:064x}", data),
            received_at=NOW,
        )
        receive(database, received)
    assert main([*site, "--from-node", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert sum(split["patients"] for split in told["splits"].values()) == 3
    assert told["left_out"] == {}
    values = sorted(
        case.truths["ef"]
        for split in ("train", "held", "valid")
        for case in open_dataset(str(tmp_path / "out")).cases(split)
    )
    assert values == pytest.approx([50.0, 51.0, 52.0])


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], ExitCode.USAGE, "one of them"),
        (["--from", "/nowhere"], ExitCode.NOT_FOUND, "no such folder"),
        (["--from-node", "--views", "heart"], ExitCode.USAGE, "--views heart"),
        (["--from-node", "--splits", "1,2"], ExitCode.USAGE, "three shares"),
        (["--from-node", "--splits", "0,0,0"], ExitCode.USAGE, "splits are 3 shares"),
        (["--from-node", "--map", "LVEF"], ExitCode.USAGE, "COLUMN=OUTPUT"),
        (["--from-node", "--map", "other=edv"], ExitCode.USAGE, "no column 'other'"),
        (["--from-node"], ExitCode.FAILED, "no clip is left"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_code(
    site: list[str],
    options: list[str],
    code: ExitCode,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*site, *options]) == code
    assert said in capsys.readouterr().err


def test_simulated_clips_are_shown_with_the_labels_of_each_view(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["dataset", "show", SIMULATED, "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["evidence"] == "simulated"
    assert shown["splits"]["held"] == {"patients": 2, "clips": 2}
    assert shown["labels"]["ef"]["known"]["valid"] == 1
    assert shown["labels"]["wall"]["unit"] == "mm"


@pytest.mark.parametrize(
    ("where", "code"),
    [("simulated:hearts=3", ExitCode.USAGE), ("/nowhere", ExitCode.NOT_FOUND)],
)
def test_what_is_no_data_set_is_said(
    where: str, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dataset", "show", where]) == code
    assert where in capsys.readouterr().err
