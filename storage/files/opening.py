"""From an address to what lies there."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.files.address import Address
from storage.files.folder import FolderStore
from storage.files.store import FileStore, FileStoreError


def open_store(url: str, data_dir: Path) -> FileStore:
    """The file store at an address.

    Parameters
    ----------
    url
        ``file:///…`` or a path: a folder that several nodes may share, mounted at the same place.
        ``s3://bucket/…``: an object store, see :class:`~storage.files.address.Address`. Empty:
        ``data_dir`` itself, of one node alone.
    data_dir
        The node's own folder.

    Raises
    ------
    FileStoreError
        If it cannot be opened.
    """
    folder = store_folder(url, data_dir)
    if folder is None:
        from storage.files.objects import ObjectStore

        return ObjectStore(_address(url), data_dir)
    if folder.absolute() == data_dir.absolute():
        return FolderStore(data_dir)
    # Every node clears what it was receiving when it stopped, and nothing of another's.
    node = f"{socket.gethostname()}\n{data_dir.resolve()}"
    return FolderStore(folder, arriving=hashlib.sha256(node.encode()).hexdigest()[:16])


def store_folder(url: str, data_dir: Path) -> Path | None:
    """The folder that an address names; None where it names an object store."""
    if not url:
        return data_dir
    scheme, there, path = url.partition("://")
    return None if scheme == "s3" else Path(path if there else url)


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
    if not source.startswith("s3://"):
        yield Path(source)
        return
    from storage.files.objects import fetched_from

    with fetched_from(source) as path:
        yield path


def _address(url: str) -> Address:
    try:
        return Address.parse(url)
    except ValueError as error:
        raise FileStoreError(f"store_url: {error}") from error
