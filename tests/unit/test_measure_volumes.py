"""Discs over a tracing give the volume that geometry says, or a reason why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from models import measure
from models.measure import ATRIUM, CAVITY, MYOCARDIUM, MeasureError, measure_ventricle


def ventricle(
    *,
    length_mm: float = 80.0,
    radius_mm: float = 22.0,
    row_mm: float = 0.5,
    column_mm: float = 0.5,
    angle_degrees: float = 0.0,
    atrium: bool = True,
    shape: tuple[int, int] = (300, 260),
) -> np.ndarray:
    """Labels of half a prolate ellipsoid, apex up, its base in the middle of the frame."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    up = (0.55 * shape[0] - row) * row_mm
    aside = (column - shape[1] / 2) * column_mm
    turn = np.deg2rad(angle_degrees)
    along = up * np.cos(turn) + aside * np.sin(turn)
    across = aside * np.cos(turn) - up * np.sin(turn)
    labels = np.zeros(shape, np.uint8)
    wall = 9.0
    outer = (along / (length_mm + wall)) ** 2 + (across / (radius_mm + wall)) ** 2 < 1
    labels[outer & (along > 0)] = MYOCARDIUM
    inner = (along / length_mm) ** 2 + (across / radius_mm) ** 2 < 1
    labels[inner & (along > 0)] = CAVITY
    if atrium:
        below = ((along + 18) / 18) ** 2 + (across / radius_mm) ** 2 < 1
        labels[
            (below | ((along > -18) & (np.abs(across) < radius_mm))) & (along <= 0) & (along > -36)
        ] = ATRIUM
    return labels


def ellipsoid_ml(length_mm: float, radius_mm: float) -> float:
    return 2 / 3 * np.pi * radius_mm**2 * length_mm / 1000


@pytest.mark.parametrize("angle_degrees", [-25.0, 0.0, 12.0, 30.0])
@pytest.mark.parametrize("atrium", [True, False])
def test_half_an_ellipsoid_has_its_volume_at_any_tilt(angle_degrees: float, atrium: bool) -> None:
    labels = ventricle(angle_degrees=angle_degrees, atrium=atrium)
    found = measure_ventricle(labels, 0.5, 0.5)
    assert found.volume_ml == pytest.approx(ellipsoid_ml(80, 22), rel=0.03)
    assert found.length_mm == pytest.approx(80, abs=1.5)
    assert len(found.diameters_mm) == 20


def test_pixels_that_are_not_square_change_nothing() -> None:
    labels = ventricle(row_mm=0.4, column_mm=0.7, angle_degrees=15, shape=(380, 200))
    found = measure_ventricle(labels, 0.4, 0.7)
    assert found.volume_ml == pytest.approx(ellipsoid_ml(80, 22), rel=0.04)


def test_apex_and_base_lie_where_they_are_seen() -> None:
    found = measure_ventricle(ventricle(), 0.5, 0.5)
    assert found.base == pytest.approx((164, 130), abs=2.0)
    assert found.apex == pytest.approx((165 - 160, 130), abs=3.0)


def test_twice_the_pixel_is_eight_times_the_volume() -> None:
    labels = ventricle()
    one = measure_ventricle(labels, 0.5, 0.5).volume_ml
    assert measure_ventricle(labels, 1.0, 1.0).volume_ml == pytest.approx(8 * one)


def test_crumbs_and_holes_in_a_tracing_do_not_matter() -> None:
    labels = ventricle()
    whole = measure_ventricle(labels, 0.5, 0.5).volume_ml
    labels[100:104, 125:130] = 0
    labels[280:285, 10:15] = CAVITY
    assert measure_ventricle(labels, 0.5, 0.5).volume_ml == pytest.approx(whole, rel=0.01)


def _nothing() -> np.ndarray:
    return np.zeros((200, 200), np.uint8)


def _pieces() -> np.ndarray:
    labels = ventricle()
    labels[70:100] = 0
    return labels


def _cut() -> np.ndarray:
    return ventricle()[:, 105:]


def _star() -> np.ndarray:
    row, column = np.mgrid[-100:100, -100:100]
    angle = np.arctan2(row, column)
    return np.where(np.hypot(row, column) < 60 + 35 * np.cos(5 * angle), 1, 0).astype(np.uint8)


def _alone() -> np.ndarray:
    """A cavity wrapped in myocardium all round has no annulus."""
    row, column = np.mgrid[-100:100, -100:100]
    distance = np.hypot(row / 1.5, column)
    return np.select([distance < 30, distance < 45], [CAVITY, MYOCARDIUM], 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (_nothing(), "no left-ventricular cavity"),
        (_pieces(), "in pieces"),
        (_cut(), "cut by the edge"),
        (_star(), "ragged"),
        (_alone(), "mitral annulus"),
        (ventricle(length_mm=20, radius_mm=28), "shape of a ventricle"),
    ],
)
def test_an_implausible_tracing_is_refused_with_the_reason(labels: np.ndarray, reason: str) -> None:
    with pytest.raises(MeasureError, match=reason):
        measure_ventricle(labels, 0.5, 0.5)


def test_the_atrium_has_the_area_of_its_pixels() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[10:50, 20:60] = ATRIUM
    labels[90:92, 90:92] = ATRIUM
    assert measure.atrium_area_cm2(labels, 0.5, 1.0) == pytest.approx(40 * 40 * 0.5 / 100)
    assert measure.atrium_area_cm2(_nothing(), 0.5, 1.0) == 0.0


def test_what_lies_beside_a_mask_is_within_two_pixels_by_the_distance_too() -> None:
    rng = np.random.default_rng(4)
    points = np.argwhere(np.ones((12, 15), bool))
    for share in (0.0, 0.02, 0.2, 1.0):
        mask = rng.random((12, 15)) < share
        near = measure._beside(points, mask).reshape(mask.shape)
        expected = ndimage.distance_transform_edt(~mask) <= 2.0 if mask.any() else mask
        np.testing.assert_array_equal(near, expected)


def test_a_chamber_is_measured_alike_wherever_it_stands_in_the_frame() -> None:
    labels = np.zeros((90, 80), np.uint8)
    labels[20:50, 30:50] = ATRIUM
    labels[15:20, 30:50] = CAVITY
    wide = np.pad(labels, ((40, 3), (7, 60)))
    assert measure.measure_atrium(wide, 1, 1).volume_ml == pytest.approx(
        measure.measure_atrium(labels, 1, 1).volume_ml, rel=1e-9
    )
    with pytest.raises(MeasureError, match="cut by the edge"):
        measure.measure_atrium(labels[:, 35:], 1, 1)


def test_the_discs_agree_with_the_volumes_of_the_real_tracings(shared_data: Path) -> None:
    from models.data.camus import read_camus

    apart, fractions, areas = [], [], []
    for patient in read_camus(shared_data / "camus_a4c", "valid"):
        ed, es = (
            measure_ventricle(frame.labels, frame.row_mm, frame.column_mm).volume_ml
            for frame in (patient.ed, patient.es)
        )
        apart += [abs(ed - patient.edv_ml), abs(es - patient.esv_ml)]
        fractions.append(abs(100 * (ed - es) / ed - patient.ef_percent))
        areas.append(
            max(
                measure.atrium_area_cm2(frame.labels, frame.row_mm, frame.column_mm)
                for frame in (patient.ed, patient.es)
            )
            - patient.la_area_cm2
        )
    assert np.mean(apart) < 0.5
    assert np.mean(fractions) < 0.5
    assert np.max(np.abs(areas)) < 0.5
