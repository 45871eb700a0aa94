"""Figures of scores and classes against values worked by hand, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.evaluation import metrics

# Eight patients, three with the finding. At 0.5: TP 2, FP 1, FN 1, TN 4.
_TRUTH = np.array([True, True, False, True, False, False, False, False])
_SCORE = np.array([0.9, 0.8, 0.7, 0.4, 0.3, 0.2, 0.1, 0.05])
_POSITIVE = _SCORE >= 0.5
_NONE = np.zeros(4, np.bool_)


def test_the_four_shares_and_f1_at_a_threshold() -> None:
    assert metrics.sensitivity(_TRUTH, _POSITIVE) == pytest.approx(2 / 3)
    assert metrics.specificity(_TRUTH, _POSITIVE) == pytest.approx(4 / 5)
    assert metrics.positive_predictive_value(_TRUTH, _POSITIVE) == pytest.approx(2 / 3)
    assert metrics.negative_predictive_value(_TRUTH, _POSITIVE) == pytest.approx(4 / 5)
    assert metrics.f1(_TRUTH, _POSITIVE) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metrics.f1_of_always_yes(_TRUTH) == pytest.approx(2 * 3 / (3 + 8))


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    # 3 x 5 pairs; only the case at 0.4 is below a control, that at 0.7.
    assert metrics.auc(_TRUTH, _SCORE) == pytest.approx(14 / 15)
    # One case ties with one of two controls.
    assert metrics.auc(np.array([True, False, False]), np.array([1.0, 1.0, 0.0])) == 0.75


def test_average_precision_is_the_sum_of_its_steps() -> None:
    # Precision where recall rises: 1/1, 2/2 and 3/4.
    assert metrics.average_precision(_TRUTH, _SCORE) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_the_roc_curve_steps_up_with_cases_and_aside_with_controls() -> None:
    false, true, thresholds = metrics.roc_curve(_TRUTH, _SCORE)
    assert list(false[:5]) == pytest.approx([0, 0, 0, 0.2, 0.2])
    assert list(true[:5]) == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert np.isinf(thresholds[0])
    assert (false[-1], true[-1]) == (1.0, 1.0)


def test_the_area_under_the_curve_is_the_auc_also_with_ties() -> None:
    rng = np.random.default_rng(3)
    truth, score = rng.random(60) < 0.4, np.round(rng.random(60), 1)
    false, true, _ = metrics.roc_curve(truth, score)
    assert np.trapezoid(true, false) == pytest.approx(metrics.auc(truth, score))


def test_the_thresholds_lie_midway_to_the_next_score_below() -> None:
    # Youden: at 0.4 all 3 cases and 1 of 5 controls, 1 - 0.2 = 0.8; no better elsewhere.
    assert metrics.youden_threshold(_TRUTH, _SCORE) == pytest.approx((0.4 + 0.3) / 2)
    # F1 at 0.4: 6 / 7; at 0.8: 4 / 5.
    assert metrics.f1_threshold(_TRUTH, _SCORE) == pytest.approx((0.4 + 0.3) / 2)
    rare = np.array([True] + [False] * 9)
    score = np.array([0.6, 0.7, *np.linspace(0.1, 0.5, 8)])
    assert metrics.youden_threshold(rare, score) == pytest.approx(0.55)


def test_with_one_class_nothing_is_measured_and_nothing_warns() -> None:
    score = np.array([0.1, 0.2, 0.3, 0.4])
    for truth in (_NONE, ~_NONE):
        assert np.isnan(metrics.auc(truth, score))
        assert np.isnan(metrics.youden_threshold(truth, score))
        assert np.isnan(metrics.f1_threshold(truth, score))
        assert not metrics.bootstrap(metrics.auc, truth, score, draws=20).measured
    assert np.isnan(metrics.average_precision(_NONE, score))
    assert np.isnan(metrics.sensitivity(_NONE, _NONE))
    assert np.isnan(metrics.positive_predictive_value(_NONE, _NONE))
    assert np.isnan(metrics.f1(_NONE, _NONE))
    assert not metrics.share(np.zeros(0, np.bool_)).measured


def test_a_single_patient_has_an_error_and_no_spread() -> None:
    one, two = np.array([50.0]), np.array([53.0])
    assert metrics.bootstrap(metrics.mean_absolute_error, one, two, draws=5).value == 3.0
    assert not metrics.bootstrap(metrics.r_squared, one, two, draws=5).measured
    assert np.isnan(metrics.limits_of_agreement(one, two)).all()


def test_confusion_has_the_truth_in_rows() -> None:
    table = metrics.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_top_two_takes_the_likeliest_two() -> None:
    chances = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    label = np.array([1, 2, 2])
    assert metrics.top_k(chances, label, 1).tolist() == [False, True, False]
    assert metrics.top_k(chances, label, 2).tolist() == [True, True, False]


def test_reliability_and_calibration_error() -> None:
    confidence = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    was_so = np.array([False, False, True, True, True])
    bins = metrics.reliability(was_so, confidence)
    assert [(one.count, round(one.confidence, 3), one.share) for one in bins] == [
        (1, 0.05, 0.0),
        (2, 0.15, 0.5),
        (2, 0.975, 1.0),
    ]
    # (1 * 0.05 + 2 * 0.35 + 2 * 0.025) / 5
    assert metrics.calibration_error(was_so, confidence) == pytest.approx(0.16)


def test_a_share_where_all_agree_has_the_exact_binomial_interval() -> None:
    found = metrics.share(np.ones(50, np.bool_))
    # 0.025 ** (1 / 50), the lower bound of Clopper and Pearson for 50 of 50.
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 50))
    # Ten clips of five patients are five witnesses.
    clustered = metrics.share(np.ones(10, np.bool_), groups=np.repeat(np.arange(5), 2))
    assert clustered.low == pytest.approx(0.025 ** (1 / 5))


def test_a_share_is_bootstrapped_like_any_mean() -> None:
    rng = np.random.default_rng(0)
    was_so = rng.random(80) < 0.7
    found = metrics.share(was_so)
    exact = stats.binomtest(int(was_so.sum()), 80).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(exact.low, abs=0.03)
    assert found.high == pytest.approx(exact.high, abs=0.03)


def test_clips_of_one_patient_do_not_narrow_an_interval() -> None:
    rng = np.random.default_rng(1)
    patient = rng.normal(0.0, 5.0, 30)
    truth = np.full(300, 50.0)
    value = truth + np.repeat(patient, 10)
    whose = np.repeat(np.arange(30), 10)
    alone = metrics.bootstrap(metrics.bias, truth, value, draws=300)
    together = metrics.bootstrap(metrics.bias, truth, value, groups=whose, draws=300)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    once = metrics.bootstrap(metrics.bias, truth[::10], value[::10], draws=300)
    assert together.high - together.low == pytest.approx(once.high - once.low, rel=0.25)


_CASES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 20).map(lambda k: k / 20)), min_size=2, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(_CASES)
def test_what_always_holds_of_scores(cases: list[tuple[bool, float]]) -> None:
    truth = np.array([one for one, _ in cases])
    score = np.array([one for _, one in cases])
    area = metrics.auc(truth, score)
    if truth.all() or not truth.any():
        assert np.isnan(area)
        return
    assert 0.0 <= area <= 1.0
    assert metrics.auc(~truth, score) == pytest.approx(1.0 - area)
    assert metrics.auc(truth, -score) == pytest.approx(1.0 - area)
    assert metrics.auc(truth, score**3 + 1.0) == pytest.approx(area)
    assert 0.0 < metrics.average_precision(truth, score) <= 1.0
    threshold = metrics.youden_threshold(truth, score)
    called = score >= threshold
    best = metrics.sensitivity(truth, called) + metrics.specificity(truth, called)
    for other in np.unique(score):
        there = score >= other
        assert best >= metrics.sensitivity(truth, there) + metrics.specificity(truth, there) - 1e-12
    best_f1 = metrics.f1(truth, score >= metrics.f1_threshold(truth, score))
    assert best_f1 >= metrics.f1_of_always_yes(truth) - 1e-12


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(0, 4)),
        min_size=2,
        max_size=30,
    )
)
def test_what_always_holds_of_measurements(rows: list[tuple[int, int, int]]) -> None:
    truth, value, whose = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    found = metrics.bootstrap(metrics.mean_absolute_error, truth, value, groups=whose, draws=20)
    assert found.value >= 0.0
    assert abs(metrics.bias(truth, value)) <= found.value + 1e-9
    low, high = metrics.limits_of_agreement(truth, value)
    assert low - 1e-9 <= metrics.bias(truth, value) <= high + 1e-9
    assert metrics.coverage(truth, truth - 1, truth + 1) == 1.0
