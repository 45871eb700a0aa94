"""From an address to what lies there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.files.store import FileStoreError


@contextmanager
def local(source: str) -> Iterator[Path]:
    """What :meth:`FileStore.source` named, as a file of this machine, within the context.

    A path is given back as it is, and not looked at. What lies in an object store is fetched into a
    private file that goes afterwards.

    Raises
    ------
    FileStoreError
        If it cannot be fetched.
    """
    scheme, there, _ = source.partition("://")
    if not there:
        yield Path(source)
        return
    raise FileStoreError(f"no way to read {scheme}:// is known here; use a folder")
