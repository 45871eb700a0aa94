"""The benchmarks of the models measure what they say, at their smallest."""

from __future__ import annotations

import pytest

from tests.benchmarks import decode, forward
from tests.running_node import REAL_CINE


def test_the_benchmark_of_decoding_compares_the_same_frames() -> None:
    rows = decode.rows(REAL_CINE, number=1)

    assert [row.wanted for row in rows] == [">= 20x", "", ""]
    assert all(figure > 0 for row in rows for figure in (*row.ours, *row.theirs))


def test_arithmetic_is_two_operations_a_product() -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3)(inputs)  # 6 x 6 places
    inner = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(x)))
    network = keras.Model(inputs, inner(inputs))

    assert forward.arithmetic(network) == 2 * (6 * 6 * 3 * 3 * 4 + 6 * 6 * 4 * 5)
