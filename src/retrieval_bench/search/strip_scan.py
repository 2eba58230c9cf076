"""The scan of vectors for many queries: strips of gallery rows that stay in the first-level cache, one after the other.

Two levels of blocking keep the data close, the other way round than in `kernels.py`: some dimensions of as many blocks
of queries as fit the second-level cache go past each strip of a few panels, before the next dimensions do. What passes
a gate waits behind the keys of its query (strip_loops.py), until there is no room.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from retrieval_bench.search import jit
from retrieval_bench.search.caches import LINE, caches
from retrieval_bench.search.emit import MEMORY_BOUND, PANEL, Kernel
from retrieval_bench.search.keys import leave_smallest
from retrieval_bench.search.strip_loops import strip_products

STRIP_BYTES = caches().first // 2  # of a strip
BLOCKS_BYTES = caches().second * 3 // 8  # of the queries that visit a strip before others do
STRIP_PANELS = 4  # that some dimensions visit before the next do: as many sums wait meanwhile
ROWS_FOR_EACH = 16  # neighbour that is wanted: with fewer, the other order was as quick or quicker (1.05 times at 5)
LEAST_WAITING = 16  # keys that wait with those of a query, even if few neighbours are wanted

_inlined = numba.njit(nogil=True, error_model="numpy", forceinline=True)


def strips_for(kernel: Kernel, q: int, k: int, n: int, dim: int) -> bool:
    """Whether the k nearest of n rows are found strip by strip for q queries.

    Not of so few rows that they stay in the cache anyway, and not where so many pass that they take most of the time.
    """
    return kernel.strips and q > MEMORY_BOUND and 4 * n * dim > BLOCKS_BYTES and n > ROWS_FOR_EACH * k


def capacity(kernel: Kernel, k: int, n: int) -> int:
    """How many keys of each query need room: with less, they are cleared out more often; with more, the gates are
    older, and more rows pass."""
    return min(max(2 * k, LEAST_WAITING), n + PANEL) + kernel.lanes * kernel.vectors


def strip_scan(kernel: Kernel) -> Any:
    """The scan of panels `begin` to `end`; the other arguments are those of `kernels.scan`.

    After the last panels, `leave_smallest` has to clear out what waits.
    """
    near = strip_products(kernel)
    a, b, c, most = kernel.blocks
    rows = kernel.lanes * kernel.vectors
    strips = PANEL // rows  # of a panel, side by side
    deepest = max(1, STRIP_BYTES // (4 * rows))

    @_inlined
    def visit(  # type: ignore[no-untyped-def]
        size, query, count, queries, at, depth, dim, panels, strip, lines, start, waiting, wait, row, k,
        exclude, keys, counts, limits, gates, ahead, pace, tile,
    ):  # fmt: skip
        """`count` blocks of `size` queries, from `query` on, go past a strip with `depth` dimensions from `at` on."""
        block = 0
        while block < count:
            block = near(
                size, queries, query * dim + at * size, dim * size, block, count, panels, strip, depth, lines, start,
                waiting, wait, at == 0, at + depth == dim, gates, keys, counts, query, row, ahead, pace, tile,
            )  # fmt: skip
            if block == count:
                return
            begin = query + block * size
            for some in range(begin, min(begin + size, len(counts))):
                if counts[some] + rows > keys.shape[1]:
                    leave_smallest(some, k, exclude, keys, counts, limits)
                    gates[some] = -limits[some]
            block += 1

    @jit.part(kernel.variant)
    def scan(  # type: ignore[no-untyped-def]
        queries, panels, begin, end, starts, first, k, exclude, keys, counts, limits, gates, tile
    ):
        dim, q = panels.shape[1], len(counts)
        chunks = max(1, -(-dim // deepest))
        deep = -(-dim // chunks)
        whole, left = q // most, q % most
        last_size = a if left <= a else b if left <= b else c if left <= c else most
        if left > 0 and last_size == most:
            whole, left = whole + 1, 0
        visits = -(-whole // max(1, BLOCKS_BYTES // (4 * most * deep)))
        together = -(-whole // visits)
        slot = rows * (together * most + last_size)  # sums of all these blocks with one strip
        waiting = np.empty(slot * strips * STRIP_PANELS if chunks > 1 else 1, np.float32)
        values, lines = panels.reshape(panels.size), starts.reshape(starts.size)
        for group in range(begin, end, STRIP_PANELS):
            stop = min(group + STRIP_PANELS, end)
            for low in range(0, whole, together):
                high = min(low + together, whole)
                last = left > 0 and high == whole  # the block of the last queries goes with these
                blocks = high - low + int(last)
                pace = -(-LINE // blocks)
                for at in range(0, dim, deep):
                    depth = min(deep, dim - at)
                    for panel in range(group, stop):
                        # What is fetched ahead: the panel that comes next, or the next dimensions of the first one.
                        soon = (panel + 1) * dim + at
                        if panel + 1 == stop and at + depth < dim:
                            soon = group * dim + at + depth
                        elif panel + 1 == stop:
                            soon = (stop if high == whole else group) * dim
                        for strip in range(strips):
                            row = panel * PANEL + strip * rows
                            start = row if len(starts) > 1 else strip * rows
                            place = (panel * dim + at) * PANEL + strip * rows
                            wait = ((panel - group) * strips + strip) * slot if chunks > 1 else 0
                            ahead = 4 * PANEL * soon + strip * blocks * depth * pace
                            visit(
                                most, low * most, high - low, queries, at, depth, dim, values, place, lines, start,
                                waiting, wait, first + row, k, exclude, keys, counts, limits, gates, ahead,
                                pace, tile,
                            )  # fmt: skip
                            if last:
                                visit(
                                    last_size, whole * most, 1, queries, at, depth, dim, values, place, lines, start,
                                    waiting, wait + together * most * rows, first + row, k, exclude, keys, counts,
                                    limits, gates, ahead + (high - low) * depth * pace, pace, tile,
                                )  # fmt: skip

    return scan
