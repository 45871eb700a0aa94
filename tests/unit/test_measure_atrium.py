"""Atrium and walls of a tracing have the sizes that geometry says, or a reason why not."""

from __future__ import annotations

import numpy as np
import pytest

from models.measure import (
    ATRIUM,
    CAVITY,
    MYOCARDIUM,
    MeasureError,
    measure_atrium,
    wall_thickness_mm,
)

_SHAPE = (300, 260)
_ANNULUS = 170  # the row where the ventricle ends and the atrium begins


def heart(
    *,
    roof_mm: float = 50.0,
    half_mm: float = 20.0,
    walls_mm: tuple[float, float] = (9.0, 12.0),
    side_mm: float = 0.5,
    tilt_degrees: float = 0.0,
) -> np.ndarray:
    """A cavity with straight walls, a blunt tip, and an atrium that is half an ellipse."""
    row, column = np.mgrid[: _SHAPE[0], : _SHAPE[1]]
    up = (_ANNULUS - row) * side_mm
    aside = (column - _SHAPE[1] / 2) * side_mm
    turn = np.deg2rad(tilt_degrees)
    along = up * np.cos(turn) + aside * np.sin(turn)
    across = aside * np.cos(turn) - up * np.sin(turn)
    labels = np.zeros(_SHAPE, np.uint8)
    body = (along > 0) & (along < 75)
    labels[body & (across > -18 - walls_mm[0]) & (across < 18 + walls_mm[1])] = MYOCARDIUM
    labels[body & (along < 66) & (np.abs(across) < 18)] = CAVITY
    labels[(along <= 0) & ((along / roof_mm) ** 2 + (across / half_mm) ** 2 < 1)] = ATRIUM
    return labels


@pytest.mark.parametrize("tilt_degrees", [0.0, 12.0])
def test_half_an_ellipse_has_its_area_length_and_volume(tilt_degrees: float) -> None:
    found = measure_atrium(heart(tilt_degrees=tilt_degrees), 0.5, 0.5)
    area_cm2 = np.pi * 50 * 20 / 2 / 100
    assert found.area_cm2 == pytest.approx(area_cm2, rel=0.02)
    assert found.length_mm == pytest.approx(50, abs=1.5)
    assert found.volume_ml == pytest.approx(8 / (3 * np.pi) * area_cm2**2 / 5.0, rel=0.05)


def test_twice_the_pixel_gives_eight_times_the_volume() -> None:
    labels = heart()
    small, large = (measure_atrium(labels, side, side).volume_ml for side in (0.5, 1.0))
    assert large == pytest.approx(8 * small, rel=1e-6)


@pytest.mark.parametrize("tilt_degrees", [0.0, -15.0])
def test_each_wall_is_as_thick_as_it_was_drawn(tilt_degrees: float) -> None:
    left, right = wall_thickness_mm(heart(tilt_degrees=tilt_degrees), 0.5, 0.5)
    assert left == pytest.approx(9.0, abs=0.7)
    assert right == pytest.approx(12.0, abs=0.7)


def test_no_atrium_says_so() -> None:
    labels = heart()
    labels[labels == ATRIUM] = 0
    with pytest.raises(MeasureError, match="no left atrium"):
        measure_atrium(labels, 0.5, 0.5)


def test_an_atrium_that_leaves_the_frame_is_not_measured() -> None:
    labels = heart()[:210]
    with pytest.raises(MeasureError, match="cut by the edge"):
        measure_atrium(labels, 0.5, 0.5)


def test_an_atrium_in_two_pieces_is_not_measured() -> None:
    labels = heart()
    labels[200:215] = 0
    with pytest.raises(MeasureError, match="in pieces"):
        measure_atrium(labels, 0.5, 0.5)


def test_an_atrium_far_from_any_ventricle_is_not_measured() -> None:
    labels = heart()
    labels[labels == CAVITY] = 0
    with pytest.raises(MeasureError, match="does not touch"):
        measure_atrium(labels, 0.5, 0.5)


def test_one_wall_alone_is_not_measured() -> None:
    labels = heart()
    labels[:, : _SHAPE[1] // 2][labels[:, : _SHAPE[1] // 2] == MYOCARDIUM] = 0
    with pytest.raises(MeasureError, match="one side only"):
        wall_thickness_mm(labels, 0.5, 0.5)
