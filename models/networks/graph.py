"""A TensorFlow function as one compiled graph of fixed shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any


def graph(function: Callable[..., Any], *shapes: Sequence[int | None]) -> Callable[..., Any]:
    """Compile a function of float32 tensors, one for each shape.

    TensorFlow counts how often it compiles a function, and warns of one that it compiles again and
    again. It tells functions apart by their code, which one function that is made anew for each
    pack shares; a ``partial`` has none, and so counts for itself.
    """
    import tensorflow as tf

    compiled: Callable[..., Any] = tf.function(
        partial(function),
        input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes],
        autograph=False,
    )
    return compiled
