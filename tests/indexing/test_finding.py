"""Whatever way the search takes, it finds what one search over the rows that may be found would find."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import Distance, Ranking
from retrieval_bench.indexing import finding
from retrieval_bench.indexing.finding import GrowingSearch
from retrieval_bench.search.index import ExactIndex, topk

DISTANCES: tuple[Distance, ...] = ("cosine", "euclidean", "inner_product", "hamming")


def rows_of(rng: np.random.Generator, n: int, distance: Distance) -> np.ndarray:
    """With many that are equal, and many that float32 cannot tell apart."""
    if distance == "hamming":
        return rng.integers(0, 4, (n, 2), dtype=np.uint8)
    rows = rng.integers(-2, 3, (n, 3)).astype(np.float32)
    return rows + (rng.random((n, 3)) < 0.3).astype(np.float32) * np.float32(1e-7)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so small that a few hundred rows meet all of them."""
    for name, value in (("LEAST_TAIL", 20), ("FEW_HIDDEN", 3), ("FEW_LEFT", 15), ("KEPT_SELECTIONS", 2)):
        monkeypatch.setattr(finding, name, value)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("distance", DISTANCES)
def test_it_grows_and_hides_without_a_trace(distance: Distance) -> None:
    rng = np.random.default_rng(0)
    rows, search, packed = rows_of(rng, 200, distance), None, set[int]()
    for n in (100, 103, 120, 150, 151, 200):
        search = GrowingSearch(rows[:n], distance, search)
        packed.add(search.packed)
        queries = rows_of(rng, 4, distance)
        for left in (n, n - 1, n - 3, n - 30, n // 2, 20, 10, 1):
            allowed = np.zeros(n, bool)
            allowed[rng.permutation(n)[:left]] = True
            chosen = np.flatnonzero(allowed)
            hidden = rng.integers(-1, n, (4, 3))
            for k in (1, 5, n):
                found = search.search(queries, k, allowed, hidden)
                wanted = topk(queries, rows[chosen], k, distance, finding.places_of(chosen, hidden))
                assert np.array_equal(found.indices, np.where(wanted.indices >= 0, chosen[wanted.indices], -1))
                assert found.distances.tobytes() == wanted.distances.tobytes()
    assert len(packed) == 3  # some rows were packed together, and others searched beside them


def test_whole_rankings_are_filtered_until_there_are_k() -> None:
    rng = np.random.default_rng(1)
    rows, queries = rows_of(rng, 60, "cosine"), rows_of(rng, 3, "cosine")
    chosen = np.flatnonzero(rng.random(60) < 0.8)
    asked: list[int] = []
    index = ExactIndex(rows[chosen], "cosine")

    def counted(queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        asked.append(k)
        return index.search(queries, k, exclude)

    counted.queries_at_once = 2  # type: ignore[attr-defined]
    allowed = np.zeros(60, bool)
    allowed[chosen[::7]] = True
    found = finding.WholeSearch(counted, chosen).search(queries, 5, allowed, None)  # type: ignore[arg-type]
    wanted = topk(queries, rows[chosen[::7]], 5, "cosine")
    assert np.array_equal(found.indices, chosen[::7][wanted.indices])
    assert max(asked) <= len(chosen)
