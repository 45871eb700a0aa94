"""``echonode dataset``: training sets from a hospital's own clips, and what a data set holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from models.clip import Clip
    from models.data.built import Candidate
    from models.data.dataset import Case, Dataset
    from models.data.labels import LabelTable
    from models.views import View, ViewCall
    from node.settings import Settings

commands = typer.Typer(help="Data sets for training and for judging.", no_args_is_help=True)

_OBJECT_SUFFIXES = ("", ".dcm", ".dicom", ".ima")
_EVERY = 100  # objects between two words on progress
_ALIKE = 1000  # studies whose number or UID may contain another's


@commands.command("build")
def build(
    context: typer.Context,
    labels: Annotated[
        Path, typer.Option(metavar="FILE", help="CSV of reported values, a line a study or clip.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the data set.")],
    source: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A folder of DICOM objects.")
    ] = None,
    from_node: Annotated[
        bool, typer.Option("--from-node", help="What this node has received and kept.")
    ] = False,
    views: Annotated[
        str, typer.Option(help="Views to take, joined by commas; 'any' names none.")
    ] = "a4c",
    renamed: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=OUTPUT", help="What a column is; once for each column."
        ),
    ] = None,
    splits: Annotated[
        str, typer.Option(help="Shares of patients for train, held and valid.")
    ] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(min=0, help="Of the split.")] = 0,
    title: Annotated[str, typer.Option(help="What a reader sees first.")] = (
        "Clips with reported values"
    ),
    licence: Annotated[str, typer.Option(help="What may be done with it.")] = (
        "not stated: ask whom you have it from"
    ),
    allow_uncertain_view: Annotated[
        bool, typer.Option(help="Also take clips whose view is not certain.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a training set: frames blanked outside the sector, labels of reports, no identities."""
    from models.data.built import Recipe, build_dataset
    from models.data.dataset import DatasetError
    from models.data.labels import read_labels
    from node.results import is_own_object

    if (source is None) == (not from_node):
        raise Problem("give --from DIR or --from-node, one of them", ExitCode.USAGE)
    try:
        recipe = Recipe(
            title=title,
            licence=licence,
            views=_views(views),
            shares=_shares(splits),
            seed=seed,
            allow_uncertain_view=allow_uncertain_view,
        )
        table = read_labels(labels, _pairs(renamed or []))
    except DatasetError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    _say_table(labels, table)
    settings = settings_of(context)
    candidates = _in_node(settings, table) if source is None else _in_folder(source)
    with stdout_kept():
        try:
            built = build_dataset(
                candidates,
                table,
                out,
                recipe,
                name_view=_view_namer(context),
                refuse=lambda header: "echonode made it" if is_own_object(header) else None,
                progress=_progress(len(candidates)),
            )
        except DatasetError as error:
            raise Problem(str(error)) from error
    for path, reason in built.unreadable:
        say(f"note: {path}: cannot be read: {reason}")
    if as_json:
        print_json({"folder": built.folder, **built.description})
        return
    print_text(f"{built.folder}: {built.description['title']}")
    rows = [(split, *counts.values()) for split, counts in built.description["splits"].items()]
    print_table("Splits", ("split", "patients", "studies", "clips", "frames"), rows)
    left = [(count, reason) for reason, count in built.description["left_out"].items()]
    print_table("Left out", ("objects", "reason"), left, long=("reason",))
    print_text(f"Read {built.folder / 'DATASHEET.md'} before you train on it.")


