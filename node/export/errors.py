"""What an export tells of when it cannot go on."""

from __future__ import annotations


class ExportError(Exception):
    """The export cannot be made; the message names the thing, the place and the next step."""


class RefusedError(ExportError):
    """What was asked for does not go together; nothing was written."""


class LeftOut(Exception):  # noqa: N818 - no error: it is told and the rest goes on
    """One object is not exported; the message says why in words that identify no one."""


class NotClean(Exception):  # noqa: N818 - what was found, not what went wrong
    """A file that was written does not pass its inspection; the message quotes no value."""
