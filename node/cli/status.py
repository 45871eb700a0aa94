"""``echonode status``: how the node is, at a glance."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from node.cli.catalog import open_catalog, running_nodes
from node.cli.output import (
    ExitCode,
    JsonOption,
    Problem,
    cell,
    plain,
    print_json,
    print_table,
    print_text,
    settings_of,
)

if TYPE_CHECKING:
    from node.settings import Settings
    from storage.catalog import NodeRecord, QueueStatus, Waiting


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show queues by state, what waits longest, the last errors, disk and workers.

    Ends with exit code 4 where no node runs on the database; the rest is shown all the same.
    """
    from storage import catalog

    settings = settings_of(context)
    with open_catalog(settings) as database, database.read() as session:
        queues = catalog.queue_status(session)
        nodes = running_nodes(session)
    if as_json:
        print_json(_json(settings, queues, nodes))
    else:
        _print(settings, queues, nodes)
    if not nodes:
        raise Problem(
            f"no node is running on the database in {settings.data_dir}; "
            "start one with `echonode serve`",
            ExitCode.NOT_REACHABLE,
        )


def _json(settings: Settings, queues: QueueStatus, nodes: tuple[NodeRecord, ...]) -> dict[str, Any]:
    shown: dict[str, Any] = plain(queues)
    workers = [worker for node in nodes for worker in node.details.get("workers", ())]
    return {
        "running": bool(nodes),
        "nodes": plain(nodes),
        "workers": workers,
        **shown,
        "disk": _disk(settings),
    }


def _disk(settings: Settings) -> dict[str, Any]:
    usage = shutil.disk_usage(settings.data_dir)
    return {
        "data_dir": str(settings.data_dir),
        "free_bytes": usage.free,
        "total_bytes": usage.total,
    }


def _print(settings: Settings, queues: QueueStatus, nodes: tuple[NodeRecord, ...]) -> None:
    for node in nodes:
        address = node.details.get("addresses", {})
        print_text(
            f"node {node.node_id} (process {node.pid}) since {cell(node.started_at)}: "
            f"{address.get('ae_title', '?')} on "
            f"{address.get('dimse_host', '?')}:{address.get('dimse_port', '?')}, "
            f"{node.details.get('associations', 0)} associations open"
        )
    print_text(f"studies     {_counts(queues.studies)}")
    print_text(f"clips       {_counts(queues.recordings)}")
    print_text(f"deliveries  {_counts(queues.deliveries)}")
    print_text(f"quarantine  {queues.quarantined}")
    print_text(
        f"waiting     clip {_age(queues.oldest_recording)}; result {_age(queues.oldest_delivery)}"
    )
    disk = _disk(settings)
    print_text(
        f"disk        {disk['free_bytes'] / 1e9:.1f} GB free of "
        f"{disk['total_bytes'] / 1e9:.1f} GB at {disk['data_dir']}"
    )
    workers = [worker for node in nodes for worker in node.details.get("workers", ())]
    if workers:
        print_table(
            "Workers",
            ("process", "state", "clips done", "restarts", "last error"),
            [
                (
                    worker.get("pid"),
                    worker.get("state"),
                    worker.get("jobs_done"),
                    worker.get("restarts"),
                    worker.get("error"),
                )
                for worker in workers
            ],
            long=("last error",),
        )
    print_table(
        "Last errors",
        ("at", "event", "study", "what"),
        [
            (trouble.at, trouble.kind, trouble.study_instance_uid, trouble.message)
            for trouble in queues.last_errors
        ],
        long=("study", "what"),
    )


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items() if count) or "none"


def _age(waiting: Waiting | None) -> str:
    return "none" if waiting is None else f"{waiting.age_s:.0f} s"
