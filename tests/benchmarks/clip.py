"""A whole A4C clip, beside the same by plain Keras with a loop over noise samples, in turn.

    python -m tests.benchmarks.clip [--rounds 5] [--frames 30] [--compiled]

The real cine of 30 frames, or its frames over and over: its view, what every pack says of it, and
SmoothGrad of every output of every pack. The peer has the same packs, frames, noise and
measurements, but calls each network as Keras gives it, and for each noise sample takes all frames
through it anew on a tape, and each output's gradient from that, as Keras's own examples do. That
both say the same is checked in each round. Either has a process of its own, since TensorFlow's
threads are set once in each: ours as a worker does that has the machine to itself, the peer's as
TensorFlow sets them by itself. A figure without a peer is all that a worker does with such a clip,
its picture drawn and compressed too. A peer whose calls and gradients are compiled (`--compiled`)
is what somebody comes to who knows `tf.function`.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames

from models.clip import Clip, read_clip
from models.explain import smoothgrad
from models.explain.sector import sector_in_network
from models.explain.target import Explained, explained
from models.packs import Pack, PackKind, load_pack
from models.packs.loading import shipped_packs
from models.preprocess import fit_frames
from models.readers import RegressionReader, TracingReader
from models.views import ViewReader
from node import analysis
from node.analysis import clips
from node.analysis.cores import share_cores
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row
from tests.running_node import REAL_CINE, variant

_TITLE = "A whole clip"

Maps = dict[str, NDArray[np.float32]]
Said = tuple[dict[str, float], Maps]
Smooth = Callable[
    [Pack, Explained, NDArray[np.float32], Sequence[int], NDArray[np.bool_], int],
    NDArray[np.float32],
]

VALUES_APART = 1e-3
"""Of a value. Logits of both differ by some 1e-5, and so do numbers of a regression; but where two
classes are as likely, a tracing's pixel falls either way, and one pixel of a chamber's thousands is
so much of its volume."""

MAPS_APART = 0.02
"""Of a map's largest value. A gradient jumps where an input of a ReLU passes zero and where the
largest of a pool changes: such a kink within 1e-5 of a noisy copy falls either way."""


@dataclass(frozen=True)
class Way:
    """A way to read a clip: how networks are run, and how their outputs are explained."""

    packs: tuple[Pack, ...]
    readers: dict[str, Any]
    numbers: dict[str, Explained]
    smooth: Smooth

    def read(self, path: Path, *, samples: int | None = None) -> Said:
        """Every finding and every map of the clip in a file; other ``samples`` only to warm up."""
        clip = read_clip(path)
        values: dict[str, float] = {}
        maps: Maps = {}
        for pack in self.packs:
            name = pack.manifest.name
            if pack.manifest.kind is PackKind.VIEW:
                values["view"] = float(self.readers[name].read(clip).score)
                continue
            reading = self.readers[name].read(clip)
            values |= {f"{name}, {one.output}": one.value for one in reading.findings}
            inputs, usual = self._explained_frames(pack, clip, reading)
            sector = sector_in_network(clip, pack.manifest.frames)
            outputs = outputs_of(self.numbers[name], pack)
            maps[name] = self.smooth(
                pack, self.numbers[name], inputs, outputs, sector, samples or usual
            )
        return values, maps

    def _explained_frames(
        self, pack: Pack, clip: Clip, reading: Any
    ) -> tuple[NDArray[np.float32], int]:
        """The frames that are explained, and the noisy copies of each."""
        if pack.manifest.kind is PackKind.TRACING:
            frames = sorted({one.frames[0] for one in reading.findings if one.frames}) or [0]
            inputs, _ = fit_frames(clip.frames(frames), pack.manifest.frames)
            return inputs, clips.TRACING_SAMPLES
        inputs, _, _ = self.readers[pack.manifest.name].inputs(clip)
        return inputs, smoothgrad.SAMPLES


def _readers_of(packs: Sequence[Pack]) -> dict[str, Any]:
    kinds = {
        PackKind.VIEW: ViewReader,
        PackKind.TRACING: TracingReader,
        PackKind.REGRESSION: RegressionReader,
    }
    return {pack.manifest.name: kinds[pack.manifest.kind](pack) for pack in packs}


def outputs_of(numbers: Explained, pack: Pack) -> list[int]:
    """Every output of a pack, by its place among the targets."""
    names = [output.name for output in pack.manifest.outputs]
    return [place for place, target in enumerate(numbers.targets) if target.name in names]


def _numbers_of(packs: Sequence[Pack], *, settled: bool) -> dict[str, Explained]:
    return {
        pack.manifest.name: explained(pack, settled=settled)
        for pack in packs
        if pack.manifest.kind is not PackKind.VIEW
    }


def ours(packs: Sequence[Pack]) -> Way:
    """As a worker reads a clip."""

    def smooth(
        pack: Pack,
        asked: Explained,
        inputs: NDArray[np.float32],
        outputs: Sequence[int],
        sector: NDArray[np.bool_],
        samples: int,
    ) -> NDArray[np.float32]:
        if pack.manifest.kind is PackKind.TRACING:
            return clips.smooth_tracing(asked, inputs, outputs, sector)
        return clips.smooth(asked, inputs, outputs, sector, samples)

    return Way(tuple(packs), _readers_of(packs), _numbers_of(packs, settled=True), smooth)


def plain(packs: Sequence[Pack], *, compiled: bool = False) -> Way:
    """By Keras alone; ``compiled`` for each shape that comes, by ``tf.function``."""
    import tensorflow as tf

    def as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    prepared = tf.function if compiled else as_it_is
    gradients: dict[int, Callable[..., Any]] = {}

    def gradients_of(asked: Explained, outputs: Sequence[int]) -> Callable[..., Any]:
        def of_each(noisy: Any) -> Any:
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(noisy)
                numbers = asked(noisy)
                sums = [tf.reduce_sum(numbers[:, output]) for output in outputs]
            return tf.stack([tape.gradient(total, noisy)[..., 0] for total in sums])

        return gradients.setdefault(id(asked), prepared(of_each))

    def smooth(
        _pack: Pack,
        asked: Explained,
        inputs: NDArray[np.float32],
        outputs: Sequence[int],
        sector: NDArray[np.bool_],
        samples: int,
    ) -> NDArray[np.float32]:
        noise = smoothgrad._noise((samples, *inputs.shape[1:]), smoothgrad.SEED)
        noise *= np.float32(smoothgrad.SIGMA * float(np.ptp(inputs))) * sector[..., np.newaxis]
        maps = np.zeros((len(outputs), *inputs.shape[:3]), np.float32)
        for draw in noise:
            found = gradients_of(asked, outputs)(tf.constant(inputs + draw))
            maps += np.abs(found.numpy())
        return np.asarray(maps / samples, np.float32)

    way = Way(tuple(packs), _readers_of(packs), _numbers_of(packs, settled=False), smooth)
    for reader in way.readers.values():
        call = prepared(partial(reader.pack.network, training=False))
        reader.__dict__["_compiled"] = lambda batch, call=call: call(tf.constant(batch)).numpy()
    return way


def apart(one: Said, two: Said) -> tuple[float, float]:
    """How far two answers differ at most: values, of the second or of 1, and maps, of the largest.

    Raises
    ------
    SystemExit
        If they differ by more than they may: then times compare nothing.
    """
    (values, maps), (others, other_maps) = one, two
    if list(values) != list(others) or list(maps) != list(other_maps):
        raise SystemExit(f"other answers: {', '.join(values)} and {', '.join(others)}")
    by_values = max(abs(values[k] - others[k]) / max(1.0, abs(others[k])) for k in values)
    by_maps = 0.0
    for name, found in maps.items():
        largest = np.maximum(other_maps[name].max(axis=(1, 2, 3)), 1e-12)
        share = np.abs(found - other_maps[name]).max(axis=(1, 2, 3)) / largest
        by_maps = max(by_maps, float(share.max()))
    if by_values > VALUES_APART or by_maps > MAPS_APART:
        raise SystemExit(f"they differ: values by {by_values:.1e}, maps by {by_maps:.1e}")
    return by_values, by_maps


def cine(folder: Path, frames: int) -> Path:
    """The real cine, or one of so many frames, its own over and over."""
    dataset = dcmread(REAL_CINE)
    count = int(dataset.NumberOfFrames)
    if frames == count:
        return REAL_CINE
    own = list(generate_frames(dataset.PixelData, number_of_frames=count))
    path = variant(folder)
    dataset = dcmread(path)
    dataset.PixelData = encapsulate(list(islice(cycle(own), frames)))
    dataset.NumberOfFrames = frames
    dataset.save_as(path, enforce_file_format=True)
    return path


# What runs in a process of its own.

_way: Way | None = None


def _of_clips() -> list[Pack]:
    packs = [load_pack(folder) for folder in shipped_packs()]
    return [pack for pack in packs if pack.manifest.kind is not PackKind.WAVEFORM]


def _start(make: Callable[[Sequence[Pack]], Way], as_a_worker: bool, warm: Path) -> None:
    global _way
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if as_a_worker:
        share_cores(1)
    _way = make(_of_clips())
    _way.read(warm, samples=1)


def _read(path: Path) -> tuple[float, Said]:
    if _way is None:
        raise RuntimeError("nothing is loaded in this process")
    start = time.perf_counter()
    said = _way.read(path)
    return time.perf_counter() - start, said


def _threads() -> str:
    import tensorflow as tf

    from models.threads import lanes

    threading = tf.config.threading
    within = threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))
    return f"{lanes()} of Python, {within} within a step of TensorFlow"


def rows(
    path: Path, few: Path, *, number: int, compiled: bool = False
) -> tuple[list[Row], dict[str, str]]:
    """The comparison, and its conditions; ``few`` is a short clip."""
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, _start, (ours, True, few)) as own,
        # What is compiled is compiled for the shapes that come.
        ProcessPoolExecutor(
            1, spawn, _start, (partial(plain, compiled=compiled), False, path if compiled else few)
        ) as other,
    ):
        starting = [each.submit(_threads) for each in (own, other)]
        threads = [each.result() for each in starting]  # both are ready, and at rest
        own_said: list[Said] = []
        other_said: list[Said] = []

        def seconds(process: ProcessPoolExecutor, kept: list[Said]) -> float:
            took, said = process.submit(_read, path).result()
            kept.append(said)
            return took

        own_s, other_s = rounds.alternate(
            lambda: seconds(own, own_said), lambda: seconds(other, other_said), number
        )
    differ = [apart(one, two) for one, two in zip(own_said, other_said, strict=True)]
    packs = _of_clips()
    outputs = sum(len(pack.manifest.outputs) for pack in packs)
    row = Row(
        what=f"A4C clip of {read_clip(path).frame_count} frames: view, {len(packs) - 1} packs, "
        f"explanations of {outputs} outputs",
        against=f"{'compiled' if compiled else 'plain'} Keras, a loop over noise samples",
        wanted="" if compiled else ">= 4x",
        ours=own_s,
        theirs=other_s,
    )
    return [row], {
        "packs": ", ".join(f"{one.manifest.name} {one.manifest.version}" for one in packs),
        "threads": f"ours {threads[0]}; the peer's {threads[1]}",
        "answers": f"values differ by {max(one for one, _ in differ):.0e}, "
        f"maps by {max(two for _, two in differ):.0e} of their largest",
        "both": "packs loaded and warm; no picture is drawn",
    }


def work_of_a_worker(path: Path, *, number: int) -> Row:
    """What a worker takes for the clip, with the picture of what may be reported."""

    def whole() -> float:
        start = time.perf_counter()
        analysis.name_view(str(path))
        analysis.analyse(str(path))
        return time.perf_counter() - start

    whole()
    return Row(
        what=f"all that a worker does with an A4C clip of {read_clip(path).frame_count} frames, "
        "picture too",
        against="",
        wanted="",
        ours=tuple(whole() for _ in range(number)),
        theirs=(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--frames", type=int, default=30, help="of the clip")
    parser.add_argument("--compiled", action="store_true", help="the peer is compiled, alone")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        few = variant(Path(folder), frames=2)
        path = cine(Path(folder), options.frames)
        compared, conditions = rows(path, few, number=options.rounds, compiled=options.compiled)
        rounds.keep("clip", _TITLE, compared, conditions=conditions, folder=options.folder)
        if options.compiled:
            return
        analysis.load_packs(shipped_packs())
        alone = work_of_a_worker(path, number=options.rounds)
        rounds.keep(
            "clip",
            _TITLE,
            [alone],
            conditions={"packs": conditions["packs"], "threads": f"{_threads()}; one worker"},
            folder=options.folder,
        )


if __name__ == "__main__":
    main()
