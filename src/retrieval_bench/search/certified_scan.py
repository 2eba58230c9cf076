"""The scan of int8 codes that finds the nearest rows by their float64 distances.

Each gallery row is scanned as bytes (`quantise.py`, which also proves the bound). The scan computes, for every query
and row, a score U that is not below the exact one of `bounds.py`.

1. Scan. Every U comes with an L that the exact score does not fall below. The k-th best L so far is what k rows are
   sure to reach, and so the limit: a row whose U is below it is strictly farther than k others, so that not even a
   tie is lost. All others wait. The inner loop compares U with the limit itself, 32 rows at a time, and answers with
   a mask; nearly always, after the first rows, nobody passes and nothing else happens.
2. Rescore. The best of those who wait get their float64 distance (`rescore.py`), which decides. It raises the limit
   once more; whoever's U still passes it is rescored too. The k best (distance, row) are the result.

Nothing is estimated, and the result does not depend on the order in which rows are visited, so threads and batches
can't change it. How many rows must be rescored depends on how far apart distances are, compared with the bound: of
random unit vectors, 20 to 40 of 100,000 for the 10 nearest at 512 dimensions, 70 to 150 of 20,000 at 2048. Where it is
too many (all rows equal, one huge coordinate, values beyond the safe range) the query goes to the float32 engine.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba import types

from retrieval_bench.search import jit, tile_loops
from retrieval_bench.search.bounds import distance_limit, score_limit
from retrieval_bench.search.code_loops import tile_of
from retrieval_bench.search.emit import borrowed, lowest_bit
from retrieval_bench.search.kernels import INNER_PRODUCT, array
from retrieval_bench.search.keys import bring_smallest_forward, contains, key_distance, key_of
from retrieval_bench.search.lane_sums import TOGETHER as FOUR_ROWS
from retrieval_bench.search.quantise import (
    ERROR,
    LENGTH,
    LIMIT,
    PER_ERROR,
    PER_LENGTH,
    ROWS,
    SHIFT,
    lower_bound,
)
from retrieval_bench.search.rescore import distances_of_four, put_in_place_of_farthest
from retrieval_bench.search.widened_loops import ahead_here

# Written out where it is called: each array handed to a function costs two updates of a reference count,
# which is more than some of these functions take.
_in_place = numba.njit(nogil=True, error_model="numpy", inline="always")


@functools.cache
def scanner(how: str, together: int, asked: str, dtype: str) -> Any:
    """`scan` below, compiled for one way of scanning, blocks of `together` queries, and dtypes of queries and rows."""
    ahead = ahead_here() if how == "widened" and together == 1 else 0
    tile = tile_of(how, together, ahead)
    in_tiles = how == "tiles" and together > 1
    prepare, give_back = (
        (tile_loops.shape_tiles, tile_loops.release_tiles) if in_tiles else (tile_loops.nothing, tile_loops.nothing)
    )

    def scan(  # type: ignore[no-untyped-def]
        kind: int, queries: np.ndarray, query_squares: np.ndarray, query_factors: np.ndarray, query_facts: np.ndarray,
        codes: np.ndarray, starts: np.ndarray, terms: np.ndarray, panels: np.ndarray, facts: np.ndarray,
        rows: np.ndarray, squares: np.ndarray, factors: np.ndarray, centre_length: float, first: int, k: int,
        exclude: np.ndarray, budget: int, least: int, most: int, capacity: int, near: np.ndarray, who: np.ndarray,
        rescored: np.ndarray, candidates: np.ndarray, worst: np.ndarray, counts: np.ndarray, upper: np.ndarray,
        masks: np.ndarray, at: np.ndarray, four: np.ndarray,
    ) -> None:  # fmt: skip
        """The k nearest of the rows of `panels`, by float64 distances.

        queries, query_squares, query_factors, query_facts: `settling.Asked`. codes, starts, terms: of
            `quantise_queries`; LIMITs in terms are raised.
        panels, facts: of `quantise_rows`, a stretch that begins with row `first` of the gallery, a multiple of ROWS.
        rows, squares, factors: `settling.Kept`, the whole gallery. exclude: (q, m) int64, each line ascending.
        budget: how many rows may be rescored for a query.
        least, most: panels of the first chunk and of the largest.
        capacity: how many candidates may wait to be rescored.
        near (q, k) float64, who (q, k) int64: filled with distances and rows, in no order, inf and -1 where there are
            fewer.
        rescored: (q,) int64, filled with the number of rows rescored; negative, less one, for queries that exceeded
            the budget or could not be scanned: what was found means nothing.
        candidates, worst, counts, upper, masks, at, four: scratch, see `CertifiedIndex._scratch`.
        """
        queries, codes, starts, terms = borrowed(queries), borrowed(codes), borrowed(starts), borrowed(terms)
        query_squares, query_factors = borrowed(query_squares), borrowed(query_factors)
        query_facts, panels, facts, rows = borrowed(query_facts), borrowed(panels), borrowed(facts), borrowed(rows)
        squares, factors, exclude = borrowed(squares), borrowed(factors), borrowed(exclude)
        near, who, rescored = borrowed(near), borrowed(who), borrowed(rescored)
        candidates, worst, counts = borrowed(candidates), borrowed(worst), borrowed(counts)
        upper, masks, at, four = borrowed(upper), borrowed(masks), borrowed(at), borrowed(four)
        together, blocks, group = terms.shape[2], len(codes), len(candidates) // terms.shape[2]
        near[:] = np.inf
        who[:] = -1
        rescored[:] = 0
        prepare()
        for base in range(0, blocks, group):
            counts[:] = 0
            worst[:] = np.inf
            begin, size = 0, least
            while begin < len(panels):
                end = min(begin + size, len(panels))
                for block in range(base, min(base + group, blocks)):
                    place = (block - base) * together
                    p = tile(codes, starts, terms, panels, facts, block, begin, end, upper, masks)
                    while p < end:  # seldom, after a while
                        for r in range(min(together, len(queries) - block * together)):
                            if masks[r] != 0 and rescored[block * together + r] >= 0:
                                _admit(
                                    kind, block, r, p, first, upper, masks, terms, facts, query_facts, centre_length,
                                    rows, exclude, place + r, candidates, counts, worst,
                                )  # fmt: skip
                        p = tile(codes, starts, terms, panels, facts, block, p + 1, end, upper, masks)
                    for r in range(min(together, len(queries) - block * together)):
                        if counts[place + r] > capacity:
                            left = _drop_beaten(candidates, place + r, counts[place + r], terms[block, LIMIT, r])
                            if left > capacity // 2:
                                _rescore(
                                    kind, block, r, queries, query_squares, query_factors, query_facts, terms, rows,
                                    squares, factors, centre_length, candidates[place + r, :left], near, who, rescored,
                                    budget, at, four,
                                )  # fmt: skip
                                left = 0
                            counts[place + r] = left
                begin, size = end, min(max(least, end), most)
            for block in range(base, min(base + group, blocks)):
                for r in range(min(together, len(queries) - block * together)):
                    place = (block - base) * together + r
                    left = _drop_beaten(candidates, place, counts[place], terms[block, LIMIT, r])
                    _rescore(
                        kind, block, r, queries, query_squares, query_factors, query_facts, terms, rows, squares,
                        factors, centre_length, candidates[place, :left], near, who, rescored, budget, at, four,
                    )  # fmt: skip
        give_back()
        for query in range(len(queries)):
            if terms[query // together, LIMIT, query % together] == np.inf and rescored[query] >= 0:
                rescored[query] = -rescored[query] - 1

    f32, f64, i64 = types.float32, types.float64, types.int64
    queries, rows = (types.Array(numba.from_dtype(np.dtype(kind)), 2, "C", readonly=True) for kind in (asked, dtype))
    real, matrix, whole, numbers = array(f64, 1), array(f64, 2), array(i64, 1), array(i64, 2)
    signature = types.none(
        *(i64, queries, real, real, matrix),
        *(array(types.int8, 4), array(types.int32, 2), array(f32, 3), array(types.uint8, 4), array(f32, 3)),
        *(rows, real, real, f64, i64, i64),
        *(numbers, i64, i64, i64, i64, matrix, numbers),
        *(whole, array(types.uint64, 2), matrix, whole, array(f32, 2)),
        *(array(types.uint32, 1), whole, real),
    )
    return jit.compiled(scan, signature, f"{how}-{together}-{ahead}-{asked}-{dtype}")


@_in_place
def _raise_limit(
    kind: int, block: int, r: int, distance: float, terms: np.ndarray, facts: np.ndarray, d: int, centre_length: float
) -> None:
    """The limit of query r of the block, from a float64 distance that k rows do not exceed. facts: of the query."""
    limit = score_limit(kind, distance, facts, d, centre_length, 0.0)
    terms[block, LIMIT, r] = max(terms[block, LIMIT, r], limit)


@_in_place
def _admit(
    kind: int, block: int, r: int, p: int, first: int, upper: np.ndarray, masks: np.ndarray, terms: np.ndarray,
    facts: np.ndarray, query_facts: np.ndarray, centre_length: float, rows: np.ndarray, exclude: np.ndarray, place: int,
    candidates: np.ndarray, counts: np.ndarray, worst: np.ndarray,
) -> None:  # fmt: skip
    """Let the candidates of query r of the block among the rows of panel p wait, and raise the query's limit.

    candidates: (.., capacity) uint64 keys of (-U, row); the first counts[place] in line `place` are of this query.
    worst: (.., k) float64, a heap per line: the k least of -L, where no row's product is below its L.
    """
    query, count, d = block * terms.shape[2] + r, counts[place], rows.shape[1]
    per_length, per_error = np.float64(terms[block, PER_LENGTH, r]), np.float64(terms[block, PER_ERROR, r])
    bits, raised = np.uint64(masks[r]), False
    while bits != np.uint64(0):
        lane = lowest_bit(bits)
        bits &= bits - np.uint64(1)
        row = first + p * ROWS + lane
        if row >= len(rows) or facts[p, SHIFT, lane] == np.float32(-np.inf):
            continue
        if exclude.shape[1] > 0 and contains(exclude[query], row):
            continue
        candidates[place, count] = key_of(-upper[r, lane], row)
        count += 1
        margin = per_length * np.float64(facts[p, LENGTH, lane]) + per_error * np.float64(facts[p, ERROR, lane])
        shift = facts[p, SHIFT, lane]
        low = lower_bound(upper[r, lane], margin, shift, d)
        if kind == INNER_PRODUCT:  # what the shift allows for may go the other way
            low -= 2.0 * np.float64(shift)
        if -low < worst[place, 0]:
            _replace_largest(worst, place, -low)
            raised = True
    counts[place] = count
    if raised and worst[place, 0] < np.inf:
        distance = distance_limit(kind, -worst[place, 0], query_facts[query], d, centre_length)
        _raise_limit(kind, block, r, distance, terms, query_facts[query], d, centre_length)


@_in_place
def _drop_beaten(candidates: np.ndarray, place: int, count: int, limit: np.float32) -> int:
    """Drop the candidates whose U is below the limit by now; returns how many are left."""
    left = 0
    for i in range(count):
        if not -key_distance(candidates[place, i]) < limit:
            candidates[place, left] = candidates[place, i]
            left += 1
    return left


@_in_place
def _rescore(
    kind: int, block: int, r: int, queries: np.ndarray, query_squares: np.ndarray, query_factors: np.ndarray,
    query_facts: np.ndarray, terms: np.ndarray, rows: np.ndarray, squares: np.ndarray, factors: np.ndarray,
    centre_length: float, candidates: np.ndarray, near: np.ndarray, who: np.ndarray, rescored: np.ndarray, budget: int,
    at: np.ndarray, four: np.ndarray,
) -> None:  # fmt: skip
    """Compute the float64 distances of the candidates that the limit still allows; keep the best.

    candidates: (m,) uint64 keys of (-U, row). near, who: (q, k), a heap per query, inf and -1 where it is not full.
    The query's limit is raised to what the k-th best reaches; to +inf if more than `budget` rows would be rescored.
    """
    query, k = block * terms.shape[2] + r, near.shape[1]
    if len(candidates) > k:
        bring_smallest_forward(candidates, len(candidates), k)  # the most promising raise the limit most
    position = 0
    while position < len(candidates):
        count = 0
        while position < len(candidates) and count < FOUR_ROWS:
            candidate = candidates[position]
            position += 1
            if not -key_distance(candidate) < terms[block, LIMIT, r]:
                at[count] = np.int64(candidate & np.uint64(0xFFFFFFFF))
                count += 1
        if count == 0:
            break
        rescored[query] += count
        if rescored[query] > budget:
            rescored[query] = count - rescored[query] - 1
            terms[block, LIMIT, r] = np.inf
            break
        for lane in range(count, FOUR_ROWS):
            at[lane] = at[0]
        distances_of_four(
            kind, queries[query], query_squares[query], query_factors[query], rows, squares, factors, at, four[:4],
            four[4:],
        )  # fmt: skip
        for lane in range(count):
            distance, row = four[lane], at[lane]
            if distance < near[query, 0] or (distance == near[query, 0] and row < who[query, 0]):
                put_in_place_of_farthest(near, who, query, distance, row)
        if near[query, 0] < np.inf:
            _raise_limit(kind, block, r, near[query, 0], terms, query_facts[query], rows.shape[1], centre_length)


@_in_place
def _replace_largest(heaps: np.ndarray, line: int, value: Any) -> None:
    """Put the value in the place of heaps[line, 0], the largest of its line, and restore the order of the heap."""
    place, size = 0, heaps.shape[1]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heaps[line, child + 1] > heaps[line, child]:
            child += 1
        if heaps[line, child] <= value:
            break
        heaps[line, place] = heaps[line, child]
        place = child
    heaps[line, place] = value
