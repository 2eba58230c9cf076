"""From rankings to judgements, against what a person would write with a loop."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.evaluation import relevance as module
from retrieval_bench.evaluation.relevance import count_relevant, judge, rank_gallery
from retrieval_bench.registry import BACKENDS
from retrieval_bench.search.index import ExactIndex


def case(seed: int = 0, q: int = 23, n: int = 90):
    """Small integers: many equal distances. The queries lie in the gallery; label 5 has no query, 0 is frequent."""
    rng = np.random.default_rng(seed)
    gallery = rng.integers(-1, 2, (n, 4)).astype(np.float32)
    labels = np.minimum(rng.integers(0, 12, n), 5) % 6 * (rng.random(n) > 0.3)
    own = rng.permutation(n)[:q]
    return gallery, labels.astype(np.int64), gallery[own], labels[own].astype(np.int64), own


def ties_by_loop(ranking, ranks):
    """For each of the ranks of each query: where the items at its distance begin, and how many they are."""
    starts, sizes = [], []
    for rows, distances, asked in zip(ranking.indices, ranking.distances, ranks, strict=True):
        real = [distance for row, distance in zip(rows, distances, strict=True) if row >= 0]
        starts.append([real.index(real[rank]) for rank in asked])
        sizes.append([real.count(real[rank]) for rank in asked])
    return starts, sizes


def assert_rows(table, rows):
    """Ragged rows, side by side, padded with -1 behind."""
    assert table.dtype == np.int64
    assert table.shape == (len(rows), max(map(len, rows)))
    for row, right in zip(table, rows, strict=True):
        assert row[: len(right)].tolist() == right
        assert (row[len(right) :] == -1).all()


def ranks_by_loop(search, queries, query_labels, gallery_labels, exclude=None):
    found = search(queries, len(gallery_labels), exclude)
    ranks = []
    for label, rows in zip(query_labels, found.indices, strict=True):
        ranks.append([rank for rank, row in enumerate(rows) if row >= 0 and gallery_labels[row] == label])
    return ranks


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
@pytest.mark.parametrize("hide", [False, True])
def test_ranks_and_ties_of_everything_relevant(monkeypatch, backend, hide):
    gallery, labels, queries, query_labels, own = case()
    search = BACKENDS[backend].build(gallery, "euclidean")
    exclude = own if hide else None
    expected = ranks_by_loop(search, queries, query_labels, labels, exclude)
    counts = count_relevant(query_labels, labels, exclude)
    assert_array_equal(counts, [len(ranks) for ranks in expected])
    starts, sizes = ties_by_loop(search(queries, len(gallery), exclude), expected)
    assert max(map(max, sizes)) > 3
    assert min(map(min, sizes)) == 1
    for block_bytes in (module._BLOCK_BYTES, 12 * len(gallery) * 4, 1):
        monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
        done = []
        ranking, relevant = rank_gallery(search, queries, query_labels, labels, 7, exclude, progress=done.append)
        assert_array_equal(ranking.indices, search(queries, 7, exclude).indices)
        assert_array_equal(ranking.distances, search(queries, 7, exclude).distances)
        assert_rows(relevant.ranks, expected)
        assert_rows(relevant.tie_starts, starts)
        assert_rows(relevant.tie_sizes, sizes)
        assert done[-1] == len(queries)
        assert done == sorted(set(done))
    assert len(done) == len(queries)


def test_depth_beyond_the_gallery_is_padded():
    gallery, labels, queries, query_labels, own = case(n=30)
    ranking, relevant = rank_gallery(ExactIndex(gallery), queries, query_labels, labels, 50, own)
    assert ranking.indices.shape == (23, 50)
    assert (ranking.indices[:, 29:] == -1).all()
    assert np.isinf(ranking.distances[:, 29:]).all()
    assert (ranking.indices[:, :29] >= 0).all()
    assert relevant.ranks.max() <= 28
    starts, sizes = ties_by_loop(ranking, [row[row >= 0] for row in relevant.ranks])
    assert_rows(relevant.tie_starts, starts)
    assert_rows(relevant.tie_sizes, sizes)


def test_padding_is_equal_to_nothing():
    """A distance may overflow to inf, where padding lies; the next query's first item is no tie of it, either."""
    inf, padded = np.inf, [[0, 1, 2, 3, 4], [1, 0, 2, -1, -1], [2, 1, -1, -1, -1]]
    distances = np.array([[inf, inf, inf, inf, inf], [0, inf, inf, inf, inf], [inf, inf, inf, inf, inf]], np.float32)

    def search(queries, k, exclude=None):
        return Ranking(np.array(padded), distances)

    _, relevant = rank_gallery(search, np.zeros((3, 1)), np.array([7, 7, 7]), np.array([7, 8, 7, 7, 8]), 5)
    assert_rows(relevant.ranks, [[0, 2, 3], [1, 2], [0]])
    assert_rows(relevant.tie_starts, [[0, 0, 0], [1, 1], [0]])
    assert_rows(relevant.tie_sizes, [[5, 5, 5], [2, 2], [2]])


