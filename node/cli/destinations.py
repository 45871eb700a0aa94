"""``echonode destinations``: where results go, and what each place has refused for its class."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import open_catalog
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
    from collections.abc import Sequence

    from node.sections import Destination
    from node.settings import Settings
    from storage.catalog import RefusedClassRecord

commands = typer.Typer(help="Where results go, and what is refused.", invoke_without_command=True)


@commands.callback()
def destinations(context: typer.Context, as_json: JsonOption = False) -> None:
    """Where results go, and which classes each place has refused; alone, this lists them."""
    if context.invoked_subcommand is None:
        _list(context, as_json=as_json)


@commands.command("list")
def list_destinations(context: typer.Context, as_json: JsonOption = False) -> None:
    """List them."""
    _list(context, as_json=as_json)


@commands.command()
def forget(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A destination's name.")],
    as_json: JsonOption = False,
) -> None:
    """Forget what a destination has refused: the next result asks it anew."""
    from storage import catalog

    settings = settings_of(context)
    with open_catalog(settings) as database, database.write() as session:
        known = {item.name for item in settings.destinations}
        known |= {item.destination for item in catalog.refused_classes(session)}
        if name not in known:
            raise Problem(
                f"no destination {name!r}; there are: {', '.join(sorted(known)) or 'none'}",
                ExitCode.NOT_FOUND,
            )
        count = catalog.forget_refused_classes(session, name)
    if as_json:
        print_json({"destination": name, "forgotten": count})
    else:
        print_text(f"{name}: {count} refused classes are forgotten; the next result asks anew")


def _list(context: typer.Context, *, as_json: bool) -> None:
    from storage import catalog

    settings = settings_of(context)
    with open_catalog(settings) as database, database.read() as session:
        refused = catalog.refused_classes(session)
    shown = [_json(item, refused, settings) for item in settings.destinations]
    if as_json:
        print_json(shown)
        return
    print_table(
        "Destinations",
        ("name", "where", "text report", "refuses"),
        [
            (
                item["name"],
                item["where"],
                "yes" if item["text_report"] else "no",
                "; ".join(
                    f"{each['name']} (since {cell(each['refused_at'])})" for each in item["refuses"]
                )
                or "nothing so far",
            )
            for item in shown
        ],
        long=("refuses",),
    )


def _json(
    destination: Destination, refused: Sequence[RefusedClassRecord], settings: Settings
) -> dict[str, Any]:
    from pydicom.uid import UID

    again = timedelta(seconds=settings.delivery.ask_again_after_s)
    where = (
        destination.url
        if destination.kind == "dicomweb"
        else f"{destination.ae_title} at {destination.host}:{destination.port}"
    )
    return {
        "name": destination.name,
        "kind": destination.kind,
        "where": where,
        "text_report": destination.text_report,
        "refuses": [
            {
                "sop_class_uid": item.sop_class_uid,
                "name": UID(item.sop_class_uid).name,
                "refused_at": plain(item.refused_at),
                "asked_again_at": plain(item.refused_at + again),
                "answer": item.answer,
            }
            for item in refused
            if item.destination == destination.name
        ],
    }
