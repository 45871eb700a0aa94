"""``echonode packs import`` and ``check``: packs from outside, and whether a pack can be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, plain, print_json, print_text, say, settings_of
from node.cli.packs import commands

if TYPE_CHECKING:
    from models.packs.inspection import Inspection


@commands.command("import")
def import_(
    network: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .keras file, or a SavedModel folder.")
    ],
    manifest: Annotated[
        Path, typer.Option("--manifest", metavar="FILE", help="What it is: see docs/packs.md.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The pack, a new folder.")],
    as_json: JsonOption = False,
) -> None:
    """Make a pack of a network of your own: checked, tried once, and written if it can be used."""
    from models.packs import PackError
    from models.packs.importing import import_pack

    _quiet()
    try:
        found = import_pack(network, manifest, out)
    except PackError as error:
        raise Problem(str(error)) from error
    _tell(found, as_json=as_json)
    if found.problems:
        raise Problem(f"{out}: not written")
    say(f"{out}: written; to use it, add it to analysis.packs in the settings")


@commands.command("check")
def check(
    context: typer.Context,
    pack: Annotated[str, typer.Argument(metavar="FOLDER|NAME", help="A pack.")],
    as_json: JsonOption = False,
) -> None:
    """Check everything about a pack, run it once, and list every problem."""
    from models.packs.inspection import inspect_pack

    folder = _folder_of(context, pack)
    _quiet()
    found = inspect_pack(folder)
    _tell(found, as_json=as_json)
    if found.problems:
        count = len(found.problems)
        raise Problem(f"{folder}: {count} problem{'s' * (count > 1)}; the pack cannot be used")


def _folder_of(context: typer.Context, pack: str) -> Path:
    """The folder that was named, or that of the pack with this name."""
    from models.packs import PackError, shipped_packs
    from models.packs.checks import MANIFEST
    from models.packs.inspection import read_fields

    if Path(pack).is_dir():
        return Path(pack)
    for folder in (*settings_of(context).analysis.packs[::-1], *shipped_packs()):
        try:
            if pack in (folder.name, read_fields(folder / MANIFEST).get("name")):
                return folder
        except PackError:
            continue  # a pack that cannot be read has no name
    raise Problem(
        f"no pack {pack!r}: name a folder, or one of those that `echonode packs` lists",
        ExitCode.NOT_FOUND,
    )


def _tell(found: Inspection, *, as_json: bool) -> None:
    manifest, trial = found.manifest, found.trial
    if as_json:
        print_json(
            {
                "folder": found.folder,
                "name": manifest.name if manifest else None,
                "version": manifest.version if manifest else None,
                "weights_sha256": manifest.weights_sha256 if manifest else None,
                "usable": not found.problems,
                "problems": found.problems,
                "notes": found.notes,
                "trial": plain(trial),
            }
        )
        return
    if manifest is not None:
        print_text(f"{manifest.name} {manifest.version}: {manifest.title}")
        print_text(f"  kind         {manifest.kind.value}, network {manifest.network.name}")
        print_text(f"  weights      SHA-256 {manifest.weights_sha256}")
        for output in manifest.outputs:
            print_text(
                f"  output       {output.name}, {output.unit}, evidence {output.evidence.value}"
            )
    if trial is not None:
        of_ecgs = manifest is not None and manifest.kind.value == "waveform"
        seen = "samples of leads, mV" if of_ecgs else "grey frames"
        print_text(f"  takes        {_shape(trial.input_shape)}, {seen}")
        print_text(f"  gives        {_shape(trial.output_shape)}")
        print_text(f"  holds        {trial.weights:,} numbers")
        shown = "an ECG " if of_ecgs else "speckle"
        print_text(f"  on {shown}   in {trial.seconds:.1f} s, the first time:")
        for line in trial.said:
            print_text(f"               {line}")
    for line in found.problems:
        print_text(f"  PROBLEM      {line}")
    for line in found.notes:
        print_text(f"  note         {line}")


def _shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("n" if side is None else str(side) for side in shape)


def _quiet() -> None:
    # Before TensorFlow is imported: what it says of the machine is not for stdout's reader.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