def test_large_gallery_is_searched_to_depth_only():
    gallery, labels, queries, query_labels, _ = case()
    asked = []

    def search(queries, k, exclude=None):
        asked.append(k)
        return ExactIndex(gallery).search(queries, k, exclude)

    ranking, relevant = rank_gallery(search, queries, query_labels, labels, 7, full_limit=len(gallery) - 1)
    assert relevant is None
    assert asked == [7]
    assert ranking.indices.shape == (23, 7)
    assert rank_gallery(search, queries, query_labels, labels, 7, full_limit=len(gallery))[1] is not None


def test_no_queries():
    gallery, labels, queries, query_labels, _ = case()
    ranking, relevant = rank_gallery(ExactIndex(gallery), queries[:0], query_labels[:0], labels, 3)
    assert ranking.indices.shape == (0, 3)
    assert relevant.ranks.shape == relevant.tie_starts.shape == relevant.tie_sizes.shape == (0, 0)
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
    with pytest.raises(ValueError, match="relevant_ranks holds 2 in a gallery of 2 items"):
        judge(labels, labels, ranking, np.array([1, 1]), np.array([[0], [2]]))
    for row in (-2, 2):
        with pytest.raises(ValueError, match=f"indices run from .*{row}.* in a gallery of 2 items"):
            judge(labels, labels, Ranking(np.array([[0], [row]]), ranking.distances), np.array([1, 1]))


@pytest.mark.parametrize(
    ("indices", "distances", "told"),
    [
        ([[0, 0, 1]] * 2, [[0, 1, 2]] * 2, "indices names an image twice for one query"),
        ([[0, 1, 3]] * 2, [[0, 1, 2]] * 2, "indices names rows that the gallery of 3 images does not have"),
        ([[-2, 1, 0]] * 2, [[0, 1, 2]] * 2, "indices names rows that the gallery of 3 images does not have"),
        ([[0, 1, 2]] * 2, [[0, 1, 2], [0, np.nan, 2]], "distances holds what is no number"),
        ([[0, 1, 2]] * 2, [[0, 1, 2], [0, 2, 1]], "distances of the query '1' do not ascend"),
        ([[0]] * 2, [[0]] * 2, "answers 2 queries for 3 rows each with indices (2, 1) and distances (2, 1)"),
    ],
)
def test_a_search_that_answers_with_no_ranking_is_refused(indices: Any, distances: Any, told: str) -> None:
    """No record may hold it, so it must not be found out when the record is read."""
    found = Ranking(np.array(indices), np.array(distances, np.float32))
    with pytest.raises(BenchError) as refusal:
        rank_gallery(lambda *_: found, np.eye(2), np.zeros(2, int), np.zeros(3, int), depth=3)  # type: ignore[arg-type]
    assert told in str(refusal.value)
