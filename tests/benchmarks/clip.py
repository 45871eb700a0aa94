"""A whole A4C clip, beside the same by plain Keras with a loop over noise samples, in turn.

    python -m tests.benchmarks.clip [--rounds 5]

The real cine of 30 frames: its view, what every pack says of it, and SmoothGrad of every output of
every pack. The peer has the same packs, frames, noise and measurements, but calls each network as
Keras gives it, and for each output and each noise sample takes a gradient of all frames anew, as
Keras's own examples do. That both say the same is checked. A third figure is all that a worker does
with such a clip, its picture drawn and compressed too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.clip import Clip, read_clip
from models.explain import smoothgrad
from models.explain.sector import sector_in_network
from models.explain.target import Explained, explained
from models.packs import Pack, PackKind, load_pack
from models.packs.loading import shipped_packs
from models.preprocess import fit_frames
from models.readers import RegressionReader, TracingReader
from models.readers.base import Reader
from models.views import ViewReader
from node import analysis
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row
from tests.running_node import REAL_CINE

_TITLE = "A whole clip"

Maps = dict[str, NDArray[np.float32]]

_APART = 0.02  # of the largest value of a map: kinks of ReLUs and pools fall either way


@dataclass(frozen=True)
class _Kind:
    """A way to read a clip: how a network is run, and how its outputs are explained."""

    packs: tuple[Pack, ...]
    smooth: Callable[[Explained, NDArray[np.float32], NDArray[np.bool_], int], NDArray[np.float32]]
    numbers: dict[str, Explained]

    def read(self, path: Path) -> tuple[dict[str, float], Maps]:
        """Every finding and every map of the clip in a file."""
        clip = read_clip(path)
        values: dict[str, float] = {}
        maps: Maps = {}
        for pack in self.packs:
            name = pack.manifest.name
            if pack.manifest.kind is PackKind.VIEW:
                values["view"] = float(self._reader(pack).read(clip).score)
                continue
            reading = self._reader(pack).read(clip)
            values |= {f"{name}, {one.output}": one.value for one in reading.findings}
            inputs, samples = self._explained_frames(pack, clip, reading)
            sector = sector_in_network(clip, pack.manifest.input)
            maps[name] = self.smooth(self.numbers[name], inputs, sector, samples)
        return values, maps

    def _explained_frames(
        self, pack: Pack, clip: Clip, reading: Any
    ) -> tuple[NDArray[np.float32], int]:
        """The frames that are explained, and the noisy copies of each."""
        if pack.manifest.kind is PackKind.TRACING:
            frames = sorted({one.frames[0] for one in reading.findings if one.frames})
            inputs, _ = fit_frames(clip.frames(frames), pack.manifest.input)
            return inputs, analysis._TRACING_SAMPLES
        inputs, _, _ = self._reader(pack).inputs(clip)
        return inputs, smoothgrad.SAMPLES

    def _reader(self, pack: Pack) -> Any:
        return self.__dict__.setdefault(f"_{pack.manifest.name}", _reader_of(pack))


def _reader_of(pack: Pack) -> Any:
    kinds = {
        PackKind.VIEW: ViewReader,
        PackKind.TRACING: TracingReader,
        PackKind.REGRESSION: RegressionReader,
    }
    return kinds[pack.manifest.kind](pack)


def outputs_of(numbers: Explained, pack: Pack) -> list[int]:
    """Every output of a pack, by its place among the targets."""
    names = [output.name for output in pack.manifest.outputs]
    return [place for place, target in enumerate(numbers.targets) if target.name in names]


def ours(packs: Sequence[Pack]) -> _Kind:
    """As a worker reads a clip."""
    numbers = {pack.manifest.name: explained(pack, settled=True) for pack in packs}
    by_numbers = {id(numbers[pack.manifest.name]): pack for pack in packs}

    def smooth(
        asked: Explained, inputs: NDArray[np.float32], sector: NDArray[np.bool_], samples: int
    ) -> NDArray[np.float32]:
        outputs = outputs_of(asked, by_numbers[id(asked)])
        return analysis._smooth(asked, inputs, outputs, sector, samples)

    return _Kind(tuple(packs), smooth, numbers)


def plain(packs: Sequence[Pack]) -> _Kind:
    """By Keras alone."""
    import tensorflow as tf

    numbers = {pack.manifest.name: explained(pack) for pack in packs}
    by_numbers = {id(numbers[pack.manifest.name]): pack for pack in packs}

    def smooth(
        asked: Explained, inputs: NDArray[np.float32], sector: NDArray[np.bool_], samples: int
    ) -> NDArray[np.float32]:
        outputs = outputs_of(asked, by_numbers[id(asked)])
        noise = smoothgrad._noise((samples, *inputs.shape[1:]), smoothgrad.SEED)
        noise *= np.float32(smoothgrad.SIGMA * float(np.ptp(inputs))) * sector[..., np.newaxis]
        maps = np.zeros((len(outputs), *inputs.shape[:3]), np.float32)
        for place, output in enumerate(outputs):
            for draw in noise:
                noisy = tf.constant(inputs + draw)
                with tf.GradientTape() as tape:
                    tape.watch(noisy)
                    number = tf.reduce_sum(asked(noisy)[:, output])
                maps[place] += np.abs(tape.gradient(number, noisy).numpy()[..., 0])
        return maps / samples

    kind = _Kind(tuple(packs), smooth, numbers)
    for pack in packs:
        reader: Reader | ViewReader = kind._reader(pack)
        reader.__dict__["_compiled"] = lambda batch, network=pack.network: network(
            batch, training=False
        ).numpy()
    return kind


def agree(one: _Kind, two: _Kind, path: Path) -> None:
    """Stop where the two do not say the same of a clip: then their times compare nothing."""
    (values, maps), (other_values, other_maps) = one.read(path), two.read(path)
    np.testing.assert_allclose(
        list(values.values()), [other_values[name] for name in values], rtol=1e-3, atol=1e-3
    )
    for name, found in maps.items():
        apart = np.abs(found - other_maps[name]).max(axis=(1, 2, 3))
        largest = other_maps[name].max(axis=(1, 2, 3))
        if (apart > _APART * largest).any():
            raise SystemExit(f"{name}: the maps are {(apart / largest).max():.3f} apart")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, by the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rows(packs: Sequence[Pack], path: Path, *, number: int) -> list[Row]:
    """The comparison, and the whole of a worker's way."""
    own_way, keras_way = ours(packs), plain(packs)
    agree(own_way, keras_way, path)
    own, other = rounds.alternate(
        partial(seconds, lambda: own_way.read(path)),
        partial(seconds, lambda: keras_way.read(path)),
        number,
    )
    outputs = sum(len(pack.manifest.outputs) for pack in packs)
    return [
        Row(
            what=f"A4C clip of {read_clip(path).frame_count} frames: view, {len(packs) - 1} packs, "
            f"explanations of {outputs} outputs",
            against="plain Keras, a loop over noise samples",
            wanted=">= 4x",
            ours=own,
            theirs=other,
        )
    ]


