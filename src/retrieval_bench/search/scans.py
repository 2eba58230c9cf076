"""What one search consists of: pieces of gallery, packed queries, and the scans that bring the two together.

A search cuts its work into shares, one for each thread. A share has packed queries, and a scan (`Nearest` or `Within`)
that meets one piece of the gallery after the other and remembers what it found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.search.checks import check_finite, check_range

if TYPE_CHECKING:
    from retrieval_bench.search import kernels

FOUND_AT_ONCE = 1 << 16  # neighbours within a radius that a thread writes down before it hands them over


class Layout(NamedTuple):
    """How an index holds vectors.

    dim: columns as given. width: of them in memory (words of 64 bits for hamming). value: what they consist of there.
    """

    distance: Distance
    engine: kernels.Engine
    dim: int
    width: int
    value: np.dtype


class Piece(NamedTuple):
    """n gallery rows from `first` on, as kernels.scan takes them; largest: the greatest length among them."""

    panels: np.ndarray
    starts: np.ndarray
    first: int
    n: int
    largest: float


class Turns:
    """Who scans which panels of a piece: threads take turns, so that whoever is held up leaves more to the others.

    work_counter: (1,) int64, the next panel to be taken. step: how many are taken at a time; a megabyte at least.
    """

    def __init__(self, piece: Piece, threads: int) -> None:
        turns = max(threads, min(piece.panels.nbytes >> 20, 16 * threads)) if threads > 1 else 1
        self.work_counter, self.step = np.zeros(1, np.int64), -(-len(piece.panels) // turns)


class Queries:
    """Some rows of the argument `queries`, packed when they are needed (on the thread that needs them)."""

    def __init__(self, layout: Layout, queries: np.ndarray, rows: slice, exclude: np.ndarray) -> None:
        self.layout, self._block, self.rows = layout, queries[rows], rows
        self.exclude = exclude[rows]
        self.kind: int
        self.largest = -1.0

    def prepare(self) -> None:
        from retrieval_bench.search import kernels

        if self.largest >= 0:
            return
        layout = self.layout
        q, dim, blocks = len(self._block), layout.width, layout.engine.kernel.blocks
        whole, most = q // blocks[-1], blocks[-1]
        last = next((size for size in blocks if size >= q - whole * most), 0) if q > whole * most else 0
        self.packed = aligned((dim * (whole * most + last),), layout.value)
        cut = dim * whole * most
        lengths = np.zeros(whole * most + last)
        for flat, begin, end, lanes in (
            (self.packed[:cut], 0, whole * most, most),
            (self.packed[cut:], whole * most, q, last),
        ):
            if end > begin:
                panels = flat.reshape(-1, dim, lanes)
                some = fill(layout, "queries", self._block[begin:end], self.rows.start + begin, panels)
                lengths[begin : begin + len(some)] = some
        self.kind = kernels.KINDS[layout.distance]
        self.squares = lengths[:q] ** 2
        self.padded = len(lengths)
        self.largest = float(lengths.max(initial=0.0))


class Share(NamedTuple):
    """What one thread does: `queries` against all of the gallery, or, together with others, against some of it.

    base: row at which the batch of queries begins.
    """

    queries: Queries
    base: int
    together: bool


class _Scan:
    """What one thread remembers from piece to piece of the gallery."""

    def __init__(self, share: Share) -> None:
        self._engine, self.share = share.queries.layout.engine, share

    def _begin(self, piece: Piece) -> None:
        from retrieval_bench.search import kernels

        queries = self.share.queries
        queries.prepare()
        check_range(queries.layout.distance, queries.largest, piece.largest)
        if not hasattr(self, "gates"):
            bits = queries.kind == kernels.HAMMING
            most = self._engine.kernel.blocks[-1]
            # Whatever fills up the last block is never near: nothing is below -inf, or below 0 bits.
            self.gates = np.full(queries.padded, 0 if bits else -np.inf, np.int64 if bits else np.float32)
            self.gates[: len(queries.exclude)] = kernels.NO_LIMIT if bits else np.inf
            self.scratch = (
                np.empty((most, kernels.PANEL), self.gates.dtype),
                np.zeros(most, np.uint64),
            )


class Nearest(_Scan):
    """The k nearest."""

    def __init__(self, share: Share, k: int, n: int) -> None:
        from retrieval_bench.search import kernels

        super().__init__(share)
        q = len(share.queries.exclude)
        self.k = k
        capacity = k if k <= kernels.FEW else min(2 * k, n)
        self.keys = np.empty((q, capacity), np.uint64)
        self.counts, self.limits = np.zeros(q, np.int64), np.full(q, np.inf, np.float32)

    def scan(self, piece: Piece, turns: Turns) -> None:
        self._begin(piece)
        queries = self.share.queries
        self._engine.scan(
            *(queries.kind, queries.packed, queries.squares, piece.panels, piece.starts, piece.first, piece.n),
            *(turns.work_counter, turns.step, self.k, queries.exclude, self.keys, self.counts, self.limits),
            *(self.gates, *self.scratch),
        )

    def smallest(self) -> np.ndarray:
        return self._engine.smallest(self.keys, self.counts, self.k)


class Within(_Scan):
    """All within a radius."""

    def __init__(self, share: Share, radius: np.float32) -> None:
        super().__init__(share)
        self.radius = radius
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def scan(self, piece: Piece, turns: Turns) -> None:
        self._begin(piece)
        queries = self.share.queries
        most_at_once = self._engine.kernel.blocks[-1] * piece.panels.shape[2]
        capacity = max(FOUND_AT_ONCE, most_at_once)
        rows, near, owners = np.empty(capacity, np.int64), np.empty(capacity, np.float32), np.empty(capacity, np.int64)
        radii = np.full(len(queries.exclude), self.radius, np.float32)
        offset = queries.rows.start - self.share.base
        at, found = np.zeros(2, np.int64), capacity
        while found + most_at_once > capacity:
            found = self._engine.collect(
                *(queries.kind, queries.packed, queries.squares, piece.panels, piece.starts, piece.first, piece.n),
                *(turns.work_counter, turns.step, at, queries.exclude, radii, rows, near, owners),
                *(self.gates, *self.scratch),
            )
            self._found.append((owners[:found] + offset, rows[:found].copy(), near[:found].copy()))

    def found(self) -> tuple[np.ndarray, ...]:
        """(query of the batch, gallery row, distance) of all."""
        nothing = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        return tuple(np.concatenate(column) for column in zip(nothing, *self._found, strict=True))


def merged(parts: list[Nearest], k: int) -> Iterator[tuple[slice, np.ndarray]]:
    """(queries, their k smallest keys, sorted): sorting the keys of all who had the same queries merges them."""
    if parts[0].share.together:
        keys = np.concatenate([part.smallest() for part in parts], axis=1)
        yield parts[0].share.queries.rows, np.sort(keys, axis=1)[:, :k]
    else:
        for part in parts:
            yield part.share.queries.rows, np.sort(part.smallest(), axis=1)


def fill(
    layout: Layout, name: str, block: np.ndarray, first: int, panels: np.ndarray, *, prepared: bool = False
) -> np.ndarray:
    """Fill zeroed panels with the rows as the kernels want them (of unit length for cosine) -> (rows,) lengths.

    first: the row of the argument that the block begins with, for the error. prepared: rows have their length already.
    """
    if layout.distance == "hamming":
        words = np.zeros((len(block), layout.width), np.uint64)
        words.view(np.uint8)[:, : layout.dim] = block
        layout.engine.pack(words, panels)
        return np.zeros(len(block))
    with np.errstate(over="ignore"):
        block = np.require(block, np.float32, ["C", "A"])
    layout.engine.pack(block, panels)
    lengths = np.empty(panels.shape[0] * panels.shape[2])
    layout.engine.lengths(panels, lengths)
    check_finite(name, np.isfinite(lengths[: len(block)]), first)
    if layout.distance == "cosine" and not prepared:
        layout.engine.normalise(panels, lengths)
    return lengths


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a cache line: a vector of 16 lanes then touches one line, not two."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    skip = -memory.ctypes.data % 64
    return memory[skip : skip + size].view(dtype).reshape(shape)
