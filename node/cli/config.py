"""``echonode config``: the settings as the node would read them."""

from __future__ import annotations

import json
from typing import Any

import typer

from node.cli.output import (
    ExitCode,
    JsonOption,
    config_file,
    print_json,
    print_table,
    print_text,
    say,
)
from node.settings import SettingsError, cautions, load_settings, settings_file, shown, sources
from node.settings import unknown_variables as unknown

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
    if as_json:
        print_json(
            {
                "ok": True,
                "file": file,
                "problems": [],
                "cautions": cautions(settings),
                "ignored_variables": unknown(),
            }
        )
        return
    for line in cautions(settings):
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


def _value_at(values: Any, key: str) -> Any:
    for part in key.replace("]", "").replace("[", ".").split("."):
        values = values[int(part) - 1] if part.isdigit() else values[part]
    return values
