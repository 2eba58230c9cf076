"""A whole small search in one compiled call: from the queries as they were given to rows and distances.

A search that takes microseconds would else spend most of its time in Python, between one compiled step and the next.
The steps are those of the larger searches, in the same order: `points`, `pack`, `scan`, `nearest`, `settle`.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba import types

from retrieval_bench.core import Distance
from retrieval_bench.search import jit
from retrieval_bench.search.bounds import FACTS, LENGTH, summing_error
from retrieval_bench.search.emit import Kernel, borrowed
from retrieval_bench.search.kernels import EUCLIDEAN, KINDS, PANEL, Engine, array, engine, plan
from retrieval_bench.search.keys import IN_ORDER
from retrieval_bench.search.points import compiled_points, values_of
from retrieval_bench.search.rescore import compiled as compiled_settling

REFUSED, DOUBTFUL, LONGEST, ALIKE, RESCORED = 0, 1, 2, 3, 4
"""Places of the report: the first query that holds NaN or inf, or -1; whether any result needs a second look; the
greatest length of a query; whether all rows are at the same distance of any; how many float64 distances were computed
for all queries."""


class Small:
    """What small searches of an index need, found once: a lookup costs as much as a hundred distances."""

    def __init__(self, kernel: Kernel, distance: Distance, dim: int, dtype: str) -> None:
        self._made_of = kernel, distance, dim, dtype
        self.kind, self.g = KINDS[distance], summing_error.py_func(dim)
        self.most, self.values_of = IN_ORDER, values_of
        self.search = compiled(kernel, "float32", dtype)

    def plan(self, q: int, kept: int, n: int) -> tuple[bool, int]:
        kernel, _, dim, _ = self._made_of
        return plan(kernel, q, kept, n, dim)

    def search_float64(self, *arguments: Any) -> None:
        kernel, _, _, dtype = self._made_of
        compiled(kernel, "float64", dtype)(*arguments)

    def __reduce__(self) -> Any:
        return Small, self._made_of


@functools.cache
def compiled(kernel: Kernel, asked: str, dtype: str) -> Any:
    """`search` below, compiled for a vector width and the dtypes of queries and gallery."""
    steps: Engine = engine(kernel, "cosine")
    pack, scan, nearest = steps.pack, steps.scan, steps.nearest
    make_points, (settle, _) = compiled_points(asked), compiled_settling(asked, dtype)
    a, b, c, most = kernel.blocks

    def search(  # type: ignore[no-untyped-def]
        kind, queries, centre, centre_length, g, panels, starts, n, rows, squares, factors, zeros, exclude, k, kept,
        strips, capacity, indices, distances, report,
    ):  # fmt: skip
        """Fill indices (q, k) int64, distances (q, k) float32 and report (5,) float64."""
        queries, centre, panels, starts = borrowed(queries), borrowed(centre), borrowed(panels), borrowed(starts)
        rows, squares, factors, zeros = borrowed(rows), borrowed(squares), borrowed(factors), borrowed(zeros)
        exclude, indices, distances = borrowed(exclude), borrowed(indices), borrowed(distances)
        q, dim = queries.shape
        compared, facts = np.empty((q, dim), np.float32), np.empty((q, FACTS))
        query_squares, query_factors = np.empty(q), np.empty(q)
        make_points(kind, queries, centre, True, compared, query_squares, query_factors, facts)
        report[REFUSED], report[DOUBTFUL], report[LONGEST], report[ALIKE] = -1.0, 0.0, 0.0, 0.0
        report[RESCORED] = 0.0
        for query in range(q):
            report[LONGEST] = max(report[LONGEST], facts[query, LENGTH])
            if kind != EUCLIDEAN and query_squares[query] == 0.0:
                report[ALIKE] = 1.0
            if report[REFUSED] < 0 and not np.isfinite(query_squares[query]):
                report[REFUSED] = query
        if report[REFUSED] >= 0:
            return
        whole = q // most
        left = q - whole * most
        last = 0 if left == 0 else a if left <= a else b if left <= b else c if left <= c else most
        packed = np.zeros((whole * most + last) * dim, np.float32)
        if whole > 0:
            pack(compared[: whole * most], packed[: whole * most * dim].reshape((whole, dim, most)))
        if last > 0:
            pack(compared[whole * most :], packed[whole * most * dim :].reshape((1, dim, last)))
        gates, limits = np.empty(whole * most + last, np.float32), np.empty(q, np.float32)
        for place in range(len(gates)):
            gates[place] = -np.inf if place < q else np.inf
        keys, counts = np.empty((1, q, capacity), np.uint64), np.zeros((1, q), np.int64)
        work = np.zeros(1, np.int64)
        for query in range(q):
            limits[query] = np.inf
        tile, masks = np.empty((most, PANEL), np.float32), np.empty(most + 1, np.uint64)
        scan(
            packed, panels, starts, 0, n, work, len(panels), strips, kept, exclude, keys[0], counts[0], limits, gates,
            tile, masks,
        )  # fmt: skip
        near, rescored = np.empty((q, k)), np.empty(q, np.int64)
        settle(
            kind, queries, query_squares, query_factors, facts, rows, squares, factors, zeros, exclude,
            nearest(keys, counts, kept), np.zeros(q), g, centre_length, k, indices, near, rescored,
        )  # fmt: skip
        for query in range(q):
            if rescored[query] < 0 and kept < n:  # else there are no others
                report[DOUBTFUL] = 1.0
            report[RESCORED] += rescored[query] if rescored[query] >= 0 else -rescored[query] - 1
            for place in range(k):
                distances[query, place] = np.float32(near[query, place])

    f32, f64, i64 = types.float32, types.float64, types.int64
    queries, rows = (types.Array(numba.from_dtype(np.dtype(kind)), 2, "C", readonly=True) for kind in (asked, dtype))
    real, whole = array(f64, 1), array(i64, 1)
    signature = types.none(
        *(i64, queries, real, f64, f64, array(f32, 3), array(f32, 2), i64, rows, real, real, whole),
        *(array(i64, 2), i64, i64, types.boolean, i64, array(i64, 2), array(f32, 2), real),
    )
    return jit.compiled(search, signature, f"{kernel.name}-{asked}-{dtype}")
