"""The part of the machine's cores that a worker takes, set before TensorFlow first runs."""

from __future__ import annotations

import contextlib
import os

from models.threads import MOST_LANES, use_lanes

NO_REWRITING = (
    "arithmetic_optimization",
    "common_subgraph_elimination",
    "constant_folding",
    "dependency_optimization",
    "implementation_selector",
    "layout_optimizer",
    "loop_optimization",
    "shape_optimization",
)
"""What TensorFlow leaves undone of rewriting a graph; otherwise it does all of these."""


def share_cores(workers: int) -> None:
    """Take one of ``workers`` equal parts of the cores, for TensorFlow and our own threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // max(1, workers))
    lanes = min(threads, MOST_LANES)
    use_lanes(lanes)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads // lanes))
    import tensorflow as tf

    # Where TensorFlow has already run in this process, its threads stay as they are.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads // lanes)
        tf.config.threading.set_inter_op_parallelism_threads(lanes)
    # Of rewriting the graph, joining convolution, bias and activation is what makes a clip quicker.
    # The rest takes longer on a gradient's graph of thousands of steps than it ever gives back.
    tf.config.optimizer.set_experimental_options(dict.fromkeys(NO_REWRITING, False))
