"""How soon a model has its frames of a JPEG cine, beside pydicom's pixel_array, in turn.

    python -m tests.benchmarks.decode [--rounds 5]

The real cine of 120 frames, of which a model takes 20, a tenth of a second apart. Ours is the
whole way from the file to grey frames with nothing but the sector in them: header, index of frames,
search for the sector, decoding. pydicom's is `dcmread(...).pixel_array`, which decodes all frames,
and, in a row of its own, its `pixel_array(path, index=...)` called for those 20 alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.pixels import pixel_array

from models.clip import Clip, read_clip
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row
from tests.running_node import LONG_CINE

FRAMES, INTERVAL_MS = 20, 100.0


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, by the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rows(path: Path, *, number: int) -> list[Row]:
    """The comparisons, each of so many rounds."""
    clip = read_clip(path)
    wanted = clip.time_axis.sample(INTERVAL_MS, FRAMES)
    _check(clip, path, wanted)

    def whole() -> object:
        return read_clip(path).frames(wanted)

    def all_of_them() -> object:
        return dcmread(path).pixel_array

    def those() -> object:
        return [pixel_array(path, index=index) for index in wanted]

    what = f"{len(wanted)} frames of a JPEG cine of {clip.frame_count}"
    asked: tuple[tuple[str, Callable[[], object], str, Callable[[], object], str], ...] = (
        (f"{what}, header and sector too", whole, "pydicom, pixel_array", all_of_them, ">= 20x"),
        (f"{what}, of a clip that is open", lambda: clip.frames(wanted), "pydicom, pixel_array",
         all_of_them, ""),
        (f"{what}, of a clip that is open", lambda: clip.frames(wanted),
         "pydicom, pixel_array of each of them", those, ""),
    )  # fmt: skip
    made = []
    for words, ours, against, theirs, aim in asked:
        for work in (ours, theirs):
            work()  # codecs are loaded, the file is in memory
        own, other = rounds.alternate(partial(seconds, ours), partial(seconds, theirs), number)
        made.append(Row(what=words, against=against, wanted=aim, ours=own, theirs=other))
    return made


def _check(clip: Clip, path: Path, wanted: Sequence[int]) -> None:
    """Ours are the Y planes that pydicom decodes, to a grey level: else they compare nothing."""
    sector = clip.sector
    box = np.s_[sector.top : sector.bottom, sector.left : sector.right]
    for index, ours in zip(wanted, clip.frames(wanted), strict=True):
        theirs = pixel_array(path, index=index, raw=True)
        grey = theirs[box][..., 0] if theirs.ndim == 3 else theirs[box]
        apart = np.abs(ours.astype(int) - grey)[sector.mask]
        if apart.max() > 1:
            raise SystemExit(f"frame {index} is another picture: {apart.max()} levels apart")


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    options = rounds.parser(__doc__).parse_args(arguments)
    rounds.keep(
        "decode",
        "Frames of a cine",
        rows(LONG_CINE, number=options.rounds),
        conditions={"cine": "640 x 480, 120 frames, 6.1 MB, baseline JPEG 4:2:2; in memory"},
        folder=options.folder,
    )


if __name__ == "__main__":
    main()
