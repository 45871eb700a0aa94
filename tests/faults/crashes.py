"""Kills a node before chosen steps of a study's life, and sees how the study ends all the same.

    python -m tests.faults.crashes [--out var/soak]

learns the steps from a life that nothing disturbs, and then kills before each of them in turn.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from storage import catalog
from storage.states import DeliveryState, StudyState
from tests.faults.archive import Register, counting_archive
from tests.faults.books import half_received, not_kept, opened
from tests.faults.objects import Sender, Sent, make_object
from tests.faults.prepared import PreparedNode, PreparedNodes
from tests.faults.steps import KillAt
from tests.peers import Archive, wait_until

RESULTS = 3  # of a study with one clip: report, cine, summary page
_ENDS = (StudyState.DONE, StudyState.FAILED, StudyState.IGNORED)
_LONGEST_S = 180.0  # for what takes two seconds where nothing else runs
#: Of the one destination: an answer that a crash took away is waited for no longer than this.
_ANSWER_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a run of crashes came to. ``broken`` names each promise that was broken, and where."""

    crashes: int
    steps: tuple[str, ...]  #: before which the node died
    sent_twice: int  #: results that reached the archive a second time, byte for byte
    broken: tuple[str, ...]
    seconds: float


class Crashes:
    """A node and an archive; a study for each crash."""

    def __init__(
        self,
        nodes: PreparedNodes,
        folder: Path,
        archive: Archive,
        register: Register,
        *,
        told: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._told = told
        self._folder = folder
        self._register = register
        self._random = random.Random(7)  # noqa: S311 - makes UIDs and pixels
        self._node = PreparedNode(
            folder=folder,
            archives=[archive],
            nodes=nodes,
            quiet_s=0.3,
            commitment_timeout_s=_ANSWER_S,
        )
        self._node.write_config()
        self._died_before: list[str] = []
        self._broken: list[str] = []
        self._sent_twice = 0
        self._sendings = 0

    def whole_life(self) -> tuple[list[str], list[str]]:
        """The steps of a start, and those of a study from its arrival to its end."""
        self._start()
        start = self._steps()
        sent = self._new_study()
        self._send(sent)
        self._wait_for_end(sent, "nowhere")
        life = self._steps()[len(start) :]
        return start, life

    def run(self, points: Sequence[KillAt], *, in_start: Sequence[KillAt] = ()) -> Figures:
        """A crash at each of these points of a study's life, and of a start."""
        begin = time.monotonic()
        for point in in_start:
            self._node.kill()
            self._node.start(kill_at=point)
            wait_until(
                lambda: self._node.ended, what=f"the node dies at {point}", timeout_s=_LONGEST_S
            )
            self._died_before.append(self._steps()[-1])
        self._start()
        for number, point in enumerate(points, 1):
            point.arm(self._node.arm)
            sent = self._new_study()
            acknowledged = self._send(sent)
            wait_until(
                lambda: self._node.ended, what=f"the node dies at {point}", timeout_s=_LONGEST_S
            )
            where = self._steps()[-1]
            self._died_before.append(where)
            if acknowledged:
                self._complain(where, *not_kept(self._folder / "data", [sent]))
            self._start()
            if not acknowledged and not self._send(sent):
                self._complain(where, "the second sending was not acknowledged")
            self._wait_for_end(sent, where)
            self._told(f"crash {number}: before {where!r}")
        self._node.kill()
        return Figures(
            crashes=len(in_start) + len(points),
            steps=tuple(self._died_before),
            sent_twice=self._sent_twice,
            broken=tuple(self._broken),
            seconds=round(time.monotonic() - begin, 1),
        )

    def _start(self) -> None:
        if self._node.ended:
            self._node.start(steps=True)
            self._node.wait_listening()

    def _steps(self) -> list[str]:
        return self._node.step_log.read_text().splitlines()

    def _new_study(self) -> Sent:
        return make_object(self._folder, self._random, frames=4)

    def _send(self, sent: Sent) -> bool:
        self._sendings += 1
        log = self._folder / f"storescu-{self._sendings}.txt"
        return Sender(self._node.port, [sent], log).wait() == {sent.uid: "Success"}

    def _detail(self, sent: Sent) -> catalog.StudyDetail:
        with opened(self._folder / "data") as database, database.read() as session:
            return catalog.study_detail(session, sent.study_uid)

    def _wait_for_end(self, sent: Sent, where: str) -> None:
        wait_until(
            lambda: self._detail(sent).study.state in _ENDS,
            what=f"the study has an end after a crash before {where!r}",
            timeout_s=_LONGEST_S,
            pause_s=0.05,
        )
        detail = self._detail(sent)
        if detail.study.state is not StudyState.DONE:
            self._complain(where, f"the study is {detail.study.state}: {detail.study.reason}")
        self._complain(where, *_more_than_once(detail))
        self._complain(where, *not_kept(self._folder / "data", [sent]))
        self._complain(where, *(f"incoming/ has {x}" for x in half_received(self._node_data)))
        arrived = self._register.of(sent.study_uid)
        made = {result.sop_instance_uid for result in detail.results if result.current}
        if set(arrived) != made or len(made) != RESULTS:
            self._complain(where, f"{len(made)} results were made, {len(arrived)} are there")
        for uid, digests in arrived.items():
            self._sent_twice += len(digests) - 1
            if len(set(digests)) > 1:
                self._complain(where, f"result {uid} went out with different bytes")

    @property
    def _node_data(self) -> Path:
        return self._folder / "data"

    def _complain(self, where: str, *complaints: str) -> None:
        self._broken += [f"killed before {where!r}: {complaint}" for complaint in complaints]


def _more_than_once(detail: catalog.StudyDetail) -> list[str]:
    """What is in the rows twice, or not at all."""
    complaints = []
    if len(detail.recordings) != 1:
        complaints.append(f"{len(detail.recordings)} recordings of one clip")
    for recording in detail.recordings:
        found = Counter((finding.output, finding.pack) for finding in recording.findings)
        if list(found.values()) != [1]:
            complaints.append(f"findings {dict(found)}")
    said = Counter(event.kind for event in detail.timeline)
    complaints += [
        f"the timeline says {kind} {said[kind]} times"
        for kind in ("study-opened", "recording-done", "results-made", "study-done")
        if said[kind] != 1
    ]
    undelivered = [d for d in detail.deliveries if d.state is not DeliveryState.DELIVERED]
    if undelivered or len(detail.deliveries) != RESULTS:
        complaints.append(f"{len(detail.deliveries)} deliveries, {len(undelivered)} not delivered")
    return complaints


def every_step(out: Path, console: Console) -> bool:
    """Crash at every step, print the figures, keep them as JSON; tells whether all held."""
    with (
        PreparedNodes() as nodes,
        tempfile.TemporaryDirectory() as name,
        counting_archive(Path(name)) as (archive, register),
    ):
        crashes = Crashes(nodes, Path(name), archive, register, told=console.print)
        start, life = crashes.whole_life()
        figures = crashes.run(
            [KillAt(pattern="", nth=number + 1) for number in range(len(life))],
            in_start=[KillAt(pattern="", nth=number + 1) for number in range(len(start))],
        )
    console.print(figures)
    (out / "crashes.json").write_text(json.dumps(asdict(figures), indent=1))
    return not figures.broken


def main() -> None:
    """Crash at every step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("var/soak"), help="for crashes.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not every_step(options.out, Console()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
