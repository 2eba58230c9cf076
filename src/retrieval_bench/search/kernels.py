"""The compiled inner part of exact search: it takes checked arrays and returns sortable keys.

The gallery lies in panels, `[dim][PANEL rows]`, so that one dimension of PANEL rows is one stretch of memory; queries
lie in blocks, `[dim][queries]`, in the same way. The innermost loops (scan_loops.py) compare one block with one panel
after the other until someone is near enough; for nearly all panels, nobody is, and nothing else happens. Two levels of
blocking keep the data close: a group of panels that fits the second-level cache is visited by all blocks before the
next group is fetched, and the block in use stays in the first-level cache. On some processors many queries are better
compared the other way round (strip_scan.py).

Vectors are compared by a score in float32, of which the largest are wanted: a number that no rounding takes below what
`bounds.py` says. It is summed over the dimensions in ascending order, one fused multiply-add after the other, whatever
query, thread, block or vector width it belongs to. The ranks are made from float64 distances of the candidates
(`rescore.py`); bits are counted, and counts are final.

A candidate is one uint64 key that orders like (distance, row): keys.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from retrieval_bench.search import fetch_ahead, jit, scan_loops, strip_scan
from retrieval_bench.search.caches import caches
from retrieval_bench.search.emit import PANEL as PANEL
from retrieval_bench.search.emit import Kernel, borrowed, lowest_bit, take
from retrieval_bench.search.keys import (
    bring_smallest_forward,
    contains,
    key_distance,
    key_of,
    leave_smallest,
    nearest,
    spread,
)

GROUP_BYTES = caches().second // 2  # panels that all blocks visit before the next are fetched

COSINE, EUCLIDEAN, INNER_PRODUCT, HAMMING = 0, 1, 2, 3
KINDS = {"cosine": COSINE, "euclidean": EUCLIDEAN, "inner_product": INNER_PRODUCT, "hamming": HAMMING}

FEW = 16  # up to so many neighbours are kept sorted; more wait in a buffer that is cleared out now and then
NO_LIMIT = 2**62  # more bits than anything differs in

# Copied into the caller: a call hands over each array in seven registers, as costly as a panel of 64 bits.
_inlined = numba.njit(nogil=True, error_model="numpy", forceinline=True)


class Engine(NamedTuple):
    """The compiled functions for vectors or for bits, and one vector width.

    pack(rows, panels): (m, d) rows, C order, into (ceil(m / lanes), d, lanes) zeroed panels; read-only rows will do.
    scan, collect: below. nearest, spread: see keys.py.
    """

    kernel: Kernel
    pack: Callable
    scan: Callable
    collect: Callable
    nearest: Callable
    spread: Callable


def engine(kernel: Kernel, distance: str) -> Engine:
    """Compiled, or loaded from the cache on disk, at the first call."""
    kernel = fetch_ahead.kernel_here(kernel)
    make = _bits if distance == "hamming" else _vectors
    key = kernel.variant, make
    if key not in _engines:
        with jit.announced():
            if key not in _engines:  # another thread may have been quicker
                _engines[key] = make(kernel)
    return _engines[key]


_engines: dict[tuple[str, Callable], Engine] = {}


def plan(kernel: Kernel, q: int, k: int, n: int, dim: int) -> tuple[bool, int]:
    """How a scan for the k nearest of n rows goes: strip by strip or not, and how many keys of each of q queries it
    needs room for. kernel: of an engine."""
    if strip_scan.strips_for(kernel, q, k, n, dim):
        return True, strip_scan.capacity(kernel, k, n)
    return False, k if k <= FEW else min(2 * k, n)


def _vectors(kernel: Kernel) -> Engine:
    near = _of_size(kernel.blocks, [scan_loops.products(kernel, size) for size in kernel.blocks])
    near_side = scan_loops.products(kernel, 1, kernel.side)
    strips = strip_scan.strip_scan(kernel) if kernel.strips else None

    @_inlined
    def compare(size, block, panels, begin, end, starts, gates, tile, masks):  # type: ignore[no-untyped-def]
        return near(size, block, panels, begin, end, starts, gates, tile, masks)

    @_inlined
    def compare_side(block, panels, begin, end, starts, gates, tile, masks):  # type: ignore[no-untyped-def]
        return near_side(block, panels, begin, end, starts, gates, tile, masks)

    @_inlined
    def gate(limit):  # type: ignore[no-untyped-def]
        return -limit

    return _engine(kernel, "vectors", types.float32, types.float32, compare, compare_side, gate, strips)


def _bits(kernel: Kernel) -> Engine:
    blocks = (1, 2, 4, 4)
    loops = [scan_loops.bit_differences(kernel, size) for size in blocks[:3]]
    near = _of_size_bits(loops)
    near_side = scan_loops.bit_differences(kernel, 1, kernel.bits_side)

    @_inlined
    def compare(size, block, panels, begin, end, starts, gates, tile, masks):  # type: ignore[no-untyped-def]
        return near(size, block, panels, begin, end, gates, tile, masks)

    @_inlined
    def compare_side(block, panels, begin, end, starts, gates, tile, masks):  # type: ignore[no-untyped-def]
        return near_side(block, panels, begin, end, gates, tile, masks)

    @_inlined
    def gate(limit):  # type: ignore[no-untyped-def]
        return np.int64(np.ceil(limit)) if limit < np.float32(NO_LIMIT) else np.int64(NO_LIMIT)

    return _engine(
        replace(kernel, blocks=blocks, side=kernel.bits_side, strips=False), "bits", types.uint64, types.int64, compare,
        compare_side, gate,
    )  # fmt: skip


def _of_size(blocks: tuple[int, ...], loops: list) -> Any:
    """One function out of four: the inner loop that is made for `size` queries."""
    a, b, c = blocks[:3]
    near_a, near_b, near_c, near_d = loops

    @_inlined
    def near(size, block, panels, begin, end, starts, gates, tile, masks):  # type: ignore[no-untyped-def]
        if size == a:
            return near_a(block, panels, begin, end, starts, gates, tile, masks)
        if size == b:
            return near_b(block, panels, begin, end, starts, gates, tile, masks)
        if size == c:
            return near_c(block, panels, begin, end, starts, gates, tile, masks)
        return near_d(block, panels, begin, end, starts, gates, tile, masks)

    return near


def _of_size_bits(loops: list) -> Any:
    near_1, near_2, near_4 = loops

    @_inlined
    def near(size, block, panels, begin, end, gates, tile, masks):  # type: ignore[no-untyped-def]
        if size == 1:
            return near_1(block, panels, begin, end, gates, tile, masks)
        if size == 2:
            return near_2(block, panels, begin, end, gates, tile, masks)
        return near_4(block, panels, begin, end, gates, tile, masks)

    return near


def _engine(
    kernel: Kernel, name: str, value: Any, comparable: Any, compare: Any, compare_side: Any, gate: Any,
    scan_strips: Any = None,
) -> Engine:  # fmt: skip
    """value: what rows and queries consist of; comparable: the type in which the inner loop compares."""
    a, b, c, most = kernel.blocks
    side = kernel.side
    by_strips = scan_strips is not None

    @_inlined
    def size_for(count):  # type: ignore[no-untyped-def]
        return a if count <= a else b if count <= b else c if count <= c else most

    def scan(  # type: ignore[no-untyped-def]
        queries, panels, starts, first, n, work_counter, step, strips, k, exclude, keys, counts, limits, gates, tile,
        masks,
    ):  # fmt: skip
        """Add to `keys` what is among the k nearest, as far as the `n` gallery rows from `first` on are concerned.

        queries: blocks of `most` queries, and a last one of a size in kernel.blocks, one after the other: flat, each
            (dim, size).
        panels: (ceil(n / PANEL), dim, PANEL). starts: (.., PANEL), what the sums of vectors start from, one line for
            each panel; of bits, not used.
        work_counter: (1,) int64, the next panel that no thread has taken; `step` panels are taken at a time. Threads
            with the same work_counter share out the panels.
        strips: as of `plan`.
        exclude: (q, m) gallery rows that query i must not find, each line ascending, -1 for none.
        keys (q, capacity), counts, limits (q,): what is known so far, and the distance (or negated score) to beat.
            capacity: as of `plan`. gates: the limits as the inner loop compares them, of the queries that fill up
            the last block too, for whom they are out of reach.
        tile (most, PANEL), masks (most + 1,): scratch; most is no less than kernel.side.
        """
        queries, panels, starts = borrowed(queries), borrowed(panels), borrowed(starts)
        exclude, keys, counts, limits = borrowed(exclude), borrowed(keys), borrowed(counts), borrowed(limits)
        gates, tile, masks = borrowed(gates), borrowed(tile), borrowed(masks)
        dim, q = panels.shape[1], len(counts)
        group = max(1, GROUP_BYTES // (panels.itemsize * PANEL * dim))
        begin = stop = 0
        while True:
            if begin == stop:
                begin = take(work_counter, step)
                stop = min(begin + step, len(panels))
                if begin >= stop:
                    break
            if by_strips and strips:
                scan_strips(queries, panels, begin, stop, starts, first, k, exclude, keys, counts, limits, gates, tile)
                begin = stop
                continue
            end = min(begin + group, stop) if q > 1 else stop
            if q == 1:
                block = queries.reshape((dim, 1))
                sides = end - (end - begin) % side
                panel = compare_side(block, panels, begin, sides, starts, gates, tile, masks)
                while panel < sides:
                    who = masks[side]
                    while who != np.uint64(0):
                        s = lowest_bit(who)
                        who &= who - np.uint64(1)
                        row = (panel + s) * PANEL
                        _admit(0, masks[s] & _lowest(n - row), first + row, s, tile, exclude, k, keys, counts, limits)
                    gates[0] = gate(limits[0])
                    panel = compare_side(block, panels, panel + side, sides, starts, gates, tile, masks)
                begin = sides
            for some in range(0, q, most):
                size = size_for(q - some)
                block = queries[some * dim : (some + size) * dim].reshape((dim, size))
                open_ = gates[some : some + size]
                panel = compare(size, block, panels, begin, end, starts, open_, tile, masks)
                while panel < end:
                    row, who = panel * PANEL, masks[size]
                    while who != np.uint64(0):
                        r = lowest_bit(who)
                        who &= who - np.uint64(1)
                        mask = masks[r] & _lowest(n - row)
                        _admit(some + r, mask, first + row, r, tile, exclude, k, keys, counts, limits)
                        gates[some + r] = gate(limits[some + r])
                    panel = compare(size, block, panels, panel + 1, end, starts, open_, tile, masks)
            begin = end
        if by_strips and strips:
            for query in range(q):
                leave_smallest(query, k, exclude, keys, counts, limits)
                gates[query] = gate(limits[query])

    def collect(  # type: ignore[no-untyped-def]
        queries, panels, starts, first, n, work_counter, step, at, exclude, radii, rows, distances, owners, gates, tile,
        masks,
    ):  # fmt: skip
        """All within the radius, until the buffers are full or there are no more panels -> number found.

        Arguments as for `scan`. at: (4,) int64, where to go on: the panel and the query to be compared next, the end
        and the number of the panels that are taken already; zeros at first. The buffers are full if they cannot hold
        `most` * PANEL more. radii: (q,) float32, of counts or negated scores. rows (int64), distances (float32),
        owners (int64, the query): buffers of at least most * PANEL.
        """
        queries, panels, starts = borrowed(queries), borrowed(panels), borrowed(starts)
        exclude, radii, rows, distances = borrowed(exclude), borrowed(radii), borrowed(rows), borrowed(distances)
        owners, gates, tile, masks = borrowed(owners), borrowed(gates), borrowed(tile), borrowed(masks)
        dim, q = panels.shape[1], len(radii)
        found = 0
        for query in range(q):
            gates[query] = gate(np.nextafter(radii[query], np.float32(np.inf)))
        while found + most * PANEL <= len(rows):
            if at[0] == at[2]:  # the next block meets the panels that are taken, or others are
                if at[1] + most < q and at[2] > 0:
                    at[0], at[1] = at[2] - at[3], at[1] + most
                else:
                    begin = take(work_counter, step)
                    if begin >= len(panels):
                        break
                    at[0], at[1], at[2] = begin, 0, min(begin + step, len(panels))
                    at[3] = at[2] - begin
            some = at[1]
            size = size_for(q - some)
            block = queries[some * dim : (some + size) * dim].reshape((dim, size))
            panel = compare(size, block, panels, at[0], at[2], starts, gates[some : some + size], tile, masks)
            if panel < at[2]:
                row = panel * PANEL
                for r in range(min(size, q - some)):
                    query, mask = some + r, masks[r] & _lowest(n - row)
                    while mask != np.uint64(0):
                        lane = lowest_bit(mask)
                        mask &= mask - np.uint64(1)
                        if not contains(exclude[query], first + row + lane):
                            rows[found], owners[found] = first + row + lane, query
                            distances[found] = np.float32(tile[r, lane])
                            found += 1
                panel += 1
            at[0] = panel
        return found

    integer = types.int64
    panels, keys, counts = array(value, 3), array(types.uint64, 2), array(integer, 1)
    gallery = (panels, array(types.float32, 2), integer, integer, counts, integer)
    floats, exclude = array(types.float32, 1), array(integer, 2)
    scratch = (array(comparable, 1), array(comparable, 2), array(types.uint64, 1))

    def once(function: Any, signature: Any) -> Any:
        return jit.compiled(function, signature, name)

    return Engine(
        kernel,
        once(_pack, types.none(types.Array(value, 2, "C", readonly=True), panels)),
        jit.compiled(
            scan,
            types.none(array(value, 1), *gallery, types.boolean, integer, exclude, keys, counts, floats, *scratch),
            f"{name}-{kernel.variant}",
        ),
        jit.compiled(
            collect,
            integer(array(value, 1), *gallery, counts, exclude, floats, counts, floats, counts, *scratch),
            f"{name}-{kernel.variant}",
        ),
        jit.compiled(nearest, keys(array(types.uint64, 3), array(integer, 2), integer)),
        jit.compiled(spread, types.none(keys, array(integer, 2), array(types.float32, 2))),
    )


def array(kind: Any, dimensions: int) -> Any:
    return types.Array(kind, dimensions, "C")


def _pack(rows: np.ndarray, panels: np.ndarray) -> None:
    lanes, dim = panels.shape[2], rows.shape[1]
    for first in range(0, len(rows), lanes):
        panel, last = panels[first // lanes], min(first + lanes, len(rows))
        for begin in range(0, dim, 16):  # sixteen columns at a time: a cache line of each row, all of it used
            row = first
            if begin + 16 <= dim:
                while row + 4 <= last:  # written out for four rows, which the compiler turns into exchanged vectors
                    a, b, c, d = rows[row], rows[row + 1], rows[row + 2], rows[row + 3]
                    lane = row - first
                    for column in range(begin, begin + 16):
                        panel[column, lane] = a[column]
                        panel[column, lane + 1] = b[column]
                        panel[column, lane + 2] = c[column]
                        panel[column, lane + 3] = d[column]
                    row += 4
            while row < last:
                for column in range(begin, min(begin + 16, dim)):
                    panel[column, row - first] = rows[row, column]
                row += 1


@_inlined
def _lowest(count):  # type: ignore[no-untyped-def]
    """A uint64 whose lowest `count` bits are set, PANEL of them at most: the rows of a panel that are no padding."""
    return (np.uint64(1) << np.uint64(min(count, PANEL))) - np.uint64(1)


@_inlined
def _admit(query, mask, row, r, tile, exclude, k, keys, counts, limits):  # type: ignore[no-untyped-def]
    """Add the rows of the mask to the keys of the query; tile[r, lane] is the distance to row + lane.

    Up to FEW neighbours are kept sorted. For more, the capacity is twice k, or a little more: each clearing-out costs a
    pass over it and is paid for by the k newcomers before it, so that a candidate costs the same at k = 1 and at k = n.
    """
    limit, count = limits[query], counts[query]
    while mask != np.uint64(0):
        lane = lowest_bit(mask)
        mask &= mask - np.uint64(1)
        distance = np.float32(tile[r, lane])
        # Rows arrive in ascending order, so a newcomer at the limit itself loses the tie.
        if distance < limit and not contains(exclude[query], row + lane):
            if k <= FEW:
                key, place = key_of(distance, row + lane), min(count, k - 1)
                while place > 0 and keys[query, place - 1] > key:
                    keys[query, place] = keys[query, place - 1]
                    place -= 1
                keys[query, place] = key
                count = min(count + 1, k)
                if count == k:
                    limit = key_distance(keys[query, k - 1])
                continue
            if count == keys.shape[1]:
                bring_smallest_forward(keys[query], count, k)
                count = k
                limit = key_distance(keys[query, k - 1])
                if distance >= limit:
                    continue
            keys[query, count] = key_of(distance, row + lane)
            count += 1
    counts[query], limits[query] = count, limit
