"""How fast objects are taken in, beside DCMTK's `storescp`, in one run and in turn.

    python -m tests.benchmarks.receive [--objects 60] [--rounds 5]

Sends copies of the real 120-frame cine (6.1 MB, JPEG) on one association by an unmodified
`storescu`: to a whole node (`echonode serve`, each object synced and committed before success) and
to `storescp` (which syncs nothing). Prints each round, the medians and the ratio.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from tests.peers import send, storescp
from tests.running_node import LONG_CINE, RunningNode


def copies(folder: Path, count: int) -> list[Path]:
    """Copies of one real cine, each with an identity of its own, in one study."""
    dataset = dcmread(LONG_CINE)
    dataset.StudyInstanceUID = generate_uid()
    paths = []
    for number in range(count):
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def seconds_to_send(port: int, paths: list[Path]) -> float:
    """Wall-clock time of one `storescu` on one association."""
    start = time.perf_counter()
    sent = send(port, *paths, options=("-xy",))
    elapsed = time.perf_counter() - start
    if sent.returncode != 0:
        sys.exit(f"storescu failed: {sent.stderr[-500:]}")
    return elapsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--objects", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    console = Console()
    node_s, peer_s = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # No destination and a long quiet time: only the way in is measured.
        node = RunningNode(folder=folder, archives=[], quiet_s=3600)
        with node.serving(), storescp(folder / "kept") as peer:
            for number in range(options.rounds):
                batch = folder / f"batch-{number}"
                batch.mkdir()
                paths = copies(batch, options.objects)
                size_mb = sum(path.stat().st_size for path in paths) / 1e6
                peer_s.append(seconds_to_send(peer.port, paths))
                node_s.append(seconds_to_send(node.port, paths))
                console.print(
                    f"round {number + 1}: echonode {node_s[-1]:.2f} s, storescp {peer_s[-1]:.2f} s"
                )
    ratios = [peer / own for peer, own in zip(peer_s, node_s, strict=True)]
    table = Table(title=f"{options.objects} cines, {size_mb:.0f} MB, one association")
    for heading in ("", "median s", "min s", "max s", "MB/s"):
        table.add_column(heading)
    for label, values in (("echonode", node_s), ("DCMTK storescp", peer_s)):
        median = statistics.median(values)
        table.add_row(
            label,
            f"{median:.2f}",
            f"{min(values):.2f}",
            f"{max(values):.2f}",
            f"{size_mb / median:.0f}",
        )
    console.print(table)
    console.print(
        f"storescp takes {statistics.median(ratios):.2f} times as long "
        f"({min(ratios):.2f} to {max(ratios):.2f}); {platform.processor() or platform.machine()}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
