"""How long `echonode status` takes on a node whose workers keep every core busy.

    python -m tests.benchmarks.status [--clips 40] [--rounds 10]

Sends copies of a real clip to a whole node with a worker a core, waits until all of them analyse,
and runs the command as a process: once as it is, so that the node answers, and once with the
node's window shut, so that it reads the database itself. An empty Python is the floor.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from node.window import SOCKET_NAME
from tests.benchmarks.rounds import Row, alternate, keep, parser
from tests.peers import send
from tests.running_node import REAL_CINE, RunningNode, echonode, variant, wait_until

_WAIT_S = 300.0


def seconds(command: Sequence[str]) -> float:
    """Wall-clock time of a command."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    options = parser(__doc__, rounds=10)
    options.add_argument("--clips", type=int, default=40, help="that wait to be analysed")
    given = options.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    os.environ["ECHONODE_ANALYSIS__WORKERS"] = str(cores)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        node = RunningNode(folder=folder, archives=[], quiet_s=3)
        with node.serving():
            for _ in range(given.clips):
                send(node.port, variant(folder, source=REAL_CINE), options=("-xy",))
            wait_until(
                lambda: node.ask("status")["recordings"]["analysing"] >= cores,
                what="every worker analyses",
                timeout_s=_WAIT_S,
                pause_s=1.0,
            )
            command = echonode("--config", str(node.config), "status")
            window = folder / "data" / SOCKET_NAME
            shut = window.with_name("shut")

            def read_rows() -> float:
                window.rename(shut)
                try:
                    return seconds(command)
                finally:
                    shut.rename(window)

            asked, read = alternate(lambda: seconds(command), read_rows, given.rounds)
            floor = tuple(seconds([sys.executable, "-c", ""]) for _ in range(given.rounds))
            left = node.ask("status")["recordings"]
    keep(
        "status",
        "`echonode status` while a worker a core analyses clips",
        [
            Row(
                what="`echonode status`, a whole process",
                against="the same, reading the database itself",
                wanted="<= 0.5 s",
                ours=asked,
                theirs=read,
            ),
            Row(
                what="`python -c ''`",
                against="",
                wanted="",
                ours=floor,
                theirs=(),
                note="the floor: no command written in Python starts faster here",
            ),
        ],
        conditions={
            "load": f"{cores} workers at {left['analysing']} clips, {left['queued']} more waiting"
        },
        folder=given.folder,
    )


if __name__ == "__main__":
    main()
