"""What `echonode status` shows, and its short way: asking the node that runs.

Nothing heavy is imported here, so that the answer comes at once also where every core is at work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from node.cli.output import (
    ExitCode,
    Problem,
    cell,
    complain,
    print_json,
    print_table,
    print_text,
    say,
)
from node.settings_file import FILE_VARIABLE, SettingsError, data_folder
from node.window import look_in


def glance(arguments: Sequence[str]) -> ExitCode | None:
    """Answer ``[--config FILE] status [--json]`` where a node runs.

    None, with nothing said, where it is another command, or nobody answers: then the whole command
    line has its turn.
    """
    words = list(arguments)
    file = os.environ.get(FILE_VARIABLE) or None
    if len(words) > 1 and words[0] == "--config":
        file = words[1]
        del words[:2]
    if words not in (["status"], ["status", "--json"]):
        return None
    try:
        shown = asked(Path(file) if file is not None else None)
        if shown is None:
            return None
        show(shown, as_json="--json" in words)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OSError as error:
        return complain(error)
    return ExitCode.OK


def asked(file: Path | None) -> dict[str, Any] | None:
    """What the running node says; None where none answers, or the settings name no folder."""
    try:
        return look_in(data_folder(file))
    except SettingsError:
        return None  # said by whoever reads them all


def show(shown: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a status.

    Raises
    ------
    Problem
        If no node runs.
    """
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
    print_disk(shown["disk"])
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


def print_disk(disk: Mapping[str, Any]) -> None:
    """What ``status`` says of the disk, and of what is wrong there."""
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
