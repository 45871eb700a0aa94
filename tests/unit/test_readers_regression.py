"""How frames' numbers become a clip's value."""

from __future__ import annotations

import numpy as np
import pytest

from models.packs import Join
from models.readers.regression import joined

_VOLUMES = np.array([100.0, 70.0, 40.0, 60.0, 102.0, 66.0, 42.0, 58.0, 90.0, 80.0])


@pytest.mark.parametrize(
    ("join", "value", "first"),
    [
        (Join.MEAN, 70.8, 1),
        (Join.HIGHEST, 102.0, 4),
        (Join.LOWEST, 40.0, 2),
        (Join.EJECTION, 100 * (1 - 40 / 102), 4),
    ],
)
def test_ten_frames_have_one_highest_and_one_lowest(join: Join, value: float, first: int) -> None:
    found, order = joined(_VOLUMES, join)
    assert found == pytest.approx(value)
    assert order[0] == first


def test_of_twenty_frames_two_are_the_highest_and_two_the_lowest() -> None:
    found, order = joined(np.tile(_VOLUMES, 2), Join.EJECTION)
    assert found == pytest.approx(100 * (1 - 40 / 102))
    assert set(order.tolist()) == {4, 14, 2, 12}
    assert {int(order[0]) % 10, int(order[1]) % 10} == {4, 2}, "one end of the beat, then the other"


def test_two_frames_are_a_beat_and_one_is_none() -> None:
    assert joined(np.array([100.0, 45.0]), Join.EJECTION)[0] == pytest.approx(55.0)
    assert joined(np.array([45.0, 100.0]), Join.EJECTION)[0] == pytest.approx(55.0)
    assert joined(np.array([45.0]), Join.EJECTION)[0] == 0.0


@pytest.mark.parametrize("scale", [0.001, 1.0, 40.0])
def test_a_fraction_needs_no_scale(scale: float) -> None:
    assert joined(_VOLUMES * scale, Join.EJECTION)[0] == pytest.approx(100 * (1 - 40 / 102))
