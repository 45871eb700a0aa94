"""Preprocessing is pinned: the same pixels in, the same numbers out, in every release."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.packs import InputSpec
from models.preprocess import VERSION, fit_frames, fit_grey, fit_to

_SPEC = InputSpec(rows=48, columns=64, mean=0.2, std=0.2)
_LETTERBOXED = "66fc970cb4ec8b9ad8d8ea8a52f932be031bf1e60e3bf4396aa24bcac8ec5791"
_STRETCHED = "a5c952e986594028f2bce275a8ec116362d796417e52947c38b3396ff7325602"
_MIDDLE = [125, 128, 124, 127, 127, 128]
_SIDES = st.integers(min_value=1, max_value=900)


def _picture(rows: int, columns: int) -> np.ndarray:
    row, column = np.mgrid[:rows, :columns]
    return ((row * 7 + column * 13 + (row * column) // 5) % 256).astype(np.uint8)[np.newaxis]


def test_version_one_gives_these_very_pixels() -> None:
    """A change of any pixel needs a new VERSION, since packs were trained with this one."""
    assert VERSION == 1
    grey, _ = fit_grey(_picture(317, 384), _SPEC)
    stretched, _ = fit_grey(_picture(100, 33), _SPEC.model_copy(update={"letterbox": False}))
    assert hashlib.sha256(grey.tobytes()).hexdigest() == _LETTERBOXED
    assert hashlib.sha256(stretched.tobytes()).hexdigest() == _STRETCHED
    assert grey[0, 24, 20:26].tolist() == _MIDDLE


_ODD = InputSpec(rows=61, columns=83, mean=0.2, std=0.2)
_SQUARE = InputSpec(rows=112, columns=112, mean=0.13, std=0.19)
_STRETCH = _SPEC.model_copy(update={"letterbox": False})


@pytest.mark.parametrize(
    ("rows", "columns", "spec", "box", "digest"),
    [
        pytest.param(301, 203, _SPEC, (0, 16, 48, 32), "515cb1b1f254b108", id="odd"),
        pytest.param(600, 90, _SPEC, (0, 28, 48, 7), "05a2f2b05258c463", id="tall, odd padding"),
        pytest.param(33, 799, _SPEC, (22, 0, 3, 64), "6ad7a60cca779dd3", id="wide, odd padding"),
        pytest.param(3, 5, _SPEC, (5, 0, 38, 64), "2402823ef3d24f57", id="tiny"),
        pytest.param(1, 1, _SPEC, (0, 8, 48, 48), "542288a792c2de1c", id="one pixel"),
        pytest.param(48, 64, _SPEC, (0, 0, 48, 64), "556fee85016c43b0", id="as it is"),
        pytest.param(200, 150, _ODD, (0, 18, 61, 46), "2fdbbaf93a89a3e6", id="odd input"),
        pytest.param(
            317, 384, _SQUARE, (10, 0, 92, 112), "2d57ba449c9ef534", id="square, other mean"
        ),
        pytest.param(600, 90, _STRETCH, (0, 0, 48, 64), "4731488eab3bf927", id="tall, stretched"),
        pytest.param(3, 5, _STRETCH, (0, 0, 48, 64), "57bb3da983eb6c19", id="tiny, stretched"),
    ],
)
def test_version_one_gives_these_very_numbers_at_every_size(
    rows: int, columns: int, spec: InputSpec, box: tuple[int, int, int, int], digest: str
) -> None:
    """Place, padding and float32 numbers, for sizes at which roundings could go either way."""
    inputs, fit = fit_frames(_picture(rows, columns), spec)
    assert (fit.top, fit.left, fit.height, fit.width) == box
    assert hashlib.sha256(inputs.astype("<f4").tobytes()).hexdigest()[:16] == digest


def test_a_wide_frame_is_centred_on_black_with_its_shape_kept() -> None:
    inputs, fit = fit_frames(np.full((2, 30, 80), 255, np.uint8), _SPEC)
    assert inputs.shape == (2, 48, 64, 1)
    assert inputs.dtype == np.float32
    assert (fit.top, fit.left, fit.height, fit.width) == (12, 0, 24, 64)
    assert np.allclose(inputs[:, 12:36], (1.0 - 0.2) / 0.2)
    assert np.allclose(inputs[:, :12], -1.0)
    assert np.allclose(inputs[:, 36:], -1.0)


def test_without_letterbox_the_frame_fills_the_input() -> None:
    inputs, fit = fit_frames(
        np.full((1, 30, 80), 51, np.uint8), _SPEC.model_copy(update={"letterbox": False})
    )
    assert (fit.height, fit.width) == (48, 64)
    assert np.allclose(inputs, 0.0, atol=1e-6)


@given(_SIDES, _SIDES, st.booleans())
def test_points_come_back_to_where_they_were(rows: int, columns: int, letterbox: bool) -> None:
    fit = fit_to(rows, columns, _SPEC.model_copy(update={"letterbox": letterbox}))
    points = np.array([[0.0, 0.0], [rows - 1.0, columns - 1.0], [rows / 3, columns / 2]])
    assert np.allclose(fit.to_source(fit.to_network(points)), points)
    assert fit.top >= 0
    assert fit.top + fit.height <= fit.rows
    assert fit.left + fit.width <= fit.columns


def test_a_mark_in_the_input_is_mapped_to_its_place_in_the_sector() -> None:
    frame = np.zeros((1, 200, 300), np.uint8)
    frame[0, 80:100, 200:220] = 255
    inputs, fit = fit_frames(frame, _SPEC)
    back = fit.map_to_source(inputs[..., 0])
    assert back.shape == (1, 200, 300)
    bright = np.argwhere(back[0] > 1.0)
    assert np.allclose(bright.mean(axis=0), (89.5, 209.5), atol=1.0)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), np.float32), np.zeros((1, 0, 5), "u1")],
)
def test_what_is_no_grey_frame_is_a_mistake_of_the_caller(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="frame"):
        fit_grey(frames, _SPEC)
