"""What commands say: results on stdout, all else on stderr, and what exit codes mean."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    from node.settings import Settings


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0  #: done
    FAILED = 1  #: tried, and it did not work
    USAGE = 2  #: a wrong option, argument or setting
    NOT_FOUND = 3  #: no such study, pack, object or file
    NOT_REACHABLE = 4  #: no database there, or no node running
    INTERRUPTED = 130  #: stopped by Ctrl-C


class Problem(Exception):  # noqa: N818 - not every one is an error of ours
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def settings_of(context: typer.Context) -> Settings:
    """The settings that the command was started with.

    Raises
    ------
    SettingsError
        If they are wrong.
    """
    from node.settings import load_settings

    return load_settings(config_file(context))


def config_file(context: typer.Context) -> Path | None:
    """What ``--config`` said."""
    file: Path | None = context.find_root().obj
    return file


def say(line: str) -> None:
    """A line for the person at the terminal, on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def complain(error: OSError) -> ExitCode:
    """Say, at the edge of the process, that stdout's disk is full or a folder has gone."""
    say(f"echonode: {error.filename or 'output'}: {error.strerror}")
    return ExitCode.FAILED


def print_json(value: Any) -> None:
    """Any of our records as JSON on stdout."""
    print_text(json.dumps(plain(value), ensure_ascii=False, indent=2))


def print_text(text: str) -> None:
    """A line or a page on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    long: Sequence[str] = (),
) -> None:
    """A table on stdout; without rows, only its title and that there is nothing.

    ``long`` names the columns that may be folded on a narrow terminal.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in long)
    empty = True
    for row in rows:
        empty = False
        table.add_row(*(cell(value) for value in row))
    if empty:
        print_text(f"{title}: none")
        return
    # Away from a terminal a line must stay a line, for grep and its like.
    width = None if sys.stdout.isatty() else 400
    Console(file=sys.stdout, width=width, highlight=False, markup=False).print(table)


def cell(value: object) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(value)


def plain(value: Any) -> Any:
    """Records, enums, times and paths as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Send to stderr whatever libraries and worker processes write to stdout meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
