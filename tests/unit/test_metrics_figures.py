"""Figures of agreement mean what they say, and their intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation import metrics

_TRUTH = np.array([30.0, 45.0, 55.0, 60.0, 70.0])


def test_a_perfect_answer_has_no_error() -> None:
    assert metrics.mean_absolute_error(_TRUTH, _TRUTH) == 0.0
    assert metrics.r_squared(_TRUTH, _TRUTH) == 1.0
    assert metrics.bias(_TRUTH, _TRUTH) == 0.0


def test_giving_everyone_the_mean_explains_nothing() -> None:
    mean = np.full(5, _TRUTH.mean())
    assert metrics.r_squared(_TRUTH, mean) == pytest.approx(0.0)
    assert np.isnan(metrics.correlation(_TRUTH, mean))


def test_an_offset_is_bias_and_not_disagreement() -> None:
    low, high = metrics.limits_of_agreement(_TRUTH, _TRUTH + 4.0)
    assert metrics.bias(_TRUTH, _TRUTH + 4.0) == pytest.approx(4.0)
    assert (low, high) == (pytest.approx(4.0), pytest.approx(4.0))
    assert metrics.correlation(_TRUTH, _TRUTH + 4.0) == pytest.approx(1.0)


def test_dice_counts_the_overlap_twice() -> None:
    one = np.zeros((4, 4), bool)
    two = one.copy()
    assert metrics.dice(one, two) == 1.0
    one[:2] = True
    two[1:3] = True
    assert metrics.dice(one, two) == pytest.approx(0.5)


def test_auc_counts_ties_half() -> None:
    truth = np.array([True, True, False, False])
    assert metrics.auc(truth, np.array([0.9, 0.8, 0.2, 0.1])) == 1.0
    assert metrics.auc(truth, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    assert np.isnan(metrics.auc(np.array([True]), np.array([0.5])))


def test_a_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for seed in range(100):
        sample = rng.normal(5.0, 2.0, 60)
        found = metrics.bootstrap(lambda x: float(x.mean()), sample, draws=200, seed=seed)
        hits += found.low <= 5.0 <= found.high
    assert 82 <= hits <= 100


def test_the_same_seed_gives_the_same_interval() -> None:
    value = _TRUTH + np.array([1.0, -2.0, 3.0, 0.0, -1.0])
    one = metrics.bootstrap(metrics.mean_absolute_error, _TRUTH, value, seed=4)
    assert one == metrics.bootstrap(metrics.mean_absolute_error, _TRUTH, value, seed=4)
    assert one.low <= one.value <= one.high


def test_error_quantiles_cover_new_patients() -> None:
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(300):
        errors = rng.standard_t(4, 80)
        low, high = metrics.error_quantiles(errors, np.zeros(80))
        fresh = rng.standard_t(4, 400)
        shares.append(metrics.coverage(fresh, np.full(400, low), np.full(400, high)))
    assert np.mean(shares) >= 0.95


def test_few_patients_give_the_widest_errors() -> None:
    assert metrics.error_quantiles(_TRUTH, _TRUTH - np.array([1, 2, 3, 4, 5.0])) == (1.0, 5.0)


def test_saying_the_mean_to_everyone_has_the_truth_s_own_spread_as_its_error() -> None:
    assert metrics.error_of_the_mean(_TRUTH) == pytest.approx(11.6)
