"""``echonode ecg-summaries PACK DATASET``: what a network of ECGs looks at, over many recordings.

The summaries are those of Bender et al. 2024: :mod:`models.ecg.explain.summaries`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.evaluate import on_cases, pack_named
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_table, print_text, say

if TYPE_CHECKING:
    from models.data.ecgs import EcgDataset
    from models.ecg.explain.methods import EcgMethod
    from models.ecg.explain.summaries import Summaries
    from models.packs import Pack

_METHODS = "lrp or integrated-gradients"


def ecg_summaries(
    context: typer.Context,
    pack: Annotated[
        str, typer.Argument(metavar="PACK", help="The name of a pack for ECGs, or its folder.")
    ],
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A folder of WFDB records with index.tsv, one with ecgs.csv, or "
            "simulated-ecg:records=200,….",
        ),
    ],
    method: Annotated[str, typer.Option(help=f"How: {_METHODS}.")] = "lrp",
    output: Annotated[
        list[str] | None,
        typer.Option(help="An output; may be given several times. Without it the scores."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, held or valid.")] = "valid",
    most: Annotated[int, typer.Option(min=1, help="No more recordings than this.")] = 200,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to write tables and plots.")
    ] = Path("echonode-ecg-summaries"),
    as_json: JsonOption = False,
) -> None:
    """Sum up relevance over many ECGs: by score, by lead, over an average beat."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    how = _method(method)
    opened = _opened(dataset)
    found = _summarised(pack_named(context, pack), opened, how, split, output or (), most)
    files = _written(found, out)
    if as_json:
        from models.ecg.explain.summaries_page import as_json as figures

        print_json({**figures(found), "files": files})
        return
    _print(found)
    for file in files:
        say(f"written: {file}")


def _method(name: str) -> EcgMethod:
    from models.ecg.explain.methods import EcgMethod

    additive = [one for one in EcgMethod if one.additive]
    for one in additive:
        if one.value == name:
            return one
    raise Problem(f"no method {name!r} that sums up; there are {_METHODS}", ExitCode.USAGE)


def _opened(where: str) -> EcgDataset:
    from models.data.dataset import DatasetError
    from models.data.ecgs import open_ecgs

    try:
        return open_ecgs(where)
    except DatasetError as error:
        raise Problem(str(error), ExitCode.USAGE) from error


def _summarised(
    pack: Pack,
    dataset: EcgDataset,
    method: EcgMethod,
    split: str,
    outputs: list[str] | tuple[str, ...],
    most: int,
) -> Summaries:
    from models.data.dataset import DatasetError
    from models.ecg.explain.summaries import summarise
    from models.ecg.reader import WaveformReader
    from models.explain.target import ExplainError
    from models.packs import PackError

    try:
        with on_cases(f"{pack.manifest.name} on {dataset.name}") as told:
            return summarise(
                WaveformReader(pack), dataset, method,
                split=split, outputs=outputs, most=most, on_record=told,
            )  # fmt: skip
    except DatasetError as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    except (ExplainError, PackError) as error:
        raise Problem(str(error)) from error


def _written(found: Summaries, out: Path) -> list[Path]:
    from models.ecg.explain.summaries_page import write_summaries

    try:
        return list(write_summaries(found, out))
    except OSError as error:
        raise Problem(f"{out}: cannot be written: {error.strerror}; name another --out") from error


def _print(found: Summaries) -> None:
    from models.ecg.explain.claims import claims

    held = claims(found)
    print_text(
        f"{found.pack} {found.version}, {found.method.words}; research use only, not for diagnosis"
    )
    print_table(
        f"What Bender et al. 2024 found, on {found.title}",
        ("output", "finding of the paper", "here", "verdict"),
        [(one.output, one.claim, one.numbers, one.verdict.value) for one in held],
        long=("finding of the paper", "here"),
    )
