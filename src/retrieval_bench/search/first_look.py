"""Whether a scan can tell the rows of a gallery apart: a look at a few queries and rows, before it is begun in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.search.all_rows import nearest_of_all
from retrieval_bench.search.bounds import LENGTH
from retrieval_bench.search.checks import check_finite, check_range
from retrieval_bench.search.points import points, values_of
from retrieval_bench.search.settling import Asked, Kept, alike

if TYPE_CHECKING:
    from retrieval_bench.search.index import ExactIndex

WORTH_IT = 1_000_000_000  # multiply-adds of a search; the look takes 40 us, which can be felt in a smaller one
_ROWS = 256
_QUERIES = 4
_MOST_IN_DOUBT = 4  # of so many rows, one may be in doubt
_SCRATCH_BYTES = 48 << 20  # what the queries that meet all rows together may occupy
_TO_SEE_ALL = 2  # queries for each column; of more, one may be compared with all rows for a small part of the time


class FirstLook:
    """Some rows of a gallery as a small index of their own, made by `ready` or at the first search that is worth it.

    It decides how the nearest are found, never which. rows: the gallery, in which no row is longer than `longest`.
    index_of: makes an index of some of them. faster: how many times as fast as float32 the scan is that the look may
    save.
    """

    def __init__(
        self, rows: Kept, longest: float, index_of: Callable[[np.ndarray], ExactIndex], faster: int = 1
    ) -> None:
        self._rows, self._longest, self._index_of, self._faster = rows, longest, index_of, faster
        self._index: ExactIndex | None = None

    def in_vain(self, queries: np.ndarray, k: int, exclude: np.ndarray, threads: int | None) -> bool:
        """Whether most rows would be in doubt after a scan in float32: each then needs its float64 distance anyway.

        queries: (q, d), checked. k: of the rows that are to be found. exclude, threads: as of `without_scan`.
        """
        n, dim = self._rows.values.shape
        if len(queries) * n * dim < WORTH_IT * self._faster or k * _MOST_IN_DOUBT > n or self._too_few():
            return False
        index = self._sample()
        step = -(-len(queries) // _QUERIES)
        some = queries[::step]
        try:
            index.search(some, 1, threads=1)
        except BenchError:  # the search itself says what is wrong with which query
            return False
        if index.last.doubtful < len(some):  # nearly always
            return False
        if not _most_in_question(index, some, index.search_float64(some, 1, threads=1).distances[:, 0]):
            return False
        # Rows that are far nearer than all others may be too few to be in the sample. Where float64 loses most by that,
        # which is in few dimensions, one query meets all rows.
        if len(queries) < _TO_SEE_ALL * dim:
            return True
        last = slice((len(some) - 1) * step, (len(some) - 1) * step + 1)
        _, distances = nearest_of_all(self._asked(queries, last), self._rows, exclude[last], k, threads)
        return _most_in_question(index, queries[last], distances[:, -1])

    def without_scan(
        self, queries: np.ndarray, k: int, exclude: np.ndarray, ranking: Ranking, threads: int | None
    ) -> tuple[int, int, int, int]:
        """Fill k columns of the ranking by the float64 distances to every row -> the figures of `ScanStats`, for which
        all queries count as doubtful.

        queries: (q, d), checked. exclude: (q, m), each line ascending. threads: at most so many.
        """
        q, (n, dim) = len(queries), self._rows.values.shape
        batch = max(_SCRATCH_BYTES // (16 * k + 24 * dim + 1024), 1)
        for first in range(0, q, batch):
            some = slice(first, min(first + batch, q))
            asked = self._asked(queries, some)
            rows, distances = nearest_of_all(asked, self._rows, exclude[some], k, threads)
            alike(asked, self._rows, exclude[some], rows, distances)
            ranking.indices[some, :k], ranking.distances[some, :k] = rows, distances
        return q, n, q * n, q

    @property
    def bytes(self) -> int:
        """Of the small index."""
        return 0 if self._index is None else self._index.bytes

    def ready(self) -> FirstLook:
        """Itself, once all is there that it takes, so that nothing is compiled in a search."""
        if not self._too_few():
            self._sample()
        return self

    def _too_few(self) -> bool:
        """Whether the gallery is too small for a sample of it."""
        return len(self._rows) < _ROWS * _MOST_IN_DOUBT

    def _sample(self) -> ExactIndex:
        if self._index is None:
            places = np.arange(min(_ROWS, len(self._rows))) * len(self._rows) // _ROWS
            self._index = self._index_of(self._rows.values[places])
        return self._index

    def _asked(self, queries: np.ndarray, some: slice) -> Asked:
        """Some of the queries, if they can be searched for."""
        distance = self._rows.distance
        values = values_of("queries", queries[some], distance, some.start)
        _, *known = points(distance, values, np.zeros(values.shape[1]), queries=True)
        asked = Asked(values, *known)
        check_finite("queries", np.isfinite(asked.squares), some.start)
        check_range(distance, float(asked.facts[:, LENGTH].max(initial=0.0)), self._longest)
        return asked


def _most_in_question(index: ExactIndex, queries: np.ndarray, distances: np.ndarray) -> bool:
    """Whether float32 leaves open of most rows of the sample, for each query, if they are within its distance."""
    nothing = np.empty((len(queries), 0), np.int64)
    found = index._packed.in_question(queries, np.nextafter(distances, np.inf), nothing, 1)  # noqa: SLF001 - of the same search
    return found is not None and int(np.bincount(found[1], minlength=len(queries)).min()) * _MOST_IN_DOUBT > _ROWS
