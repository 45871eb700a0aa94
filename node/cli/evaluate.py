"""``echonode evaluate PACK DATASET``: how good a pack is on a data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from node.cli.figures import print_report
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_text
from node.cli.packs import find_pack

if TYPE_CHECKING:
    from models.data.dataset import Source
    from models.evaluation.report import Report
    from models.packs import Pack


def evaluate(
    context: typer.Context,
    pack: Annotated[str, typer.Argument(metavar="PACK", help="A pack's name, or its folder.")],
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="Of clips: a folder of CAMUS or of `echonode dataset build`, or "
            "simulated:clips=200,…. Of ECGs: a folder with index.tsv or ecgs.csv, or "
            "simulated-ecg:records=200,….",
        ),
    ],
    split: Annotated[
        str, typer.Option(help="train, held or valid; only valid is a test.")
    ] = "valid",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to write the report and its pictures.")
    ] = Path("echonode-evaluation"),
    as_json: JsonOption = False,
) -> None:
    """Run a pack on a data set; print its figures, write them as Markdown, JSON and pictures."""
    found = pack_named(context, pack)
    opened = _opened(dataset, found)
    report = _report(found, opened, split)
    files = _write(out, report)
    if as_json:
        print_json({**report.as_json(), "files": files})
    else:
        print_text(f"{report.pack} {report.version}: research use only, not for diagnosis")
        print_report(report.as_json())
        print_text("")
        for file in files:
            print_text(f"written: {file}")
    if report.empty:
        why = "; ".join(f"{one.output}: {one.reason}" for one in report.untested)
        raise Problem(f"nothing of pack {report.pack!r} could be measured on {dataset}: {why}")


def pack_named(context: typer.Context, named: str) -> Pack:
    """A pack by its name, or the one in a folder."""
    from models.packs import PackError, load_pack

    if os.sep not in named and not Path(named).is_dir():
        return find_pack(context, named)
    if not Path(named).is_dir():
        raise Problem(f"{named}: no such folder", ExitCode.NOT_FOUND)
    try:
        return load_pack(Path(named))
    except PackError as error:
        raise Problem(str(error)) from error


def _opened(where: str, pack: Pack) -> Source:
    from models.data.dataset import DatasetError, open_dataset
    from models.data.ecgs import open_ecgs
    from models.packs import PackKind

    try:
        return (open_ecgs if pack.manifest.kind is PackKind.WAVEFORM else open_dataset)(where)
    except DatasetError as error:
        raise Problem(str(error), ExitCode.USAGE) from error


def _report(pack: Pack, dataset: Source, split: str) -> Report:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from models.data.dataset import DatasetError
    from models.evaluation.report import evaluate_pack
    from models.packs import PackError

    try:
        with on_cases(f"{pack.manifest.name} on {dataset.name}") as on_case:
            return evaluate_pack(pack, dataset, split=split, on_case=on_case)
    except DatasetError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    except PackError as error:
        raise Problem(str(error)) from error


def _write(out: Path, report: Report) -> list[Path]:
    from models.evaluation.report import write_report

    try:
        write_report(out, report)
    except OSError as error:
        raise Problem(f"{out}: cannot be written: {error.strerror}; name another --out") from error
    return sorted(out.glob("evaluation*"))


@contextmanager
def on_cases(words: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(file=sys.stderr)
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
