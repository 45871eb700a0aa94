"""``echonode import``: files, folders, archives and media into the node, as if they were sent."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_text, say, settings_of
from node.cli.telling import audit_of
from node.sections import LogSettings
from node.settings import Settings

if TYPE_CHECKING:
    from node.doors.media import Find
    from node.doors.taking import OpenIntake, Taken, Taker

_TELL_EVERY_S = 10.0  # away from a terminal
_MOST_SKIPPED = 1000  # that are named one by one
_MOST_ALIKE = 20  # problems of one reason that are told one by one: a CT has thousands of images
_TRIES = 3  # where nothing is wrong any more once it is looked at


def import_objects(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…", help="DICOM files, folders of them, zip archives, or a DICOMDIR."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would become of each.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Do not let it wait behind what machines send.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take objects in from files, as if a machine had sent them; the files stay as they are.

    Works while the node runs and without it. What is in already is known again, so an import that
    was stopped goes on when it is called once more. Ends with 1 where an object is not in.
    """
    from node.watch import set_up_logging

    settings = settings_of(context)
    _check(paths, settings)
    set_up_logging(LogSettings(level="error", format="console"))
    with _opened(settings) as intake:
        done = _import(intake, paths, settings, now=now, dry_run=dry_run, as_json=as_json)
        if not (dry_run or done.stopped):
            intake.released(uid for uid, study in done.studies.items() if study.new)
    if not dry_run:
        _tell_audit(settings, done)
    if as_json:
        print_json(done.json(dry_run=dry_run))
    else:
        _print(done, dry_run=dry_run)
    _conclude(done, dry_run=dry_run)


@dataclass
class _Study:
    """What came of one study."""

    count: int = 0
    new: int = 0
    whole: bool = True
    classes: dict[str, None] = field(default_factory=dict)


@dataclass
class _Done:
    """What became of everything so far."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("taken", "already-kept", "quarantined", "refused", "unreadable", "not-dicom"), 0
        )
    )
    size_bytes: int = 0  #: of what was taken
    studies: dict[str, _Study] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    alike: Counter[str] = field(default_factory=Counter)  #: problems of one reason
    stopped: str | None = None  #: why not all was looked at
    code: ExitCode = ExitCode.OK

    def add(self, name: str, taken: Taken) -> str | None:
        """Count a file; gives what is to be told of it."""
        from node.doors.taking import Fate

        if taken.fate in (Fate.NOT_DICOM, Fate.DIRECTORY):
            self.skip(name, taken.reason)
            return None
        self.counts[taken.fate] += 1
        if taken.fate is Fate.TAKEN:
            self.size_bytes += taken.size_bytes
        if taken.study_instance_uid:
            study = self.studies.setdefault(taken.study_instance_uid, _Study())
            study.count += 1
            study.new += taken.fate is Fate.TAKEN
            study.whole &= not taken.fate.failed
            study.classes[taken.sop_class_uid] = None
        return self._problem(name, taken.fate, taken.reason) if taken.fate.failed else None

    def unreadable(self, name: str, reason: str) -> str | None:
        """Count what should be there and cannot be read."""
        self.counts["unreadable"] += 1
        return self._problem(name, "unreadable", reason)

    def skip(self, name: str, reason: str) -> None:
        """Count what is no DICOM file."""
        self.counts["not-dicom"] += 1
        if len(self.skipped) < _MOST_SKIPPED:
            self.skipped.append({"path": name, "reason": reason})

    def _problem(self, name: str, what: str, reason: str) -> str | None:
        self.problems.append({"path": name, "what": str(what), "reason": reason})
        self.alike[reason] += 1
        if self.alike[reason] > _MOST_ALIKE:
            return None
        return f"{name}: {_WORDS[str(what)]}: {reason}"

    def words(self) -> str:
        """The counts in a line."""
        return ", ".join(
            f"{count} {_COUNTED[what]}"
            for what, count in self.counts.items()
            if count or what == "taken"
        )

    def json(self, *, dry_run: bool) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "dry_run": dry_run,
            "stopped": self.stopped,
            **{name.replace("-", "_"): count for name, count in self.counts.items()},
            "bytes": self.size_bytes,
            "studies": [
                {"study_instance_uid": uid, "objects": study.count, "new": study.new}
                for uid, study in self.studies.items()
            ],
            "problems": self.problems,
            "skipped": self.skipped,
        }


_OUR_ERROR = "an error of echonode's own ({})"
_COUNTED = {
    "taken": "taken",
    "already-kept": "already kept",
    "quarantined": "in quarantine",
    "refused": "refused",
    "unreadable": "not readable",
    "not-dicom": "not DICOM",
}
_WORDS = {
    "quarantined": "in quarantine",
    "refused": "refused",
    "unreadable": "cannot be read",
}


def _check(paths: Sequence[Path], settings: Settings) -> None:
    """Everything named is there, and none of it is the node's own."""
    from node.doors.media import shown

    own = settings.data_dir.resolve()
    for path in paths:
        try:
            path.stat()
        except FileNotFoundError as error:
            raise Problem(f"{shown(path)}: no such file or folder", ExitCode.NOT_FOUND) from error
        except OSError as error:
            raise Problem(f"{shown(path)}: {error.strerror}", ExitCode.NOT_FOUND) from error
        if path.resolve().is_relative_to(own):
            raise Problem(
                f"{shown(path)} lies in the node's own data_dir; what is there came in already "
                "(`echonode quarantine export` gets an object out)",
                ExitCode.USAGE,
            )


