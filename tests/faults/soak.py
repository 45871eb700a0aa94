"""Half an hour of everything at once, then the books; and two hundred kills.

    python -m tests.faults.soak [--minutes 30] [--kills 200] [--out var/soak]

Writes soak.json, soak.png, kills.json and crashes.json to the folder and prints the tables. Ends
with 1 where something was lost, doubled or grew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from sqlalchemy import text

from storage import catalog
from storage.states import DeliveryState, StudyState
from tests.faults import crashes, kills
from tests.faults.archive import Register, archive_process
from tests.faults.books import not_kept, opened
from tests.faults.load import Load
from tests.faults.prepared import PreparedNode
from tests.faults.samples import Sample, Sampler, Trend, plot, table, trends
from tests.peers import Archive, free_port
from tests.running_node import RunningNode

_ENDS = {StudyState.DONE, StudyState.FAILED, StudyState.IGNORED}
#: What must not grow. A database grows with what is kept, and what waits comes and goes.
_MUST_BE_FLAT = ("rss_mb", "files", "threads", "wal_mb")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a soak came to. ``broken`` names every promise that did not hold."""

    minutes: float
    counted: dict[str, int]
    sent: int
    acknowledged: int
    refused: dict[str, int]  #: the words of an answer, and how many got it
    unanswered: dict[str, int]  #: the sender's own words for why
    studies: dict[str, int]  #: by state
    results: int
    sent_twice: int  #: results that came to the archive again, byte for byte
    quiet_after_s: float
    trends: list[Trend]
    broken: list[str]
    machine: str
    at: str


def soak(
    node: RunningNode,
    folder: Path,
    archive_port: int,
    *,
    minutes: float,
    seed: int = 5,
    pace: float = 1.0,
    clips: bool = True,
    every_s: float = 5.0,
    quiet_within_s: float = 1800.0,
    told: Callable[[str], None] = lambda _line: None,
) -> tuple[Outcome, list[Sample]]:
    """Load a running node for so long, let it come to rest, and check the books."""
    pid = node.pid if isinstance(node, PreparedNode) else node.process.pid if node.process else None
    assert pid is not None
    outbox = folder / "sent"
    outbox.mkdir()
    register = Register(folder / "arrived.jsonl")
    duration_s = minutes * 60
    load = Load(
        node,
        pid,
        archive_port,
        folder / "arrived.jsonl",
        outbox,
        seed=seed,
        pace=pace,
        clips=clips,
        kill_workers_for_s=duration_s / 2,
    )
    sampler = Sampler(folder / "data", pid, every_s=every_s)
    begin = time.monotonic()
    sampler.start()
    load.start()
    while (spent := time.monotonic() - begin) < duration_s:
        time.sleep(min(60.0, duration_s - spent))
        told(f"{(time.monotonic() - begin) / 60:.1f} min: {dict(load.ledger.counted)}")
    load.stop()
    sampler.stop()
    told("the load has ended; waiting for quiet")
    broken = list(load.errors)
    with archive_process(archive_port, folder / "arrived.jsonl"):
        quiet_after_s = _wait_for_quiet(folder / "data", quiet_within_s)
    if quiet_after_s is None:
        broken.append(f"not every study had an end {quiet_within_s:.0f} s after the load")
    ledger = load.ledger
    found = trends(sampler.samples, workers_from_s=duration_s / 2)
    broken += [
        f"{line.name} grows by {line.slope_per_h:.1f} an hour"
        for line in found
        if line.name.endswith(_MUST_BE_FLAT) and not line.flat
    ]
    missing = set(ledger.sent) - set(ledger.acknowledged) - {*ledger.refused, *ledger.unanswered}
    broken += [f"nothing is known of {uid}" for uid in missing]
    broken += not_kept(folder / "data", ledger.acknowledged.values())
    studies, results, twice, wrong = _results(folder / "data", register)
    outcome = Outcome(
        minutes=minutes,
        counted=dict(ledger.counted),
        sent=len(ledger.sent),
        acknowledged=len(ledger.acknowledged),
        refused=_tally(ledger.refused),
        unanswered=_tally(ledger.unanswered),
        studies=studies,
        results=results,
        sent_twice=twice,
        quiet_after_s=quiet_after_s or quiet_within_s,
        trends=found,
        broken=broken + wrong,
        machine=_machine(),
        at=datetime.now(UTC).isoformat(timespec="minutes"),
    )
    return outcome, sampler.samples


