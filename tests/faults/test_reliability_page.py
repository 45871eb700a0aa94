"""The page on reliability names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 50
    missing = [
        f"{path}::{name}" for path, name in dict.fromkeys(named) if name not in names_in(path)
    ]
    assert missing == []


def test_every_row_of_a_promise_names_a_test() -> None:
    promises, _figures = PAGE.read_text().split("## Last figures")
    rows = [line for line in promises.splitlines() if re.match(r"\| (?!promise|---)", line)]
    assert len(rows) > 20
    assert [row for row in rows if "::test_" not in row] == []


def names_in(path: str) -> set[str]:
    """The names of a file's tests."""
    file = ROOT / path
    if not file.is_file():
        return set()
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
