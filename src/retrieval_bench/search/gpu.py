"""Exact search with candidates from a GPU: the same results as the engine. Runs on the CPU, too.

A GPU multiplies matrices fast, but adds in an order of its own. As in the engine's own scans, it therefore only finds
candidates, and float64 distances decide (`rescore.py`):

1. `torch.matmul` in full float32 (no TF32), tile by tile of the gallery's points; the `capacity` best values of each
   query are kept.
2. A row is passed over only where no rounding could have made it one of the k nearest.
3. Of all others, k and a few more, the CPU computes the float64 distances. Equal distances rank by row.

**The bound.** In the words of `bounds.py`: the value v of a query's point p and a row's point y is the device's <p, y>,
for cosine and the euclidean distance less |y|^2 / 2. A sum of d products, added in any order, with or without fused
multiply-adds, errs by at most g(d) |p||y| (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002,
section 3.1), and by a little more where a device takes tiny numbers for 0; |y|^2 / 2 adds two roundings: `_errors`,
with the greatest |y| of the gallery. For inner products the errors of the points, step 4 of `bounds.py`, come on top.
So v plus that error is a score without rounding errors, and `score_limit` tells what it must reach.

Where more rows may be nearest than were kept (many ties, rows that float32 cannot tell apart), and where k is so large
that most of the gallery would be rescored, the query goes to the engine. Each rescored distance is compared with the
bound, so that a device whose products are not full float32 is found out and not used again.

Hamming distances are whole numbers: xor and bit counts on the device give them exactly, and nothing is left to rescore.
"""

from __future__ import annotations

import logging
from typing import Any

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
    room_for,
)
from retrieval_bench.search.float_mode import tiny_numbers_kept
from retrieval_bench.system.device import Portion, check_device, free_bytes, full_float32, out_of_memory

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


