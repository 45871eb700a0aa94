"""Of what people were told: apart from the telling, so that whoever looks loads nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class ToldError(Exception):
    """What was told is not known; the message says what to do."""


def told_of(memory: Path) -> list[dict[str, Any]]:
    """The troubles of which people were told and not yet that they are over.

    Parameters
    ----------
    memory
        The file in which :class:`node.watch.alerts.Alerts` keeps them.

    Raises
    ------
    ToldError
        If the file cannot be read.
    """
    try:
        known = json.loads(memory.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ToldError(
            "alerts.json in data_dir cannot be read; delete it, and the node tells anew"
        ) from error
    return list(known)
