"""Exact search at the speed of an int8 scan: the same results as a scan in float32.

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
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numba
import numpy as np
from numba import types

from retrieval_bench.core import BenchError, Distance, Ranking
from retrieval_bench.search import certified_call, emit, jit, kernels, keys, tile_loops
from retrieval_bench.search.bounds import LENGTH as NORM
from retrieval_bench.search.bounds import compiled_shifts, distance_limit, score_limit
from retrieval_bench.search.caches import caches
from retrieval_bench.search.checks import (
    check_distance,
    check_exclude,
    check_finite,
    check_k,
    check_matrix,
    check_range,
    check_threads,
    room_for,
)
from retrieval_bench.search.code_loops import coded_queries, queries_together, steps_of, tile_of
from retrieval_bench.search.emit import borrowed, lowest_bit
from retrieval_bench.search.first_look import FirstLook
from retrieval_bench.search.float_mode import tiny_numbers_kept
from retrieval_bench.search.kernels import INNER_PRODUCT, KINDS, array
from retrieval_bench.search.keys import bring_smallest_forward, contains, key_distance, key_of
from retrieval_bench.search.lane_sums import TOGETHER as FOUR_ROWS
from retrieval_bench.search.points import find_centre, points, values_of, warm_up
from retrieval_bench.search.quantise import (
    ERROR,
    FOUR,
    LENGTH,
    LIMIT,
    MOST_DIM,
    PER_ERROR,
    PER_LENGTH,
    ROWS,
    SHIFT,
    lower_bound,
    quantiser,
)
from retrieval_bench.search.rescore import distances_of_four, put_in_place_of_farthest
from retrieval_bench.search.scans import aligned
from retrieval_bench.search.settling import Asked, Kept
from retrieval_bench.search.stats import LastSearch, ScanStats
from retrieval_bench.search.threads import finish_on_threads, on_threads
from retrieval_bench.search.widened_loops import ahead_here, fine_queries

CHUNK_BYTES = caches().second // 4  # codes that stay in the second-level cache while all queries visit them
CHUNK_ROWS = 1024
GROUP = 16  # blocks of queries that a chunk is compared with before the next chunk
CAPACITY = 1024  # candidates of a query that may wait to be rescored
QUERIES_PER_THREAD = 32  # from here on, threads share out the queries instead of the gallery
FEW_QUERIES = 4  # below this a scan waits for memory, and a second layer of query codes costs nothing


_ROWS_AT_ONCE = 16_384
_SCRATCH_BYTES = 64 << 20
_WORK_PER_THREAD = 20_000_000  # multiply-adds of codes; below this, starting a thread costs more than it saves


_FEW_IN_NEED = 10  # queries, that may be odd ones, whatever codes tell of others
_LEFT_OUT = 15  # at most so many searches scan in float32 after one in which most queries had to: see `_note`


_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it
# The same, written out where it is called: each array handed to a function costs two updates of a reference count,
# which is more than some of these functions take.
_in_place = numba.njit(nogil=True, error_model="numpy", inline="always")


def inner_loop(kernel: str) -> str:
    """The way to scan codes that goes with a kernel of the float32 engine.

    "tiles", "vnni512", "vnni256", "widened" or "plain".
    """
    features = emit.cpu_features()
    if kernel == "avx512" and "avx512vnni" in features:
        return "tiles" if tile_loops.usable() else "vnni512"
    if kernel in ("avx512", "avx2") and ("avxvnni" in features or {"avx512vnni", "avx512vl"} <= features):
        return "vnni256"
    return "widened" if kernel in ("avx512", "avx2") and "avx2" in features else "plain"


# --- the scan --------------------------------------------------------------------------------------------------------


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


# --- the door --------------------------------------------------------------------------------------------------------


class CertifiedIndex:
    """A gallery as int8 codes beside its rows; finds exactly what ExactIndex finds.

    gallery, distance: as for ExactIndex, but hamming has no scan.
    Kept: one byte per value in the codes, 16 bytes per row beside them, and the rows as ExactIndex keeps them. A query
    that the bound can't help makes the float32 engine pack its panels, once; `bytes` counts them from then on.

    last: as for ExactIndex.
    """

    @tiny_numbers_kept
    def __init__(self, gallery: np.ndarray, distance: Distance = "cosine", *, kernel: str | None = None) -> None:
        from retrieval_bench.search.index import ExactIndex, kernel_for

        self.distance = check_distance(distance)
        if distance == "hamming":
            raise BenchError("hamming has no int8 scan; it is exact on bits already: use scan='float32'")
        gallery = check_matrix("gallery", gallery, distance)
        if len(gallery) > keys.MOST_ROWS:
            raise BenchError(f"gallery has {len(gallery)} rows; at most {keys.MOST_ROWS} are supported")
        self._n, self.dim = len(gallery), int(gallery.shape[1])
        if self.dim > MOST_DIM:
            raise BenchError(f"gallery has {self.dim} columns; the int8 scan takes {MOST_DIM}: use scan='float32'")
        self.kernel = kernel_for(kernel).name
        self.inner_loop = inner_loop(self.kernel)
        self._float32: ExactIndex | None = None
        self._rows = Kept.for_gallery(distance, gallery)
        compile_for(self.inner_loop, self._rows.values.dtype.name)
        kernels.engine(kernel_for(kernel), distance)  # for queries that fall back: nothing compiles in a search
        quantise_rows, _ = quantiser()
        self._centre = find_centre(distance, gallery)
        self._centre_length = float(np.sqrt((self._centre**2).sum()))
        panels = -(-self._n // ROWS)
        self._codes = aligned((panels, steps_of(self.inner_loop, self.dim), ROWS, FOUR), np.dtype(np.uint8))
        self._facts = aligned((panels, 4, ROWS), np.dtype(np.float32))
        self._largest_norm = 0.0
        kind = KINDS[distance]
        for first in range(0, self._n, _ROWS_AT_ONCE):
            part = slice(first, min(first + _ROWS_AT_ONCE, self._n))
            some, facts, squares = self._rows.take(gallery[part], part, self._centre)
            shifts = np.empty(len(some), np.float32)
            compiled_shifts()(kind, facts, squares, self.dim, self._centre_length, shifts)
            tiles = slice(first // ROWS, -(-part.stop // ROWS))
            quantise_rows(some, shifts, self._codes[tiles], self._facts[tiles])
            self._largest_norm = max(self._largest_norm, float(facts[:, NORM].max(initial=0.0)))
        self._rows.complete()
        self._first_look = FirstLook(
            self._rows,
            self._largest_norm,
            partial(ExactIndex, distance=distance, kernel=self.kernel),
            faster=10 if self.inner_loop == "tiles" else 1,
        ).ready()
        self._left_out = self._in_a_row = 0  # searches that will not scan codes, since these told too little
        self._idle: list[Any] = []  # scratch that no search is using
        self._last = LastSearch()

    @property
    def bytes(self) -> int:
        own = self._codes.nbytes + self._facts.nbytes + self._rows.bytes + self._first_look.bytes
        # The float32 engine refers to the rows that are counted here.
        return own + (0 if self._float32 is None else self._float32.bytes - self._rows.values.nbytes)

    def __len__(self) -> int:
        return self._n

    @property
    def last(self) -> ScanStats:
        return self._last.stats

    @tiny_numbers_kept
    def search(
        self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None, *, threads: int | None = None
    ) -> Ranking:
        """The k nearest gallery rows of each query; arguments and result as for ExactIndex.search."""
        threads = check_threads(threads)
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = check_exclude(exclude, len(queries), self._n)
        found = min(k, self._n)
        ranking = room_for(len(queries), k, self._n, unset=found)
        if self._first_look.in_vain(queries, found, exclude, threads):
            self._last.figures = self._first_look.without_scan(queries, found, exclude, ranking, threads)
            return ranking
        left_out = self._left_out
        if left_out > 0:
            self._left_out = left_out - 1  # never less than 0, whoever else is searching
            float32 = self.float32()
            exact = float32.search(queries, k, exclude, threads=threads)
            self._last.figures = tuple(float32.last)
            return exact  # type: ignore[no-any-return]
        rescored = doubtful = 0
        batch = max(_SCRATCH_BYTES // (64 * found + 12 * self.dim + 1024), 1)
        for first in range(0, len(queries), batch):
            part = slice(first, min(first + batch, len(queries)))
            if not found:
                self._points(queries[part], first)
                continue
            few = len(queries) < FEW_QUERIES and found <= certified_call.MOST
            scanned = self._in_two_calls if few else self._scanned
            who, near, counts = scanned(queries[part], first, found, exclude[part], threads)
            rescored += int(np.where(counts < 0, -counts - 1, counts).sum())
            again = first + np.flatnonzero(counts < 0)
            if len(self._rows.zeros):
                self._with_zeros(who, near, exclude[part])
            ranking.indices[part, :found], ranking.distances[part, :found] = who, near
            if len(again):
                float32 = self.float32()
                exact = float32.search(queries[again], k, exclude[again], threads=threads)
                ranking.indices[again], ranking.distances[again] = exact.indices, exact.distances
                rescored += float32.last.rescored
                doubtful += len(again)
        self._note(doubtful > max(_FEW_IN_NEED, len(queries) // 2))
        self._last.figures = len(queries), self._n, rescored, doubtful
        return ranking

    __call__ = search

    def _note(self, in_vain: bool) -> None:
        """Leave codes out of the next search, if they told too little; of 3, 7 and 15, as long as they go on to."""
        self._in_a_row = min(2 * self._in_a_row + 1, _LEFT_OUT) if in_vain else 0
        self._left_out = self._in_a_row

    def _with_zeros(self, who: np.ndarray, near: np.ndarray, exclude: np.ndarray) -> None:
        """Rows that are all zeros, which no scan finds, lie at a cosine distance of 1."""
        k = who.shape[1]
        for query in np.flatnonzero(near[:, -1] >= 1.0):
            zeros = np.setdiff1d(self._rows.zeros, exclude[query])[:k]
            rows, distances = np.append(who[query], zeros), np.append(near[query], np.ones(len(zeros)))
            order = np.lexsort((rows, distances))[:k]
            who[query], near[query] = rows[order], distances[order]

    def _points(self, queries: np.ndarray, first: int) -> tuple[Asked, np.ndarray]:
        """Queries that are fit to be searched for, and their points, (q, d) float32. first: number of the first one."""
        values = values_of("queries", queries, self.distance, first)
        some, squares, factors, facts = points(self.distance, values, self._centre, queries=True)
        check_finite("queries", np.isfinite(squares), first)
        check_range(self.distance, float(facts[:, NORM].max(initial=0.0)), self._largest_norm)
        return Asked(values, squares, factors, facts), some

    def _in_two_calls(
        self, queries: np.ndarray, first: int, k: int, exclude: np.ndarray, most_threads: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `_scanned`, for fewer than FEW_QUERIES."""
        values, kept = values_of("queries", queries, self.distance, first), self._rows
        q, panels, kind = len(values), len(self._codes), KINDS[self.distance]
        threads = max(1, min(self._threads_for(q, most_threads), panels))
        asked, dtype = values.dtype.name, kept.values.dtype.name
        call = certified_call.compiled(scanner(self.inner_loop, 1, asked, dtype), self.inner_loop, asked, dtype)
        longest, *begun = call.begin(kind, values, self._centre, self._codes.shape[1], threads, k)
        check_finite("queries", np.isfinite(begun[0]), first)
        check_range(self.distance, longest, self._largest_norm)
        of_rows = self._codes, self._facts, kept.values, kept.squares, kept.factors, self._centre_length
        all_ = kind, values, *begun, *of_rows, exclude, rescore_budget(self._n, k), *self._chunks(k)
        results = np.empty((q, k), np.int64), np.empty((q, k)), np.empty(q, np.int64)
        finish_on_threads(call.finish, threads, (*all_, *results))
        return results

    def _threads_for(self, q: int, most: int | None) -> int:
        return max(1, min(most or numba.get_num_threads(), q * self._codes.size // _WORK_PER_THREAD))

    def _scanned(
        self, queries: np.ndarray, first: int, k: int, exclude: np.ndarray, most_threads: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows and float64 distances (q, k), in order, and how many rows were rescored, negative, less one, where the
        query must go to the float32 engine. first: number of the first query.

        Many queries are dealt out to the threads; of few, each thread scans its own stretch of the gallery.
        """
        asked, some = self._points(queries, first)
        q, budget = len(some), rescore_budget(self._n, k)
        together, layers = (1, 2) if q < FEW_QUERIES else (queries_together(self.inner_loop), 1)
        kept = self._rows
        scan = scanner(self.inner_loop, together, asked.values.dtype.name, kept.values.dtype.name)
        coded = partial(coded_queries, self.inner_loop, together=together, layers=layers, steps=self._codes.shape[1])
        threads = self._threads_for(q, most_threads)
        blocks = -(-q // together)
        by_query = q >= QUERIES_PER_THREAD * threads
        total = blocks if by_query else len(self._codes)
        threads = max(1, min(threads, total))
        shared = None if by_query else coded(some)

        def part(begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            lines = slice(begin * together, end * together) if by_query else slice(None)
            panels, first = (slice(None), 0) if by_query else (slice(begin, end), begin * ROWS)
            codes, starts, terms = shared or coded(some[lines])
            scratch = self._scratch(together, len(codes), k)
            mine = asked.part(lines)
            near, who = np.empty((len(mine.values), k)), np.empty((len(mine.values), k), np.int64)
            rescored = np.empty(len(mine.values), np.int64)
            scan(
                *(KINDS[self.distance], *mine, codes, starts, terms.copy() if shared else terms),
                *(self._codes[panels], self._facts[panels], kept.values, kept.squares, kept.factors),
                *(self._centre_length, first, k, exclude[lines], budget, *scratch[:3], near, who, rescored),
                *scratch[3:],
            )
            self._idle.append(scratch)
            return who, near, rescored

        bounds = [total * share // threads for share in range(threads + 1)]
        parts = on_threads([partial(part, *stretch) for stretch in pairwise(bounds)])
        if by_query:
            who, near, counts = (np.concatenate(each) for each in zip(*parts, strict=True))
        else:
            who, near = (np.concatenate([one[place] for one in parts], axis=1) for place in (0, 1))
            each = np.stack([rescored for _, _, rescored in parts])
            counts = np.where(each < 0, -each - 1, each).sum(axis=0)
            counts = np.where((each < 0).any(axis=0), -counts - 1, counts)
        order = np.argsort(near, axis=1)
        near, who = (np.take_along_axis(each, order, axis=1) for each in (near, who))
        if (near[:, 1:] == near[:, :-1]).any():  # equal distances rank by row
            order = np.lexsort((who, near), axis=1)
            near, who = (np.take_along_axis(each, order, axis=1) for each in (near, who))
        return who[:, :k], near[:, :k], counts

    def _chunks(self, k: int) -> tuple[int, int, int]:
        """least, most and capacity of `scan`."""
        most = min(max(CHUNK_BYTES // max(self._codes[:1].size, 1), 1), CHUNK_ROWS // ROWS)
        # Nothing is known before k rows have been seen, so the first chunk is small, and chunks grow from there.
        return max(1, -(-2 * k // ROWS)), most, max(CAPACITY, 4 * k)

    def _scratch(self, together: int, blocks: int, k: int) -> tuple[Any, ...]:
        """least, most, capacity and the scratch arrays of `scan`.

        Kept from search to search, since fresh memory costs a page fault per 4 KiB.
        """
        least, most, capacity = self._chunks(k)
        # A group of queries at a time, so that their candidates stay in the cache as well.
        lines = together * min(GROUP, blocks)
        shapes = (lines, capacity + max(most, least) * ROWS), (lines, k)
        try:
            kept = self._idle.pop()  # atomic: two threads never get the same
            if (kept[3].shape, kept[4].shape) == shapes:
                return kept
        except IndexError:
            pass
        return (
            *(least, most, capacity, np.empty(shapes[0], np.uint64), np.empty(shapes[1], np.float64)),
            *(np.empty(lines, np.int64), aligned((together, ROWS), np.dtype(np.float32))),
            *(np.empty(together, np.uint32), np.empty(FOUR_ROWS, np.int64), np.empty(2 * FOUR_ROWS)),
        )

    def float32(self) -> Any:
        """The same gallery as an ExactIndex that scans the vectors; its panels are packed at the first call."""
        from retrieval_bench.search.index import ExactIndex

        if self._float32 is None:
            rows = self._rows.values.view()
            rows.flags.writeable = False  # so that it is referred to, not copied
            self._float32 = ExactIndex(rows, self.distance, kernel=self.kernel)
        return self._float32


def compile_for(inner_loop: str, dtype: str = "float32") -> None:
    """Compile, or load from the cache on disk, all that searches by this inner loop need."""
    with jit.announced():
        warm_up(dtype)
        compiled_shifts()
        quantiser()
        if inner_loop == "widened":
            fine_queries()
        certified_call.compiled(scanner(inner_loop, 1, "float32", dtype), inner_loop, "float32", dtype)
        scanner(inner_loop, queries_together(inner_loop), "float32", dtype)


def rescore_budget(n: int, k: int) -> int:
    """Rows that may be rescored for a query: past this the float32 engine is quicker."""
    return n // 16 + 8 * k + 256


def choose(q: int, n: int, dim: int, k: int, inner_loop: str) -> Literal["int8", "float32"]:
    """The quicker way to search q queries in n rows of random vectors, where codes are scanned by this inner loop.

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

    "widened" codes save less of a product, and without AVX-512 float64 takes twice as long: on a Zen 3, 2485 queries in
    2,640 x 512 took 1.13 times as long by codes with k = 10, 1000 in 20,000 x 2048 0.88 times, and 1000 in 100,000 x 64
    with k = 100 0.99 to 1.3 times. The plain loop never pays (16 times as long at 256 x 100,000 x 128).
    """
    if inner_loop == "plain" or q < 1 or dim > MOST_DIM:
        return "float32"
    results = k * (24 * dim + 18_000) * (5 if inner_loop == "widened" else 1)
    return "int8" if n * dim >= results else "float32"
