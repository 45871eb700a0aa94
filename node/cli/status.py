"""``echonode status``: how the node is, at a glance."""

from __future__ import annotations

import fcntl
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from node.cli.glance import asked, print_disk, show
from node.cli.options import JsonOption
from node.cli.output import (
    Problem,
    config_file,
    plain,
    print_json,
    settings_of,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from node.settings import Settings
    from storage.catalog import NodeRecord


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show queues by state, what waits longest, the last errors, disk and workers.

    A running node is asked; where none answers, the database is read. Ends with exit code 4 where
    no node runs on the database, and where that cannot be read; the rest is shown all the same.
    """
    shown = asked(config_file(context))
    if shown is None:
        shown = _looked_up(settings_of(context), as_json=as_json)
    show(shown, as_json=as_json)


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
            print_disk(disk)
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
    files = None
    if settings.store_url:
        from node.kept import elsewhere  # which reads pictures' headers: not where none is needed

        try:
            files = elsewhere(settings)
        except FileStoreError as error:
            away = (of_store(error, now),)
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
