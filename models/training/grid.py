"""Search learning rate and weight decay on held-out patients, each trial in its own folder.

After Ghorbani et al. 2020: 24 models a task, the best by validation. What is finished is not
trained again, so a search that was broken off goes on with the same call. ``grid.json``
and ``grid.md`` tell how it stands after each trial, ``grid.png`` how it ended.
"""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.data.dataset import Source
from models.training.recipe import Recipe, RecipeError, Trial, paper_grid
from models.training.record import is_finished, run, seconds_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class GridTrial:
    """One finished point of a grid; ``score`` is infinite where training came to no number."""

    rate: float | None
    weight_decay: float | None
    score: float
    seconds: float
    folder: str  #: in the grid's


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A finished search, the best first."""

    trials: tuple[GridTrial, ...]

    @property
    def best(self) -> GridTrial:
        """The lowest score."""
        return self.trials[0]


def points_of(
    recipe: Recipe, rates: Sequence[float], decays: Sequence[float]
) -> tuple[Mapping[str, float], ...]:
    """The recipe's grid; where rates or decays are given, these stand for its own."""
    if rates and decays:
        return paper_grid(rates, decays)
    own: dict[str, list[float]] = {
        name: list(dict.fromkeys(point[name] for point in recipe.grid if name in point))
        for name in ("rate", "weight_decay")
    }
    if rates or decays:
        return paper_grid(rates or own["rate"], decays or own["weight_decay"])
    return recipe.grid


def choose_points(
    grid: Sequence[Mapping[str, float]], size: int | None, seed: int
) -> tuple[Mapping[str, float], ...]:
    """``size`` points of a grid drawn by the seed, in its order; all where None."""
    if size is None or size >= len(grid):
        return tuple(grid)
    chosen = np.random.default_rng(seed).permutation(len(grid))[:size]
    return tuple(grid[place] for place in sorted(chosen.tolist()))


def trial_at(trial: Trial, point: Mapping[str, float]) -> Trial:
    """The trial of a grid at a point, in a folder that the point names."""
    name = ",".join(f"{key}={value:g}" for key, value in sorted(point.items()))
    return replace(trial, work=trial.work / name, **point)  # type: ignore[arg-type]


def run_grid(
    recipe: Recipe,
    datasets: Sequence[Source],
    trial: Trial,
    points: Sequence[Mapping[str, float]],
    *,
    only_finished: bool = False,
) -> Grid:
    """Train at every point that is not finished, and write the tables.

    ``trial.work`` is the grid's folder; its ``rate`` and ``weight_decay`` hold where a point does
    not name them.

    Raises
    ------
    models.training.recipe.RecipeError
        If no point came to a number, or with ``only_finished`` one is not at its end.
    """
    if not points:
        raise RecipeError(f"{recipe.name}: no grid; name rates or weight decays")
    done: list[GridTrial] = []
    for number, point in enumerate(points, start=1):
        one = trial_at(trial, point)
        words = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in point.items())
        said = "finished before" if is_finished(one.work) else "begins"
        log.info("trial %d of %d: %s: %s", number, len(points), words, said)
        score = run(recipe, datasets, one, only_finished=only_finished)
        done.append(
            GridTrial(
                rate=one.rate,
                weight_decay=one.weight_decay,
                score=score,
                seconds=seconds_of(one.work),
                folder=one.work.name,
            )
        )
        grid = Grid(trials=tuple(sorted(done, key=lambda each: each.score)))
        _write(recipe, trial.work, grid, len(points))
    if not math.isfinite(grid.best.score):
        raise RecipeError(f"{trial.work}: no trial came to a number; try lower rates")
    return grid


def table(grid: Grid) -> list[dict[str, Any]]:
    """Its trials for JSON, the best first."""
    return [
        {**asdict(one), "score": one.score if math.isfinite(one.score) else None}
        for one in grid.trials
    ]


def _write(recipe: Recipe, folder: Path, grid: Grid, count: int) -> None:
    whole = {"recipe": recipe.name, "score": recipe.score, "trials": table(grid), "of": count}
    (folder / "grid.json").write_text(json.dumps(whole, indent=2) + "\n")
    lines = [
        f"# {recipe.name}: {len(grid.trials)} of {count} trials",
        "",
        f"Score: {recipe.score}; lower is better.",
        "",
        "| rate | weight decay | score | seconds |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {_number(one.rate)} | {_number(one.weight_decay)} | {_number(one.score)} | "
        f"{one.seconds:.0f} |"
        for one in grid.trials
    ]
    (folder / "grid.md").write_text("\n".join(lines) + "\n")
    if len(grid.trials) == count:
        (folder / "grid.png").write_bytes(_picture(recipe, grid))


def _number(value: float | None) -> str:
    if value is None:
        return "of the recipe"
    return f"{value:.4g}" if math.isfinite(value) else "no number"


def _picture(recipe: Recipe, grid: Grid) -> bytes:
    """Score by rate and decay, the best framed."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rates, decays = (
        sorted({getattr(one, name) for one in grid.trials}, key=lambda value: value or 0.0)
        for name in ("rate", "weight_decay")
    )
    scores = np.full((len(decays), len(rates)), np.nan)
    for one in grid.trials:
        scores[decays.index(one.weight_decay), rates.index(one.rate)] = one.score
    shown = np.where(np.isfinite(scores), scores, np.nan)
    size = 2.2 + 1.0 * len(rates), 1.6 + 0.5 * len(decays)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shown, cmap="viridis_r", aspect="auto")
    middle = np.nanmean([np.nanmin(shown), np.nanmax(shown)]) if np.isfinite(shown).any() else 0.0
    for (row, column), score in np.ndenumerate(scores):
        if not np.isnan(score):
            axes.text(
                column,
                row,
                _number(float(score)),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if np.isfinite(score) and score > middle else "black",
            )
    best = decays.index(grid.best.weight_decay), rates.index(grid.best.rate)
    frame = Rectangle((best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, edgecolor="red", lw=2)
    axes.add_patch(frame)
    axes.set_xticks(range(len(rates)), [_number(value) for value in rates])
    axes.set_yticks(range(len(decays)), [_number(value) for value in decays])
    axes.set_xlabel("peak learning rate")
    axes.set_ylabel("weight decay")
    axes.set_title(f"{recipe.name}: held-out score, lower is better", fontsize=9)
    figure.colorbar(image, ax=axes)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
