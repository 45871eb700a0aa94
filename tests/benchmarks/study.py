"""How long a study of sixty clips takes from its last image to its report at the archive.

    python -m tests.benchmarks.study [--clips 60] [--rounds 5]

Four of the clips are copies of a real A4C cine (30 frames), the others simulated clips of other
views (24 frames, JPEG). An unmodified `storescu` sends them on one association to a whole node
with a worker a core; DCMTK's `storescp` is the archive. The figure begins when `storescu` has
ended and ends when the Structured Report lies in the archive; the quiet time that the node waits
for more is taken off. The shares of its stages come from the study's own timeline.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import generate_uid

from models.simulator import simulate
from models.simulator.dicom import to_dicom
from models.views import View
from tests.benchmarks.rounds import Row, Spread, keep, parser
from tests.peers import Archive, send, storescp, wait_until
from tests.running_node import RunningNode, variant

A4C = 4
_OTHERS = (View.PSLA, View.SAX_MID, View.SAX_BASAL, View.A2C, View.A3C, View.SUB4C, View.IVC)
_FRAMES = 24
_QUIET_S = 30.0  # as it is by default, and a third of it once the machine has hung up
_LIMIT_S = 600.0
_SR = "1.2.840.10008.5.1.4.1.1.88"


def make_study(folder: Path, clips: int, seed: int) -> tuple[str, list[Path]]:
    """The files of one study, in the order in which a machine would send them."""
    uid = generate_uid()
    paths = [variant(folder, study_uid=uid) for _ in range(A4C)]
    for number in range(clips - A4C):
        view = _OTHERS[number % len(_OTHERS)]
        # Seven hearts a study, each several times: what is timed is the node, not the simulator.
        clip = simulate(view, seed=seed, frames=_FRAMES, colour_flow=False)
        dataset = to_dicom(clip, study_uid=uid, sop_instance_uid=generate_uid())
        path = folder / f"{number:03d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.insert((number * 7) % len(paths), path)
    return uid, paths


def seconds(node: RunningNode, archive: Archive, uid: str, paths: Sequence[Path]) -> float:
    """From the end of `storescu` to the report in the archive, less the quiet time."""
    sent = send(node.port, *paths, options=("-xy",))
    if sent.returncode != 0:
        sys.exit(f"storescu failed: {sent.stderr[-500:]}")
    began = time.time()
    found: list[float] = []

    def reported() -> bool:
        for path in archive.files():
            header = dcmread(path, stop_before_pixels=True)
            if str(header.StudyInstanceUID) == uid and header.SOPClassUID.startswith(_SR):
                found.append(path.stat().st_mtime)
        return bool(found)

    wait_until(reported, what="the report is there", timeout_s=_LIMIT_S, pause_s=0.2)
    return found[0] - began - _QUIET_S / 3


def stages(shown: Any) -> dict[str, float]:
    """When the study had come so far, in seconds after its last image, by its timeline."""
    at: dict[str, datetime] = {}
    for event in shown["timeline"]:
        at[event["kind"]] = datetime.fromisoformat(event["at"])  # the last of each kind
    last = datetime.fromisoformat(shown["study"]["last_image_at"])
    return {
        name: (at[kind] - last).total_seconds()
        for name, kind in (
            ("complete", "study-complete"),
            ("views named", "view-named"),
            ("clips analysed", "recording-done"),
            ("reported", "results-made"),
            ("delivered", "delivered"),
        )
        if kind in at
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the figures and keep them."""
    options = parser(__doc__)
    options.add_argument("--clips", type=int, default=60, help="of the study, four of them A4C")
    given = options.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    os.environ["ECHONODE_ANALYSIS__WORKERS"] = str(cores)
    took: list[float] = []
    reached: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with storescp(folder / "archive") as archive:
            node = RunningNode(folder=folder, archives=[archive], quiet_s=_QUIET_S)
            with node.serving():
                wait_until(
                    lambda: all(w["state"] == "idle" for w in node.ask("status")["workers"]),
                    what="the workers are ready",
                    timeout_s=_LIMIT_S,
                    pause_s=1.0,
                )
                for number in range(given.rounds):
                    batch = folder / f"study-{number}"
                    batch.mkdir()
                    uid, paths = make_study(batch, given.clips, seed=number)
                    took.append(seconds(node, archive, uid, paths))
                    reached.append(stages(node.wait_for(uid, "done", timeout_s=_LIMIT_S)))
    shares = ", ".join(
        f"{name} after {Spread.of([one[name] for one in reached]).median:.1f} s"
        for name in reached[0]
    )
    keep(
        "study",
        "A study from its last image to its report at the archive",
        [
            Row(
                what=f"{given.clips} clips, {A4C} of them A4C, less the quiet time",
                against="",
                wanted="<= 10 s",
                ours=tuple(took),
                theirs=(),
                note=f"medians after the last image, quiet time included: {shares}",
            )
        ],
        conditions={"quiet time": f"{_QUIET_S / 3:g} s", "workers": str(cores)},
        folder=given.folder,
    )


if __name__ == "__main__":
    main()
