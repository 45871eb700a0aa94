"""A training that is broken off ends as one that was not, and says what it did."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from models.training import loop
from models.training.recipe import RecipeError
from tests import tiny_training as tiny


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    work = tmp_path_factory.mktemp("unbroken")
    return tiny.train(work), work


def test_killed_in_mid_epoch_and_run_again_it_ends_as_if_unbroken(
    unbroken: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.tiny_training", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [line["epoch"] for line in loop.records(tmp_path)] == [1, 2]

    resumed = tiny.train(tmp_path)

    model, work = unbroken
    for one, other in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(model.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    lines, others = loop.records(tmp_path), loop.records(work)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line, other in zip(lines, others, strict=True):
        assert {**line, "seconds": 0} == {**other, "seconds": 0}


def test_a_line_that_was_written_before_the_kill_is_not_there_twice(
    unbroken: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    _, work = unbroken
    for name in (loop.LOG, "state.npz"):
        (tmp_path / name).write_bytes((work / name).read_bytes())
    log = tmp_path / loop.LOG
    log.write_text(log.read_text() + '{"epoch": 5, "seconds": 1, "loss": 1.0}\n')
    state = loop._State(tmp_path, "")
    state.write_down({"epoch": 5, "seconds": 2, "loss": 2.0})
    assert [line["epoch"] for line in loop.records(tmp_path)] == [1, 2, 3, 4, 5]
    assert loop.records(tmp_path)[-1]["loss"] == 2.0


def test_a_finished_training_is_not_trained_again(
    unbroken: tuple[keras.Model, Path],
) -> None:
    model, work = unbroken
    before = (work / loop.LOG).read_bytes()
    again = tiny.train(work, tiny.Death(0, 0))  # it would die in the first batch
    assert (work / loop.LOG).read_bytes() == before
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])
    assert loop.finished(work, tiny.EPOCHS)
    assert not loop.finished(work, tiny.EPOCHS + 1)


def test_weights_are_taken_from_a_finished_training_and_from_no_other(
    unbroken: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    model, work = unbroken
    taker = tiny.network()
    fitted = loop.take_weights(taker, work)
    assert fitted.epoch == tiny.EPOCHS
    assert fitted.score == pytest.approx(tiny.held_out(model)["held"], rel=1e-5)
    np.testing.assert_array_equal(model.get_weights()[0], taker.get_weights()[0])
    with pytest.raises(RecipeError, match="train first"):
        loop.take_weights(taker, tmp_path)
    with pytest.raises(RecipeError, match="another network"):
        loop.take_weights(tiny.network(width=5), work)


def test_the_state_of_another_training_is_refused(unbroken: tuple[keras.Model, Path]) -> None:
    _, work = unbroken
    with pytest.raises(RecipeError, match="of 4 epochs, where 9 are asked for"):
        loop.fit(tiny.network(), tiny.Sums(seed=5), epochs=9, work=work, seed=5)
    with pytest.raises(RecipeError, match="another network"):
        loop.fit(tiny.network(width=5), tiny.Sums(seed=5), epochs=4, work=work, seed=5)


def test_the_best_weights_are_kept_where_later_ones_are_worse(tmp_path: Path) -> None:
    worse = iter([0.5, 0.2, 0.9, 0.8])
    seen: list[np.ndarray] = []

    def score(model: keras.Model) -> dict[str, float]:
        seen.append(model.get_weights()[0])
        return {"held": next(worse)}

    model = tiny.network()
    fitted = loop.fit(
        model,
        tiny.Sums(seed=5),
        epochs=4,
        work=tmp_path,
        seed=5,
        score=score,
        keep_best=True,
    )
    assert (fitted.score, fitted.epoch) == (0.2, 2)
    np.testing.assert_array_equal(model.get_weights()[0], seen[1])
    assert len(list(tmp_path.glob("*best*"))) == 1


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    model = tiny.network(rate=1e30)
    fitted = loop.fit(
        model, tiny.Sums(seed=5), epochs=50, work=tmp_path, seed=5, score=tiny.held_out
    )
    assert fitted.score == float("inf")
    assert len(loop.records(tmp_path)) < 50
    assert loop.records(tmp_path)[-1]["loss"] is None
    assert loop.finished(tmp_path, 50)


def test_curves_are_a_picture_with_a_line_for_each(unbroken: tuple[keras.Model, Path]) -> None:
    _, work = unbroken
    with Image.open(work / loop.CURVES) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours = {tuple(colour) for colour in pixels.tolist()}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # the training loss, and the score


def test_batches_do_not_depend_on_what_was_read_before() -> None:
    one, other = tiny.Sums(seed=1), tiny.Sums(seed=1)
    for batches in (one, other):
        batches.begin(3)
    _ = one[0], one[2]
    np.testing.assert_array_equal(one[1][0], other[1][0])
    other.begin(4)
    assert not np.array_equal(one[1][0], other[1][0])
    assert not np.array_equal(one[1][0], one[2][0])
