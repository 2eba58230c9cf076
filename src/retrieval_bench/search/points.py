"""Points: the rows of gallery and queries as float32 vectors that a scan compares (the proof is in `bounds.py`).

For cosine, rows are divided by their length. Then the centre is taken off, where that brings them closer to the origin:
what a float32 sum can err by grows with the length of the vectors, and rows that all point the same way, or lie close
together far from the origin, could not be told apart. The centre is the median of some gallery rows, coordinate by
coordinate, so that single odd rows do not move it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba import types

from retrieval_bench.core import Distance
from retrieval_bench.search import jit
from retrieval_bench.search.bounds import ALONG, FACTS, LENGTH, SQUARE, start
from retrieval_bench.search.checks import check_finite
from retrieval_bench.search.kernels import COSINE, INNER_PRODUCT, KINDS, array
from retrieval_bench.search.lane_sums import four_squares

SAMPLE = 32  # gallery rows whose median is the centre
GAIN = 0.75  # the sample's squared distances from the centre, over those from the origin, at most: else no centre

# Where only a bound on rounding matters, not its bits: sums may be added in any order, so in vectors.
_any_order = numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
_SINGLE = np.dtype(np.float32)  # there is one object of each native dtype


def value_type(dtype: np.dtype) -> np.dtype:
    """The smaller of float32 and float64 that holds all values of a dtype; float64 for what neither does."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, "safe") else np.float64)


def values_of(name: str, block: np.ndarray, distance: Distance, first: int = 0) -> np.ndarray:
    """(n, d) rows as they were given -> the same values in C order, float32 or float64; cosine, whose distances do not
    change with the length of a row, gets float64 rows of a length that can be squared.

    name, first: for the error where a value is not finite: whose rows they are, and which is the first.
    """
    if block.dtype is _SINGLE and block.flags.c_contiguous and block.flags.aligned:
        return block
    kind = value_type(block.dtype)
    with np.errstate(over="ignore"):
        values = np.require(block, kind, ["C", "A"])
    if kind == np.float64:
        largest = np.abs(values).max(axis=1, initial=0.0)
        check_finite(name, largest <= np.finfo(np.float32).max, first)
        if distance == "cosine":
            _, exponents = np.frexp(largest)
            values = np.ldexp(values, -exponents[:, None])
    return values  # type: ignore[no-any-return]


@functools.cache
def compiled_points(dtype: str) -> Any:
    """`_points`, compiled for rows of one dtype."""
    f32, f64 = types.float32, types.float64
    rows = types.Array(f32 if dtype == "float32" else f64, 2, "C", readonly=True)
    vector = array(f64, 1)
    signature = types.none(types.int64, rows, vector, types.boolean, array(f32, 2), vector, vector, array(f64, 2))
    return jit.compiled(_points, signature, dtype)


def warm_up(dtype: str = "float32") -> None:
    """Compile, or load from the cache on disk, what makes points of rows of a dtype, and of float32 queries."""
    with jit.announced():
        for each in dict.fromkeys(("float32", dtype)):
            compiled_points(each)
        compiled_starts()


