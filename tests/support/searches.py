"""Searches full of ties, and what it means that two results are equal."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from retrieval_bench.core import Distance, Ranking

EXACT_ON_INTEGERS = ("euclidean", "inner_product", "hamming")


def small_integers(rng: np.random.Generator, rows: int, dim: int, distance: Distance) -> np.ndarray:
    """Few values, so that equal distances are everywhere and float32 sums are exact."""
    if distance == "hamming":
        return rng.integers(0, 4, (rows, dim), dtype=np.uint8)
    return rng.integers(-1, 2, (rows, dim)).astype(np.float32)


def assert_equal(found: Ranking, expected: Ranking) -> None:
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float32
    assert_array_equal(found.distances, expected.distances)
    assert_array_equal(found.indices, expected.indices)


def random(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """(n, dim) float32, normally distributed."""
    return rng.standard_normal((n, dim), dtype=np.float32)


@st.composite
def tied_searches(draw: st.DrawFn) -> tuple[Distance, np.ndarray, np.ndarray, int, np.ndarray | None]:
    distance = draw(st.sampled_from(EXACT_ON_INTEGERS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([0, 1, 2, 3, 17, 255, 256, 257, 512, 700]))
    q = draw(st.sampled_from([0, 1, 3, 4, 5, 15, 16, 17, 33]))
    dim = draw(st.one_of(st.integers(1, 9), st.sampled_from([31, 64, 65])))
    k = draw(st.sampled_from([1, 2, 10, max(n - 1, 1), max(n, 1), n + 3]))
    exclude = None
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(q,), (q, 1), (q, 3)]))
        exclude = rng.integers(-1, n, shape) if n else np.full(shape, -1)
    gallery = small_integers(rng, n, dim, distance)
    gallery[: n // 3] = gallery[n - n // 3 :]  # duplicates, far apart
    gallery[n // 2 : n // 2 + 1] = 0
    return distance, small_integers(rng, q, dim, distance), gallery, k, exclude
