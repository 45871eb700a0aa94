"""What goes wrong with packs."""

from __future__ import annotations


class PackError(Exception):
    """A pack cannot be used; the message names the pack, the place and what to do."""
