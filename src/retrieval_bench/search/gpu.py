"""Exact search with candidates from a GPU: the same results as the float32 engine, bit for bit. Runs on the CPU, too.

A GPU multiplies matrices fast, but adds in an order of its own, so that its last bits are not the engine's. As in
`certified.py`, it therefore only finds candidates, and the engine's own arithmetic rescores them:

1. `torch.matmul` in full float32 (no TF32), tile by tile of the gallery; the `capacity` best values of each query
   are kept.
2. A row is passed over only where no rounding, of the GPU or of the engine, could have made it one of the k nearest.
3. All others, k and a few more, are computed on the CPU as the engine computes them. Equal distances rank by row.

**The bound.** Write |.| for the Euclidean length, u = 2^-24, g(n) = n u / (1 - n u). A sum of d products, added in any
order, with or without fused multiply-adds, errs by at most g(d) |q||x| (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed. 2002, section 3.1), and by a little more where a device takes tiny numbers for 0: `_errors`. The
engine's value f is such a sum, and so is the device's value v. With X the greatest |x| of the gallery and e the bound
of one such error, |v - f| <= 2e. Let T be the k-th best v: k rows have f >= T - 2e, and v < T - 4e means an f below
theirs.
- inner_product: the distance is 0 - f, without rounding.
- cosine: max(1 - f, 0) is rounded, by 2^-23 at most, and cut off; so T - 2e is cut off at 1, and 2^-21 taken off.
- euclidean: v stands for s = <q,x> - |x|^2 / 2, with two roundings more. The true square is |q|^2 - 2s, and the
  engine's distance, which is *defined* by the differences, has a square within 1 +- g(d + 8) of it: `_limits`.

Where more rows pass than were kept (many ties, near-duplicates of large norm), and where k is so large that most
of the gallery would be rescored, the query goes to the float32 engine. Each rescored distance is compared with the
bound, so that a device whose products are not full float32 is found out and not used again.

Hamming distances are whole numbers: xor and bit counts on the device give them exactly, and nothing is left to rescore.
"""

from __future__ import annotations

import functools
import logging
from itertools import pairwise
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Distance, Ranking, Searcher
from retrieval_bench.registry import BACKENDS
from retrieval_bench.search.checks import check_distance, check_exclude, check_k, check_matrix, check_range
from retrieval_bench.system.device import Portion, check_device, free_bytes, full_float32, on_gpu, out_of_memory

log = logging.getLogger("retrieval_bench")

QUERIES_AT_ONCE = 1024
SPARE = 64  # values kept beyond 2k of each query, for rows that float32 cannot tell from the k-th
CELL_BYTES = 48  # of a query and a row that meet on the device, the workspace of top-k included
CPU_CELLS = 1 << 21
MOST_CELLS = 1 << 27
LEAST_CELLS = 1 << 14
MOST_DIM = 1 << 20  # beyond it, the bound says too little
_U = 2.0**-24
_NOBODY = 1 << 62  # a key behind all others
_ROWS_AT_ONCE = 16_384
_SETTLED_PER_THREAD = 2_000_000  # multiply-adds; below this, starting a thread costs more than it saves


