"""The look before a scan: when it says that the scan would be in vain, and that nothing is found otherwise by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.peer_benchmarks.hard import (
    equal,
    gauss,
    huge_coordinate,
    near_duplicates,
    parallel,
    wide_coordinate,
)
from retrieval_bench.search import first_look, index
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.reference import NumpyIndex

VECTORS: tuple[Distance, ...] = ("cosine", "euclidean", "inner_product")
IN_VAIN = [  # float32 holds 24 bits, of which the coordinate takes 20, and sums of 100 products round more away
    *((equal, distance) for distance in VECTORS),
    (wide_coordinate, "cosine"),
    (huge_coordinate, "inner_product"),
]


@pytest.fixture(autouse=True)
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_look, "WORTH_IT", 0)
    monkeypatch.setattr(index, "_SMALL", 0)  # of a search in one call, the look is no part
    monkeypatch.setattr(index, "_FEW_DISTANCES", 0)


def drawn(maker: Any, n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.asarray(maker(np.random.default_rng(seed), n, dim))


@pytest.mark.parametrize("scan", ["float32", "int8"])
@pytest.mark.parametrize(("maker", "distance"), IN_VAIN)
def test_where_all_rows_are_in_doubt_no_scan_is_begun(maker: Any, distance: Distance, scan: Any) -> None:
    rows = drawn(maker, 3020, 100).astype(np.float32)
    queries, gallery = rows[:20], rows[20:]
    searcher = ExactIndex(gallery, distance, scan=scan)
    held = searcher.bytes
    found, expected = searcher.search(queries, 7), NumpyIndex(gallery, distance)(queries, 7)
    assert_array_equal(found.indices, expected.indices)
    assert_array_equal(found.distances, expected.distances)
    assert tuple(searcher.last) == (20, 3000, 20 * 3000, 20), "a scan would have had candidates, too"
    assert scan == "float32" or searcher.bytes == held, "no panels were packed beside the codes"


def test_bytes_count_the_sample_from_the_first_look_on() -> None:
    gallery = drawn(gauss, 3000, 100).astype(np.float32)
    searcher, sample = ExactIndex(gallery, "cosine"), ExactIndex(gallery[:256], "cosine")
    before = searcher.bytes
    searcher.search(gallery[:20], 7)
    assert searcher.bytes == before + sample.bytes


@pytest.mark.parametrize("distance", VECTORS)
@pytest.mark.parametrize("maker", [gauss, near_duplicates, parallel])
def test_where_rows_can_be_told_apart_the_scan_goes_on(maker: Any, distance: Distance) -> None:
    rows = drawn(maker, 3020, 100).astype(np.float32)
    searcher = ExactIndex(rows[20:], distance)
    searcher.search(rows[:20], 7)
    assert searcher.last.rescored < 20 * 3000 // 4


@pytest.mark.parametrize("distance", VECTORS)
def test_a_few_near_rows_that_the_sample_lacks_are_not_overlooked(distance: Distance) -> None:
    """All other rows are three, many times over: none is told apart from its like, nor needs to be."""
    rng = np.random.default_rng(3)
    gallery = rng.standard_normal((3, 8))[rng.integers(0, 3, 3000)]
    gallery[1501:1511] = rng.standard_normal((10, 8)) + 5  # between the rows 1500 and 1511 of the sample
    gallery, queries = gallery.astype(np.float32), (rng.standard_normal((40, 8)) + 5).astype(np.float32)
    searcher = ExactIndex(gallery, distance)
    found, expected = searcher.search(queries, 7), NumpyIndex(gallery, distance)(queries, 7)
    assert_array_equal(found.indices, expected.indices)
    assert_array_equal(found.distances, expected.distances)
    assert searcher.last.rescored < 40 * 3000 // 4
    hidden = np.tile(np.arange(1501, 1511), (40, 1))
    found, expected = searcher.search(queries, 7, hidden), NumpyIndex(gallery, distance)(queries, 7, hidden)
    assert_array_equal(found.indices, expected.indices)
    assert searcher.last.rescored == 40 * 3000


@pytest.mark.parametrize("scan", ["float32", "int8"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("maker", "distance"), IN_VAIN)
def test_it_is_right_with_zeros_and_hidden_rows_and_in_batches(
    maker: Any, distance: Distance, kind: Any, scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "_SCRATCH_BYTES", 20_000)
    rng = np.random.default_rng(1)
    rows = drawn(maker, 1640, 101, 1).astype(kind)
    queries, gallery = rows[:40].copy(), rows[40:].copy()
    gallery[[3, 77, 1599]] = 0
    queries[[5, 39]] = 0  # the look takes every tenth
    hidden = np.concatenate([rng.integers(-1, 1600, (40, 1)), np.full((40, 1), 3)], axis=1)
    found = ExactIndex(gallery, distance, scan=scan).search(queries, 11, hidden)
    expected = NumpyIndex(gallery, distance)(queries, 11, hidden)
    assert_array_equal(found.indices, expected.indices)
    assert_array_equal(found.distances, expected.distances)


@pytest.mark.parametrize("scan", ["float32", "int8"])
def test_what_is_wrong_is_said_of_the_query_that_it_is_wrong_with(scan: Any) -> None:
    rows = drawn(wide_coordinate, 1640, 17).astype(np.float32)
    queries = rows[:40].copy()
    queries[20, 3] = np.nan
    with pytest.raises(BenchError, match="row 20"):
        ExactIndex(rows[40:], "cosine", scan=scan).search(queries, 3)
    with pytest.raises(BenchError, match="float32"):
        ExactIndex(rows[40:], "inner_product", scan=scan).search(rows[:40] * np.float32(1e30), 3)


def test_a_small_gallery_or_a_long_list_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(first_look.FirstLook, "_sample", lambda self: asked.append(1))
    rows = drawn(equal, 1040, 9).astype(np.float32)
    ExactIndex(rows[40:540], "euclidean").search(rows[:40], 3)
    ExactIndex(rows[40:], "euclidean").search(rows[:40], 600)
    monkeypatch.setattr(first_look, "WORTH_IT", 40 * 1000 * 9 + 1)
    ExactIndex(rows[40:], "euclidean").search(rows[:40], 3)
    assert asked == []
