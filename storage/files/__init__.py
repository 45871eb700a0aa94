"""The file store: objects kept under the digest of their content, in a folder or elsewhere."""

from storage.files.address import Address
from storage.files.folder import FolderStore
from storage.files.opening import local, open_store, store_folder
from storage.files.store import Area, FileStore, FileStoreError, KeptFile

__all__ = [
    "Address",
    "Area",
    "FileStore",
    "FileStoreError",
    "FolderStore",
    "KeptFile",
    "local",
    "open_store",
    "store_folder",
]
