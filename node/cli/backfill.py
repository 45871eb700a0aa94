"""``echonode backfill``: years out of an archive or a folder, behind all else."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.fetch import By, archive_of, days_of, door_of
from node.cli.options import JsonOption
from node.cli.output import (
    ExitCode,
    Problem,
    cell,
    plain,
    print_json,
    print_table,
    print_text,
    say,
    settings_of,
)
from node.cli.telling import audit_of
from node.sections import LogSettings
from node.settings import Settings

if TYPE_CHECKING:
    from node.backfill.limits import Limits
    from node.backfill.model import Came, Source
    from node.backfill.run import Backfill
    from node.doors.taking import OpenIntake
    from node.watch.audit import Audit
    from node.watch.transfers import Peer
    from storage.catalog import BackfilledState, BackfilledStudy, BackfillRecord
    from storage.database import Database

_ALL = "all"
_GENTLE = "4/s,80Mbit/s"
_MOST_FAILURES = 1000  # that are named one by one
_FAILURES_SHOWN = 20

commands = typer.Typer(
    help="Take years out of an archive or a folder, day by day, behind all else.",
    invoke_without_command=True,
)
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="NAME|FOLDER", help="A destination or archive of the settings, or a path."
    ),
]


@commands.callback()
def backfill(
    context: typer.Context,
    source: FromOption = None,
    days: Annotated[
        str | None,
        typer.Option(
            "--date",
            metavar="DAY[..DAY]",
            help="Studies of these days, such as 2015-01-01..2024-12-31; DAY.. goes to today. "
            "Of a folder all, if not given.",
        ),
    ] = None,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="Otherwise the newest day comes first.")
    ] = False,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality", metavar="M", help="Of series; may be repeated; US if not given; or all."
        ),
    ] = None,
    by: Annotated[
        By, typer.Option("--by", help="How a DIMSE archive sends; auto: C-GET where it can.")
    ] = By.AUTO,
    rate: Annotated[
        str,
        typer.Option(
            "--rate", help="Objects or bits a second; studies, objects or bytes an hour; or none."
        ),
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
    keep_free: Annotated[
        str | None,
        typer.Option(
            "--keep-free",
            metavar="SIZE",
            help="Wait while less is free here; twice [disk] keep_free if not given.",
        ),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Ask for all days again, where all was done before.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a backfill, or begin one; without a command.

    Rows say what is done: whatever stopped it, the same command goes on, and --from alone does.
    Works beside a running node. Ends with 1 where something did not come.
    """
    if context.invoked_subcommand is not None:
        return
    if source is None:
        raise Problem(
            "say where from: --from NAME or --from FOLDER; `echonode backfill status` shows "
            "what there is",
            ExitCode.USAGE,
        )
    from node.watch import set_up_logging

    settings = settings_of(context)
    try:
        limits = _limits(rate, pause, between, queue_below, keep_free)
        wish = _Wish(
            days=None if days is None else days_of(days),
            open_ended=days is not None and days.endswith(".."),
            oldest_first=oldest_first,
            modalities=_modalities(modality),
        )
    except ValueError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    place = _place(settings, source)
    set_up_logging(LogSettings(level="error", format="console"))
    stops = _Stops()
    with (
        stops.heeded(),
        _opened(settings) as opened,
        _alone(settings, place.name),
        _shown(quiet=as_json) as show,
    ):
        record, is_done = _record(opened.database, place, wish, anew=anew)
        problem, interrupted = None, False
        if is_done:
            say(f"all of {place.name} was done before; --anew asks for every day again")
        else:
            problem, interrupted = _go_on(settings, opened, record, place, by, limits, show, stops)
        shown = _status_of(opened.database, record.backfill_id)
    if as_json:
        print_json(shown)
    else:
        _print(shown)
    if interrupted:
        say("echonode: stopped; the same command goes on")
        raise KeyboardInterrupt
    if problem is not None:
        raise problem
    if shown["studies"]["partly"] or shown["days"]["not_listed"]:
        raise Problem(
            f"not all came from {place.name}: see the reasons above; the same command tries it "
            "once more"
        )


