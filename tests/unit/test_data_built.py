"""Training sets made from a hospital's own clips and a table of reported values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from models.clip import Clip, ClipError, read_clip
from models.data import sheet
from models.data.built import Candidate, Recipe, build_dataset, split_patients
from models.data.dataset import SPLITS, DatasetError, open_dataset
from models.data.labels import LabelTable, read_labels
from models.finding import Evidence
from models.packs import InputSpec
from models.preprocess import fit_frames
from models.views import View, ViewCall
from tests.ultrasound_files import as_file, fan_mask, region, speckle, ultrasound, with_regions

NAME, NUMBER, BORN, STUDIED = "Planted^Name", "PLNTD-771", "19410203", "20230405"
ROOT = "1.2.826.0.1.3680043.8.498.77"
A4C = ViewCall(view=View.A4C, score=0.9, certain=True)
WITHOUT_HURRY = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def _few_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all else: they are drawn only where a test looks at them."""
    if "nothing_in_the_folder" not in request.node.name:
        monkeypatch.setattr(sheet, "_draw_labels", lambda *_: None)
        monkeypatch.setattr(sheet, "_draw_clips", lambda *_: None)


def clip_file(patient: int, clip: int = 0, *, frames: int = 12, **changes: Any) -> bytes:
    """A cine of a moving fan, with the words that must not come through."""
    mask = fan_mask(120, 160)
    grey = np.where(mask, speckle((frames, 120, 160), 100 * patient + clip), np.uint8(0))
    made = ultrasound(
        grey.astype(np.uint8),
        SOPInstanceUID=f"{ROOT}.1.{patient}.{clip}",
        StudyInstanceUID=f"{ROOT}.{2 + clip}.{patient}",  # each visit is a study
        AccessionNumber=f"A-{NUMBER}-{patient}",
        PatientName=f"{NAME}{patient}",
        PatientID=f"{NUMBER}-{patient}",
        PatientBirthDate=BORN,
        StudyDate=STUDIED,
        Manufacturer="Philips Medical Systems",
        InstitutionName="Planted Hospital",
        FrameTime="50",
        **changes,
    )
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return as_file(with_regions(made, region()))


def hospital(folder: Path, patients: int = 6, clips: int = 1) -> list[Candidate]:
    folder.mkdir()
    for patient in range(patients):
        for clip in range(clips):
            path = folder / f"{NAME}-{patient}-{clip}.dcm"
            path.write_bytes(clip_file(patient, clip))
    return [Candidate(path=path, call=A4C) for path in sorted(folder.iterdir())]


def table(folder: Path, lines: Sequence[str] = (), patients: int = 6) -> LabelTable:
    made = lines or [
        "StudyInstanceUID,ef,height_m",
        *(f"{ROOT}.2.{patient},{50 + patient},1.{70 + patient}" for patient in range(patients)),
    ]
    path = folder / "labels.csv"
    path.write_text("\n".join(made) + "\n")
    return read_labels(path)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]


def test_a_clip_comes_back_as_a_reader_would_have_seen_it(tmp_path: Path) -> None:
    candidates = hospital(tmp_path / "in", 3)
    build_dataset(candidates, table(tmp_path), tmp_path / "out", Recipe(title="Ours"))
    data = open_dataset(str(tmp_path / "out"))
    assert data.title == "Ours"
    assert data.evidence is Evidence.PATIENTS
    cases = [case for split in SPLITS for case in data.cases(split)]
    assert len(cases) == 3
    spec = InputSpec(rows=60, columns=80, mean=0.2, std=0.2)
    for case in cases:
        number = int(case.truths["ef"]) - 50
        assert case.truths["height"] == pytest.approx(170 + number)
        assert case.view is View.A4C
        source = read_clip(candidates[number].path)
        kept = case.clip()
        wanted = source.time_axis.sample(100.0, 20)
        assert wanted == (0, 2, 4, 6, 8, 10)
        again = kept.time_axis.sample(100.0, 20)
        assert np.array_equal(
            fit_frames(kept.frames(again), spec)[0], fit_frames(source.frames(wanted), spec)[0]
        )
        assert kept.spacing == source.spacing
        assert kept.mode is source.mode
        assert np.array_equal(kept.sector.mask, source.sector.mask)


