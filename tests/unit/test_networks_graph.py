"""Functions compiled for each pack are no function that is compiled again and again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.networks.graph import graph


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


def test_one_function_for_each_of_many_packs_draws_no_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    values = np.ones((2, 3), np.float32)
    with caplog.at_level(logging.WARNING):
        for factor in range(12):
            made = graph(_times(float(factor)), (2, 3))(tf.constant(values))
            assert (made.numpy() == factor).all()
        assert not [record for record in caplog.records if "retracing" in record.getMessage()]
        for factor in range(12):  # the warning that would have come
            tf.function(_times(float(factor)))(tf.constant(values))
    assert [record for record in caplog.records if "retracing" in record.getMessage()]


def test_a_graph_is_of_its_shape_alone() -> None:
    import tensorflow as tf

    run = graph(_times(2.0), (None, 3))
    assert run(tf.ones((5, 3))).shape == (5, 3)
    with pytest.raises(TypeError):
        run(tf.ones((5, 4)))
