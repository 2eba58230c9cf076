"""What one search consists of: pieces of gallery, packed queries, and the scans that bring the two together.

A search cuts its work into shares, one for each thread. A share has packed queries, and a scan (`Nearest` or `Within`)
that meets one piece of the gallery after the other and remembers what it found.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.search.caches import LINE, caches
from retrieval_bench.search.checks import check_finite, check_range

if TYPE_CHECKING:
    from retrieval_bench.search import kernels
    from retrieval_bench.search.settling import Asked

POINTS_AT_ONCE = 1 << 18  # values of queries that are packed while they are in the first caches
FOUND_AT_ONCE = 1 << 16  # rows within a radius that a thread writes down before it hands them over


class Layout(NamedTuple):
    """How an index holds vectors.

    dim: columns as given. width: of them in memory (words of 64 bits for hamming). value: what they consist of there.
    centre: (dim,) float64, what is taken off all vectors before they are compared. centre_length: its length.
    """

    distance: Distance
    engine: kernels.Engine
    dim: int
    width: int
    value: np.dtype
    centre: np.ndarray
    centre_length: float


class Piece(NamedTuple):
    """n gallery rows from `first` on, as kernels.scan takes them; largest: the greatest length among them."""

    panels: np.ndarray
    starts: np.ndarray
    first: int
    n: int
    largest: float


class Turns:
    """Who scans which panels of a piece: threads take turns, so that whoever is held up leaves more to the others.

    work_counter: (1,) int64, the next panel to be taken. step: how many are taken at a time.
    """

    def __init__(self, piece: Piece, threads: int) -> None:
        self.work_counter, self.step = np.zeros(1, np.int64), turn_of(piece, threads)


def turn_of(piece: Piece, threads: int) -> int:
    """How many panels of a piece a thread takes at a time: a megabyte at least."""
    turns = max(threads, min(piece.panels.nbytes >> 20, 16 * threads)) if threads > 1 else 1
    return -(-len(piece.panels) // turns)


class Queries:
    """Some rows of the argument `queries`, packed when they are needed (on the thread that needs them).

    rows: which of the argument. exclude: what they must not find. Prepared, of vectors: values (q, d), squares,
    factors and facts as of `points.points`.
    """

    def __init__(self, layout: Layout, queries: np.ndarray, rows: slice, exclude: np.ndarray) -> None:
        self.layout, self._block, self.rows = layout, queries[rows], rows
        self.exclude = exclude[rows]
        self.largest = -1.0

    def __len__(self) -> int:
        return len(self.exclude)

    def prepare(self) -> None:
        if self.largest >= 0:
            return
        layout = self.layout
        q, dim, blocks = len(self._block), layout.width, layout.engine.kernel.blocks
        whole, most = q // blocks[-1], blocks[-1]
        last = next((size for size in blocks if size >= q - whole * most), 0) if q > whole * most else 0
        self.packed = aligned((dim * (whole * most + last),), layout.value)
        self.padded = whole * most + last
        largest, fill = 0.0, self._pack_words if layout.distance == "hamming" else self._pack_points
        if layout.distance != "hamming":
            from retrieval_bench.search.bounds import FACTS
            from retrieval_bench.search.points import values_of

            self.values = values_of("queries", self._block, layout.distance, self.rows.start)
            self.squares, self.factors, self.facts = np.empty(q), np.empty(q), np.empty((q, FACTS))
        step = max(1, POINTS_AT_ONCE // (dim * most)) * most
        for begin in [*range(0, whole * most, step), *([whole * most] if last else [])]:
            end = min(begin + step, whole * most) if begin < whole * most else q
            lanes = most if begin < whole * most else last
            panels = self.packed[begin * dim : (begin + -(-(end - begin) // lanes) * lanes) * dim]
            largest = max(largest, fill(slice(begin, end), panels.reshape(-1, dim, lanes)))
        self.largest = largest

    def _pack_words(self, some: slice, panels: np.ndarray) -> float:
        self.layout.engine.pack(words_of(self.layout, self._block[some]), panels)
        return 0.0

    def asked(self) -> Asked:
        """The same for float64 distances. Prepared, of vectors."""
        from retrieval_bench.search.settling import Asked

        return Asked(self.values, self.squares, self.factors, self.facts)

    def _pack_points(self, some: slice, panels: np.ndarray) -> float:
        """-> the greatest length of the queries in question."""
        from retrieval_bench.search.bounds import LENGTH
        from retrieval_bench.search.points import points

        layout = self.layout
        compared, self.squares[some], self.factors[some], self.facts[some] = points(
            layout.distance, self.values[some], layout.centre, queries=True
        )
        check_finite("queries", np.isfinite(self.squares[some]), self.rows.start + some.start)
        layout.engine.pack(compared, panels)
        return float(self.facts[some, LENGTH].max(initial=0.0))


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
            bits = queries.layout.distance == "hamming"
            most = self._engine.kernel.blocks[-1]
            # Whatever fills up the last block is never near: no score is above inf, and nothing is below 0 bits.
            self.gates = np.full(queries.padded, 0 if bits else np.inf, np.int64 if bits else np.float32)
            self.gates[: len(queries)] = kernels.NO_LIMIT if bits else -np.inf
            self.scratch = (
                np.empty((most, kernels.PANEL), self.gates.dtype),
                np.zeros(most + 1, np.uint64),
            )


class Room(NamedTuple):
    """What scans for the nearest write to, those of t threads with the same q queries side by side.

    strips, and how long a line of keys is: as of `kernels.plan`. keys: (t, q, c) uint64. counts: (t, q) int64.
    limits: (t, q) float32.
    """

    strips: bool
    keys: np.ndarray
    counts: np.ndarray
    limits: np.ndarray

    @classmethod
    def for_scans(cls, share: Share, k: int, n: int, threads: int) -> Room:
        from retrieval_bench.search import kernels

        queries, q = share.queries, len(share.queries)
        strips, capacity = kernels.plan(queries.layout.engine.kernel, q, k, n, queries.layout.width)
        keys, counts = np.empty((threads, q, capacity), np.uint64), np.zeros((threads, q), np.int64)
        return cls(strips, keys, counts, np.full((threads, q), np.inf, np.float32))


class Nearest(_Scan):
    """The k nearest, as a scan sees them."""

    def __init__(self, share: Share, k: int, n: int, room: Room | None = None, place: int = 0) -> None:
        """room: of all who have the same queries, of whom this is number `place`; by default one of its own."""
        super().__init__(share)
        self.k = k
        self.room = room or Room.for_scans(share, k, n, 1)
        self.keys, self.counts, self.limits = self.room.keys[place], self.room.counts[place], self.room.limits[place]

    def scan(self, piece: Piece, turns: Turns) -> None:
        self._begin(piece)
        queries = self.share.queries
        self._engine.scan(
            *(queries.packed, piece.panels, piece.starts, piece.first, piece.n, turns.work_counter, turns.step),
            *(self.room.strips, self.k, queries.exclude, self.keys, self.counts, self.limits),
            *(self.gates, *self.scratch),
        )

    def nearest(self) -> np.ndarray:
        """(q, k) keys of the nearest that all who have the same queries have found, ascending."""
        from retrieval_bench.search.keys import IN_ORDER

        found = self._engine.nearest(self.room.keys, self.room.counts, self.k)
        if self.k > IN_ORDER:
            found.sort(axis=1)
        return found  # type: ignore[no-any-return]


class Within(_Scan):
    """All rows that may be within a distance of each query, as a scan sees them; of bits, all that are.

    farthest: (queries of the batch,) float64. counts: how many each of those that scan at once has found so far; this
    is number `place`. most: where all of them have found more, the scan stops, and has not found all.
    """

    def __init__(
        self, share: Share, farthest: np.ndarray, counts: list[int], place: int, most: float = math.inf
    ) -> None:
        super().__init__(share)
        self._most, self._counts, self._place = most, counts, place
        start = share.queries.rows.start - share.base
        self._farthest = farthest[start : start + len(share.queries)]
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def _radii(self) -> np.ndarray:
        """Of counts of bits, or of negated scores."""
        layout, queries = self.share.queries.layout, self.share.queries
        if layout.distance == "hamming":
            return self._farthest.astype(np.float32)
        from retrieval_bench.search.bounds import compiled_limits, summing_error
        from retrieval_bench.search.kernels import KINDS

        limits, kind = np.empty(len(queries), np.float32), KINDS[layout.distance]
        g = summing_error.py_func(layout.dim)
        compiled_limits()(kind, self._farthest, queries.facts, layout.dim, layout.centre_length, g, limits)
        return -limits

    def scan(self, piece: Piece, turns: Turns) -> None:
        self._begin(piece)
        queries = self.share.queries
        most_at_once = self._engine.kernel.blocks[-1] * piece.panels.shape[2]
        capacity = int(max(min(FOUND_AT_ONCE, self._most), most_at_once))
        rows, near, owners = np.empty(capacity, np.int64), np.empty(capacity, np.float32), np.empty(capacity, np.int64)
        radii, offset = self._radii(), queries.rows.start - self.share.base
        # All queries meet the panels that are taken before others are: these stay in the second-level cache meanwhile.
        fitting = caches().second // 2 // max(1, math.prod(piece.panels.shape[1:]) * piece.panels.itemsize)
        step = min(turns.step, max(1, fitting))
        at, found = np.zeros(4, np.int64), capacity
        while found + most_at_once > capacity and sum(self._counts) <= self._most:
            found = self._engine.collect(
                *(queries.packed, piece.panels, piece.starts, piece.first, piece.n),
                *(turns.work_counter, step, at, queries.exclude, radii, rows, near, owners),
                *(self.gates, *self.scratch),
            )
            self._found.append((owners[:found] + offset, rows[:found].copy(), near[:found].copy()))
            self._counts[self._place] += found

    def found(self) -> tuple[np.ndarray, ...]:
        """(query of the batch, gallery row, count or negated score) of all."""
        nothing = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        return tuple(np.concatenate(column) for column in zip(nothing, *self._found, strict=True))


def nearest_scans(shares: list[Share], k: int, n: int) -> list[Nearest]:
    """A scan for each share; those that have the same queries find what all of them have found."""
    if not shares[0].together:
        return [Nearest(share, k, n) for share in shares]
    room = Room.for_scans(shares[0], k, n, len(shares))
    return [Nearest(share, k, n, room, place) for place, share in enumerate(shares)]


def words_of(layout: Layout, block: np.ndarray) -> np.ndarray:
    """(n, bytes) codes as (n, width) words of 64 bits, filled up with zeros."""
    words = np.zeros((len(block), layout.width), np.uint64)
    words.view(np.uint8)[:, : layout.dim] = block
    return words


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a cache line: a vector of 16 lanes then touches one line, not two."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + LINE, np.uint8)
    skip = -memory.__array_interface__["data"][0] % LINE  # a tenth of the time of `memory.ctypes`
    return memory[skip : skip + size].view(dtype).reshape(shape)