def test_a_short_clip_gives_five_frames_spread_over_it(tmp_path: Path) -> None:
    path = tmp_path / "short.dcm"
    path.write_bytes(clip_file(0, frames=6))
    build_dataset([Candidate(path=path, call=A4C)], table(tmp_path), tmp_path / "out", Recipe())
    (line,) = lines_of(tmp_path / "out")
    assert line["times_ms"] == [0.0, 50.0, 100.0, 200.0, 250.0]
    (case,) = open_dataset(str(tmp_path / "out")).cases("train")
    assert len(case.clip().time_axis.sample(100.0, 20)) == 5


def test_nothing_in_the_folder_tells_who_it_was(tmp_path: Path) -> None:
    candidates = hospital(tmp_path / "in")
    bad = tmp_path / "in" / f"{NAME}-broken.dcm"
    bad.write_bytes(b"nothing" * 40)
    odd = tmp_path / "in" / "odd.dcm"
    odd.write_bytes(clip_file(9, PhotometricInterpretation="PLNTDPLNTD"))
    lines = ["PatientID,AccessionNumber,ef", f"{NUMBER},A-{NUMBER}-0,{NAME}"]
    lines += [f"{NUMBER}-{n},A-{NUMBER}-{n},55" for n in range(1, 10)]
    told = build_dataset(
        [*candidates, Candidate(path=bad, call=A4C), Candidate(path=odd, call=A4C)],
        table(tmp_path, lines),
        tmp_path / "out",
        Recipe(),
    )
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {
        *("dataset.json", "cases.jsonl", "DATASHEET.md", "labels.png", "clips.png")
    }
    assert not [path for path in files if "building" in path.name or path.suffix == ".part"]
    names = "\n".join(str(path.relative_to(tmp_path)) for path in files).encode()
    planted = (NAME, "Planted", "PLNTDPLNTD", NUMBER, BORN, STUDIED, ROOT)
    for data in (names, *(path.read_bytes() for path in files)):
        for word in planted:
            assert word.encode() not in data
    # The terminal may name the file, and the sheet says which and why.
    assert [path for path, _ in told.unreadable] == [bad, odd]
    sheet = (tmp_path / "out" / "DATASHEET.md").read_text()
    assert "object 7: this is not a DICOM file" in sheet
    assert "object 8: the photometric interpretation … is not read" in sheet
    assert "line 2: ef is no number" in sheet
    assert "| 1 | its line of the table has no value |" in sheet


def test_a_patient_is_in_one_split_and_has_another_name_in_another_set(tmp_path: Path) -> None:
    candidates = hospital(tmp_path / "in", 5, clips=2)
    lines = ["AccessionNumber,ef", *(f"A-{NUMBER}-{n},{50 + n}" for n in range(5))]
    sets = []
    for name in ("one", "two"):
        build_dataset(candidates, table(tmp_path, lines), tmp_path / name, Recipe(seed=3))
        cases = lines_of(tmp_path / name)
        assert len(cases) == len({case["study"] for case in cases}) == 10
        assert len({(case["patient"], case["split"]) for case in cases}) == 5
        assert {case["split"] for case in cases} == set(SPLITS)
        sets.append(cases)
    names = [{case["patient"] for case in cases} for cases in sets]
    assert not names[0] & names[1]
    # And yet, with one seed, the same patients are in the same splits.
    splits = [{(case["truths"]["ef"], case["split"]) for case in cases} for cases in sets]
    assert splits[0] == splits[1]


@WITHOUT_HURRY
@given(
    st.lists(st.integers(0, 99), max_size=30),
    st.tuples(*[st.integers(0, 10)] * 3).filter(lambda shares: sum(shares) > 0),
)
def test_each_patient_is_in_one_split_and_the_shares_hold(
    numbers: list[int], shares: tuple[int, int, int]
) -> None:
    orders = {str(place): f"{number:02d}" for place, number in enumerate(numbers)}
    splits = split_patients(orders, shares)
    assert splits.keys() == orders.keys()
    total = sum(shares)
    used = sum(share > 0 for share in shares)
    for split, share in zip(SPLITS, shares, strict=True):
        count = sum(one == split for one in splits.values())
        if share == 0:
            assert count == 0
        elif len(orders) >= used:
            assert count >= 1
            assert abs(count - share / total * len(orders)) <= 3
    ranks = [SPLITS.index(splits[name]) for name in sorted(orders, key=lambda n: (orders[n], n))]
    assert ranks == sorted(ranks)


