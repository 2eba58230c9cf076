"""Keys of several threads: their k smallest, and what they say."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.search.index import ExactIndex, kernel_for
from retrieval_bench.search.kernels import Engine, engine
from retrieval_bench.search.keys import EMPTY, IN_ORDER, MOST_ROWS


@pytest.fixture(scope="module")
def compiled() -> Engine:
    return engine(kernel_for(), "hamming")


def keys_of(distances: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The twin of `key_of`: a float32's bits, made to ascend with it, above the row."""
    bits = distances.astype(np.float32).view(np.uint32).astype(np.uint64)
    ascending = np.where(bits >> np.uint64(31), ~bits & np.uint64(0xFFFFFFFF), bits | np.uint64(0x80000000))
    return ascending << np.uint64(32) | rows.astype(np.uint64)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 10, IN_ORDER, IN_ORDER + 1, 300])
def test_the_nearest_of_several_threads_are_those_of_all_keys_together(compiled: Engine, threads: int, k: int) -> None:
    rng = np.random.default_rng(k)
    q, room = 7, 2 * k + 16
    keys = rng.permutation(threads * q * room).astype(np.uint64).reshape(threads, q, room)
    counts = rng.integers(0, room + 1, (threads, q))
    counts[:, 0], counts[0, 1], counts[:, 2] = 0, 0, min(k, room)
    expected = np.full((q, k), EMPTY)
    for query in range(q):
        known = np.concatenate([keys[thread, query, : counts[thread, query]] for thread in range(threads)])
        smallest = np.sort(known)[:k]
        expected[query, : len(smallest)] = smallest
    found = compiled.nearest(keys, counts, k)
    assert np.array_equal(np.sort(found, axis=1), expected)
    if k <= IN_ORDER:
        assert np.array_equal(found, expected)


def test_keys_say_rows_and_distances(compiled: Engine) -> None:
    distances = np.array([[0.0, 3.0, 64.0, 1e30], [-2.5, -0.0, np.inf, 7.0]], np.float32)
    rows = np.array([[0, 5, MOST_ROWS - 1, 2], [9, 1, 3, 4]])
    keys = keys_of(distances, rows)
    keys[1, 3] = EMPTY
    found, near = np.zeros((2, 4), np.int64), np.zeros((2, 4), np.float32)
    compiled.spread(keys, found, near)
    rows[1, 3], distances[1, 3] = -1, np.inf
    assert np.array_equal(found, rows)
    assert np.array_equal(near, distances)
    assert np.array_equal(np.signbit(near), np.signbit(distances))


@pytest.mark.parametrize("k", [3, 90, 2000])
def test_bits_that_fill_only_a_part_of_the_ranking(k: int) -> None:
    rng = np.random.default_rng(1)
    gallery = rng.integers(0, 256, (90, 4), dtype=np.uint8)
    found = ExactIndex(gallery, "hamming").search(gallery[:5], k)
    differing = np.unpackbits(gallery[:5, None] ^ gallery, axis=2).sum(axis=2)
    order = np.argsort(differing, axis=1, kind="stable")[:, :k]
    assert np.array_equal(found.indices[:, : order.shape[1]], order)
    assert np.array_equal(found.distances[:, : order.shape[1]], np.take_along_axis(differing, order, axis=1))
    assert (found.indices[:, order.shape[1] :] == -1).all()
    assert np.isinf(found.distances[:, order.shape[1] :]).all()
