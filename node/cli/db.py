"""``echonode db``: the database file and its tables."""

from __future__ import annotations

import typer

from node.cli.catalog import open_catalog
from node.cli.output import ExitCode, JsonOption, Problem, print_json, print_text, settings_of
from node.settings import shown

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
def check(context: typer.Context, as_json: JsonOption = False) -> None:
    """Check that the database is sound, up to date, and that the files of its rows are there."""
    from storage import catalog
    from storage.files import FileStore
    from storage.soundness import problems_of

    settings = settings_of(context)
    with open_catalog(settings) as database, database.read() as session:
        files = FileStore(settings.data_dir)
        problems = list(problems_of(database))
        for study in catalog.list_studies(session, limit=1_000_000):
            detail = catalog.study_detail(session, study.study_instance_uid)
            keys = [item.file_key for item in detail.recordings]
            keys += [item.file_key for item in detail.results]
            problems += [
                f"study {study.study_instance_uid}: file {key} is missing"
                for key in keys
                if not files.path(key).is_file()
            ]
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    else:
        for line in problems:
            print_text(line)
    if problems:
        raise Problem(f"{len(problems)} problems; restore what is missing from a backup")
    if not as_json:
        print_text("the database is sound and every file is there")
