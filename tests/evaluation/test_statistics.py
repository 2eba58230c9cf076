"""Intervals and tests against scipy, by hand, and by simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from retrieval_bench.evaluation.bootstrap import FEW, cluster_sums, intervals, resampled_means
from retrieval_bench.evaluation.significance import compare, groups, holm, sign_flip
from retrieval_bench.evaluation.weighted_sums import weighted_sums


def clustered(seed: int, n_clusters: int, each: int, m: int = 1, shared: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """(q, m) values of mean 0 in truth, and their clusters; `shared`: deviation of what a cluster has in common."""
    random = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(n_clusters), each)
    common = shared * random.normal(size=(n_clusters, m))[clusters]
    return common + random.normal(size=(len(clusters), m)), clusters


def test_cluster_sums_by_hand() -> None:
    sums, sizes = cluster_sums(np.array([[1.0], [2.0], [4.0], [8.0]]), np.array([7, 3, 7, 3]))
    assert sums.tolist() == [[10.0], [5.0]]
    assert sizes.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(("b", "n", "m"), [(0, 3, 2), (1, 1, 1), (7, 40, 5), (3, 0, 2), (4, 2, 0)])
def test_weighted_sums_are_added_in_order_of_rows(b: int, n: int, m: int) -> None:
    random = np.random.default_rng(n)
    weights, rows = random.integers(-2, 3, size=(b, n)), random.normal(size=(n, m))
    slow = np.zeros((b, m))
    for one, row in np.ndindex(b, n):
        slow[one] += weights[one, row] * rows[row]
    found = weighted_sums(weights, rows)
    assert found.tobytes() == slow.tobytes()
    np.testing.assert_allclose(found, weights @ rows, rtol=1e-12, atol=1e-12)


def test_resamples_are_those_of_an_obvious_loop() -> None:
    values, clusters = clustered(0, 6, 3, m=2)
    clusters[:4] = 5  # sizes differ
    fast = resampled_means(values, clusters, 40, seed=3)
    names = np.unique(clusters)
    drawn = np.random.default_rng(3).integers(len(names), size=(500, len(names)))
    for row in range(40):
        members = np.concatenate([values[clusters == names[place]] for place in drawn[row]])
        np.testing.assert_allclose(fast[row], members.mean(axis=0), rtol=1e-12)


@pytest.mark.slow(reason="a bootstrap")
def test_single_queries_as_clusters_are_the_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(1).beta(2, 5, size=(400, 1))
    ours = intervals(resampled_means(values, np.arange(400), 20_000, seed=0), 400)[0]
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    width = theirs.high - theirs.low
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], atol=0.03 * width)


def test_clusters_widen_the_interval_as_they_should() -> None:
    values, clusters = clustered(2, 60, 20)
    wide, narrow = (
        np.ptp(intervals(resampled_means(values, owner, 4000, 0), len(np.unique(owner)))[0])
        for owner in (clusters, np.arange(len(values)))
    )
    means = values[:, 0].reshape(60, 20).mean(axis=1)
    assert wide == pytest.approx(2 * stats.t.ppf(0.975, 59) * means.std(ddof=1) / np.sqrt(60), rel=0.06)
    assert wide > 1.8 * narrow


def test_one_cluster_has_no_interval() -> None:
    assert np.isnan(intervals(resampled_means(np.ones((5, 2)), np.zeros(5), 100, 0), 1)).all()


@pytest.mark.parametrize("n_clusters", [2, 3, FEW - 1])
def test_few_clusters_have_students_interval(n_clusters: int) -> None:
    values = np.random.default_rng(n_clusters).random((n_clusters, 4))
    found = intervals(resampled_means(values, np.arange(n_clusters), 20_000, 0), n_clusters)
    expected = stats.t.interval(0.95, n_clusters - 1, values.mean(axis=0), stats.sem(values, axis=0))
    away = (expected[1] - expected[0]).mean()
    assert found == pytest.approx(np.column_stack(expected), abs=0.03 * away)


@pytest.mark.parametrize("n_clusters", [2, 3, 4, FEW - 1, FEW])
def test_few_clusters_cover_the_truth_as_often_as_they_say(n_clusters: int) -> None:
    """As the few rounds of a race, or the few products of a slice."""
    values = np.random.default_rng(n_clusters).standard_normal((n_clusters, 4000))
    found = intervals(resampled_means(values, np.arange(n_clusters), 2000, 0), n_clusters)
    assert 0.93 <= ((found[:, 0] <= 0) & (found[:, 1] >= 0)).mean() <= 0.97


def test_the_same_seed_gives_the_same_bits_for_any_thread_count() -> None:
    from threadpoolctl import threadpool_limits

    values, clusters = clustered(3, 700, 2, m=12)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append((resampled_means(values, clusters, 600, 5), sign_flip(values, clusters, 600, 5)))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(found[0][0], resampled_means(values, clusters, 600, 6))


def test_all_sign_patterns_are_the_exact_test_of_scipy() -> None:
    values, clusters = clustered(4, 9, 1, m=5)
    ours = sign_flip(values + 0.5, clusters, 10_000, seed=0)
    for column, p in enumerate(ours):
        sample = values[:, column] + 0.5
        exact = stats.permutation_test(
            (sample,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", n_resamples=np.inf
        )
        assert p == pytest.approx(exact.pvalue, abs=1e-12)


def test_random_sign_patterns_come_near_the_t_test_and_are_never_zero() -> None:
    values, clusters = clustered(5, 300, 2, m=3)
    shifted = values + np.array([0.0, 0.08, 5.0])
    ours = sign_flip(shifted, clusters, 9999, seed=0)
    means = shifted.reshape(300, 2, 3).mean(axis=1)
    theirs = stats.ttest_1samp(means, 0).pvalue
    np.testing.assert_allclose(ours[:2], theirs[:2], atol=0.02)
    assert ours[2] == 1 / 10_000


def test_no_difference_at_all_is_certain() -> None:
    assert sign_flip(np.zeros((40, 1)), np.arange(40) // 2, 999, 0).tolist() == [1.0]


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_pairs_are_compared_on_the_same_queries() -> None:
    values, clusters = clustered(6, 80, 4)
    values = 0.5 + 0.05 * values
    both = np.hstack([values, values - 0.05 + 0.01 * np.random.default_rng(0).normal(size=values.shape)])
    (found,) = compare(["a", "b"], both, clusters, resamples=2000)
    assert (found.first, found.second) == ("a", "b")
    assert found.mean == pytest.approx(0.05, abs=0.002)
    assert 0 < found.low < found.mean < found.high
    assert found.p_holm == found.p == 1 / 2001


def test_letters_say_what_cannot_be_told_apart() -> None:
    names = ["a", "b", "c", "d"]
    pair = frozenset
    assert groups(names, [4, 3, 2, 1], set()) == dict.fromkeys(names, "a")
    chain = {pair("ac"), pair("ad"), pair("bd")}
    assert groups(names, [4, 3, 2, 1], chain) == {"a": "a", "b": "ab", "c": "bc", "d": "c"}
    every = {pair(x + y) for x in "abcd" for y in "abcd" if x < y}
    assert groups(names, [1, 2, 3, 4], every) == {"a": "d", "b": "c", "c": "b", "d": "a"}


@pytest.mark.parametrize("seed", range(20))
def test_two_methods_share_a_letter_exactly_when_they_do_not_differ(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"m{place}" for place in range(7)]
    pairs = [frozenset((x, y)) for i, x in enumerate(names) for y in names[i + 1 :]]
    different = {pair for pair in pairs if random.random() < 0.5}
    letters = groups(names, random.random(7).tolist(), different)
    for one, other in map(tuple, pairs):
        assert bool(set(letters[one]) & set(letters[other])) == (frozenset((one, other)) not in different)
    assert all(letters.values())


@pytest.mark.long(reason="4500 worlds, each with its bootstrap")
@pytest.mark.parametrize(("n_clusters", "each"), [(30, 5), (81, 30), (200, 4)])
def test_the_interval_covers_the_truth_as_often_as_it_says(n_clusters: int, each: int) -> None:
    """Queries of one product succeed or fail together, with a chance of the product's own; sizes differ."""
    random = np.random.default_rng(n_clusters)
    covered, worlds = 0, 1500
    for world in range(worlds):
        sizes = random.integers(1, 2 * each, n_clusters)
        clusters = np.repeat(np.arange(n_clusters), sizes)
        right = random.random(len(clusters)) < random.beta(1.2, 0.8, n_clusters)[clusters]
        low, high = intervals(resampled_means(right[:, None].astype(float), clusters, 1000, world), n_clusters)[0]
        covered += low <= 0.6 <= high
    assert 0.93 <= covered / worlds <= 0.97


def test_twenty_methods_take_less_than_five_seconds() -> None:
    """10,000 resamples of 2,500 queries of 500 products, all means and all pairs; the processor's own seconds, since
    one thread computes and others may have the machine."""
    values, products = np.random.default_rng(0).random((2500, 20)), np.arange(2500) // 5
    started = time.process_time()
    intervals(resampled_means(values, products, 10_000, 0), 500)
    found = compare([f"method {n}" for n in range(20)], values, products, resamples=10_000, level=0.95, seed=0)
    assert time.process_time() - started < 5
    assert len(found) == 190
