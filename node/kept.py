"""What the parts of the node want of a kept file, wherever it lies.

A file that is not there is an error of its own; a store that does not answer now stays a
:class:`~storage.files.FileStoreError`, so that whoever asked can wait for it.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from models.clip import ClipError, read_header
from storage.files import FileStore, FileStoreError


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
