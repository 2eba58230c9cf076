"""A gallery in panels, and how threads share out a scan of it.

In memory it is packed once; a gallery on disk is read and packed in pieces, anew for each scan.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from retrieval_bench.search.scans import (
    Layout,
    Nearest,
    Piece,
    Queries,
    Share,
    Turns,
    Within,
    aligned,
    words_of,
)
from retrieval_bench.search.threads import on_threads

if TYPE_CHECKING:
    from retrieval_bench.search.settling import Asked, Kept, OnDisk

_ROWS_AT_ONCE = 4096  # gallery rows converted and packed at a time: the only copy beside the index itself
_FILE_BYTES = 64 << 20  # what the packed piece of a gallery on disk may occupy
_SCRATCH_BYTES = 48 << 20  # what the queries of one batch and their candidates may occupy
_WORK_PER_THREAD = 10_000_000  # multiply-adds; below this, starting a thread costs more than it saves
_WORDS_COST = 5  # a word of bits against a multiply-add
_BLOCKS_PER_THREAD = 8  # blocks of queries; from here on, threads share out the queries instead of the gallery
_PARTS_PER_THREAD = 2  # of shared-out queries, so that a thread that is held up leaves some to the others


class PackedGallery:
    """The rows of a gallery as scans take them.

    layout: how they are held. gallery: (n, d), checked, as it was given; only read. rows: what float64 distances need
    of them, filled in while they are packed; None for bits. in_memory: pack them now, all; otherwise each scan does.

    piece: all panels, None where they are not in memory.
    """

    def __init__(self, layout: Layout, gallery: np.ndarray, rows: Kept | OnDisk | None, *, in_memory: bool) -> None:
        self.layout, self.rows = layout, rows
        self._n = len(gallery)
        self._gallery = gallery
        self.piece: Piece | None = None
        if in_memory:
            self.piece = self._packed(0, self._n)
            self._gallery = np.empty((0, layout.dim), np.uint8)  # what is needed of it is in panels and rows

    def __len__(self) -> int:
        return self._n

    @property
    def bytes(self) -> int:
        """Of the panels in memory and what is beside them."""
        if self.piece is None:
            return 0
        bits = self.layout.distance == "hamming"
        return self.piece.panels.nbytes + (0 if bits else self.piece.starts.nbytes)

    def batches(self, q: int, bytes_each: int) -> Iterator[slice]:
        """Queries that are worked on together: as many as _SCRATCH_BYTES hold, each with its packed copy."""
        size = max(1, _SCRATCH_BYTES // (bytes_each + self.layout.width * self.layout.value.itemsize))
        for start in range(0, q, size):
            yield slice(start, min(start + size, q))

    def work(self, q: int) -> int:
        """Multiply-adds of a search for q queries, or what costs as much."""
        return q * self._n * self.layout.width * (_WORDS_COST if self.layout.distance == "hamming" else 1)

    def threads_for(self, q: int, most: int | None) -> tuple[int, bool]:
        """How many threads search for q queries, and whether all of them scan for all queries."""
        import numba

        threads = max(1, min(most or numba.get_num_threads(), self.work(q) // _WORK_PER_THREAD))
        return threads, -(-q // self.layout.engine.kernel.blocks[-1]) < _BLOCKS_PER_THREAD * threads

    def shared_out(
        self, queries: np.ndarray, batch: slice, exclude: np.ndarray, most_threads: int | None
    ) -> tuple[list[Share], int]:
        """Many queries: each thread takes some; few: each takes stretches of the gallery. -> (shares, threads)."""
        q, most = batch.stop - batch.start, self.layout.engine.kernel.blocks[-1]
        threads, together = self.threads_for(q, most_threads)
        if not together:
            blocks = -(-q // most)
            parts = min(blocks // _BLOCKS_PER_THREAD, _PARTS_PER_THREAD * threads) if threads > 1 else 1
            bounds = [batch.start + min(q, most * (blocks * part // parts)) for part in range(parts + 1)]
            alone = [Queries(self.layout, queries, slice(a, b), exclude) for a, b in pairwise(bounds)]
            return [Share(some, batch.start, False) for some in alone], threads
        shared = Queries(self.layout, queries, batch, exclude)
        shared.prepare()
        return [Share(shared, batch.start, True)] * threads, threads

    def scan_all(self, scans: Sequence[Nearest] | Sequence[Within], threads: int) -> None:
        """Every scan meets the whole gallery: alone, or together with those who have the same queries."""
        for piece in self._pieces():
            shared = Turns(piece, threads)
            on_threads(
                [
                    functools.partial(scan.scan, piece, shared if scan.share.together else Turns(piece, 1))
                    for scan in scans
                ],
                threads,
            )

    def in_question(
        self, queries: np.ndarray, farthest: np.ndarray, exclude: np.ndarray, threads: int | None,
        most: float = math.inf,
    ) -> tuple[Asked | None, np.ndarray, np.ndarray, np.ndarray] | None:  # fmt: skip
        """All rows that could be at a distance of at most farthest[query].

        Args:
            queries, exclude, threads: as for `ExactIndex.search`, checked.
            farthest: (q,) float64.
            most: where there are more, it ends early.

        Returns:
            The queries for `distances_of`, and (query, gallery row, score) of the rows; or None, where they are more
            than `most`. For hamming: None for the queries, and the distance in place of the score.
        """
        shares, running = self.shared_out(queries, slice(0, len(queries)), exclude, threads)
        counts = [0] * len(shares)
        parts = [Within(share, farthest, counts, place, most) for place, share in enumerate(shares)]
        self.scan_all(parts, running)
        if sum(counts) > most:
            return None
        owners, rows, near = (np.concatenate(column) for column in zip(*(part.found() for part in parts), strict=True))
        if self.rows is None:
            return None, owners, rows, near
        from retrieval_bench.search.settling import Asked

        if len(self.rows.zeros):  # no scan finds them
            for query in np.flatnonzero(farthest >= 1.0):
                some = np.setdiff1d(self.rows.zeros, exclude[query])
                owners, rows = np.append(owners, np.full(len(some), query)), np.append(rows, some)
        together = Asked.joined([share.queries.asked() for share in (shares[:1] if shares[0].together else shares)])
        order = np.argsort(owners, kind="stable")
        return together, owners[order], rows[order], near

    def _pieces(self) -> Iterator[Piece]:
        """The panels: in one piece where they are in memory, else packed from the file."""
        if self.piece is not None:
            yield self.piece
            return
        step = max(1, _FILE_BYTES // (self.layout.width * self.layout.value.itemsize))
        step = -(-step // _ROWS_AT_ONCE) * _ROWS_AT_ONCE
        for first in range(0, self._n, step):
            yield self._packed(first, min(first + step, self._n))

    def _packed(self, first: int, last: int) -> Piece:
        """Gallery rows from `first` up to `last` in panels; first is a multiple of _ROWS_AT_ONCE."""
        import numba

        from retrieval_bench.search import kernels

        n, layout = last - first, self.layout
        panels = aligned((-(-n // kernels.PANEL), layout.width, kernels.PANEL), layout.value)
        # What fills up the last panel of vectors is not near to anything.
        starts = np.full((len(panels) if self.rows is not None else 1, kernels.PANEL), -np.inf, np.float32)

        def pack(begin: int, end: int) -> float:
            largest = 0.0
            for row in range(begin, end, _ROWS_AT_ONCE):
                stop = min(row + _ROWS_AT_ONCE, end)
                part = slice(row // kernels.PANEL, -(-stop // kernels.PANEL))
                block = self._gallery[first + row : first + stop]
                if self.rows is None:
                    layout.engine.pack(words_of(layout, block), panels[part])
                else:
                    where = slice(first + row, first + stop)
                    largest = max(largest, self._pack_vectors(self.rows, block, where, panels[part], starts[part]))
            return largest

        blocks = -(-n // _ROWS_AT_ONCE)
        threads = max(1, min(numba.get_num_threads(), blocks, panels.size // _WORK_PER_THREAD))
        bounds = [min(n, blocks * part // threads * _ROWS_AT_ONCE) for part in range(threads + 1)]
        largest = on_threads([functools.partial(pack, begin, end) for begin, end in pairwise(bounds)])
        return Piece(panels, starts, first, n, max(largest))

    def _pack_vectors(
        self, rows: Kept | OnDisk, block: np.ndarray, where: slice, panels: np.ndarray, starts: np.ndarray
    ) -> float:
        """Pack some rows of the gallery, note what float64 distances need of them -> the greatest length."""
        from retrieval_bench.search import kernels
        from retrieval_bench.search.bounds import LENGTH
        from retrieval_bench.search.points import compiled_starts

        layout = self.layout
        some, facts, squares = rows.take(block, where, layout.centre)
        layout.engine.pack(some, panels)
        kind = kernels.KINDS[layout.distance]
        compiled_starts()(kind, facts, squares, layout.dim, layout.centre_length, starts)
        return float(facts[:, LENGTH].max(initial=0.0))
