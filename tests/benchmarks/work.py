"""What a clip costs a worker, and its picture the node, in processor time of one thread.

    python -m tests.benchmarks.work [--rounds 5] [--frames 10,30,120]

One process a core, each with one thread of arithmetic as a node's workers have, all at the same
work at once: a core that is alone is quicker than it will ever be under load. The clips are the
real A4C cine of 30 frames, cut or run again and again, and the simulated clips of other views that
the benchmark of a study sends. :mod:`tests.scale` reckons with these figures.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from threading import Barrier
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import generate_uid

from models.packs.loading import shipped_packs
from models.simulator import simulate
from models.simulator.dicom import to_dicom
from models.views import View
from node import analysis
from node.kept import header_of
from node.results import ReportSettings, build_capture
from node.results.store import keep_result
from storage.files import Area, FolderStore
from storage.states import ResultKind
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row
from tests.running_node import LONG_CINE, REAL_CINE

TITLE = "What a clip costs"
OTHER_FRAMES = 24  #: of a clip of another view, as in the benchmark of a study

_LARGE = -120  # the long cine's place among the figures

_together: Any = None  # the barrier of the processes, in each of them


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Processor seconds of one clip."""

    view_s: float
    analysis_s: float
    picture_s: float  #: made, checked and kept by the node
    picture_bytes: int


def clip_of(frames: int, folder: Path) -> Path:
    """The real A4C cine with so many frames."""
    dataset: Dataset = dcmread(REAL_CINE)
    whole = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    dataset.PixelData = encapsulate(list(islice(cycle(list(whole)), frames)))
    dataset.NumberOfFrames = frames
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"a4c-{frames}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def other_clip(folder: Path) -> Path:
    """A simulated clip of another view."""
    clip = simulate(View.PSLA, seed=0, frames=OTHER_FRAMES, colour_flow=False)
    path = folder / "other.dcm"
    to_dicom(clip, study_uid=generate_uid()).save_as(path, enforce_file_format=True)
    return path


def prepare(barrier: Barrier, folders: Sequence[Path], workers: int) -> None:
    """Load packs, as a node's worker does."""
    global _together
    _together = barrier
    analysis.load_packs(folders, workers=workers)


def view_only(path: Path) -> Cost:
    """Name the view of a clip, with all others at the same."""
    _together.wait()
    return Cost(view_s=_took(partial(analysis.name_view, str(path)))[0], **_NOTHING)


def whole(path: Path) -> Cost:
    """All of an A4C clip, with all others at the same."""
    _together.wait()
    view_s, _ = _took(partial(analysis.name_view, str(path)))
    analysis_s, said = _took(partial(analysis.analyse, str(path)))
    with tempfile.TemporaryDirectory() as name:
        picture_s, size = _took(partial(_kept_picture, path, said, Path(name)))
    return Cost(view_s=view_s, analysis_s=analysis_s, picture_s=picture_s, picture_bytes=size)


_NOTHING: dict[str, Any] = {"analysis_s": 0.0, "picture_s": 0.0, "picture_bytes": 0}


def _kept_picture(path: Path, said: analysis.ClipAnalysis, folder: Path) -> int:
    """As the node's dispatcher does it."""
    files = FolderStore(folder)
    key = files.write(Area.OBJECTS, "0" * 64, path.read_bytes())
    if said.picture is None:
        return 0
    encoded = build_capture(
        header_of(files, key),
        said.picture,
        findings=said.findings,
        packs=said.packs_run,
        instance_number=1,
        settings=ReportSettings(),
        created_at=datetime.now(UTC),
    )
    return keep_result(files, encoded, kind=ResultKind.SC).size_bytes


def _took(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    done = work()
    return time.process_time() - start, done


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--frames", default="10,30,120", help="of the A4C clips")
    options = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    context = get_context("spawn")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        other = other_clip(folder)
        clips = {int(one): clip_of(int(one), folder) for one in options.frames.split(",") if one}
        taken: dict[int, list[Cost]] = {frames: [] for frames in (0, _LARGE, *clips)}
        with ProcessPoolExecutor(
            cores,
            mp_context=context,
            initializer=prepare,
            initargs=(context.Barrier(cores), shipped_packs(), cores),
        ) as pool:
            for number in range(options.rounds + 1):
                for frames, work in (
                    (0, view_only),
                    (_LARGE, view_only),
                    *((each, whole) for each in clips),
                ):
                    paths = [{0: other, _LARGE: LONG_CINE, **clips}[frames]] * cores
                    done = list(pool.map(work, paths))
                    if number > 0:  # the first is to warm up
                        taken[frames].append(_mean(done))
        rows = _rows(taken, clips, other.stat().st_size)
    conditions = {
        "at once": f"{cores} processes of one thread each; processor time, the mean of them"
    }
    rounds.keep("work", TITLE, rows, conditions=conditions, folder=options.folder)


def _mean(done: Sequence[Cost]) -> Cost:
    return Cost(
        view_s=fmean(one.view_s for one in done),
        analysis_s=fmean(one.analysis_s for one in done),
        picture_s=fmean(one.picture_s for one in done),
        picture_bytes=done[0].picture_bytes,
    )


def _rows(taken: dict[int, list[Cost]], clips: dict[int, Path], other_bytes: int) -> list[Row]:
    def row(what: str, figures: Sequence[float], note: str = "") -> Row:
        return Row(what=what, against="", wanted="", ours=tuple(figures), theirs=(), note=note)

    rows = [
        row(
            f"view of a clip of another view, {OTHER_FRAMES} frames",
            [one.view_s for one in taken[0]],
            f"{other_bytes / 1e3:.0f} kB",
        ),
        row(
            "view of a JPEG cine of 120 frames",
            [one.view_s for one in taken[_LARGE]],
            f"{LONG_CINE.stat().st_size / 1e6:.1f} MB",
        ),
    ]
    for frames, path in clips.items():
        costs = taken[frames]
        rows += [
            row(
                f"view of an A4C clip of {frames} frames",
                [one.view_s for one in costs],
                f"{path.stat().st_size / 1e3:.0f} kB",
            ),
            row(
                f"analysis of an A4C clip of {frames} frames, its picture drawn",
                [one.analysis_s for one in costs],
            ),
            row(
                f"picture of an A4C clip of {frames} frames, made, checked and kept by the node",
                [one.picture_s for one in costs],
                f"{costs[0].picture_bytes / 1e6:.1f} MB",
            ),
        ]
    return rows


if __name__ == "__main__":
    main()
