"""``echonode quarantine``: objects that could not be taken or must not be sent, and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import open_catalog
from node.cli.options import JsonOption
from node.cli.output import (
    ExitCode,
    Problem,
    plain,
    print_json,
    print_table,
    print_text,
    settings_of,
)
from node.cli.telling import audit_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from storage.catalog import QuarantinedRecord

commands = typer.Typer(help="Objects that could not be taken or sent.", invoke_without_command=True)

NumberArgument = Annotated[int, typer.Argument(metavar="NUMBER", help="As in the list.")]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many.")]


@commands.callback()
def quarantine(
    context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """Objects that could not be taken, or made here and not fit to send; alone, this lists them."""
    if context.invoked_subcommand is None:
        _list(context, limit, as_json=as_json)


@commands.command("list")
def list_objects(
    context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List them, the newest first."""
    _list(context, limit, as_json=as_json)


@commands.command()
def show(context: typer.Context, number: NumberArgument, as_json: JsonOption = False) -> None:
    """Show one: what it said it was, who sent it, and why it was not taken or sent."""
    settings = settings_of(context)
    with open_catalog(settings) as database, database.read() as session:
        shown = _json(_known(session, number))
    if as_json:
        print_json(shown)
        return
    for key, item in shown.items():
        print_text(f"{key.replace('_', ' '):20} {'-' if item in (None, '') else item}")


@commands.command()
def remove(context: typer.Context, number: NumberArgument, as_json: JsonOption = False) -> None:
    """Delete one for good, row and file."""
    from storage import catalog
    from storage.files import open_store

    settings = settings_of(context)
    with open_catalog(settings) as database:
        with database.write() as session:
            _known(session, number)
            removed = catalog.remove_quarantined(session, number)
        if removed.file_key is not None:
            open_store(settings.store_url, settings.data_dir).delete(removed.file_key)
    with audit_of(settings) as told:
        if told is not None:
            audit, user = told
            audit.deleted(removed.study_instance_uid, why=f"removed from quarantine by {user}")
    if as_json:
        print_json({"removed": _json(removed)})
    else:
        print_text(f"object {number} is removed")


@commands.command()
def export(
    context: typer.Context,
    number: NumberArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    as_json: JsonOption = False,
) -> None:
    """Copy one's bytes to a file, as they came. The file may hold a patient's name."""
    from storage.files import FileStoreError, open_store

    settings = settings_of(context)
    with open_catalog(settings) as database, database.read() as session:
        found = _known(session, number)
    if found.file_key is None:
        raise Problem(f"object {number} left no bytes: {found.reason}", ExitCode.NOT_FOUND)
    if out.exists():
        raise Problem(f"{out} is there already; name another file", ExitCode.USAGE)
    try:
        with (
            open_store(settings.store_url, settings.data_dir).open(found.file_key) as kept,
            out.open("xb") as copy,
        ):
            shutil.copyfileobj(kept, copy)
    except FileStoreError as error:
        raise Problem(str(error)) from error
    except OSError as error:
        raise Problem(f"{error.filename}: {error.strerror}") from error
    with audit_of(settings) as told:
        if told is not None:
            audit, user = told
            audit.exported(user, f"object {number} of quarantine", found.study_instance_uid)
    if as_json:
        print_json({"exported": _json(found), "path": out})
    else:
        print_text(f"object {number} is copied to {out}")


def _list(context: typer.Context, limit: int, *, as_json: bool) -> None:
    from storage import catalog

    with open_catalog(settings_of(context)) as database, database.read() as session:
        found = catalog.list_quarantined(session, limit)
    if as_json:
        print_json([_json(item) for item in found])
        return
    print_table(
        "Quarantine",
        ("number", "received", "from", "status sent", "SOP instance", "reason"),
        [
            (
                item.id,
                item.received_at,
                "this node" if item.made_here else item.calling_ae or item.peer_host,
                "-" if item.made_here else f"0x{item.status_sent:04X}",
                item.sop_instance_uid or "-",
                item.reason,
            )
            for item in found
        ],
        long=("SOP instance", "reason"),
    )


def _known(session: Session, number: int) -> QuarantinedRecord:
    from storage import catalog

    try:
        return catalog.get_quarantined(session, number)
    except catalog.CatalogError as error:
        raise Problem(str(error), ExitCode.NOT_FOUND) from error


def _json(record: QuarantinedRecord) -> dict[str, Any]:
    shown: dict[str, Any] = plain(record)
    number = shown.pop("id")
    del shown["file_key"]
    if record.made_here:
        shown["status_sent"] = None
    return {"number": number, "made_here": record.made_here, **shown}
