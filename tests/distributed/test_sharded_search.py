"""Search in shards: the bytes of one index, whatever the number of shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_bench.core import DISTANCES, BenchError, Distance, Ranking
from retrieval_bench.distributed.sharded_search import bounds_of, sharded
from retrieval_bench.search.index import ExactIndex


def assert_same_bytes(one: Ranking, other: Ranking) -> None:
    assert one.indices.dtype == other.indices.dtype
    assert one.distances.dtype == other.distances.dtype
    assert one.indices.tobytes() == other.indices.tobytes()
    assert one.distances.tobytes() == other.distances.tobytes()


def rows_with_ties(rng: np.random.Generator, n: int, dim: int, distance: Distance, dtype: str) -> np.ndarray:
    """Few different rows, multiples of each other, zeros, and neighbours that float32 cannot tell apart."""
    if distance == "hamming":
        return rng.integers(0, 4, (n, dim), np.uint8)
    rows = rng.integers(-2, 3, (n, dim)).astype(np.float64)
    rows *= rng.choice([1.0, 2.0, 0.0, 1.0 + 2.0**-23], (n, 1))
    return rows.astype(dtype)


class TestSharded:
    @pytest.mark.parametrize("distance", DISTANCES)
    @given(data=st.data())
    @settings(max_examples=40, deadline=None)
    def test_bytes_are_those_of_one_index(self, distance: Distance, data: st.DataObject) -> None:
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        n, q, dim = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 6)), data.draw(st.integers(1, 9))
        dtype = data.draw(st.sampled_from(["float32", "float64", "int8", "float16"]))
        gallery = rows_with_ties(rng, n, dim, distance, dtype)
        queries = rows_with_ties(rng, q, dim, distance, dtype)
        k, shards = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
        exclude = None
        if data.draw(st.booleans()):
            exclude = rng.integers(-1, max(1, n), (q, data.draw(st.integers(0, 5)))) if n else np.full((q, 2), -1)
        expected = ExactIndex(gallery, distance).search(queries, k, exclude)
        assert_same_bytes(sharded(gallery, distance, shards)(queries, k, exclude), expected)

    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("shards", [1, 2, 3, 4])
    def test_a_larger_gallery(self, distance: Distance, shards: int) -> None:
        """Large enough that scans, and no single compiled call, find the candidates."""
        rng = np.random.default_rng(1)
        if distance == "hamming":
            gallery, queries = rng.integers(0, 256, (6000, 8), np.uint8), rng.integers(0, 256, (150, 8), np.uint8)
        else:
            gallery = np.repeat(rng.standard_normal((1500, 40), np.float32), 4, axis=0)
            queries = rng.standard_normal((150, 40), np.float32)
        exclude = rng.integers(-1, len(gallery), 150)
        expected = ExactIndex(gallery, distance).search(queries, 25, exclude)
        assert_same_bytes(sharded(gallery, distance, shards)(queries, 25, exclude), expected)

    def test_float32_ties_are_told_apart(self) -> None:
        """The nearer row lies in the second shard, and only float64 knows: by float32 the first row would win."""
        gallery = np.array([[1.0 + 2.0**-40], [1.0]])
        expected = ExactIndex(gallery, "euclidean").search(np.zeros((1, 1)), 2)
        assert expected.indices.tolist() == [[1, 0]]
        assert expected.distances[0, 0] == expected.distances[0, 1]
        assert_same_bytes(sharded(gallery, "euclidean", 2)(np.zeros((1, 1)), 2), expected)

    def test_one_query_of_one_dimension(self) -> None:
        gallery = np.eye(5, dtype=np.float32)
        assert_same_bytes(sharded(gallery, shards=3)(gallery[3], 2), ExactIndex(gallery).search(gallery[3], 2))

    @pytest.mark.parametrize(
        ("queries", "k", "exclude"),
        [
            (np.zeros((2, 3), np.float32), 1, None),
            (np.zeros((2, 4), np.float32), 0, None),
            (np.zeros((2, 4), np.float32), 1, np.array([0, 9])),
            (np.array([[0, 0, 0, np.nan]], np.float32), 1, None),
        ],
    )
    def test_mistakes_are_told_in_the_same_words(self, queries: np.ndarray, k: int, exclude: np.ndarray | None) -> None:
        gallery = np.eye(4, dtype=np.float32)
        with pytest.raises(BenchError) as expected:
            ExactIndex(gallery).search(queries, k, exclude)
        with pytest.raises(BenchError) as told:
            sharded(gallery, shards=2)(queries, k, exclude)
        assert str(told.value) == str(expected.value)

    def test_shards_are_even_and_none_is_empty(self) -> None:
        assert bounds_of(10, 3) == [(0, 3), (3, 6), (6, 10)]
        assert bounds_of(2, 5) == [(0, 1), (1, 2)]
        assert bounds_of(0, 2) == [(0, 0)]
