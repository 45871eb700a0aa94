"""What a worker runs in the tests of clips that a codec does not survive. Quick to import."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HANGS, CRASHES = "HANGS", "CRASHES"


def name_view(path: str) -> Any:
    """Hang, crash or answer, as the clip's description says."""
    data = Path(path).read_bytes()
    if HANGS.encode() in data:
        time.sleep(600)
    if CRASHES.encode() in data:
        ctypes.string_at(0)
    return SimpleNamespace(view=None, refused="this one was read to its end")


def analyse(_path: str, **_options: object) -> Any:
    """Never called: no clip gets a view."""
    raise AssertionError("there is no view to analyse")