def points(
    distance: Distance, values: np.ndarray, centre: np.ndarray, *, queries: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(n, d) float32 or float64 rows -> their points.

    Returns:
        (n, d) float32 points.
        (n,) float64 sums of squares, in the order of `lane_sums`; NaN or inf exactly where a row holds one.
        (n,) float64 powers of two that bring the largest value of each row to [1, 2), for cosine; else 1.
        (n, FACTS) float64, the facts of `bounds.py`.
    """
    n = len(values)
    out, facts = np.empty(values.shape, np.float32), np.empty((n, FACTS))
    squares, factors = np.empty(n), np.empty(n)
    compiled_points(values.dtype.name)(KINDS[distance], values, centre, queries, out, squares, factors, facts)
    return out, squares, factors, facts


def _points(
    kind: int, rows: np.ndarray, centre: np.ndarray, queries: bool, out: np.ndarray, squares: np.ndarray,
    factors: np.ndarray, facts: np.ndarray,
) -> None:  # fmt: skip
    n, d = rows.shape
    moved = False
    for i in range(d):
        moved |= centre[i] != 0.0
    unit = kind == COSINE or (kind == INNER_PRODUCT and queries)
    along = kind == INNER_PRODUCT and queries and moved
    moved = moved and not along
    at, some = np.empty(4, np.int64), np.empty(4, np.float64)
    for first in range(0, n, 4):
        for lane in range(4):
            at[lane] = min(first + lane, n - 1)
        four_squares(some, rows, at, some)
        for lane in range(min(4, n - first)):
            row = first + lane
            squares[row] = some[lane]
            length = np.sqrt(some[lane])
            values, point = rows[row], out[row]
            inverse = 1.0 / length if unit and length > 0.0 else 1.0
            factors[row] = _factor(values) if kind == COSINE else 1.0
            if moved and not (unit and length == 0.0):
                for i in range(d):
                    point[i] = np.float32(np.float64(values[i]) * inverse - centre[i])
            elif unit:
                for i in range(d):
                    point[i] = np.float32(np.float64(values[i]) * inverse)
            else:
                for i in range(d):
                    point[i] = np.float32(values[i])
            facts[row, LENGTH] = length
            facts[row, ALONG] = _product(values, centre) * inverse if along else 0.0
        four_squares(some, out, at, some)
        for lane in range(min(4, n - first)):
            facts[first + lane, SQUARE] = some[lane]


@numba.njit(nogil=True, error_model="numpy")
def _factor(values: np.ndarray) -> float:
    largest = np.float64(0.0)
    for value in values:
        largest = max(largest, abs(np.float64(value)))
    if not (0.0 < largest < np.inf):
        return 1.0
    exponent = np.int64(1023) - ((np.float64(largest).view(np.int64) >> np.int64(52)) & np.int64(2047))
    return math.ldexp(1.0, int(exponent))


@_any_order
def _product(values: np.ndarray, centre: np.ndarray) -> float:
    total = 0.0
    for i in range(len(values)):
        total += np.float64(values[i]) * centre[i]
    return total


def find_centre(distance: Distance, gallery: np.ndarray) -> np.ndarray:
    """(d,) float64, all zeros where none is worth while."""
    n, d = gallery.shape
    if distance == "hamming" or n < 4:
        return np.zeros(d)
    rows = np.asarray(gallery[np.unique(np.linspace(0, n - 1, SAMPLE).astype(np.int64))], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # rows that are not finite are refused when all are looked at
        if distance == "cosine":
            lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
            rows = rows[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
        if len(rows) < 4 or not np.isfinite(rows).all():
            return np.zeros(d)
        centre = np.median(rows, axis=0).astype(np.float32).astype(np.float64)
        near, far = ((rows - centre) ** 2).sum(), (rows**2).sum()
    return centre if np.isfinite(centre).all() and near < GAIN * far else np.zeros(d)


@functools.cache
def compiled_starts() -> Any:
    """`_starts`, compiled."""
    f64, i64 = types.float64, types.int64
    return jit.compiled(_starts, types.none(i64, array(f64, 2), array(f64, 1), i64, f64, array(types.float32, 2)))


def _starts(kind: int, facts: np.ndarray, squares: np.ndarray, dim: int, centre_length: float, out: np.ndarray) -> None:
    """Fill out (panels, lanes) with what the sum of each row starts from.

    A row of zeros has no direction: the scan for cosine never finds it, since all of them are at a distance of 1.
    """
    lanes = out.shape[1]
    for row in range(len(facts)):
        value = start(kind, facts[row, SQUARE], dim, centre_length)
        if kind == COSINE and squares[row] == 0.0:
            value = np.float32(-np.inf)
        out[row // lanes, row % lanes] = value
