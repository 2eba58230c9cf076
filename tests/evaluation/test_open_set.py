"""The figures of queries without an answer, against two other ways to compute them and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from retrieval_bench.evaluation.open_set import NO_LABEL, open_set, own_clusters, placements, threshold


def drawn(seed: int, a: int, u: int, values: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances with many ties: `values` different ones."""
    random = np.random.default_rng(seed)
    near, far = random.integers(values, size=a), random.integers(values, size=u) + values // 4
    return (near / values).astype(np.float32), (far / values).astype(np.float32)


CASES = [drawn(seed, a, u, values) for seed, (a, u, values) in enumerate([(40, 25, 7), (1, 1, 3), (300, 2, 1000)])]


@pytest.mark.parametrize("case", CASES)
def test_auroc_is_that_of_scikit_learn_and_of_mann_whitney(case: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import roc_auc_score

    near, far = case
    found = open_set(near, far, np.arange(len(near)), np.arange(len(far))).scores["auroc"]
    truth = np.repeat([0, 1], [len(near), len(far)])
    assert found == pytest.approx(roc_auc_score(truth, np.concatenate([near, far])), abs=1e-12)
    slow = sum((f > n) + 0.5 * (f == n) for f in far for n in near) / (len(near) * len(far))
    assert found == pytest.approx(slow, abs=1e-12)
    assert found == pytest.approx(stats.mannwhitneyu(far, near).statistic / (len(near) * len(far)), abs=1e-12)
    kept, refused = placements(near, far)
    assert kept.mean() == pytest.approx(refused.mean(), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_rejected_is_one_less_the_false_positives_of_the_curve(case: tuple[np.ndarray, np.ndarray]) -> None:
    """At the first threshold of scikit-learn's curve that keeps 95 %."""
    from sklearn.metrics import roc_curve

    near, far = case
    truth = np.repeat([1, 0], [len(near), len(far)])
    accepted, kept, _ = roc_curve(truth, -np.concatenate([near, far]), drop_intermediate=False)
    expected = 1 - accepted[np.flatnonzero(kept >= 0.95 - 1e-12)[0]]
    found = open_set(near, far, np.arange(len(near)), np.arange(len(far)))
    assert found.scores["rejected@95"] == pytest.approx(expected, abs=1e-12)
    assert found.threshold is not None
    assert (near <= found.threshold).mean() >= 0.95
    assert (near < found.threshold).mean() < 0.95  # no smaller one would do


def test_what_lies_at_the_threshold_is_kept() -> None:
    near = np.array([1.0] * 18 + [2.0, 9.0], np.float32)
    assert threshold(near) == 2.0  # 19 of 20 are 95 %
    found = open_set(near, np.array([2.0, 2.5], np.float32), np.arange(20), np.arange(2))
    assert found.scores["rejected@95"] == 0.5
    assert threshold(np.arange(100.0)) == 94.0
    assert threshold(np.arange(10.0)) == 9.0  # fewer than 20: all are kept


def test_perfect_chance_and_worse() -> None:
    low, high = np.zeros(8, np.float32), np.ones(6, np.float32)
    labels = np.arange(8) // 2, np.arange(6) // 2
    perfect = open_set(low, high, *labels)
    assert perfect.scores == {"auroc": 1.0, "rejected@95": 1.0}
    assert 0 < perfect.intervals["auroc"].low < 1 == perfect.intervals["auroc"].high
    assert open_set(low, low[:6], *labels).scores == {"auroc": 0.5, "rejected@95": 0.0}
    worse = open_set(high[:6], low, labels[1], labels[0])
    assert worse.scores == {"auroc": 0.0, "rejected@95": 0.0}
    assert worse.intervals["auroc"].low == 0 < worse.intervals["auroc"].high


def test_a_query_that_finds_nothing_at_all_is_farther_than_any_other() -> None:
    found = open_set(np.array([1, 2], np.float32), np.array([np.inf, 3], np.float32), np.arange(2), np.arange(2))
    assert found.scores["auroc"] == 1.0
    endless = open_set(np.array([1, np.inf], np.float32), np.array([np.inf], np.float32), np.arange(2), np.arange(1))
    assert endless.scores == {"auroc": 0.75, "rejected@95": 0.0}
    assert endless.threshold is None
    assert endless.intervals == {}


def test_queries_of_one_kind_alone_are_refused() -> None:
    some, none = np.ones(2, np.float32), np.empty(0, np.float32)
    with pytest.raises(ValueError, match="2 answerable and 0 unanswerable"):
        open_set(some, none, np.arange(2), np.arange(0))
    with pytest.raises(ValueError, match="NaN"):
        open_set(some, some * np.float32(np.nan), np.arange(2), np.arange(2))


def test_queries_without_a_label_are_each_their_own() -> None:
    assert len(set(own_clusters(np.array([NO_LABEL, 3, NO_LABEL, 3, 0])).tolist())) == 4
    assert own_clusters(np.array([NO_LABEL, NO_LABEL])).tolist() == [1, 2]


def test_more_photos_of_the_same_labels_are_no_more_certain() -> None:
    near, far = CASES[0]
    labels = np.arange(len(near)), np.arange(len(far))
    once = open_set(near, far, *labels)
    often = open_set(np.repeat(near, 9), np.repeat(far, 9), *(np.repeat(own, 9) for own in labels))
    assert often.scores["auroc"] == pytest.approx(once.scores["auroc"])
    assert often.intervals["auroc"].low == pytest.approx(once.intervals["auroc"].low, abs=0.02)
    single = open_set(np.repeat(near, 9), np.repeat(far, 9), np.arange(9 * len(near)), np.arange(9 * len(far)))
    assert single.intervals["auroc"].low > once.intervals["auroc"].low + 0.05


SHOPS = [
    (54, 27, 8, 0.3, 1.0),
    (54, 27, 8, 0.3, 2.5),
    (54, 27, 30, 0.1, 0.3),
    (20, 10, 5, 0.5, 1.5),
    (10, 10, 4, 0.3, 1.0),
    (200, 100, 5, 0.3, 1.5),
    (300, 150, 1, 0.0, 1.0),
]
"""Labels with an answer, without one, photos of each; share of the variance that lies between labels; how many standard
deviations farther away the nearest image is where there is no answer."""


def covered(shop: tuple[int, int, int, float, float], repeats: int, seed: int = 0) -> dict[str, float]:
    """How often each interval holds the figure of all such queries, which the normal distribution gives."""
    answerable, unanswerable, photos, between, shift = shop
    random = np.random.default_rng(seed)
    truth = {"auroc": stats.norm.cdf(shift / np.sqrt(2)), "rejected@95": stats.norm.sf(stats.norm.ppf(0.95) - shift)}

    def queries(labels: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
        own = np.repeat(np.arange(labels), photos)
        of_label, of_photo = random.standard_normal(labels)[own], random.standard_normal(len(own))
        return (mean + np.sqrt(between) * of_label + np.sqrt(1 - between) * of_photo).astype(np.float32), own

    held = dict.fromkeys(truth, 0)
    for _ in range(repeats):
        (near, near_labels), (far, far_labels) = queries(answerable, 0.0), queries(unanswerable, shift)
        found = open_set(near, far, near_labels, far_labels)
        for name, right in truth.items():
            held[name] += found.intervals[name].low <= right <= found.intervals[name].high
    return {name: count / repeats for name, count in held.items()}


@pytest.mark.long(reason="simulates 400 data sets of each of seven kinds")
@pytest.mark.parametrize("shop", SHOPS)
def test_intervals_hold_the_truth_as_often_as_they_say(shop: tuple[int, int, int, float, float]) -> None:
    """Not below 95 % by more than three standard errors of 400 repeats, 0.033."""
    for name, share in covered(shop, 400).items():
        assert share >= 0.95 - 0.033, name
