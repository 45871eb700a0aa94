"""What both halves of the store can raise."""

from __future__ import annotations


class StorageUnavailable(Exception):  # noqa: N818  a state of the store, not a mistake of the caller
    """The database or the file store does not take or give something now.

    A door that meets it answers that it is out of resources, so that the sender keeps its copy.
    """
