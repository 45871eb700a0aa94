"""A worker that cannot run its packs says so when it starts, not at the first clip."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.packs import PackError
from models.views import View
from node.analysis import load_packs


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A view pack that is whole but names a network that is not there."""
    weights = b"weights"
    (tmp_path / "weights.safetensors").write_bytes(weights)
    (tmp_path / "manifest.json").write_text(
        json.dumps(
            {
                "name": "broken",
                "version": "1",
                "kind": "view",
                "title": "broken",
                "network": {"name": "nothing"},
                "weights_sha256": hashlib.sha256(weights).hexdigest(),
                "input": {"rows": 60, "columns": 80},
                "classes": [view.value for view in View],
                "licence": "none",
                "trained_on": "nothing",
                "training_command": "none",
            }
        )
    )
    return tmp_path


def test_loading_runs_each_network_once(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "node.analysis.worker._packs", None
    )  # what was loaded before comes back after

    with pytest.raises(PackError, match="network 'nothing' cannot be built"):
        load_packs([pack])


def test_a_worker_keeps_the_greetings_of_tensorflow_off_stderr_and_stdout() -> None:
    program = (
        "from node.settings import LogSettings\n"
        "from node.workers import prepare_worker\n"
        "prepare_worker([], 1, LogSettings())\n"
        "import os\n"
        "of_parent = os.getpriority(os.PRIO_PROCESS, os.getppid())\n"
        "assert os.nice(0) == min(19, of_parent + 10)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )

    assert (done.stdout, done.stderr) == ("", "")
