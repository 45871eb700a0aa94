"""How near a pack's forward pass comes to what the machine's matrix product reaches, in turn.

    python -m tests.benchmarks.forward [--rounds 5]

For each shipped pack: the arithmetic of its convolutions and dense layers, two operations a
product, for each second of its forward pass as a reader runs it, a batch on each thread. Beside it,
in the same process with the same threads, the rate of float32 matrix products by TensorFlow, one on
each thread. What other runtimes of
the same packs gave is told in docs/benchmarks/forward.md.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from models.packs import Pack, PackKind, load_pack
from models.packs.loading import shipped_packs
from models.readers import RegressionReader, TracingReader
from models.threads import lanes, side_by_side
from models.views import FRAMES, ViewReader
from node.analysis.cores import share_cores
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row

SIDE = 3072
"""Of the square matrices: larger ones are no faster."""

_CALLS = 7  # of which a figure is the fastest


def arithmetic(network: Any) -> int:
    """Operations for one frame: two for each product of a convolution or a dense layer."""
    import keras

    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            total += arithmetic(layer)
        elif isinstance(layer, keras.layers.Conv2D):
            total += 2 * math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        elif isinstance(layer, keras.layers.Dense):
            total += 2 * math.prod(layer.kernel.shape)
    return total


def forward(pack: Pack) -> tuple[Callable[[], object], int]:
    """A call of the network as its reader makes it, and for how many frames."""
    spec = pack.manifest.frames
    if pack.manifest.kind is PackKind.VIEW:
        view, count = ViewReader(pack), FRAMES
        frames = np.random.default_rng(1).normal(size=(count, spec.rows, spec.columns, 1))
        return lambda: view._compiled(frames.astype(np.float32)), count
    reader = (
        TracingReader(pack) if pack.manifest.kind is PackKind.TRACING else RegressionReader(pack)
    )
    frames = np.random.default_rng(1).normal(size=(reader.batch, spec.rows, spec.columns, 1))
    inputs = frames.astype(np.float32)
    return lambda: reader.run(inputs), reader.batch


def rate(work: Callable[[], object], operations: int, calls: int = _CALLS) -> float:
    """GFLOP/s of the fastest of some calls, each on all threads at once."""
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        list(side_by_side(lambda _: work(), range(lanes())))
        taken.append(time.perf_counter() - start)
    return operations * lanes() / min(taken) / 1e9


def rows(packs: Sequence[Pack], *, number: int, side: int = SIDE) -> list[Row]:
    """A row for each pack, the one with the most arithmetic first."""
    import tensorflow as tf

    left, right = (tf.random.stateless_normal((side, side), (1, seed)) for seed in range(2))
    product = tf.function(tf.linalg.matmul)
    product(left, right)
    work = sorted(((arithmetic(pack.network), pack) for pack in packs), key=lambda pair: -pair[0])
    made = []
    for place, (operations, pack) in enumerate(work):
        call, count = forward(pack)
        call()
        own, other = rounds.alternate(
            partial(rate, call, operations * count),
            partial(rate, lambda: product(left, right).numpy(), 2 * side**3),
            number,
        )
        ms = statistics.median(operations / figure / 1e6 for figure in own)  # all threads together
        made.append(
            Row(
                what=f"forward pass of {pack.manifest.name} {pack.manifest.version}"
                + ("" if place else ", the largest pack"),
                against="float32 matrix product",
                wanted=">= 0.6x" if place == 0 else "",
                ours=own,
                theirs=other,
                unit="GFLOP/s",
                more_is_better=True,
                note=f"{operations / 1e9:.2f} GFLOP, {ms:.1f} ms a frame",
            )
        )
    return made


def _of_clips() -> list[Pack]:
    packs = [load_pack(folder) for folder in shipped_packs()]
    return [pack for pack in packs if pack.manifest.kind is not PackKind.WAVEFORM]


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    options = rounds.parser(__doc__).parse_args(arguments)
    share_cores(1)
    rounds.keep(
        "forward",
        "Forward passes",
        rows(_of_clips(), number=options.rounds),
        conditions={
            "threads": f"{len(os.sched_getaffinity(0))}, for both",
            "batch": "as readers call it: 10 frames; noise for pictures",
        },
        folder=options.folder,
    )


if __name__ == "__main__":
    main()