@commands.command("status")
def status(
    context: typer.Context,
    source: FromOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far each backfill is: days, studies, clips, failures, and when it will be done."""
    from node.cli.catalog import open_catalog
    from storage import catalog

    settings = settings_of(context)
    with open_catalog(settings) as database:
        with database.read() as session:
            records = catalog.list_backfills(session)
        if source is not None:
            name = _place(settings, source).name
            records = tuple(one for one in records if one.source == name)
            if not records:
                raise Problem(f"no backfill of {name} was ever begun", ExitCode.NOT_FOUND)
        shown = [_status_of(database, one.backfill_id) for one in records]
    if as_json:
        print_json(shown)
    elif not shown:
        print_text("Backfills: none")
    for one in () if as_json else shown:
        _print(one)


@commands.command("end")
def end(
    context: typer.Context,
    source: Annotated[
        str, typer.Option("--from", metavar="NAME|FOLDER", help="Of which archive or folder.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Give up a backfill that is not finished. What came stays; whoever is at it stops."""
    from node.cli.catalog import open_catalog
    from storage import catalog

    settings = settings_of(context)
    name = _place(settings, source).name
    with open_catalog(settings) as database, database.write() as session:
        record = catalog.find_backfill(session, name)
        if record is None:
            raise Problem(f"no backfill of {name} is under way", ExitCode.NOT_FOUND)
        catalog.give_up_backfill(session, record.backfill_id)
    if as_json:
        print_json({"source": name, "state": "given-up"})
    else:
        print_text(f"the backfill of {name} is given up; what came stays")


# What is asked for.


class _Place:
    """Where from: an archive's name, or a folder."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self.name = name
        self.folder = folder


class _Wish:
    """What the options say of days and kinds."""

    def __init__(
        self,
        *,
        days: tuple[date, date] | None,
        open_ended: bool,
        oldest_first: bool,
        modalities: tuple[str, ...] | None,
    ) -> None:
        self.days = days
        self.open_ended = open_ended
        self.oldest_first = oldest_first
        self.modalities = modalities

    def differs(self, record: BackfillRecord) -> bool:
        """Whether a backfill is another than the one that is meant."""
        if self.modalities is not None and set(self.modalities) != set(record.modalities):
            return True
        if self.oldest_first and record.newest_first:
            return True
        if self.days is None:
            return False
        first, last = self.days
        later = self.open_ended and record.last_day is not None and record.last_day <= last
        return first != record.first_day or (last != record.last_day and not later)


def _limits(
    rate: str, pause: float, between: str | None, queue_below: int, keep_free: str | None
) -> Limits:
    from node.backfill.limits import Limits, read_rates, read_size
    from node.fetching.limits import read_hours

    per_second, per_hour = read_rates(rate)
    return Limits(
        rate=per_second,
        hourly=per_hour,
        hours=None if between is None else read_hours(between),
        queue_below=queue_below or None,
        keep_free_bytes=None if keep_free is None else read_size(keep_free),
        pause_s=pause,
    )


def _modalities(given: list[str] | None) -> tuple[str, ...] | None:
    for one in given or ():
        if one != _ALL and not (one.isalnum() and one.isupper() and len(one) <= 16):
            raise ValueError(f"{one[:16]!r} is no modality; write US, or all")
    if not given:
        return None
    return () if _ALL in given else tuple(dict.fromkeys(given))


def _place(settings: Settings, source: str) -> _Place:
    known = {item.name for item in (*settings.destinations, *settings.archives)}
    if source in known:
        return _Place(source, None)
    folder = Path(source)
    if not folder.is_dir():
        raise Problem(
            f"{source}: neither an archive of the settings ({', '.join(sorted(known)) or 'none'}) "
            "nor a folder",
            ExitCode.NOT_FOUND,
        )
    folder = folder.resolve()
    if folder.is_relative_to(settings.data_dir.resolve()):
        raise Problem(
            f"{folder} lies in the node's own data_dir; what is there came in already",
            ExitCode.USAGE,
        )
    return _Place(str(folder), folder)


def _record(
    database: Database, place: _Place, wish: _Wish, *, anew: bool
) -> tuple[BackfillRecord, bool]:
    """The backfill that is meant: one under way, or a new one; and whether all of it is done."""
    from storage import catalog

    with database.write() as session:
        found = catalog.find_backfill(session, place.name)
        if found is None:
            last = [one for one in catalog.list_backfills(session) if one.source == place.name]
            done = [one for one in last if one.state is catalog.BackfillState.DONE]
            if done and not anew and not wish.differs(done[0]):
                progress = catalog.backfill_progress(session, done[0].backfill_id)
                if not (progress.by_state.get("partly") or progress.days_refused):
                    return done[0], True
                return catalog.reopen_backfill(session, done[0].backfill_id), False
            if wish.days is None and place.folder is None:
                raise Problem("say which days: --date 2015-01-01..2024-12-31", ExitCode.USAGE)
            first, last_day = wish.days or (None, None)
            new = catalog.NewBackfill(
                source=place.name,
                from_folder=place.folder is not None,
                first_day=first,
                last_day=last_day,
                newest_first=not wish.oldest_first,
                modalities=("US",) if wish.modalities is None else wish.modalities,
            )
            return catalog.add_backfill(session, new), False
    if anew or wish.differs(found):
        raise Problem(
            f"another backfill of {place.name} is not finished ({_title(plain(found))}); go on "
            f"with `echonode backfill --from {place.name}`, or give it up with "
            f"`echonode backfill end --from {place.name}`"
        )
    return found, False


# What it takes.


class _Stops:
    """Ctrl-C and SIGTERM stop at once, but for a step that is to come to its end.

    A second one stops in the midst of that, too: nothing that was said to be kept is lost by it.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._asked = False

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A step that comes to its end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._asked and not self._depth:
                self._asked = False
                raise KeyboardInterrupt

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Heed the signals."""

        def ask(_number: int, _frame: FrameType | None) -> None:
            if self._depth and not self._asked:
                self._asked = True
                return
            raise KeyboardInterrupt

        try:
            before = {one: signal.signal(one, ask) for one in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
def _alone(settings: Settings, source: str) -> Iterator[None]:
    """Two backfills of one source would be no gentle one; the rows hold it between machines."""
    name = hashlib.sha256(source.encode()).hexdigest()[:12]
    with (settings.data_dir / f"backfill-{name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Problem(
                f"another backfill of {source} runs here; `echonode backfill status` shows it"
            ) from error
        yield


def _go_on(
    settings: Settings,
    opened: OpenIntake,
    record: BackfillRecord,
    place: _Place,
    by: By,
    limits: Limits,
    show: _Show,
    stops: _Stops,
) -> tuple[Problem | None, bool]:
    """Go on until all is done; gives what ended it before, and whether somebody stopped it."""
    from node.backfill.progress import LEASE_S
    from node.fetching.model import FetchError
    from node.fetching.run import Broken
    from storage import catalog

    host = socket.gethostname()
    runner = f"{host[:32]}/{os.getpid()}/{secrets.token_hex(4)}"
    seat = hashlib.sha256(f"{host}:{settings.data_dir.resolve()}".encode()).hexdigest()[:16]
    with audit_of(settings) as told:
        work, peer = _work(settings, opened, record, runner, place, by, limits, show, stops)
        show.transferred = _teller(told, peer, "fetch" if place.folder is None else "folder")
        with opened.database.write() as session:
            catalog.take_backfill(
                session,
                record.backfill_id,
                runner,
                seat=seat,
                terms=limits.shown(),
                lease_s=LEASE_S,
            )
        try:
            work.run()
        except catalog.BackfillLostError as error:
            return Problem(str(error)), False
        except Broken as error:
            return Problem(f"{error}; the same command goes on", ExitCode.NOT_REACHABLE), False
        except FetchError as error:
            return Problem(str(error)), False
        except KeyboardInterrupt:
            return None, True
    return None, False


def _work(
    settings: Settings,
    opened: OpenIntake,
    record: BackfillRecord,
    runner: str,
    place: _Place,
    by: By,
    limits: Limits,
    show: _Show,
    stops: _Stops,
) -> tuple[Backfill, Callable[[], Peer | None]]:
    """The loop with its source; and whom the audit trail names, None where that is nobody else."""
    from node.backfill.archive import PATIENT, ArchiveSource, Listener
    from node.backfill.folder import FolderSource
    from node.backfill.run import Backfill
    from node.fetching.limits import Pace
    from node.fetching.receiving import Receiver
    from node.fetching.run import Fetch

    pace = Pace(limits.rate)
    loop: list[Backfill] = []  # it is made after its source, which speaks through it
    source: Source
    if place.folder is not None:
        source = FolderSource(
            place.folder,
            opened,
            record,
            runner,
            pace,
            leave_out=settings.data_dir,
            guard=stops.guard,
            says=lambda words: loop[0].says(words),
            waits=lambda words: loop[0].waits(words),
        )

        def peer() -> Peer | None:
            return None

    else:
        archive = archive_of(settings, place.name, by, opened)
        listener = Listener(lambda words: loop[0].says(words), lambda words: loop[0].waits(words))
        receiver = Receiver(opened, archive, settings.dimse.ae_title, pace, told=listener.took)
        archive.receiver = receiver
        fetch = Fetch(archive, opened, receiver, pace, PATIENT, listener, pauses=settings.delivery)
        source = ArchiveSource(fetch, record.modalities)

        def peer() -> Peer | None:
            return None if archive.way == "move" else archive.peer

    loop.append(
        Backfill(
            opened,
            record,
            runner,
            source,
            limits,
            show,
            node_runs=lambda: door_of(opened) is not None,
            guard=stops.guard,
        )
    )
    return loop[0], peer


def _teller(
    told: tuple[Audit, str] | None, peer: Callable[[], Peer | None], door: str
) -> Callable[[BackfilledStudy, Came], None]:
    """Tells the audit trail of each study, unless the node's own door has."""
    from node.watch.transfers import Direction, Peer, Transfer

    def tell(study: BackfilledStudy, came: Came) -> None:
        who = peer()
        if told is None or not came.taken:
            return
        audit, user = told
        if door == "folder":
            who = Peer(host="localhost", user=user)
        if who is None:
            return
        audit.transferred(
            Transfer(
                direction=Direction.IN,
                peer=who,
                door=door,
                study_instance_uid=study.study_instance_uid,
                sop_class_uids=came.sop_classes,
                count=came.taken,
                accepted=came.whole,
            )
        )

    return tell


# What is shown.


class _Show:
    """Tells how it goes: as it changes on a terminal, elsewhere what is worth a line."""

    def __init__(self, tell: Callable[[str], None], update: Callable[[str], None]) -> None:
        self._tell = tell
        self._update = update
        self.transferred: Callable[[BackfilledStudy, Came], None] = lambda _study, _came: None

    def says(self, words: str) -> None:
        self._update(words)

    def tells(self, line: str) -> None:
        self._tell(line)

    def ended(self, study: BackfilledStudy, came: Came, state: BackfilledState) -> None:
        from node.watch import study_key

        del state
        self.transferred(study, came)
        if not came.whole:
            name = f"{study.day or 'no date'} {study_key(study.study_instance_uid)}"
            self._tell(f"{name}: not whole: {came.reason}")


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
            task = bar.add_task("begins", total=None)
            yield _Show(console.print, lambda words: bar.update(task, description=words))
    else:
        yield _Show(say, lambda _words: None)


def _status_of(database: Database, backfill_id: int) -> dict[str, Any]:
    from node.backfill.progress import as_json, estimate
    from storage import catalog

    now = datetime.now(UTC)
    with database.read() as session:
        record = catalog.read_backfill(session, backfill_id)
        progress = catalog.backfill_progress(session, backfill_id, now=now)
        failed = catalog.failed_backfilled(session, backfill_id, limit=_MOST_FAILURES)
    shown: dict[str, Any] = plain(as_json(record, progress, estimate(record, progress, now), now))
    return {**shown, "failed_studies": plain(failed)}


def _title(shown: Mapping[str, Any]) -> str:
    first, last = shown["first_day"], shown["last_day"]
    days = "all days" if first is None else f"{first}..{last}"
    order = "the newest first" if shown["newest_first"] else "the oldest first"
    kinds = shown["modalities"]
    return f"{days}, {order}, {', '.join(kinds) if kinds else 'all modalities'}"


def _print(shown: Mapping[str, Any]) -> None:
    days, studies, clips = shown["days"], shown["studies"], shown["clips"]
    print_text(f"Backfill of {shown['source']}: {_title(shown)}")
    print_text(f"  {_now(shown)}")
    files = shown["files"]
    if shown["from_folder"]:
        print_text(
            f"  files     {files['looked_at']} looked at, {files['unreadable']} not readable"
        )
    done = f"  days      {days['done']} of {days['all']} done"
    if days["done"] and days["newest_done"]:
        done += f", of {days['oldest_done']} to {days['newest_done']}"
    if days["not_listed"]:
        done += f"; {days['not_listed']} were not listed"
    print_text(done)
    print_text(
        f"  studies   {studies['found']} found, {studies['settled']} settled: "
        f"{studies['taken']} taken, {studies['here']} were here, {studies['partly']} not whole"
    )
    print_text(f"  came      {shown['objects']} objects, {_size(shown['bytes'])}")
    print_text(
        f"  clips     {clips['taken']} came, {clips['analysed']} are looked at, "
        f"{clips['waiting']} wait"
    )
    hour = shown["last_hour"]
    print_text(
        f"  last hour {hour['studies']} studies, {hour['objects']} objects, "
        f"{_size(hour['bytes'])}; {hour['clips_analysed']} clips looked at"
    )
    reckoned = shown["estimate"]
    ends = reckoned["ends_at"]
    when = "not known" if ends is None else f"about {cell(datetime.fromisoformat(ends))}"
    print_text(f"  ends      {when}: {reckoned['basis']}")
    for reason, count in shown["failures"].items():
        print_text(f"  {count} times: {reason}")
    failed = shown["failed_studies"][:_FAILURES_SHOWN]
    if failed:
        print_table(
            "Not whole",
            ("date", "study", "attempts", "why"),
            [
                (one["day"], one["study_instance_uid"], one["attempts"], one["reason"])
                for one in failed
            ],
            long=("study", "why"),
        )


def _now(shown: Mapping[str, Any]) -> str:
    if shown["running"]:
        return f"runs      {shown['doing']}"
    if shown["state"] != "open":
        return f"{shown['state']:9} {shown['doing']}"
    return f"stopped   {shown['doing'] or 'not begun'}"


def _size(count: int) -> str:
    if count >= 1e12:
        return f"{count / 1e12:.2f} TB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