def work_of_a_worker(path: Path, *, number: int) -> Row:
    """What a worker takes for the clip, with the picture of what may be reported."""
    analysis.analyse(str(path))

    def whole() -> None:
        analysis.name_view(str(path))
        analysis.analyse(str(path))

    return Row(
        what=f"all that a worker does with an A4C clip of {read_clip(path).frame_count} frames, "
        "picture too",
        against="",
        wanted="",
        ours=tuple(seconds(whole) for _ in range(number)),
        theirs=(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    options = rounds.parser(__doc__).parse_args(arguments)
    analysis._share_cores(1)
    packs = [load_pack(folder) for folder in shipped_packs()]
    conditions = {
        "threads": f"{len(os.sched_getaffinity(0))}, for both",
        "packs": ", ".join(f"{one.manifest.name} {one.manifest.version}" for one in packs),
        "both": "packs loaded and warm; no picture is drawn in the comparison",
    }
    compared = rows(packs, REAL_CINE, number=options.rounds)
    rounds.keep("clip", _TITLE, compared, conditions=conditions, folder=options.folder)
    analysis.load_packs(shipped_packs())
    alone = work_of_a_worker(REAL_CINE, number=options.rounds)
    rounds.keep("clip", _TITLE, [alone], conditions=conditions, folder=options.folder)


if __name__ == "__main__":
    main()
