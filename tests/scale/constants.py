"""What was measured, read where it is kept; :mod:`tests.scale.page` names each source.

Nothing here is a number of its own: who takes the benchmarks again gets another answer.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import rounds
from tests.benchmarks.load import COURSES

_CINES = r"(\d+) JPEG cines of ([\d.]+) MB, one association"
_CINES_AT_ONCE = r"(\d+) JPEG cines of ([\d.]+) MB, four associations"
_SMALL = r"(\d+) objects of ([\d.]+) kB, one association"
_MANY = r"(\d+) associations at once, each a study of (\d+) objects of ([\d.]+) kB"
_CINE_FRAMES = 120  # of the cine that the benchmark of the way in sends
_VIEW_FRAMES = 10  # that name a view
_READ_FRAMES = 20  # that a regression reads


class ScaleError(Exception):
    """A figure is missing; the message says which benchmark gives it."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What something takes by its frames."""

    at_once: float
    a_frame: float

    def __call__(self, frames: float) -> float:
        return max(0.0, self.at_once + self.a_frame * frames)

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """The nearest to some points."""
        if len(points) == 1:
            return cls(at_once=points[0][1], a_frame=0.0)
        slope, start = statistics.linear_regression(*zip(*points, strict=True))
        return cls(at_once=start, a_frame=slope)


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Measured on one machine. Times of a worker are core seconds."""

    cores: int  #: of the machine
    association_s: float  #: from the start of a sender to its first object
    object_s: float  #: of an association at its own pace, for each object ...
    byte_s: float  #: ... and each byte
    receiving_cores: float  #: that one association keeps busy, sender and node together
    receiver_bytes_s: float  #: of four associations, all together
    cine_bytes_frame: float
    other_view_s: float
    large_view_s: float  #: of a cine of 120 frames
    small_view: Line
    analysis: Line
    picture: Line
    picture_bytes: Line
    dispatch_s: float  #: a claim, or an outcome, in SQLite
    report_s: float
    delivery_s: float
    turn_s: float  #: a transaction in PostgreSQL, the writers one after another
    transaction_s: float  #: the same for one node that is alone: what it waits for
    transactions: float  #: of a study of sixty clips
    commits_s: float  #: transactions a second, all nodes together
    synced_pages_s: float  #: a second: the floor
    forward_gflop: Line  #: of the forward passes of an A4C clip, by its frames

    def view_s(self, size_bytes: float, frames: float) -> float:
        """Between a small clip and a large one, by its bytes."""
        large = self.cine_bytes_frame * _CINE_FRAMES
        small = self.small_view(frames)
        return small + (self.large_view_s - small) * min(1.0, size_bytes / large)


def read(folder: Path = rounds.FOLDER, courses: Path = COURSES) -> Constants:
    """All of it.

    Raises
    ------
    ScaleError
        If a figure is missing.
    """
    tables = _Tables(folder)
    way_in = _way_in(tables)
    work = tables.of("work")
    course = _course(courses, "alone")
    alone, scenario = course["studies"], course["scenario"]
    objects = scenario["a4c"] + scenario["others"]
    sent = objects * way_in["object_s"] + course["bytes"] / len(alone) * way_in["byte_s"]
    sending_s = statistics.median(each["last_image_s"] - each["opened_s"] for each in alone)
    report_s = statistics.median(each["reported_s"] - each["reporting_s"] for each in alone)
    # Half a second of it is the clock's tick, which the model has by itself.
    sent_s = statistics.median(each["at_archive_s"] - each["reported_s"] for each in alone)
    rows = _rows_made_durable(tables)
    claim = tables.median("catalog", r"SQLite, .*: claim of the next clip, committed")
    large = work.get("view of a JPEG cine of 120 frames")
    if large is None:
        raise _missing("work", "view of a JPEG cine of 120 frames")
    return Constants(
        cores=tables.cores("receive"),
        **way_in,
        association_s=max(0.0, sending_s - sent),
        other_view_s=_first(work, r"view of a clip of another view"),
        large_view_s=large,
        small_view=Line.through(_points(work, r"view of an A4C clip of (\d+) frames")),
        analysis=Line.through(_points(work, r"analysis of an A4C clip of (\d+) frames")),
        picture=Line.through(_points(work, r"picture of an A4C clip of (\d+) frames")),
        picture_bytes=Line.through(tables.noted("work", r"picture of an A4C clip of (\d+) frames")),
        dispatch_s=claim / 1000,
        report_s=report_s,
        delivery_s=max(0.05, sent_s - 0.5),
        forward_gflop=_arithmetic(tables),
        **rows,
    )


class _Tables:
    """The rows that the benchmarks kept, by what they say."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self, table: str) -> list[dict[str, Any]]:
        path = self._folder / f"{table}.json"
        if not path.is_file():
            raise _missing(table, "any figure")
        entries: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
        return entries

    def of(self, table: str) -> dict[str, float]:
        """The median of our own figures, all rows of the same name together."""
        found: dict[str, list[float]] = {}
        for entry in self.entries(table):
            found.setdefault(entry["what"], []).extend(entry["ours"])
        return {what: statistics.median(figures) for what, figures in found.items()}

    def median(self, table: str, pattern: str) -> float:
        return _first(self.of(table), pattern, table)

    def noted(self, table: str, pattern: str) -> list[tuple[float, float]]:
        """Megabytes in the notes, as bytes."""
        points = []
        for entry in self.entries(table):
            name = re.match(pattern, entry["what"])
            size = re.fullmatch(r"([\d.]+) MB", entry["note"])
            if name and size:
                points.append((float(name[1]), 1e6 * float(size[1])))
        return points

    def cores(self, table: str) -> int:
        return int(self.entries(table)[0]["run"]["machine"]["cores"])


