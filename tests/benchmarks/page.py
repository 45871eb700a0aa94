"""Writes ``docs/benchmarks.md`` of what ``docs/benchmarks/`` holds.

    python -m tests.benchmarks.page

Each ``TABLE.json`` there gives a section with its table; ``TABLE.md`` beside it, written by hand,
says what was learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import rounds

PAGE = rounds.ROOT / "docs" / "benchmarks.md"

_HEAD = """\
# Benchmarks

Each figure is taken beside its peer's, on the same machine, in the same run, in turn; ratios are
those of the rounds, medians first, least and most in brackets; more than 1 means that echonode is
better, unless "<=" is asked for. `make bench` takes all of them again (`BENCH=receive` one table,
`ARGS='--rounds 3'` its rounds) and writes this page, which is made of `docs/benchmarks/` by
`python -m tests.benchmarks.page`. `+` behind a commit: with changes that were not yet in it.
"""
_COLUMNS = ("what", "echonode", "against", "its figure", "ratio", "wanted", "")


def page(folder: Path = rounds.FOLDER) -> str:
    """The whole page."""
    tables = [
        _section(json.loads(path.read_text()), path.with_suffix(".md"))
        for path in sorted(folder.glob("*.json"))
    ]
    return "\n".join([_HEAD, *tables])


def _section(table: Mapping[str, Any], learned: Path) -> str:
    entries: Sequence[Mapping[str, Any]] = table["rows"]
    lines = [f"## {table['title']}", "", _line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    lines += [_line(_cells(rounds.row_of(entry))) for entry in entries]
    lines.append("")
    for run in _runs(entries):
        lines += [run, ""]
    if learned.is_file():
        lines += [learned.read_text().strip(), ""]
    return "\n".join(lines)


def _cells(row: rounds.Row) -> tuple[str, ...]:
    reached = {True: "reached", False: "**not reached**", None: ""}[row.reached]
    return (
        f"{row.what}; {row.note}" if row.note else row.what,
        f"{rounds.figures(row.ours)} {row.unit}",
        row.against,
        f"{rounds.figures(row.theirs)} {row.unit}" if row.theirs else "",
        rounds.ratio(row),
        row.wanted,
        reached,
    )


def _runs(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the figures were taken: a sentence for all, or one for each part of the rows."""
    told: dict[str, list[int]] = {}
    for number, entry in enumerate(entries, 1):
        run = entry["run"]
        machine = run["machine"]
        running = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        conditions = "".join(f"; {name}: {said}" for name, said in run["conditions"].items())
        text = (
            f"{run['date']}, commit {run['commit']}; {machine['processor']}, {machine['cores']} "
            f"cores, {machine['memory']}, {machine['system']}; {running}{conditions}."
        )
        told.setdefault(text, []).append(number)
    if len(told) == 1:
        return [f"{text} {_counted(entries)}" for text in told]
    return [f"Row {', '.join(map(str, numbers))}: {text}" for text, numbers in told.items()]


def _counted(entries: Sequence[Mapping[str, Any]]) -> str:
    counts = {len(entry["ours"]) for entry in entries}
    return (
        f"{min(counts)} to {max(counts)} rounds." if len(counts) > 1 else f"{counts.pop()} rounds."
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
