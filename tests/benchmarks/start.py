"""How long a worker takes from its start until it waits for its first clip.

    python -m tests.benchmarks.start [--rounds 5]

A process as the node starts it, with all shipped packs and all cores, ends as soon as it is ready:
with its networks kept as they run, and with a folder that is empty, where it makes them anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from models.packs import shipped_packs
from tests.benchmarks.rounds import Row, alternate, keep, parser

_PROGRAM = """
import sys
from pathlib import Path
from node.sections import LogSettings
from node.workers import prepare_worker
prepare_worker(sys.argv[2:], 1, LogSettings(), Path(sys.argv[1]))
"""


def seconds(prepared: Path, packs: Sequence[Path]) -> float:
    """Wall-clock time until a worker is ready."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(prepared), *map(str, packs)],
        check=True,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    options = parser(__doc__)
    given = options.parse_args(arguments)
    packs = shipped_packs()
    with tempfile.TemporaryDirectory() as name:
        kept, empty = Path(name, "kept"), Path(name, "empty")
        seconds(kept, packs)

        def anew() -> float:
            shutil.rmtree(empty, ignore_errors=True)
            return seconds(empty, packs)

        ours, theirs = alternate(lambda: seconds(kept, packs), anew, given.rounds)
        size_mb = sum(file.stat().st_size for file in kept.iterdir()) / 1e6
    keep(
        "start",
        "A worker from its start until it waits for clips",
        [
            Row(
                what=f"networks kept as they run, {size_mb:.0f} MB",
                against="the same, made anew",
                wanted="",
                ours=ours,
                theirs=theirs,
            )
        ],
        conditions={"packs": f"the {len(packs)} that are shipped", "threads": "of all cores"},
        folder=given.folder,
    )


if __name__ == "__main__":
    main()
