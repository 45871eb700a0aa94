"""What a whole node does when studies come faster than it reads them.

    python -m tests.benchmarks.load [--only alone,burst,stream]

Studies come as a scenario says, each by a `storescu` of its own, to a whole node with a worker a
core; DCMTK's `storescp` is the archive. Kept is, of each study, how long it took from its last
image to its report in the archive, quiet time included, and how many clips waited. Workers have
read a clip before. The whole
course of a run lies in `docs/scale/`: :mod:`tests.scale` is judged by it. `alone` is one study at a
time; from it the model takes what no other benchmark says, so nothing is judged by that one.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid

from models.simulator import simulate
from models.simulator.dicom import to_dicom
from models.views import View
from storage import catalog
from storage.catalog._tallies import count_states
from storage.database import Database, open_database
from storage.states import RecordingState
from storage.tables import Recording
from tests.benchmarks import receive, rounds
from tests.benchmarks.rounds import Row
from tests.peers import Archive, send, storescp, wait_until
from tests.running_node import RunningNode, variant

TITLE = "A node under load"
COURSES = rounds.ROOT / "docs" / "scale"
A4C_FRAMES = 30
OTHER_FRAMES = 24
_OTHERS = (View.PSLA, View.SAX_MID, View.A2C, View.A3C, View.SUB4C, View.IVC)
_QUIET_S = 30.0  # a third of it once the machine has hung up, as by default
_SR = "1.2.840.10008.5.1.4.1.1.88"
_LIMIT_S = 600.0
_LOOK_S = 0.5
_WAITING = ("to_view", "queued", "received")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """When which studies come."""

    words: str
    at_s: tuple[float, ...]  #: of each study, when its association opens
    a4c: int  #: clips of each
    others: int


@dataclass(frozen=True, kw_only=True)
class StudyCourse:
    """How far a study had come, in seconds from the start of the scenario."""

    opened_s: float
    last_image_s: float
    complete_s: float
    views_named_s: float
    analysed_s: float
    reporting_s: float
    reported_s: float
    at_archive_s: float
    delivered_s: float
    analyses_s: tuple[float, ...]  #: how long a worker was at each A4C clip


def _stream(studies: int, mean_s: float, seed: int) -> tuple[float, ...]:
    """As they come one independent of the other, in so many seconds on average."""
    draw = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
    at, times = 0.0, []
    for _ in range(studies):
        times.append(round(at, 1))
        at += draw.expovariate(1 / mean_s)
    return tuple(times)


SCENARIOS = {
    "alone": Scenario(words="one at a time", at_s=(0.0, 24.0), a4c=4, others=8),
    "burst": Scenario(words="all at once", at_s=(0.0,) * 6, a4c=4, others=8),
    "stream": Scenario(
        words="one every 8 s on average, at random", at_s=_stream(16, 8.0, 5), a4c=2, others=6
    ),
}


def make_study(folder: Path, scenario: Scenario, seed: int) -> tuple[str, list[Path]]:
    """The files of one study."""
    folder.mkdir()
    uid = generate_uid()
    paths = [variant(folder, study_uid=uid) for _ in range(scenario.a4c)]
    for number in range(scenario.others):
        clip = simulate(
            _OTHERS[number % len(_OTHERS)], seed=seed, frames=OTHER_FRAMES, colour_flow=False
        )
        path = folder / f"{number:03d}.dcm"
        dataset = to_dicom(clip, study_uid=uid, sop_instance_uid=generate_uid())
        dataset.save_as(path, enforce_file_format=True)
        paths.insert((number * 7) % len(paths), path)
    return uid, paths


class Watch(threading.Thread):
    """Looks twice a second how many clips wait, and for what."""

    def __init__(self, database: Database, began: float) -> None:
        super().__init__(name="watch", daemon=True)
        self._database = database
        self._began = began
        self._over = threading.Event()
        self.seen: list[dict[str, float]] = []

    def run(self) -> None:
        """Until it is told to end."""
        while not self._over.wait(_LOOK_S):
            with self._database.read() as session:
                counts = count_states(session, Recording)
            at_s = round(time.time() - self._began, 2)
            self.seen.append({"at_s": at_s, **{state: float(n) for state, n in counts.items()}})

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def take(node: RunningNode, archive: Archive, scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Send what the scenario says, and wait until all of it is at the archive."""
    folder.mkdir()
    studies = [
        make_study(folder / f"{number}", scenario, seed=number)
        for number in range(len(scenario.at_s))
    ]
    database = open_database(f"sqlite:///{node.folder / 'data' / 'echonode.db'}")
    began = time.time() + 1.0
    opened = [0.0] * len(studies)
    watch = Watch(database, began)

    def bring(number: int) -> None:
        time.sleep(max(0.0, began + scenario.at_s[number] - time.time()))
        opened[number] = time.time() - began
        said = send(node.port, *studies[number][1], options=("-xy",))
        if said.returncode != 0:
            print(said.stderr[-500:], file=sys.stderr)  # noqa: T201 - the run fails by it below

    senders = [threading.Thread(target=bring, args=(place,)) for place in range(len(studies))]
    watch.start()
    for each in senders:
        each.start()
    for each in senders:
        each.join()

    def ended() -> bool:
        return len(_reports(archive, [uid for uid, _ in studies])) == len(studies)

    try:
        wait_until(ended, what="every report is there", timeout_s=_LIMIT_S, pause_s=1.0)
        watch.end()
        kept = _reports(archive, [uid for uid, _ in studies])
        courses = []
        for number, (uid, _) in enumerate(studies):
            shown = node.wait_for(uid, "done", timeout_s=_LIMIT_S)
            analyses_s = _analyses_s(database, uid)
            courses.append(_course(shown, began, opened[number], kept[uid], analyses_s))
    finally:
        database.close()
    return {
        "scenario": asdict(scenario),
        "bytes": sum(path.stat().st_size for _, paths in studies for path in paths),
        "studies": [asdict(course) for course in courses],
        "waiting": watch.seen,
    }


