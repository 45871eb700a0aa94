"""``echonode analyze FILE…``: what the node would say of files, without a node or a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from node.cli.options import JsonOption
from node.cli.output import (
    ExitCode,
    Problem,
    print_json,
    print_table,
    print_text,
    say,
    settings_of,
    stdout_kept,
)
from node.cli.packs import load_packs


def analyze(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="DICOM files; ECGs also as WFDB (.hea) or table (.csv); or folders of them.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to write the SR, SC and PNG.")
    ] = Path("echonode-results"),
    as_json: JsonOption = False,
) -> None:
    """Name the view of every clip, measure A4C clips and ECGs, write an SR a study and pictures."""
    from node.evidence import worth_running

    settings = settings_of(context)
    paths = list(_files(files))
    if not paths:
        raise Problem("no DICOM file and no ECG in these folders", ExitCode.NOT_FOUND)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"{out}: cannot be made: {error.strerror}; name another --out") from error
    packs = worth_running(
        load_packs(context),
        allow_simulated=settings.analysis.allow_simulated_evidence,
        allow_demographics=settings.analysis.person_estimates,
    )
    with stdout_kept():
        from node.cli.reading import read_files

        outcome = read_files(paths, packs, out, settings)
    clips = [clip.json() for clip in outcome.clips]
    if as_json:
        print_json({"clips": clips, "results": outcome.results})
    else:
        from node.cli.findings import print_clips

        print_clips(clips)
        for clip in outcome.clips:
            for words in (*clip.cautions, *clip.not_given):
                print_text(f"{Path(clip.file).name}: {words}")
        written = [(item.kind, item.path) for item in outcome.results]
        print_table("Results", ("kind", "path"), written, long=("path",))
    if outcome.problems:
        raise Problem("; ".join(outcome.problems))
    if all(clip.unreadable for clip in outcome.clips):
        raise Problem("none of the files could be read; 'refused' says why")


def _files(named: list[Path]) -> Iterator[Path]:
    """The files as named, and those in the folders that say they are DICOM, or are ECGs."""
    from models.ecg.reading import is_ecg_file

    for path in named:
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*") if item.is_file())
            taken = [item for item in inside if _is_dicom(item) or is_ecg_file(item)]
            samples = sum(_is_part_of_another(item) for item in inside)
            if len(taken) + samples < len(inside):
                left = len(inside) - len(taken) - samples
                say(f"note: {path}: {left} files are not DICOM images")
            yield from taken
        elif path.exists():
            yield path
        else:
            raise Problem(f"{path}: no such file", ExitCode.NOT_FOUND)


def _is_part_of_another(path: Path) -> bool:
    """Whether a file holds the samples of a WFDB record whose header is beside it."""
    return path.suffix.lower() in (".dat", ".mat") and path.with_suffix(".hea").exists()


def _is_dicom(path: Path) -> bool:
    """Whether a file has the mark of PS3.10 7.1 and is no directory of a medium."""
    if path.name == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
