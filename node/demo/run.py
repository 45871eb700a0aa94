"""One run of the demonstration, step by step.

The node is the real one: ``echonode serve`` as a process of its own, with settings in a file.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from sqlalchemy.orm import Session

from node.cli.catalog import open_catalog, running_nodes
from node.cli.output import Problem
from node.cli.picture import write_frame, write_page
from node.cli.studies import study_json
from node.demo.archive import Archive
from node.demo.study import DemoStudy, SendError, make_ecg, make_study, send_study
from node.evidence import why_withheld
from node.records import finding_from_row
from node.results.rendering import render_report
from node.settings import Settings, load_settings
from node.settings_file import ENV_PREFIX
from storage import catalog

_START_LIMIT_S = 60.0
_STUDY_LIMIT_S = 600.0
_ENDS = ("done", "failed", "ignored")
_POLL_S = 0.3

Tell = Callable[[str], None]  #: takes a line of progress


@dataclass(frozen=True, kw_only=True)
class DemoOutcome:
    """What happened: ``answer`` is what ``demo --json`` prints, ``report`` the SR as text.

    ``ecg_report`` is that of the ECG, empty where nothing may be said of it.
    """

    answer: dict[str, Any]
    report: str
    ecg_report: str = ""


@contextmanager
def demonstration(out: Path, tell: Tell) -> Iterator[DemoOutcome]:
    """Run it. Node and archive stay up until the end of the block.

    Parameters
    ----------
    out
        Where the archive keeps what it gets, beside a PNG of one saliency frame.
    tell
        Shows progress.

    Raises
    ------
    Problem
        If a step fails; the message names the step.
    """
    with tempfile.TemporaryDirectory(prefix="echonode-demo-") as name:
        folder = Path(name)
        _forget_variables()
        archive = Archive(out)
        archive.start()
        try:
            tell(f"archive {archive.ae_title} listens on {archive.host}:{archive.port}")
            config = _write_settings(folder, archive)
            with _node(config, folder / "node.log", tell) as node:
                settings = load_settings(config)
                study = _send(node.address, tell)
                ecg = _send_ecg(node.address, tell)
                shown = _wait(settings, study, node, tell, "the study", ("done",))
                said = _wait(settings, ecg, node, tell, "the ECG", ("done", "ignored"))
                yield _outcome((study, shown), (ecg, said), archive, node.address, settings, out)
                tell("stopping the node")
        finally:
            archive.stop()


def _forget_variables() -> None:
    """Variables for the node of this place would lead the demonstration's to that one's data."""
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        if not name.upper().startswith(f"{ENV_PREFIX}ANALYSIS"):
            del os.environ[name]


def _write_settings(folder: Path, archive: Archive) -> Path:
    config = folder / "echonode.toml"
    config.write_text(
        f"""data_dir = "{folder / "data"}"

[dimse]
host = "127.0.0.1"
port = 0  # a free one

[http]
port = 0

[study]
quiet_s = 5
released_quiet_s = 1

[delivery]
first_pause_s = 1

[log]
level = "info"