@contextmanager
def _opened(settings: Settings) -> Iterator[OpenIntake]:
    from node.doors.taking import open_intake
    from storage.catalog import CatalogError
    from storage.database import DatabaseError
    from storage.files import FileStoreError

    try:
        with open_intake(settings) as intake:
            yield intake
    except DatabaseError as error:
        raise Problem(str(error), ExitCode.NOT_REACHABLE) from error
    except (CatalogError, FileStoreError) as error:
        raise Problem(str(error)) from error


def _import(
    intake: OpenIntake,
    paths: Sequence[Path],
    settings: Settings,
    *,
    now: bool,
    dry_run: bool,
    as_json: bool,
) -> _Done:
    from node.doors.media import Fault, Skipped
    from node.doors.taking import RefusedError, Taker
    from node.intake import LATER

    done = _Done()
    with _until_interrupted() as interrupted, _shown(done, quiet=as_json) as (tell, turn):

        def refusing() -> str | None:
            return "it was interrupted" if interrupted() else intake.refusing()

        urgency = 0 if now else LATER
        taker = Taker(intake.files, intake.intake, refusing, urgency=urgency, dry_run=dry_run)
        for found in _everything(paths, settings.data_dir):
            if interrupted():
                break
            if isinstance(found, Skipped):
                done.skip(found.name, found.reason)
            elif isinstance(found, Fault):
                tell(done.unreadable(found.name, found.reason))
            else:
                try:
                    tell(done.add(found.name, _take(taker, intake, found)))
                except RefusedError as error:
                    if interrupted():
                        break
                    done.stopped, done.code = _why(intake, error), ExitCode.NOT_REACHABLE
                    break
                except OSError as error:
                    tell(done.unreadable(found.name, error.strerror or type(error).__name__))
                except Exception as error:  # noqa: BLE001 - the edge of a file: the next one comes
                    reason = _OUR_ERROR.format(type(error).__name__)
                    tell(done.unreadable(found.name, reason))
            turn()
        if interrupted() and done.stopped is None:
            done.stopped, done.code = "it was interrupted", ExitCode.INTERRUPTED
    return done


def _take(taker: Taker, intake: OpenIntake, found: Any) -> Taken:
    """Once more where nothing is wrong any more: another may have held the database for long."""
    from node.doors.taking import RefusedError

    for _ in range(_TRIES - 1):
        try:
            return taker.take(found.opened)
        except RefusedError:
            if intake.trouble() is not None:
                raise
    return taker.take(found.opened)


