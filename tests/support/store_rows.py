"""Rows for stores, and what the exact engine finds among them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from retrieval_bench.core import Distance, Ranking, Searcher
from retrieval_bench.registry import BACKENDS, Spec, parse
from retrieval_bench.search.index import ExactIndex

N, DIM = 600, 24


def spec_of(text: str) -> Spec:
    return parse(BACKENDS.fill(), text)


def rows_of(distance: Distance, n: int = N, seed: int = 0) -> np.ndarray:
    """Rows with two of zeros among them; codes for hamming."""
    rng = np.random.default_rng(seed)
    if distance == "hamming":
        return rng.integers(0, 256, (n, 8), dtype=np.uint8)
    rows = rng.standard_normal((n, DIM)).astype(np.float32)
    rows[[3, -1]] = 0
    return rows


def built(text: str, rows: np.ndarray, distance: Distance = "cosine") -> Any:
    return spec_of(text).build(rows, distance)


def assert_same(found: Ranking, expected: Ranking) -> None:
    """Distances as float32 sums have them, and the same rows where no two are equal."""
    assert_allclose(found.distances, expected.distances, rtol=2e-5, atol=2e-5)
    assert_array_equal(found.indices, expected.indices)


def assert_like_the_engine(search: Searcher, distance: Distance) -> None:
    """Zero rows, a zero query, excluded rows, one query and many, fewer rows than asked for: as the engine does."""
    rows = rows_of(distance)
    queries = np.concatenate([rows[:9], rows_of(distance, 4, seed=1)])
    exclude = np.stack([np.arange(13), np.full(13, -1)], axis=1)
    index = ExactIndex(rows, distance)
    assert_same(search(queries, 12, exclude), index.search(queries, 12, exclude))
    assert_same(search(queries[:1], 1), index.search(queries[:1], 1))
    assert_same(search(queries[5], 20), index.search(queries[5], 20))
    everything = search(queries[:5], N + 2)
    assert_same(everything, index.search(queries[:5], N + 2))
    assert (everything.indices[:, N:] == -1).all()
    assert search(rows[:0], 3).indices.shape == (0, 3)


def recall(found: Ranking, rows: np.ndarray, queries: np.ndarray, distance: Distance = "cosine") -> float:
    truth = ExactIndex(rows, distance).search(queries, found.indices.shape[1])
    last = truth.distances[:, -1:]
    return float(np.mean(found.distances <= last + 1e-3 * (1 + np.abs(last))))
