"""``echonode train``: from data sets to a pack with its evidence."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, print_json, print_text, say

if TYPE_CHECKING:
    from models.data.dataset import Source
    from models.packs import Pack
    from models.training.recipe import Recipe, Trial

_WORK = Path("var/training")


class Backend(StrEnum):
    """What Keras runs on."""

    TENSORFLOW = "tensorflow"
    JAX = "jax"
    TORCH = "torch"


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The options of a training; see the command's help."""

    pack: str
    datasets: tuple[str, ...]
    out: Path
    work: Path
    grid: bool
    grid_epochs: int | None
    grid_size: int | None
    epochs: int | None
    rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    seed: int
    settings: tuple[str, ...]
    backend: Backend

    def words(self, *, here: bool) -> list[str]:
        """The command that repeats it.

        ``here`` with all folders as they were given; otherwise data sets by their folder's name,
        and no folder for work and pack: nobody else has them.
        """
        words = ["train", self.pack]
        for where in self.datasets:
            words += ["--dataset", where if here or ":" in where else Path(where).name]
        if here:
            words += ["--out", str(self.out), "--work", str(self.work)]
        words += ["--grid"] if self.grid else []
        for name, values in (
            ("--grid-epochs", [self.grid_epochs]),
            ("--grid-size", [self.grid_size]),
            ("--epochs", [self.epochs]),
            ("--rate", [f"{rate:g}" for rate in self.rates]),
            ("--weight-decay", [f"{decay:g}" for decay in self.weight_decays]),
            ("--seed", [self.seed]),
            ("--set", self.settings if here else [_folderless(one) for one in self.settings]),
            ("--backend", [self.backend.value]),
        ):
            for value in values:
                words += [] if value is None else [name, str(value)]
        return words


