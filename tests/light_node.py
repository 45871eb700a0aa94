"""A whole node in this process, with stand-ins for its workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node import app
from node.dispatch import Work
from node.settings import Settings
from tests.faults import light


@contextmanager
def light_node(
    patch: pytest.MonkeyPatch, folder: Path, **sections: Any
) -> Iterator[tuple[app.Node, Settings]]:
    """Run a node on free ports of loopback; studies are complete at once."""
    patch.setattr(app, "prepare_worker", light.prepare)
    patch.setattr(app, "WorkerProcesses", light.ThreadedWorkers)
    patch.setattr(app, "_check_packs", lambda _settings: ())
    patch.setattr(
        app, "Work", lambda **_ignored: Work(name_view=light.name_view, analyse=light.analyse)
    )
    whole = {
        "data_dir": folder,
        "dimse": {"port": 0},
        "http": {"port": 0, "anyone_may_look": True},
        "study": {"quiet_s": 1.0, "released_quiet_s": 0.2},
        "analysis": {"workers": 1},
        "delivery": {"first_pause_s": 0.5},
        "disk": {"keep_free_bytes": 0},
        **sections,
    }
    settings = Settings(**whole)
    with app.Node(settings) as node:
        yield node, settings
