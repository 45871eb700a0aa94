"""``make bench``: how fast the node takes clips in, beside DCMTK's ``storescp``.

The same unmodified ``storescu`` sends the same files to each, over one association. The node syncs
every file and commits its row before it answers; ``storescp`` does neither. Machines differ and
are noisy: the ratio is what counts.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import structlog

from node.doors.scp import DimseDoor
from node.intake import Intake
from node.settings import DimseSettings
from storage import catalog
from storage.database import Database, migrate
from storage.files import FileStore
from tests.peers import send, storescp
from tests.running_node import variant


def main() -> int:
    """Run every benchmark and print what it measured."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--clips", type=int, default=100, help="how many clips to send")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the median is shown")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="echonode-bench-") as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        paths = [variant(folder / "clips", study_uid="2.25.1") for _ in range(options.clips)]
        size_mb = sum(path.stat().st_size for path in paths) / 1e6
        results = [
            _measure("node", _node, paths, folder, options.rounds, size_mb),
            _measure("storescp", _storescp, paths, folder, options.rounds, size_mb),
        ]
    if options.json:
        sys.stdout.write(json.dumps({"receive": results}) + "\n")
        return 0
    sys.stdout.write(f"receive {len(paths)} clips, {size_mb:.1f} MB, one association\n")
    for result in results:
        sys.stdout.write(
            f"  {result['peer']:10} {result['seconds']:7.2f} s   "
            f"{result['clips_per_s']:7.1f} clips/s   {result['mb_per_s']:6.1f} MB/s\n"
        )
    return 0


Receiver = Callable[[Path], AbstractContextManager[int]]  #: takes a folder, gives a port


def _measure(
    peer: str,
    receiver: Receiver,
    paths: list[Path],
    folder: Path,
    rounds: int,
    size_mb: float,
) -> dict[str, float | str]:
    taken = []
    for number in range(rounds):
        with receiver(folder / f"{peer}-{number}") as port:
            began = time.perf_counter()
            sent = send(port, *paths, options=("-xy",))
            taken.append(time.perf_counter() - began)
            if sent.returncode != 0:
                raise SystemExit(f"{peer} did not take everything: {sent.stderr[-300:]}")
    seconds = statistics.median(taken)
    return {
        "peer": peer,
        "seconds": seconds,
        "clips_per_s": len(paths) / seconds,
        "mb_per_s": size_mb / seconds,
    }


@contextmanager
def _node(folder: Path) -> Iterator[int]:
    """The door and the store of a node, without its workers."""
    files = FileStore(folder)
    url = f"sqlite:///{folder / 'echonode.db'}"
    migrate(url)
    database = Database(url)
    door = DimseDoor(
        DimseSettings(host="127.0.0.1", port=0), Intake(database, files), str(files.incoming_folder)
    )
    door.start()
    try:
        yield door.port
        with database.read() as session:
            (study,) = catalog.list_studies(session)
        sys.stderr.write(f"node kept {study.images} clips\n")
    finally:
        door.stop()
        database.close()


@contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    with storescp(folder) as archive:
        yield archive.port


if __name__ == "__main__":
    sys.exit(main())
