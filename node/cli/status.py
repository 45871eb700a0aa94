"""``echonode status``: how the node is, at a glance."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from node.cli.output import (
    ExitCode,
    JsonOption,
    Problem,
    cell,
    config_file,
    plain,
    print_json,
    print_table,
    print_text,
    say,
    settings_of,
)
from node.settings_file import SettingsError, data_folder
from node.window import look_in

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from node.settings import Settings
    from storage.catalog import NodeRecord


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show queues by state, what waits longest, the last errors, disk and workers.

    A running node is asked; where none answers, the database is read. Ends with exit code 4 where
    no node runs on the database, and where that cannot be read; the rest is shown all the same.
    """
    shown = _asked(config_file(context))
    if shown is None:
        shown = _looked_up(settings_of(context), as_json=as_json)
    if as_json:
        print_json(shown)
    else:
        _print(shown)
    where = shown["disk"]["data_dir"]
    if not shown["running"]:
        raise Problem(
            f"no node is running on the database in {where}; start one with `echonode serve`",
            ExitCode.NOT_REACHABLE,
        )
    if not shown["nodes"]:
        say(
            f"a node runs in {where} and has given no sign for a while: "
            "it cannot write to its database, or has just begun"
        )


def _asked(file: Path | None) -> dict[str, Any] | None:
    """What the running node says; None where none answers, or the settings name no folder."""
    try:
        return look_in(data_folder(file))
    except SettingsError:
        return None  # said by whoever reads them all


def _looked_up(settings: Settings, *, as_json: bool) -> dict[str, Any]:
    """What the database says."""
    from node.cli.catalog import open_catalog

    holds = _holds_folder(settings)
    try:
        with open_catalog(settings) as database, database.read() as session:
            shown = status_json(settings, session)
    except Problem:
        if not holds:
            raise
        # Why nothing more can be said is what an operator looks for now.
        disk = _disk(settings, ())
        if as_json:
            print_json({"running": True, "disk": disk})
        else:
            _print_disk(disk)
        raise
    return {**shown, "running": shown["running"] or holds}


def status_json(settings: Settings, session: Session) -> dict[str, Any]:
    """What ``status --json`` prints, as plain values."""
    from node.backfill.progress import glance
    from node.cli.catalog import gone_nodes, running_nodes
    from storage import catalog

    nodes = running_nodes(session)
    queues: dict[str, Any] = plain(catalog.queue_status(session))
    return {
        "running": bool(nodes),
        "nodes": plain(nodes),
        "gone": plain(gone_nodes(session)),
        "workers": [worker for node in nodes for worker in node.details.get("workers", ())],
        "folders": [folder for node in nodes for folder in node.details.get("folders", ())],
        "backfills": glance(session),
        **queues,
        "disk": _disk(settings, nodes),
    }


