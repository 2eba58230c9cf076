"""Vectors as signed bytes with a proven error: what the certified scan knows of a row without reading its floats.

A vector x is kept as x^ = s c: one float32 scale s and codes c, whole numbers from -127 to 127. What is lost is
measured and not estimated: e = |x - x^|, computed in float64 and rounded up. A query can have a second layer of codes
for what the first leaves over, q^ = s c + t r with t = s / 254, which makes its own error 254 times smaller; or one
layer of codes of 16 bits.

**The bound.** Wanted: a score U without rounding errors in the sense of `bounds.py`: U >= <q, x> + h_x for points q
and x, with the shift h_x of each row (`bounds.py` says which). Write |.| for the Euclidean length, u = 2^-24 for the
unit roundoff of float32.

1. <q,x> = <q^,x^> + <q - q^, x> + <q^, x - x^>. By Cauchy-Schwarz the last two are at most e_q |x| and |q^| e_x.
2. <q^,x^> = s_x (s_q <c_q,c_x> + t_q <r_q,c_x>). Both products of codes are integers below 2^31 for d <= MOST_DIM, so
   they are exact. (Codes of 16 bits are chosen so that |c_q| 127 sqrt(d) < 2^31, which bounds the product; what its
   partial sums do is of no account, as they are taken modulo 2^32.) The rest of the expression is evaluated in float32
   as p = (s_q float(i) + t_q float(j)) s_x, at most five roundings on any path, the sum with the margin below included:
   it is wrong by at most 8 u A |x^|, where A = |s_q c_q| + |t_q r_q| bounds both parts (Higham, Accuracy and Stability
   of Numerical Algorithms, 2nd ed. 2002, lemma 3.1), and |x^| <= |x| + e_x.
3. So <q,x> <= p + b |x| + c e_x with b = e_q + 8 u A and c = |q^| + 8 u A. The margin b |x| + c e_x + h_x is again
   evaluated in float32, with at most four roundings and all terms but h of one sign: b and c are made 16 u larger and
   rounded up, h is made 8 u |h| larger.
4. Underflow: scales are 0 or from 2^-90 to 2^45, so nothing overflows and float(i) s_q does not underflow; each other
   product and sum loses at most 2^-150. The limit that U is compared with (`bounds.score_limit`) is lowered by more.

A row whose scale is outside that range gets e = inf: U is then inf or NaN, and both count as a candidate. Such a query
is not scanned at all. Neither can make a result wrong, only slow.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba import types

from retrieval_bench.search import jit
from retrieval_bench.search.caches import LINE
from retrieval_bench.search.kernels import array

ROWS = 32  # gallery rows side by side in a panel
FOUR = 4  # dimensions that one instruction multiplies and adds; codes are padded to a multiple
MOST_DIM = 2**17  # 127 * 127 * 2^17 < 2^31: integer sums can't overflow
LEAST_SCALE, MOST_SCALE = 2.0**-90, 2.0**45

SCALE, ERROR, LENGTH, SHIFT = 0, 1, 2, 3  # the lines of `facts`
FIRST, SECOND, PER_LENGTH, PER_ERROR, LIMIT = 0, 1, 2, 3, 4  # the lines of `terms`

_U = 2.0**-24
_TINY = 2.0**-149


_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it
# The same where only a bound on rounding matters, not its bits: sums may be added in any order, so in vectors.
_any_order = numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})


@functools.cache
def quantiser() -> tuple[Any, Any]:
    """`quantise_rows` and `quantise_queries`, compiled."""
    f32, i64 = types.float32, types.int64
    rows = types.Array(f32, 2, "C", readonly=True)
    with jit.announced():
        return (
            jit.compiled(quantise_rows, types.none(rows, array(f32, 1), array(types.uint8, 4), array(f32, 3))),
            jit.compiled(
                quantise_queries,
                types.Tuple((array(types.int8, 4), array(types.int32, 2), array(f32, 3)))(
                    array(f32, 2), i64, i64, i64, i64
                ),
            ),
        )


def quantise_rows(rows: np.ndarray, shifts: np.ndarray, codes: np.ndarray, facts: np.ndarray) -> None:
    """Fill the panels of (n, d) float32 rows; n need not fill the last panel.

    shifts: (n,) float32, SHIFT of each row.
    codes: (panels, ceil(d / 4), ROWS, 4) uint8; code + 128, so that an instruction that takes one unsigned and one
        signed factor can use them; dimensions past d, and lanes without a row, hold code 0.
    facts: (panels, 4, ROWS) float32, the lines SCALE, ERROR, LENGTH and SHIFT of each row; lanes without a row have a
        SHIFT of -inf, which makes them candidates for nobody.
    """
    n, d = rows.shape
    slack = 1.0 + (d + 8) * 2.0**-51  # the float64 sums below are wrong by less than this
    line = np.zeros(codes.shape[1] * FOUR, np.int8)
    for panel in range(len(codes)):
        codes[panel] = 128
        facts[panel] = 0.0
        for lane in range(ROWS):
            row = panel * ROWS + lane
            if row >= n:
                facts[panel, SHIFT, lane] = -np.inf
                continue
            scale = _scale(rows[row])
            lost, square = _coded(rows[row], scale, line)
            facts[panel, SCALE, lane] = scale
            facts[panel, ERROR, lane] = _up(np.sqrt(lost) * slack)
            if scale == np.float32(0.0) and square > 0.0:
                facts[panel, ERROR, lane] = np.inf
            facts[panel, LENGTH, lane] = _up(np.sqrt(square) * slack)
            facts[panel, SHIFT, lane] = shifts[row]
            for step in range(codes.shape[1]):
                for j in range(FOUR):
                    codes[panel, step, lane, j] = np.uint8(np.int32(line[step * FOUR + j]) + 128)


@_any_order
def _coded(values: np.ndarray, scale: np.float32, line: np.ndarray) -> tuple[float, float]:
    """Write the codes of (d,) values to line -> sum of (value - scale * code)^2, sum of value^2."""
    inverse = np.float32(1.0) / scale if scale > np.float32(0.0) else np.float32(0.0)
    lost, square = 0.0, 0.0
    for i in range(len(values)):
        code = min(max(np.rint(values[i] * inverse), np.float32(-127.0)), np.float32(127.0))
        line[i] = np.int8(code)
        left = np.float64(values[i]) - np.float64(scale) * np.float64(code)
        lost += left * left
        square += np.float64(values[i]) * np.float64(values[i])
    return lost, square


@_any_order
def _coded_twice(values: np.ndarray, first: np.float32, second: np.float32, line: np.ndarray, finer: np.ndarray) -> Any:
    """The same in two layers -> sums of (value - coded)^2, value^2, coded^2, (first layer)^2, (second layer)^2."""
    inverse = 1.0 / np.float64(first) if first > np.float32(0.0) else 0.0
    inverse2 = 1.0 / np.float64(second) if second > np.float32(0.0) else 0.0
    lost, square, known, part, rest = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(values)):
        value = np.float64(values[i])
        code = min(max(np.rint(value * inverse), -127.0), 127.0)
        coarse = np.float64(first) * code
        code2 = min(max(np.rint((value - coarse) * inverse2), -127.0), 127.0)
        fine = np.float64(second) * code2
        line[i], finer[i] = np.int8(code), np.int8(code2)
        left = value - (coarse + fine)
        lost += left * left
        square += value * value
        known += (coarse + fine) * (coarse + fine)
        part += coarse * coarse
        rest += fine * fine
    return lost, square, known, part, rest


def quantise_queries(
    queries: np.ndarray, together: int, layers: int, steps: int, side_by_side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of (q, d) float32 queries, `together` in a block, with one or two layers of codes each.

    steps: of four dimensions; no fewer than d / 4, those past d are 0. side_by_side: of these steps, how many of one
    query lie side by side: 1, or, for one layer, a divisor of `steps`.

    Returns
    codes: (blocks, steps / side_by_side, layers * together, 4 * side_by_side) int8; the second layer stands behind the
        first.
    starts: (blocks, layers * together) int32, -128 * (sum of codes): what a sum starts from because rows are + 128.
    terms: (blocks, 5, together) float32: FIRST = s_q, SECOND = t_q, PER_LENGTH = b, PER_ERROR = c of the module's
        derivation, and LIMIT, the threshold: -inf, or +inf for queries that can't be scanned and for padding.
    """
    q, d = queries.shape
    blocks = (q + together - 1) // together
    wide = FOUR * side_by_side
    # As `scans.aligned`, compiled: a tile takes 16 lines of 64 bytes, each from one cache line and not from two.
    memory = np.zeros(blocks * steps * layers * together * FOUR + LINE, np.int8)
    skip = -memory.ctypes.data % LINE
    codes = memory[skip : len(memory) - LINE + skip].reshape((blocks, steps // side_by_side, layers * together, wide))
    starts = np.zeros((blocks, layers * together), np.int32)
    terms = np.zeros((blocks, 5, together), np.float32)
    terms[:, LIMIT] = np.inf
    slack = 1.0 + (d + 8) * 2.0**-51
    line, finer = np.zeros(steps * FOUR, np.int8), np.zeros(steps * FOUR, np.int8)
    for query in range(q):
        block, lane = query // together, query % together
        values = queries[query]
        first = _scale(values)
        second = first / np.float32(254.0) if layers == 2 else np.float32(0.0)
        lost, square, known, part, rest = _coded_twice(values, first, second, line, finer)
        for group in range(len(codes[block])):
            for j in range(wide):
                codes[block, group, lane, j] = line[group * wide + j]
        starts[block, lane] = -128 * _total(line)
        if layers == 2:
            for step in range(steps):
                for j in range(FOUR):
                    codes[block, step, together + lane, j] = finer[step * FOUR + j]
            starts[block, together + lane] = -128 * _total(finer)
        if first == np.float32(0.0) and square > 0.0:
            continue  # out of the range of scales: LIMIT stays +inf
        lengths = (np.sqrt(part) + np.sqrt(rest)) * slack
        grown = slack * (1.0 + 16.0 * _U)
        terms[block, FIRST, lane] = first
        terms[block, SECOND, lane] = second
        terms[block, PER_LENGTH, lane] = _up((np.sqrt(lost) + 8.0 * _U * lengths) * grown)
        terms[block, PER_ERROR, lane] = _up((np.sqrt(known) + 8.0 * _U * lengths) * grown)
        terms[block, LIMIT, lane] = -np.inf
    return codes, starts, terms


@_inner
def finely_coded(values: np.ndarray, codes: np.ndarray, terms: np.ndarray) -> int:
    """One (d,) float32 query in one layer of 16 bits -> the sum of its codes.

    codes: int16, zeros, d of them at least: filled. terms: (5,) float32 as of `quantise_queries`, LIMIT +inf: filled,
    SECOND 0.
    """
    largest, square = np.float64(0.0), np.float64(0.0)
    for value in values:
        largest = max(largest, abs(np.float64(value)))
        square += np.float64(value) * np.float64(value)
    # Rounded codes are no longer than sqrt(square) / scale + sqrt(d) / 2; see 2. of the module's derivation.
    root = np.sqrt(np.float64(len(codes)))
    longest = 2147483647.0 / (127.0 * root) - root
    scale = np.float32(max(largest / 32767.0, np.sqrt(square) / longest))
    if not (np.float32(LEAST_SCALE) <= scale <= np.float32(MOST_SCALE)):
        if square == 0.0:
            terms[LIMIT] = -np.inf
        return 0
    lost, known, total = _finely_coded(values, scale, codes)
    slack = 1.0 + (len(values) + 8) * 2.0**-51
    grown = slack * (1.0 + 16.0 * _U)
    length = np.sqrt(known) * slack
    terms[FIRST] = scale
    terms[PER_LENGTH] = _up((np.sqrt(lost) + 8.0 * _U * length) * grown)
    terms[PER_ERROR] = _up((length + 8.0 * _U * length) * grown)
    terms[LIMIT] = -np.inf
    return total


@_any_order
def _finely_coded(values: np.ndarray, scale: np.float32, codes: np.ndarray) -> Any:
    """-> sum of (value - scale * code)^2, sum of (scale * code)^2, sum of codes."""
    inverse = 1.0 / np.float64(scale)
    lost, known, total = 0.0, 0.0, np.int64(0)
    for i in range(len(values)):
        value = np.float64(values[i])
        code = min(max(np.rint(value * inverse), -32767.0), 32767.0)
        coded = np.float64(scale) * code
        codes[i] = np.int16(code)
        lost += (value - coded) * (value - coded)
        known += coded * coded
        total += np.int64(code)
    return lost, known, total


@_inner
def lower_bound(upper: np.float32, margin: float, shift: np.float32, d: int) -> float:
    """L: <q, x> + h_x, before h_x was rounded up, is at least this where U is `upper`; -inf where U says nothing.

    margin: b |x| + c e_x. It covers each of the errors once, so U can't be more than twice the margin above; its own
    rounding is below 64 u of it, and h_x was rounded up by less than 32 u of it.
    """
    low = np.float64(upper) - 2.0 * margin * (1.0 + 64.0 * _U) - 32.0 * _U * abs(np.float64(shift)) - (d + 64) * _TINY
    return low if low >= -(2.0**126) else -np.inf


@_inner
def _scale(values: np.ndarray) -> np.float32:
    """The largest magnitude over 127; 0 if that is outside the safe range (or 0 itself)."""
    largest = np.float32(0.0)
    for value in values:
        largest = max(largest, abs(value))
    scale = largest / np.float32(127.0)
    return scale if LEAST_SCALE <= scale <= MOST_SCALE else np.float32(0.0)


@_inner
def _total(codes: np.ndarray) -> Any:
    total = np.int64(0)
    for code in codes:
        total += np.int64(code)
    return total


@_inner
def _up(value: float) -> np.float32:
    """A float32 not below the float64 value, which must not be negative."""
    return np.float32(value * (1.0 + 2.0 * _U) + _TINY)
