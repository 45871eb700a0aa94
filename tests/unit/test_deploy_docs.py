"""What the pages for administrators say is so: messages, commands, settings, files, links."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
import typer

from node.cli.app import all_commands
from node.settings import load_settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    "install.md", "connect-a-scanner.md", "connect-a-pacs.md", "daily-work.md",
    "when-something-is-wrong.md", "upgrade-and-restore.md",
]  # fmt: skip


@functools.cache
def texts() -> tuple[str, ...]:
    """Every piece of text that the code can say."""
    found: list[str] = []
    for room in ("node", "storage", "models"):
        for source in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(source.read_text())
            found += [
                part.value
                for part in ast.walk(tree)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
    return tuple(dict.fromkeys(found))


def is_said(words: str) -> bool:
    return any(words in text for text in texts())


def quoted() -> list[str]:
    """The words in the first columns of the page's tables."""
    rows = [
        line.split(" | ")[0]
        for line in (DOCS / "when-something-is-wrong.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]
    return [words for row in rows for words in re.findall(r"`([^`]+)`", row)]


def test_every_message_on_the_page_is_one_that_the_node_says() -> None:
    messages = quoted()
    assert len(messages) > 60
    assert [words for words in messages if not is_said(words)] == []


def test_the_search_for_messages_can_fail() -> None:
    assert not is_said("the flux capacitor is empty")


@functools.cache
def commands() -> set[str]:
    """Every command, with the name of its noun."""
    found: set[str] = set()

    def collect(group: object, prefix: str) -> None:
        for name, command in getattr(group, "commands", {}).items():
            found.add(f"{prefix}{name}")
            collect(command, f"{prefix}{name} ")

    collect(typer.main.get_command(all_commands()), "")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_is_one(page: str) -> None:
    text = re.sub(r"^# .*|#.*$", "", (DOCS / page).read_text(), flags=re.M)
    called = r"(?:^|`|/bin/|; )echonode(?: --config \S+)? ([a-z]+)(?: ([a-z]+))?"
    used = re.findall(called, text, re.M)
    for first, second in used:
        assert first in commands(), f"echonode {first}"
        if any(name.startswith(f"{first} ") for name in commands()) and second:
            assert f"{first} {second}" in commands(), f"echonode {first} {second}"
    assert used or page == "connect-a-pacs.md"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_file_on_a_page_is_there(page: str) -> None:
    text = (DOCS / page).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        linked = DOCS / name if name else DOCS / page
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert anchor in {_anchor(heading) for heading in headings}, target
    for path in re.findall(r"`(deploy/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_piece_of_settings_on_a_page_would_do(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^( *)```toml\n(.*?)```", (DOCS / page).read_text(), re.M | re.S)
    for number, (indent, block) in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(re.sub(f"^{indent}", "", block, flags=re.M))
        load_settings(file)
