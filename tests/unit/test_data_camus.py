"""CAMUS as a data set: what its tracings tell, and cines made from its patients.

The patients here are drawn, in a folder like that of CAMUS.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models import measure
from models.data import cines
from models.data.camus import CamusDataset, Patient, TracedFrame, traced_truths
from models.data.cines import LEAST_SHARE, Heart
from models.data.dataset import SPLITS, WALL, DatasetError, open_dataset

ROWS, COLUMNS, MM = 240, 300, 0.6


def drawn_tracing(half_width: float, wall: float, *, annulus: float = 150.0) -> NDArray[np.uint8]:
    """A ventricle, apex at row 40, with an atrium under it; sizes in pixels."""
    y, x = np.mgrid[:ROWS, :COLUMNS].astype(float)
    across = x - 150.0
    length = annulus - 40.0
    down = (annulus - y) / length
    outer = (annulus - y) / (length + wall)
    labels = np.zeros((ROWS, COLUMNS), np.uint8)
    labels[(outer >= 0) & (outer**2 + (across / (half_width + wall)) ** 2 <= 1)] = 2
    labels[(down >= 0) & (down**2 + (across / half_width) ** 2 <= 1)] = 1
    under = (y - annulus) / 60.0
    labels[(under > 0) & (under**2 + (across / half_width) ** 2 <= 1)] = 3
    return labels


def drawn_patient(name: str = "patient0001", *, wall: float = 18.0, es: float = 28.0) -> Patient:
    frames = []
    for number, (width, annulus) in enumerate(((40.0, 150.0), (es, 144.0))):
        labels = drawn_tracing(width, wall, annulus=annulus)
        rng = np.random.default_rng([len(name), number])
        level = np.array([90, 20, 150, 30])[labels]
        grey = np.clip(level * rng.uniform(0.5, 1.5, labels.shape), 1, 255).astype(np.uint8)
        y, x = np.mgrid[:ROWS, :COLUMNS]
        grey[np.abs(x - 150.0) > 0.75 * y + 5] = 0
        frames.append(TracedFrame(grey=grey, labels=labels, row_mm=MM, column_mm=MM))
    volumes = [measure.measure_ventricle(one.labels, MM, MM).volume_ml for one in frames]
    return Patient(
        name=name,
        split="train",
        ed=frames[0],
        es=frames[1],
        edv_ml=volumes[0],
        esv_ml=volumes[1],
        ef_percent=100 * (1 - volumes[1] / volumes[0]),
        la_area_cm2=measure.atrium_area_cm2(frames[1].labels, MM, MM),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty drawn patients for training, of which 48 are held out, and one for the end."""
    root = tmp_path_factory.mktemp("camus")
    index, volumes = ["patient\tphase\tsplit\tmm_per_px_y\tmm_per_px_x"], []
    patient = drawn_patient()
    for number in range(51):
        name, split = f"patient{number:04d}", "valid" if number == 50 else "train"
        for phase, frame in (("ED", patient.ed), ("ES", patient.es)):
            Image.fromarray(frame.grey).save(root / f"{name}_4CH_{phase}.png")
            Image.fromarray(frame.labels).save(root / f"{name}_4CH_{phase}_gt.png")
            index.append(f"{name}\t{phase}\t{split}\t{MM}\t{MM}")
        values = (patient.edv_ml, patient.esv_ml, patient.ef_percent, patient.la_area_cm2)
        volumes.append("\t".join([name, split, *(f"{value:.2f}" for value in values)]))
    (root / "index.tsv").write_text("\n".join(index) + "\n")
    head = "patient\tsplit\tedv_ml\tesv_ml\tef_percent\tla_area_max_cm2"
    (root / "volumes.tsv").write_text("\n".join([head, *volumes]) + "\n")
    return root


def test_a_thick_wall_on_the_tracing_is_the_sign_of_hypertrophy() -> None:
    for wall_mm in (8.0, 17.0):
        truths = traced_truths(drawn_patient(wall=wall_mm / MM))
        assert truths[WALL] == pytest.approx(wall_mm, rel=0.15)
        assert truths["lvh"] == float(wall_mm > 14)


def test_the_volume_of_an_atrium_that_the_edge_cuts_is_not_known() -> None:
    whole = drawn_patient()
    assert traced_truths(whole)["la_volume"] > 0
    cut = TracedFrame(
        grey=whole.es.grey[:180], labels=whole.es.labels[:180], row_mm=MM, column_mm=MM
    )
    assert "la_volume" not in traced_truths(
        Patient(**{**{k: getattr(whole, k) for k in Patient.__slots__}, "es": cut})
    )


