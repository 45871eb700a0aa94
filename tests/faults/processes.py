"""What /proc says of a node's processes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a process holds."""

    rss_mb: float
    open_files: int
    threads: int


def usage(pid: int) -> Usage | None:
    """What a process holds now; None where it has ended."""
    place = Path(f"/proc/{pid}")
    try:
        resident = int((place / "statm").read_text().split()[1]) * _PAGE_BYTES
        return Usage(
            rss_mb=resident / 1e6,
            open_files=len(list((place / "fd").iterdir())),
            threads=len(list((place / "task").iterdir())),
        )
    except OSError:
        return None


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def workers(pid: int) -> list[int]:
    """A node's worker processes: its children that run a worker's code, or theirs."""
    found = []
    for child in children(pid):
        line = command_line(child)
        if "forkserver" in line:
            found += children(child)
        elif "spawn_main" in line:
            found.append(child)
    return found


def command_line(pid: int) -> str:
    """How a process was started; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
