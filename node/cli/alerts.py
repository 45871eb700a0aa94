"""``echonode alerts``: who is told of trouble, and whether it arrives."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_table, print_text, settings_of

commands = typer.Typer(help="Who is told of trouble, and whether it arrives.", no_args_is_help=True)


@commands.command("test")
def send_trial(
    context: typer.Context,
    way: Annotated[
        Literal["webhook", "mail"] | None, typer.Option(help="Only this way; otherwise each.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test alert by every way in the settings, and say what came of it.

    Ends with 1 where one could not be sent. Works while the node runs, and without it.
    """
    from node.watch.alerts import node_name, try_ways

    settings = settings_of(context)
    tried = try_ways(settings.alerts, node_name(settings.dimse.ae_title), way)
    if not tried:
        missing = f"[alerts.{way}]" if way else "[alerts.webhook] or [alerts.mail]"
        raise Problem(f"there is no way to tell anyone: write {missing} into the settings")
    told = [
        {"way": one.way, "to": one.to, "sent": not one.error, "error": one.error} for one in tried
    ]
    if as_json:
        print_json(told)
    else:
        for item in told:
            words = "sent" if item["sent"] else f"NOT sent: {item['error']}"
            print_text(f"{item['way']} to {item['to']}: {words}")
    failures = sum(not item["sent"] for item in told)
    if failures:
        raise Problem(f"{failures} of {len(told)} could not be sent; see [alerts] in the settings")


@commands.command("list")
def list_alerts(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the troubles of which people were told and not yet that they are over."""
    from node.watch.told import ToldError, told_of

    settings = settings_of(context)
    try:
        known = told_of(settings.data_dir / "alerts.json")
    except ToldError as error:
        raise Problem(str(error), ExitCode.FAILED) from error
    if as_json:
        print_json(known)
        return
    print_table(
        "Told, and not over",
        ("since", "kind", "of", "what", "to do"),
        [
            (
                item["since"],
                item["alarm"]["kind"],
                item["alarm"]["subject"],
                item["alarm"]["words"],
                item["alarm"]["next_step"],
            )
            for item in known
        ],
        long=("what", "to do"),
    )
