"""``echonode alerts``: who is told of trouble, and whether it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from node.cli.output import (
    ExitCode,
    JsonOption,
    Problem,
    print_json,
    print_table,
    print_text,
    settings_of,
)

if TYPE_CHECKING:
    from node.settings import Settings

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
    from node.watch.alerts import AlertError, node_name, trial_alert, ways_of

    settings = settings_of(context)
    ways = [one for one in ways_of(settings.alerts) if way in (None, one.name)]
    if not ways:
        missing = f"[alerts.{way}]" if way else "[alerts.webhook] or [alerts.mail]"
        raise Problem(f"there is no way to tell anyone: write {missing} into the settings")
    alert = trial_alert(node_name(settings.dimse.ae_title))
    told = []
    for one in ways:
        error = ""
        try:
            one.send(alert)
        except AlertError as failed:
            error = str(failed)
        to = _to(settings, one.name)
        told.append({"way": one.name, "to": to, "sent": not error, "error": error})
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
    import json

    settings = settings_of(context)
    try:
        known = json.loads((settings.data_dir / "alerts.json").read_text())
    except FileNotFoundError:
        known = []
    except ValueError as error:
        raise Problem(
            "alerts.json in data_dir cannot be read; delete it, and the node tells anew",
            ExitCode.FAILED,
        ) from error
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


def _to(settings: Settings, way: str) -> str:
    """Whom a way reaches; an address that may be a secret is not shown whole."""
    from urllib.parse import urlsplit

    if way == "mail" and settings.alerts.mail is not None:
        return ", ".join(settings.alerts.mail.to)
    webhook = settings.alerts.webhook
    if webhook is not None and webhook.url is not None:
        return urlsplit(webhook.url).hostname or "?"
    return "the address in url_file"
