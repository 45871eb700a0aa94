"""Samples of what a node holds over time, and whether it grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from tests.faults.books import waiting
from tests.faults.processes import usage, workers

_MB = 1e6
_WARM_UP = 0.2  # of the time: caches fill, pools open
_BLOCKS = 12  # neighbouring samples say the same: their means count as one each
_LITTLE = 0.05  # of the median: growth over the whole time that is no leak that anyone would see


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What the node and its workers hold at one moment; None where a process was not there."""

    at_s: float
    node_rss_mb: float | None
    node_files: float | None
    node_threads: float | None
    workers_rss_mb: float | None  #: the largest of them
    workers_files: float | None
    workers_threads: float | None
    database_mb: float
    wal_mb: float
    waiting_recordings: float
    waiting_deliveries: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """How one figure moved after the warm-up. ``flat``: it does not grow beyond chance."""

    name: str
    start: float
    median: float
    end: float
    most: float
    slope_per_h: float
    standard_error: float
    flat: bool


class Sampler:
    """Takes a sample every few seconds in a thread of its own."""

    def __init__(self, data_dir: Path, node_pid: int, *, every_s: float = 5.0) -> None:
        self.samples: list[Sample] = []
        self._data = data_dir
        self._pid = node_pid
        self._every_s = every_s
        self._begin = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        node = usage(self._pid)
        theirs = [held for pid in workers(self._pid) if (held := usage(pid)) is not None]
        recordings, deliveries = waiting(self._data)
        return Sample(
            at_s=round(time.monotonic() - self._begin, 2),
            node_rss_mb=node.rss_mb if node else None,
            node_files=node.open_files if node else None,
            node_threads=node.threads if node else None,
            workers_rss_mb=max((held.rss_mb for held in theirs), default=None),
            workers_files=max((held.open_files for held in theirs), default=None),
            workers_threads=max((held.threads for held in theirs), default=None),
            database_mb=_size(self._data / "echonode.db") / _MB,
            wal_mb=_size(self._data / "echonode.db-wal") / _MB,
            waiting_recordings=recordings,
            waiting_deliveries=deliveries,
        )


def trends(samples: Sequence[Sample], *, workers_from_s: float = 0.0) -> list[Trend]:
    """How each figure moved. Workers are judged from when none of them is killed any more."""
    found = []
    for field in fields(Sample):
        if field.name == "at_s":
            continue
        begin = workers_from_s if field.name.startswith("workers") else 0.0
        pairs = [
            (sample.at_s, value)
            for sample in samples
            if sample.at_s >= begin and (value := getattr(sample, field.name)) is not None
        ]
        if len(pairs) >= _BLOCKS:
            found.append(trend(field.name, *zip(*pairs, strict=True)))
    return found


def trend(name: str, times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """A straight line through means of blocks, after the warm-up."""
    times, held = np.asarray(times_s) / 3600, np.asarray(values, float)
    later = times >= times[0] + _WARM_UP * (times[-1] - times[0])
    times, held = times[later], held[later]
    blocks = min(_BLOCKS, len(held))
    x = np.array([block.mean() for block in np.array_split(times, blocks)])
    y = np.array([block.mean() for block in np.array_split(held, blocks)])
    spread = ((x - x.mean()) ** 2).sum()
    slope = float(((x - x.mean()) * y).sum() / spread)
    rest = y - y.mean() - slope * (x - x.mean())
    error = float(np.sqrt((rest**2).sum() / max(1, blocks - 2) / spread))
    growth = (slope - 2 * error) * float(times[-1] - times[0])
    return Trend(
        name=name,
        start=float(values[0]),
        median=float(median(held)),
        end=float(held[-1]),
        most=float(max(values)),
        slope_per_h=slope,
        standard_error=error,
        flat=growth <= _LITTLE * float(median(held)),
    )


def table(found: Sequence[Trend]) -> Table:
    """The trends for a reader."""
    shown = Table(title="what the node held")
    for heading in ("", "start", "median", "end", "most", "slope/h", "± SE", ""):
        shown.add_column(heading, justify="left" if not heading else "right")
    for line in found:
        numbers = (line.start, line.median, line.end, line.most)
        shown.add_row(
            line.name.replace("_", " "),
            *(f"{number:.1f}" for number in numbers),
            f"{line.slope_per_h:+.1f}",
            f"{line.standard_error:.1f}",
            "flat" if line.flat else "grows",
        )
    return shown


def plot(samples: Sequence[Sample], path: Path, *, title: str) -> None:
    """Every figure over time."""
    rows: list[tuple[str, Callable[[str], bool]]] = [
        ("RSS, MB", lambda name: name.endswith("rss_mb")),
        ("open files", lambda name: name.endswith("_files")),
        ("threads", lambda name: name.endswith("_threads")),
        ("database, MB", lambda name: name in {"database_mb", "wal_mb"}),
        ("waiting", lambda name: name.startswith("waiting")),
    ]
    figure = Figure(figsize=(9, 11), layout="constrained")
    axes = figure.subplots(len(rows), sharex=True)
    minutes = [sample.at_s / 60 for sample in samples]
    for axis, (label, belongs) in zip(axes, rows, strict=True):
        for name in asdict(samples[0]):
            if belongs(name):
                values = [getattr(sample, name) for sample in samples]
                held = [np.nan if value is None else value for value in values]
                axis.plot(minutes, held, label=name.replace("_", " "), linewidth=1)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(loc="upper left", fontsize="small")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
