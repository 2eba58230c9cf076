"""The whole search of few queries in one or two compiled calls.

A search that takes microseconds would else spend most of its time in Python, between one compiled step and the next. So
would a single query in a large gallery, which sweeps Python's memory out of the caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.search.bounds import summing_error
from retrieval_bench.search.kernels import KINDS, plan
from retrieval_bench.search.keys import IN_ORDER
from retrieval_bench.search.one_call_steps import for_bits, for_vectors
from retrieval_bench.search.points import values_of
from retrieval_bench.search.scans import Layout, Piece, turn_of
from retrieval_bench.search.threads import finish_on_threads

if TYPE_CHECKING:
    from retrieval_bench.search.emit import Kernel
    from retrieval_bench.search.settling import Kept

MOST = IN_ORDER  # candidates of a query, which are merged in order


class VectorSearch:
    """Searches of few queries in an index of vectors. What they need is found once: a lookup costs as much as a hundred
    distances."""

    most = MOST

    def __init__(self, kernel: Kernel, distance: Distance, dim: int, dtype: str) -> None:
        self._made_of = kernel, distance, dim, dtype
        self._kind, self.g = KINDS[distance], summing_error.py_func(dim)
        self._float32 = for_vectors(kernel, "float32", dtype)

    def __reduce__(self) -> Any:
        return VectorSearch, self._made_of

    def search(
        self, layout: Layout, piece: Piece, rows: Kept, queries: np.ndarray, exclude: np.ndarray, kept: int,
        threads: int, indices: np.ndarray, distances: np.ndarray,
    ) -> tuple[list[float], np.ndarray, np.ndarray]:  # fmt: skip
        """Fill indices (q, k) int64 and distances (q, k) float32 with the nearest, out of all rows of the gallery.

        Args:
            layout, piece, rows: the index.
            queries, exclude: checked, as for `ExactIndex.search`.
            kept: how many candidates of each query, MOST of them at most, the float64 distances choose from.
            threads: 1 or more.
            indices, distances: filled.

        Returns:
            The report, of five numbers: the first query that holds NaN or inf, or -1; whether any result needs a second
            look; the greatest length of a query; whether all rows are at the same distance of any query; how many
            float64 distances were computed. Then (q, k) float64 distances, and (q,) counts of `rescore.settle`.
        """
        kernel, _, dim, dtype = self._made_of
        values = values_of("queries", queries, layout.distance)
        (q, k), n = indices.shape, piece.n
        near, counts, report = np.empty((q, k)), np.empty(q, np.int64), np.empty(5)
        steps = self._float32 if values.dtype == np.float32 else for_vectors(kernel, "float64", dtype)
        strips, capacity = plan(kernel, q, kept, n, dim)
        panels = piece.panels, piece.starts, n
        known = layout.centre_length, self.g, *panels, rows.values, rows.squares, rows.factors, rows.zeros
        results = indices, near, counts, distances, report
        if threads == 1:
            steps.search(self._kind, values, layout.centre, *known, exclude, k, kept, strips, capacity, *results)
        else:
            begun = steps.begin(self._kind, values, layout.centre, threads, kept, capacity, report)
            of_queries = self._kind, values, *begun, turn_of(piece, threads)
            finish_on_threads(steps.finish, threads, (*of_queries, *known, exclude, k, kept, strips, *results))
        return report.tolist(), near, counts


class BitSearch:
    """The same in an index of bits."""

    most = MOST

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._steps = kernel, for_bits(kernel)

    def __reduce__(self) -> Any:
        return BitSearch, (self._kernel,)

    def search(
        self, piece: Piece, words: np.ndarray, exclude: np.ndarray, threads: int, indices: np.ndarray,
        distances: np.ndarray,
    ) -> None:  # fmt: skip
        """Fill indices (q, k) int64 and distances (q, k) float32, k at most MOST. words: (q, width) uint64, queries."""
        (q, k), n, steps = indices.shape, piece.n, self._steps
        panels = piece.panels, piece.starts, n
        _, capacity = plan(self._kernel, q, k, n, words.shape[1])
        if threads == 1:
            steps.search(words, *panels, exclude, k, capacity, indices, distances)
            return
        begun = steps.begin(words, threads, capacity)
        arguments = *begun, turn_of(piece, threads), *panels, exclude, k, indices, distances
        finish_on_threads(steps.finish, threads, arguments)
