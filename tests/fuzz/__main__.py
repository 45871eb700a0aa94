"""``python -m tests.fuzz``: try many broken objects and print what became of them."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.campaign import Tally, campaign, keep_failures
from tests.fuzz.corpus import corpus
from tests.fuzz.trial import Verdict, broken_object, prepare, try_object

FAILURES = Path("var/fuzz")
_COLUMNS = ("objects", "kept", "turned away", "read", "not read", "died", "hung", "faults")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--objects", type=int, default=20_000, help="how many in all")
    parser.add_argument("--seeds", default="1,2,3,4", help="of the random source, with commas")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--repeat", metavar="SEED:NUMBER", help="try one object again, here")
    asked = parser.parse_args()
    # In memory where the system has such a folder: syncing is not what is tried here.
    shm = Path("/dev/shm")  # noqa: S108 - only the place; the folder is made by tempfile
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as made:
        if asked.repeat:
            return _repeat(asked.repeat, Path(made))
        seeds = [int(seed) for seed in asked.seeds.split(",")]
        until = time.monotonic() + 60 * asked.minutes
        return _many(asked.objects, seeds, Path(made), until)


def _repeat(which: str, folder: Path) -> int:
    seed, number = (int(part) for part in which.split(":"))
    name, kind, data = broken_object(corpus(folder), seed, number)
    FAILURES.mkdir(parents=True, exist_ok=True)
    path = FAILURES / f"{seed}-{number}-{kind}.dcm"
    path.write_bytes(data)
    console = Console()
    console.print(f"{kind} of {name}, {len(data)} bytes, written to {path}")
    prepare(str(folder))
    verdict = try_object(seed, number)
    console.print(verdict)
    return 1 if verdict.faults else 0


def _many(objects: int, seeds: list[int], folder: Path, until: float) -> int:
    console, start = Console(width=130), time.monotonic()
    tallies = []
    for place, seed in enumerate(seeds):
        share = objects // len(seeds) + (place < objects % len(seeds))
        part = folder / f"seed-{seed}"
        part.mkdir()

        def seen(verdict: Verdict, seed: int = seed) -> None:
            for fault in verdict.faults:
                print(f"{seed}:{verdict.number} {verdict.kind}: {fault}", file=sys.stderr)  # noqa: T201
            if verdict.number % 500 == 499:
                print(f"seed {seed}: {verdict.number + 1}", file=sys.stderr, flush=True)  # noqa: T201

        tally = campaign(range(share), seed, part, seen=seen, until=until)
        keep_failures(tally, FAILURES, part)
        tallies.append(tally)
        for complaint in tally.complaints():
            console.print(complaint, style="red", markup=False)
    _show(console, tallies, seeds, (time.monotonic() - start) / 60)
    return 1 if any(tally.complaints() for tally in tallies) else 0


def _show(console: Console, tallies: list[Tally], seeds: list[int], minutes: float) -> None:
    kinds: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for tally in tallies:
        for kind, row in tally.taken.items():
            kinds.setdefault(kind, Counter()).update(row)
        reasons.update(tally.reasons)
    table = Table("damage", *_COLUMNS, title="What became of broken objects")
    for kind, row in kinds.items():
        table.add_row(kind, *(str(row[column]) for column in _COLUMNS))
    whole = sum(kinds.values(), Counter())
    table.add_row("all", *(str(whole[column]) for column in _COLUMNS), style="bold")
    console.print(table)
    why = Table("reason", "objects", title="Why they were turned away or not read")
    for reason, count in reasons.most_common(40):
        why.add_row(reason, str(count))
    console.print(why)
    console.print(
        f"{whole['objects']} objects, seeds {', '.join(map(str, seeds))}, {minutes:.1f} min, "
        f"{sum(tally.cpu_s for tally in tallies):.0f} s of CPU in trials"
    )
    console.print(
        "growth of the process: "
        + ", ".join(f"{tally.growth_mb:+.1f} MB" for tally in tallies)
        + "; of it in the second half: "
        + ", ".join(f"{tally.late_growth_mb:+.1f} MB" for tally in tallies)
        + f"; most for one object: {max(t.most_peak_mb for t in tallies):.0f} MB, "
        f"{max(t.most_cpu_s for t in tallies):.2f} s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
