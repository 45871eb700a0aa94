"""``echonode fetch``: studies out of an archive into the node, for a retrospective run."""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.catalog import running_nodes
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_table, print_text, say, settings_of
from node.cli.telling import audit_of
from node.sections import LogSettings
from node.settings import Settings

if TYPE_CHECKING:
    from node.doors.taking import OpenIntake
    from node.fetching.dimse import DimseArchive
    from node.fetching.limits import Hours, Rate
    from node.fetching.model import StudyReport, Wish
    from node.fetching.plan import Plan
    from node.fetching.run import Fetch, Summary, Terms
    from node.fetching.web import WebArchive

_ALL = "all"
_GENTLE = "4/s,80Mbit/s"


class By(StrEnum):
    """How a DIMSE archive is to send."""

    AUTO = "auto"
    GET = "get"
    MOVE = "move"


def fetch(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Option("--from", metavar="NAME", help="A destination or archive of the settings."),
    ],
    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="UID", help="A study; may be repeated."),
    ] = None,
    studies: Annotated[
        str | None,
        typer.Option("--studies", metavar="FILE", help="A file of UIDs, one a line; - is stdin."),
    ] = None,
    days: Annotated[
        str | None,
        typer.Option(
            "--date",
            metavar="DAY[..DAY]",
            help="Studies of these days, such as 2026-01-01..2026-01-31; DAY.. goes to today.",
        ),
    ] = None,
    accession: Annotated[
        str | None, typer.Option("--accession", metavar="NUMBER", help="With this number.")
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality", metavar="M", help="Of series; may be repeated; US if not given; or all."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Studies that are fetched at most.")
    ] = None,
    by: Annotated[
        By, typer.Option("--by", help="How a DIMSE archive sends; auto: C-GET where it can.")
    ] = By.AUTO,
    rate: Annotated[
        str, typer.Option("--rate", help="Objects, or bits, a second; or none.")
    ] = _GENTLE,
    pause: Annotated[
        float, typer.Option("--pause", min=0, max=3600, help="Seconds between two studies.")
    ] = 2.0,
    between: Annotated[
        str | None,
        typer.Option("--between", metavar="HH:MM-HH:MM", help="Begin studies in these hours only."),
    ] = None,
    queue_below: Annotated[
        int,
        typer.Option(
            "--queue-below", min=0, help="Wait while so many clips wait here; 0: do not look."
        ),
    ] = 500,
    again: Annotated[
        bool, typer.Option("--again", help="Also what retention has removed or is in quarantine.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be fetched.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch studies from an archive, slowly enough that it does not suffer.

    What is here already is skipped, so a fetch that was stopped goes on when it is called once
    more. Works beside a running node; C-MOVE needs one. Ends with 1 where something did not come.
    """
    from node.fetching.limits import read_hours, read_rate
    from node.fetching.run import Terms
    from node.watch import set_up_logging

    settings = settings_of(context)
    try:
        wish = _wish(study or [], studies, days, accession, modality or [])
        hours: Hours | None = None if between is None else read_hours(between)
        pace: Rate = read_rate(rate)
    except ValueError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    terms = Terms(
        limit=limit,
        hours=hours,
        queue_below=queue_below or None,
        pause_s=pause,
        again=again,
        dry_run=dry_run,
    )
    set_up_logging(LogSettings(level="error", format="console"))
    with terminated_like_interrupted(), _opened(settings) as opened, _alone(settings, dry_run):
        archive = archive_of(settings, source, by, opened)
        with _shown(quiet=as_json) as show:
            work = _work(settings, opened, archive, pace, terms, show)
            problem, interrupted = _run(work, wish)
        if not dry_run and archive.way != "move":
            _tell_audit(settings, archive, work.summary)
    stopped = None if problem is None else str(problem)
    if interrupted:
        stopped = "it was interrupted"
    if as_json:
        print_json(_json(work.summary, archive, dry_run=dry_run, stopped=stopped))
    else:
        _print(work.summary, dry_run=dry_run)
    if interrupted:
        say("echonode: stopped; the same command goes on")
        raise KeyboardInterrupt
    if problem is not None:
        raise problem
    _conclude(work.summary, source, dry_run=dry_run)


# What is asked for.


def _wish(
    named: list[str], file: str | None, days: str | None, accession: str | None, modality: list[str]
) -> Wish:
    from node.fetching.model import Wish, is_uid

    uids = list(named)
    if file is not None:
        uids += _lines(file)
        if not uids:
            raise ValueError(f"{file} names no study")
    for uid in uids:
        if not is_uid(uid):
            raise ValueError(f"{uid[:64]!r} is no UID: digits and dots, 64 characters at most")
    if accession is not None and (not accession.strip() or set(accession) & set("*?\\")):
        raise ValueError("an accession number is given whole, without * ? \\")
    if not uids and days is None and accession is None:
        raise ValueError("say what to fetch: --study, --studies, --date or --accession")
    if uids and days is not None:
        raise ValueError("--date chooses studies, and --study names them: give one of the two")
    first, last = (None, None) if days is None else days_of(days)
    for one in modality:
        if one != _ALL and not (one.isalnum() and one.isupper() and len(one) <= 16):
            raise ValueError(f"{one[:16]!r} is no modality; write US, or all")
    return Wish(
        studies=tuple(uids),
        first_day=first,
        last_day=last,
        accession_number=None if accession is None else accession.strip(),
        modalities=() if _ALL in modality else tuple(modality or ["US"]),
    )


def _lines(file: str) -> list[str]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Problem(f"{file}: no such file", ExitCode.NOT_FOUND) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{file}: cannot be read as text", ExitCode.NOT_FOUND) from error
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


def days_of(text: str) -> tuple[date, date]:
    first, dots, last = text.partition("..")
    try:
        begin = date.fromisoformat(first)
        end = date.fromisoformat(last) if last else (date.today() if dots else begin)  # noqa: DTZ011 - the archive's day
    except ValueError:
        raise ValueError(
            f"{text!r} are no days; write 2026-01-01, or 2026-01-01..2026-01-31"
        ) from None
    if end < begin:
        raise ValueError(f"{text!r} ends before it begins")
    return begin, end


# What it takes.


@contextmanager
def _opened(settings: Settings) -> Iterator[OpenIntake]:
    from node.doors.taking import open_intake
    from storage.catalog import CatalogError
    from storage.database import DatabaseError
    from storage.files import FileStoreError

    try:
        with open_intake(settings) as opened:
            yield opened
    except DatabaseError as error:
        raise Problem(str(error), ExitCode.NOT_REACHABLE) from error
    except (CatalogError, FileStoreError) as error:
        raise Problem(str(error)) from error


@contextmanager
def _alone(settings: Settings, dry_run: bool) -> Iterator[None]:
    """Two fetches at once would be no gentle one."""
    if dry_run:
        yield
        return
    with (settings.data_dir / "fetch.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Problem("another fetch runs here; wait until it has ended") from error
        yield


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def archive_of(
    settings: Settings, name: str, by: By, opened: OpenIntake
) -> DimseArchive | WebArchive:
    from node.fetching.dimse import DimseArchive
    from node.fetching.model import FetchError
    from node.fetching.web import WebArchive
    from node.sections import DicomwebPeer

    known = {item.name: item for item in (*settings.destinations, *settings.archives)}
    if name not in known:
        raise Problem(
            f"no archive {name!r}; [[destinations]] and [[archives]] of the settings name: "
            f"{', '.join(sorted(known)) or 'none'}",
            ExitCode.NOT_FOUND,
        )
    peer = known[name]
    try:
        if isinstance(peer, DicomwebPeer):
            if by is not By.AUTO:
                raise Problem(f"{name} is a DICOMweb archive: --by is for DIMSE", ExitCode.USAGE)
            return WebArchive(peer)
        door = door_of(opened)
        if by is By.MOVE and door is None:
            raise Problem(
                "a C-MOVE sends to the node, which does not run; start it, or use --by get",
                ExitCode.NOT_REACHABLE,
            )
        return DimseArchive(peer, settings.dimse.ae_title, by=by.value, door=door)
    except FetchError as error:
        raise Problem(str(error)) from error


def door_of(opened: OpenIntake) -> str | None:
    """Where the running node takes objects."""
    with opened.database.read() as session:
        for node in running_nodes(session):
            where = node.details.get("addresses") or {}
            if where.get("dimse_port"):
                return f"{where.get('dimse_host')}:{where['dimse_port']}"
    return None


def _work(
    settings: Settings,
    opened: OpenIntake,
    archive: DimseArchive | WebArchive,
    rate: Rate,
    terms: Terms,
    show: _Show,
) -> Fetch:
    from node.fetching.limits import Pace
    from node.fetching.receiving import Receiver
    from node.fetching.run import Fetch

    pace = Pace(rate)
    receiver = Receiver(opened, archive, settings.dimse.ae_title, pace, told=show.took)
    archive.receiver = receiver
    return Fetch(
        archive,
        opened,
        receiver,
        pace,
        terms,
        show,
        node_runs=lambda: door_of(opened) is not None,
        pauses=settings.delivery,
    )


def _run(work: Fetch, wish: Wish) -> tuple[Problem | None, bool]:
    """Run it; gives what ended it before its time, and whether somebody stopped it."""
    from node.fetching.model import FetchError
    from node.fetching.run import Broken

    try:
        work.run(wish)
    except Broken as error:
        return Problem(f"{error}; the same command goes on", ExitCode.NOT_REACHABLE), False
    except FetchError as error:
        return Problem(str(error)), False
    except KeyboardInterrupt:
        return None, True
    return None, False


def _tell_audit(settings: Settings, archive: DimseArchive | WebArchive, summary: Summary) -> None:
    """What the node's own door does not tell, since the objects came to this command."""
    from node.watch.transfers import Direction, Transfer

    came = [one for one in summary.studies if one.taken]
    if not came:
        return
    with audit_of(settings) as told:
        if told is None:
            return
        audit, _user = told
        for one in came:
            audit.transferred(
                Transfer(
                    direction=Direction.IN,
                    peer=archive.peer,
                    door="fetch",
                    study_instance_uid=one.study.study_instance_uid,
                    sop_class_uids=one.sop_classes,
                    count=one.taken,
                    accepted=not (one.missing or one.refused),
                )
            )


# What is shown.


class _Show:
    """Tells how it goes: as it changes on a terminal, elsewhere a line a study."""

    def __init__(self, tell: Any, update: Any) -> None:
        self._tell = tell
        self._update = update
        self._plan: Plan | None = None
        self._taken = self._bytes = 0
        self._began = 0.0

    def asked(self, question: str, found: int) -> None:
        self._update(f"{question}: {found} studies")

    def begins(self, plan: Plan) -> None:
        self._plan, self._taken, self._bytes = plan, 0, 0
        self._began = time.monotonic()
        self._update(f"{_name(plan.report)}: begins")

    def took(self, size_bytes: int) -> None:
        self._taken += 1
        self._bytes += size_bytes
        if self._plan is not None:
            wanted = self._plan.report.wanted
            of = "" if wanted is None else f" of {wanted}"
            self._update(
                f"{_name(self._plan.report)}: {self._taken}{of}, {self._bytes / 1e6:.1f} MB"
            )

    def ended(self, report: StudyReport) -> None:
        from node.fetching.model import Outcome

        if report.outcome in (Outcome.COMPLETE, Outcome.WOULD_TAKE):
            return
        took_s = time.monotonic() - self._began
        size_mb = report.size_bytes / 1e6
        line = f"{_name(report)}: {report.taken} taken, {size_mb:.1f} MB in {took_s:.0f} s"
        if report.here:
            line += f", {report.here} were here"
        if report.refused:
            line += f", {report.refused} in quarantine"
        if report.missing:
            line += f", {report.missing} did not come"
        self._tell(line + (f": {'; '.join(report.reasons)}" if report.reasons else ""))

    def waits(self, why: str, wait_s: float | None) -> None:
        how_long = "" if wait_s is None else f" for {wait_s:.0f} s"
        self._tell(f"waits{how_long}: {why}")


@contextmanager
def _shown(*, quiet: bool) -> Iterator[_Show]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr, markup=False, highlight=False, soft_wrap=True)
    if quiet:
        yield _Show(lambda _line: None, lambda _words: None)
    elif console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("asks the archive", total=None)
            yield _Show(console.print, lambda words: bar.update(task, description=words))
    else:
        yield _Show(say, lambda _words: None)


def _name(report: StudyReport) -> str:
    from node.watch import study_key

    day = report.study.study_date
    return f"{day or 'no date'} {study_key(report.study.study_instance_uid)}"


def _counts(summary: Summary) -> dict[str, int]:
    from node.fetching.model import Outcome

    ways = {str(way).replace("-", "_"): 0 for way in Outcome}
    for one in summary.studies:
        ways[str(one.outcome).replace("-", "_")] += 1
    return {
        "studies": len(summary.studies),
        **ways,
        "series": sum(one.series for one in summary.studies),
        "wanted": sum(one.wanted or 0 for one in summary.studies),
        "instances_taken": sum(one.taken for one in summary.studies),
        "bytes": sum(one.size_bytes for one in summary.studies),
        "quarantined": sum(one.refused for one in summary.studies),
        "missing": sum(one.missing for one in summary.studies),
    }


def _json(
    summary: Summary, archive: DimseArchive | WebArchive, *, dry_run: bool, stopped: str | None
) -> dict[str, Any]:
    from node.watch import study_key

    return {
        "archive": archive.name,
        "way": archive.way,
        "dry_run": dry_run,
        "stopped": stopped,
        "cut_short": summary.cut_short,
        "counts": _counts(summary),
        "reasons": dict(summary.reasons.most_common()),
        "not_there": summary.not_there,
        "not_answered": summary.troubles,
        "dropped_answers": summary.dropped,
        "studies": [
            {
                "study_instance_uid": one.study.study_instance_uid,
                "key": study_key(one.study.study_instance_uid),
                "study_date": one.study.study_date,
                "accession_number": one.study.accession_number,
                "description": one.study.description,
                "outcome": one.outcome,
                "series": one.series,
                "wanted": one.wanted,
                "here": one.here,
                "own": one.own,
                "other_classes": one.other,
                "taken": one.taken,
                "bytes": one.size_bytes,
                "quarantined": one.refused,
                "missing": one.missing,
                "reasons": one.reasons,
            }
            for one in summary.studies
        ],
    }


def _print(summary: Summary, *, dry_run: bool) -> None:
    from node.fetching.model import Outcome

    counts = _counts(summary)
    if dry_run:
        print_table(
            "Would be fetched",
            ("date", "study", "accession", "series", "instances", "here", "description"),
            [
                (
                    one.study.study_date,
                    one.study.study_instance_uid,
                    one.study.accession_number,
                    one.series,
                    "not listed" if one.wanted is None else one.wanted,
                    one.here,
                    one.study.description,
                )
                for one in summary.studies
                if one.outcome is Outcome.WOULD_TAKE
            ],
            long=("study", "description"),
        )
        print_text(
            f"{_studies(counts['would_take'])} with {counts['series']} series and "
            f"{counts['wanted']} instances would be fetched, {counts['complete']} are here; "
            "their size is not known"
        )
    else:
        print_text(
            f"{_studies(counts['studies'])}: {counts['taken']} fetched, {counts['complete']} were "
            f"here, {counts['partly']} not whole; {counts['instances_taken']} objects, "
            f"{counts['bytes'] / 1e6:.1f} MB"
        )
    if summary.cut_short:
        print_text("there may be more: --limit was reached")
    if summary.dropped:
        print_text(f"{summary.dropped} answers of the archive were none to the question")
    for uid in summary.not_there:
        print_text(f"the archive has no study {uid}")
    for reason, count in summary.reasons.most_common():
        print_text(f"{_studies(count)}: {reason}")
    for trouble in summary.troubles:
        print_text(f"not answered: {trouble}")


def _studies(count: int) -> str:
    return "1 study" if count == 1 else f"{count} studies"


def _conclude(summary: Summary, source: str, *, dry_run: bool) -> None:
    if summary.troubles:
        raise Problem(f"{source} did not answer every query: {summary.troubles[0]}")
    if not dry_run and not summary.is_whole:
        raise Problem(
            f"not all came from {source}: see the reasons above; the same command tries what is "
            "missing again, `echonode quarantine` shows what could not be taken"
        )
    if summary.not_there:
        raise Problem(
            f"{source} does not have {len(summary.not_there)} of the studies", ExitCode.NOT_FOUND
        )
