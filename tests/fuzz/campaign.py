"""Many broken objects, and a table of what became of them."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from node.executor import WorkerDied, WorkerProcesses, WorkerTimedOut
from tests.fuzz.corpus import corpus
from tests.fuzz.trial import Verdict, broken_object, check_store, prepare, try_object

TIME_LIMIT_S = 240.0
"""An object that takes longer has hung, even where the machine has other things to do."""
_WAITING = 8


@dataclass
class Tally:
    """What became of the objects so far."""

    verdicts: int = 0
    died: list[tuple[int, int, str]] = field(default_factory=list)
    hung: list[tuple[int, int, str]] = field(default_factory=list)
    faulty: list[Verdict] = field(default_factory=list)
    taken: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: Counter[str] = field(default_factory=Counter)
    store_faults: tuple[str, ...] = ()
    rss_mb: list[float] = field(default_factory=list)  #: after every object, from the first look on
    most_peak_mb: float = 0.0
    most_cpu_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self.verdicts += 1
        row = self.taken[verdict.kind]
        row["objects"] += 1
        row["kept" if verdict.taken == "kept" else "turned away"] += 1
        row["read" if verdict.read == "read" else "not read"] += 1
        if verdict.faults:
            row["faults"] += 1
            self.faulty.append(verdict)
        for what, reason in (("intake", verdict.taken), ("reading", verdict.read)):
            if reason not in ("kept", "read", "fault"):
                self.reasons[f"{what}: {kind_of_reason(reason)}"] += 1
        if verdict.rss_mb:
            self.rss_mb.append(verdict.rss_mb)
        self.most_peak_mb = max(self.most_peak_mb, verdict.peak_mb)
        self.most_cpu_s = max(self.most_cpu_s, verdict.cpu_s)
        self.cpu_s += verdict.cpu_s

    @property
    def growth_mb(self) -> float:
        """How much larger the process is than after its first hundred objects."""
        return self.rss_mb[-1] - self.rss_mb[0] if self.rss_mb else 0.0

    @property
    def late_growth_mb(self) -> float:
        """The same since its middle: codecs, tables and caches have all been seen by then."""
        return self.rss_mb[-1] - self.rss_mb[len(self.rss_mb) // 2] if self.rss_mb else 0.0

    def complaints(self) -> list[str]:
        """Everything that may never happen, each with the command that repeats it."""
        found = [f"died: {what} ({_again(s, n)})" for s, n, what in self.died]
        found += [f"hung: {what} ({_again(s, n)})" for s, n, what in self.hung]
        found += [
            f"{v.kind} of {v.base}: {fault} ({_again(v.seed, v.number)})"
            for v in self.faulty
            for fault in v.faults
        ]
        return [*found, *self.store_faults]


def campaign(
    objects: range,
    seed: int,
    folder: Path,
    *,
    seen: Callable[[Verdict], None] = lambda _: None,
    until: float = math.inf,
) -> Tally:
    """Try objects of one seed, one after another, in a process that is replaced when it dies.

    After ``until`` (of the monotonic clock) no more are tried.
    """
    bases = corpus(folder)
    tally = Tally()
    with WorkerProcesses(
        1, initializer=prepare, initargs=(str(folder),), time_limit_s=TIME_LIMIT_S
    ) as pool:
        for number, future in _submitted(pool, objects, seed, until):
            try:
                verdict = future.result()
            except (WorkerDied, WorkerTimedOut) as error:
                name, kind, _ = broken_object(bases, seed, number)
                hung = isinstance(error, WorkerTimedOut) or "SIGPROF" in str(error)
                kept = tally.hung if hung else tally.died
                kept.append((seed, number, f"{kind} of {name}: {error}"))
                tally.taken[kind]["objects"] += 1
                tally.taken[kind]["hung" if hung else "died"] += 1
            else:
                tally.add(verdict)
                seen(verdict)
        tally.store_faults = pool.submit(check_store).result()
    return tally


def keep_failures(tally: Tally, folder: Path, corpus_folder: Path) -> None:
    """Write the objects that came to a bad end, so that they can be looked at and sent again."""
    bases = corpus(corpus_folder)
    bad = {(seed, number) for seed, number, _ in (*tally.died, *tally.hung)}
    bad |= {(verdict.seed, verdict.number) for verdict in tally.faulty}
    for seed, number in sorted(bad):
        folder.mkdir(parents=True, exist_ok=True)
        name, kind, data = broken_object(bases, seed, number)
        stem = f"{seed}-{number}-{kind}"
        (folder / f"{stem}.dcm").write_bytes(data)
        (folder / f"{stem}.txt").write_text(f"base {name}\n{_again(seed, number)}\n")


def kind_of_reason(reason: str) -> str:
    """A reason without what differs from object to object."""
    plain = re.sub(r"'[^']*'", "'…'", reason)
    plain = re.sub(r"-?\d[\d.]*", "N", plain)
    return plain.split(": send")[0][:90]


def _again(seed: int, number: int) -> str:
    return f"python -m tests.fuzz --repeat {seed}:{number}"


def _submitted(
    pool: WorkerProcesses, objects: range, seed: int, until: float
) -> Iterator[tuple[int, Future[Verdict]]]:
    """A few ahead, so that the process never waits."""
    waiting: list[tuple[int, Future[Verdict]]] = []
    for number in objects:
        if time.monotonic() > until:
            break
        waiting.append((number, pool.submit(try_object, seed, number)))
        if len(waiting) >= _WAITING:
            yield waiting.pop(0)
    yield from waiting