def _why(intake: OpenIntake, error: Exception) -> str:
    trouble = intake.trouble()
    return str(error) if trouble is None else f"{trouble.words}; {trouble.next_step}"


def _everything(paths: Sequence[Path], data_dir: Path) -> Iterator[Find]:
    """Everything that the user has named, each in its turn."""
    from node.doors.media import Fault, Skipped, shown, walk

    for path in paths:
        if not path.is_dir():
            if path.is_file():
                yield from _held(path, named=True)
            else:
                yield Fault(name=shown(path), reason="it is no regular file")
            continue
        for inside in walk(path, leave_out=[data_dir]):
            if isinstance(inside, Fault | Skipped):
                yield inside
            else:
                yield from _held(inside)


def _held(path: Path, *, named: bool = False) -> Iterator[Find]:
    from node.doors.media import Fault, objects_in, shown

    try:
        yield from objects_in(path, named=named)
    except Exception as error:  # noqa: BLE001 - the edge of a file: the next one comes
        yield Fault(name=shown(path), reason=_OUR_ERROR.format(type(error).__name__))


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends the work after the object at hand; a second one at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _shown(
    done: _Done, *, quiet: bool
) -> Iterator[tuple[Callable[[str | None], None], Callable[[], None]]]:
    """Tell of failures as they come, and how far it is: as it changes, or a line now and then."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr, markup=False, highlight=False, soft_wrap=True)
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("looking", total=None)
            yield (
                lambda line: None if line is None or quiet else console.print(line),
                lambda: bar.update(task, description=done.words()),
            )
        return
    told = time.monotonic()

    def turn() -> None:
        nonlocal told
        if not quiet and time.monotonic() - told >= _TELL_EVERY_S:
            told = time.monotonic()
            say(done.words())

    yield lambda line: None if line is None or quiet else say(line), turn


def _tell_audit(settings: Settings, done: _Done) -> None:
    from node.doors.taking import DOOR
    from node.watch.transfers import Direction, Peer, Transfer

    if not done.studies:
        return
    with audit_of(settings) as told:
        if told is None:
            return
        audit, user = told
        for uid, study in done.studies.items():
            audit.transferred(
                Transfer(
                    direction=Direction.IN,
                    peer=Peer(host="localhost", user=user),
                    door=DOOR,
                    study_instance_uid=uid,
                    sop_class_uids=tuple(study.classes),
                    count=study.count,
                    accepted=study.whole,
                )
            )


def _print(done: _Done, *, dry_run: bool) -> None:
    for reason, count in done.alike.items():
        if count > _MOST_ALIKE:
            say(f"… and {count - _MOST_ALIKE} more: {reason} (--json lists them)")
    if done.skipped:
        most = 5
        for item in done.skipped[:most]:
            say(f"{item['path']}: skipped: {item['reason']}")
        if done.counts["not-dicom"] > most:
            say(f"… and {done.counts['not-dicom'] - most} more were skipped")
    new = [study for study in done.studies.values() if study.new]
    size = f"; {done.size_bytes / 1e6:.1f} MB in {len(new)} studies" if new else ""
    print_text(f"{'would be: ' if dry_run else ''}{done.words()}{size}")


def _conclude(done: _Done, *, dry_run: bool) -> None:
    if done.stopped is not None:
        raise Problem(
            f"stopped: {done.stopped}; what is in stays, the files are as they were, and the same "
            "command goes on where it was",
            done.code,
        )
    if done.problems:
        where = " and `echonode quarantine`" if done.counts["quarantined"] and not dry_run else ""
        raise Problem(f"{len(done.problems)} objects are not in; the lines above{where} say why")
    if not (done.counts["taken"] or done.counts["already-kept"]):
        raise Problem("there is no DICOM object in what was named", ExitCode.NOT_FOUND)