[[destinations]]
name = "archive"
kind = "dimse"
host = "{archive.host}"
port = {archive.port}
ae_title = "{archive.ae_title}"
"""
    )
    return config


@dataclass(frozen=True, kw_only=True)
class _RunningNode:
    process: subprocess.Popen[bytes]
    log: Path
    address: dict[str, Any]


@contextmanager
def _node(config: Path, log: Path, tell: Tell) -> Iterator[_RunningNode]:
    """``echonode serve`` as a process."""
    tell("starting the node: echonode serve")
    command = [sys.executable, "-m", "node.cli", "--config", str(config), "serve", "--json"]
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        address = _addresses(process, log)
        tell(
            f"node {address['ae_title']} listens on {address['dimse_host']}:{address['dimse_port']}"
        )
        yield _RunningNode(process=process, log=log, address=address)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _addresses(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    readable, _, _ = select.select([process.stdout], [], [], _START_LIMIT_S)
    line = process.stdout.readline() if readable else b""
    if not line:
        raise Problem(f"step 'start the node': it did not come up: {_last_line(log)}")
    addresses: dict[str, Any] = json.loads(line)["addresses"]
    return addresses


def _send(address: dict[str, Any], tell: Tell) -> DemoStudy:
    tell("making the study: a real A4C cine and simulated clips of other views")
    study = make_study()
    took_s = _sent(study, address, "send the study")
    tell(f"sent {len(study.objects)} objects in {took_s:.1f} s, all acknowledged")
    return study


def _send_ecg(address: dict[str, Any], tell: Tell) -> DemoStudy:
    ecg = make_ecg()
    took_s = _sent(ecg, address, "send the ECG")
    tell(f"sent a real 12-lead ECG, a study of its own, in {took_s:.1f} s")
    tell("the node waits until nothing more comes; the first clip also waits for TensorFlow")
    return ecg


def _sent(study: DemoStudy, address: dict[str, Any], step: str) -> float:
    """Send it; gives how many seconds that took."""
    began = time.monotonic()
    try:
        send_study(
            study,
            host=address["dimse_host"],
            port=address["dimse_port"],
            ae_title=address["ae_title"],
        )
    except SendError as error:
        raise Problem(f"step '{step}': {error}") from error
    return time.monotonic() - began


def _wait(
    settings: Settings,
    study: DemoStudy,
    node: _RunningNode,
    tell: Tell,
    what: str,
    good: Collection[str],
) -> dict[str, Any]:
    """Follow a study's timeline until its end; gives what ``echonode study`` would say."""
    step = f"step 'read {what}'"
    until = time.monotonic() + _STUDY_LIMIT_S
    told = 0
    while time.monotonic() < until:
        with open_catalog(settings) as database, database.read() as session:
            shown = study_json(session, study.study_instance_uid, settings)
            broken = _broken_workers(session)
        for event in shown["timeline"][told:]:
            tell(f"{what}, {event['kind']}: {event['message']}")
        told = len(shown["timeline"])
        state = shown["study"]["state"]
        if state in good:
            return shown
        if state in _ENDS:
            raise Problem(f"{step}: it is {state}: {shown['study']['reason']}")
        if broken is not None:
            raise Problem(f"{step}: no worker process can be started: {broken}")
        if node.process.poll() is not None:
            raise Problem(f"{step}: the node has ended: {_last_line(node.log)}")
        time.sleep(_POLL_S)
    raise Problem(
        f"{step}: it is still {state} after {_STUDY_LIMIT_S:.0f} s: {_last_line(node.log)}"
    )


def _broken_workers(session: Session) -> str | None:
    """Why the node's workers were given up, or None while there is one."""
    workers = [
        worker for node in running_nodes(session) for worker in node.details.get("workers", ())
    ]
    if not workers or any(worker.get("state") != "failed" for worker in workers):
        return None
    return str(workers[0].get("error"))


def _outcome(
    echo: tuple[DemoStudy, dict[str, Any]],
    ecg: tuple[DemoStudy, dict[str, Any]],
    archive: Archive,
    address: dict[str, Any],
    settings: Settings,
    out: Path,
) -> DemoOutcome:
    study, shown = echo
    reports = _kept(archive, shown, Comprehensive3DSRStorage)
    cines = _kept(archive, shown, MultiFrameTrueColorSecondaryCaptureImageStorage)
    if not reports or not cines:
        missing = "Structured Report" if not reports else "saliency cine"
        raise Problem(f"step 'deliver the results': the archive has no {missing}")
    picture = out / "saliency.png"
    write_frame(_cine_of(str(study.objects[0][1].SOPInstanceUID), shown, archive), picture)
    pages = _kept(archive, shown, SecondaryCaptureImageStorage)
    pictures = [picture]
    for page in pages[:1]:
        pictures.append(out / "summary.png")
        write_frame(page.read_bytes(), pictures[-1])
    ecg_answer, ecg_report = _ecg_outcome(*ecg, archive, settings, out)
    answer = {
        **_told(study, shown),
        "results": _files(reports, (*cines, *pages), pictures),
        "ecg": ecg_answer,
        "addresses": {
            "node": {
                "host": address["dimse_host"],
                "port": address["dimse_port"],
                "ae_title": address["ae_title"],
            },
            "archive": {
                "host": archive.host,
                "port": archive.port,
                "ae_title": archive.ae_title,
            },
            "config": str(settings.data_dir.parent / "echonode.toml"),
        },
    }
    return DemoOutcome(
        answer=answer, report=render_report(reports[0].read_bytes()), ecg_report=ecg_report
    )