def train(
    pack: Annotated[
        str, typer.Argument(metavar="PACK", help="As in `echonode packs`: echonet, ecg-rhythm, …")
    ],
    dataset: Annotated[
        list[str],
        typer.Option(
            metavar="WHERE",
            help="A folder of CAMUS or of `echonode dataset build`, or simulated:…; for ECGs one "
            "with index.tsv or ecgs.csv, or simulated-ecg:…. The first is the most telling for the "
            "report. Repeatable.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The pack; otherwise in --work.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="State and logs; otherwise var/training/PACK."),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Search rate and weight decay on held-out patients.")
    ] = False,
    grid_epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of each trial of the grid; the best is then trained for --epochs."
        ),
    ] = None,
    grid_size: Annotated[
        int | None, typer.Option(min=1, help="So many points of the grid, drawn by the seed.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Otherwise the recipe's own.")] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Peak learning rate. Repeatable with --grid."),
    ] = None,
    weight_decay: Annotated[
        list[float] | None, typer.Option(help="Repeatable with --grid.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.")] = 1,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe. Repeatable."),
    ] = None,
    backend: Annotated[
        Backend | None,
        typer.Option(help="What Keras runs on; otherwise KERAS_BACKEND, or tensorflow."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Otherwise all processors.")] = None,
    pack_only: Annotated[
        bool, typer.Option("--pack-only", help="Do not train: pack what --work holds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a pack; the same command again goes on where it was broken off."""
    folder = _WORK / pack if work is None else work
    asked = _Asked(
        pack=pack,
        datasets=tuple(dataset),
        out=folder / "pack" if out is None else out,
        work=folder,
        grid=grid,
        grid_epochs=grid_epochs,
        grid_size=grid_size,
        epochs=epochs,
        rates=tuple(rate or ()),
        weight_decays=tuple(weight_decay or ()),
        seed=seed,
        settings=tuple(setting or ()),
        backend=_backend(backend),
    )
    _check(asked)
    _prepare(asked.backend, threads)
    # A SIGTERM breaks it off as Ctrl-C does: the last whole epoch is kept.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        answer = _train(asked, pack_only=pack_only)
    except KeyboardInterrupt:
        again = shlex.join(["echonode", *asked.words(here=True)])
        say(f"broken off; what is done is kept, and the same command goes on from there:\n{again}")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print_json(answer)
    else:
        print_text(f"{answer['pack']} {answer['version']}: {answer['out']}")
        print_text(f"  held-out score {_score(answer['score'])} ({answer['score_is']})")
        print_text(f"  trained in     {answer['work']}")
        print_text(f"  its figures    {answer['out']}/evaluation.md")


def _train(asked: _Asked, *, pack_only: bool) -> dict[str, Any]:
    from models.data.dataset import DatasetError, open_dataset
    from models.data.ecgs import open_ecgs
    from models.packs import PackError
    from models.training.recipe import RecipeError, load_recipe

    try:
        recipe = load_recipe(asked.pack)
        opened = open_ecgs if recipe.of_ecgs else open_dataset
        datasets = tuple(opened(where) for where in asked.datasets)
        return _trained(asked, recipe, datasets, pack_only=pack_only)
    except (DatasetError, RecipeError) as error:
        raise Problem(str(error), ExitCode.USAGE) from error
    except PackError as error:
        raise Problem(str(error)) from error


def _trained(
    asked: _Asked, recipe: Recipe, datasets: tuple[Source, ...], *, pack_only: bool
) -> dict[str, Any]:
    from models.training import grid, record
    from models.training.recipe import Trial

    trial = Trial(
        seed=asked.seed,
        work=asked.work,
        epochs=asked.epochs,
        rate=asked.rates[0] if len(asked.rates) == 1 else None,
        weight_decay=asked.weight_decays[0] if len(asked.weight_decays) == 1 else None,
        settings=dict(map(_setting, asked.settings)),
        command=shlex.join(["echonode", *asked.words(here=False)]),
    )
    record.check_settings(recipe, trial)
    record.check_out(asked.out)
    search: grid.Grid | None = None
    folder = asked.work / "grid"
    if asked.grid:
        points = grid.choose_points(
            grid.points_of(recipe, asked.rates, asked.weight_decays), asked.grid_size, asked.seed
        )
        shorter = replace(trial, work=folder, epochs=asked.grid_epochs or asked.epochs)
        search = grid.run_grid(recipe, datasets, shorter, points, only_finished=pack_only)
        best = search.best
        say(f"best of {len(points)}: {best.folder}, score {_score(best.score)}")
        trial = replace(trial, rate=best.rate, weight_decay=best.weight_decay)
        if asked.grid_epochs in (None, asked.epochs):
            trial = replace(trial, work=folder / best.folder)
    score = _score_of(recipe, datasets, trial, pack_only=pack_only)
    packed = _packed(asked, recipe, datasets, trial, search)
    return {
        "pack": packed.manifest.name,
        "version": packed.manifest.version,
        "out": asked.out,
        "work": trial.work,
        "score": score,
        "score_is": recipe.score,
        "seed": trial.seed,
        "rate": trial.rate,
        "weight_decay": trial.weight_decay,
        "grid": None if search is None else grid.table(search),
    }


def _score_of(
    recipe: Recipe, datasets: tuple[Source, ...], trial: Trial, *, pack_only: bool
) -> float | None:
    """What training came to; None for weights that came without a record."""
    from models.training import record

    if pack_only and record.read_trial(trial.work) is None:
        return None
    if record.is_finished(trial.work):
        say(f"{trial.work}: trained to its end before; packing it")
    score = record.run(recipe, datasets, trial, only_finished=pack_only)
    if score == float("inf"):
        raise Problem(f"{trial.work}: training came to no number; try a lower --rate")
    return score


def _packed(
    asked: _Asked,
    recipe: Recipe,
    datasets: tuple[Source, ...],
    trial: Trial,
    search: Any,
) -> Pack:
    from models.packs import load_pack
    from models.training import grid, record

    if asked.backend is Backend.TENSORFLOW:
        table = None if search is None else grid.table(search)
        picture = None if search is None else asked.work / "grid" / "grid.png"
        say("packing: intervals, figures and pictures")
        return record.make_pack(recipe, datasets, trial, asked.out, grid=table, picture=picture)
    # Packs are read with TensorFlow, and a process has one backend.
    words = replace(asked, backend=Backend.TENSORFLOW).words(here=True)
    again = [sys.executable, "-m", "node.cli", *words, "--pack-only"]
    if importlib.util.find_spec("tensorflow") is None:
        raise Problem(
            f"{trial.work}: trained; TensorFlow, which packs it, is not installed here: copy the "
            f"folder to where it is, and there: echonode {shlex.join([*words, '--pack-only'])}"
        )
    environment = {**os.environ, "KERAS_BACKEND": Backend.TENSORFLOW.value}
    done = subprocess.run(again, env=environment, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
    if done.returncode:
        raise Problem(f"{trial.work}: trained, but packing failed", ExitCode.FAILED)
    return load_pack(asked.out)


def _check(asked: _Asked) -> None:
    from models.training.recipe import RECIPES

    if asked.pack not in RECIPES:
        known = ", ".join(sorted(RECIPES))
        raise Problem(f"no recipe for a pack {asked.pack!r}; there are {known}", ExitCode.NOT_FOUND)
    several = max(len(asked.rates), len(asked.weight_decays)) > 1
    if not asked.grid and (several or asked.grid_epochs or asked.grid_size):
        raise Problem("several rates or decays, and --grid-…, go with --grid", ExitCode.USAGE)


def _backend(backend: Backend | None) -> Backend:
    if backend is not None:
        return backend
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    try:
        return Backend(name)
    except ValueError:
        known = ", ".join(Backend)
        raise Problem(f"KERAS_BACKEND={name}: it is one of {known}", ExitCode.USAGE) from None


def _prepare(backend: Backend, threads: int | None) -> None:
    """Set what Keras reads once, when it is imported."""
    if importlib.util.find_spec(backend.value) is None:
        raise Problem(f"{backend.value} is not installed: pip install {backend.value}")
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != backend.value:
        raise Problem("Keras runs on another backend in this process")
    os.environ["KERAS_BACKEND"] = backend.value
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if threads is not None:
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        os.environ.update(dict.fromkeys(names, str(threads)))


def _setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``, the value as JSON where it is some, otherwise as text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Problem(f"--set {text}: KEY=VALUE is wanted", ExitCode.USAGE)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _folderless(setting: str) -> str:
    """``KEY=VALUE``, of a path its last name alone."""
    name, _, value = setting.partition("=")
    return f"{name}={Path(value).name}" if value.startswith(("/", "~", ".")) else setting


def _score(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"
