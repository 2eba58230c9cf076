"""The law: ranks follow the float64 distance of the values as they were given, ties by row, whoever searches.

The twin is `NumpyIndex`, whose distances are compared with exact fractions, with scikit-learn and with a different way
to compute them.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from retrieval_bench.core import Distance, Ranking
from retrieval_bench.search import bounds, gpu, index, packed
from retrieval_bench.search.gpu import TorchIndex
from retrieval_bench.search.index import ExactIndex, topk
from retrieval_bench.search.kernels import KINDS
from retrieval_bench.search.lane_sums import summed
from retrieval_bench.search.points import find_centre, points
from retrieval_bench.search.reference import NumpyIndex
from retrieval_bench.search.rescore import distances_to_all
from tests.support.searches import assert_equal

VECTORS: tuple[Distance, ...] = ("cosine", "euclidean", "inner_product")
Search = Callable[[np.ndarray, np.ndarray, int, Distance, np.ndarray | None], Ranking]

SEARCHES: dict[str, Search] = {
    "float32": lambda q, x, k, distance, hidden: ExactIndex(x, distance).search(q, k, hidden),
    "int8": lambda q, x, k, distance, hidden: ExactIndex(x, distance, scan="int8").search(q, k, hidden),
    "avx2": lambda q, x, k, distance, hidden: ExactIndex(x, distance, kernel="avx2").search(q, k, hidden),
    "torch": lambda q, x, k, distance, hidden: TorchIndex(x, distance).search(q, k, hidden),
}


# --- data: each maker is (rng, rows, dim) -> float64 ------------------------------------------------------------------


def gauss(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim))


def offset(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim)) + 1e6


def parallel(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal(dim) * rng.uniform(0.5, 2.0, (n, 1))


def equal(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return np.repeat(rng.standard_normal((1, dim)), n, axis=0)


def whole_numbers(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.integers(-2, 3, (n, dim)).astype(float)


def one_huge_value(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((n, dim))
    rows[rng.integers(n), rng.integers(dim)] = 1e12
    return rows


def one_huge_column(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((n, dim))
    rows[:, 0] += 1e6
    return rows


def near_duplicates(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal(dim) * 1e6 / np.sqrt(dim) + rng.standard_normal((n, dim)) * 0.5


def clusters(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((5, dim))[rng.integers(5, size=n)] + rng.standard_normal((n, dim)) * 1e-5


def tiny(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim)) * 1e-30


def subnormal(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim)) * 1e-40


def sparse(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return (rng.random((n, dim)) < 0.05) * rng.random((n, dim))


MAKERS = (
    *(gauss, offset, parallel, equal, whole_numbers, one_huge_value, one_huge_column, near_duplicates, clusters),
    *(tiny, subnormal, sparse),
)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Any, ...]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    maker = draw(st.sampled_from(MAKERS))
    n, dim = draw(st.sampled_from([1, 2, 5, 31, 33, 100, 500])), draw(st.sampled_from([1, 2, 3, 8, 9, 17, 64, 200]))
    q, k = draw(st.sampled_from([1, 2, 5, 13, 40])), draw(st.sampled_from([1, 2, 10, 16, 17, 50, 500]))
    gallery = maker(rng, n, dim)
    queries = gallery[rng.integers(n, size=q)]
    how = draw(st.sampled_from(["copies", "close", "others"]))
    if how == "others":
        queries = maker(rng, q, dim)
    elif how == "close":
        queries = queries * (1 + 1e-6 * rng.standard_normal(queries.shape))
    kinds = (
        [np.float32, np.float64, np.float16] if maker in (gauss, whole_numbers, sparse) else [np.float32, np.float64]
    )
    gallery = gallery.astype(draw(st.sampled_from(kinds)))
    queries = queries.astype(draw(st.sampled_from([np.float32, np.float64])))
    if draw(st.booleans()):
        gallery[rng.integers(n)] = 0
        queries[rng.integers(q)] = 0
    hidden = rng.integers(-1, n, (q, 2)) if draw(st.booleans()) else None
    return draw(st.sampled_from(VECTORS)), queries, gallery, k, hidden, draw(st.sampled_from([1, 10_000_000]))


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.slow(reason="many drawn inputs")
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(search=searches())
def test_every_backend_equals_the_twin(name: str, search: tuple[Any, ...]) -> None:
    distance, queries, gallery, k, hidden, least = search
    before = packed._WORK_PER_THREAD, index._SMALL, gpu.SPARE
    packed._WORK_PER_THREAD, index._SMALL, gpu.SPARE = least, 2 * least, 3
    try:
        found = SEARCHES[name](queries, gallery, k, distance, hidden)
    finally:
        packed._WORK_PER_THREAD, index._SMALL, gpu.SPARE = before
    assert_equal(found, NumpyIndex(gallery, distance)(queries, k, hidden))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(search=searches(), share=st.floats(0, 1))
@pytest.mark.slow(reason="many drawn inputs")
def test_a_radius_finds_what_the_twin_finds(search: tuple[Any, ...], share: float) -> None:
    distance, queries, gallery, _, hidden, least = search
    everything = NumpyIndex(gallery, distance)(queries, len(gallery), hidden)
    real = everything.distances[everything.indices >= 0]
    radius = float(np.quantile(real, share)) if len(real) else 0.0
    before, packed._WORK_PER_THREAD = packed._WORK_PER_THREAD, least
    try:
        found = ExactIndex(gallery, distance).search_radius(queries, radius, hidden)
    finally:
        packed._WORK_PER_THREAD = before
    for query, (rows, distances) in enumerate(zip(everything.indices, everything.distances, strict=True)):
        near = (rows >= 0) & (distances <= np.float32(radius))
        part = slice(found.offsets[query], found.offsets[query + 1])
        if np.float64(np.float32(radius)) <= radius:  # else the limit is the float32 below
            assert_array_equal(found.indices[part], rows[near])
            assert_array_equal(found.distances[part], distances[near])


# --- the definition --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_a_copy_is_first_and_at_exactly_zero(name: str) -> None:
    search = SEARCHES[name]
    found = search(np.array([[1, 0]]), np.array([[1, 2e-4], [1, 0]]), 2, "cosine", None)
    assert found.indices.tolist() == [[1, 0]]
    assert found.distances[0].tolist() == [0.0, np.float32(2e-8)]
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 2048), dtype=np.float32)
    for distance in ("cosine", "euclidean"):
        found = search(rows[:50], rows, 3, distance, None)
        assert_array_equal(found.indices[:, 0], np.arange(50))
        assert_array_equal(found.distances[:, 0], np.zeros(50))


@pytest.mark.parametrize("name", SEARCHES)
def test_nearly_parallel_rows_are_in_their_true_order(name: str) -> None:
    """A median distance of 1e-4 and less: 1 - s in float32 is noise here."""
    rng = np.random.default_rng(1)
    direction = rng.standard_normal(2048)
    gallery = (direction + 0.01 * rng.standard_normal((1000, 2048))).astype(np.float32)
    queries = (direction + 0.01 * rng.standard_normal((20, 2048))).astype(np.float32)
    found = SEARCHES[name](queries, gallery, 10, "cosine", None)
    for query, rows, distances in zip(queries.astype(float), found.indices, found.distances, strict=True):
        unit = gallery / np.linalg.norm(gallery.astype(float), axis=1, keepdims=True)
        truth = ((unit - query / np.linalg.norm(query)) ** 2).sum(axis=1) / 2  # another way to compute it
        assert_array_equal(rows, np.argsort(truth)[:10])
        np.testing.assert_allclose(distances, truth[rows], rtol=1e-7)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1), distance=st.sampled_from(VECTORS), dim=st.integers(1, 12))
def test_the_order_is_that_of_exact_fractions(seed: int, distance: Distance, dim: int) -> None:
    """Small whole numbers: ties are ties, those of multiples under cosine included."""
    rng = np.random.default_rng(seed)
    gallery, queries = rng.integers(-3, 4, (40, dim)), rng.integers(-3, 4, (4, dim))
    gallery[:8] = gallery[8:16] * rng.integers(1, 5, (8, 1))
    found = topk(queries, gallery, 40, distance)
    for query, rows in zip(queries.tolist(), found.indices, strict=True):
        keys = [(fraction(query, row, distance), place) for place, row in enumerate(gallery.tolist())]
        assert_array_equal(rows, [place for _, place in sorted(keys)])


def fraction(query: list[int], row: list[int], distance: Distance) -> Fraction:
    """A number of the same order as the distance."""
    if distance == "euclidean":
        return Fraction(sum((a - b) ** 2 for a, b in zip(query, row, strict=True)))
    along = sum(a * b for a, b in zip(query, row, strict=True))
    if distance == "inner_product":
        return Fraction(-along)
    lengths = sum(a * a for a in query) * sum(b * b for b in row)
    return -Fraction(along * abs(along), lengths) if lengths else Fraction(0)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1), maker=st.sampled_from(MAKERS), distance=st.sampled_from(VECTORS))
def test_float64_distances_are_those_of_exact_fractions(seed: int, maker: Any, distance: Distance) -> None:
    rng = np.random.default_rng(seed)
    gallery = maker(rng, 6, 9).astype(np.float32).astype(float)
    query = gallery[0] * (1 + 1e-5 * rng.standard_normal(9)) if seed % 2 else maker(rng, 1, 9)[0]
    query = query.astype(np.float32).astype(float)
    for row, found in zip(gallery, distances_to_all(query, gallery, distance), strict=True):
        q, x = [Fraction(value) for value in query], [Fraction(value) for value in row]
        along = sum((a * b for a, b in zip(q, x, strict=True)), Fraction(0))
        mine, theirs = (sum((a * a for a in each), Fraction(0)) for each in (q, x))
        if distance == "inner_product":
            exact, scale = -float(along), float(sum((abs(a * b) for a, b in zip(q, x, strict=True)), Fraction(0)))
            assert abs(found - exact) <= 2.0**-50 * scale
        elif distance == "euclidean":
            square = sum(((a - b) ** 2 for a, b in zip(q, x, strict=True)), Fraction(0))
            assert found == pytest.approx(float(square) ** 0.5, rel=1e-13, abs=1e-300)
        elif not (mine and theirs):
            assert found == 1.0
        else:
            sine_square = 1 - along * along / (mine * theirs)
            if along > 0 and sine_square < Fraction(1, 64):
                exact = float(sine_square) / (1 + float(1 - sine_square) ** 0.5)
                assert found == pytest.approx(exact, rel=1e-9, abs=1e-28)
            else:
                root = float(along * along / (mine * theirs)) ** 0.5
                assert found == pytest.approx(1 + root if along < 0 else 1 - root, rel=1e-12, abs=1e-14)


def test_sums_are_made_lane_by_lane() -> None:
    rng = np.random.default_rng(2)
    for dim in (1, 7, 8, 9, 16, 23, 512):
        terms = rng.standard_normal((3, dim))
        for row, found in zip(terms, summed(terms), strict=True):
            lanes = [0.0] * 8
            for place, term in enumerate(row.tolist()):
                lanes[place % 8] += term
            fours = [lanes[lane] + lanes[lane + 4] for lane in range(4)]
            assert found == (fours[0] + fours[2]) + (fours[1] + fours[3])


def test_agrees_with_scikit_learn_in_float64() -> None:
    from sklearn.metrics import pairwise_distances

    rng = np.random.default_rng(3)
    gallery, queries = rng.standard_normal((700, 33)), rng.standard_normal((21, 33))
    for distance in ("cosine", "euclidean"):
        truth = pairwise_distances(queries, gallery, metric=distance)
        for query, theirs in zip(queries, truth, strict=True):
            np.testing.assert_allclose(distances_to_all(query, gallery, distance), theirs, rtol=1e-12, atol=1e-14)


# --- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 41])
@pytest.mark.slow(reason="a grid of data, distances and dimensions")
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("distance", VECTORS)
def test_no_row_that_reaches_a_distance_scores_below_its_limit(distance: Distance, maker: Any, dim: int) -> None:
    """The float32 sum is imitated with all its roundings downwards, which no real one beats."""
    rng = np.random.default_rng(4)
    gallery, queries = maker(rng, 80, dim).astype(np.float32), maker(rng, 24, dim).astype(np.float32)
    queries[:4] = gallery[:4]
    queries[4:20] = gallery[4:20] * (1 + 1e-7 * rng.standard_normal((16, dim)))  # as close as points can tell
    kind, centre = KINDS[distance], find_centre(distance, gallery)
    length, g = float(np.sqrt((centre**2).sum())), bounds.summing_error.py_func(dim)
    some, _, _, facts = points(distance, gallery, centre, queries=False)
    asked, squares, _, about = points(distance, queries, centre, queries=True)
    met = 0
    for i, query in enumerate(queries.astype(float)):
        if distance != "euclidean" and squares[i] == 0:
            continue
        exact = distances_to_all(query, gallery.astype(float), distance)
        for row in range(len(gallery)):
            score = bounds.start.py_func(kind, facts[row, bounds.SQUARE], dim, length)
            for a, b in zip(asked[i], some[row], strict=True):
                score = lowered(np.float64(a) * np.float64(b) + np.float64(score))
            limit = bounds.score_limit.py_func(kind, exact[row], about[i], dim, length, g)
            assert score >= limit
            met += int(score - limit < 0.01 * abs(limit))
    beyond = (one_huge_value, one_huge_column, offset, near_duplicates, parallel, equal, tiny, subnormal)
    assert met or dim < 9 or maker in beyond  # where other allowances are far larger


@pytest.mark.parametrize("dim", [1, 2])
def test_points_that_rounding_moves_apart_are_allowed_for(dim: int) -> None:
    """Values between two float32 numbers, each rounded away from the query, which lies on the other side of 0."""
    rng = np.random.default_rng(6)
    near = rng.uniform(1.0, 1.9, (200, dim)).astype(np.float32).astype(float)
    half = 0.499 * np.spacing(near.astype(np.float32)).astype(float)
    gallery, queries = near - half, half[::-1] - near[::-1]
    centre, kind = np.zeros(dim), KINDS["euclidean"]
    some, _, _, facts = points("euclidean", gallery, centre, queries=False)
    asked, _, _, about = points("euclidean", queries, centre, queries=True)
    g = bounds.summing_error.py_func(dim)
    for i in range(200):
        exact = distances_to_all(queries[i], gallery[i : i + 1], "euclidean")[0]
        score = bounds.start.py_func(kind, facts[i, bounds.SQUARE], dim, 0.0)
        for a, b in zip(asked[i], some[i], strict=True):
            score = lowered(np.float64(a) * np.float64(b) + np.float64(score))
        assert score >= bounds.score_limit.py_func(kind, exact, about[i], dim, 0.0, g)


def lowered(value: np.float64) -> np.float32:
    """Rounded to float32 downwards."""
    nearest = np.float32(value)
    return nearest if np.float64(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf))


@pytest.mark.slow(reason="a grid of data and distances")
@pytest.mark.parametrize("distance", VECTORS)
@pytest.mark.parametrize("maker", [parallel, equal, one_huge_value, near_duplicates])
def test_data_that_defeats_the_bound_is_right_on_every_thread_count(
    distance: Distance, maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    gallery = maker(rng, 3000, 24).astype(np.float32)
    queries = np.concatenate([gallery[:70], maker(rng, 70, 24).astype(np.float32)])
    expected = NumpyIndex(gallery, distance)(queries, 12)
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    for threads in (1, 2, 5):
        monkeypatch.setattr(numba, "get_num_threads", lambda threads=threads: threads)
        searcher = ExactIndex(gallery, distance)
        for _ in range(2):  # the second time with more candidates, since they were too few
            assert_equal(searcher.search(queries, 12), expected)
