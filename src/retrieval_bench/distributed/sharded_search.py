"""Exact search over a gallery that lies in pieces with several workers: the bytes of one `ExactIndex`, whatever the
number of pieces.

Why they are the same. `ExactIndex` ranks by (float64 distance, row), and the float64 distance of a query and a row is
computed from these two alone. So a row that is among the k nearest of the whole gallery is among the k nearest of its
own shard, by the same distance, and the k first of what all shards found, put in the order of (float64 distance, row),
are the k nearest of all. The float32 distances that a ranking shows would not do: two rows that are equal there may
differ in float64. So a shard answers with the float64 distances of what it found, and they are rounded after the merge,
as `ExactIndex` rounds them after its search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from retrieval_bench.core import Distance, Ranking
from retrieval_bench.search.checks import check_distance, check_exclude, check_k, check_matrix, room_for
from retrieval_bench.search.index import ExactIndex

_BEHIND_ALL = np.iinfo(np.int64).max


class ShardAnswer(NamedTuple):
    """The nearest rows of one shard. rows: (q, c) int64, as the whole gallery counts them, padded with -1.

    distances: (q, c) float64, ascending, padded with inf.
    """

    rows: np.ndarray
    distances: np.ndarray


class Shard:
    """Some rows of a gallery, one behind the other.

    Args:
        rows: (m, d), as for `ExactIndex`; read-only rows in C order are not copied.
        distance: by which they are compared.
        first: the row of the whole gallery that the first of them is.
    """

    def __init__(self, rows: np.ndarray, distance: Distance, first: int) -> None:
        self._index = ExactIndex(rows, distance)
        self._first = first

    @property
    def bytes(self) -> int:
        """What the index takes."""
        return self._index.bytes

    def nearest(self, queries: np.ndarray, k: int, exclude: np.ndarray, threads: int | None = None) -> ShardAnswer:
        """The k nearest rows here of each query.

        Args:
            queries: (q, d).
            k: at least 1; fewer are answered where the shard has fewer rows.
            exclude: (q, m) rows of the whole gallery; -1 for none. Those of other shards mean nothing here.
            threads: at most so many. None: as for `ExactIndex`.

        Returns:
            (q, min(k, rows of the shard)) rows and distances.
        """
        n = len(self._index)
        here = exclude - self._first
        here[(exclude < 0) | (here < 0) | (here >= n)] = -1
        found = self._index.search_float64(queries, max(1, min(k, n)), here, threads=threads)
        rows = np.where(found.indices >= 0, found.indices + self._first, -1)
        return ShardAnswer(rows[:, : min(k, n)], found.distances[:, : min(k, n)])


def bounds_of(n: int, shards: int) -> list[tuple[int, int]]:
    """(first, end) of each shard: n rows in at most so many parts of nearly the same size, none of them empty.

    A gallery of no rows is one shard of none.
    """
    shards = max(1, min(shards, n))
    return list(pairwise([n * part // shards for part in range(shards + 1)]))


def merged(answers: Sequence[ShardAnswer], ranking: Ranking) -> Ranking:
    """Put the nearest of what all shards found into a ranking.

    Args:
        answers: of each shard, for the same queries.
        ranking: (q, k), all padding; it is filled.

    Returns:
        The same ranking.
    """
    rows = np.concatenate([answer.rows for answer in answers], axis=1)
    distances = np.concatenate([answer.distances for answer in answers], axis=1)
    k = min(ranking.indices.shape[1], rows.shape[1])
    order = np.lexsort((np.where(rows < 0, _BEHIND_ALL, rows), distances), axis=-1)[:, :k]
    ranking.indices[:, :k] = np.take_along_axis(rows, order, axis=1)
    ranking.distances[:, :k] = np.take_along_axis(distances, order, axis=1)
    return ranking


class ShardedIndex:
    """Exact search by whoever holds the shards. Implements `Searcher`; answers what `ExactIndex` answers.

    Args:
        gallery: the whole of it; it is not kept.
        distance: "cosine", "euclidean", "inner_product" or "hamming".
        ask: (queries, k, exclude) -> what each shard answers.
        size: bytes of all shards.

    Raises:
        BenchError: A wrong shape, dtype or distance.
    """

    def __init__(
        self,
        gallery: np.ndarray,
        distance: Distance,
        ask: Callable[[np.ndarray, int, np.ndarray], Sequence[ShardAnswer]],
        size: int,
    ) -> None:
        gallery = check_matrix("gallery", gallery, check_distance(distance))
        self._n, self.dim = (int(side) for side in gallery.shape)
        self.distance, self.bytes = distance, size
        self._ask = ask

    def __len__(self) -> int:
        return self._n

    def search(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """Find the k nearest gallery rows of each query; arguments, result and errors are those of `ExactIndex`."""
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = check_exclude(exclude, len(queries), self._n)
        ranking = room_for(len(queries), k, self._n)
        if not len(queries):
            return ranking
        return merged(self._ask(queries, min(k, max(1, self._n)), exclude), ranking)

    __call__ = search


def sharded(gallery: np.ndarray, distance: Distance = "cosine", shards: int = 2) -> ShardedIndex:
    """The same with all shards in this process, one after the other: what the workers of a cluster do together.

    Args:
        gallery: as for `ExactIndex`.
        distance: as for `ExactIndex`.
        shards: in how many parts the gallery is searched, at least 1.

    Returns:
        The index.
    """
    gallery = check_matrix("gallery", gallery, check_distance(distance))
    parts = [Shard(gallery[first:end], distance, first) for first, end in bounds_of(len(gallery), shards)]

    def ask(queries: np.ndarray, k: int, exclude: np.ndarray) -> list[ShardAnswer]:
        return [part.nearest(queries, k, exclude) for part in parts]

    return ShardedIndex(gallery, distance, ask, sum(part.bytes for part in parts))
