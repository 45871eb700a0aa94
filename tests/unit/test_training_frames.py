"""What training sees: frames and tracings that move together, and hearts that beat as they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.camus import Patient, fit_labels, hold_out, read_camus
from models.data.cines import Heart, phase_at
from models.measure import measure_ventricle
from models.preprocess import fit_to
from models.training.augment import Geometry, move, restyle


@pytest.fixture(scope="module")
def patients(shared_data: Path) -> tuple[Patient, ...]:
    return read_camus(shared_data / "camus_a4c", "valid")


def test_no_patient_is_on_both_sides_of_a_split(patients: tuple[Patient, ...]) -> None:
    kept, held = hold_out(patients, 12, seed=3)
    assert len(held) == 12
    assert {one.name for one in kept} | {one.name for one in held} == {p.name for p in patients}
    assert not {one.name for one in kept} & {one.name for one in held}
    assert hold_out(patients, 12, seed=3)[1] == held


def test_a_tracing_lies_over_its_frame_in_the_networks_input(patients: tuple[Patient, ...]) -> None:
    from models.packs import InputSpec

    frame = patients[0].ed
    fit = fit_to(*frame.labels.shape, InputSpec(rows=160, columns=160))
    cover = fit_labels(frame.labels, fit)
    for index in (1, 2, 3):
        here = np.argwhere(cover[..., index - 1] > 127).mean(axis=0, keepdims=True)
        there = np.argwhere(frame.labels == index).mean(axis=0)
        assert np.allclose(fit.to_source(here)[0], there, atol=1.0)


def test_geometry_moves_every_channel_alike() -> None:
    image = np.zeros((3, 64, 64, 2), np.float32)
    image[:, 20:30, 35:50] = 1.0
    moved = move(image, Geometry(), np.random.default_rng(0))
    assert np.array_equal(moved[..., 0], moved[..., 1])
    assert not np.allclose(moved[0], moved[1], atol=0.1)
    assert np.array_equal(moved, move(image, Geometry(), np.random.default_rng(0)))


def test_no_geometry_leaves_the_frame_alone() -> None:
    still = Geometry(
        rotation_degrees=0.0, smallest=1.0, largest=1.0, stretch=0.0, shift=0.0, mirror=0.0
    )
    image = np.random.default_rng(1).random((2, 33, 40, 1)).astype(np.float32)
    assert np.allclose(move(image, still, np.random.default_rng(0)), image, atol=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_a_new_look_stays_in_range_and_black_stays_black(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.random((60, 60)).astype(np.float32)
    frame[:10] = 0.0
    styled = restyle(frame, rng)
    assert styled.min() >= 0.0
    assert styled.max() <= 1.0
    assert not styled[:10].any()
    assert not np.allclose(styled, frame)


def test_a_beat_contracts_fills_and_comes_back() -> None:
    share = np.linspace(0, 1, 101)
    phase = phase_at(share)
    assert phase[0] == phase[-1] == 0.0
    assert phase.max() == 1.0
    assert 0.3 <= share[int(np.argmax(phase))] <= 0.4
    assert np.allclose(phase_at(share[:-1] + 2.0), phase[:-1])


def test_a_made_cine_begins_and_ends_with_the_patients_own_volumes(
    patients: tuple[Patient, ...],
) -> None:
    for patient in patients[:4]:
        volumes = [
            measure_ventricle(frame.labels, frame.row_mm, frame.column_mm).volume_ml
            for frame in (Heart(patient).at(phase) for phase in (0.0, 0.3, 0.6, 1.0))
        ]
        assert volumes == sorted(volumes, reverse=True)
        assert volumes[0] == pytest.approx(patient.edv_ml, abs=1.5)
        assert volumes[-1] == pytest.approx(patient.esv_ml, abs=1.5)


def test_a_weaker_heart_has_a_lower_fraction(patients: tuple[Patient, ...]) -> None:
    fractions = []
    for strength in (0.5, 0.8, 1.0):
        edv, esv = Heart(patients[1], strength=strength).volumes_ml()
        fractions.append(1 - esv / edv)
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.7 * fractions[-1]


def test_a_made_frame_keeps_to_the_sector(patients: tuple[Patient, ...]) -> None:
    patient = patients[2]
    frame = Heart(patient, turn=1.5).at(0.8)
    far = np.zeros(frame.grey.shape, bool)
    far[:40, :100] = True  # beside the sector's tip
    assert not frame.grey[far].any()
    assert frame.grey.any()