def _reports(archive: Archive, uids: Sequence[str]) -> dict[str, float]:
    """When the report of each study came to the archive."""
    found: dict[str, float] = {}
    for path in archive.files():
        if path in _HEADERS:
            uid, is_report = _HEADERS[path]
        else:
            try:
                header = dcmread(path, specific_tags=["StudyInstanceUID", "SOPClassUID"])
            except InvalidDicomError:
                continue  # it is being written
            if "SOPClassUID" not in header or "StudyInstanceUID" not in header:
                continue
            uid = str(header.StudyInstanceUID)
            is_report = header.SOPClassUID.startswith(_SR)
            _HEADERS[path] = uid, is_report
        if is_report and uid in uids:
            found[uid] = path.stat().st_mtime
    return found


_HEADERS: dict[Path, tuple[str, bool]] = {}


def _analyses_s(database: Database, uid: str) -> tuple[float, ...]:
    """How long a worker was at each A4C clip of a study."""
    with database.read() as session:
        recordings = catalog.study_detail(session, uid).recordings
    return tuple(
        round((each.finished_at - each.started_at).total_seconds(), 2)
        for each in recordings
        if each.state is RecordingState.DONE and each.finished_at and each.started_at
    )


def _course(
    shown: Any, began: float, opened_s: float, at_archive: float, analyses_s: tuple[float, ...]
) -> StudyCourse:
    at: dict[str, float] = {}
    for event in shown["timeline"]:  # the last of each kind counts
        at[event["kind"]] = datetime.fromisoformat(event["at"]).timestamp() - began
    return StudyCourse(
        opened_s=round(opened_s, 2),
        last_image_s=round(
            datetime.fromisoformat(shown["study"]["last_image_at"]).timestamp() - began, 2
        ),
        complete_s=round(at["study-complete"], 2),
        views_named_s=round(at["view-named"], 2),
        analysed_s=round(at["recording-done"], 2),
        reporting_s=round(at["reporting"], 2),
        reported_s=round(at["results-made"], 2),
        at_archive_s=round(at_archive - began, 2),
        delivered_s=round(at["delivered"], 2),
        analyses_s=analyses_s,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the scenarios and keep what came of them."""
    parser = rounds.parser(__doc__, rounds=1)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--courses", type=Path, default=COURSES)
    parser.add_argument("--conditions", default="", help="what else the machine did")
    parser.add_argument(
        "--before-others", action="store_true", help="senders, node and archive first (needs root)"
    )
    options = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    os.environ["ECHONODE_ANALYSIS__WORKERS"] = str(cores)
    conditions = {"quiet time": f"{_QUIET_S / 3:g} s", "workers": str(cores)}
    if options.conditions:
        conditions["beside it"] = options.conditions
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with storescp(folder / "archive") as archive:
            node = RunningNode(folder=folder, archives=[archive], quiet_s=_QUIET_S)
            with node.serving():
                if options.before_others:
                    receive._go_first()
                wait_until(
                    lambda: all(w["state"] == "idle" for w in node.ask("status")["workers"]),
                    what="the workers are ready",
                    timeout_s=_LIMIT_S,
                    pause_s=1.0,
                )
                # What a worker reads first takes it much longer.
                warm = Scenario(words="to warm up", at_s=(0.0,), a4c=cores, others=0)
                take(node, archive, warm, folder / "warm")
                for one in options.only.split(","):
                    course = take(node, archive, SCENARIOS[one], folder / one)
                    path = rounds.keep(
                        "load",
                        TITLE,
                        _rows(SCENARIOS[one], course),
                        conditions=conditions,
                        folder=options.folder,
                    )
                    run = json.loads(path.read_text())["rows"][-1]["run"]
                    options.courses.mkdir(parents=True, exist_ok=True)
                    whole = json.dumps({"run": run, **course}, indent=1)
                    (options.courses / f"{one}.json").write_text(whole + "\n")


def _rows(scenario: Scenario, course: dict[str, Any]) -> list[Row]:
    studies = course["studies"]
    what = (
        f"{len(studies)} studies of {scenario.a4c + scenario.others} clips, {scenario.a4c} of "
        f"them A4C, {scenario.words}"
    )

    def row(name: str, figures: Sequence[float], unit: str) -> Row:
        whole = f"{what}: {name}"
        return Row(what=whole, against="", wanted="", ours=tuple(figures), theirs=(), unit=unit)

    waits = [each["at_archive_s"] - each["last_image_s"] for each in studies]
    queue = [sum(look.get(state, 0) for state in _WAITING) for look in course["waiting"]]
    return [
        row("last image to report at the archive, of each", waits, "s"),
        row("clips that wait, looked at twice a second", queue, "clips"),
    ]


if __name__ == "__main__":
    main()
