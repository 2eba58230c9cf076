"""The look at all rows finds what the twin finds: runs of equal rows, angles that a sine tells, any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.core import Distance
from retrieval_bench.search import all_rows, points
from retrieval_bench.search.all_rows import nearest_of_all
from retrieval_bench.search.reference import NumpyIndex
from retrieval_bench.search.settling import Asked, Kept

VECTORS: tuple[Distance, ...] = ("cosine", "euclidean", "inner_product")


def looked_at(
    gallery: np.ndarray, queries: np.ndarray, distance: Distance, k: int, exclude: np.ndarray, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    kept = Kept.for_gallery(distance, gallery)
    nowhere = np.zeros(gallery.shape[1])
    kept.take(gallery, slice(0, len(gallery)), nowhere)
    kept.complete()
    values = points.values_of("queries", queries, distance)
    asked = Asked(values, *points.points(distance, values, nowhere, queries=True)[1:])
    return nearest_of_all(asked, kept, np.sort(exclude, axis=1), k, threads)


def in_runs(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """Each row as often as a draw says: some once, some over the border of what is converted together."""
    return np.repeat(rows, rng.choice([1, 2, 30, 400], len(rows)), axis=0)


MAKERS = {
    "noise": lambda rng, n, dim: rng.standard_normal((n, dim)),
    "runs": lambda rng, n, dim: in_runs(rng, rng.standard_normal((max(1, n // 20), dim))),
    "whole numbers": lambda rng, n, dim: rng.integers(-2, 3, (n, dim)).astype(float),
    "small angles": lambda rng, n, dim: rng.standard_normal((n, dim)) * np.r_[1e6, np.ones(dim - 1)],
    "far away": lambda rng, n, dim: rng.standard_normal((n, dim)) + 1e6,
    "tiny": lambda rng, n, dim: rng.standard_normal((n, dim)) * 1e-30,
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("distance", VECTORS)
def test_it_finds_what_the_twin_finds(distance: Distance, maker: str, threads: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(all_rows, "_WORK_PER_THREAD", 1)
    rng = np.random.default_rng(threads)
    sizes = (1, 700, 5, 3), (7, 300, 24, 20), (13, 1, 8, 1), (5, 600, 33, 600), (13, 900, 16, 2), (13, 200, 16, 5)
    for q, n, dim, k in sizes:
        for kinds in ((np.float32, np.float32), (np.float64, np.float32), (np.float32, np.float64)):
            gallery, queries = MAKERS[maker](rng, n, dim), MAKERS[maker](rng, q, dim)[:q]
            gallery, queries = gallery.astype(kinds[0]), queries.astype(kinds[1])
            queries[0] = gallery[rng.integers(len(gallery))]
            if distance != "euclidean":  # such a query is not asked here: all rows are at the same distance
                queries[~queries.any(axis=1)] = 1
            exclude = rng.integers(-1, len(gallery), (len(queries), 2))
            found = min(k, len(gallery))
            rows, distances = looked_at(gallery, queries, distance, found, exclude, threads)
            expected = NumpyIndex(gallery, distance)(queries, found, exclude)
            assert_array_equal(rows, expected.indices)
            assert_array_equal(distances.astype(np.float32), expected.distances)


def test_the_limit_lies_close_to_the_farthest() -> None:
    """A wide one would be right as well, but then every row would pay for its sine."""
    limit = all_rows._limit.py_func
    assert limit(all_rows.KINDS["cosine"], 1e-4, 1.0, 128) > (1 - 1.0001e-4) ** 2
    assert limit(all_rows.KINDS["cosine"], 1.0, 1.0, 128) == -np.inf
    assert 4.0 < limit(all_rows.KINDS["euclidean"], 2.0, 1.0, 128) < 4.00001
