"""``echonode doctor``: whether the node can do its work, before the first patient."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, config_file, print_json, print_text
from node.settings import load_settings
from node.settings_file import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from node.checkup import Finding

_COLOURS = {"green": "green", "yellow": "yellow", "red": "bold red", "unknown": "dim"}


def doctor(
    context: typer.Context,
    offline: Annotated[
        bool, typer.Option("--offline", help="Look at this machine alone and call no one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look whether the node can do its work: here, and at every destination.

    Settings, ports, disk, clock, database, packs and users; then what each destination takes of
    us, without leaving anything there. A red line says what to do and ends the command with 1.
    Works while the node runs, and without it.
    """
    findings = list(_findings(context, offline=offline))
    reds = [one for one in findings if one.light == "red"]
    if as_json:
        print_json({"ok": not reds, "checks": findings})
    else:
        _print(findings)
    if reds:
        raise Problem(
            f"{len(reds)} of {len(findings)} are red; see what to do with each", ExitCode.FAILED
        )


def _findings(context: typer.Context, *, offline: bool) -> Iterable[Finding]:
    import logging

    from node.checkup.findings import red
    from node.checkup.here import look_here
    from node.checkup.peers import look_at_peers

    logging.disable(logging.CRITICAL)  # what the network library says stands in the findings
    try:
        try:
            settings = load_settings(config_file(context))
        except SettingsError as error:
            step = "mend it; `echonode config check` reads the settings again"
            for line in error.problems:
                yield red("settings", line, step)
            return
        yield from look_here(settings)
        if not offline:
            if settings.analysis.cluster is not None:
                from node.checkup.cluster import look_at_cluster

                yield from look_at_cluster(settings)
            yield from look_at_peers(settings)
    finally:
        logging.disable(logging.NOTSET)


def _print(findings: Iterable[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("how it is", overflow="fold")
    for one in findings:
        colour = _COLOURS[one.light.value]
        words = Text(one.words)
        if one.next_step:
            words.append(f"\n-> {one.next_step}", style=colour)
        table.add_row(Text(one.light.value, style=colour), one.area, words)
    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    for one in findings:  # away from a terminal a line must stay a line
        step = f" -> {one.next_step}" if one.next_step else ""
        print_text(f"{one.light.value:8}{one.area}: {one.words}{step}")
