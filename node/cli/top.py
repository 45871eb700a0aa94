"""``echonode top``: the node at work, in a terminal that follows it."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import open_catalog, running_nodes
from node.cli.options import JsonOption
from node.cli.output import cell, print_json, settings_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from node.settings import Settings
    from storage.database import Database

_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
_DONE = {
    "views": "views named",
    "clips": "clips analysed",
    "studies": "studies",
    "deliveries": "deliveries",
}


def top(
    context: typer.Context,
    every_s: Annotated[
        float, typer.Option("--every", min=0.2, max=3600, metavar="SECONDS", help="How often.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch queue, workers, throughput, deliveries and disk; q or Ctrl-C ends it."""
    settings = settings_of(context)
    with open_catalog(settings) as database:
        if as_json:
            print_json(_look(settings, database))
            return
        from rich.console import Console

        console = Console(highlight=False)
        if once or not console.is_terminal:
            console.print(_view(_look(settings, database)))
            return
        _follow(console, lambda: _look(settings, database), every_s)


def _follow(console: Any, look: Callable[[], Mapping[str, Any]], every_s: float) -> None:
    from rich.live import Live

    with (
        _keys() as pressed,
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while True:
            live.update(_view(look()), refresh=True)
            if pressed(every_s) in ("q", "Q"):
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What tells which key was pressed within a time; "" for none."""
    if not sys.stdin.isatty():

        def wait(timeout_s: float) -> str:
            time.sleep(timeout_s)
            return ""

        yield wait
        return
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)

    def read(timeout_s: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
        return sys.stdin.read(1) if ready else ""

    try:
        tty.setcbreak(handle)
        yield read
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _look(settings: Settings, database: Database) -> dict[str, Any]:
    """All that is shown, as plain values."""
    from node.cli.status import status_json
    from storage import catalog
    from storage.database import DatabaseError
    from storage.states import EventKind

    kinds = {
        "views": EventKind.VIEW_NAMED,
        "clips": EventKind.RECORDING_DONE,
        "studies": EventKind.STUDY_DONE,
        "deliveries": EventKind.DELIVERED,
    }
    now = datetime.now(UTC)
    try:
        with database.read() as session:
            shown = status_json(settings, session)
            shown["destinations"] = [
                {
                    "name": one.destination,
                    "waiting": one.waiting,
                    "oldest_age_s": one.oldest_age_s,
                    "silent_s": one.silent_s,
                }
                for one in catalog.watch_destinations(session, now)
            ]
            for name, time_back in (("last_minute", _MINUTE), ("last_hour", _HOUR)):
                counts = catalog.count_events(session, kinds.values(), now - time_back)
                shown[name] = {what: counts.get(kind.value, 0) for what, kind in kinds.items()}
            shown["running"] = bool(running_nodes(session))
    except DatabaseError as error:
        return {"at": now, "error": str(error)}
    shown["at"] = now
    return shown


def _view(seen: Mapping[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    at = cell(seen["at"])
    if "error" in seen:
        return Group(Text(f"echonode  {at}"), Text(seen["error"], style="bold red"))
    parts: list[RenderableType] = [_title(seen, at)]
    refusing = seen["disk"].get("refusing")
    if refusing is not None:
        parts.append(Text(f"REFUSES everything: {refusing}", style="bold red"))
    parts += [
        Text(f"{trouble['what']} -> {trouble['next_step']}", style="yellow")
        for trouble in seen["disk"].get("troubles", ())
    ]
    parts += [
        Text(f"{one['path']}: {one['trouble']} -> {one['next_step']}", style="yellow")
        for one in seen.get("folders", ())
        if one["trouble"] is not None
    ]
    parts += [_queue(seen), _throughput(seen)]
    if seen["workers"]:
        parts.append(_workers(seen))
    if seen["destinations"]:
        parts.append(_destinations(seen))
    parts.append(_disk(seen))
    if seen["last_errors"]:
        parts.append(_errors(seen))
    return Group(*parts)


def _title(seen: Mapping[str, Any], at: str) -> RenderableType:
    from rich.text import Text

    line = Text("echonode", style="bold")
    line.append(f"  {at}", style="dim")
    for node in seen["nodes"]:
        details = node["details"]
        address = details.get("addresses", {})
        line.append(
            f"  {address.get('ae_title', '?')} at port {address.get('dimse_port', '?')}, "
            f"{details.get('associations', 0)} associations",
            style="none",
        )
    if not seen["running"]:
        line.append("  no node runs here", style="bold red")
    return line


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _queue(seen: Mapping[str, Any]) -> RenderableType:
    table = _table("queue", "now", "waits longest")
    rows = (
        ("studies", "studies", None),
        ("clips", "recordings", "oldest_recording"),
        ("deliveries", "deliveries", "oldest_delivery"),
    )
    for name, key, oldest in rows:
        counts = ", ".join(f"{count} {state}" for state, count in seen[key].items() if count)
        waiting = seen[oldest] if oldest is not None else None
        table.add_row(name, counts or "none", _age(waiting["age_s"]) if waiting else "-")
    table.add_row("quarantine", str(seen["quarantined"]), "-")
    return table


def _throughput(seen: Mapping[str, Any]) -> RenderableType:
    table = _table("done", "last minute", "last hour")
    for key, words in _DONE.items():
        table.add_row(words, str(seen["last_minute"][key]), str(seen["last_hour"][key]))
    return table


def _workers(seen: Mapping[str, Any]) -> RenderableType:
    from rich.text import Text

    from node.cli.glance import worker_name

    table = _table("worker", "state", "clips done", "restarts")
    colours = {"busy": "green", "failed": "bold red", "starting": "yellow"}
    for worker in seen["workers"]:
        state = str(worker.get("state"))
        table.add_row(
            worker_name(worker),
            Text(state, style=colours.get(state, "none")),
            str(worker.get("jobs_done")),
            str(worker.get("restarts")),
        )
    return table


def _destinations(seen: Mapping[str, Any]) -> RenderableType:
    table = _table("destination", "waiting", "oldest", "takes nothing since")
    for one in seen["destinations"]:
        table.add_row(
            one["name"],
            str(one["waiting"]),
            _age(one["oldest_age_s"]),
            _age(one["silent_s"]) if one["silent_s"] else "-",
        )
    return table


def _disk(seen: Mapping[str, Any]) -> RenderableType:
    from rich.text import Text

    lines = [
        f"disk  {volume['free_bytes'] / 1e9:.1f} GB free of {volume['total_bytes'] / 1e9:.1f} GB "
        f"at {volume['path']}"
        for volume in seen["disk"]["volumes"]
    ]
    return Text("\n".join(lines))


def _errors(seen: Mapping[str, Any]) -> RenderableType:
    from node.watch import study_key

    table = _table("last errors", "study", "what")
    table.columns[2].justify = "left"
    for one in seen["last_errors"][:5]:
        at = datetime.fromisoformat(one["at"])
        # The short key of the logs: a UID takes half the line.
        table.add_row(cell(at), study_key(one["study_instance_uid"]), one["message"])
    return table


def _age(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
