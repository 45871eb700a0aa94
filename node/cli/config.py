"""``echonode config``: the settings as the node would read them."""

from __future__ import annotations

import json
from typing import Any

import typer

from node.cli.options import JsonOption
from node.cli.output import ExitCode, config_file, print_json, print_table, print_text, say
from node.settings import (
    Settings,
    cautions,
    load_settings,
    shown,
    sources,
)
from node.settings import unknown_variables as unknown
from node.settings_file import SettingsError, settings_file

commands = typer.Typer(help="The settings.", no_args_is_help=True)


@commands.command()
def check(context: typer.Context, as_json: JsonOption = False) -> None:
    """Read the settings and say what is wrong with them, a line each."""
    path = config_file(context)
    try:
        settings = load_settings(path)
    except SettingsError as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
        else:
            for line in error.problems:
                say(f"echonode: {line}")
        raise typer.Exit(ExitCode.USAGE) from None
    file = settings_file(path)
    problems, notes = _packs_of_rules(settings)
    notes = (*cautions(settings), *notes)
    if as_json:
        print_json(
            {
                "ok": not problems,
                "file": file,
                "problems": problems,
                "cautions": notes,
                "ignored_variables": unknown(),
            }
        )
    for line in () if as_json else problems:
        say(f"echonode: {line}")
    if problems:
        raise typer.Exit(ExitCode.USAGE)
    if as_json:
        return
    for line in notes:
        say(f"note: {line}")
    for name in unknown():
        say(f"note: {name} names no setting and is ignored")
    print_text(f"settings are right ({file if file is not None else 'no file, defaults'})")


@commands.command()
def show(context: typer.Context, as_json: JsonOption = False) -> None:
    """Print every setting and where its value came from. Secrets are left out."""
    path = config_file(context)
    settings = load_settings(path)
    values, origin = shown(settings), sources(settings, path)
    if as_json:
        print_json({"file": settings_file(path), "settings": values, "sources": origin})
        return
    rows = [(key, json.dumps(_value_at(values, key)), source) for key, source in origin.items()]
    print_table("Settings", ("key", "value", "from"), rows, long=("value", "from"))


def _packs_of_rules(settings: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is wrong with the packs that rules name, and what is hardly meant."""
    if not any(rule.packs for rule in settings.rules):
        return (), ()
    from models.packs import PackError, load_pack, shipped_packs
    from node.evidence import running_packs
    from node.rules import idle_packs, unknown_packs

    try:
        packs = [load_pack(folder) for folder in (*shipped_packs(), *settings.analysis.packs)]
    except PackError as error:
        return (str(error),), ()
    running = running_packs(settings.analysis, packs)
    return unknown_packs(settings.rules, packs), idle_packs(settings.rules, packs, running)


def _value_at(values: Any, key: str) -> Any:
    for part in key.replace("]", "").replace("[", ".").split("."):
        values = values[int(part) - 1] if part.isdigit() else values[part]
    return values
