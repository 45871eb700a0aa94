"""``echonode packs``: the model packs and what they were tested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.output import (
    ExitCode,
    JsonOption,
    Problem,
    print_json,
    print_table,
    print_text,
    settings_of,
)

if TYPE_CHECKING:
    from models.packs import Pack

commands = typer.Typer(help="The model packs.", invoke_without_command=True)


@commands.callback()
def packs(context: typer.Context, as_json: JsonOption = False) -> None:
    """The model packs; alone, this lists them."""
    if context.invoked_subcommand is None:
        _list(context, as_json=as_json)


@commands.command("list")
def list_packs(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the packs that the node would load."""
    _list(context, as_json=as_json)


@commands.command("show")
def show_pack(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A pack's name.")],
    as_json: JsonOption = False,
) -> None:
    """Print a pack's manifest: its outputs, their evidence and figures, licence, citations."""
    found = [pack for pack in load_packs(context) if pack.manifest.name == name]
    if not found:
        raise Problem(f"no pack {name!r}; `echonode packs` lists them", ExitCode.NOT_FOUND)
    pack = found[-1]
    manifest = pack.manifest
    if as_json:
        print_json({"folder": pack.folder, **manifest.model_dump(mode="json")})
        return
    print_text(f"{manifest.name} {manifest.version}: {manifest.title}")
    print_text(f"  folder       {pack.folder}")
    print_text(f"  kind         {manifest.kind.value}, network {manifest.network.name}")
    print_text(f"  weights      SHA-256 {manifest.weights_sha256}")
    print_text(f"  trained on   {manifest.trained_on}")
    print_text(f"  trained by   {manifest.training_command}")
    print_text(f"  licence      {manifest.licence}")
    for citation in manifest.citations:
        print_text(f"  cites        {citation}")
    if manifest.classes:
        print_text(f"  classes      {', '.join(manifest.classes)}")
    print_table(
        "Outputs",
        ("output", "unit", "evidence", "tested on"),
        [
            (output.name, output.unit, output.evidence.value, output.tested_on)
            for output in manifest.outputs
        ],
        long=("tested on",),
    )
    for output in manifest.outputs:
        for line in _figures(output.name, output.figures):
            print_text(line)


def _figures(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Figures for a reader: one line for each test, three numbers as a value and its interval."""
    loose = {key: item for key, item in figures.items() if not isinstance(item, Mapping)}
    tests = {key: item for key, item in figures.items() if isinstance(item, Mapping)}
    for test, measured in {"": loose, **tests}.items():
        if measured:
            words = ", ".join(f"{_words(key)} {_number(item)}" for key, item in measured.items())
            yield f"{name}{f', {_words(test)}' if test else ''}: {words}"


def _words(key: str) -> str:
    return key.replace("_", " ")


def _number(item: Any) -> str:
    match item:
        case [float() | int() as value, float() | int() as low, float() | int() as high]:
            return f"{value:.3g} ({low:.3g} to {high:.3g})"
        case [float() | int() as low, float() | int() as high]:
            return f"{low:.3g} to {high:.3g}"
        case float():
            return f"{item:.3g}"
        case _:
            return str(item)


def _list(context: typer.Context, *, as_json: bool) -> None:
    found = load_packs(context)
    if as_json:
        print_json(
            [
                {
                    "name": pack.manifest.name,
                    "version": pack.manifest.version,
                    "kind": pack.manifest.kind,
                    "title": pack.manifest.title,
                    "weights_sha256": pack.manifest.weights_sha256,
                    "outputs": {out.name: out.evidence for out in pack.manifest.outputs},
                    "licence": pack.manifest.licence,
                    "folder": pack.folder,
                }
                for pack in found
            ]
        )
        return
    print_table(
        "Packs",
        ("name", "version", "kind", "outputs (evidence)", "title"),
        [
            (
                pack.manifest.name,
                pack.manifest.version,
                pack.manifest.kind.value,
                ", ".join(f"{out.name} ({out.evidence.value})" for out in pack.manifest.outputs),
                pack.manifest.title,
            )
            for pack in found
        ],
        long=("outputs (evidence)", "title"),
    )


def load_packs(context: typer.Context) -> tuple[Pack, ...]:
    """The shipped packs, then those of the settings, each checked.

    Raises
    ------
    Problem
        If one cannot be used.
    """
    from models.packs import PackError, load_pack, shipped_packs

    try:
        return tuple(
            load_pack(folder) for folder in (*shipped_packs(), *settings_of(context).analysis.packs)
        )
    except PackError as error:
        raise Problem(str(error)) from error
