"""``echonode db``: the database file and its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.catalog import open_catalog
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_text, settings_of
from node.settings import Settings, shown

if TYPE_CHECKING:
    from storage.database import Database
    from storage.files import FileStore
    from storage.soundness import Fault

commands = typer.Typer(help="The database.", no_args_is_help=True)


@commands.command()
def path(context: typer.Context, as_json: JsonOption = False) -> None:
    """Print where the database is; a password in it is not shown."""
    url = shown(settings_of(context))["database_url"]
    if as_json:
        print_json({"database_url": url})
    else:
        print_text(url)


@commands.command()
def upgrade(context: typer.Context, as_json: JsonOption = False) -> None:
    """Bring the tables up to this version, and make the database where there is none."""
    from storage.database import DatabaseError, migrate, migration_state

    url = settings_of(context).database_url
    try:
        migrate(url)
        state = migration_state(url)
    except DatabaseError as error:
        raise Problem(str(error), ExitCode.NOT_REACHABLE) from error
    if as_json:
        print_json({"revision": state.current})
    else:
        print_text(f"the tables are at revision {state.current}")


@commands.command()
def check(
    context: typer.Context,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every file and compare its content.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that the database is sound and that rows and files say the same.

    Works while the node runs. Ends with 0 where all is well or was mended, and with 1 where
    something is not.
    """
    from storage.files import open_store
    from storage.soundness import (
        Fault,
        FaultKind,
        faults_of,
        miscounts_of,
        problems_of,
        wrong_contents,
    )

    settings = settings_of(context)
    found: list[tuple[Fault, str]] = []
    with open_catalog(settings) as database:
        files = open_store(settings.store_url, settings.data_dir)
        damages = [Fault(kind=FaultKind.DATABASE, words=line) for line in problems_of(database)]
        found = [(fault, "") for fault in damages]
        faults = [miscounts_of(database), faults_of(database, files)]
        if deep:
            from node.intake import content_digest

            faults.append(wrong_contents(database, files, content_digest))
        mend = _mender(settings, database, files) if repair and not damages else None
        for each in faults:
            for fault in each:
                done = "" if mend is None else mend(fault)
                found.append((fault, done))
                if not as_json:
                    print_text(f"{fault.words}{f' -> {done}' if done else ''}")
    if not as_json:
        for fault in damages:
            print_text(fault.words)
    _conclude(found, as_json=as_json)


@commands.command(name="forget-node")
def forget_node(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The node, as `echonode status` names it.")],
    as_json: JsonOption = False,
) -> None:
    """Forget a node that died and will not come back; its work has gone on elsewhere."""
    from storage import catalog

    with open_catalog(settings_of(context)) as database, database.write() as session:
        catalog.forget_node(session, name)
    if as_json:
        print_json({"forgotten": name})
    else:
        print_text(f"node {name} is forgotten; one that comes back all the same is welcome")


def _mender(settings: Settings, database: Database, files: FileStore) -> Callable[[Fault], str]:
    from node.repair import Repair
    from node.watch import set_up_logging

    set_up_logging(settings.log)  # what was mended is logged as in the node
    return Repair(database, files).mend


def _conclude(found: Sequence[tuple[Fault, str]], *, as_json: bool) -> None:
    open_ones = [fault for fault, done in found if not done]
    if as_json:
        print_json(
            {
                "ok": not open_ones,
                "problems": [fault.words for fault, _ in found],
                "faults": [
                    {"kind": fault.kind, "file": fault.key, "what": fault.words, "mended": done}
                    for fault, done in found
                ],
            }
        )
    damaged = any(fault.kind == "database" for fault in open_ones)
    if damaged:
        raise Problem(
            f"{len(open_ones)} problems; the database itself is damaged: stop the node and "
            "restore it from a backup, then check again"
        )
    if open_ones:
        raise Problem(
            f"{len(open_ones)} problems; `echonode db check --repair` mends what can be mended"
        )
    if not as_json:
        mended = len(found)
        print_text(
            f"{mended} problems, all mended"
            if mended
            else "the database is sound, and every row and every file has the other"
        )