@WITHOUT_HURRY
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12, unique=True))
def test_all_clips_of_a_patient_go_together(clips: list[tuple[int, int]]) -> None:
    orders = {str(patient): str(patient % 3) for patient, _ in clips}
    splits = split_patients(orders, (0.5, 0.25, 0.25))
    seen = {split: {p for p, _ in clips if splits[str(p)] == split} for split in SPLITS}
    assert sum(map(len, seen.values())) == len({patient for patient, _ in clips})


def test_what_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    candidates = hospital(tmp_path / "in")
    labels, out = table(tmp_path), tmp_path / "out"

    def stop(count: int) -> None:
        if count == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_dataset(candidates, labels, out, Recipe(), progress=stop)
    with pytest.raises(DatasetError, match="no data set"):
        open_dataset(str(out))
    made = {path: path.stat().st_mtime_ns for path in (out / "frames").iterdir()}
    assert len(made) == 4
    with (out / "building.jsonl").open("a") as journal:
        journal.write('{"case": "cut sho')  # as a kill in mid-line leaves it
    with pytest.raises(DatasetError, match="other options"):
        build_dataset(candidates, labels, out, Recipe(seed=9))
    built = build_dataset(candidates, labels, out, Recipe())
    assert sum(split["clips"] for split in built.description["splits"].values()) == 6
    assert {path: path.stat().st_mtime_ns for path in made} == made
    with pytest.raises(DatasetError, match="there already"):
        build_dataset(candidates, labels, out, Recipe())


def test_a_kill_at_the_very_end_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates, labels, out = hospital(tmp_path / "in", 1), table(tmp_path), tmp_path / "out"
    unlink = Path.unlink

    def last_gasp(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == "building.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", last_gasp)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(candidates, labels, out, Recipe())
    with pytest.raises(DatasetError, match="there already"):
        build_dataset(candidates, labels, out, Recipe())
    assert len(open_dataset(str(out)).cases("train")) == 1


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="not empty"):
        build_dataset(hospital(tmp_path / "in", 1), table(tmp_path), out, Recipe())
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_without_a_clip_there_is_no_data_set_and_the_reasons_are_told(tmp_path: Path) -> None:
    candidates = hospital(tmp_path / "in", 2)
    labels = table(tmp_path, ["StudyInstanceUID,ef", "1.2.3,50"])
    with pytest.raises(DatasetError, match=r"no clip is left.*2: no line of the table"):
        build_dataset(candidates, labels, tmp_path / "out", Recipe())
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path) -> None:
    candidates = hospital(tmp_path / "in", 1)
    folder = tmp_path / "in"
    others = {
        "uncertain": (clip_file(1), ViewCall(view=View.A4C, score=0.4, certain=False)),
        "view": (clip_file(2), ViewCall(view=View.A2C, score=1.0, certain=True)),
        "still": (clip_file(3, frames=1), A4C),
        "again": (clip_file(0), A4C),
        "own": (clip_file(4, SeriesDescription="made here"), A4C),
        "doppler": (clip_file(5, ImageType=["ORIGINAL", "PRIMARY", "TTE", "0008"]), A4C),
    }
    for name, (data, call) in others.items():
        (folder / name).write_bytes(data)
        candidates.append(Candidate(path=folder / name, call=call))

    def refuse(header: Dataset) -> str | None:
        return "made here" if header.get("SeriesDescription") == "made here" else None

    built = build_dataset(candidates, table(tmp_path), tmp_path / "out", Recipe(), refuse=refuse)
    assert built.description["left_out"] == {
        "its view is uncertain": 1,
        "its view is a2c": 1,
        "it is a still": 1,
        "it has the SOP Instance UID of another": 1,
        "made here": 1,
        "its mode is pw": 1,
    }
    assert built.description["splits"]["train"]["clips"] == 1