class TorchIndex:
    """The points of a gallery on a device, and beside them its rows on the CPU; finds exactly what ExactIndex finds.

    gallery, distance: as for ExactIndex. device: "cpu", "cuda" or "cuda:1".
    Where the gallery does not fit into the device's memory it stays where it is and is copied tile by tile in each
    search. Tiles are as large as a quarter of the free memory allows, and halved where that is too much.
    Raises BenchError for a device that is not there, and whatever ExactIndex raises it for.
    """

    @tiny_numbers_kept
    def __init__(self, gallery: np.ndarray, distance: Distance = "cosine", device: str = "cpu") -> None:
        from retrieval_bench.search.keys import MOST_ROWS

        self.distance = check_distance(distance)
        gallery = check_matrix("gallery", gallery, distance)
        if len(gallery) > MOST_ROWS:
            raise BenchError(f"gallery has {len(gallery)} rows; at most {MOST_ROWS} are supported")
        self.device = check_device(device)
        self._n, self.dim = len(gallery), int(gallery.shape[1])
        self._engine: Any = None
        self._trusted = self.dim <= MOST_DIM
        self._kept: Any = None
        compared = _words(gallery) if distance == "hamming" else self._points(gallery)
        self._portion = Portion("torch backend: distances", self._cells(), LEAST_CELLS)
        self._there = self._on_device(compared, "the gallery")
        if distance in ("cosine", "euclidean"):
            with np.errstate(over="ignore"):  # such a gallery is refused when it is searched
                self._halves = self._on_device(self._half_squares.astype(np.float32), "its lengths")

    def __len__(self) -> int:
        return self._n

    @property
    def bytes(self) -> int:
        own = self._there.numel() * self._there.element_size() + (0 if self._kept is None else self._kept.bytes)
        return int(own) + (0 if self._engine is None else self._engine.bytes - self._kept.values.nbytes)

    @tiny_numbers_kept
    def search(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """The k nearest gallery rows of each query; arguments and result as for ExactIndex.search."""
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = check_exclude(exclude, len(queries), self._n)
        ranking = room_for(len(queries), k, self._n)
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
        from retrieval_bench.search.bounds import LENGTH, SQUARE
        from retrieval_bench.search.points import points, values_of
        from retrieval_bench.search.settling import Asked, settled

        values = values_of("queries", block, self.distance, first)
        some, squares, factors, facts = points(self.distance, values, self._centre, queries=True)
        check_finite("queries", np.isfinite(squares), first)
        check_range(self.distance, float(facts[:, LENGTH].max(initial=0.0)), self._largest)
        capacity = 2 * k + SPARE
        if capacity >= self._n or not self._trusted:
            exact = self._float32().search(block, max(k, 1), exclude)
            return exact.indices[:, :k], exact.distances[:, :k]
        best, rows = self._portion.attempt(lambda cells: self._best(some, capacity, exclude, cells))
        asked = Asked(values, squares, factors, facts)
        errors = self._errors(np.sqrt(facts[:, SQUARE]))
        found = settled(
            *(asked, self._kept, exclude, _keys(best, rows), k),
            slack=errors,
            g=0.0,
            centre_length=float(np.sqrt((self._centre**2).sum())),
        )
        indices, distances = found.rows, found.distances.astype(np.float32)
        again = found.doubtful
        if not self._within_bound(found.rows, found.distances, rows, best, facts, errors):
            self._trusted = False
            log.warning(
                "torch backend: products on %s are not full float32 (is some setting for TF32 or bfloat16 on?); "
                "the engine on the CPU takes over",
                self.device,
            )
            again = np.arange(len(block))
        if len(again):
            exact = self._float32().search(block[again], k, exclude[again])
            indices[again], distances[again] = exact.indices, exact.distances
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
                if self.distance != "inner_product":
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

    def _errors(self, lengths: np.ndarray) -> np.ndarray:
        """(q,) float64: by how much a score without rounding errors may exceed the device's value.

        lengths: |p| of each query.
        """
        most = self._greatest_point
        error = _g(self.dim + 2) * lengths * most
        if self.distance == "inner_product":
            error = error + self._shift
        else:
            error = error + 4.0 * _U * (lengths * most + most * most)
        # A device may take numbers below 2^-126 for 0: factors, products and sums.
        return error * 1.000001 + (self.dim + 4) * 2.0**-124 * (1.0 + lengths + most)

    def _within_bound(
        self, found: np.ndarray, distances: np.ndarray, rows: np.ndarray, values: np.ndarray, facts: np.ndarray,
        errors: np.ndarray,
    ) -> bool:  # fmt: skip
        """Whether no float64 distance is farther from the device's value than the bound allows.

        found, distances: (q, k) what was settled. rows, values: (q, capacity) from the device.
        """
        from retrieval_bench.search.bounds import ALONG, LENGTH, SQUARE

        queries = np.arange(len(found))[:, None]
        numbers = (queries * self._n + rows).ravel()  # of pairs of a query and a row, all different
        order = np.argsort(numbers)
        wanted = queries * self._n + found
        place = order[np.searchsorted(numbers, wanted, sorter=order).clip(max=len(order) - 1)]
        known = values.ravel()[place].astype(np.float64)
        length, square, along = (facts[:, column, None] for column in (LENGTH, SQUARE, ALONG))
        # The device never finds rows of zeros, and what it finds for a query of zeros tells nothing: by definition it
        # is at one distance from all rows, under cosine and inner product.
        seen = (found >= 0) & (numbers[place] == wanted) & np.isfinite(known)
        if self.distance != "euclidean":
            seen &= length > 0.0
        distances = np.where(seen, distances, 0.0)
        centre = float(np.sqrt((self._centre**2).sum()))
        in_float64 = (self.dim + 64) * 2.0**-50  # relative to the lengths of centre and vectors
        if self.distance == "inner_product":
            reached = distances / np.where(length > 0.0, length, 1.0)
            exact, tolerance = -reached - along, (np.abs(reached) + 2.0 * centre) * in_float64
        else:
            apart = np.sqrt(2.0 * distances) if self.distance == "cosine" else distances
            exact = (square - apart * apart) / 2.0
            moved = 2.0 * _U * (np.sqrt(square) + self._greatest_point) + in_float64 * (1.0 + centre + apart)
            tolerance = moved * (apart + moved) + (square + apart * apart) * 2.0**-38
        away = np.abs(exact[seen] - known[seen])
        return bool((away <= (tolerance + 2.0 * errors[:, None])[seen]).all())

    def _float32(self) -> Any:
        """The same gallery in the engine, packed when it is first needed."""
        from retrieval_bench.search.index import ExactIndex

        if self._engine is None:
            rows = self._kept.values.view()
            rows.flags.writeable = False  # so that it is referred to, not copied
            self._engine = ExactIndex(rows, self.distance)
        return self._engine

    def _points(self, gallery: np.ndarray) -> np.ndarray:
        """The points of the gallery; sets what is kept of it."""
        from retrieval_bench.search import points, rescore
        from retrieval_bench.search.bounds import LENGTH, SQUARE, compiled_shifts
        from retrieval_bench.search.kernels import KINDS
        from retrieval_bench.search.settling import Kept

        self._kept = Kept.for_gallery(self.distance, gallery)
        points.warm_up(self._kept.values.dtype.name)
        rescore.compiled("float32", self._kept.values.dtype.name)  # nothing compiles in a search
        self._centre = points.find_centre(self.distance, gallery)
        compared, squares = np.empty(gallery.shape, np.float32), np.empty(self._n)
        self._largest = self._shift = 0.0
        for start in range(0, self._n, _ROWS_AT_ONCE):
            part = slice(start, min(start + _ROWS_AT_ONCE, self._n))
            compared[part], facts, given = self._kept.take(gallery[part], part, self._centre)
            squares[part] = facts[:, SQUARE]
            self._largest = max(self._largest, float(facts[:, LENGTH].max(initial=0.0)))
            if self.distance == "inner_product":
                shifts = np.empty(len(facts), np.float32)
                length = float(np.sqrt((self._centre**2).sum()))
                compiled_shifts()(KINDS[self.distance], facts, given, self.dim, length, shifts)
                self._shift = max(self._shift, float(shifts.max(initial=0.0)))
        self._kept.complete()
        self._half_squares = squares / 2
        self._half_squares[self._kept.zeros] = np.inf  # the device never finds them: all are at a distance of 1
        self._greatest_point = float(np.sqrt(squares.max(initial=0.0)))
        return compared

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


def _keys(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(q, c) float32 values, descending, and rows -> keys of the engine, EMPTY where a value is -inf."""
    from retrieval_bench.search.keys import EMPTY

    bits = (0.0 - values).astype(np.float32).view(np.uint32)
    mirrored = np.where(bits >> np.uint32(31), np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    keys = ((bits ^ mirrored).astype(np.uint64) << np.uint64(32)) | rows.astype(np.uint64)
    keys[~np.isfinite(values)] = EMPTY
    return np.sort(keys, axis=1)


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


@BACKENDS(
    "torch", about="exact search with candidates from --device by matrix product; the same bits as `exact`", exact=True
)
def torch_(gallery: np.ndarray, distance: Distance = "cosine", *, device: str = "cpu") -> Searcher:
    """A gallery on a device.

    Args:
        gallery: (n, d) rows to search in.
        distance: by which they are compared.
        device: where products are computed; `run` gives it what --device says.
    """
    return TorchIndex(gallery, distance, device)