def _ecg_outcome(
    ecg: DemoStudy, shown: dict[str, Any], archive: Archive, settings: Settings, out: Path
) -> tuple[dict[str, Any], str]:
    """What came of the ECG, with the outputs that were found and are kept back; and its report."""
    reports = _kept(archive, shown, Comprehensive3DSRStorage)
    captures = [
        *_kept(archive, shown, MultiFrameTrueColorSecondaryCaptureImageStorage),
        *_kept(archive, shown, SecondaryCaptureImageStorage),
    ]
    pictures = [out / "ecg.png"] if captures else []
    for picture, capture in zip(pictures, captures, strict=False):
        write_page(capture.read_bytes(), picture)
    answer = {
        **_told(ecg, shown),
        "kept_back": _kept_back(ecg, settings),
        "results": _files(reports, captures, pictures),
    }
    return answer, render_report(reports[0].read_bytes()) if reports else ""


def _kept_back(study: DemoStudy, settings: Settings) -> list[dict[str, str]]:
    """What models said and may not stand in a report, and why."""
    with open_catalog(settings) as database, database.read() as session:
        detail = catalog.study_detail(session, study.study_instance_uid)
    found = [finding_from_row(row) for one in detail.recordings for row in one.findings]
    analysis = settings.analysis
    words = [
        (
            finding,
            why_withheld(
                finding.output,
                finding.evidence,
                allow_simulated=analysis.allow_simulated_evidence,
                allow_demographics=analysis.person_estimates,
            ),
        )
        for finding in found
    ]
    return [
        {"output": finding.output, "pack": finding.pack.name, "why": why}
        for finding, why in words
        if why is not None
    ]


def _told(study: DemoStudy, shown: dict[str, Any]) -> dict[str, Any]:
    names = {str(dataset.SOPInstanceUID): name for name, dataset in study.objects}
    told = ("sop_instance_uid", "kind", "view", "findings", "refused")
    return {
        "clips": [
            {"file": names.get(clip["sop_instance_uid"]), **{key: clip[key] for key in told}}
            for clip in shown["clips"]
        ],
        "study": {
            "uid": study.study_instance_uid,
            "state": shown["study"]["state"],
            "reason": shown["study"]["reason"],
            "revision": shown["study"]["revision"],
            "timeline": shown["timeline"],
        },
        "deliveries": shown["deliveries"],
    }


def _files(
    reports: Iterable[Path], captures: Iterable[Path], pictures: Iterable[Path]
) -> list[dict[str, str]]:
    return [
        *({"kind": "sr", "path": str(path)} for path in reports),
        *({"kind": "sc", "path": str(path)} for path in captures),
        *({"kind": "png", "path": str(path)} for path in pictures),
    ]


def _kept(archive: Archive, shown: dict[str, Any], sop_class: str) -> list[Path]:
    """The results of a study, of one class, that the archive has."""
    made = {item["sop_instance_uid"] for item in shown["results"]}
    return [
        item.path
        for item in archive.kept
        if item.sop_class_uid == sop_class and item.sop_instance_uid in made
    ]


def _cine_of(clip: str, shown: dict[str, Any], archive: Archive) -> bytes:
    """The saliency cine of a clip as the archive has it."""
    made = {item["sop_instance_uid"] for item in shown["results"] if item["clip"] == clip}
    paths = [item.path for item in archive.kept if item.sop_instance_uid in made]
    if not paths:
        raise Problem("step 'read the study': the real A4C cine was not explained")
    return paths[0].read_bytes()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
