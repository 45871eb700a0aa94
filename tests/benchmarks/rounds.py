"""Rounds against a peer: taking figures in turn, and keeping them.

A benchmark takes its figures with :func:`alternate`, makes a :class:`Row` of each comparison and
hands them to :func:`keep`, which writes ``docs/benchmarks/TABLE.json``. What was learned on the
way, dead ends too, is written by hand in ``TABLE.md`` beside it; :mod:`tests.benchmarks.page` makes
``docs/benchmarks.md`` of both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "benchmarks"

_PACKAGES = ("numpy", "pydicom", "pynetdicom", "sqlalchemy", "tensorflow-cpu")
_WANTED = re.compile(r"(?P<bound>[<>]=) (?P<limit>[\d.]+) ?(?P<unit>\S.*)")


class Spread(NamedTuple):
    """The median of some figures, with the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of one figure or more."""
        return cls(statistics.median(figures), min(figures), max(figures))


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One comparison: the figures of its rounds, ours and the peer's."""

    what: str  #: "60 JPEG cines of 5.7 MB, one association"
    against: str  #: "DCMTK storescp"; "" where there is no peer
    wanted: str  #: ">= 4x", "<= 10 s"; "" if nothing is asked
    ours: tuple[float, ...]  #: one figure a round, all in ``unit``
    theirs: tuple[float, ...]  #: the peer's in the same rounds; () where there is none
    unit: str = "s"
    more_is_better: bool = False  #: a rate, not a time
    note: str = ""

    @property
    def ratio(self) -> Spread | None:
        """The rounds' own ratios, more than 1 where ours is better; None without a peer."""
        if not self.theirs:
            return None
        pairs = zip(self.ours, self.theirs, strict=True)
        return Spread.of([a / b if self.more_is_better else b / a for a, b in pairs])

    @property
    def reached(self) -> bool | None:
        """Whether what was wanted is so, by the medians; None if nothing was asked.

        ``>= 4x`` asks for a ratio, ``<= 1.5x`` for ours to be no more than so many times the other;
        any other unit asks for our own figure.
        """
        wanted = _WANTED.fullmatch(self.wanted)
        if wanted is None:
            return None
        limit = float(wanted["limit"])
        figure = Spread.of(self.ours).median
        if wanted["unit"] == "x":
            if self.ratio is None:
                raise ValueError(f"{self.what}: {self.wanted} needs the figures of a peer")
            figure = self.ratio.median if wanted["bound"] == ">=" else 1 / self.ratio.median
        return figure >= limit if wanted["bound"] == ">=" else figure <= limit


def alternate(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int = 5
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Take a figure of each in turn, round by round; who begins changes from round to round."""
    own: list[float] = []
    other: list[float] = []
    for number in range(rounds):
        both = [(own, ours), (other, theirs)]
        for figures, take in both if number % 2 == 0 else reversed(both):
            figures.append(take())
    return tuple(own), tuple(other)


def parser(description: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has; ``description`` is its module's docstring."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--rounds", type=int, default=rounds, help="of each comparison")
    made.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the figures are kept (docs/benchmarks)"
    )
    return made


def keep(
    table: str,
    title: str,
    rows: Sequence[Row],
    *,
    conditions: Mapping[str, str],
    folder: Path = FOLDER,
) -> Path:
    """Write the figures of a table, with machine, versions, date and commit, and show them.

    Rows of an earlier run with another ``what`` or ``against`` stay: a run may take a part of them.

    Parameters
    ----------
    table
        Names the file: a word in lower case.
    conditions
        What a reader must know besides: the peers' versions, what else the machine did.
    """
    path = folder / f"{table}.json"
    run = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": machine(),
        "versions": versions(),
        "conditions": dict(conditions),
    }
    entries = {(row.what, row.against): {**asdict(row), "run": run} for row in rows}
    earlier = json.loads(path.read_text())["rows"] if path.is_file() else []
    kept = [entries.pop((each["what"], each["against"]), each) for each in earlier]
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"title": title, "rows": [*kept, *entries.values()]}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    Console().print(_shown(title, rows))
    return path


def row_of(entry: Mapping[str, Any]) -> Row:
    """A row as it was kept."""
    figures = {name: tuple(entry[name]) for name in ("ours", "theirs")}
    rest = {name: entry[name] for name in Row.__dataclass_fields__ if name not in figures}
    return Row(**rest, **figures)


def machine() -> dict[str, str]:
    """The machine on which the figures are taken."""
    processors = re.findall(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "processor": processors[0] if processors else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """What ran."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _commit() -> str:
    """The commit that was measured, with a plus sign where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _shown(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title)
    for heading in ("what", "ours", "against", "theirs", "ratio", "wanted"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row.what,
            f"{figures(row.ours)} {row.unit}",
            row.against,
            f"{figures(row.theirs)} {row.unit}" if row.theirs else "",
            ratio(row),
            row.wanted,
        )
    return table


def figures(values: Sequence[float]) -> str:
    """The median with its spread, in three digits."""
    if not values:
        return ""
    spread = Spread.of(values)
    if len(values) == 1:
        return digits(spread.median)
    return f"{digits(spread.median)} ({digits(spread.least)} to {digits(spread.most)})"


def ratio(row: Row) -> str:
    """The ratio as it was asked for: "<= 1.5x" asks how many times the other's ours is."""
    spread = row.ratio
    if spread is None:
        return ""
    if row.wanted.startswith("<=") and row.wanted.endswith("x"):
        spread = Spread(1 / spread.median, 1 / spread.most, 1 / spread.least)
    return f"{digits(spread.median)}x ({digits(spread.least)} to {digits(spread.most)})"


def digits(value: float) -> str:
    """A figure in three digits, without an exponent."""
    if value == 0:
        return "0"
    places = 2
    for bound in (10, 100):
        places -= abs(value) >= bound
    if abs(value) < 1:
        places = 3
    return f"{value:,.{places}f}"


__all__ = ["FOLDER", "Row", "Spread", "alternate", "keep", "parser", "row_of"]
