"""What a scan in float32 may pass over: the proof that no rounding can hide one of the nearest rows.

A scan compares *points*: the rows as float32, moved so that `centre` m is the origin (`points.py`). With t(x) = x, or
x / |x| for cosine, the point of a row x is y = t(x) - m, rounded to float32; the point of a query q is p = t(q) - m,
or q / |q| for inner products. It finds the rows of the largest *score*, a float32 number with this property:

- cosine, euclidean: score >= <p, y> - |y|^2 / 2 - g |p|^2 / 2, what is left of -|p - y|^2 / 2 without |p|^2 / 2.
- inner_product: score >= <q, x - m> / |q|.

Every rank is decided by float64 distances of the given values (`rescore.py`). If T is the float64 distance of the k-th
best row so far, a row whose score is below `score_limit(T)` has a greater one, and need not be looked at.

**Notation.** u = 2^-24, w = 2^-53, d dimensions, M = |m|, |.| the Euclidean length, g = d u / (1 - d u).

1. *Points.* In float64, t(x) - m is off by at most (d + 18) w (|t(x)| + M): the length by (d / 8 + 3) w, its inverse,
   the product and the difference by w each. Rounding to float32 adds u |y|. Since |t(x)| <= |y'| + M for the exact
   y' = t(x) - m, and for d <= 2^20: |y - y'| <= a |y| + c with a = u (1 + 2^-8) and c = 2 (d + 20) w M + d 2^-149.
   The same holds for p.
2. *Distances, cosine and euclidean.* Let r = |p' - y'| be exact: the euclidean distance, or the root of twice the
   cosine distance, 1 - <t(q), t(x)> = |t(q) - t(x)|^2 / 2. Then | r - |p - y| | <= a (|p| + |y|) + 2c, and |y| <= |p|
   + |p - y|. A row with r <= R therefore has |p - y| <= R' = (R + 2a |p| + 2c) (1 + 2u).
3. *The sum.* d fused multiply-adds from a start b err by at most g (|b| + |p||y|) + d 2^-125, in whatever mode the
   processor treats tiny numbers (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, section 3.1),
   and |p||y| <= (|p|^2 + |y|^2) / 2. Starting from b = -|y|^2 / 2 + g |y|^2, rounded up (`starts`), the score is at
   least <p, y> - |y|^2 / 2 - g |p|^2 / 2 - d 2^-125. With |p - y|^2 = |p|^2 - 2 (<p, y> - |y|^2 / 2), R' is out of
   reach where score < (|p|^2 (1 - g) - R'^2) / 2 - d 2^-125.
4. *Inner products.* For a unit vector v = q / |q|: |<v, y'> - <p, y>| <= 2 (a |y| + c) (1 + 4a), the sum errs by
   g (|b| + |y| (1 + 2a)) + d 2^-125, and the float64 product of step 5 by (d + 16) w |x| where |x| <= |y| (1 + 2a) +
   M + c. The start b holds all of them: the score is at least <v, y'> plus what float64 may err by.
5. *Float64.* The distance D that decides (`lane_sums.py` adds it up) is not exact either. Of a row with D <= T:
   - euclidean: r <= T (1 + (d + 64) 2^-51) + 2^-500.
   - inner_product: as in 4.
   - cosine, of a small angle, where D comes from the sine: the roundings of the w in `rescore.py` change the sine by
     2^-50 at most; the errors of |q|^2 and <q,x> add a part along q, across w, so that the square of (d + 64) 2^-52 is
     added to that of the sine. Elsewhere D > 2^-7, and it is off by (d + 64) 2^-53. Together: r^2 / 2 <=
     T (1 + (d + 64) 2^-46) + 2^-47 sqrt(T) + ((d + 64) 2^-52)^2.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba import types

from retrieval_bench.search import jit
from retrieval_bench.search.kernels import COSINE, EUCLIDEAN, INNER_PRODUCT, array

MOST_DIM = 1 << 20  # beyond it, every row is looked at

_U = 2.0**-24
_A = _U * (1.0 + 2.0**-8)

LENGTH, SQUARE, ALONG = 0, 1, 2
"""Columns of the facts of a row, in the words of a query: |q|; |p|^2; <q, m> / |q|, of queries for inner products."""
FACTS = 3

_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it


@_inner
def summing_error(dim: int) -> float:
    """g: what `dim` multiply-adds, one after the other, err by, relative to the sum of the sizes of all terms."""
    return dim * _U / (1.0 - dim * _U) if dim <= MOST_DIM else np.inf


@_inner
def _moved(dim: int, centre_length: float) -> float:
    """c of step 1."""
    return 2.0 * (dim + 20) * 2.0**-53 * centre_length + dim * 2.0**-149


@_inner
def start(kind: int, square: float, dim: int, centre_length: float) -> np.float32:
    """What the sum of a row starts from; square: |y|^2 in float64."""
    g = summing_error(dim)
    if g == np.inf:
        return np.float32(np.inf)
    if kind == INNER_PRODUCT:
        length = np.sqrt(square)
        c, w = _moved(dim, centre_length), (dim + 16) * 2.0**-53
        exact = (g + 3.0 * _A + 2.0 * w) * length + 3.0 * c + 2.0 * w * centre_length + dim * 2.0**-124
        exact *= 1.0 + 2.0 * g + 2.0**-20
    else:
        exact = (g * (1.0 + 2.0**-20) - 0.5) * square
        exact += square * 2.0**-40
    return np.nextafter(np.float32(exact), np.float32(np.inf))


@_inner
def score_limit(kind: int, distance: float, facts: np.ndarray, dim: int, centre_length: float, g: float) -> np.float32:
    """A row of a lower score has a float64 distance above `distance`; -inf where that cannot be said.

    facts: of the query. g: `summing_error` for the scores of a sum in float32 as in step 3; 0 for scores without it.
    """
    if not distance < np.inf or summing_error(dim) == np.inf or (kind != EUCLIDEAN and facts[LENGTH] == 0.0):
        return np.float32(-np.inf)
    if kind != INNER_PRODUCT:
        distance = max(distance, 0.0)
    if kind == INNER_PRODUCT:
        reached = -distance / facts[LENGTH]
        slack = (abs(reached) + 2.0 * centre_length) * (dim + 64) * 2.0**-51
        limit = reached - facts[ALONG] - slack
    else:
        if kind == COSINE:
            most = distance * (1.0 + (dim + 64) * 2.0**-46) + np.sqrt(distance) * 2.0**-47
            most += (dim + 64) * 2.0**-52 * ((dim + 64) * 2.0**-52)
            reach = np.sqrt(2.0 * most) * (1.0 + 2.0**-50)
        else:
            reach = distance * (1.0 + (dim + 64) * 2.0**-51) + 2.0**-500
        square = facts[SQUARE]
        reach = (reach + 2.0 * _A * np.sqrt(square) + 2.0 * _moved(dim, centre_length)) * (1.0 + 3.0 * _U)
        limit = (square * (1.0 - g) - reach * reach) / 2.0 - (square + reach * reach) * 2.0**-40
    limit -= dim * 2.0**-124
    return np.nextafter(np.float32(limit), np.float32(-np.inf))


@functools.cache
def compiled_shifts() -> Any:
    """`_shifts`, compiled."""
    f64, i64 = types.float64, types.int64
    return jit.compiled(_shifts, types.none(i64, array(f64, 2), array(f64, 1), i64, f64, array(types.float32, 1)))


def _shifts(kind: int, facts: np.ndarray, squares: np.ndarray, dim: int, centre_length: float, out: np.ndarray) -> None:
    """What is added to <p, y> of each row for a score without rounding errors: step 4 for inner products, else
    -|y|^2 / 2; rounded up, and 8 u of it more, as `quantise.py` wants it; -inf for zeros under cosine."""
    for row in range(len(facts)):
        square = facts[row, SQUARE]
        if kind == INNER_PRODUCT:
            c, w = _moved(dim, centre_length), (dim + 16) * 2.0**-53
            exact = (3.0 * _A + 2.0 * w) * np.sqrt(square) + 3.0 * c + 2.0 * w * centre_length + dim * 2.0**-149
            exact *= 1.0 + 16.0 * _U
        else:
            exact = -0.5 * square * (1.0 - 10.0 * _U)
        out[row] = np.nextafter(np.float32(exact), np.float32(np.inf))
        if kind == COSINE and squares[row] == 0.0:
            out[row] = np.float32(-np.inf)


@functools.cache
def compiled_limits() -> Any:
    """`_score_limits`, compiled."""
    f64, i64 = types.float64, types.int64
    return jit.compiled(
        _score_limits, types.none(i64, array(f64, 1), array(f64, 2), i64, f64, f64, array(types.float32, 1))
    )


def _score_limits(
    kind: int, distances: np.ndarray, facts: np.ndarray, dim: int, centre_length: float, g: float, out: np.ndarray
) -> None:
    """`score_limit` of each query."""
    for query in range(len(distances)):
        out[query] = score_limit(kind, distances[query], facts[query], dim, centre_length, g)


@_inner
def distance_limit(kind: int, low: float, facts: np.ndarray, dim: int, centre_length: float) -> float:
    """No float64 distance of a row exceeds this if <p, y> - |y|^2 / 2, or <p, y> for inner products, is at least `low`.

    For inner products, `low` must already allow for step 4.
    """
    if low == -np.inf or summing_error(dim) == np.inf:
        return np.inf
    if kind == INNER_PRODUCT:
        reached = low + facts[ALONG]
        slack = (abs(reached) + abs(low) + 2.0 * centre_length) * (dim + 64) * 2.0**-51
        return facts[LENGTH] * (slack - reached)
    square = facts[SQUARE]
    apart = np.sqrt(max(square - 2.0 * low, 0.0) + (square + abs(low)) * 2.0**-40)
    reach = (apart + _A * (2.0 * np.sqrt(square) + apart) + 2.0 * _moved(dim, centre_length)) * (1.0 + 3.0 * _U)
    if kind == COSINE:
        half = reach * reach / 2.0
        return half * (1.0 + (dim + 64) * 2.0**-45) + reach * 2.0**-46 + (dim + 64) * 2.0**-51 * ((dim + 64) * 2.0**-51)
    return reach * (1.0 + (dim + 64) * 2.0**-50) + 2.0**-400
