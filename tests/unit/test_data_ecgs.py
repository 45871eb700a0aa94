"""Data sets of ECGs: simulated ones, records with codes, and a table of one's own."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from models.data.dataset import SPLITS, DatasetError
from models.data.ecgs import AGE, CodedEcgs, open_ecgs, truths_of_codes
from models.ecg.recording import LEADS
from models.ecg.simulator import EcgWanted, simulate_ecg
from models.ecg.simulator.dicom import to_bytes, to_dicom
from models.finding import Evidence
from models.tasks import ECG_TASKS

SIX = (
    "first_degree_av_block",
    "rbbb",
    "lbbb",
    "sinus_bradycardia",
    "atrial_fibrillation",
    "sinus_tachycardia",
)


# --- Simulated --------------------------------------------------------------------------------


def test_simulated_cases_are_a_function_of_the_words() -> None:
    words = "simulated-ecg:records=3,seed=7,rate_hz=250,duration_s=8"
    one, again = open_ecgs(words), open_ecgs(words)
    other = open_ecgs(words.replace("seed=7", "seed=8"))

    for case, same, another in zip(
        one.cases("held"), again.cases("held"), other.cases("held"), strict=True
    ):
        strip = case.ecg().rhythm
        assert strip.millivolts.shape == (12, 2000)
        assert np.array_equal(strip.millivolts, same.ecg().rhythm.millivolts)
        assert not np.array_equal(strip.millivolts, another.ecg().rhythm.millivolts)
        assert set(case.truths) <= set(ECG_TASKS)
        assert case.waves is not None
        assert len(case.waves) > 2
        assert tuple(case.waves)[:2] == case.waves[:2]
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert one.evidence is Evidence.SIMULATED


def test_no_two_splits_share_a_recording() -> None:
    data = open_ecgs("simulated-ecg:records=2,rate_hz=250")
    first = [data.cases(split)[0].ecg().rhythm.millivolts[:, :500].tobytes() for split in SPLITS]

    assert len(set(first)) == len(SPLITS)
    assert len(data.cases("train")) == 2


def test_noise_can_be_taken_away() -> None:
    case = open_ecgs("simulated-ecg:records=1,noise=0").cases("valid")[0]
    strip = case.ecg().rhythm

    assert case.waves is not None
    beat = case.waves[1]
    still = strip.millivolts[:, beat.qrs[0] - 3 : beat.qrs[0] - 1]
    assert np.abs(np.diff(still, axis=1)).max() < 0.02


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("simulated-ecg:clips=3", "no option 'clips'"),
        ("simulated-ecg:records=0", "at least 1"),
        ("simulated-ecg:noise=9", "from 0 to 5"),
        ("nowhere", "no data set of ECGs"),
    ],
)
def test_wrong_words_are_refused(words: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        open_ecgs(words)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DatasetError, match="no split 'test'"):
        open_ecgs("simulated-ecg").cases("test")


# --- Codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "collection", "yes", "unknown"),
    [
        (["426783006"], "Georgia", (), ()),
        (["164889003"], "Georgia", ("atrial_fibrillation",), ()),
        (["164889003", "59118001"], "PTB-XL", ("atrial_fibrillation", "rbbb"), ()),
        (["164890007"], "Georgia", (), ("atrial_fibrillation",)),
        (["164890007", "164889003"], "Georgia", ("atrial_fibrillation",), ()),
        (["713427006"], "", ("rbbb",), ()),
        (["713426002"], "", (), ()),
        (["164909002"], "", ("lbbb",), ()),
        (["733534002", "426177001"], "", ("lbbb", "sinus_bradycardia"), ()),
        (["6374002"], "", (), ("rbbb", "lbbb")),
        (["270492004", "427084000"], "", ("first_degree_av_block", "sinus_tachycardia"), ()),
        (["164947007"], "", (), ("first_degree_av_block",)),
        (["426783006"], "CPSC2018", (), ("sinus_bradycardia", "sinus_tachycardia")),
    ],
)
def test_codes_say_yes_no_or_nothing(
    codes: list[str], collection: str, yes: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    truths = truths_of_codes(codes, collection)

    assert {name for name, value in truths.items() if value == 1.0} == set(yes)
    assert set(SIX) - set(truths) == set(unknown)


def write_record(folder: Path, name: str, seed: int) -> None:
    """A WFDB record of twelve 16-bit signals in one file, as PhysioNet's header(5) says."""
    strip = simulate_ecg(EcgWanted(rate_hz=250.0), seed).ecg.rhythm
    samples = np.rint(strip.millivolts.T * 1000).astype("<i2")
    (folder / f"{name}.dat").write_bytes(samples.tobytes())
    lines = [f"{name} 12 250 {len(samples)}"]
    lines += [f"{name}.dat 16 1000/mV 16 0 {samples[0, at]} 0 0 {LEADS[at]}" for at in range(12)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir()
    rows = [
        ("R1", "Georgia", "71", "Male", "164889003"),
        ("R2", "Georgia", "NaN", "Female", "426783006"),
        ("R3", "CPSC2018", "50", "Unknown", "59118001"),
    ]
    for seed, row in enumerate(rows):
        write_record(folder, row[0], seed)
    with (folder / "index.tsv").open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(("record", "collection", "age", "sex", "snomed_dx"))
        writer.writerows(rows)
    return folder


def test_records_with_codes_are_patients_and_for_the_report_alone(coded: Path) -> None:
    data = open_ecgs(str(coded))
    first, second, third = data.cases("valid")

    assert isinstance(data, CodedEcgs)
    assert data.evidence is Evidence.PATIENTS
    assert not data.cases("train")
    assert not data.cases("held")
    assert (first.truths["atrial_fibrillation"], first.truths["sex"], first.truths[AGE]) == (
        1.0,
        1.0,
        71.0,
    )
    assert (second.truths["sex"], AGE in second.truths) == (0.0, False)
    assert "sex" not in third.truths
    assert "sinus_bradycardia" not in third.truths
    assert third.waves is None


def test_records_are_read_and_fingerprinted(coded: Path) -> None:
    pytest.importorskip("wfdb")
    data = open_ecgs(str(coded))
    strip = data.cases("valid")[1].ecg().rhythm
    drawn = simulate_ecg(EcgWanted(rate_hz=250.0), 1).ecg.rhythm
    before = data.fingerprint
    write_record(coded, "R2", 9)

    assert np.allclose(strip.millivolts, drawn.millivolts, atol=0.0006)
    assert open_ecgs(str(coded)).fingerprint != before


def test_a_record_that_is_not_there_is_told(coded: Path) -> None:
    (coded / "R2.hea").unlink()

    with pytest.raises(DatasetError, match=r"R2\.hea is not there"):
        open_ecgs(str(coded)).cases("valid")


def test_the_real_records_have_their_truths(shared_data: Path) -> None:
    folder = shared_data / "ecg12"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    data = open_ecgs(str(folder))
    cases = data.cases("valid")
    counts = {name: sum(case.truths.get(name) == 1.0 for case in cases) for name in SIX}

    assert len(cases) == 50
    assert counts["lbbb"] == 0
    assert counts["atrial_fibrillation"] == 8
    assert "50 real 12-lead ECGs" in data.title


# --- A table of one's own ---------------------------------------------------------------------


def listed(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    for seed in (1, 2):
        one = simulate_ecg(EcgWanted(), seed)
        (folder / f"{seed}.dcm").write_bytes(to_bytes(to_dicom(one, study_uid="1.2.3")))
    (folder / "ecgs.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_table_names_files_patients_splits_and_truths(tmp_path: Path) -> None:
    folder = listed(
        tmp_path / "own",
        "file,patient,split,atrial_fibrillation,pr_interval",
        "1.dcm,a,train,0,160",
        "2.dcm,,,1,",
    )
    data = open_ecgs(str(folder))
    (train,), (valid,) = data.cases("train"), data.cases("valid")

    assert (train.patient, dict(train.truths)) == (
        "a",
        {"atrial_fibrillation": 0.0, "pr_interval": 160.0},
    )
    assert (valid.patient, dict(valid.truths)) == ("2.dcm", {"atrial_fibrillation": 1.0})
    drawn = simulate_ecg(EcgWanted(), 1).ecg.rhythm
    assert np.allclose(train.ecg().rhythm.millivolts, drawn.millivolts, atol=0.003)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("name", "1.dcm"), "no column file"),
        (("file", "3.dcm"), r"3\.dcm is not there"),
        (("file", "../own/../../x.dcm"), "outside the folder"),
        (("file,split", "1.dcm,test"), "line 2: no split 'test'"),
        (("file,rbbb", "1.dcm,0.4"), "line 2: rbbb: give 0 or 1"),
        (("file,heart_rate", "1.dcm,fast"), "line 2: heart_rate: give 20 to 300"),
        (
            ("file,patient,split", "1.dcm,a,train", "2.dcm,a,valid"),
            "line 3: its patient is already in another split",
        ),
    ],
)
def test_a_wrong_table_is_refused_by_line(
    tmp_path: Path, lines: tuple[str, ...], says: str
) -> None:
    folder = listed(tmp_path / "own", *lines)

    with pytest.raises(DatasetError, match=says):
        open_ecgs(str(folder)).cases("valid")