def _holds_folder(settings: Settings) -> bool:
    """Whether a node holds the data folder, also one that cannot write down that it lives."""
    try:
        with (settings.data_dir / "node.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _left_word(settings: Settings) -> dict[str, Any] | None:
    """What the node that holds the data folder last said of its disk and database."""
    if not _holds_folder(settings):
        return None
    try:
        word = json.loads((settings.data_dir / "node.lock").read_text())
    except (OSError, ValueError):
        return None  # it is just being written
    return word if isinstance(word, dict) else None


def _disk(settings: Settings, nodes: tuple[NodeRecord, ...]) -> dict[str, Any]:
    """What the node said of its disk, or what can be seen from here where it says nothing."""
    from node.kept import elsewhere
    from node.watch.disk import (
        DiskState,
        Trouble,
        full_volumes,
        of_store,
        shown,
        store_troubles,
        volumes_of,
    )
    from storage.files import FileStoreError

    now = datetime.now(UTC)
    away: tuple[Trouble, ...] = ()
    try:
        files = elsewhere(settings)
    except FileStoreError as error:
        files, away = None, (of_store(error, now),)
    try:
        volumes = volumes_of(settings.disk, settings.data_dir, settings.database_url, files)
    except OSError as error:
        raise Problem(f"data_dir {settings.data_dir}: {error.strerror}") from error
    troubles = (
        *full_volumes(volumes, now),
        *(away or store_troubles(settings.data_dir, now, probe=False, files=files)),
    )
    seen = shown(DiskState(volumes=volumes, troubles=troubles))
    told = _left_word(settings)
    if told is None:
        told = next((node.details["disk"] for node in nodes if "disk" in node.details), seen)
    return {
        "data_dir": str(settings.data_dir),
        "free_bytes": volumes[0].free_bytes,
        "total_bytes": volumes[0].total_bytes,
        "mark_bytes": volumes[0].mark_bytes,
        "go_on_bytes": volumes[0].go_on_bytes,
        **told,
        "volumes": seen["volumes"],
    }


def _print(shown: Mapping[str, Any]) -> None:
    for node in shown["nodes"]:
        details = node["details"]
        address = details.get("addresses", {})
        print_text(
            f"node {node['node_id']} (process {node['pid']}) since {_at(node['started_at'])}: "
            f"{address.get('ae_title', '?')} on "
            f"{address.get('dimse_host', '?')}:{address.get('dimse_port', '?')}, "
            f"{details.get('associations', 0)} associations open"
            + (f", HTTP at {address['http_url']}" if address.get("http_url") else "")
        )
        if details.get("turned_away"):
            print_text(
                f"            {details['turned_away']} callers turned away since then; "
                "the log says who and why (caller-turned-away)"
            )
    for node in shown.get("gone", ()):  # an earlier version may have answered
        by = node["taken_over_by"]
        print_text(
            f"node {node['node_id']} gave its last sign of life {_at(node['heartbeat_at'])}"
            + (f"; {by} goes on with its work" if by else "")
        )
    print_text(f"studies     {_counts(shown['studies'])}")
    print_text(f"clips       {_counts(shown['recordings'])}")
    print_text(f"deliveries  {_counts(shown['deliveries'])}")
    print_text(f"quarantine  {shown['quarantined']}")
    print_text(
        f"waiting     clip {_age(shown['oldest_recording'])}; "
        f"result {_age(shown['oldest_delivery'])}"
    )
    _print_disk(shown["disk"])
    for folder in shown["folders"]:
        _print_folder(folder)
    for one in shown.get("backfills", ()):  # an earlier version may have answered
        _print_backfill(one)
    if shown["workers"]:
        print_table(
            "Workers",
            ("process", "state", "clips done", "restarts", "last error"),
            [
                (
                    worker_name(worker),
                    worker.get("state"),
                    worker.get("jobs_done"),
                    worker.get("restarts"),
                    worker.get("error"),
                )
                for worker in shown["workers"]
            ],
            long=("last error",),
        )
    print_table(
        "Last errors",
        ("at", "event", "study", "what"),
        [
            (
                _at(trouble["at"]),
                trouble["kind"],
                trouble["study_instance_uid"],
                trouble["message"],
            )
            for trouble in shown["last_errors"]
        ],
        long=("study", "what"),
    )


def _print_disk(disk: Mapping[str, Any]) -> None:
    for volume in disk["volumes"]:
        print_text(
            f"disk        {_size(volume['free_bytes'])} free of {_size(volume['total_bytes'])} "
            f"at {volume['path']}; refuses under {_size(volume['mark_bytes'])}, "
            f"goes on from {_size(volume['go_on_bytes'])}"
        )
    if disk["refusing"] is not None:
        since = _at(disk["refusing_since"])
        print_text(f"REFUSES     everything since {since}: {disk['refusing']}")
    for trouble in disk["troubles"]:
        print_text(f"trouble     {trouble['what']}; {trouble['next_step']}")


def worker_name(worker: Mapping[str, Any]) -> str:
    """A worker by its process and, of a cluster's, its machine."""
    parts = (worker.get("pid"), worker.get("place"))
    return " on ".join(str(part) for part in parts if part is not None) or "-"


def _print_folder(folder: Mapping[str, Any]) -> None:
    looked = "not looked at yet"
    if folder["looked_at"] is not None:
        looked = f"looked at {_at(folder['looked_at'])}"
    print_text(
        f"folder      {folder['path']}: {looked}; {folder['taken']} objects taken, "
        f"{folder['waiting']} files waiting, {folder['failed']} failed, "
        f"{folder['not_dicom']} not DICOM"
    )
    if folder["trouble"] is not None:
        print_text(f"trouble     {folder['path']}: {folder['trouble']}; {folder['next_step']}")


def _print_backfill(one: Mapping[str, Any]) -> None:
    ends = "" if one["expected_at"] is None else f"; ends about {_at(one['expected_at'])}"
    now = one["doing"] if one["running"] or one["state"] != "open" else f"stopped: {one['doing']}"
    print_text(
        f"backfill    {one['source']}: {one['days_done']} of {one['days']} days, "
        f"{one['studies']} studies, {_size(one['bytes'])}, {one['clips_waiting']} clips wait"
        f"{ends}; {now}"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items() if count) or "none"


def _age(waiting: Mapping[str, Any] | None) -> str:
    return "none" if waiting is None else f"{waiting['age_s']:.0f} s"


def _at(time: str) -> str:
    return cell(datetime.fromisoformat(time))
