"""The float64 distances that decide every rank, and the order by them: which candidates of a scan are nearest.

The distance of a query q and a row x, of the values as they were given, all sums in the order of `lane_sums.py`:

- euclidean: the root of the sum of (q - x)^2.
- inner_product: 0 - the sum of q x.
- cosine: with C = <q,x>^2 / (|q|^2 |x|^2), 1 - sqrt(C), or 1 + sqrt(C) where <q,x> is negative. Where the angle is
  small (C > 1 - 2^-6), that would be rounding noise; its sine has none: with w = |q|^2 x - <q,x> q, S = |w|^2 /
  (|q|^4 |x|^2) and the distance is S / (1 + sqrt(1 - S)). A copy of the query is at 0 exactly, and so is any multiple
  as long as all products are whole numbers that float64 holds. 1 where either is all zeros.

Squared quotients are used, not quotients of roots, so that rows that are multiples of each other in small whole
numbers are at the same distance. Equal distances rank by row.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba import types

from retrieval_bench.core import Distance
from retrieval_bench.search import jit
from retrieval_bench.search.bounds import score_limit
from retrieval_bench.search.emit import borrowed
from retrieval_bench.search.kernels import COSINE, EUCLIDEAN, array
from retrieval_bench.search.keys import EMPTY, contains, key_distance
from retrieval_bench.search.lane_sums import four_differences, four_products, prefetch_row, residual, summed

SMALL_ANGLE = 1.0 - 2.0**-6
AHEAD = 8  # candidates between the one whose distance is computed and the one that is fetched from memory
RUN = 16  # places that are put in order by insertion before runs are merged
KEPT_SORTED = 64  # of more neighbours, the order is made once, at the end

_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it


def distances_to_all(query: np.ndarray, gallery: np.ndarray, distance: Distance) -> np.ndarray:
    """(d,) and (n, d) float64 -> (n,) float64: the definitions above in NumPy, the twin of the compiled ones."""
    if distance == "euclidean":
        return np.sqrt(summed((query - gallery) ** 2))  # type: ignore[no-any-return]
    products = summed(query * gallery)
    if distance == "inner_product":
        return 0.0 - products
    factors = 2.0 ** (1.0 - np.frexp(np.abs(gallery).max(axis=1, initial=0.0))[1])
    own = 2.0 ** (1.0 - np.frexp(np.abs(query).max(initial=0.0))[1])
    along = products * own * factors
    square = summed(query[None] * query[None])[0] * own * own
    squares = summed(gallery * gallery) * factors * factors
    away = (square > 0.0) & (squares > 0.0)
    cosine_square = np.divide(along * along, square * squares, out=np.zeros(len(gallery)), where=away)
    distances = 1.0 - np.copysign(np.sqrt(np.minimum(cosine_square, 1.0)), along)
    small = np.flatnonzero((along > 0.0) & (cosine_square > SMALL_ANGLE))
    if len(small):
        a, c = _parts(square * factors[small], factors[small])
        b, e = _parts(along[small] * own, own)
        x = gallery[small]
        w = summed(((a[:, None] * x - b[:, None] * query) + (c[:, None] * x - e[:, None] * query)) ** 2)
        sine_square = w / (square * square * squares[small])
        distances[small] = sine_square / (1.0 + np.sqrt(np.maximum(1.0 - sine_square, 0.0)))
    return distances  # type: ignore[no-any-return]


def _parts(values: np.ndarray, factor: Any) -> tuple[np.ndarray, np.ndarray]:
    """A float64 in two parts, the first with the bits of a float32: products with float32 values are then exact."""
    coarse = (values / factor).astype(np.float32).astype(np.float64) * factor
    return coarse, values - coarse


@_inner
def _coarse(value):  # type: ignore[no-untyped-def]
    return np.float64(np.float32(value))


@_inner
def cosine_distance(query, square, own, rows, row, row_square, factor, product, coefficients):  # type: ignore[no-untyped-def]
    """The cosine distance from the sum of products and both sums of squares."""
    along = product * own * factor
    mine, theirs = square * own * own, row_square * factor * factor
    if not (mine > 0.0 and theirs > 0.0):
        return 1.0
    cosine_square = along * along / (mine * theirs)
    if not (along > 0.0 and cosine_square > SMALL_ANGLE):
        root = np.sqrt(min(cosine_square, 1.0))
        return 1.0 + root if along < 0.0 else 1.0 - root
    a, b = _coarse(mine), _coarse(along)
    coefficients[0], coefficients[1] = a * factor, b * own
    coefficients[2], coefficients[3] = (mine - a) * factor, (along - b) * own
    sine_square = residual(query, rows, row, coefficients) / (mine * mine * theirs)
    return sine_square / (1.0 + np.sqrt(max(1.0 - sine_square, 0.0)))


@_inner
def distances_of_four(kind, query, square, own, rows, squares, factors, at, out, coefficients):  # type: ignore[no-untyped-def]
    """out[i] = the distance of a query (d,) to the row at[i], for four rows. coefficients: (4,), scratch."""
    if kind == EUCLIDEAN:
        four_differences(query, rows, at, out)
        for lane in range(4):
            out[lane] = np.sqrt(out[lane])
        return
    four_products(query, rows, at, out)
    for lane in range(4):
        if kind == COSINE:
            row = at[lane]
            out[lane] = cosine_distance(
                query, square, own, rows, row, squares[row], factors[row], out[lane], coefficients
            )
        else:
            out[lane] = 0.0 - out[lane]


@_inner
def sort_by_distance(distances, rows, count, spare_distances, spare_rows):  # type: ignore[no-untyped-def]
    """Put the first `count` of both in ascending order of (distance, row); quick where they nearly are.

    Merging from short runs upwards; two runs that are in order already are left alone. Written out, since Numba takes
    seconds to compile NumPy's sorts. spare: scratch of as many places.
    """
    for first in range(0, count, RUN):
        for place in range(first + 1, min(first + RUN, count)):
            distance, row, at = distances[place], rows[place], place
            while at > first and _behind(distances[at - 1], rows[at - 1], distance, row):
                distances[at], rows[at] = distances[at - 1], rows[at - 1]
                at -= 1
            distances[at], rows[at] = distance, row
    size = RUN
    while size < count:
        for first in range(0, count - size, 2 * size):
            middle, end = first + size, min(first + 2 * size, count)
            if not _behind(distances[middle - 1], rows[middle - 1], distances[middle], rows[middle]):
                continue
            for place in range(first, middle):
                spare_distances[place], spare_rows[place] = distances[place], rows[place]
            left, right = first, middle
            for place in range(first, end):
                if left == middle:
                    break
                if right == end or not _behind(spare_distances[left], spare_rows[left], distances[right], rows[right]):
                    distances[place], rows[place] = spare_distances[left], spare_rows[left]
                    left += 1
                else:
                    distances[place], rows[place] = distances[right], rows[right]
                    right += 1
        size *= 2


@_inner
def _behind(distance, row, other_distance, other_row):  # type: ignore[no-untyped-def]
    return distance > other_distance or (distance == other_distance and row > other_row)


def settle(
    kind: int, queries: np.ndarray, query_squares: np.ndarray, query_factors: np.ndarray, facts: np.ndarray,
    rows: np.ndarray, squares: np.ndarray, factors: np.ndarray, zeros: np.ndarray, exclude: np.ndarray,
    keys: np.ndarray, slack: np.ndarray, g: float, centre_length: float, k: int, indices: np.ndarray,
    distances: np.ndarray, rescored: np.ndarray,
) -> None:  # fmt: skip
    """The k nearest of the candidates of each query, and whether others could be among them.

    queries: (q, d), with squares, factors and facts of `points`. rows, squares, factors, zeros: of the gallery,
        as `settling.Kept` has them. Queries that are all zeros find nothing here, except for the euclidean distance.
    exclude: (q, m) rows that query i must not find, each line ascending; no key is of any.
    keys: (q, c) uint64 of (-score, row), ascending, EMPTY behind the last: the c rows of the best scores.
    slack: (q,) what the scores of a query may fall short of `bounds.py` by. g, centre_length: as for `score_limit`.
    indices: (q, k) int64, distances: (q, k) float64: filled with the nearest, in order; -1 and inf where there are
    fewer.
    rescored: (q,) int64, filled with the number of float64 distances computed; negative, less one, where some row
        that is no candidate could be nearer than the last.
    """
    queries, rows, squares, factors = borrowed(queries), borrowed(rows), borrowed(squares), borrowed(factors)
    keys, indices, distances, facts = borrowed(keys), borrowed(indices), borrowed(distances), borrowed(facts)
    dim, most = rows.shape[1], keys.shape[1]
    near, who = np.empty(most + k + 4), np.empty(most + k + 4, np.int64)
    spare_near, spare_who = np.empty(most + k + 4), np.empty(most + k + 4, np.int64)
    at, four, coefficients = np.empty(4, np.int64), np.empty(4), np.empty(4)
    for query in range(len(queries)):
        for place in range(k):
            indices[query, place], distances[query, place] = -1, np.inf
        if query_squares[query] == 0.0 and kind != EUCLIDEAN:  # all rows are at the same distance
            rescored[query] = 0
            continue
        count = place = 0
        limit, farthest = np.float32(-np.inf), np.inf
        while place < most and keys[query, place] != EMPTY and -key_distance(keys[query, place]) >= limit:
            _fetch_ahead(rows, keys, query, place, k)
            taken = 0
            while taken < 4 and place < most and keys[query, place] != EMPTY:
                at[taken] = np.int64(keys[query, place] & np.uint64(0xFFFFFFFF))
                taken += 1
                place += 1
            for lane in range(taken, 4):
                at[lane] = at[0]
            distances_of_four(
                kind, queries[query], query_squares[query], query_factors[query], rows, squares, factors, at, four,
                coefficients,
            )  # fmt: skip
            for lane in range(taken):
                near[count], who[count] = four[lane], at[lane]
                count += 1
            if count >= k and (k <= KEPT_SORTED or limit == np.float32(-np.inf)):
                sort_by_distance(near, who, count, spare_near, spare_who)
                count = k
                limit = score_limit(kind, near[k - 1], facts[query], dim, centre_length, g) - slack[query]
        sort_by_distance(near, who, count, spare_near, spare_who)
        if count >= k:
            count, farthest = k, near[k - 1]
            limit = score_limit(kind, farthest, facts[query], dim, centre_length, g) - slack[query]
        if kind == COSINE and len(zeros) > 0 and (count < k or farthest >= 1.0):
            count = _with_zeros(zeros, exclude[query], near, who, count, k, spare_near, spare_who)
            farthest = near[k - 1] if count == k else np.inf
            limit = score_limit(kind, farthest, facts[query], dim, centre_length, g) - slack[query]
        count = min(count, k)
        for rank in range(count):
            indices[query, rank], distances[query, rank] = who[rank], near[rank]
        last = keys[query, most - 1]
        is_open = last != EMPTY and -key_distance(last) >= limit
        rescored[query] = -place - 1 if is_open else place


@_inner
def _fetch_ahead(rows, keys, query, place, k):  # type: ignore[no-untyped-def]
    """Ask for four rows that will be needed a little later: candidates of this query, behind them those of the next."""
    for ahead in range(place + AHEAD, place + AHEAD + 4):
        line, at = query, ahead
        if at >= min(k, keys.shape[1]):
            line, at = query + 1, ahead - min(k, keys.shape[1])
        if line < len(keys) and at < keys.shape[1] and keys[line, at] != EMPTY:
            prefetch_row(rows, np.int64(keys[line, at] & np.uint64(0xFFFFFFFF)))


@_inner
def _with_zeros(zeros, exclude, near, who, count, k, spare_near, spare_who):  # type: ignore[no-untyped-def]
    """Add rows of zeros, at a distance of 1, as far as they are among the k nearest -> the number of rows now."""
    added = 0
    for row in zeros:
        if added == k:
            break
        if not contains(exclude, row):
            near[count + added], who[count + added] = 1.0, row
            added += 1
    sort_by_distance(near, who, count + added, spare_near, spare_who)
    return min(count + added, k)


def distances_of_pairs(
    kind: int, queries: np.ndarray, query_squares: np.ndarray, query_factors: np.ndarray, rows: np.ndarray,
    squares: np.ndarray, factors: np.ndarray, owners: np.ndarray, who: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """out[i] = the float64 distance of query owners[i] to row who[i]; owners in runs, as long as they may be."""
    queries, rows, squares, factors = borrowed(queries), borrowed(rows), borrowed(squares), borrowed(factors)
    at, four, coefficients = np.empty(4, np.int64), np.empty(4), np.empty(4)
    place, total = 0, len(who)
    while place < total:
        query, taken = owners[place], 0
        while taken < 4 and place + taken < total and owners[place + taken] == query:
            at[taken] = who[place + taken]
            taken += 1
        for lane in range(taken, 4):
            at[lane] = at[0]
        distances_of_four(
            kind, queries[query], query_squares[query], query_factors[query], rows, squares, factors, at, four,
            coefficients,
        )  # fmt: skip
        for lane in range(taken):
            out[place + lane] = four[lane]
        place += taken


@_inner
def put_in_place_of_farthest(near: np.ndarray, who: np.ndarray, line: int, distance: float, row: int) -> None:
    """Put (distance, row) in the place of the farthest of a line, which is at 0, and restore the order of the heap."""
    place, size = 0, near.shape[1]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and (
            near[line, child + 1] > near[line, child]
            or (near[line, child + 1] == near[line, child] and who[line, child + 1] > who[line, child])
        ):
            child += 1
        if near[line, child] < distance or (near[line, child] == distance and who[line, child] < row):
            break
        near[line, place], who[line, place] = near[line, child], who[line, child]
        place = child
    near[line, place], who[line, place] = distance, row


@functools.cache
def compiled(asked: str, dtype: str) -> tuple[Any, Any]:
    """`settle` and `distances_of_pairs`, compiled for queries and a gallery of float32 or float64."""
    f64, i64 = types.float64, types.int64
    queries, rows = (types.Array(numba.from_dtype(np.dtype(kind)), 2, "C", readonly=True) for kind in (asked, dtype))
    real, matrix, whole = array(f64, 1), array(f64, 2), array(i64, 1)
    asking, known = (queries, real, real), (rows, real, real)
    with jit.announced():
        return (
            jit.compiled(
                settle,
                types.none(
                    *(i64, *asking, matrix, *known, whole, array(i64, 2), array(types.uint64, 2), real),
                    *(f64, f64, i64, array(i64, 2), matrix, whole),
                ),
                f"{asked}-{dtype}",
            ),
            jit.compiled(distances_of_pairs, types.none(i64, *asking, *known, whole, whole, real), f"{asked}-{dtype}"),
        )
