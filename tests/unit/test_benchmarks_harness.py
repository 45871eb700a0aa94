"""Figures are taken in turn, kept, and shown as they are; the page is what the files make."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import page, rounds
from tests.benchmarks.rounds import Row

TIMES = Row(what="so many", against="a peer", wanted=">= 4x", ours=(1, 2, 4), theirs=(5, 8, 20))


def test_the_page_is_what_the_files_make() -> None:
    assert page.PAGE.read_text() == page.page(), "run `python -m tests.benchmarks.page`"


def test_who_begins_changes_from_round_to_round() -> None:
    called: list[str] = []

    def take(name: str, figure: float) -> float:
        called.append(name)
        return figure

    taken = rounds.alternate(lambda: take("ours", 1.0), lambda: take("theirs", 2.0), 3)

    assert called == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert taken == ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))


def test_the_ratio_is_of_each_round_by_itself() -> None:
    assert TIMES.ratio == (5.0, 4.0, 5.0)
    rate = replace(TIMES, more_is_better=True)
    assert rate.ratio == (0.2, 0.2, 0.25)
    assert replace(TIMES, theirs=()).ratio is None


@pytest.mark.parametrize(
    ("wanted", "ours", "theirs", "reached"),
    [
        (">= 4x", (1.0,), (4.1,), True),
        (">= 4x", (1.0,), (3.9,), False),
        ("<= 1.5x", (1.4,), (1.0,), True),
        ("<= 1.5x", (1.6,), (1.0,), False),
        ("<= 10 s", (9.0, 9.0, 99.0), (), True),
        ("<= 64 MB", (65.0,), (), False),
        (">= 60 %", (59.0,), (), False),
        ("", (1.0,), (9.0,), None),
    ],
)
def test_what_was_wanted_is_reached_or_not(
    wanted: str, ours: tuple[float, ...], theirs: tuple[float, ...], reached: bool | None
) -> None:
    row = Row(what="", against="", wanted=wanted, ours=ours, theirs=theirs)
    assert row.reached is reached


def test_a_run_replaces_its_own_rows_and_leaves_the_others(tmp_path: Path) -> None:
    other = replace(TIMES, what="others")
    rounds.keep("one", "One", [TIMES, other], conditions={"load": "none"}, folder=tmp_path)
    better = replace(TIMES, ours=(0.5, 0.5, 0.5))
    path = rounds.keep("one", "One", [better], conditions={}, folder=tmp_path)

    kept = [rounds.row_of(entry) for entry in json.loads(path.read_text())["rows"]]
    assert kept == [better, other]
    told = page.page(tmp_path)
    assert "## One" in told
    assert "load: none" in told
    assert told.count("| so many | 0.500 (0.500 to 0.500) s | a peer |") == 1


def test_the_page_tells_what_was_learned_and_what_was_missed(tmp_path: Path) -> None:
    missed = replace(TIMES, wanted=">= 9x")
    rounds.keep("one", "One", [missed], conditions={}, folder=tmp_path)
    (tmp_path / "one.md").write_text("A dead end.\n")

    told = page.page(tmp_path)

    assert "| >= 9x | **not reached** |" in told
    assert told.endswith("A dead end.\n")


def test_every_benchmark_is_run_by_make_bench() -> None:
    makefile = (rounds.ROOT / "Makefile").read_text()
    aside = re.search(r"^BENCH \?= \$\(filter-out (.*?),", makefile, re.MULTILINE)
    assert aside is not None
    for module in Path(rounds.__file__).parent.glob("*.py"):
        runs = "def main(arguments" in module.read_text()
        assert runs is (module.stem not in aside[1].split()), module.name