def test_the_view_is_that_of_the_table_before_that_of_a_network(tmp_path: Path) -> None:
    candidates = [Candidate(path=one.path) for one in hospital(tmp_path / "in", 2)]
    lines = ["SOPInstanceUID,ef,view", f"{ROOT}.1.0.0,50,a4c", f"{ROOT}.1.1.0,60,"]
    asked: list[str] = []

    def name_view(clip: Clip) -> ViewCall:
        asked.append(clip.sop_instance_uid)
        return ViewCall(view=View.PSLA, score=0.99, certain=True)

    build_dataset(
        candidates, table(tmp_path, lines), tmp_path / "out", Recipe(), name_view=name_view
    )
    assert asked == [f"{ROOT}.1.1.0"]
    assert [line["truths"] for line in lines_of(tmp_path / "out")] == [{"ef": 50.0}]


def test_frames_that_were_changed_are_not_read(tmp_path: Path) -> None:
    build_dataset(hospital(tmp_path / "in", 1), table(tmp_path), tmp_path / "out", Recipe())
    (frames,) = (tmp_path / "out" / "frames").iterdir()
    (case,) = open_dataset(str(tmp_path / "out")).cases("train")
    frames.write_bytes(frames.read_bytes() + b"x")
    with pytest.raises(ClipError, match="not the frames"):
        case.clip()
    with (tmp_path / "out" / "cases.jsonl").open("a") as lines:
        lines.write("{}\n")
    with pytest.raises(DatasetError, match="not the one that was made"):
        open_dataset(str(tmp_path / "out")).cases("train")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["ef", "50"], "no key"),
        (["StudyInstanceUID,name", "1.2,x"], "no labels"),
        (["StudyInstanceUID,edv,edv_l", "1.2,90,0.09"], "two columns are 'edv'"),
        (["StudyInstanceUID,ef", '1.2,"50'], "line 2"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(DatasetError, match=said):
        table(tmp_path, lines)


def test_wrong_lines_are_told_by_number_and_never_by_what_stands_there(tmp_path: Path) -> None:
    lines = [
        "StudyInstanceUID,ef,ra_length_mm,lead,sex,comment",
        f"1.1,{NAME},45,yes,F,x",
        "1.2,150,,no,m,x",
        "1.3,55,4.5,maybe,,x",
        "1.1,60,45,1,f,x",
        ",60,45,1,f,x",
        "1.4,60,45",
        "",
        "1.5,NA,45,0,,x",
    ]
    read = table(tmp_path, lines)
    assert dict(read.rows["1.1"].values) == {"ra_length": 4.5, "lead": 1.0, "sex": 0.0}
    assert dict(read.rows["1.2"].values) == {"lead": 0.0, "sex": 1.0}
    assert dict(read.rows["1.3"].values) == {"ef": 55.0}
    assert dict(read.rows["1.5"].values) == {"ra_length": 4.5, "lead": 0.0}
    told = [problem.split(":")[0] for problem in read.problems]
    assert told == ["line 2", "line 3", "line 4", "line 4", "line 5", "line 6", "line 7"]
    assert "another unit?" in " ".join(read.problems)
    assert NAME not in " ".join(read.problems)
    assert read.ignored == ("comment",)


def test_columns_can_be_renamed_and_units_named_with_semicolons_and_decimal_commas(
    tmp_path: Path,
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffStudie;LVEF (%);Gr\u00f6\u00dfe\n1.2;55,5;1,8\n", encoding="utf-8")
    renamed = {"Studie": "StudyInstanceUID", "LVEF (%)": "ef", "Gr\u00f6\u00dfe": "height_m"}
    read = read_labels(path, renamed)
    assert dict(read.rows["1.2"].values) == {"ef": 55.5, "height": 180.0}
    with pytest.raises(DatasetError, match="no column 'EF'"):
        read_labels(path, {"EF": "ef"})
    with pytest.raises(DatasetError, match="'strain' is no output"):
        read_labels(path, {**renamed, "LVEF (%)": "strain"})
