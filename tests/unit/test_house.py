"""The house rules: who may import whom, and who must not wake TensorFlow."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOMS = ("models", "storage", "node")


def imported_rooms(source: Path) -> Iterator[tuple[int, str]]:
    """Every room that a file imports from, anywhere in it, with the line."""
    for part in ast.walk(ast.parse(source.read_text(), filename=str(source))):
        if isinstance(part, ast.Import):
            names = [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"{source}:{part.lineno} imports by dots; write the whole name"
            names = [part.module or ""]
        else:
            continue
        for name in names:
            room = name.split(".", maxsplit=1)[0]
            if room in (*ROOMS, "tests"):
                yield part.lineno, room


@pytest.mark.parametrize(
    ("room", "may"), [("models", {"models"}), ("storage", {"storage"}), ("node", set(ROOMS))]
)
def test_a_room_imports_only_from_the_rooms_that_it_may_know(room: str, may: set[str]) -> None:
    sources = sorted((REPOSITORY / room).rglob("*.py"))
    assert sources
    wrong = [
        f"{source.relative_to(REPOSITORY)}:{line} imports {name}"
        for source in sources
        for line, name in imported_rooms(source)
        if name not in may
    ]
    assert wrong == []


def modules_of(room: str) -> list[str]:
    """Every module of a room, but for the scripts that only their engine can run."""
    return [
        ".".join(source.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for source in sorted((REPOSITORY / room).rglob("*.py"))
        if source.name not in ("env.py", "__main__.py")
    ]


LIGHT = [
    *modules_of("storage"),
    "models.finding",
    "models.tasks",
    "models.views",
    "models.packs",
    "models.clip",
    "node.settings",
    "node.cli",
]


def test_what_every_command_imports_does_not_wake_tensorflow() -> None:
    there = [name for name in LIGHT if importlib.util.find_spec(name) is not None]
    assert "storage.catalog" in there
    program = (
        "import importlib, sys\n"
        f"for name in {there!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'tensorflow', 'keras'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {sorted(heavy)}'\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_every_folder_of_code_is_a_package_so_that_a_wheel_carries_it() -> None:
    missing = {
        str(source.parent.relative_to(REPOSITORY))
        for room in ROOMS
        for source in (REPOSITORY / room).rglob("*.py")
        if not (source.parent / "__init__.py").is_file()
    }
    assert missing == set()
