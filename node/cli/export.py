"""``echonode export``: de-identified copies of clips for research."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import known_study, open_catalog
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_table, print_text, say, settings_of
from node.cli.telling import audit_of

if TYPE_CHECKING:
    from node.export.copying import Wishes
    from node.export.exporter import StudyOutcome
    from storage.database import Database

_SAY_EVERY_S = 2.0


def export(
    context: typer.Context,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the copies go.")],
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="[STUDY]...", help="UIDs, or keys of the logs.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Studies of this day and later."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Studies of this day and earlier."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is kept.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many studies, oldest first.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The key file, made where there is none, outside of DIR. With it a later export "
            "gives the same names, and its owner can go back; without it nobody can.",
        ),
    ] = None,
    keep_dates: Annotated[
        str, typer.Option(metavar="shift|remove", help="Dates: moved by days of its own a patient.")
    ] = "remove",
    pixels: Annotated[
        str,
        typer.Option(metavar="lossless|jpeg", help="jpeg: what came as JPEG is JPEG once more."),
    ] = "lossless",
    spectra: Annotated[
        bool, typer.Option("--spectra", help="Doppler and M-mode, too; look at them.")
    ] = False,
    findings: Annotated[
        bool, typer.Option("--findings", help="Write what the node found as findings.csv.")
    ] = False,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="Draw a PNG of each copy, to look through.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; say what would be copied.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy clips without identity: PS3.15 basic profile, pixels blanked outside the sector."""
    from node.export.copying import Wishes
    from node.export.errors import ExportError, RefusedError
    from node.export.pixels import Coding
    from node.export.profile import Dates

    wishes = Wishes(
        dates=Dates(_one_of(keep_dates, [one.value for one in Dates], "--keep-dates")),
        coding=Coding(_one_of(pixels, [one.value for one in Coding], "--pixels")),
        spectra=spectra,
        sheets=contact_sheet,
        findings=findings,
    )
    if sum((bool(studies), since is not None or until is not None, everything)) != 1:
        raise Problem(
            "name studies, or give --since/--until, or --all: one of them", ExitCode.USAGE
        )
    settings = settings_of(context)
    try:
        with open_catalog(settings) as database:
            chosen = _chosen(
                database,
                studies or [],
                since.date() if since else None,
                until.date() if until else None,
            )[:limit]
            outcomes, lines = _run(context, database, chosen, to, key, wishes, dry_run=dry_run)
    except RefusedError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    except ExportError as error:
        raise Problem(str(error)) from error
    if as_json:
        print_json(_json(to, key, outcomes, lines, dry_run=dry_run))
    else:
        _print(to, key, outcomes, dry_run=dry_run)
    if any(one.failed for one in outcomes):
        raise typer.Exit(ExitCode.FAILED)


def _run(
    context: typer.Context,
    database: Database,
    chosen: Sequence[str],
    to: Path,
    key: Path | None,
    wishes: Wishes,
    *,
    dry_run: bool,
) -> tuple[list[StudyOutcome], int]:
    from node.export.exporter import open_export
    from node.watch import study_key
    from storage.files import open_store

    settings = settings_of(context)
    files = open_store(settings.store_url, settings.data_dir)
    outcomes: list[StudyOutcome] = []
    with (
        audit_of(settings) as told,
        open_export(
            database, files, to, key, wishes, dry_run=dry_run, quiet_s=settings.study.quiet_s
        ) as exporter,
    ):
        if key is None and not dry_run:
            say("note: no --key: nobody can go back, and a later export gives other names")
        said_at = time.monotonic()
        for number, uid in enumerate(chosen, start=1):
            outcome = exporter.take(uid)
            outcomes.append(outcome)
            for reason, count in outcome.failed.items():
                say(f"study {study_key(uid)}: {count} failed: {reason}")
            if told is not None and outcome.written and not dry_run:
                audit, user = told
                audit.exported(user, f"{outcome.written} de-identified copies, to research", uid)
            if time.monotonic() - said_at > _SAY_EVERY_S or number == len(chosen):
                said_at = time.monotonic()
                copies = sum(one.written for one in outcomes)
                say(f"{number} of {len(chosen)} studies, {copies} copies")
        return outcomes, exporter.finish()


def _chosen(
    database: Database, named: Sequence[str], first: date | None, last: date | None
) -> list[str]:
    """The studies, the oldest first."""
    from storage import catalog

    with database.read() as session:
        if named:
            return list(dict.fromkeys(known_study(session, uid) for uid in named))
        return list(reversed(catalog.held_studies(session, first_date=first, last_date=last)))


def _one_of(value: str, known: Sequence[str], option: str) -> str:
    if value not in known:
        raise Problem(f"{option} {value}: {' or '.join(known)}", ExitCode.USAGE)
    return value


def _reasons(outcomes: Sequence[StudyOutcome], kind: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in outcomes:
        total.update(getattr(one, kind))
    return dict(total.most_common())


def _json(
    to: Path,
    key: Path | None,
    outcomes: Sequence[StudyOutcome],
    lines: int,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    from node.watch import study_key

    return {
        "folder": to,
        "key": key,
        "dry_run": dry_run,
        "studies": [
            {
                "study": study_key(one.study_instance_uid),
                "folder": one.folder,
                "written": one.written,
                "there": one.there,
                "scrubbed": one.scrubbed,
                "left_out": dict(one.left_out),
                "failed": dict(one.failed),
            }
            for one in outcomes
        ],
        "written": sum(one.written for one in outcomes),
        "there": sum(one.there for one in outcomes),
        "left_out": _reasons(outcomes, "left_out"),
        "failed": _reasons(outcomes, "failed"),
        "findings": lines,
    }


def _print(to: Path, key: Path | None, outcomes: Sequence[StudyOutcome], *, dry_run: bool) -> None:
    written = sum(one.written for one in outcomes)
    there = sum(one.there for one in outcomes)
    patients = len({one.folder.split("/")[0] for one in outcomes if one.folder})
    words = "would be written to" if dry_run else "written to"
    print_text(f"{written} copies {words} {to}, {there} were there; {patients} patients")
    for title, kind in (("Left out", "left_out"), ("Failed", "failed")):
        print_table(
            title,
            ("objects", "reason"),
            [(count, reason) for reason, count in _reasons(outcomes, kind).items()],
            long=("reason",),
        )
    if key is not None and not dry_run:
        print_text(f"{key} leads back to the patients: keep it apart, and keep a copy of it.")
    if written and not dry_run:
        print_text("Look through the copies before you give them away: docs/export.md says how.")
