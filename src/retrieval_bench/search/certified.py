"""Exact search at the speed of an int8 scan: the same results as a scan in float32.

The gallery is held as codes beside its rows. `certified_scan.py` finds the nearest in them, for certain; what codes
cannot tell goes to the scan in float32.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numba
import numpy as np

from retrieval_bench.core import BenchError, Distance, Ranking
from retrieval_bench.search import certified_call, emit, jit, kernels, keys, tile_loops
from retrieval_bench.search.bounds import LENGTH as NORM
from retrieval_bench.search.bounds import compiled_shifts
from retrieval_bench.search.caches import caches
from retrieval_bench.search.certified_scan import scanner
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
from retrieval_bench.search.code_loops import coded_queries, queries_together, steps_of
from retrieval_bench.search.first_look import FirstLook
from retrieval_bench.search.float_mode import tiny_numbers_kept
from retrieval_bench.search.kernels import KINDS
from retrieval_bench.search.lane_sums import TOGETHER as FOUR_ROWS
from retrieval_bench.search.points import find_centre, points, values_of, warm_up
from retrieval_bench.search.quantise import (
    FOUR,
    MOST_DIM,
    ROWS,
    quantiser,
)
from retrieval_bench.search.scans import aligned
from retrieval_bench.search.settling import Asked, Kept
from retrieval_bench.search.stats import LastSearch, ScanStats
from retrieval_bench.search.threads import finish_on_threads, on_threads
from retrieval_bench.search.widened_loops import fine_queries

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