class TorchIndex:
    """A gallery on a device, and beside it the rows in float32 on the CPU; finds exactly what ExactIndex finds.

    gallery, distance: as for ExactIndex. device: "cpu", "cuda" or "cuda:1".
    Where the gallery does not fit into the device's memory it stays where it is and is copied tile by tile in each
    search. Tiles are as large as a quarter of the free memory allows, and halved where that is too much.
    Raises BenchError for a device that is not there, and whatever ExactIndex raises it for.
    """

    def __init__(self, gallery: np.ndarray, distance: Distance = "cosine", device: str = "cpu") -> None:
        from retrieval_bench.search.kernels import MOST_ROWS

        self.distance = check_distance(distance)
        gallery = check_matrix("gallery", gallery, distance)
        if len(gallery) > MOST_ROWS:
            raise BenchError(f"gallery has {len(gallery)} rows; at most {MOST_ROWS} are supported")
        self.device = check_device(device)
        self._n, self.dim = len(gallery), int(gallery.shape[1])
        self._engine: Any = None
        self._trusted = self.dim <= MOST_DIM
        self._rows = _words(gallery) if distance == "hamming" else self._prepared_gallery(gallery)
        if distance != "hamming":
            from retrieval_bench.search.rescore import compiled_rescore

            compiled_rescore()  # nothing compiles in a search
        self._portion = Portion("torch backend: distances", self._cells(), LEAST_CELLS)
        self._there = self._on_device(self._rows, "the gallery")
        if distance == "euclidean":
            with np.errstate(over="ignore"):  # such a gallery is refused when it is searched
                self._halves = self._on_device((self._norms**2 / 2).astype(np.float32), "its lengths")

    def __len__(self) -> int:
        return self._n

    @property
    def bytes(self) -> int:
        copies = 2 if on_gpu(self.device) and self._there is not None else 1
        return copies * self._rows.nbytes + (0 if self._engine is None else self._engine.bytes)

    def search(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """The k nearest gallery rows of each query; arguments and result as for ExactIndex.search."""
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = np.sort(check_exclude(exclude, len(queries), self._n), axis=1)
        ranking = Ranking(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32))
        nearest = self._nearest_codes if self.distance == "hamming" else self._nearest_vectors
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, min(start + QUERIES_AT_ONCE, len(queries)))
            found = nearest(queries[part], min(k, self._n), exclude[part], start)
            ranking.indices[part, : min(k, self._n)], ranking.distances[part, : min(k, self._n)] = found
        return ranking

    __call__ = search

    # --- vectors

    def _nearest_vectors(self, block: np.ndarray, k: int, exclude: np.ndarray, first: int) -> Any:
        """-> (rows (q, k), distances (q, k))"""
        from retrieval_bench.search import kernels
        from retrieval_bench.search.certified import prepared

        queries, norms = prepared("queries", block, self.distance, first)
        check_range(self.distance, float(norms.max(initial=0.0)), self._largest)
        capacity = 2 * k + SPARE
        if capacity >= self._n or not self._trusted:
            exact = self._float32().search(block, max(k, 1), exclude)
            return exact.indices[:, :k], exact.distances[:, :k]
        values, rows = self._portion.attempt(lambda cells: self._best(queries, capacity, exclude, cells))
        if self.distance == "cosine":
            norms = np.full(len(norms), _UNIT)
        limits = self._limits(values[:, k - 1].astype(np.float64), norms)
        passed = values >= limits[:, None]
        passed &= np.isfinite(values)
        overflowing = passed[:, -1]
        passed = passed[:, : int(passed[~overflowing].sum(axis=1).max(initial=1))]
        at = np.where(passed, rows[:, : passed.shape[1]], -1)
        at[overflowing] = -1
        keys = self._rescored(queries, at)
        if not self._within_bound(keys, values[:, : at.shape[1]], norms):
            self._trusted = False
            log.warning(
                "torch backend: products on %s are not full float32 (is some setting for TF32 or bfloat16 on?); "
                "the float32 engine on the CPU takes over",
                self.device,
            )
            overflowing = np.ones(len(block), bool)
        keys = np.sort(keys, axis=1)[:, :k]
        if keys.shape[1] < k:
            keys = np.pad(keys, ((0, 0), (0, k - keys.shape[1])), constant_values=kernels.EMPTY)
        indices, distances = kernels.unpack(keys)
        if overflowing.any():
            exact = self._float32().search(block[overflowing], k, exclude[overflowing])
            indices[overflowing], distances[overflowing] = exact.indices, exact.distances
        return indices, distances

    def _best(
        self, queries: np.ndarray, capacity: int, exclude: np.ndarray, cells: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `capacity` largest values of each query, descending, and their rows: float32 and int64 (q, capacity)."""
        import torch

        step = max(1, cells // len(queries))
        with full_float32(), torch.inference_mode():
            there = torch.from_numpy(queries).to(self.device)
            values = torch.empty((len(queries), 0), device=self.device)
            rows = torch.empty((len(queries), 0), dtype=torch.int64, device=self.device)
            for begin in range(0, self._n, step):
                end = min(begin + step, self._n)
                found = self._products(there, self._tile(begin, end))
                if self.distance == "euclidean":
                    found -= self._halves[begin:end].to(self.device)
                _exclude(found, exclude, begin, end, -np.inf)
                best = found.topk(min(capacity, end - begin), dim=1)
                values = torch.cat([values, best.values], dim=1)
                rows = torch.cat([rows, best.indices + begin], dim=1)
                if values.shape[1] > capacity:
                    values, order = values.topk(capacity, dim=1)
                    rows = rows.gather(1, order)
            return values.cpu().numpy(), rows.cpu().numpy()

    @staticmethod
    def _products(queries: Any, tile: Any) -> Any:
        return queries @ tile.T

    def _errors(self, norms: np.ndarray) -> np.ndarray:
        """(q,) float64: what the device's value, and the engine's sum, can each be away from the true value."""
        most = _UNIT if self.distance == "cosine" else self._largest
        error = _g(self.dim + 2) * norms * most
        if self.distance == "euclidean":
            error = error + 4.0 * _U * (norms * most + most * most)
        # A device may take numbers below 2^-126 for 0: factors, products and sums.
        return error * 1.000001 + (self.dim + 4) * 2.0**-124 * (1.0 + norms + most)

    def _limits(self, kth: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """(q,) float64: a row whose value is below it is strictly farther than k others, in the engine's distances.

        kth: (q,) the k-th largest value, -inf where there are fewer. norms: (q,) lengths of the queries.
        """
        error = self._errors(norms)
        if self.distance == "cosine":
            return np.minimum(kth - 2.0 * error, 1.0) - 2.0 * error - 2.0**-21
        if self.distance == "inner_product":
            return kth - 4.0 * error
        squares = norms * norms * (1.0 + 2.0**-40)
        slack = _g(self.dim + 8)
        reached = np.maximum(squares - 2.0 * (kth - error), 0.0)
        farther = reached * (1.0 + slack) / (1.0 - slack) * (1.0 + 2.0**-40) + (self.dim + 8) * 2.0**-140
        with np.errstate(invalid="ignore"):  # inf - inf where there are fewer than k
            limit = (norms * norms * (1.0 - 2.0**-40) - farther) / 2.0 - error - (squares + reached) * 2.0**-40
        return np.where(np.isfinite(kth), limit, -np.inf)

    def _within_bound(self, keys: np.ndarray, values: np.ndarray, norms: np.ndarray) -> bool:
        """Whether no rescored distance is farther from the device's value than the bound allows."""
        from retrieval_bench.search import kernels

        rows, near = kernels.unpack(keys)
        near = near.astype(np.float64)
        tolerance = np.broadcast_to(2.0 * self._errors(norms)[:, None], near.shape)
        rescored = rows >= 0
        if self.distance == "cosine":
            rescored = rescored & (near > 0)  # else it was cut off
            tolerance, product = tolerance + 2.0**-22, 1.0 - near
        elif self.distance == "inner_product":
            product = -near
        else:
            product = (norms[:, None] ** 2 - near * near) / 2.0
            with np.errstate(invalid="ignore", over="ignore"):
                tolerance = tolerance + (_g(self.dim + 8) + 2.0**-38) * (near * near + norms[:, None] ** 2)
        return bool((np.abs(product[rescored] - values[rescored].astype(np.float64)) <= tolerance[rescored]).all())

    def _rescored(self, queries: np.ndarray, at: np.ndarray) -> np.ndarray:
        """(q, m) rows, -1 for none -> (q, m) keys in the engine's arithmetic, on all threads."""
        import numba

        from retrieval_bench.search.kernels import KINDS
        from retrieval_bench.search.rescore import compiled_rescore
        from retrieval_bench.search.threads import on_threads

        keys = np.empty(at.shape, np.uint64)
        rescore = compiled_rescore()
        threads = max(1, min(numba.get_num_threads(), at.size * self.dim // _SETTLED_PER_THREAD, len(at)))
        bounds = [len(at) * share // threads for share in range(threads + 1)]
        at = np.ascontiguousarray(at)

        def part(begin: int, end: int) -> None:
            rescore(KINDS[self.distance], queries[begin:end], self._rows, at[begin:end], keys[begin:end])

        on_threads([functools.partial(part, begin, end) for begin, end in pairwise(bounds)])
        return keys

    def _float32(self) -> Any:
        """The same gallery in the float32 engine, packed when it is first needed."""
        from retrieval_bench.search.index import ExactIndex

        if self._engine is None:
            self._engine = ExactIndex.of_prepared(self._rows, self.distance)
        return self._engine

    def _prepared_gallery(self, gallery: np.ndarray) -> np.ndarray:
        """Float32 rows with the engine's bits; sets _norms (n,) and _largest, of the rows as they were given."""
        from retrieval_bench.search.certified import prepared

        rows = np.empty(gallery.shape, np.float32)
        self._norms = np.empty(len(gallery))
        for start in range(0, self._n, _ROWS_AT_ONCE):
            part = slice(start, min(start + _ROWS_AT_ONCE, self._n))
            rows[part], self._norms[part] = prepared("gallery", gallery[part], self.distance, start)
        self._largest = float(self._norms.max(initial=0.0))
        return rows

    # --- codes

    def _nearest_codes(self, block: np.ndarray, k: int, exclude: np.ndarray, first: int) -> Any:
        if not k:
            return np.empty((len(block), 0), np.int64), np.empty((len(block), 0), np.float32)
        words = _words(block)
        keys = self._portion.attempt(lambda cells: self._smallest(words, k, exclude, cells))
        empty = keys == _NOBODY
        return np.where(empty, -1, keys & 0xFFFFFFFF), np.where(empty, np.inf, keys >> 32).astype(np.float32)

    def _smallest(self, queries: np.ndarray, k: int, exclude: np.ndarray, cells: int) -> np.ndarray:
        """(q, k) int64 keys, the number of differing bits in the upper half and the row in the lower; ascending."""
        import torch

        step = max(1, cells // len(queries))
        with torch.inference_mode():
            there = torch.from_numpy(queries).to(self.device)
            keys = torch.empty((len(queries), 0), dtype=torch.int64, device=self.device)
            for begin in range(0, self._n, step):
                end = min(begin + step, self._n)
                tile = self._tile(begin, end)
                differing = torch.zeros((len(queries), end - begin), dtype=torch.int32, device=self.device)
                for word in range(there.shape[1]):
                    differing += bit_counts(there[:, word, None] ^ tile[None, :, word])
                found = differing.long() << 32
                found |= torch.arange(begin, end, device=self.device)
                _exclude(found, exclude, begin, end, _NOBODY)
                keys = torch.cat([keys, found], dim=1)
                keys = keys.topk(min(k, keys.shape[1]), dim=1, largest=False).values  # all different, so no ties
            return keys.cpu().numpy()  # type: ignore[no-any-return]

    # --- the device

    def _cells(self) -> int:
        return max(LEAST_CELLS, min(MOST_CELLS, free_bytes(self.device, 4 * CPU_CELLS * CELL_BYTES) // 4 // CELL_BYTES))

    def _on_device(self, array: np.ndarray, what: str) -> Any:
        """As a tensor; on the CPU where the device has no memory for it."""
        import torch

        here = torch.from_numpy(array)
        try:
            return here.to(self.device)
        except out_of_memory():
            log.warning(
                "torch backend: %s does not fit into the memory of %s and is copied in parts", what, self.device
            )
        return here

    def _tile(self, begin: int, end: int) -> Any:
        return self._there[begin:end].to(self.device)


_UNIT = 1.0 + 2.0**-20  # no row divided by its length is longer, after rounding


def _g(n: int) -> float:
    return n * _U / (1.0 - n * _U)


def bit_counts(words: Any) -> Any:
    """The number of bits set in each int32, as int32; torch has no operation for it.

    First of each four bits, then of all: no sum reaches the sign bit, and masks take away what shifts bring in from it.
    """
    ones = 0x11111111
    fours = (words & ones) + ((words >> 1) & ones) + ((words >> 2) & ones) + ((words >> 3) & ones)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    eights = eights + (eights >> 8)
    return (eights + (eights >> 16)) & 0x3F


def _words(codes: np.ndarray) -> np.ndarray:
    """(n, bytes) uint8 -> (n, ceil(bytes / 4)) int32, filled up with zeros."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 4) * 4), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view(np.int32)


def _exclude(found: Any, exclude: np.ndarray, begin: int, end: int, value: float) -> None:
    """Set found[query, row - begin] for the exclude rows among begin..end; exclude: (q, m), -1 for none."""
    import torch

    queries, places = np.nonzero((exclude >= begin) & (exclude < end))
    if len(queries):
        rows = exclude[queries, places] - begin
        at = (torch.from_numpy(queries).to(found.device), torch.from_numpy(rows).to(found.device))
        found[at] = value


@BACKENDS("torch", about="exact search with candidates from --device by matrix product; the same bits as `exact`")
def torch_(gallery: np.ndarray, distance: Distance = "cosine", *, device: str = "cpu") -> Searcher:
    """A gallery on a device.

    Args:
        gallery: (n, d) rows to search in.
        distance: by which they are compared.
        device: where products are computed; `run` gives it what --device says.
    """
    return TorchIndex(gallery, distance, device)
