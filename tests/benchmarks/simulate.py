"""How many frames a second the simulator draws, in several processes at once.

    python -m tests.benchmarks.simulate [--clips 24] [--frames 30] [--processes 2] [--rounds 5]

Draws clips of the twelve two-dimensional views in turn at 299x299, with their masks, as a training
set needs them: each process its share, with one thread of arithmetic. What a clip costs once (its
textures, its tables, its screen) is in the figure; starting the processes is not. Prints each
round.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from rich.console import Console

from models.simulator import simulate
from models.views import View
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row

SIZE = (299, 299)
SECTIONS = tuple(view for view in View if view not in (View.PW, View.CW, View.M_MODE, View.OTHER))


def draw(view: View, seed: int, frames: int, masks: bool) -> tuple[int, float]:
    """The number of frames of one clip, and the processor seconds it took."""
    start = time.process_time()
    clip = simulate(view, seed=seed, frames=frames, size=SIZE, masks=masks)
    return len(clip.frames), time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and keep their figures."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-masks", action="store_true")
    options = parser.parse_args(arguments)
    console = Console()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for the processes: one thread each
    rates, own = [], []
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(draw, *_work(options.processes, 2, options.no_masks, seed=0)))
        for number in range(options.rounds):
            start = time.perf_counter()
            work = _work(options.clips, options.frames, options.no_masks, seed=1 + number)
            drawn = list(pool.map(draw, *work))
            seconds = time.perf_counter() - start
            frames = sum(count for count, _ in drawn)
            rates.append(frames / seconds)
            own.append(frames / sum(used for _, used in drawn))
            console.print(f"round {number + 1}: {rates[-1]:.0f} frames a second")
    what = (
        f"{options.clips} clips of {options.frames} frames, {SIZE[0]}x{SIZE[1]}, "
        f"{'without' if options.no_masks else 'with'} masks, {options.processes} processes"
    )
    rate = Row(
        what=what,
        against="",
        wanted="",
        ours=tuple(rates),
        theirs=(),
        unit="frames/s",
        more_is_better=True,
        note=f"{statistics.median(own):.0f} for each second of one core",
    )
    rounds.keep("simulate", "Drawing clips", [rate], conditions={}, folder=options.folder)


def _work(
    clips: int, frames: int, no_masks: bool, *, seed: int
) -> tuple[list[View], list[int], list[int], list[bool]]:
    views: list[View] = [SECTIONS[index % len(SECTIONS)] for index in range(clips)]
    seeds = [1000 * seed + index for index in range(clips)]
    return views, seeds, [frames] * clips, [not no_masks] * clips


if __name__ == "__main__":
    main()
