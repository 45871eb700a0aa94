"""What is written down of a training, so that it can be gone on with, and repeated.

``trial.json`` lies in the trial's folder: what was asked for, on which data, and each run with its
command, versions and code. A folder takes up no other training than its own. A pack gets it as
``training.json``, with the log of epochs and the curves beside it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.data.dataset import Source
from models.packs import Pack, load_pack
from models.training.recipe import Recipe, RecipeError, Trial

TRIAL, TRAINING = "trial.json", "training.json"
_SCORE = "score"

_LIBRARIES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "scipy", "pillow")
_FILES = ("training.jsonl", "loss.png", "grid.png")


def check_settings(recipe: Recipe, trial: Trial) -> None:
    """Refuse settings that the recipe does not have.

    Raises
    ------
    models.training.recipe.RecipeError
        If there are some.
    """
    unknown = sorted(set(trial.settings) - set(recipe.knobs))
    if unknown:
        known = ", ".join(f"{name}={value}" for name, value in recipe.knobs.items()) or "none"
        raise RecipeError(f"{recipe.name}: no setting {unknown[0]!r}; there are {known}")


def run(
    recipe: Recipe, datasets: Sequence[Source], trial: Trial, *, only_finished: bool = False
) -> float:
    """Train, or go on, or say at once what a finished training came to: the held-out score.

    Infinite where it came to no number.

    Raises
    ------
    models.training.recipe.RecipeError
        If the folder is another training's, another process trains in it, or, with
        ``only_finished``, the training is not at its end.
    """
    check_settings(recipe, trial)
    asked = asked_for(recipe, datasets, trial)
    there = read_trial(trial.work)
    if only_finished and (there is None or _SCORE not in there):
        raise RecipeError(f"{trial.work}: not trained to its end; train first")
    trial.work.mkdir(parents=True, exist_ok=True)
    with _held(trial.work):
        about = read_trial(trial.work) or {"asked": asked, "runs": []}
        _compare(trial.work, about["asked"], asked)
        if _SCORE not in about:
            about["runs"].append(_run(trial))
            _write_json(trial.work / TRIAL, about)
            score = float(recipe.fit(datasets, trial))
            about[_SCORE] = score if math.isfinite(score) else None
            _write_json(trial.work / TRIAL, about)
        return math.inf if about[_SCORE] is None else float(about[_SCORE])


def is_finished(work: Path) -> bool:
    """Whether the folder holds a training that is at its end."""
    there = read_trial(work)
    return there is not None and _SCORE in there


@contextmanager
def _held(work: Path) -> Iterator[None]:
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(
                f"{work}: another process trains here; wait for it, or name another folder"
            ) from None
        yield


def asked_for(recipe: Recipe, datasets: Sequence[Source], trial: Trial) -> dict[str, Any]:
    """What makes a training this one and no other."""
    return {
        "recipe": recipe.name,
        "seed": trial.seed,
        "epochs": trial.epochs,
        "rate": trial.rate,
        "weight_decay": trial.weight_decay,
        "settings": dict(trial.settings),
        "datasets": [
            {"name": one.name, "title": one.title, "fingerprint": one.fingerprint}
            for one in datasets
        ],
    }


def read_trial(work: Path) -> dict[str, Any] | None:
    """What a folder's ``trial.json`` says; None where there is none."""
    path = work / TRIAL
    if not path.is_file():
        return None
    about: dict[str, Any] = json.loads(path.read_text())
    return about


def seconds_of(work: Path) -> float:
    """How long the epochs in a folder's log took, all parts together; 0 without a log."""
    path = work / "training.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    last: dict[str, float] = {}
    for line in map(json.loads, lines):
        last[line.get("stage", "")] = float(line["seconds"])
    return sum(last.values())


def check_out(out: Path) -> None:
    """Refuse to replace a folder that is no pack.

    Raises
    ------
    models.training.recipe.RecipeError
        If there is such a folder.
    """
    if out.exists() and not (out / "manifest.json").is_file() and any(out.iterdir()):
        raise RecipeError(f"{out}: there is something, and it is no pack; name another folder")


def make_pack(
    recipe: Recipe,
    datasets: Sequence[Source],
    trial: Trial,
    out: Path,
    *,
    grid: Sequence[Mapping[str, Any]] | None = None,
    picture: Path | None = None,
) -> Pack:
    """Pack a finished trial with what is needed to repeat it; a pack at ``out`` is replaced whole.

    ``grid`` is the table and ``picture`` the picture of the search that led to the trial.

    Raises
    ------
    models.training.recipe.RecipeError
        If ``out`` is no place for it, or the trial is not finished.
    """
    check_out(out)
    there = read_trial(trial.work)
    if there is not None:
        _compare(trial.work, there["asked"], asked_for(recipe, datasets, trial))
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (out.with_name(f".{out.name}.{word}") for word in ("new", "old"))
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    recipe.pack(datasets, trial, fresh)
    for name in _FILES:
        source = picture if name == "grid.png" else trial.work / name
        if source is not None and source.is_file():
            shutil.copyfile(source, fresh / name)
    asked = asked_for(recipe, datasets, trial)
    about = read_trial(trial.work) or {"asked": asked, "runs": []}
    about["packed"] = _run(trial)
    if grid is not None:
        about["grid"] = grid
    _write_json(fresh / TRAINING, about)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return load_pack(out)


def _compare(work: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    asked = json.loads(json.dumps(asked))
    for name, value in asked.items():
        if there.get(name) != value:
            raise RecipeError(
                f"{work}: a training with {name} {_words(there.get(name))}, where {_words(value)} "
                "is asked for; name another folder for the work, or remove this one"
            )


def _words(value: Any) -> str:
    if isinstance(value, list):  # data sets: the fingerprint tells two of one name apart
        return ", ".join(f"{one['name']} ({one['fingerprint'][:8]})" for one in value) or "none"
    return "of the recipe" if value is None else str(value)


def _run(trial: Trial) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": trial.command,
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "versions": {"python": platform.python_version(), **_versions()},
        "code": _code(),
        "processors": len(os.sched_getaffinity(0)),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _code() -> dict[str, str]:
    """The package's version, and its commit where it runs from a checkout."""
    try:
        code = {"echonode": version("echonode")}
    except PackageNotFoundError:
        code = {}
    here = Path(__file__).parent
    git = shutil.which("git")
    if git is None:
        return code
    # The very file must be tracked: a virtual environment may lie in somebody else's checkout.
    asked = [["ls-files", "--error-unmatch", __file__], ["rev-parse", "HEAD"], ["status", "-s"]]
    said = []
    for words in asked:
        done = subprocess.run(  # noqa: S603 - fixed words
            [git, "-C", str(here), *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return code
        said.append(done.stdout.strip())
    changed = any(
        line.endswith(".py") and not line.startswith("??") for line in said[2].split("\n")
    )
    return {**code, "commit": said[1] + (" with changes" if changed else "")}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(value, indent=2) + "\n")
    fresh.replace(path)