@commands.command("show")
def show(
    where: Annotated[
        str,
        typer.Argument(
            metavar="WHERE",
            help="A folder of CAMUS or one that `build` made, DIR:cines, or simulated:clips=200.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print what a data set holds: splits, labels, licence, and what to know of it."""
    from models.data.dataset import SIMULATED, SPLITS, DatasetError, open_dataset

    try:
        data = open_dataset(where)
        cases = {split: data.cases(split) for split in SPLITS}
        shown = _shown(data, cases)
    except DatasetError as error:
        drawn = where.startswith(SIMULATED)
        raise Problem(str(error), ExitCode.USAGE if drawn else ExitCode.NOT_FOUND) from error
    if as_json:
        print_json(shown)
        return
    print_text(f"{data.name}: {data.title}")
    print_text(f"  evidence     {data.evidence.value}")
    print_text(f"  licence      {data.licence}")
    if data.citation:
        print_text(f"  cites        {data.citation}")
    print_text(f"  fingerprint  {data.fingerprint}")
    for caveat in data.caveats:
        print_text(f"  caution      {caveat}")
    print_table(
        "Splits",
        ("split", "patients", "clips"),
        [(split, each["patients"], each["clips"]) for split, each in shown["splits"].items()],
    )
    print_table(
        "Labels (clips that have one)",
        ("label", "unit", *SPLITS),
        [
            (name, label["unit"], *(label["known"][split] for split in SPLITS))
            for name, label in shown["labels"].items()
        ],
    )


def _shown(data: Dataset, cases: Mapping[str, Sequence[Case]]) -> dict[str, Any]:
    from models.data.simulated import SimulatedDataset

    # To draw every heart only to count its labels would take minutes.
    alike = isinstance(data, SimulatedDataset)
    known = {split: _known(some, alike=alike) for split, some in cases.items()}
    names = list(dict.fromkeys(name for each in known.values() for name in each))
    return {
        "name": data.name,
        "title": data.title,
        "evidence": data.evidence,
        "licence": data.licence,
        "citation": data.citation,
        "caveats": list(data.caveats),
        "fingerprint": data.fingerprint,
        "splits": {
            split: {"patients": len({case.patient for case in some}), "clips": len(some)}
            for split, some in cases.items()
        },
        "labels": {
            name: {
                "unit": _unit(name),
                "known": {split: each.get(name, 0) for split, each in known.items()},
            }
            for name in names
        },
    }


def _known(cases: Sequence[Case], *, alike: bool) -> dict[str, int]:
    """How many cases know each label. Where cases of a view are ``alike`` one of them is asked."""
    counts: dict[str, int] = {}
    asked: dict[View | None, tuple[str, ...]] = {}
    for case in cases:
        names = asked.get(case.view) if alike else None
        if names is None:
            names = asked[case.view] = tuple(case.truths)
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _unit(name: str) -> str:
    from models.data.dataset import WALL
    from models.tasks import TASKS

    return "mm" if name == WALL else TASKS[name].unit


def _views(text: str) -> tuple[View, ...]:
    from models.views import View

    if text == "any":
        return ()
    try:
        return tuple(dict.fromkeys(View(label.strip()) for label in text.split(",")))
    except ValueError:
        known = ", ".join(view.value for view in View)
        raise Problem(f"--views {text}: 'any', or of {known}", ExitCode.USAGE) from None


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, held, valid = (float(part) for part in text.split(","))
    except ValueError:
        raise Problem(
            f"--splits {text}: three shares are wanted, such as 0.8,0.1,0.1", ExitCode.USAGE
        ) from None
    return train, held, valid


def _pairs(given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        column, equals, output = text.rpartition("=")
        if not equals or not column.strip():
            raise Problem(f"--map {text}: COLUMN=OUTPUT is wanted", ExitCode.USAGE)
        pairs[column.strip()] = output.strip()
    return pairs


def _say_table(path: Path, table: LabelTable) -> None:
    read = ", ".join(
        name if column == name else f"{column} as {name}" for column, name in table.columns.items()
    )
    say(f"note: {path}: {len(table.rows)} lines by {table.key}; read {read}")
    if table.ignored:
        say(f"note: {path}: not read: {', '.join(table.ignored)}")
    for problem in table.problems:
        say(f"note: {path}: {problem}")


def _in_folder(folder: Path) -> list[Candidate]:
    """The files of a folder that are or may be DICOM objects, in the order of their names."""
    from models.data.built import Candidate

    if not folder.is_dir():
        raise Problem(f"{folder}: no such folder", ExitCode.NOT_FOUND)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    taken = [path for path in files if _may_be_object(path)]
    if len(taken) < len(files):
        say(f"note: {folder}: {len(files) - len(taken)} files are not DICOM objects")
    return [Candidate(path=path) for path in taken]


def _may_be_object(path: Path) -> bool:
    if path.name == "DICOMDIR" or path.name.startswith("."):
        return False
    return path.suffix.lower() in _OBJECT_SUFFIXES or path.suffix.lstrip(".").isdecimal()


def _in_node(settings: Settings, table: LabelTable) -> list[Candidate]:
    """The recordings of studies that the table speaks of, with the views that the node named."""
    from models.data.built import Candidate
    from models.views import View, ViewCall
    from node.cli.catalog import open_catalog
    from storage import catalog
    from storage.files import open_store, store_folder
    from storage.states import RecordingKind

    if store_folder(settings.store_url, settings.data_dir) is None:
        raise Problem(
            "the clips lie in an object store: `echonode export` copies them into a folder, and a "
            "data set is made of that"
        )
    files = open_store(settings.store_url, settings.data_dir)
    candidates = []
    with open_catalog(settings) as database, database.read() as session:
        for uid in dict.fromkeys(_studies(session, table)):
            for one in catalog.study_detail(session, uid).recordings:
                if one.kind is not RecordingKind.ULTRASOUND:
                    continue
                call = None
                if one.view_label is not None:
                    call = ViewCall(
                        view=View(one.view_label),
                        score=one.view_score or 0.0,
                        certain=bool(one.view_certain),
                    )
                candidates.append(Candidate(path=Path(files.source(one.file_key)), call=call))
    return candidates


def _studies(session: Session, table: LabelTable) -> Iterator[str]:
    """The UIDs of the node's studies that the table speaks of."""
    from storage import catalog

    for key in table.rows:
        if table.key == "SOPInstanceUID":
            instance = catalog.find_instance(session, key)
            if instance is not None:
                yield instance.study_instance_uid
            continue
        for study in catalog.list_studies(session, None, _ALIKE, key):
            if key in (study.study_instance_uid, study.accession_number):
                yield study.study_instance_uid


def _view_namer(context: typer.Context) -> Callable[[Clip], ViewCall]:
    """Names views by the views pack, which is loaded when the first clip asks for it."""
    readers: list[Any] = []

    def name(clip: Clip) -> ViewCall:
        if not readers:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            from models.packs import PackKind
            from models.views import ViewReader
            from node.cli.packs import load_packs

            packs = [p for p in load_packs(context) if p.manifest.kind is PackKind.VIEW]
            if not packs:
                raise Problem("no pack names views; give a column 'view', or --views any")
            readers.append(ViewReader(packs[-1]))
        call: ViewCall = readers[0].read(clip)
        return call

    return name


def _progress(total: int) -> Callable[[int], None]:
    def tell(count: int) -> None:
        if count % _EVERY == 0 or count == total:
            say(f"{count} of {total} objects")

    return tell
