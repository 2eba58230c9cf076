"""Inputs of the kinds that other libraries test their searches with, rebuilt: none may disagree with float64.

The judge is `scipy.spatial.distance.cdist`, which shares no code with this package. Its order counts where it tells
two rows apart by more than 1e-7; where it does not, either may come first.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.spatial.distance import cdist

from retrieval_bench.core import Distance, Ranking
from retrieval_bench.search.index import ExactIndex, topk
from tests.support.searches import assert_equal

SCANS = ("float32", "int8")

pytestmark = pytest.mark.slow(reason="the wide grids of other suites")


def assert_no_disagreement(found: Ranking, truth: np.ndarray) -> None:
    """truth: (q, n) float64 distances."""
    k = min(found.indices.shape[1], truth.shape[1])
    for rows, distances, exact in zip(found.indices[:, :k], found.distances[:, :k], truth, strict=True):
        assert len(set(rows.tolist())) == k
        close = 1e-7 * float(np.abs(exact).max()) + 1e-28  # a sine of 1e-14 is 0 for all that float64 can tell
        np.testing.assert_allclose(exact[rows], np.sort(exact)[:k], rtol=1e-7, atol=close)
        np.testing.assert_allclose(distances, exact[rows], rtol=2e-7, atol=close)


def judged(queries: np.ndarray, gallery: np.ndarray, distance: str) -> np.ndarray:
    """(q, n) float64. The angle by the difference of unit rows: 1 - s, as SciPy has it, is noise for a small one."""
    queries, gallery = queries.astype(float), gallery.astype(float)
    if distance == "inner_product":
        return -(queries @ gallery.T)
    if distance == "euclidean":
        return cdist(queries, gallery)
    units = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300) for rows in (queries, gallery))
    angles = cdist(*units) ** 2 / 2
    angles[:, ~gallery.any(axis=1)] = angles[~queries.any(axis=1)] = 1.0  # a zero vector has no direction
    return angles


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("translation", [0, 1e6])
@pytest.mark.parametrize("spread", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize(("n", "dim", "k"), [(100, 5, 10), (1000, 50, 10), (255, 100, 100), (1000, 1, 1)])
def test_translated_and_spread_out(  # as scikit-learn tests its pairwise reductions
    n: int, dim: int, k: int, spread: float, translation: float, dtype: type, scan: str
) -> None:
    rng = np.random.default_rng(n + dim)
    gallery, queries = ((translation + rng.random((rows, dim)) * spread).astype(dtype) for rows in (n, 100))
    for distance in ("euclidean", "cosine"):
        found = ExactIndex(gallery, distance, scan=scan).search(queries, k)  # type: ignore[call-overload]
        assert_no_disagreement(found, judged(queries, gallery, distance))


@pytest.mark.parametrize("translation", [0, 1e6])
def test_a_radius_among_the_translated(translation: float) -> None:
    rng = np.random.default_rng(0)
    gallery, queries = (translation + rng.random((rows, 20)) for rows in (600, 50))
    truth = cdist(queries, gallery)
    radius = float(np.quantile(truth, 0.05))
    found = ExactIndex(gallery, "euclidean").search_radius(queries, radius)
    for query, exact in enumerate(truth):
        rows = found.indices[found.offsets[query] : found.offsets[query + 1]]
        assert set(np.flatnonzero(exact < radius * (1 - 1e-7))) <= set(rows.tolist())
        assert set(rows.tolist()) <= set(np.flatnonzero(exact <= radius * (1 + 1e-7)))


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("dim", [1, 8, 32, 60, 128])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_flat_indexes(dim: int, k: int, scan: str) -> None:  # as FAISS tests IndexFlat: one call, then bit by bit
    rng = np.random.default_rng(dim)
    gallery, queries = (rng.random((rows, dim), dtype=np.float32) for rows in (1000, 23))
    for distance in ("euclidean", "inner_product"):
        searcher = ExactIndex(gallery, distance, scan=scan)  # type: ignore[arg-type]
        found = searcher.search(queries, k)
        assert_no_disagreement(found, judged(queries, gallery, distance))
        one_by_one = [searcher.search(queries[i : i + 1], k) for i in range(len(queries))]
        assert_array_equal(np.concatenate([each.indices for each in one_by_one]), found.indices)


@pytest.mark.parametrize("bits", [8, 24, 64, 136, 256])
def test_binary_flat_indexes(bits: int) -> None:  # as FAISS tests IndexBinaryFlat: many ties, and a radius
    rng = np.random.default_rng(bits)
    gallery, queries = (rng.integers(0, 256, (rows, bits // 8), dtype=np.uint8) for rows in (1500, 30))
    exact = cdist(np.unpackbits(queries, axis=1), np.unpackbits(gallery, axis=1), "hamming") * bits
    searcher = ExactIndex(gallery, "hamming")
    order = np.lexsort((np.broadcast_to(np.arange(1500), exact.shape), np.rint(exact)), axis=1)
    assert_array_equal(searcher.search(queries, 20).indices, order[:, :20])
    found = searcher.search_radius(queries, bits // 3)
    assert_array_equal(np.diff(found.offsets), (np.rint(exact) <= bits // 3).sum(axis=1))


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_small_clouds_with_rows_of_zeros_and_duplicates(distance: Distance, scan: str) -> None:  # as pynndescent does
    rng = np.random.default_rng(1)
    cloud = np.vstack([rng.standard_normal((200, 20)), np.zeros((2, 20)), np.ones((5, 20))])
    cloud = np.vstack([cloud, cloud[:50]]).astype(np.float32)
    found = ExactIndex(cloud, distance, scan=scan).search(cloud, 12)  # type: ignore[arg-type]
    assert_no_disagreement(found, judged(cloud, cloud, distance))
    away = np.flatnonzero(np.abs(cloud).any(axis=1))
    assert (found.distances[away, 0] == 0).all()


def _searched(seed: int) -> Ranking:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((500, 24), dtype=np.float32)
    return topk(rows[:40], rows, 5)


@pytest.mark.long(reason="processes that load everything")
def test_processes_that_are_spawned_find_the_same() -> None:
    expected = [_searched(seed) for seed in range(3)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found, right in zip(pool.map(_searched, range(3)), expected, strict=True):
            assert_equal(found, right)
