"""Whether a scan can tell the rows of a gallery apart: a look at a few queries and rows, before it is begun in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.search.all_rows import nearest_of_all
from retrieval_bench.search.points import points, values_of
from retrieval_bench.search.settling import Asked, Kept, Settled, alike

if TYPE_CHECKING:
    from retrieval_bench.search.index import ExactIndex

WORTH_IT = 1_000_000_000  # multiply-adds of a search; the look takes 40 us, which can be felt in a smaller one
_ROWS = 256
_QUERIES = 4
_MOST_IN_DOUBT = 4  # of so many rows, one may be in doubt
_TO_SEE_ALL = 2  # queries for each column; of more, one may be compared with all rows for a small part of the time


class FirstLook:
    """Some rows of a gallery as a small index of their own, made by `ready` or at the first search that is worth it.

    It decides how the nearest are found, never which. kernel: of the index. faster: how many times as fast as float32
    the scan is that the look may save.
    """

    def __init__(self, rows: Kept, kernel: str, faster: int = 1) -> None:
        self._rows, self._kernel, self._faster = rows, kernel, faster
        self._index: ExactIndex | None = None

    def in_vain(self, queries: np.ndarray, k: int, exclude: np.ndarray, threads: int | None) -> bool:
        """Whether most rows would be in doubt after a scan in float32: each then needs its float64 distance anyway.

        queries: (q, d), checked. k: of the rows that are to be found. exclude, threads: as of `without_scan`.
        """
        n, dim = self._rows.values.shape
        if len(queries) * n * dim < WORTH_IT * self._faster or k * _MOST_IN_DOUBT > n or n < _ROWS * _MOST_IN_DOUBT:
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
        values = values_of("queries", queries[last], self._rows.distance)
        _, *facts = points(self._rows.distance, values, np.zeros(dim), queries=True)
        _, distances = nearest_of_all(Asked(values, *facts), self._rows, exclude[last], k, threads)
        return _most_in_question(index, queries[last], distances[:, -1])

    def ready(self) -> FirstLook:
        """Itself, once all is there that it takes, so that nothing is compiled in a search."""
        self._sample()
        return self

    def _sample(self) -> ExactIndex:
        if self._index is None:
            from retrieval_bench.search.index import ExactIndex

            places = np.arange(min(_ROWS, len(self._rows))) * len(self._rows) // _ROWS
            self._index = ExactIndex(self._rows.values[places], self._rows.distance, kernel=self._kernel)
        return self._index


def _most_in_question(index: ExactIndex, queries: np.ndarray, distances: np.ndarray) -> bool:
    """Whether float32 leaves open of most rows of the sample, for each query, if they are within its distance."""
    nothing = np.empty((len(queries), 0), np.int64)
    found = index._in_question(queries, np.nextafter(distances, np.inf), nothing, 1)  # noqa: SLF001 - a part of the same search
    return found is not None and int(np.bincount(found[1], minlength=len(queries)).min()) * _MOST_IN_DOUBT > _ROWS


def without_scan(asked: Asked, gallery: Kept, exclude: np.ndarray, k: int, threads: int | None) -> Settled:
    """What `settling.settled` finds, from the float64 distances to every row. All queries count as doubtful.

    exclude: (q, m), each line ascending. threads: at most so many.
    """
    rows, distances = nearest_of_all(asked, gallery, exclude, k, threads)
    alike(asked, gallery, exclude, rows, distances)
    q = len(rows)
    return Settled(rows, distances, np.arange(q), q * len(gallery))
