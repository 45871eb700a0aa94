"""What the parts of the node want of a kept file, wherever it lies.

A file that is not there is an error of its own; a store that does not answer now stays a
:class:`~storage.files.FileStoreError`, so that whoever asked can wait for it.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from models.clip import ClipError, read_header
from node.settings import Settings
from storage import catalog
from storage.database import Database
from storage.files import Area, FileStore, FileStoreError, open_store, store_folder


def check_mounted(settings: Settings, database: Database) -> None:
    """Make no store where the volume of the one that is known is missing.

    Raises
    ------
    FileStoreError
        If its folders are not there, and rows speak of what is in them.
    """
    folder = store_folder(settings.store_url, settings.data_dir)
    if folder is None or all((folder / area).is_dir() for area in Area):
        return
    with database.read() as session:
        if catalog.newest_time(session) is not None:
            raise FileStoreError(
                f"file store {folder}: its folders are not there, and the database knows what is "
                "kept in them; see that its volume is mounted"
            )


def elsewhere(settings: Settings) -> FileStore | None:
    """The store for one who only looks, where it is not in ``data_dir``; makes no folder.

    Raises
    ------
    FileStoreError
        If its folders are not there.
    """
    if not settings.store_url:
        return None
    folder = store_folder(settings.store_url, settings.data_dir)
    needed = [settings.data_dir] if folder is None else [folder / area for area in Area]
    for one in needed:
        if not one.is_dir():
            raise FileStoreError(
                f"the folder {one} is not there; see that its volume is mounted, or let the first "
                "start make it"
            )
    return open_store(settings.store_url, settings.data_dir)


def header_of(files: FileStore, key: str) -> Dataset:
    """See :func:`models.clip.read_header`; of a file elsewhere little more than this is fetched.

    Raises
    ------
    ClipError
        If the file is not there, or is not a DICOM object, or is broken beyond reading.
    FileStoreError
        If the store cannot be read.
    """
    try:
        with files.open(key) as file:
            return read_header(file)
    except FileStoreError as error:
        if error.missing:
            raise ClipError("the file cannot be opened: it is not in the store") from error
        raise


def without_samples(header: Dataset) -> Dataset:
    """The header of an ECG without its recordings, which it shares with nobody from then on."""
    for group in header.get("WaveformSequence") or ():
        if "WaveformData" in group:
            del group.WaveformData
    return header


def bytes_of(files: FileStore, key: str) -> bytes:
    """All of a file.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    FileStoreError
        If the store cannot be read.
    """
    try:
        with files.open(key) as file:
            return file.read()
    except FileStoreError as error:
        if error.missing:
            raise FileNotFoundError(str(error)) from error
        raise
