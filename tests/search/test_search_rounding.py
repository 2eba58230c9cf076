"""What the search allows for rounding is needed: each allowance meets the input that it is there for.

Random vectors never come near these bounds, since their errors cancel. Here they all have one sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.search import certified, quantise
from retrieval_bench.search.certified import CertifiedIndex
from retrieval_bench.search.emit import KERNELS
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.reference import NumpyIndex
from tests.support.searches import random

U = 2.0**-24


def edge_of_float32() -> tuple[np.ndarray, np.ndarray]:
    """One query; a gallery whose row 600 is the nearest, though the sums of the scan lose what makes it so.

    The scan of euclidean distances starts at -|x|^2 / 2, which is about -2^23 here. Each of the first 1000 products,
    0.49, is less than half of the last digit there and vanishes, so that the row seems 490 farther than it is. Row 0,
    which loses nothing, lies 50 behind it.
    """
    query, gallery = np.full((1, 1001), 0.49, np.float32), np.zeros((601, 1001), np.float32)
    query[0, -1] = 2730.0
    gallery[:, -1] = 8192.0
    gallery[600] = 1.0
    gallery[600, -1] = 4096.0
    gallery[0, -1] = 2730.0 + np.sqrt((4096.0 - 2730.0) ** 2 + 120)
    return query, gallery


@pytest.mark.parametrize("q", [1, 13])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_neighbour_that_rounding_hides_is_found(kernel: str, q: int) -> None:
    query, gallery = edge_of_float32()
    assert NumpyIndex(gallery, "euclidean")(query, 1).indices.tolist() == [[600]]
    found = ExactIndex(gallery, "euclidean", kernel=kernel).search(np.repeat(query, q, axis=0), 1)
    assert_array_equal(found.indices, np.full((q, 1), 600))


def near(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.random(500), 2.0 ** -np.arange(1, 20), [1.0, 1.5, 2.0]]).astype(np.float32)


def test_no_product_below_the_limit_is_rounded_to_the_cosine_distance_itself() -> None:
    """Who is at exactly the distance of the k-th may have the lower row and is not to be lost."""
    for reached in near(np.random.default_rng(0)):
        limit = quantise.lower_limit(False, True, reached, 1.0, 64)
        product = np.nextafter(limit, np.float32(-np.inf))
        assert max(np.float32(1.0) - product, np.float32(0.0)) > reached


@pytest.mark.parametrize("dim", [1, 64, 4096])
def test_no_row_below_the_limit_is_rounded_to_the_euclidean_distance_itself(dim: int) -> None:
    """The engine's sum of squares is at least the true one times 1 - (d + 3) u, and its root is rounded once more."""
    for reached in near(np.random.default_rng(1)):
        square = float(reached) ** 2  # of the query's length: nothing else leaves room then
        limit = float(quantise.lower_limit(True, False, reached, square, dim))
        least = np.sqrt((square - 2 * limit) * (1 - (dim + 3) * U)) * (1 - U)
        assert least > reached


def test_queries_that_fall_back_get_their_own_results_in_every_batch(monkeypatch: Any) -> None:
    rng = np.random.default_rng(2)
    gallery, queries = random(rng, 300, 20), random(rng, 9, 20)
    monkeypatch.setattr(certified, "rescore_budget", lambda n, k: 0)
    monkeypatch.setattr(certified, "_SCRATCH_BYTES", 1)  # one query after the other
    index = CertifiedIndex(gallery)
    found, expected = index.search(queries, 5), ExactIndex(gallery).search(queries, 5)
    assert index.last.fallbacks == 9
    assert_array_equal(found.indices, expected.indices)
    assert_array_equal(found.distances, expected.distances)
