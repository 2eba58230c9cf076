"""What the search allows for rounding is needed: each allowance meets the input that it is there for.

Random vectors never come near these bounds, since their errors cancel. Here they all have one sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.search import certified
from retrieval_bench.search.certified import CertifiedIndex
from retrieval_bench.search.emit import KERNELS
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.reference import NumpyIndex
from tests.support.searches import random


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


def test_queries_that_fall_back_get_their_own_results_in_every_batch(monkeypatch: Any) -> None:
    rng = np.random.default_rng(2)
    gallery, queries = random(rng, 300, 20), random(rng, 9, 20)
    monkeypatch.setattr(certified, "rescore_budget", lambda n, k: 0)
    monkeypatch.setattr(certified, "_SCRATCH_BYTES", 1)  # one query after the other
    index = CertifiedIndex(gallery)
    found, expected = index.search(queries, 5), ExactIndex(gallery).search(queries, 5)
    assert index.last.doubtful == 9
    assert_array_equal(found.indices, expected.indices)
    assert_array_equal(found.distances, expected.distances)
