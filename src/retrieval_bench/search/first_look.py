"""Whether a scan can tell the rows of a gallery apart: a look at a few queries and rows, before it is begun in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.search.all_rows import nearest_of_all
from retrieval_bench.search.settling import Asked, Kept, Settled, alike

if TYPE_CHECKING:
    from retrieval_bench.search.index import ExactIndex

WORTH_IT = 1_000_000_000  # multiply-adds of a search; the look takes 40 us, which can be felt in a smaller one
_ROWS = 256
_QUERIES = 4
_MOST_IN_DOUBT = 4  # of so many rows, one may be in doubt


class FirstLook:
    """Some rows of a gallery as a small index of their own, made at the first search that is worth a look.

    It decides how the nearest are found, never which. kernel: of the index. faster: how many times as fast as float32
    the scan is that the look may save.
    """

    def __init__(self, rows: Kept, kernel: str, faster: int = 1) -> None:
        self._rows, self._kernel, self._faster = rows, kernel, faster
        self._index: ExactIndex | None = None

    def in_vain(self, queries: np.ndarray, k: int) -> bool:
        """Whether most rows would be in doubt after a scan in float32: each then needs its float64 distance anyway.

        queries: (q, d), checked. k: of the rows that are to be found.
        """
        n, dim = self._rows.values.shape
        if len(queries) * n * dim < WORTH_IT * self._faster or k * _MOST_IN_DOUBT > n or n < _ROWS * _MOST_IN_DOUBT:
            return False
        index = self._sample()
        some = queries[:: -(-len(queries) // _QUERIES)]
        try:
            index.search(some, 1, threads=1)
        except BenchError:  # the search itself says what is wrong with which query
            return False
        if index.last.doubtful < len(some):  # nearly always
            return False
        nearest = index.search_float64(some, 1, threads=1)
        nothing = np.empty((len(some), 0), np.int64)
        farthest = np.nextafter(nearest.distances[:, 0], np.inf)
        found = index._in_question(some, farthest, nothing, 1)  # noqa: SLF001 - a part of the same search
        return found is not None and int(np.bincount(found[1], minlength=len(some)).min()) * _MOST_IN_DOUBT > _ROWS

    def _sample(self) -> ExactIndex:
        if self._index is None:
            from retrieval_bench.search.index import ExactIndex

            places = np.arange(_ROWS) * len(self._rows) // _ROWS
            self._index = ExactIndex(self._rows.values[places], self._rows.distance, kernel=self._kernel)
        return self._index


def without_scan(asked: Asked, gallery: Kept, exclude: np.ndarray, k: int, threads: int | None) -> Settled:
    """What `settling.settled` finds, from the float64 distances to every row. All queries count as doubtful.

    exclude: (q, m), each line ascending. threads: at most so many.
    """
    rows, distances = nearest_of_all(asked, gallery, exclude, k, threads)
    alike(asked, gallery, exclude, rows, distances)
    q = len(rows)
    return Settled(rows, distances, np.arange(q), q * len(gallery))
