"""Statistics against numbers worked out by hand, and the one policy for failures: worst, never gone."""

from __future__ import annotations

import numpy as np
import pytest

from optctl.comparison.statistics import (
    failures_as_worst,
    gap_intervals,
    iqm,
    mean_of_rest,
    paired_differences,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from optctl.errors import ArgumentError

INF, NAN = np.inf, np.nan


def test_failures_are_worst_whatever_they_look_like():
    assert failures_as_worst([1.0, NAN, -INF, INF]).tolist() == [1.0, INF, INF, INF]


def test_mean_of_rest_leaves_failures_out_and_is_nan_when_none_is_left():
    assert mean_of_rest([1.0, NAN, 4.0, -INF]) == 2.5
    assert np.isnan(mean_of_rest([NAN, INF]))


def test_iqm_by_hand():
    # Eight values: two are cut at each end, (3 + 4 + 5 + 6) / 4.
    assert iqm([8, 1, 2, 3, 4, 5, 6, 700]) == 4.5
    # Five values: one is cut at each end, (2 + 3 + 10) / 3.
    assert iqm([1, 2, 3, 10, 1000]) == 5.0
    # Three values: nothing is cut.
    assert iqm([1, 2, 6]) == 3.0


def test_iqm_along_an_axis_and_with_failures():
    assert iqm([[1, 2, 3, 10, 1000], [0, 0, 0, 0, 0]], axis=1).tolist() == [5.0, 0.0]
    assert iqm([NAN, 1, 2, 3]) == 2.5  # the failure is the one that is cut, and so is the 1
    assert iqm([NAN, -INF, 2, 3]) == INF  # two failures are not


def test_iqm_of_nothing_is_refused():
    with pytest.raises(ArgumentError, match="`costs` must hold at least one value"):
        iqm([])


def test_stratified_bootstrap_draws_within_each_task():
    # Runs agree within each task, so resampling runs within tasks changes nothing; mixing tasks would.
    scores = np.array([[1.0, 100.0], [1.0, 100.0], [1.0, 100.0]])
    assert stratified_bootstrap(scores, lambda c: float(c.mean())) == (50.5, 50.5, 50.5)


def test_stratified_bootstrap_covers_the_mean_at_its_nominal_rate():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        scores = rng.standard_normal((30, 1))
        found = stratified_bootstrap(scores, lambda c: float(c.mean()), repetitions=300, seed=trial)
        covered += found.low <= 0.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.98


def test_gap_by_hand_with_paired_starts():
    # Costs 1.1 and 2.2 against 1 and 2: the gap of the means is (1.65 − 1.5) / 1.5 = 10 %, and 10 % in every resample.
    found = gap_intervals([[1.1, 2.2]], [1.0, 2.0])
    assert np.allclose(found.mean, (0.1, 0.1, 0.1), rtol=1e-12)


def test_gap_of_negative_costs_has_the_right_sign():
    assert gap_intervals([[-9.0]], [-10.0]).mean.estimate == pytest.approx(0.1)


def test_gap_iqm_cuts_the_failed_seed_and_the_mean_does_not():
    costs = np.array([[1.0], [1.1], [1.2], [NAN], [1.3]])
    found = gap_intervals(costs, [1.0])
    assert found.mean.estimate == INF and found.mean.high == INF
    assert found.iqm.estimate == pytest.approx(0.2)  # (0.1 + 0.2 + 0.3) / 3


def test_gap_interval_widens_with_the_spread_of_the_seeds():
    rng = np.random.default_rng(0)
    best = np.ones(50)
    narrow = gap_intervals(1.1 + 0.01 * rng.standard_normal((10, 1)) + np.zeros(50), best).mean
    wide = gap_intervals(1.1 + 0.10 * rng.standard_normal((10, 1)) + np.zeros(50), best).mean
    # Standard error of ten seeds: 0.1 / √10 = 0.032, so about 0.12 between the 2.5 and 97.5 % points.
    assert 0.06 < wide.high - wide.low < 0.18
    assert 5 < (wide.high - wide.low) / (narrow.high - narrow.low) < 20


def test_gap_is_undefined_where_the_best_mean_is_zero():
    assert np.isnan(gap_intervals([[1.0, 1.0]], [1.0, -1.0]).mean.estimate)


def test_gap_refuses_an_unknown_best():
    with pytest.raises(ArgumentError, match="`best` must be finite"):
        gap_intervals([[1.0]], [NAN])


def test_same_seed_same_interval_and_another_seed_another():
    costs, best = np.random.default_rng(0).random((3, 40)) + 1, np.ones(40)
    assert gap_intervals(costs, best, seed=1) == gap_intervals(costs, best, seed=1)
    assert gap_intervals(costs, best, seed=1) != gap_intervals(costs, best, seed=2)


def test_performance_profile_by_hand():
    # Of {0, 0.1, 0.2, failed}: one quarter at 0, half at 0.1, and never more than three quarters.
    assert performance_profile([0.2, 0.0, NAN, 0.1], [-1, 0.0, 0.1, 0.15, 9]).tolist() == [0, 0.25, 0.5, 0.5, 0.75]


def test_probability_of_improvement_by_hand():
    # Task 1: of the pairs (1,1), (1,3), (2,1), (2,3) X is lower in two and ties in one: 2.5 / 4.
    # Task 2: X always fails and Y fails once: one tie in two for each run: 0.5 · 0.5 = 1 / 4.
    x, y = [[1, NAN], [2, NAN]], [[1, 5.0], [3, INF]]
    assert probability_of_improvement(x, y) == pytest.approx((2.5 / 4 + 1 / 4) / 2)
    assert probability_of_improvement(y, x) == pytest.approx(1 - (2.5 / 4 + 1 / 4) / 2)


def test_paired_differences_by_hand():
    found = paired_differences([1.0, 2.0, 3.0, NAN], [2.0, 2.0, 1.0, INF])
    assert found.mean.estimate == pytest.approx(1 / 3)  # −1, 0, 2
    assert (found.better, found.worse, found.unpaired) == (1 / 3, 1 / 3, 1)
    assert found.mean.low < 1 / 3 < found.mean.high


def test_a_failure_outweighs_every_difference():
    found = paired_differences([NAN, 0.0], [1.0, 1e9])
    assert found.mean.estimate == INF and found.mean.high == INF and found.worse == 0.5
    assert paired_differences([1.0], [NAN]).better == 1.0


def test_shapes_are_checked():
    with pytest.raises(ArgumentError, match="`others` must have 2 tasks"):
        probability_of_improvement([[1, 2]], [[1]])
    with pytest.raises(ArgumentError, match="`best` must have shape"):
        gap_intervals([[1.0, 2.0]], [1.0])
