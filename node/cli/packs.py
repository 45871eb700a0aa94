"""``echonode packs``: the model packs and what they were tested on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.figures import can_be_printed, print_evaluation, print_markdown
from node.cli.map_checks import print_map_checks
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_table, print_text, settings_of

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
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Print the whole reports, evaluation.md and explanations.md, instead."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what a pack is, and its own evaluation: figures, evidence, licence, citations."""
    pack = find_pack(context, name)
    evaluation = _evaluation(pack)
    if as_json:
        manifest = pack.manifest.model_dump(mode="json")
        print_json({"folder": pack.folder, **manifest, "evaluation": evaluation})
    elif report:
        _print_page(pack)
        print_map_checks(pack.folder, whole=True)
    else:
        _print_manifest(pack)
        if can_be_printed(evaluation):
            print_evaluation(evaluation)
        else:
            _print_page(pack)
        print_map_checks(pack.folder)


def find_pack(context: typer.Context, name: str) -> Pack:
    """The pack of this name that the node would load.

    Raises
    ------
    Problem
        If there is none, or one of the packs cannot be used.
    """
    found = [pack for pack in load_packs(context) if pack.manifest.name == name]
    if not found:
        raise Problem(f"no pack {name!r}; `echonode packs` lists them", ExitCode.NOT_FOUND)
    return found[-1]


def _print_manifest(pack: Pack) -> None:
    manifest = pack.manifest
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


def _evaluation(pack: Pack) -> dict[str, Any]:
    """What the pack's ``evaluation.json`` holds; empty where it has none that can be read."""
    try:
        held = json.loads((pack.folder / "evaluation.json").read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _print_page(pack: Pack) -> None:
    path = pack.folder / "evaluation.md"
    try:
        page = path.read_text()
    except (OSError, ValueError):
        raise Problem(
            f"pack {pack.folder}: no readable evaluation.md", ExitCode.NOT_FOUND
        ) from None
    print_markdown(page)


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
