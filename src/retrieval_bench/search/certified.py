"""Exact search at the speed of an int8 scan: the same results as the float32 engine, bit for bit.

Each gallery row is scanned as bytes (`quantise.py`, which also proves the bound). The scan computes, for every query
and row, a number U that the engine's float32 product can't exceed.

1. Scan. Every U comes with an L that the product does not fall below. The k-th best L so far is what k rows are sure to
   reach, and so the limit: a row whose U is below it is strictly farther than k others, so that not even a tie is lost.
   All others wait. The inner loop compares U with the limit itself, 32 rows at a time, and answers with a mask; nearly
   always, after the first rows, nobody passes and nothing else happens.
2. Rescore. The best of those who wait are multiplied in float32, in the engine's own order (one fused multiply-add per
   dimension, ascending), which gives the engine's own bits. Their exact distances raise the limit once more; whoever's
   U still passes it is rescored too. The k best keys (distance, row) are the result.

Nothing is estimated, and the result does not depend on the order in which rows are visited, so threads and batches
can't change it. How many rows must be rescored depends on how far apart distances are, compared with the bound: of
random unit vectors, 20 to 40 of 100,000 for the 10 nearest at 512 dimensions, 70 to 150 of 20,000 at 2048. Where it is
too many (all rows equal, one huge coordinate, values beyond the safe range) the query goes to the float32 engine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from retrieval_bench.core import BenchError, Distance, Ranking
from retrieval_bench.search import emit, jit, kernels
from retrieval_bench.search.checks import (
    check_distance,
    check_exclude,
    check_finite,
    check_k,
    check_matrix,
    check_range,
)
from retrieval_bench.search.emit import borrowed, lowest_bit, multiply_add
from retrieval_bench.search.kernels import (
    COSINE,
    EMPTY,
    EUCLIDEAN,
    KINDS,
    array,
    bring_smallest_forward,
    contains,
    key_distance,
    key_of,
)
from retrieval_bench.search.quantise import (
    ERROR,
    FIRST,
    FOUR,
    LENGTH,
    LIMIT,
    MOST_DIM,
    PER_ERROR,
    PER_LENGTH,
    ROWS,
    SCALE,
    SECOND,
    SHIFT,
    lower_bound,
    lower_limit,
    preparer,
    quantiser,
    upper_distance,
)

TOGETHER = 8  # queries that share a visit to a panel; 8 x 32 int32 sums fill 16 of the 32 registers of AVX-512
RESCORED = 8  # rows whose float32 sums run side by side: each is a chain of multiply-adds that must wait for the last
CHUNK_BYTES = 256 << 10  # codes that stay in the second-level cache while all queries visit them
CHUNK_ROWS = 1024
GROUP = 16  # blocks of queries that a chunk is compared with before the next chunk
CAPACITY = 1024  # candidates of a query that may wait to be rescored
FEW_QUERIES = 4  # below this a scan waits for memory, and a second layer of query codes costs nothing


_ROWS_AT_ONCE = 16_384
_SCRATCH_BYTES = 64 << 20
_WORK_PER_THREAD = 20_000_000  # multiply-adds of codes; below this, starting a thread costs more than it saves


_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it
# The same, written out where it is called: each array handed to a function costs two updates of a reference count,
# which is more than some of these functions take.
_in_place = numba.njit(nogil=True, error_model="numpy", inline="always")


def inner_loop(kernel: str) -> str:
    """The way to scan codes that goes with a kernel of the float32 engine: "vnni512", "vnni256" or "plain"."""
    features = emit.cpu_features()
    if kernel == "avx512" and "avx512vnni" in features:
        return "vnni512"
    if kernel in ("avx512", "avx2") and ("avxvnni" in features or {"avx512vnni", "avx512vl"} <= features):
        return "vnni256"
    return "plain"


# --- the inner loop --------------------------------------------------------------------------------------------------


@_inner
def tile_plain(
    codes: np.ndarray, starts: np.ndarray, terms: np.ndarray, panels: np.ndarray, facts: np.ndarray,
    block: int, p: int, upper: np.ndarray, masks: np.ndarray,
) -> bool:  # fmt: skip
    """U of the queries of one block and the rows of panel p: upper[r, lane]; masks[r] has a bit for each candidate.

    codes, starts, terms: of `quantise_queries`. panels, facts: of `quantise_rows`.
    upper: (together, ROWS) float32. masks: (together,) uint32.
    Returns whether there is any candidate: a row whose U is not below its query's LIMIT. NaN is not below anything.
    """
    together = terms.shape[2]
    layers = codes.shape[2] // together
    sums = np.empty((2, ROWS), np.int32)
    some = False
    for r in range(together):
        for layer in range(layers):
            place = layer * together + r
            sums[layer] = starts[block, place]
            for step in range(panels.shape[1]):
                q = codes[block, step, place]
                q0, q1, q2, q3 = np.int32(q[0]), np.int32(q[1]), np.int32(q[2]), np.int32(q[3])
                for lane in range(ROWS):
                    x = panels[p, step, lane]
                    four = q0 * np.int32(x[0]) + q1 * np.int32(x[1]) + q2 * np.int32(x[2]) + q3 * np.int32(x[3])
                    sums[layer, lane] += np.int32(four)
        masks[r] = 0
        for lane in range(ROWS):
            product = np.float32(sums[0, lane]) * terms[block, FIRST, r]
            if layers == 2:
                product = product + np.float32(sums[1, lane]) * terms[block, SECOND, r]
            margin = (
                terms[block, PER_LENGTH, r] * facts[p, LENGTH, lane]
                + terms[block, PER_ERROR, r] * facts[p, ERROR, lane]
            )
            upper[r, lane] = product * facts[p, SCALE, lane] + (margin + facts[p, SHIFT, lane])
            if not upper[r, lane] < terms[block, LIMIT, r]:
                masks[r] |= np.uint32(1) << np.uint32(lane)
                some = True
    return some


def _emitted_tile(together: int, layers: int, lanes: int) -> Any:
    """The same as vector code, with `lanes` int32 sums in a register: 16 where there are 32 registers, 8 where 16.

    All sums of some queries and all 32 rows stay in registers; per step of four dimensions each panel vector is loaded
    once, each query's four codes are spread over a register once, and one instruction adds 4 * lanes products.
    """
    vectors = ROWS // lanes
    at_once = min(together, 8 if lanes == 16 else 2)  # queries whose sums fit into the registers

    def emitted(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        *arrays, block, p, upper, masks = zip(signature.args, values, strict=True)
        codes, starts, terms, panel, facts = (emit.address(context, builder, *array) for array in arrays)
        upper, masks = (emit.address(context, builder, *array) for array in (upper, masks))
        panels_kind, panels = arrays[3]
        steps = builder.extract_value(context.make_array(panels_kind)(context, builder, panels).shape, 1)
        # From whole arrays to the block and the panel in question.
        step_bytes = emit.number(FOUR * layers * together)
        codes = builder.add(codes, builder.mul(block[1], builder.mul(steps, step_bytes)))
        starts = builder.add(starts, builder.mul(block[1], emit.number(4 * layers * together)))
        terms = builder.add(terms, builder.mul(block[1], emit.number(4 * 5 * together)))
        panel = builder.add(panel, builder.mul(p[1], builder.mul(steps, emit.number(FOUR * ROWS))))
        facts = builder.add(facts, builder.mul(p[1], emit.number(4 * 4 * ROWS)))
        ints, floats = emit.vector(emit.I32, lanes), emit.vector(emit.F32, lanes)
        bytes_ = emit.vector(emit.I8, 4 * lanes)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        some = emit.number(0)
        for r0 in range(0, together, at_once):
            places = [(layer, r) for layer in range(layers) for r in range(r0, r0 + at_once)]

            def load_terms(base: Any, index: int, kind: Any) -> Any:
                return emit.broadcast(builder, emit.load(builder, kind, base, 4 * index, align=4), lanes)

            initial = []
            for layer, r in places:
                initial += [load_terms(starts, layer * together + r, emit.I32)] * vectors

            def body(step: Any, sums: Any, places: Any = places) -> Any:
                x = builder.add(panel, builder.mul(step, emit.number(FOUR * ROWS)))
                q = builder.add(codes, builder.mul(step, step_bytes))
                rows = [emit.load(builder, bytes_, x, 4 * lanes * v) for v in range(vectors)]
                new = []
                for number, (layer, r) in enumerate(places):
                    four = emit.load(builder, emit.I32, q, 4 * (layer * together + r))
                    four = builder.bitcast(emit.broadcast(builder, four, lanes), bytes_)
                    for v in range(vectors):
                        new.append(emit.call(builder, name, ints, [sums[number * vectors + v], rows[v], four]))
                return new

            sums = emit.counted_loop(builder, steps, initial, body)
            for r in range(r0, r0 + at_once):
                bits = emit.number(0, emit.I32)
                first, second, per_length, per_error, limit = (
                    load_terms(terms, line * together + r, emit.F32) for line in range(5)
                )
                for v in range(vectors):
                    scale, error, length, shift = (
                        emit.load(builder, floats, facts, 4 * (ROWS * line + lanes * v)) for line in range(4)
                    )
                    place = (r - r0) * vectors + v
                    product = builder.fmul(builder.sitofp(sums[place], floats), first)
                    if layers == 2:
                        finer = builder.sitofp(sums[at_once * vectors + place], floats)
                        product = builder.fadd(product, builder.fmul(finer, second))
                    product = builder.fmul(product, scale)
                    margin = builder.fadd(builder.fmul(per_length, length), builder.fmul(per_error, error))
                    bound = builder.fadd(product, builder.fadd(margin, shift))
                    emit.store(builder, bound, upper, 4 * (ROWS * r + lanes * v))
                    reached = emit.lane_bits(builder, builder.fcmp_unordered(">=", bound, limit), emit.I32)
                    bits = builder.or_(bits, builder.shl(reached, emit.number(lanes * v, emit.I32)))
                emit.store(builder, bits, masks, 4 * r, align=4)
                some = builder.or_(some, builder.zext(bits, emit.I64))
        return builder.icmp_unsigned("!=", some, emit.number(0))

    return emitted


_CODE = {
    ("vnni512", TOGETHER): _emitted_tile(TOGETHER, 1, 16),
    ("vnni512", 1): _emitted_tile(1, 2, 16),
    ("vnni256", TOGETHER): _emitted_tile(TOGETHER, 1, 8),
    ("vnni256", 1): _emitted_tile(1, 2, 8),
}


def tile_of(how: str, together: int) -> Any:
    """`tile_plain`, or the emitted loop that equals it, for blocks of 1 query (two layers) or TOGETHER (one layer)."""
    if how == "plain":
        return tile_plain

    @intrinsic
    def tile(typing, codes, starts, terms, panels, facts, block, p, upper, masks):  # type: ignore[no-untyped-def]
        i64 = types.int64
        signature = types.boolean(codes, starts, terms, panels, facts, i64, i64, upper, masks)
        return signature, _CODE[how, together]

    return tile


# --- the scan --------------------------------------------------------------------------------------------------------


@functools.cache
def scanner(how: str, together: int) -> Any:
    """`scan` below, compiled for one way of scanning and blocks of `together` queries."""
    tile = tile_of(how, together)

    def scan(  # type: ignore[no-untyped-def]
        kind: int, queries: np.ndarray, codes: np.ndarray, starts: np.ndarray, terms: np.ndarray,
        squares: np.ndarray, panels: np.ndarray, facts: np.ndarray, rows: np.ndarray, first: int, k: int,
        exclude: np.ndarray, budget: int, least: int, most: int, capacity: int, keys: np.ndarray, rescored: np.ndarray,
        candidates: np.ndarray, worst: np.ndarray, counts: np.ndarray, upper: np.ndarray, masks: np.ndarray,
        at: np.ndarray,
    ) -> None:  # fmt: skip
        """The k nearest of the rows of `panels`, in float32.

        queries: (q, d) float32, with codes, starts, terms, squares of `quantise_queries`; LIMITs in terms are raised.
        panels, facts: of `quantise_rows`, a stretch that begins with row `first` of the gallery, a multiple of ROWS.
        rows: (n, d) float32, the whole gallery. exclude: (q, m) int64, each line ascending.
        budget: how many rows may be rescored for a query.
        least, most: panels of the first chunk and of the largest.
        capacity: how many candidates may wait to be rescored.
        keys: (q, k) uint64, filled in no order, EMPTY where there are fewer.
        rescored: (q,) int64, filled with the number of rows rescored, or -1 for queries that exceeded the budget or
            could not be scanned: their keys mean nothing.
        candidates, worst, counts, upper, masks, at: scratch, see `CertifiedIndex._scratch`.
        """
        queries, codes, starts, terms = borrowed(queries), borrowed(codes), borrowed(starts), borrowed(terms)
        squares, panels, facts, rows = borrowed(squares), borrowed(panels), borrowed(facts), borrowed(rows)
        exclude, keys, rescored = borrowed(exclude), borrowed(keys), borrowed(rescored)
        candidates, worst, counts = borrowed(candidates), borrowed(worst), borrowed(counts)
        upper, masks, at = borrowed(upper), borrowed(masks), borrowed(at)
        together, blocks, group = terms.shape[2], len(codes), len(candidates) // terms.shape[2]
        keys[:] = EMPTY
        rescored[:] = 0
        for base in range(0, blocks, group):
            counts[:] = 0
            worst[:] = np.inf
            begin, size = 0, least
            while begin < len(panels):
                end = min(begin + size, len(panels))
                for block in range(base, min(base + group, blocks)):
                    place = (block - base) * together
                    for p in range(begin, end):
                        if tile(codes, starts, terms, panels, facts, block, p, upper, masks):  # seldom, after a while
                            for r in range(min(together, len(queries) - block * together)):
                                if masks[r] != 0 and rescored[block * together + r] >= 0:
                                    _admit(
                                        kind, block, r, p, first, upper, masks, terms, facts, squares, rows,
                                        exclude, place + r, candidates, counts, worst,
                                    )  # fmt: skip
                    for r in range(min(together, len(queries) - block * together)):
                        if counts[place + r] > capacity:
                            left = _drop_beaten(candidates, place + r, counts[place + r], terms[block, LIMIT, r])
                            if left > capacity // 2:
                                _rescore(
                                    kind, block, r, queries, squares, terms, rows, candidates[place + r, :left],
                                    keys, rescored, budget, at,
                                )  # fmt: skip
                                left = 0
                            counts[place + r] = left
                begin, size = end, min(max(least, end), most)
            for block in range(base, min(base + group, blocks)):
                for r in range(min(together, len(queries) - block * together)):
                    place = (block - base) * together + r
                    left = _drop_beaten(candidates, place, counts[place], terms[block, LIMIT, r])
                    _rescore(
                        kind, block, r, queries, squares, terms, rows, candidates[place, :left],
                        keys, rescored, budget, at,
                    )  # fmt: skip
        for query in range(len(queries)):
            if terms[query // together, LIMIT, query % together] == np.inf:
                rescored[query] = -1

    f32, f64, i64 = types.float32, types.float64, types.int64
    rows = types.Array(f32, 2, "C", readonly=True)
    queries = (array(f32, 2), array(types.int8, 4), array(types.int32, 2), array(f32, 3), array(f64, 1))
    gallery = (array(types.uint8, 4), array(f32, 3), rows)
    result = (array(types.uint64, 2), array(i64, 1))
    scratch = (
        array(types.uint64, 2),
        array(f64, 2),
        array(i64, 1),
        array(f32, 2),
        array(types.uint32, 1),
        array(i64, 1),
    )
    limits = (i64, array(i64, 2), i64, i64, i64, i64)
    signature = types.none(i64, *queries, *gallery, i64, *limits, *result, *scratch)
    return jit.compiled(scan, signature, f"{how}-{together}")


@_in_place
def _raise_limit(
    kind: int, block: int, r: int, distance: np.float32, terms: np.ndarray, squares: np.ndarray, d: int
) -> None:
    """The limit of query r of the block, from a distance that k rows do not exceed."""
    square = squares[block * terms.shape[2] + r]
    limit = lower_limit(kind == EUCLIDEAN, kind == COSINE, distance, square, d)
    terms[block, LIMIT, r] = max(terms[block, LIMIT, r], limit)


@_in_place
def _admit(
    kind: int, block: int, r: int, p: int, first: int, upper: np.ndarray, masks: np.ndarray, terms: np.ndarray,
    facts: np.ndarray, squares: np.ndarray, rows: np.ndarray, exclude: np.ndarray, place: int, candidates: np.ndarray,
    counts: np.ndarray, worst: np.ndarray,
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
        if row >= len(rows) or (exclude.shape[1] > 0 and contains(exclude[query], row)):
            continue
        candidates[place, count] = key_of(-upper[r, lane], row)
        count += 1
        margin = per_length * np.float64(facts[p, LENGTH, lane]) + per_error * np.float64(facts[p, ERROR, lane])
        low = lower_bound(upper[r, lane], margin, facts[p, SHIFT, lane], d)
        if -low < worst[place, 0]:
            _replace_largest(worst, place, -low)
            raised = True
    counts[place] = count
    if raised and worst[place, 0] < np.inf:
        distance = upper_distance(kind == EUCLIDEAN, kind == COSINE, -worst[place, 0], squares[query], d)
        _raise_limit(kind, block, r, distance, terms, squares, d)


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
    kind: int, block: int, r: int, queries: np.ndarray, squares: np.ndarray, terms: np.ndarray, rows: np.ndarray,
    candidates: np.ndarray, keys: np.ndarray, rescored: np.ndarray, budget: int, at: np.ndarray,
) -> None:  # fmt: skip
    """Compute the float32 distances of the candidates that the limit still allows; keep the best keys.

    candidates: (m,) uint64 keys of (-U, row). keys: (q, k) uint64, a heap per query, EMPTY where it is not full.
    The query's limit is raised to what the k-th best reaches; to +inf if more than `budget` rows would be rescored.
    """
    query, k = block * terms.shape[2] + r, keys.shape[1]
    if len(candidates) > k:
        bring_smallest_forward(candidates, len(candidates), k)  # the most promising raise the limit most
    position = 0
    while position < len(candidates):
        count = 0
        while position < len(candidates) and count < RESCORED:
            candidate = candidates[position]
            position += 1
            if not -key_distance(candidate) < terms[block, LIMIT, r]:
                at[count] = np.int64(candidate & np.uint64(0xFFFFFFFF))
                count += 1
        if count == 0:
            break
        rescored[query] += count
        if rescored[query] > budget:
            rescored[query] = -1
            terms[block, LIMIT, r] = np.inf
            break
        for lane in range(count, RESCORED):
            at[lane] = at[0]
        for lane, value in enumerate(eight_sums(kind, queries[query], rows, at)):
            if lane < count:
                key = key_of(rescored_distance(kind, value), at[lane])
                if key < keys[query, 0]:
                    _replace_largest(keys, query, key)
        if keys[query, 0] != EMPTY:
            _raise_limit(kind, block, r, key_distance(keys[query, 0]), terms, squares, rows.shape[1])


@_inner
def rescored_distance(kind: int, value: np.float32) -> np.float32:
    """The engine's distance from the engine's sum."""
    if kind == EUCLIDEAN:
        return np.sqrt(value)
    if kind == COSINE:
        return max(np.float32(1.0) - value, np.float32(0.0))
    return np.float32(0.0) - value


@_in_place
def eight_sums(kind: int, query: np.ndarray, rows: np.ndarray, at: np.ndarray) -> Any:
    """The engine's sums for eight rows: one fused multiply-add per dimension, in ascending order.

    A multiply-add has to wait some cycles for the one before it in its own sum; eight sums side by side fill them.
    """
    x0, x1, x2, x3 = rows[at[0]], rows[at[1]], rows[at[2]], rows[at[3]]
    x4, x5, x6, x7 = rows[at[4]], rows[at[5]], rows[at[6]], rows[at[7]]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    if kind == EUCLIDEAN:
        for d in range(len(query)):
            q = query[d]
            d0, d1, d2, d3 = q - x0[d], q - x1[d], q - x2[d], q - x3[d]
            d4, d5, d6, d7 = q - x4[d], q - x5[d], q - x6[d], q - x7[d]
            s0, s1, s2, s3 = (
                multiply_add(d0, d0, s0),
                multiply_add(d1, d1, s1),
                multiply_add(d2, d2, s2),
                multiply_add(d3, d3, s3),
            )
            s4, s5, s6, s7 = (
                multiply_add(d4, d4, s4),
                multiply_add(d5, d5, s5),
                multiply_add(d6, d6, s6),
                multiply_add(d7, d7, s7),
            )
    else:
        for d in range(len(query)):
            q = query[d]
            s0, s1, s2, s3 = (
                multiply_add(q, x0[d], s0),
                multiply_add(q, x1[d], s1),
                multiply_add(q, x2[d], s2),
                multiply_add(q, x3[d], s3),
            )
            s4, s5, s6, s7 = (
                multiply_add(q, x4[d], s4),
                multiply_add(q, x5[d], s5),
                multiply_add(q, x6[d], s6),
                multiply_add(q, x7[d], s7),
            )
    return s0, s1, s2, s3, s4, s5, s6, s7


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


# --- the door --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScanStats:
    """What a search did: queries, gallery rows, rows rescored in float32 (all queries), queries that fell back."""

    queries: int = 0
    rows: int = 0
    rescored: int = 0
    fallbacks: int = 0


class CertifiedIndex:
    """A gallery as int8 codes beside its float32 rows; finds exactly what ExactIndex finds.

    gallery, distance: as for ExactIndex, but hamming has no scan.
    Kept: one byte per value in the codes, 16 bytes per row beside them, and a float32 copy of the prepared rows. There
    is no copy of a read-only memory map of contiguous float32 values (np.load(..., mmap_mode="r")), unless the distance
    is cosine, which needs normalised rows. A query that the bound can't help makes the float32 engine pack its panels,
    once; `bytes` counts them from then on.

    last: ScanStats of the last search.
    """

    def __init__(self, gallery: np.ndarray, distance: Distance = "cosine", *, kernel: str | None = None) -> None:
        from retrieval_bench.search.index import ExactIndex, kernel_for

        self.distance = check_distance(distance)
        if distance == "hamming":
            raise BenchError("hamming has no int8 scan; it is exact on bits already: use scan='float32'")
        gallery = check_matrix("gallery", gallery, distance)
        if len(gallery) > kernels.MOST_ROWS:
            raise BenchError(f"gallery has {len(gallery)} rows; at most {kernels.MOST_ROWS} are supported")
        self._n, self.dim = len(gallery), int(gallery.shape[1])
        if self.dim > MOST_DIM:
            raise BenchError(f"gallery has {self.dim} columns; the int8 scan takes {MOST_DIM}: use scan='float32'")
        self.kernel = kernel_for(kernel).name
        self.inner_loop = inner_loop(self.kernel)
        self._float32: ExactIndex | None = None
        compile_for(self.inner_loop)
        kernels.engine(kernel_for(kernel), distance)  # for queries that fall back: nothing compiles in a search
        quantise_rows, _ = quantiser()
        panels = -(-self._n // ROWS)
        self._codes = np.empty((panels, -(-self.dim // FOUR), ROWS, FOUR), np.uint8)
        self._facts = np.empty((panels, 4, ROWS), np.float32)
        kept = distance != "cosine" and _is_read_only_map(gallery)
        self._rows = gallery if kept else np.empty(gallery.shape, np.float32)
        self._largest_norm = 0.0
        for start in range(0, self._n, _ROWS_AT_ONCE):
            part = slice(start, min(start + _ROWS_AT_ONCE, self._n))
            rows, norm = self._prepared("gallery", gallery[part], start)
            if not kept:
                self._rows[part] = rows
            tiles = slice(start // ROWS, -(-part.stop // ROWS))
            quantise_rows(rows, distance == "euclidean", self._codes[tiles], self._facts[tiles])
            self._largest_norm = max(self._largest_norm, norm)
        self._idle: list[Any] = []  # scratch that no search is using
        self.last = ScanStats()

    @property
    def bytes(self) -> int:
        arrays: list[np.ndarray] = [self._codes, self._facts, self._rows]
        return sum(array.nbytes for array in arrays) + (0 if self._float32 is None else self._float32.bytes)

    def __len__(self) -> int:
        return self._n

    def search(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """The k nearest gallery rows of each query; arguments and result as for ExactIndex.search."""
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = np.sort(check_exclude(exclude, len(queries), self._n), axis=1)
        ranking = Ranking(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32))
        found = min(k, self._n)
        rescored = fallbacks = 0
        batch = max(_SCRATCH_BYTES // (64 * found + 4 * self.dim + 1024), 1)
        for start in range(0, len(queries), batch):
            part = slice(start, start + batch)
            rows, norm = self._prepared("queries", queries[part], start)
            check_range(self.distance, norm, self._largest_norm)
            if found:
                keys, counts = self._scanned(rows, found, exclude[part])
                ranking.indices[part, :found], ranking.distances[part, :found] = kernels.unpack(keys)
                rescored += int(counts[counts > 0].sum())
                again = start + np.flatnonzero(counts < 0)
                if len(again):
                    exact = self.float32().search(queries[again], k, exclude[again])
                    ranking.indices[again], ranking.distances[again] = exact.indices, exact.distances
                    fallbacks += len(again)
        self.last = ScanStats(len(queries), self._n, rescored, fallbacks)
        return ranking

    __call__ = search

    def _scanned(self, queries: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sorted keys (q, k), and how many rows were rescored, -1 where the query must go to the float32 engine.

        Many queries are dealt out to the threads; of few, each thread scans its own stretch of the gallery.
        """
        from retrieval_bench.search.threads import on_threads

        q, budget = len(queries), rescore_budget(self._n, k)
        together, layers = (1, 2) if q < FEW_QUERIES else (TOGETHER, 1)
        scan, (_, quantise_queries) = scanner(self.inner_loop, together), quantiser()
        threads = max(1, min(numba.get_num_threads(), q * self._codes.size // _WORK_PER_THREAD))
        blocks = -(-q // together)
        by_query = blocks >= 4 * threads
        total = blocks if by_query else len(self._codes)
        threads = max(1, min(threads, total))
        shared = None if by_query else quantise_queries(queries, together, layers)

        def part(begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
            lines = slice(begin * together, end * together) if by_query else slice(None)
            panels, first = (slice(None), 0) if by_query else (slice(begin, end), begin * ROWS)
            mine = queries[lines]
            codes, starts, terms, squares = shared or quantise_queries(mine, together, layers)
            scratch = self._scratch(together, len(codes), k)
            keys, rescored = np.empty((len(mine), k), np.uint64), np.empty(len(mine), np.int64)
            scan(
                *(KINDS[self.distance], mine, codes, starts, terms.copy() if shared else terms, squares),
                *(self._codes[panels], self._facts[panels], self._rows, first),
                *(k, exclude[lines], budget, *scratch[:3], keys, rescored, *scratch[3:]),
            )
            self._idle.append(scratch)
            return keys, rescored

        bounds = [total * share // threads for share in range(threads + 1)]
        parts = on_threads([partial(part, *stretch) for stretch in pairwise(bounds)])
        if by_query:
            keys, counts = (np.concatenate(each) for each in zip(*parts, strict=True))
        else:
            keys = np.concatenate([each for each, _ in parts], axis=1)
            counts = np.stack([each for _, each in parts])
            counts = np.where((counts < 0).any(axis=0), -1, counts.sum(axis=0))
        return np.sort(keys, axis=1)[:, :k], counts

    def _scratch(self, together: int, blocks: int, k: int) -> tuple[Any, ...]:
        """least, most, capacity and the scratch arrays of `scan`.

        Kept from search to search, since fresh memory costs a page fault per 4 KiB.
        """
        most = min(max(CHUNK_BYTES // max(self._codes[:1].size, 1), 1), CHUNK_ROWS // ROWS)
        # Nothing is known before k rows have been seen, so the first chunk is small, and chunks grow from there.
        least = max(1, -(-2 * k // ROWS))
        # A group of queries at a time, so that their candidates stay in the cache as well.
        lines = together * min(GROUP, blocks)
        capacity = max(CAPACITY, 4 * k)
        shapes = (lines, capacity + max(most, least) * ROWS), (lines, k)
        try:
            kept = self._idle.pop()  # atomic: two threads never get the same
            if (kept[3].shape, kept[4].shape) == shapes:
                return kept
        except IndexError:
            pass
        return (
            *(least, most, capacity, np.empty(shapes[0], np.uint64), np.empty(shapes[1], np.float64)),
            *(np.empty(lines, np.int64), np.empty((together, ROWS), np.float32), np.empty(together, np.uint32)),
            np.empty(RESCORED, np.int64),
        )

    def float32(self) -> Any:
        """The same gallery as an ExactIndex that scans the vectors; its panels are packed at the first call."""
        from retrieval_bench.search.index import ExactIndex

        if self._float32 is None:
            self._float32 = ExactIndex.of_prepared(np.asarray(self._rows), self.distance, self.kernel)
        return self._float32

    def _prepared(self, name: str, block: np.ndarray, first: int) -> tuple[np.ndarray, float]:
        vectors, norms = prepared(name, block, self.distance, first)
        return vectors, float(norms.max(initial=0.0))


def prepared(name: str, block: np.ndarray, distance: Distance, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A float32 copy, of unit length for cosine, with the bits that ExactIndex prepares; and the lengths before that.

    name, first: for the error where a value is not finite: whose rows they are, and which is the first.
    """
    vectors = np.empty(block.shape, np.float32)
    with np.errstate(over="ignore"):
        vectors[:] = block
    norms = np.empty(len(vectors))
    preparer()(vectors, distance == "cosine", norms)
    check_finite(name, np.isfinite(norms), first)
    return vectors, norms


def compile_for(inner_loop: str) -> None:
    """Compile, or load from the cache on disk, all that searches by this inner loop need."""
    with jit.announced():
        preparer()
        quantiser()
        scanner(inner_loop, 1)
        scanner(inner_loop, TOGETHER)


def rescore_budget(n: int, k: int) -> int:
    """Rows that may be rescored for a query: past this the float32 engine is quicker."""
    return n // 16 + 8 * k + 256


def choose(q: int, n: int, dim: int, k: int) -> Literal["int8", "float32"]:
    """The quicker way to search q queries in n rows of random vectors.

    The int8 scan saves about 0.028 processor cycles for each of the n * dim products of a query, and spends on each of
    the k results some 500 cycles for the candidates that came before it and 0.65 dim on rescoring; q hardly matters.
    Measured on 2 cores with AVX-512 VNNI, time of float32 over time of int8, for 1 / 16 / 200 queries or the q given:

    | n x dim | k = 10 | k = 100 | k = 1000 |
    |---|---|---|---|
    | 1,000 x 128 | 1.0 / 1.0 / 1.1 | 0.9 / 0.5 / 0.5 | 0.5 / 0.1 / 0.1 |
    | 20,000 x 16 | 1.1 / 1.1 / 0.8 | 1.0 / 0.7 / 0.6 | 0.4 / 0.1 / 0.3 |
    | 20,000 x 64 | 1.3 / 2.2 / 5.6 | 1.3 / 1.2 / 0.8 | 0.5 / 0.5 / 0.3 |
    | 100,000 x 128 | 2.9 / 4.4 / 1.5 | 2.5 / - / 1.4 | 1.5 / 0.6 / - |
    | 100,000 x 512 | 2.8 (q = 1) | | |
    | 50,000 x 768 | 2.0 to 3.5 (q = 100) | | |

    The machine was shared with other work: single figures are good to a factor of 1.5 or so, the trend is not in doubt.
    """
    return "int8" if q > 0 and dim <= MOST_DIM and n * dim >= k * (24 * dim + 18_000) else "float32"


def _is_read_only_map(array: np.ndarray) -> bool:
    """A map of a file that nobody can write through this process, with float32 rows as the kernels read them."""
    mapped: Any = array
    while mapped is not None and not isinstance(mapped, np.memmap):
        mapped = getattr(mapped, "base", None)
    contiguous = array.flags.c_contiguous and array.dtype == np.float32 and array.dtype.isnative
    return mapped is not None and mapped.mode == "r" and contiguous
