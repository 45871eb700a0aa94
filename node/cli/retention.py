"""``echonode retention``: what is given up by age and by space, and why the rest stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import open_catalog
from node.cli.options import JsonOption
from node.cli.output import print_json, print_table, print_text, settings_of
from node.cli.telling import audit_of

if TYPE_CHECKING:
    from node.retention import Given
    from node.sections import RetentionSettings
    from storage.catalog import Keeping, Staying

_WORDS = {
    "not-at-its-end": "its study is {state}",
    "not-delivered": "a destination does not have a result of its study",
    "no-destination": "a result of its study was never to go anywhere",
    "promised": "a machine was promised that it is kept",
    "young": "may go, but not yet",
}


def retention(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go, and why the rest stays.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Give up now what the settings say is to go; the node does the same every minute."""
    from node.retention import Retention
    from node.watch import set_up_logging
    from storage.files import open_store

    settings = settings_of(context)
    if not dry_run:
        set_up_logging(settings.log)  # what went is logged as in the node
    with open_catalog(settings) as database:
        files = open_store(settings.store_url, settings.data_dir)
        gone: list[tuple[str, str]] = []
        keeper = Retention(
            settings.retention,
            database,
            files,
            files.free_bytes,
            deleted=lambda study, why: gone.append((study, why)),
        )
        given = keeper.plan() if dry_run else keeper.run()
        staying = keeper.staying()
    if gone:
        with audit_of(settings) as told:
            if told is not None:
                audit, user = told
                for study, why in gone:
                    audit.deleted(study, why=f"{why}; asked for by {user}")
    on = _is_on(settings.retention)
    if as_json:
        print_json(_json(given, staying, dry_run=dry_run, on=on))
    else:
        _print(given, staying, dry_run=dry_run, on=on)


def _is_on(settings: RetentionSettings) -> bool:
    rules = settings.model_dump(exclude={"keep_at_least_days", "promised_after_days"})
    return any(value is not None for value in rules.values())


def _json(
    given: Sequence[Given],
    staying: Mapping[Keeping, Sequence[Staying]],
    *,
    dry_run: bool,
    on: bool,
) -> dict[str, Any]:
    return {
        "on": on,
        "dry_run": dry_run,
        "gone": [
            {
                "what": item.keeping,
                "files": item.files,
                "bytes": item.size_bytes,
                "studies": len(item.studies),
                "oldest": item.oldest,
                "why": item.why,
            }
            for item in given
        ],
        "staying": [
            {
                "what": keeping,
                "files": item.files,
                "bytes": item.size_bytes,
                "studies": item.studies,
                "why": item.reason,
                "state": item.state,
            }
            for keeping, items in staying.items()
            for item in items
        ],
    }


def _print(
    given: Sequence[Given],
    staying: Mapping[Keeping, Sequence[Staying]],
    *,
    dry_run: bool,
    on: bool,
) -> None:
    if not on:
        print_text("retention is off: [retention] in the settings says nothing of what may go")
    print_table(
        "Would go" if dry_run else "Gone",
        ("what", "files", "MB", "studies", "oldest", "why"),
        [
            (
                item.keeping,
                item.files,
                f"{item.size_bytes / 1e6:.1f}",
                len(item.studies),
                item.oldest,
                item.why,
            )
            for item in given
        ],
        long=("why",),
    )
    print_table(
        "Stays otherwise" if dry_run else "Stays",
        ("what", "files", "MB", "studies", "why"),
        [
            (
                keeping,
                item.files,
                f"{item.size_bytes / 1e6:.1f}",
                item.studies,
                _WORDS[item.reason].format(state=item.state),
            )
            for keeping, items in staying.items()
            for item in items
        ],
        long=("why",),
    )