def test_severe_dilation_has_no_truth_without_a_body_size(folder: Path) -> None:
    (case,) = CamusDataset(folder=folder).cases("valid")
    assert set(case.truths) == {"ef", "edv", "esv", "la_area", "la_volume", "lvh", WALL}


@pytest.mark.parametrize("kind", ["", ":cines,frames=5"])
def test_tracings_lie_in_sector_coordinates(folder: Path, kind: str) -> None:
    (case,) = open_dataset(f"{folder}{kind}").cases("valid")
    clip = case.clip()
    assert case.tracings is not None
    tracings = case.tracings()
    assert list(tracings) == list(range(clip.frame_count))
    frames = clip.frames()
    assert clip.sector.mask.shape != (ROWS, COLUMNS)  # else this would show nothing
    for index, labels in tracings.items():
        assert labels.shape == clip.sector.mask.shape
        assert frames[index][labels == 1].mean() < 40 < 100 < frames[index][labels == 2].mean()


def test_a_cine_tells_the_volumes_of_its_own_frames(folder: Path) -> None:
    words = "frames=22,heart_rate=70,strength=0.7"
    (case,) = open_dataset(f"{folder}:cines,{words}").cases("valid")
    clip = case.clip()
    assert clip.heart_rate_bpm == 70
    assert clip.time_axis.frame_time_ms == 40
    assert case.tracings is not None
    volumes = [
        measure.measure_ventricle(labels, MM, MM).volume_ml for labels in case.tracings().values()
    ]
    assert max(volumes) == pytest.approx(case.truths["edv"], rel=0.02)
    assert min(volumes) == pytest.approx(case.truths["esv"], rel=0.03)


def test_a_weaker_heart_ejects_less_and_the_wall_stays_as_thick() -> None:
    patient = drawn_patient()
    fractions = []
    for strength in (0.5, 1.0, 1.2):
        edv, esv = Heart(patient, strength=strength, turn=1.5).volumes_ml()
        fractions.append(100 * (1 - esv / edv))
        assert edv == pytest.approx(patient.edv_ml)
    assert fractions == sorted(fractions)
    assert fractions[1] == pytest.approx(patient.ef_percent, abs=4)
    assert fractions[0] < 0.7 * fractions[1]


def test_contradicting_points_are_smoothed_until_nothing_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = drawn_patient()
    told = cines._marks(patient.ed, patient.es)
    es = told.es.copy()
    es[3] += (40.0, 60.0)  # one mark leaps past its neighbours
    es[9] -= (40.0, 60.0)
    torn = cines._Marks(ed=told.ed, es=es, edge=told.edge)
    monkeypatch.setattr(cines, "_marks", lambda *_: torn)
    heart = Heart(patient, turn=1.5)
    source = heart._sources[0]
    target = heart._target(1.0)
    loose, used = (
        cines._least_share(source, cines._moves(source, torn, torn.ed, target, smoothing))
        for smoothing in (0.1, heart._smoothing[0])
    )
    assert loose < 0 < LEAST_SHARE <= used


def test_all_copies_of_a_patient_stay_in_one_split(folder: Path) -> None:
    data = open_dataset(f"{folder}:cines,copies=2,strength=0.6..1.2")
    seen = {split: {case.patient for case in data.cases(split)} for split in SPLITS}
    assert [len(seen[split]) for split in SPLITS] == [2, 48, 1]
    assert len(set.union(*seen.values())) == 51
    one, other = data.cases("valid")
    assert one.patient == other.patient
    assert one.name != other.name
    assert one.truths["ef"] != other.truths["ef"]
    again = open_dataset(f"{folder}:cines,copies=2,strength=0.6..1.2").cases("valid")
    assert [dict(case.truths) for case in again] == [dict(one.truths), dict(other.truths)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (":cines,strength=1.2..0.6", "the lower number first"),
        (":cines,strength=nan", "a number from 0 to 2"),
        (":cines,source=es", "ed or both"),
        (":cines=3", "after a comma"),
        (":cines,length=3", "no option 'length'"),
    ],
)
def test_wrong_options_are_named(folder: Path, words: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        open_dataset(f"{folder}{words}")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    for words in (str(tmp_path), f"{tmp_path}:cines", ":cines"):
        with pytest.raises(DatasetError, match="no data set"):
            open_dataset(words)