def _way_in(tables: _Tables) -> dict[str, float]:
    taken = tables.of("receive")
    number, megabytes, one_s = _matched(taken, _CINES)
    size = 1e6 * megabytes
    each_s = one_s / number
    try:
        few, kilobytes, few_s = _matched(taken, _SMALL)
        small_s, small = few_s / few, 1e3 * kilobytes
    except ScaleError:
        # At most so much: fifty associations are opened in the same time.
        associations, few, kilobytes, few_s = _matched(taken, _MANY)
        small_s, small = few_s / (associations * few), 1e3 * kilobytes
    byte_s = (each_s - small_s) / (size - small)
    *_, four_s = _matched(taken, _CINES_AT_ONCE)
    cores = tables.cores("receive")
    return {
        "object_s": small_s - byte_s * small,
        "byte_s": byte_s,
        # Four at once keep the machine busy: so much of it is one of them.
        "receiving_cores": cores / max(1.0, one_s / four_s),
        "receiver_bytes_s": number * size / four_s,
        "cine_bytes_frame": size / _CINE_FRAMES,
    }


def _arithmetic(tables: _Tables) -> Line:
    """Every frame is traced, and so many are read by each other pack."""
    found: dict[str, float] = {}
    for entry in tables.entries("forward"):
        name = re.match(r"forward pass of (\S+)", entry["what"])
        each = re.match(r"([\d.]+) GFLOP", entry["note"])
        if name and each:
            found[name[1]] = float(each[1])
    traced = found.pop("lv")
    views = found.pop("views")
    at_once = _VIEW_FRAMES * views + _READ_FRAMES * sum(found.values())
    return Line(at_once=at_once, a_frame=traced)


def _rows_made_durable(tables: _Tables) -> dict[str, float]:
    entries = [each for each in tables.entries("writes") if each["what"].startswith("PostgreSQL")]
    studies = [each for each in entries if "whole studies" in each["what"]]
    if not studies:
        raise _missing("writes", "PostgreSQL: whole studies")
    # The best round of all: other programs had part of the machine, and most of it in others.
    best = max(studies, key=lambda each: max(each["ours"]))
    alone = next(each for each in studies if "1 node at once" in each["what"])

    def transactions(entry: Mapping[str, Any]) -> float:
        return float(re.match(r"[\d.]+", entry["note"])[0])  # type: ignore[index]  # always there

    most_s = max(best["ours"]) * transactions(best)
    return {
        "turn_s": 1 / most_s,
        "transaction_s": 1 / (max(alone["ours"]) * transactions(alone)),
        "transactions": transactions(alone),
        "commits_s": most_s,
        "synced_pages_s": statistics.median([f for each in entries for f in each["theirs"]]),
    }


def _course(courses: Path, name: str) -> dict[str, Any]:
    path = courses / f"{name}.json"
    if not path.is_file():
        raise _missing("load", name)
    course: dict[str, Any] = json.loads(path.read_text())
    return course


def _matched(figures: Mapping[str, float], pattern: str) -> tuple[float, ...]:
    for what, figure in reversed(figures.items()):  # the newest are last
        if found := re.fullmatch(pattern, what):
            return (*(float(group) for group in found.groups()), figure)
    raise _missing("receive", pattern)


def _first(figures: Mapping[str, float], pattern: str, table: str = "work") -> float:
    for what, figure in figures.items():
        if re.match(pattern, what):
            return figure
    raise _missing(table, pattern)


def _points(figures: Mapping[str, float], pattern: str) -> list[tuple[float, float]]:
    points = [
        (float(found[1]), figure)
        for what, figure in figures.items()
        if (found := re.match(pattern, what))
    ]
    if not points:
        raise _missing("work", pattern)
    return points


def _missing(table: str, what: str) -> ScaleError:
    return ScaleError(f"no figure for {what}: take it by python -m tests.benchmarks.{table}")


__all__ = ["Constants", "Line", "ScaleError", "read"]
