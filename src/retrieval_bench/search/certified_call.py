"""The whole search of a few queries by codes in compiled code, as `one_call_steps.py` has it of vectors.

Each thread scans a stretch of the gallery by itself (`certified_scan.scanner`). Who begins late finds that another has
taken its stretch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from retrieval_bench.search import jit
from retrieval_bench.search.bounds import FACTS, LENGTH
from retrieval_bench.search.emit import borrowed, pause, take
from retrieval_bench.search.kernels import array
from retrieval_bench.search.lane_sums import TOGETHER as FOUR_ROWS
from retrieval_bench.search.one_call_steps import APART, PATIENCE
from retrieval_bench.search.points import compiled_points
from retrieval_bench.search.quantise import ROWS, quantiser
from retrieval_bench.search.rescore import sort_by_distance
from retrieval_bench.search.widened_loops import fine_queries

MOST = 64  # neighbours, which are put in order one by one


class CodeSteps(NamedTuple):
    """Compiled functions: `begin`, then `finish` on each thread."""

    begin: Any
    finish: Any


@functools.cache
def compiled(scan: Callable, how: str, asked: str, dtype: str) -> CodeSteps:
    """The steps for a way to scan codes and the dtypes of queries and gallery.

    scan: `certified_scan.scanner` for these, of blocks of one query.
    """

    variant = scan.py_func.__qualname__  # type: ignore[attr-defined]
    make_points, (_, in_layers) = compiled_points(asked), quantiser()
    fine, finely = fine_queries(), how == "widened"

    def begin(kind, queries, centre, steps, threads, k):  # type: ignore[no-untyped-def]
        """-> the longest query, and what `finish` needs: squares, factors and facts of the queries; codes, starts
        and terms; near (t, q, k), who (t, q, k), counts (t, q), and state (2 + t APART,): how many stretches are done,
        and which are taken."""
        q, dim = queries.shape
        compared, facts = np.empty((q, dim), np.float32), np.empty((q, FACTS))
        squares, factors = np.empty(q), np.empty(q)
        make_points(kind, queries, centre, True, compared, squares, factors, facts)
        longest = 0.0
        for query in range(q):
            longest = max(longest, facts[query, LENGTH])
        if finely:
            codes, starts, terms = fine(compared, steps)
        else:
            codes, starts, terms = in_layers(compared, 1, 2, steps, 1)
        near, who = np.empty((threads, q, k)), np.empty((threads, q, k), np.int64)
        counts, state = np.zeros((threads, q), np.int64), np.zeros((1 + threads) * APART, np.int64)
        return longest, squares, factors, facts, codes, starts, terms, near, who, counts, state

    @jit.part(variant)
    def take_part(  # type: ignore[no-untyped-def]
        kind, queries, squares, factors, facts, codes, starts, terms, near, who, counts, state, place, panels,
        row_facts, rows, row_squares, row_factors, centre_length, exclude, budget, least, most, capacity,
    ):  # fmt: skip
        if take(state[(1 + place) * APART :], 1) > 0:
            return
        threads, q, k = near.shape
        begin, end = len(panels) * place // threads, len(panels) * (place + 1) // threads
        candidates = np.empty((q, capacity + max(most, least) * ROWS), np.uint64)
        scan(
            kind, queries, squares, factors, facts, codes, starts, terms.copy(), panels[begin:end],
            row_facts[begin:end], rows, row_squares, row_factors, centre_length, begin * ROWS, k, exclude, budget,
            least, most, capacity, near[place], who[place], counts[place], candidates, np.empty((q, k)),
            np.empty(q, np.int64), np.empty((1, ROWS), np.float32), np.empty(1, np.uint32),
            np.empty(FOUR_ROWS, np.int64), np.empty(2 * FOUR_ROWS),
        )  # fmt: skip
        take(state, 1)

    def finish(  # type: ignore[no-untyped-def]
        kind, queries, squares, factors, facts, codes, starts, terms, near, who, counts, state, panels, row_facts,
        rows, row_squares, row_factors, centre_length, exclude, budget, least, most, capacity, indices, distances,
        rescored, place,
    ):  # fmt: skip
        """Thread number `place` scans its stretch, if no other has. Number 0 then scans those that nobody has taken ->
        whether all are done: then indices (q, k) int64, distances (q, k) float64 and rescored (q,) int64 are filled, as
        of `certified_scan.scanner`. Where not, call it once more when the others have returned.

        The arguments from `panels` to `capacity` are those of `certified_scan.scanner`.
        """
        queries, squares, factors, facts = borrowed(queries), borrowed(squares), borrowed(factors), borrowed(facts)
        codes, starts, terms, near = borrowed(codes), borrowed(starts), borrowed(terms), borrowed(near)
        who, counts, state, panels = borrowed(who), borrowed(counts), borrowed(state), borrowed(panels)
        row_facts, rows, row_squares = borrowed(row_facts), borrowed(rows), borrowed(row_squares)
        row_factors, exclude, indices = borrowed(row_factors), borrowed(exclude), borrowed(indices)
        distances, rescored = borrowed(distances), borrowed(rescored)
        threads, q, k = near.shape
        for stretch in range(place, place + 1 if place > 0 else threads):
            take_part(
                kind, queries, squares, factors, facts, codes, starts, terms, near, who, counts, state, stretch, panels,
                row_facts, rows, row_squares, row_factors, centre_length, exclude, budget, least, most, capacity,
            )  # fmt: skip
        if place > 0:
            return True
        looks = 0
        while take(state, 0) < threads:
            looks += 1
            if looks == PATIENCE:
                return False
            pause()
        total = threads * k
        some, rows_of, spare, spare_rows = (
            np.empty(total), np.empty(total, np.int64), np.empty(total), np.empty(total, np.int64)
        )  # fmt: skip
        for query in range(q):
            found, count, beyond = 0, 0, False
            for thread in range(threads):
                for rank in range(k):
                    if who[thread, query, rank] >= 0:
                        some[found], rows_of[found] = near[thread, query, rank], who[thread, query, rank]
                        found += 1
                each = counts[thread, query]
                beyond |= each < 0
                count += -each - 1 if each < 0 else each
            rescored[query] = -count - 1 if beyond else count
            sort_by_distance(some, rows_of, found, spare, spare_rows)
            for rank in range(k):
                indices[query, rank] = rows_of[rank] if rank < found else -1
                distances[query, rank] = some[rank] if rank < found else np.inf
        return True

    f32, f64, i64, i8, u8 = types.float32, types.float64, types.int64, types.int8, types.uint8
    queries, rows = (types.Array(numba.from_dtype(np.dtype(kind)), 2, "C", readonly=True) for kind in (asked, dtype))
    real, matrix, whole, numbers = array(f64, 1), array(f64, 2), array(i64, 1), array(i64, 2)
    of_queries = real, real, matrix, array(i8, 4), array(types.int32, 2), array(f32, 3)
    of_all = *of_queries, array(f64, 3), array(i64, 3), numbers, whole
    of_rows = array(u8, 4), array(f32, 3), rows, real, real, f64
    scanning = i64, queries, *of_all, *of_rows, numbers, i64, i64, i64, i64
    return CodeSteps(
        jit.compiled(begin, types.Tuple((f64, *of_all))(i64, queries, real, i64, i64, i64), variant),
        jit.compiled(finish, types.boolean(*scanning, numbers, matrix, whole, i64), variant),
    )
