"""A grid of trials: each once, the best first, and nothing mixed up between folders."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from models.data.dataset import Dataset, open_dataset
from models.packs import Pack
from models.training import grid, record
from models.training.recipe import Recipe, RecipeError, Trial, paper_grid

DATA = open_dataset("simulated:clips=1")


class Trained:
    """A recipe that trains nothing: the score is how far the rate is from a thousandth."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked: list[tuple[float | None, float | None]] = []
        self._dies_after = dies_after

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            name="none",
            title="none",
            wants="anything",
            fit=self._fit,
            pack=self._pack,
            grid=paper_grid((1e-4, 1e-3), (0.0, 1e-2)),
            knobs={"width": 3},
        )

    def _fit(self, _datasets: Sequence[Dataset], trial: Trial) -> float:
        if len(self.asked) == self._dies_after:
            raise KeyboardInterrupt
        self.asked.append((trial.rate, trial.weight_decay))
        assert trial.rate is not None
        assert trial.weight_decay is not None
        if trial.rate > 1:
            return math.nan
        return abs(math.log10(trial.rate) + 3) + trial.weight_decay

    def _pack(self, _datasets: Sequence[Dataset], _trial: Trial, _out: Path) -> Pack:
        raise NotImplementedError


def test_the_papers_grid_has_24_models() -> None:
    points = paper_grid()
    assert len({tuple(sorted(point.items())) for point in points}) == 24


def test_a_grid_tells_the_best_and_draws_it(tmp_path: Path) -> None:
    trained = Trained()
    trial = Trial(seed=1, work=tmp_path)
    found = grid.run_grid(trained.recipe, [DATA], trial, trained.recipe.grid)
    assert len(trained.asked) == 4
    assert (found.best.rate, found.best.weight_decay, found.best.score) == (1e-3, 0.0, 0.0)
    told = json.loads((tmp_path / "grid.json").read_text())
    assert [one["score"] for one in told["trials"]] == sorted(
        one["score"] for one in told["trials"]
    )
    assert (tmp_path / "grid.md").read_text().count("\n| 0.00") == 4
    with Image.open(tmp_path / "grid.png") as picture:
        assert min(picture.size) > 200


def test_a_grid_that_was_broken_off_trains_only_what_is_not_finished(tmp_path: Path) -> None:
    first, second, third = Trained(dies_after=2), Trained(), Trained()
    trial = Trial(seed=1, work=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        grid.run_grid(first.recipe, [DATA], trial, first.recipe.grid)
    with pytest.raises(RecipeError, match="not trained to its end"):
        grid.run_grid(third.recipe, [DATA], trial, third.recipe.grid, only_finished=True)
    found = grid.run_grid(second.recipe, [DATA], trial, second.recipe.grid)
    assert first.asked + second.asked == [
        (point["rate"], point["weight_decay"]) for point in first.recipe.grid
    ]
    assert len(found.trials) == 4
    grid.run_grid(third.recipe, [DATA], trial, third.recipe.grid, only_finished=True)
    assert third.asked == []


def test_a_trial_that_came_to_no_number_is_last_and_not_the_best(tmp_path: Path) -> None:
    trained = Trained()
    points = paper_grid((1e-3, 100.0), (0.0,))
    found = grid.run_grid(trained.recipe, [DATA], Trial(seed=1, work=tmp_path), points)
    assert found.trials[-1].score == math.inf
    assert json.loads((tmp_path / "grid.json").read_text())["trials"][-1]["score"] is None
    with pytest.raises(RecipeError, match="no trial came to a number"):
        grid.run_grid(trained.recipe, [DATA], Trial(seed=1, work=tmp_path), points[1:])


def test_points_are_drawn_by_the_seed_and_stand_for_the_recipes_own() -> None:
    recipe = Trained().recipe
    assert grid.choose_points(paper_grid(), 5, 1) == grid.choose_points(paper_grid(), 5, 1)
    assert grid.choose_points(paper_grid(), 5, 1) != grid.choose_points(paper_grid(), 5, 2)
    assert len(grid.choose_points(paper_grid(), 99, 1)) == 24
    assert grid.points_of(recipe, (), ()) == recipe.grid
    given = grid.points_of(recipe, (5e-4,), ())
    assert [(one["rate"], one["weight_decay"]) for one in given] == [(5e-4, 0.0), (5e-4, 1e-2)]


def test_a_folder_takes_up_no_other_training(tmp_path: Path) -> None:
    recipe = Trained().recipe
    trial = Trial(seed=1, work=tmp_path, rate=1e-3, weight_decay=0.0)
    record.run(recipe, [DATA], trial)
    other = Trial(seed=2, work=tmp_path, rate=1e-3, weight_decay=0.0)
    with pytest.raises(RecipeError, match="with seed 1, where 2 is asked for"):
        record.run(recipe, [DATA], other)
    with pytest.raises(RecipeError, match="simulated"):
        record.run(recipe, [open_dataset("simulated:clips=2")], trial)
    unknown = Trial(seed=1, work=tmp_path, rate=1e-3, settings={"widht": 4})
    with pytest.raises(RecipeError, match="no setting 'widht'; there are width=3"):
        record.run(recipe, [DATA], unknown)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    recipe = Trained().recipe
    trial = Trial(seed=1, work=tmp_path, rate=1e-3, weight_decay=0.0)
    with record._held(tmp_path), pytest.raises(RecipeError, match="another process trains here"):
        record.run(recipe, [DATA], trial)


def test_what_ran_is_written_down(tmp_path: Path) -> None:
    trial = Trial(seed=1, work=tmp_path, rate=1e-3, weight_decay=0.0, command="echonode train x")
    record.run(Trained().recipe, [DATA], trial)
    about = record.read_trial(tmp_path)
    assert about is not None
    assert about["asked"]["datasets"][0]["fingerprint"] == DATA.fingerprint
    (ran,) = about["runs"]
    assert ran["command"] == "echonode train x"
    assert {"python", "numpy", "keras"} <= set(ran["versions"])
    assert ran["code"]["echonode"]
