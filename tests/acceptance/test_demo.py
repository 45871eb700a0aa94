"""`echonode demo`: what a newcomer sees first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.peers import accepts_connections, wait_until
from tests.running_node import echonode

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Demo:
    """One run with `--keep`: what it has said by the time that it waits."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            echonode("demo", "--json", "--keep", "--out", str(folder / "out")),
            stdout=stdout,
            stderr=stderr,
        )
    demo = Demo(process, folder)
    try:
        wait_until(
            lambda: "Ctrl-C ends both" in demo.stderr or process.poll() is not None,
            what="the demonstration has run",
            timeout_s=600,
        )
        assert process.poll() is None, demo.stderr
        yield demo
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def answer(kept: Demo) -> Any:
    return json.loads(kept.stdout)


def test_it_prints_what_analyze_prints_and_how_the_study_went(answer: Any) -> None:
    assert set(answer) == {"clips", "results", "study", "deliveries", "ecg", "addresses"}
    assert answer["study"]["state"] == "done"
    assert answer["study"]["timeline"][0]["kind"] == "study-opened"
    assert {delivery["state"] for delivery in answer["deliveries"]} == {"delivered"}


def test_the_real_cine_has_its_view_and_an_ef(answer: Any) -> None:
    (real,) = [clip for clip in answer["clips"] if clip["file"] == "real cine"]

    assert real["view"]["label"] == "a4c"
    efs = [finding for finding in real["findings"] if finding["output"] == "ef"]
    assert efs
    assert all(ef["unit"] == "%" and ef["evidence"] == "patients" for ef in efs)


def test_clips_of_other_views_are_named_too(answer: Any) -> None:
    simulated = [clip for clip in answer["clips"] if clip["file"].startswith("simulated")]

    assert len(simulated) >= 3
    assert all(clip["view"] is not None for clip in simulated)


def test_the_report_the_captures_and_their_pictures_lie_where_it_says(
    answer: Any, kept: Demo
) -> None:
    results = [(result["kind"], Path(result["path"])) for result in answer["results"]]

    assert {kind for kind, _ in results} == {"sr", "sc", "png"}
    assert all(path.parent == kept.out and path.is_file() for _, path in results)
    assert {path.name for kind, path in results if kind == "png"} == {"saliency.png", "summary.png"}
    (report,) = [path for kind, path in results if kind == "sr"]
    assert dcmread(report).StudyInstanceUID == answer["study"]["uid"]


def test_a_real_ecg_goes_the_same_way_and_what_may_be_said_of_it_is(
    answer: Any, kept: Demo
) -> None:
    ecg = answer["ecg"]
    (clip,) = ecg["clips"]

    assert (clip["file"], clip["kind"], clip["view"]) == ("real ECG", "ecg", None)
    assert ecg["study"]["uid"] != answer["study"]["uid"]
    assert all(finding["evidence"] == "patients" for finding in clip["findings"])
    kinds = {result["kind"] for result in ecg["results"]}
    if clip["findings"]:
        assert ecg["study"]["state"] == "done"
        assert kinds == {"sr", "sc", "png"}
        assert (kept.out / "ecg.png").is_file()
    else:  # no pack that is shipped may speak of it
        assert ecg["study"]["state"] == "ignored"
        assert "ECG" in ecg["study"]["reason"]
        assert kinds == set()


def test_progress_is_told_while_it_works(kept: Demo) -> None:
    for words in ("starting the node", "all acknowledged", "view-named", "study-done"):
        assert words in kept.stderr


def test_a_step_that_fails_is_named_and_ends_it(tmp_path: Path) -> None:
    broken = tmp_path / "pack"
    broken.mkdir()
    done = subprocess.run(
        echonode("demo", "--out", str(tmp_path / "out")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "ECHONODE_ANALYSIS__PACKS": json.dumps([str(broken)])},
    )

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("echonode: step 'start the node'")
    assert "no readable manifest.json" in last


def test_it_stays_and_answers_until_it_is_told_to_end(kept: Demo, answer: Any) -> None:
    port = answer["addresses"]["node"]["port"]
    config = answer["addresses"]["config"]
    assert accepts_connections(port)
    asked = subprocess.run(
        echonode("--config", config, "status", "--json"), capture_output=True, text=True, check=True
    )
    studies = json.loads(asked.stdout)["studies"]
    assert studies["done"] + studies["ignored"] == 2

    kept.process.send_signal(signal.SIGINT)

    assert kept.process.wait(timeout=60) == 0
    assert not accepts_connections(port)
    assert not Path(config).exists()
