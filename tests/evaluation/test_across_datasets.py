"""Ranks over datasets against scipy, and what too few datasets must not conclude."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from retrieval_bench.evaluation.across_datasets import (
    datasets_needed,
    friedman,
    rank_correlation,
    rank_tests,
    signed_rank,
    within_ranks,
)

SCORES = np.random.default_rng(0).random((9, 4)) + np.array([0.6, 0.3, 0.3, 0.0])
NAMES = ["a", "b", "c", "d"]


def test_ranks_are_those_of_scipy_with_ties() -> None:
    scores = np.round(SCORES, 1)
    assert within_ranks(scores).tolist() == stats.rankdata(-scores, axis=1).tolist()


def test_the_signed_rank_test_is_that_of_scipy() -> None:
    differences = SCORES[:, :1] - SCORES[:, 1:]
    ours = signed_rank(differences, 10_000, 0)
    theirs = stats.wilcoxon(differences, axis=0, method="exact").pvalue
    assert ours == pytest.approx(theirs)
    assert signed_rank(np.zeros((6, 1)), 10_000, 0).tolist() == [1.0]


def test_the_friedman_test_is_near_that_of_scipy() -> None:
    ours = friedman(within_ranks(SCORES), 4_000, 0)
    assert ours == pytest.approx(stats.friedmanchisquare(*SCORES.T).pvalue, abs=0.02)
    same = within_ranks(np.zeros((6, 3)))
    assert friedman(same, 500, 0) == 1.0


def test_the_correlation_is_that_of_scipy() -> None:
    one, other = SCORES[:, 0], SCORES[:, 1] + SCORES[:, 0]
    rho, p = rank_correlation(one, other, 4_000, 0)
    expected = stats.spearmanr(one, other)
    assert rho == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, abs=0.03)
    assert rank_correlation(one, np.ones(9), 100, 0) == (0.0, 1.0)


def test_with_few_datasets_nothing_is_concluded() -> None:
    few = rank_tests(NAMES, SCORES[:4])
    assert not few.enough
    assert (few.reach, few.friedman, few.pairs, few.groups) == (None, None, (), {})
    assert few.means.tolist() == within_ranks(SCORES[:4]).mean(axis=0).tolist()


@pytest.mark.parametrize("pairs", [1, 3, 6, 66])
def test_so_many_datasets_are_needed_before_a_pair_can_differ(pairs: int) -> None:
    n = datasets_needed(pairs, 0.05)
    always = np.ones((n, 1)) + np.arange(n)[:, None]
    assert pairs * signed_rank(always, 2**n, 0)[0] <= 0.05
    assert n == 5 or pairs * signed_rank(always[:-1], 2**n, 0)[0] > 0.05


def test_no_group_is_drawn_where_no_pair_could_differ() -> None:
    best = np.arange(4)[::-1] + np.zeros((7, 4))  # the same order in every dataset
    tests = rank_tests(NAMES, best, resamples=500)
    assert tests.enough
    assert not tests.can_differ
    assert tests.groups == {}
    assert tests.friedman is not None
    assert tests.friedman < 0.01
    more = rank_tests(NAMES, np.arange(4)[::-1] + np.zeros((8, 4)))
    assert more.groups == {"a": "a", "b": "b", "c": "c", "d": "d"}
    assert all(pair.different for pair in more.pairs)
    assert more.reach is not None
    assert more.reach.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]


def test_the_interval_of_a_mean_rank_covers_what_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(100):
        reach = rank_tests(["a", "b", "c"], rng.random((8, 3)), resamples=300, seed=trial).reach
        assert reach is not None
        inside += int(reach[0, 0] <= 2 <= reach[0, 1])
    assert inside >= 90
