"""A whole node as a process of its own, and clips to send to it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread, examples
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import generate_uid

from node.cli.app import main
from tests.peers import Archive, accepts_connections, free_port, running, wait_until

#: A real apical four-chamber cine: SonoSite, 30 frames, JPEG. Ships with pydicom.
REAL_CINE = Path(examples.get_path("ybr_color"))

#: So many frames of it make a clip that is measured, in little time.
FEW_FRAMES = 10

#: The same examination at full size: 120 frames, which keep a worker busy for a while.
LONG_CINE = Path(str(get_testdata_file("color3d_jpeg_baseline.dcm", download=False)))


def echonode(*arguments: str) -> list[str]:
    """The command line of this very environment."""
    return [sys.executable, "-m", "node.cli", *arguments]


@dataclass
class RunningNode:
    """A node that runs as `echonode serve`."""

    folder: Path
    archives: Sequence[Archive]
    port: int = field(default_factory=free_port)
    quiet_s: float = 3
    commitment_timeout_s: float = 5  #: an archive that does not know where to report is queried
    dimse: str = ""  #: more lines of that section
    analysis: str = ""  #: the same of this one
    settings: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.folder / "echonode.toml"

    def write_config(self) -> None:
        """Write the settings: short quiet times, every archive a destination."""
        lines = [
            f'data_dir = "{self.folder / "data"}"',
            "[dimse]",
            'host = "127.0.0.1"',
            f"port = {self.port}",
            *self.dimse.splitlines(),
            "[study]",
            f"quiet_s = {self.quiet_s}",
            f"released_quiet_s = {self.quiet_s / 3:g}",
            "[analysis]",
            "workers = 1",
            *self.analysis.splitlines(),
            "[delivery]",
            "first_pause_s = 1",
        ]
        for archive in self.archives:
            lines += [
                "[[destinations]]",
                f'name = "{archive.ae_title.lower()}"',
                'kind = "dimse"',
                'host = "127.0.0.1"',
                f"port = {archive.port}",
                f'ae_title = "{archive.ae_title}"',
                f"commitment_timeout_s = {self.commitment_timeout_s:g}",
            ]
        self.config.write_text("\n".join(lines) + "\n" + self.settings)

    def ask(self, *arguments: str, status: int = 0) -> Any:
        """Run a command against the node and read its JSON.

        In this process: a process a second would take half a core from the node that is waited for.
        """
        said, complained = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(complained):
            code = main(["--config", str(self.config), *arguments, "--json"])
        assert code == status, complained.getvalue()
        return json.loads(said.getvalue()) if said.getvalue() else None

    def study(self, uid: str) -> Any:
        """`echonode study UID --json`."""
        return self.ask("study", uid)

    def state(self, uid: str) -> str:
        """The state of a study."""
        return str(self.study(uid)["study"]["state"])

    def wait_for(self, uid: str, *states: str, revision: int = 1, timeout_s: float = 180) -> Any:
        """Wait until a study's revision is in one of some states; gives what `study` says."""

        def arrived() -> bool:
            shown = self.study(uid)["study"]
            return shown["revision"] >= revision and shown["state"] in states

        wait_until(arrived, what=f"study {' or '.join(states)}", timeout_s=timeout_s, pause_s=0.5)
        return self.study(uid)

    def wait_for_clip(self, uid: str, state: str) -> None:
        """Wait until the first clip of a study is in a state."""
        wait_until(
            lambda: self.study(uid)["clips"][0]["state"] == state,
            what=f"the clip is {state}",
            timeout_s=180,
            pause_s=0.05,
        )

    def kill(self) -> None:
        """SIGKILL to the node itself, as a power cut would."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @contextmanager
    def serving(self) -> Iterator[RunningNode]:
        """Run the node until the end of the block."""
        self.write_config()
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with running(
            echonode("--config", str(self.config), "serve"),
            log=self.folder / "node.log",
            env=environment,
        ) as self.process:
            wait_until(
                lambda: accepts_connections(self.port) or self.process.poll() is not None,
                what="the node listens",
            )
            assert self.process.poll() is None, (self.folder / "node.log").read_text()
            yield self


def variant(
    folder: Path,
    *,
    source: Path = REAL_CINE,
    study_uid: str | None = None,
    frames: int | None = None,
    **attributes: Any,
) -> Path:
    """A real cine under new UIDs, with some attributes changed, or of fewer frames.

    A few frames are read in a fraction of the time: enough where it matters that a clip is read,
    and not what is found.
    """
    dataset: Dataset = dcmread(source)
    if frames is not None:
        whole = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
        dataset.PixelData = encapsulate(list(islice(whole, frames)))
        dataset.NumberOfFrames = frames
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = study_uid or generate_uid()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
