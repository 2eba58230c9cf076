"""The nearest by float64 distances to every row, for queries to which no scan in float32 can tell the rows apart.

Rows are converted to float64 some at a time. All queries then meet these, four queries and twelve rows at a time. Two
things keep the work small where it would be greatest: a row that equals the one before it is at the same distance, and
is not looked at; and the sum of products, or of squared differences, tells of most rows that they are farther than
those found already, without the rest of the definition of `rescore.py`.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import types

from retrieval_bench.search import jit
from retrieval_bench.search.emit import borrowed
from retrieval_bench.search.kernels import COSINE, EUCLIDEAN, INNER_PRODUCT, KINDS, array
from retrieval_bench.search.keys import contains
from retrieval_bench.search.lane_sums import CROSSED, LANES, TOGETHER, crossed_differences, crossed_products
from retrieval_bench.search.rescore import cosine_distance, put_in_place_of_farthest, sort_by_distance
from retrieval_bench.search.scans import aligned
from retrieval_bench.search.threads import on_threads

if TYPE_CHECKING:
    from retrieval_bench.search.settling import Asked, Kept

_WORK_PER_THREAD = 4_000_000  # multiply-adds; below this, starting a thread costs more than it saves
_TILE_BYTES = 1 << 17  # of converted rows, that stay in the caches while all queries meet them
_ROWS_FOR_EACH = 64  # rows of a thread for each that it finds; of more, threads share out the rows
_SIDE_BY_SIDE = 32  # numbers of two rows that are compared before any difference is looked at
_TILE_ROWS = 21 * CROSSED  # at most

_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it


def nearest_of_all(
    asked: Asked, gallery: Kept, exclude: np.ndarray, k: int, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of all rows -> (q, k) rows int64 and distances float64, -1 and inf where there are fewer.

    exclude: (q, m), each line ascending. threads: at most so many; they share out the queries, or, of few, the rows.
    """
    q, n, dim = len(asked.values), len(gallery), gallery.values.shape[1]
    of_all = compiled(asked.values.dtype.name, gallery.values.dtype.name)
    threads = max(1, min(threads or numba.get_num_threads(), q * n * dim // _WORK_PER_THREAD))
    by_query = q >= TOGETHER * threads and n < _ROWS_FOR_EACH * k * threads
    total = q if by_query else n
    width = max(1, -(-dim // LANES)) * LANES
    wide = aligned((q, width), np.dtype(np.float64))
    wide[:, :dim] = asked.values

    def part(begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        some, first, last = (slice(begin, end), 0, n) if by_query else (slice(None), begin, end)
        mine = asked.part(some)
        rows, distances = np.empty((len(mine.values), k), np.int64), np.empty((len(mine.values), k))
        fitting = _TILE_BYTES // (8 * width * CROSSED) * CROSSED
        tile = aligned((min(_TILE_ROWS, max(CROSSED, fitting)), width), np.dtype(np.float64))
        of_all(
            *(KINDS[gallery.distance], *mine[:3], gallery.values, gallery.squares, gallery.factors, first, last),
            *(wide[some], tile, exclude[some], rows, distances),
        )
        return rows, distances

    bounds = [total * share // threads for share in range(threads + 1)]
    parts = on_threads([functools.partial(part, *stretch) for stretch in pairwise(bounds)])
    rows, distances = (np.concatenate(each, axis=0 if by_query else 1) for each in zip(*parts, strict=True))
    if not by_query:
        rows = np.where(rows < 0, n, rows)  # behind all others
        order = np.lexsort((rows, distances), axis=1)[:, :k]
        rows, distances = (np.take_along_axis(each, order, axis=1) for each in (rows, distances))
        rows[rows == n] = -1
    return rows, distances


def _nearest_of_all(
    kind: int, queries: np.ndarray, query_squares: np.ndarray, query_factors: np.ndarray, rows: np.ndarray,
    squares: np.ndarray, factors: np.ndarray, first: int, last: int, wide: np.ndarray, tile: np.ndarray,
    exclude: np.ndarray, indices: np.ndarray, distances: np.ndarray,
) -> None:  # fmt: skip
    """Fill indices (q, k) and distances (q, k) with the nearest of the rows from `first` up to `last`, in order.

    wide: (q, w) float64, the queries, filled up with zeros. tile: (t, w) float64, scratch, zeros behind the dimensions.
    """
    queries, rows, squares, factors = borrowed(queries), borrowed(rows), borrowed(squares), borrowed(factors)
    wide, tile, exclude = borrowed(wide), borrowed(tile), borrowed(exclude)
    indices, distances = borrowed(indices), borrowed(distances)
    dim, k, most = rows.shape[1], indices.shape[1], len(tile)
    limits, before = np.empty(len(queries)), np.empty(len(queries))
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)  # of runs of equal rows
    scales, heights = np.ones(most), np.ones(most)  # of their first rows: the factor, and the sum of squares, scaled
    at_query, at_row, sums = np.empty(TOGETHER, np.int64), np.empty(CROSSED, np.int64), np.empty((CROSSED, TOGETHER))
    own_factors, own_limits, coefficients = np.empty(TOGETHER), np.empty(TOGETHER), np.empty(4)
    for query in range(len(queries)):
        for place in range(k):
            indices[query, place], distances[query, place] = -1, np.inf
        limits[query] = _limit(kind, np.inf, 0.0, dim)
    row = first
    while row < last:
        runs = carried = 0
        begin = row
        while row < last:
            if row > first and _equal(rows, row, row - 1):
                if runs == 0:
                    carried += 1
                else:
                    ends[runs - 1] = row + 1
            elif runs == most:
                break
            else:
                starts[runs], ends[runs] = row, row + 1
                for column in range(dim):
                    tile[runs, column] = rows[row, column]
                if kind == COSINE:
                    scales[runs], heights[runs] = factors[row], squares[row] * (factors[row] * factors[row])
                runs += 1
            row += 1
        for query in range(len(queries)):
            if carried > 0 and before[query] < distances[query, 0]:
                _keep(distances, indices, query, before[query], begin, begin + carried, exclude[query])
                square = query_squares[query] * query_factors[query] * query_factors[query]
                limits[query] = _limit(kind, distances[query, 0], square, dim)
            if runs > 0:
                before[query] = np.inf
        for one in range(0, len(queries), TOGETHER):
            for lane in range(TOGETHER):
                at_query[lane] = min(one + lane, len(queries) - 1)
                own_factors[lane], own_limits[lane] = query_factors[at_query[lane]], limits[at_query[lane]]
            for group in range(0, runs, CROSSED):
                for lane in range(CROSSED):
                    at_row[lane] = min(group + lane, runs - 1)
                if kind == EUCLIDEAN:
                    crossed_differences(queries, rows, wide, tile, at_query, at_row, sums)
                else:
                    crossed_products(queries, rows, wide, tile, at_query, at_row, sums)
                near = 0
                for lane in range(CROSSED):  # side by side, as nearly always all are farther
                    for asked in range(TOGETHER):
                        total = sums[lane, asked]
                        if kind == EUCLIDEAN:
                            far = total > own_limits[asked]
                        elif kind == INNER_PRODUCT:
                            far = total < own_limits[asked]
                        else:
                            along = total * own_factors[asked] * scales[group + lane]
                            far = along * abs(along) < own_limits[asked] * heights[group + lane]
                        near += 0 if far else 1
                if near == 0:
                    continue
                for asked in range(min(TOGETHER, len(queries) - one)):
                    query, own = one + asked, own_factors[asked]
                    for lane in range(min(CROSSED, runs - group)):
                        total, run = sums[lane, asked], group + lane
                        if kind == EUCLIDEAN:
                            if total > limits[query]:
                                continue
                            distance = np.sqrt(total)
                        elif kind == INNER_PRODUCT:
                            if total < limits[query]:
                                continue
                            distance = 0.0 - total
                        else:
                            known, factor = starts[run], scales[run]
                            along = total * own * factor
                            if along * abs(along) < limits[query] * heights[run]:
                                continue
                            distance = cosine_distance(
                                queries[query], query_squares[query], own, rows, known, squares[known], factor, total,
                                coefficients,
                            )  # fmt: skip
                        if run == runs - 1:
                            before[query] = distance
                        if distance < distances[query, 0]:
                            _keep(distances, indices, query, distance, starts[run], ends[run], exclude[query])
                            limits[query] = _limit(kind, distances[query, 0], query_squares[query] * own * own, dim)
                            own_limits[asked] = limits[query]
    spare_near, spare_who = np.empty(k), np.empty(k, np.int64)
    for query in range(len(queries)):
        sort_by_distance(distances[query], indices[query], k, spare_near, spare_who)


@_inner
def _equal(rows, one, other):  # type: ignore[no-untyped-def]
    column = 0
    while column + _SIDE_BY_SIDE <= rows.shape[1]:
        different = 0
        for place in range(column, column + _SIDE_BY_SIDE):
            different += rows[one, place] != rows[other, place]
        if different > 0:
            return False
        column += _SIDE_BY_SIDE
    while column < rows.shape[1] and rows[one, column] == rows[other, column]:
        column += 1
    return column == rows.shape[1]


@_inner
def _keep(distances, indices, query, distance, begin, end, exclude):  # type: ignore[no-untyped-def]
    """Note the rows from `begin` up to `end`, all at this distance, as far as they are among the nearest.

    Rows come in ascending order: at the same distance as the farthest, a newcomer loses the tie.
    """
    for row in range(begin, end):
        if not distance < distances[query, 0]:
            break
        if not contains(exclude, row):
            put_in_place_of_farthest(distances, indices, query, distance, row)


@_inner
def _limit(kind, farthest, square, dim):  # type: ignore[no-untyped-def]
    """What tells that a row is farther than `farthest`, by far enough for the roundings of both float64 numbers.

    euclidean: a greater sum of squares. inner_product: a smaller sum of products. cosine: where a is that sum and s the
    row's own sum of squares, both scaled, a |a| < limit s. By step 5 of `bounds.py`, a row of D <= T has
    1 - cos <= T (1 + (d + 64) 2^-46) + 2^-47 sqrt(T) + ((d + 64) 2^-52)^2; and a / sqrt(s |q|^2) is off from the cosine
    by (d / 4 + 8) 2^-53 at most, since the sums err by (d / 8 + 3) 2^-53 of |q||x|, |q|^2 and |x|^2.
    square: |q|^2, scaled.
    """
    if kind == EUCLIDEAN:
        return farthest * farthest * (1.0 + 2.0**-50) + 2.0**-1000
    if kind == INNER_PRODUCT:
        return -farthest
    if not farthest < 1.0:
        return -np.inf
    rounding = (dim + 64) * 2.0**-52
    height = farthest * (1.0 + (dim + 64) * 2.0**-46) + np.sqrt(farthest) * 2.0**-47 + rounding * rounding
    height = height * (1.0 + 2.0**-50) + rounding
    return (1.0 - height) * (1.0 - height) * square * (1.0 - 2.0**-50) if height < 1.0 else -np.inf


@functools.cache
def compiled(asked: str, dtype: str) -> Any:
    """`_nearest_of_all`, compiled for queries and a gallery of float32 or float64."""
    f64, i64 = types.float64, types.int64
    queries, rows = (types.Array(numba.from_dtype(np.dtype(kind)), 2, "C", readonly=True) for kind in (asked, dtype))
    real, matrix = array(f64, 1), array(f64, 2)
    return jit.compiled(
        _nearest_of_all,
        types.none(
            *(i64, queries, real, real, rows, real, real, i64, i64, matrix, matrix, array(i64, 2), array(i64, 2)),
            matrix,
        ),
        f"{asked}-{dtype}",
    )
