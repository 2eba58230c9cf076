"""The public door of search: checks what comes in, packs it, and hands it to the kernels.

Distances, all float32 and all small where near:
- cosine: 1 - similarity, from 0 to 2; the similarity with a zero vector is 0, so its distance is 1.
- euclidean: not squared; summed from the differences, so near-duplicates of large norm keep their order. Differences
  below about 1e-19 vanish (their squares leave float32).
- inner_product: the negated product.
- hamming: the number of differing bits.

Results are exact, and the same to the last bit for every thread count and however queries are grouped into calls.
Equal distances rank by gallery row; "equal" means the float32 values that are returned.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from retrieval_bench.core import BenchError, Distance, Ranking, Searcher
from retrieval_bench.registry import BACKENDS
from retrieval_bench.search.checks import (
    check_distance,
    check_exclude,
    check_finite,
    check_k,
    check_matrix,
    check_range,
)

_ROWS_AT_ONCE = 16_384  # gallery rows converted and packed at a time: the only copy beside the index itself
_SCRATCH_BYTES = 64 << 20  # what the candidates of one batch of queries may occupy
_WORK_PER_THREAD = 10_000_000  # multiply-adds; below this, starting a thread costs more than it saves


def topk(
    queries: np.ndarray, gallery: np.ndarray, k: int, distance: Distance = "cosine", exclude: np.ndarray | None = None
) -> Ranking:
    """The k nearest gallery rows of each query: `ExactIndex(gallery, distance).search(queries, k, exclude)`."""
    return ExactIndex(gallery, distance).search(queries, k, exclude)


class ExactIndex:
    """A gallery packed for exact search.

    gallery: (n, d) of any float or integer dtype for cosine, euclidean and inner_product (computed in float32); (n,
        bytes) packed uint8 for hamming. Non-contiguous, read-only and memory-mapped arrays are read in blocks and never
        written to. n may be 0; then every result is padding.
    distance: one of cosine, euclidean, inner_product, hamming.

    dim: columns of the gallery. bytes: what the index occupies; the gallery itself is not kept.
    Raises BenchError for NaN, inf, and any other shape, dtype or distance.
    """

    def __init__(self, gallery: np.ndarray, distance: Distance = "cosine") -> None:
        from retrieval_bench.search import kernels

        self.distance = check_distance(distance)
        gallery = check_matrix("gallery", gallery, distance)
        if len(gallery) > kernels.MOST_ROWS:
            raise BenchError(f"gallery has {len(gallery)} rows; at most {kernels.MOST_ROWS} are supported")
        self._n = len(gallery)
        self.dim = int(gallery.shape[1])
        panels = -(-self._n // kernels.PANEL)
        if distance == "hamming":
            self._panels = np.zeros((panels, -(-self.dim // 8), kernels.PANEL), np.uint64)
        else:
            self._panels = np.zeros((panels, _round_up(self.dim, kernels.STEP), kernels.PANEL), np.float32)
        self._largest_norm = 0.0
        for start in range(0, self._n, _ROWS_AT_ONCE):
            rows, norm = self._prepared("gallery", gallery[start : start + _ROWS_AT_ONCE], start)
            kernels.pack(rows, self._panels[start // kernels.PANEL :])
            self._largest_norm = max(self._largest_norm, norm)
        self.bytes = self._panels.nbytes

    def __len__(self) -> int:
        return self._n

    def search(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """The k nearest gallery rows of each query.

        queries: (q, d) as for the gallery; q may be 0.
        k: at least 1; where it exceeds what can be found, the rest is padded with -1 and inf.
        exclude: (q,) or (q, m) gallery rows that query i must not find, -1 for none.
        Runs on `numba.get_num_threads()` threads, fewer where there is little to do.
        """
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = check_exclude(exclude, len(queries), self._n)
        ranking = Ranking(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32))
        found = min(k, self._n)
        batch = _SCRATCH_BYTES // (24 * found + 1024)  # bytes per query: room for 2k keys, and k more sorted
        for start in range(0, len(queries), max(batch, 1)):
            batch_rows = slice(start, start + max(batch, 1))
            rows, norm = self._prepared("queries", queries[batch_rows], start)
            check_range(self.distance, norm, self._largest_norm)
            if found:
                indices, distances = self._nearest(rows, found, exclude[batch_rows])
                ranking.indices[batch_rows, :found] = indices
                ranking.distances[batch_rows, :found] = distances
        return ranking

    __call__ = search

    def _nearest(self, queries: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each thread finds the k nearest in its own stretch of the gallery; sorting the keys of all merges them."""
        import numba

        from retrieval_bench.search import kernels

        q = len(exclude)
        exclude = np.concatenate([exclude, np.full((len(queries) - q, exclude.shape[1]), -1)])
        work = len(queries) * self._panels.size
        threads = max(1, min(numba.get_num_threads(), len(self._panels), work // _WORK_PER_THREAD))
        bounds = [len(self._panels) * part // threads for part in range(threads + 1)]

        def scan(begin: int, end: int) -> np.ndarray:
            first = begin * kernels.PANEL
            n = min(end * kernels.PANEL, self._n) - first
            return kernels.scan(self.distance, queries, self._panels[begin:end], first, n, k, exclude)

        if threads == 1:
            keys = scan(*bounds)
        else:
            # Python threads around kernels that release the GIL, in place of Numba's own: no threading layer that a
            # fork or a second caller could upset. The calling thread takes the last stretch itself.
            with ThreadPoolExecutor(threads - 1) as pool:
                *others, last = pairwise(bounds)
                running = [pool.submit(scan, *stretch) for stretch in others]
                parts = [scan(*last), *(task.result() for task in running)]
            keys = np.concatenate(parts, axis=1)
        return kernels.unpack(np.sort(keys[:q], axis=1)[:, :k])

    def _prepared(self, name: str, block: np.ndarray, first: int) -> tuple[np.ndarray, float]:
        """A padded copy as the kernels want it (uint64 words; float32, of unit length for cosine) and the largest norm.

        first: the row of the argument that the block begins with, for the error.
        """
        from retrieval_bench.search import kernels

        width = self._panels.shape[1]
        if self.distance == "hamming":
            words = np.zeros((len(block), width), np.uint64)
            words.view(np.uint8)[:, : self.dim] = block
            return words, 0.0
        vectors = np.zeros((_round_up(len(block), kernels.STEP), width), np.float32)
        with np.errstate(over="ignore"):
            vectors[: len(block), : self.dim] = block
        norms = kernels.norms(vectors)
        check_finite(name, np.isfinite(norms), first)
        if self.distance == "cosine":
            kernels.normalise(vectors, norms)
        return vectors, float(norms.max(initial=0.0))


def warm_up(distance: Distance = "cosine") -> None:
    """Compile, or load from Numba's cache, all that a search by this distance needs, on a tiny gallery."""
    dtype = np.uint8 if distance == "hamming" else np.float32
    topk(np.ones((1, 8), dtype), np.ones((2, 8), dtype), 1, distance)


@BACKENDS("exact", about="exact search in compiled code on all threads; the same bits every time")
def exact(gallery: np.ndarray, distance: Distance = "cosine") -> Searcher:
    return ExactIndex(gallery, distance)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
