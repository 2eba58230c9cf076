"""Compiled code that does the whole search of few queries: from the queries as they were given to rows and distances.

One thread does it in `search`. Of several, the first prepares the queries (`begin`). Then all of them call `finish` and
scan; the first waits for the others, and does the rest. The steps are those of the larger searches, in the same order:
`points`, `pack`, `scan`, `nearest`, `settle`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from retrieval_bench.search import jit
from retrieval_bench.search.bounds import FACTS, LENGTH
from retrieval_bench.search.emit import Kernel, borrowed, pause, take
from retrieval_bench.search.kernels import EUCLIDEAN, NO_LIMIT, PANEL, Engine, array, engine
from retrieval_bench.search.points import compiled_points
from retrieval_bench.search.rescore import compiled as compiled_settling

REFUSED, DOUBTFUL, LONGEST, ALIKE, RESCORED = 0, 1, 2, 3, 4
"""Places of the report of vectors, which `one_call.VectorSearch.search` describes."""

APART = 16  # int64 between the places of the state: each has a pair of cache lines to itself
BEGUN, ENDED = APART, 2 * APART
"""Places of the state: at 0 the next panel that no thread has taken, then how many threads have joined, and left."""

PATIENCE = 4096  # times that `finish` looks whether the others are done, a fraction of a millisecond


class Steps(NamedTuple):
    """Compiled functions: `search` alone, or `begin` and then `finish` on each thread."""

    begin: Any
    search: Any
    finish: Any


def _scanning(of_engine: Engine, value: Any, comparable: Any, open_: Any, shut: Any) -> tuple[Any, Any, Any]:
    """What vectors and bits have in common: the inner functions `in_blocks`, `take_part` and `others_are_done`.

    value: what rows and queries consist of. comparable: the type of gates, of which open_ lets all rows pass and shut
    none.
    """
    pack, scan = of_engine.pack, of_engine.scan
    a, b, c, most = of_engine.kernel.blocks
    values, gate = np.dtype(str(value)), np.dtype(str(comparable))
    variant = f"{of_engine.kernel.variant}-{value}"

    @jit.part(variant)
    def in_blocks(rows):  # type: ignore[no-untyped-def]
        """(q, d) rows as `kernels.scan` takes its queries."""
        q, dim = rows.shape
        whole = q // most
        left = q - whole * most
        last = 0 if left == 0 else a if left <= a else b if left <= b else c if left <= c else most
        packed = np.zeros((whole * most + last) * dim, values)
        if whole > 0:
            pack(rows[: whole * most], packed[: whole * most * dim].reshape((whole, dim, most)))
        if last > 0:
            pack(rows[whole * most :], packed[whole * most * dim :].reshape((1, dim, last)))
        return packed

    @jit.part(variant)
    def take_part(packed, panels, starts, n, state, step, strips, kept, exclude, keys, counts):  # type: ignore[no-untyped-def]
        """Scan `step` panels at a time, until there are no more; who begins too late finds none."""
        dim, q = panels.shape[1], len(counts)
        gates, limits = np.empty(len(packed) // dim, gate), np.empty(q, np.float32)
        for place in range(len(gates)):
            gates[place] = open_ if place < q else shut
        for query in range(q):
            limits[query] = np.inf
        tile, masks = np.empty((most, PANEL), gate), np.empty(most + 1, np.uint64)
        take(state[BEGUN:], 1)
        scan(packed, panels, starts, 0, n, state, step, strips, kept, exclude, keys, counts, limits, gates, tile, masks)
        take(state[ENDED:], 1)

    @jit.part(variant)
    def others_are_done(state):  # type: ignore[no-untyped-def]
        looks = 0
        while take(state[BEGUN:], 0) != take(state[ENDED:], 0):  # whoever begins from now on finds no panels
            looks += 1
            if looks == PATIENCE:
                return False
            pause()
        return True

    return in_blocks, take_part, others_are_done


@functools.cache
def for_vectors(kernel: Kernel, asked: str, dtype: str) -> Steps:
    """The steps for vectors, for a vector width and the dtypes of queries and gallery."""
    of_engine = engine(kernel, "cosine")
    nearest = of_engine.nearest
    variant = f"{of_engine.kernel.variant}-{asked}-{dtype}"
    open_, shut = np.float32(-np.inf), np.float32(np.inf)
    in_blocks, take_part, others_are_done = _scanning(of_engine, types.float32, types.float32, open_, shut)
    make_points, (settle, _) = compiled_points(asked), compiled_settling(asked, dtype)

    f32, f64, i64, flag = types.float32, types.float64, types.int64, types.boolean
    queries, rows = (types.Array(numba.from_dtype(np.dtype(kind)), 2, "C", readonly=True) for kind in (asked, dtype))
    real, whole, flat = array(f64, 1), array(i64, 1), array(f32, 1)
    reals, wholes, floats = array(f64, 2), array(i64, 2), array(f32, 2)
    keys = array(types.uint64, 3)
    known, results = (rows, real, real, whole), (wholes, reals, whole, floats, real)
    made = types.Tuple((flat, real, real, reals, keys, wholes, whole))
    panels = (array(f32, 3), floats, i64)

    def begin(kind, queries, centre, threads, kept, capacity, report):  # type: ignore[no-untyped-def]
        """-> packed, squares, factors, facts, keys, counts, state: what the other two need. Fills the report as far as
        it is about the queries."""
        q, dim = queries.shape
        compared, facts = np.empty((q, dim), np.float32), np.empty((q, FACTS))
        squares, factors = np.empty(q), np.empty(q)
        make_points(kind, queries, centre, True, compared, squares, factors, facts)
        report[REFUSED], report[DOUBTFUL], report[LONGEST], report[ALIKE] = -1.0, 0.0, 0.0, 0.0
        report[RESCORED] = 0.0
        for query in range(q):
            report[LONGEST] = max(report[LONGEST], facts[query, LENGTH])
            if kind != EUCLIDEAN and squares[query] == 0.0:
                report[ALIKE] = 1.0
            if report[REFUSED] < 0 and not np.isfinite(squares[query]):
                report[REFUSED] = query
        keys, counts = np.empty((threads, q, capacity), np.uint64), np.zeros((threads, q), np.int64)
        return in_blocks(compared), squares, factors, facts, keys, counts, np.zeros(3 * APART, np.int64)

    prepare = jit.compiled(begin, made(i64, queries, real, i64, i64, i64, real), variant)

    @jit.part(variant)
    def conclude(  # type: ignore[no-untyped-def]
        kind, queries, squares, factors, facts, keys, counts, centre_length, g, n, rows, row_squares, row_factors,
        zeros, exclude, k, kept, indices, near, rescored, distances, report,
    ):  # fmt: skip
        settle(
            kind, queries, squares, factors, facts, rows, row_squares, row_factors, zeros, exclude,
            nearest(keys, counts, kept), np.zeros(len(queries)), g, centre_length, k, indices, near, rescored,
        )  # fmt: skip
        for query in range(len(queries)):
            if rescored[query] < 0 and kept < n:  # else there are no others
                report[DOUBTFUL] = 1.0
            report[RESCORED] += rescored[query] if rescored[query] >= 0 else -rescored[query] - 1
            for place in range(k):
                distances[query, place] = np.float32(near[query, place])

    def search(  # type: ignore[no-untyped-def]
        kind, queries, centre, centre_length, g, panels, starts, n, rows, row_squares, row_factors, zeros, exclude, k,
        kept, strips, capacity, indices, near, rescored, distances, report,
    ):  # fmt: skip
        """One thread does it all: fills indices (q, k) int64, near (q, k) float64, distances (q, k) float32, which are
        near rounded, rescored (q,) int64 as `rescore.settle` does, and report (5,) float64."""
        queries, centre, panels, starts = borrowed(queries), borrowed(centre), borrowed(panels), borrowed(starts)
        rows, row_squares, row_factors = borrowed(rows), borrowed(row_squares), borrowed(row_factors)
        zeros, exclude, indices = borrowed(zeros), borrowed(exclude), borrowed(indices)
        near, rescored, distances = borrowed(near), borrowed(rescored), borrowed(distances)
        packed, squares, factors, facts, keys, counts, state = prepare(kind, queries, centre, 1, kept, capacity, report)
        if report[REFUSED] >= 0:
            return
        take_part(packed, panels, starts, n, state, len(panels), strips, kept, exclude, keys[0], counts[0])
        conclude(
            kind, queries, squares, factors, facts, keys, counts, centre_length, g, n, rows, row_squares, row_factors,
            zeros, exclude, k, kept, indices, near, rescored, distances, report,
        )  # fmt: skip

    def finish(  # type: ignore[no-untyped-def]
        kind, queries, packed, squares, factors, facts, keys, counts, state, step, centre_length, g, panels, starts, n,
        rows, row_squares, row_factors, zeros, exclude, k, kept, strips, indices, near, rescored, distances, report,
        place,
    ):  # fmt: skip
        """Thread number `place` scans. Number 0 then does the rest, as `search` does -> whether it could: others may
        still be scanning. Once they have returned, it can."""
        queries, packed, panels, starts = borrowed(queries), borrowed(packed), borrowed(panels), borrowed(starts)
        squares, factors, facts = borrowed(squares), borrowed(factors), borrowed(facts)
        keys, counts, state = borrowed(keys), borrowed(counts), borrowed(state)
        rows, row_squares, row_factors = borrowed(rows), borrowed(row_squares), borrowed(row_factors)
        zeros, exclude, indices = borrowed(zeros), borrowed(exclude), borrowed(indices)
        near, rescored, distances = borrowed(near), borrowed(rescored), borrowed(distances)
        take_part(packed, panels, starts, n, state, step, strips, kept, exclude, keys[place], counts[place])
        if place > 0:
            return True
        if not others_are_done(state):
            return False
        conclude(
            kind, queries, squares, factors, facts, keys, counts, centre_length, g, n, rows, row_squares, row_factors,
            zeros, exclude, k, kept, indices, near, rescored, distances, report,
        )  # fmt: skip
        return True

    return Steps(
        prepare,
        jit.compiled(
            search,
            types.none(i64, queries, real, f64, f64, *panels, *known, wholes, i64, i64, flag, i64, *results),
            variant,
        ),
        jit.compiled(
            finish,
            flag(i64, queries, *made, i64, f64, f64, *panels, *known, wholes, i64, i64, flag, *results, i64),
            variant,
        ),
    )


@functools.cache
def for_bits(kernel: Kernel) -> Steps:
    """The steps for bits."""
    of_engine = engine(kernel, "hamming")
    nearest, spread = of_engine.nearest, of_engine.spread
    variant = f"bits-{of_engine.kernel.variant}"
    in_blocks, take_part, others_are_done = _scanning(of_engine, types.uint64, types.int64, NO_LIMIT, 0)
    i64, u64 = types.int64, types.uint64
    words = types.Array(u64, 2, "C", readonly=True)
    wholes, floats, keys = array(i64, 2), array(types.float32, 2), array(u64, 3)
    made = types.Tuple((array(u64, 1), keys, wholes, array(i64, 1)))
    panels = (array(u64, 3), floats, i64)

    def begin(words, threads, capacity):  # type: ignore[no-untyped-def]
        """-> packed, keys, counts, state. words: (q, width), the queries."""
        q = len(words)
        keys, counts = np.empty((threads, q, capacity), np.uint64), np.zeros((threads, q), np.int64)
        return in_blocks(words), keys, counts, np.zeros(3 * APART, np.int64)

    prepare = jit.compiled(begin, made(words, i64, i64), variant)

    def search(words, panels, starts, n, exclude, k, capacity, indices, distances):  # type: ignore[no-untyped-def]
        """One thread does it all: fills indices (q, k) int64 and distances (q, k) float32."""
        words, panels, starts = borrowed(words), borrowed(panels), borrowed(starts)
        exclude, indices, distances = borrowed(exclude), borrowed(indices), borrowed(distances)
        packed, keys, counts, state = prepare(words, 1, capacity)
        take_part(packed, panels, starts, n, state, len(panels), False, k, exclude, keys[0], counts[0])
        spread(nearest(keys, counts, k), indices, distances)

    def finish(packed, keys, counts, state, step, panels, starts, n, exclude, k, indices, distances, place):  # type: ignore[no-untyped-def]
        """As of vectors."""
        packed, panels, starts, state = borrowed(packed), borrowed(panels), borrowed(starts), borrowed(state)
        keys, counts, exclude = borrowed(keys), borrowed(counts), borrowed(exclude)
        indices, distances = borrowed(indices), borrowed(distances)
        take_part(packed, panels, starts, n, state, step, False, k, exclude, keys[place], counts[place])
        if place > 0:
            return True
        if not others_are_done(state):
            return False
        spread(nearest(keys, counts, k), indices, distances)
        return True

    return Steps(
        prepare,
        jit.compiled(search, types.none(words, *panels, wholes, i64, i64, wholes, floats), variant),
        jit.compiled(finish, types.boolean(*made, i64, *panels, wholes, i64, wholes, floats, i64), variant),
    )
