"""Search by a threshold against a slow twin and scikit-learn; the threshold comes from train alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from retrieval_bench.evaluation.thresholds import JudgedPairs, chosen, curve, pairs_of, scores_at, thinned
from retrieval_bench.experiment.runner import run
from retrieval_bench.report import by_threshold
from retrieval_bench.report.table import markdown, tidy_csv
from retrieval_bench.search.reference import NumpyIndex
from tests.support.runs import plan
from tests.support.shop import shop


def some(seed: int, q: int = 12, n: int = 40, ties: bool = False):
    rng = np.random.default_rng(seed)
    labels, asked = rng.integers(0, 5, n), rng.integers(0, 5, q)
    gallery = rng.standard_normal((n, 3)).astype(np.float32)
    queries = rng.standard_normal((q, 3)).astype(np.float32)
    if ties:
        gallery, queries = np.rint(gallery), np.rint(queries) + np.float32(0.5)
    return pairs_of(NumpyIndex(gallery, "euclidean"), queries, asked, labels, None, 0), gallery, queries, labels, asked


@pytest.mark.parametrize("ties", [False, True])
def test_each_point_of_the_curve_is_what_counting_gives(ties: bool) -> None:
    pairs, gallery, queries, labels, asked = some(1, ties=ties)
    away = np.linalg.norm(queries[:, None] - gallery[None], axis=2)
    right = asked[:, None] == labels[None]
    whole = curve(pairs)
    for threshold, precision, recall, f1 in zip(*vars(whole).values(), strict=True):
        near = away <= threshold + 1e-5
        hits = (near & right).sum()
        assert precision == pytest.approx(hits / near.sum())
        assert recall == pytest.approx(hits / right.sum())
        assert f1 == pytest.approx(2 * hits / (near.sum() + right.sum()))


def test_it_is_scikit_learns_curve() -> None:
    pairs, *_ = some(2)
    precision, recall, thresholds = precision_recall_curve(pairs.right.ravel(), -pairs.distances.ravel())
    whole = curve(pairs)
    np.testing.assert_allclose(whole.thresholds[::-1], -thresholds)
    np.testing.assert_allclose(whole.precision[::-1], precision[:-1])
    np.testing.assert_allclose(whole.recall[::-1], recall[:-1])


def test_the_highest_f1_is_chosen_and_scores_at_it_are_those_of_the_curve() -> None:
    pairs, *_ = some(3)
    whole = curve(pairs)
    place = chosen(whole)
    assert whole.f1[place] == whole.f1.max()
    scores, known = scores_at(pairs, float(whole.thresholds[place]), 0)
    assert scores["precision"] == pytest.approx(whole.precision[place])
    assert scores["recall"] == pytest.approx(whole.recall[place])
    assert scores["f1"] == pytest.approx(whole.f1[place])
    assert all(low <= scores[name] <= high for name, (low, high) in known.items())
    assert scores_at(pairs, -1.0, 0)[0] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_excluded_items_are_no_pairs() -> None:
    rows = np.random.default_rng(4).standard_normal((9, 4)).astype(np.float32)
    labels = np.repeat([0, 1, 2], 3)
    pairs = pairs_of(NumpyIndex(rows, "cosine"), rows, labels, labels, np.arange(9), 0)
    assert np.isfinite(pairs.distances).sum() == 72
    assert pairs.n_right.tolist() == [2] * 9
    assert pairs.right.sum() == 18


def test_a_picture_needs_few_points() -> None:
    rng = np.random.default_rng(5)
    distances = np.sort(rng.random((50, 200), np.float32), axis=1)
    pairs = JudgedPairs(distances, rng.random((50, 200)) < 0.1, np.full(50, 20), np.arange(50) % 7)
    points = thinned(curve(pairs))
    assert len(points) <= 100
    assert [recall for _, _, recall in points] == sorted(recall for _, _, recall in points)


def test_a_run_chooses_on_train_and_reports_on_queries(tmp_path: Path) -> None:
    data = shop()
    record = run(plan(data, "hsv", "phash", "hsv+phash+rrf", "oracle", thresholds=True), tmp_path / "a")
    facts = [row.by_threshold for row in record.rows]
    assert facts[0].scores["f1"] > 0.5
    assert facts[0].train["f1"] > 0.5
    assert facts[2].unavailable.startswith("rrf gives each query a scale of its own")
    assert facts[3].unavailable == "oracle sees the labels"
    assert [line[0] for line in by_threshold.grid(record)] == ["method", "hsv", "phash"]
    assert "No threshold of oracle: oracle sees the labels." in by_threshold.text(record)
    assert "distance <=" in by_threshold.text(record)
    assert "Search by a threshold" in markdown(record)
    assert "threshold train f1" in tidy_csv(record)
    queries = data.query
    other = run(plan(data.with_splits({"query": queries.take([0, 4, 8])}), "hsv", thresholds=True), tmp_path / "b")
    assert other.rows[0].by_threshold.threshold == facts[0].threshold
    plain = run(plan(data, "hsv"), tmp_path / "c")
    assert plain.rows[0].by_threshold is None
    assert "by_threshold" not in plain.to_json()
