"""From rankings to judgements, against what a person would write with a loop."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench import judge as module
from retrieval_bench.core import Ranking
from retrieval_bench.judge import count_relevant, judge, rank_gallery
from retrieval_bench.registry import BACKENDS
from retrieval_bench.search.index import ExactIndex


def case(seed: int = 0, q: int = 23, n: int = 90):
    """Small integers: many equal distances. The queries lie in the gallery; label 5 has no query, 0 is frequent."""
    rng = np.random.default_rng(seed)
    gallery = rng.integers(-1, 2, (n, 4)).astype(np.float32)
    labels = np.minimum(rng.integers(0, 12, n), 5) % 6 * (rng.random(n) > 0.3)
    own = rng.permutation(n)[:q]
    return gallery, labels.astype(np.int64), gallery[own], labels[own].astype(np.int64), own


def ranks_by_loop(search, queries, query_labels, gallery_labels, exclude=None):
    found = search(queries, len(gallery_labels), exclude)
    ranks = []
    for label, rows in zip(query_labels, found.indices, strict=True):
        ranks.append([rank for rank, row in enumerate(rows) if row >= 0 and gallery_labels[row] == label])
    return ranks


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own()])
@pytest.mark.parametrize("hide", [False, True])
def test_ranks_of_everything_relevant(monkeypatch, backend, hide):
    gallery, labels, queries, query_labels, own = case()
    search = BACKENDS[backend].build(gallery, "euclidean")
    exclude = own if hide else None
    expected = ranks_by_loop(search, queries, query_labels, labels, exclude)
    counts = count_relevant(query_labels, labels, exclude)
    assert_array_equal(counts, [len(ranks) for ranks in expected])
    for block_bytes in (module._BLOCK_BYTES, 12 * len(gallery) * 4, 1):
        monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
        done = []
        ranking, ranks = rank_gallery(search, queries, query_labels, labels, 7, exclude, progress=done.append)
        assert_array_equal(ranking.indices, search(queries, 7, exclude).indices)
        assert_array_equal(ranking.distances, search(queries, 7, exclude).distances)
        assert ranks.dtype == np.int64
        assert ranks.shape == (len(queries), counts.max())
        for row, right in zip(ranks, expected, strict=True):
            assert row[: len(right)].tolist() == right
            assert (row[len(right) :] == -1).all()
        assert done[-1] == len(queries)
        assert done == sorted(set(done))
    assert len(done) == len(queries)


def test_depth_beyond_the_gallery_is_padded():
    gallery, labels, queries, query_labels, own = case(n=30)
    ranking, ranks = rank_gallery(ExactIndex(gallery), queries, query_labels, labels, 50, own)
    assert ranking.indices.shape == (23, 50)
    assert (ranking.indices[:, 29:] == -1).all()
    assert np.isinf(ranking.distances[:, 29:]).all()
    assert (ranking.indices[:, :29] >= 0).all()
    assert ranks.max() <= 28


def test_large_gallery_is_searched_to_depth_only():
    gallery, labels, queries, query_labels, _ = case()
    asked = []

    def search(queries, k, exclude=None):
        asked.append(k)
        return ExactIndex(gallery).search(queries, k, exclude)

    ranking, ranks = rank_gallery(search, queries, query_labels, labels, 7, full_limit=len(gallery) - 1)
    assert ranks is None
    assert asked == [7]
    assert ranking.indices.shape == (23, 7)
    assert rank_gallery(search, queries, query_labels, labels, 7, full_limit=len(gallery))[1] is not None


def test_no_queries():
    gallery, labels, queries, query_labels, _ = case()
    ranking, ranks = rank_gallery(ExactIndex(gallery), queries[:0], query_labels[:0], labels, 3)
    assert ranking.indices.shape == (0, 3)
    assert ranks.shape == (0, 0)
    assert count_relevant(query_labels[:0], labels).shape == (0,)


def test_count_relevant_leaves_out_what_is_excluded():
    gallery = np.array([4, 4, 4, 0, 0, 2])
    queries = np.array([4, 0, 2, 9])
    assert_array_equal(count_relevant(queries, gallery), [3, 2, 1, 0])
    assert_array_equal(count_relevant(queries, gallery, np.array([1, 0, -1, 5])), [2, 2, 1, 0])
    rows = np.array([[0, 0, 1], [3, -1, 3], [5, 5, 5], [-1, -1, -1]])  # a row named twice is one item
    assert_array_equal(count_relevant(queries, gallery, rows), [1, 1, 0, 0])


def test_judge_looks_labels_up_and_keeps_padding():
    ranking = Ranking(np.array([[2, 0, -1], [1, -1, -1]]), np.array([[0.0, 1.0, np.inf]] * 2, np.float32))
    judged = judge(np.array([6, 5]), np.array([5, 6, 6]), ranking, np.array([2, 1]))
    assert_array_equal(judged.retrieved, [[6, 5, -1], [6, -1, -1]])
    assert_array_equal(judged.hits, [[True, False, False], [False, False, False]])
    assert judged.relevant_ranks is None


def test_judge_refuses_what_no_metric_could_use():
    ranking = Ranking(np.array([[0], [1]]), np.zeros((2, 1), np.float32))
    labels = np.array([5, 6])
    with pytest.raises(ValueError, match="query 1 has nothing relevant"):
        judge(np.array([5, 7]), labels, ranking, np.array([1, 0]))
    with pytest.raises(ValueError, match="rank for every relevant item"):
        judge(labels, labels, ranking, np.array([1, 1]), np.array([[0], [-1]]))