def _wait_for_quiet(data_dir: Path, within_s: float) -> float | None:
    begin = time.monotonic()
    while time.monotonic() - begin < within_s:
        with opened(data_dir) as database, database.read() as session:
            states = set(session.execute(text("SELECT DISTINCT state FROM study")).scalars())
        if states <= {str(state.value) for state in _ENDS}:
            return time.monotonic() - begin
        time.sleep(1.0)
    return None


def _results(data_dir: Path, register: Register) -> tuple[dict[str, int], int, int, list[str]]:
    """Each study has an end, and each of its results is at the archive under one set of bytes."""
    arrived: dict[str, list[str]] = {}
    for item in register.all():
        arrived.setdefault(item.uid, []).append(item.sha256)
    states: dict[str, int] = {}
    broken = []
    results = 0
    with opened(data_dir) as database, database.read() as session:
        uids = session.execute(text("SELECT study_instance_uid FROM study")).scalars().all()
        for uid in uids:
            detail = catalog.study_detail(session, uid)
            states[detail.study.state.value] = states.get(detail.study.state.value, 0) + 1
            if detail.study.state is StudyState.FAILED:
                broken.append(f"study {uid} failed: {detail.study.reason}")
            results += len(detail.results)
            delivered = {
                item.result_id
                for item in detail.deliveries
                if item.state in (DeliveryState.DELIVERED, DeliveryState.REPLACED)
            }
            broken += [
                f"result {item.sop_instance_uid} is not at the archive"
                for item in detail.results
                if item.sop_instance_uid not in arrived or item.id not in delivered
            ]
    broken += [
        f"result {uid} went out with different bytes"
        for uid, digests in arrived.items()
        if len(set(digests)) > 1
    ]
    return states, results, sum(len(digests) - 1 for digests in arrived.values()), broken


def _tally(reasons: dict[str, str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for reason in reasons.values():
        counted[reason] = counted.get(reason, 0) + 1
    return counted


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def half_hour(minutes: float, out: Path, console: Console) -> bool:
    """The mixed load on `echonode serve`; tells whether everything held."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        node = RunningNode(folder=folder, archives=[Archive(ae_title="ARCHIVE", port=port)])
        with node.serving():
            outcome, samples = soak(node, folder, port, minutes=minutes, told=console.print)
        (out / "node.log").write_text((folder / "node.log").read_text())
    (out / "soak.json").write_text(
        json.dumps(
            {"outcome": asdict(outcome), "samples": [asdict(sample) for sample in samples]},
            indent=1,
        )
    )
    plot(samples, out / "soak.png", title=f"{minutes:g} minutes of mixed load with faults")
    console.print(table(outcome.trends))
    shown = {name: value for name, value in asdict(outcome).items() if name != "trends"}
    console.print(shown)
    return not outcome.broken


def main() -> None:
    """Soak, then crash at every step, then kill at random."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="0 leaves the load out")
    parser.add_argument("--kills", type=int, default=200, help="0 leaves kills and crashes out")
    parser.add_argument("--out", type=Path, default=Path("var/soak"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    held = True
    if options.minutes:
        held = half_hour(options.minutes, options.out, console)
    if options.kills:
        held = crashes.every_step(options.out, console) and held
        held = kills.at_random(options.kills, 5, options.out, console) and held
    if not held:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
