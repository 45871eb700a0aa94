"""A real small file system, for tests of a disk that is full or cannot be written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*arguments: str) -> str:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes at a folder; skips where this user may mount none."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        refused = _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder))
    except FileNotFoundError:
        refused = "there is no `mount` here"
    if refused:
        pytest.skip(f"no small file system ({refused}); run as root, or under `unshare -rm`")
    try:
        yield folder
    finally:
        _unmount(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that can only be read, for who opens files in it from now on."""
    refused = _mount("--bind", str(folder), str(folder))
    assert not refused, refused
    try:
        refused = _mount("-o", "remount,bind,ro", str(folder))
        assert not refused, refused
        yield
    finally:
        _unmount(folder)
