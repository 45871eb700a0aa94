"""``echonode destinations``: where results go, and what each place promises and refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import open_catalog
from node.cli.options import JsonOption
from node.cli.output import (
    ExitCode,
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
    from storage.catalog import PromiseCounts, RefusedClassRecord

_COMMITMENT = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model

commands = typer.Typer(help="Where results go, and what is refused.", invoke_without_command=True)


@commands.callback()
def destinations(context: typer.Context, as_json: JsonOption = False) -> None:
    """Where results go, what each place promises and refuses; alone, this lists them."""
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
        promises = catalog.promise_counts(session)
    shown = [
        _json(item, refused, promises.get(item.name) or catalog.PromiseCounts(), settings)
        for item in settings.destinations
    ]
    if as_json:
        print_json(shown)
        return
    print_table(
        "Destinations",
        ("name", "where", "text report", "storage commitment", "delivered", "refuses"),
        [
            (
                item["name"],
                item["where"],
                "yes" if item["text_report"] else "no",
                _offer_words(item["commitment"]),
                _delivered_words(item["commitment"]),
                "; ".join(
                    f"{each['name']} (since {cell(each['refused_at'])})" for each in item["refuses"]
                )
                or "nothing so far",
            )
            for item in shown
        ],
        long=("refuses",),
    )


def _offer_words(commitment: dict[str, Any]) -> str:
    if commitment["setting"] == "off":
        return "off"
    offered = {True: "offered", False: "not offered", None: "not asked yet"}[commitment["offered"]]
    return f"{commitment['setting']}, {offered}"


def _delivered_words(commitment: dict[str, Any]) -> str:
    parts = {
        "promised": commitment["promised"],
        "shown by a query": commitment["found"],
        "by status": commitment["by_status"],
        "waiting for a promise": commitment["waiting"],
        "promise refused": commitment["refused"],
        "never answered": commitment["overdue"],
        "failed": commitment["failed"],
    }
    return ", ".join(f"{count} {words}" for words, count in parts.items() if count) or "nothing yet"


def _json(
    destination: Destination,
    refused: Sequence[RefusedClassRecord],
    promises: PromiseCounts,
    settings: Settings,
) -> dict[str, Any]:
    from pydicom.uid import UID

    refuses = [item for item in refused if item.destination == destination.name]
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
        "commitment": {
            "setting": destination.commitment,
            "offered": _offered(refuses, promises),
            "promised": promises.committed,
            "found": promises.found,
            "by_status": promises.by_status,
            "waiting": promises.waiting,
            "refused": promises.refused,
            "overdue": promises.overdue,
            "failed": promises.failed,
        },
        "refuses": [
            {
                "sop_class_uid": item.sop_class_uid,
                "name": UID(item.sop_class_uid).name,
                "refused_at": plain(item.refused_at),
                "asked_again_at": plain(item.refused_at + again),
                "answer": item.answer,
            }
            for item in refuses
        ],
    }


def _offered(refuses: Sequence[RefusedClassRecord], promises: PromiseCounts) -> bool | None:
    """Whether it offers storage commitment, as it last said; None where it was not asked."""
    no = next((item for item in refuses if item.sop_class_uid == _COMMITMENT), None)
    taken = promises.last_taken_at
    if no is None:
        return None if taken is None else True
    return taken is not None and taken > no.refused_at
