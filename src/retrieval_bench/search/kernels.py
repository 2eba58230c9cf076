"""The compiled inner room of exact search: it takes checked, packed arrays and returns sortable keys.

The gallery lies in panels, `[dim][PANEL rows]`, so that one dimension of PANEL rows is one stretch of memory and the
loop over them becomes vector instructions. Every distance is summed over the dimensions in ascending order, one fused
multiply-add after the other, whatever query, thread or batch it belongs to: results are the same to the last bit.

A candidate is one uint64 key, the distance in the upper half and the gallery row in the lower half, written so that
keys order like (distance, row). Keys of one query are all different: sorting them obeys the law of ties by itself.

All kernels stay in this file: Numba's cache on disk notices a change of this file only, not of a callee elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

PANEL = 256  # gallery rows side by side; a panel of 512 dimensions is 512 KiB and stays in the second-level cache
BLOCK = 16  # queries that share a visit to a panel; a multiple of STEP
STEP = 4  # queries, and dimensions, that the innermost loop handles at once; arrays are padded to a multiple

EMPTY = np.uint64(2**64 - 1)  # sorts behind every real key
MOST_ROWS = 2**32 - 1  # a row number has half a key

COSINE, EUCLIDEAN, INNER_PRODUCT = 0, 1, 2


def _compiled(function: Callable) -> Any:
    """Numba-compile without the GIL, kept on disk where a cache directory is writable.

    "contract" allows fused multiply-adds; the order of the additions stays as written.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither NUMBA_CACHE_DIR, nor __pycache__, nor the user's cache directory can be written
        return numba.njit(**options)(function)


@_compiled
def norms(rows: np.ndarray) -> np.ndarray:
    """(n, d) float32 -> (n,) float64 Euclidean lengths; NaN or inf exactly where a row holds one."""
    lengths = np.empty(len(rows), np.float64)
    for row in range(len(rows)):
        total = 0.0
        for value in rows[row]:
            total += np.float64(value) * np.float64(value)
        lengths[row] = np.sqrt(total)
    return lengths


@_compiled
def normalise(rows: np.ndarray, lengths: np.ndarray) -> None:
    """Divide each row by its length, in place; zero rows stay zero."""
    for row in range(len(rows)):
        if lengths[row] > 0.0:
            for column in range(rows.shape[1]):
                rows[row, column] = np.float32(rows[row, column] / lengths[row])


@_compiled
def pack(rows: np.ndarray, panels: np.ndarray) -> None:
    """Copy (n, d) rows into (ceil(n / PANEL), >= d, PANEL) zeroed panels."""
    for start in range(0, len(rows), 16):  # sixteen rows at a time: whole cache lines are written
        stop = min(start + 16, len(rows))
        for column in range(rows.shape[1]):
            for row in range(start, stop):
                panels[row // PANEL, column, row % PANEL] = rows[row, column]


def scan(
    distance: str, queries: np.ndarray, panels: np.ndarray, first: int, n: int, k: int, exclude: np.ndarray
) -> np.ndarray:
    """`scan_vectors` or `scan_bits`, by the name of the distance."""
    if distance == "hamming":
        return scan_bits(queries, panels, first, n, k, exclude)
    kind = {"cosine": COSINE, "euclidean": EUCLIDEAN, "inner_product": INNER_PRODUCT}[distance]
    return scan_vectors(kind, queries, panels, first, n, k, exclude)


@_compiled
def scan_vectors(
    kind: int, queries: np.ndarray, panels: np.ndarray, first: int, n: int, k: int, exclude: np.ndarray
) -> np.ndarray:
    """The k nearest of the `n` gallery rows from `first` on, by a float distance.

    kind: COSINE (queries and rows of unit length), EUCLIDEAN or INNER_PRODUCT.
    queries: (q, d) float32; q and d multiples of STEP, padded with zeros.
    panels: (ceil(n / PANEL), d, PANEL) float32.
    exclude: (q, m) int64 gallery rows that query i must not find, -1 for none.
    Returns (q, min(k, n)) uint64 keys of the nearest, in no order, EMPTY where there are fewer.
    """
    tile = np.empty((BLOCK, PANEL), np.float32)
    keys, counts, limits = _nothing_found(len(queries), k, n)
    one = np.float32(1.0) if kind == COSINE else np.float32(0.0)
    floor = np.float32(0.0) if kind == COSINE else np.float32(-np.inf)
    for panel in range(len(panels)):
        row, valid = first + panel * PANEL, min(PANEL, n - panel * PANEL)
        for start in range(0, len(queries), BLOCK):
            part = slice(start, min(start + BLOCK, len(queries)))
            block = queries[part]
            if kind == EUCLIDEAN:
                _square_differences(block, panels[panel], tile)
                for r in range(len(block)):
                    for lane in range(PANEL):
                        tile[r, lane] = np.sqrt(tile[r, lane])
            else:
                _inner_products(block, panels[panel], tile)
                for r in range(len(block)):
                    for lane in range(PANEL):
                        # 0 - x and not -x: an inner product of 0 has distance +0, whose bits are those of any other 0
                        tile[r, lane] = max(one - tile[r, lane], floor)
            _keep_nearest(tile, row, valid, exclude[part], k, keys[part], counts[part], limits[part])
    return _k_smallest(keys, counts, k, n)


@_compiled
def scan_bits(queries: np.ndarray, panels: np.ndarray, first: int, n: int, k: int, exclude: np.ndarray) -> np.ndarray:
    """The same for the Hamming distance: (q, words) queries and (.., words, PANEL) panels of uint64, any q."""
    tile = np.empty((BLOCK, PANEL), np.float32)
    keys, counts, limits = _nothing_found(len(queries), k, n)
    for panel in range(len(panels)):
        row, valid = first + panel * PANEL, min(PANEL, n - panel * PANEL)
        for start in range(0, len(queries), BLOCK):
            part = slice(start, min(start + BLOCK, len(queries)))
            _differing_bits(queries[part], panels[panel], tile)
            _keep_nearest(tile, row, valid, exclude[part], k, keys[part], counts[part], limits[part])
    return _k_smallest(keys, counts, k, n)


@_compiled
def _inner_products(block: np.ndarray, panel: np.ndarray, tile: np.ndarray) -> None:
    """tile[r, lane] = sum over d of block[r, d] * panel[d, lane], for four queries and four dimensions at a time.

    The sixteen query values stay in registers while the loop over the lanes, which becomes vector code, reads each
    panel value once for four queries and each sum once for four dimensions.
    """
    tile[: len(block)] = 0.0
    for d in range(0, panel.shape[0], STEP):
        for r in range(0, len(block), STEP):
            a0, a1, a2, a3 = block[r, d], block[r, d + 1], block[r, d + 2], block[r, d + 3]
            b0, b1, b2, b3 = block[r + 1, d], block[r + 1, d + 1], block[r + 1, d + 2], block[r + 1, d + 3]
            c0, c1, c2, c3 = block[r + 2, d], block[r + 2, d + 1], block[r + 2, d + 2], block[r + 2, d + 3]
            e0, e1, e2, e3 = block[r + 3, d], block[r + 3, d + 1], block[r + 3, d + 2], block[r + 3, d + 3]
            for lane in range(PANEL):
                x0, x1, x2, x3 = panel[d, lane], panel[d + 1, lane], panel[d + 2, lane], panel[d + 3, lane]
                tile[r, lane] = tile[r, lane] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                tile[r + 1, lane] = tile[r + 1, lane] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                tile[r + 2, lane] = tile[r + 2, lane] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                tile[r + 3, lane] = tile[r + 3, lane] + e0 * x0 + e1 * x1 + e2 * x2 + e3 * x3


@_compiled
def _square_differences(block: np.ndarray, panel: np.ndarray, tile: np.ndarray) -> None:
    """tile[r, lane] = sum over d of (block[r, d] - panel[d, lane])^2.

    Taken from the differences and not from |q|^2 + |x|^2 - 2qx, which loses near-duplicates of large norm.
    """
    tile[: len(block)] = 0.0
    for d in range(0, panel.shape[0], STEP):
        for r in range(len(block)):
            q0, q1, q2, q3 = block[r, d], block[r, d + 1], block[r, d + 2], block[r, d + 3]
            for lane in range(PANEL):
                d0, d1 = q0 - panel[d, lane], q1 - panel[d + 1, lane]
                d2, d3 = q2 - panel[d + 2, lane], q3 - panel[d + 3, lane]
                tile[r, lane] = tile[r, lane] + d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3


@_compiled
def _differing_bits(block: np.ndarray, panel: np.ndarray, tile: np.ndarray) -> None:
    """tile[r, lane] = number of bits in which block[r] and panel[:, lane] differ; exact up to 2^24."""
    tile[: len(block)] = 0.0
    for word in range(panel.shape[0]):
        for r in range(len(block)):
            query = block[r, word]
            for lane in range(PANEL):
                tile[r, lane] += np.float32(_count_bits(query ^ panel[word, lane]))


@_compiled
def _count_bits(word: np.uint64) -> np.uint64:
    """Bits set in a word, by adding neighbours (Warren, Hacker's Delight, 5-1); LLVM knows it as one instruction."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@_compiled
def _nothing_found(q: int, k: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per query: room for keys, how many are in it, and the distance that a newcomer must beat."""
    # Room for twice k: each clearing-out costs a pass over the room and is paid for by the k newcomers before it,
    # so that a candidate costs the same at k = 1 and at k = n.
    room = min(2 * k + 32, n)
    return np.empty((q, room), np.uint64), np.zeros(q, np.int64), np.full(q, np.inf, np.float32)


@_compiled
def _keep_nearest(
    tile: np.ndarray,
    row: int,
    valid: int,
    exclude: np.ndarray,
    k: int,
    keys: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
) -> None:
    """Add to `keys` what may still be among the k nearest; tile[r, lane] is the distance of query r to row + lane.

    valid: lanes that hold a row; those behind them are the padding of the last panel.
    """
    bits = tile.view(np.uint32)
    for r in range(len(keys)):
        distances, limit = tile[r], limits[r]
        for hidden in exclude[r]:
            if row <= hidden < row + PANEL:
                distances[hidden - row] = np.inf
        # Rows arrive in ascending order, so a newcomer at the limit itself loses the tie.
        nearer = 0
        for lane in range(PANEL):
            nearer += distances[lane] < limit
        if nearer == 0:  # nearly always, after the first panels
            continue
        found, count = keys[r], counts[r]
        for lane in range(valid):
            if distances[lane] < limit:
                if count == len(found):
                    _bring_smallest_forward(found, count, k)
                    count = k
                    limit = _key_distance(found[k - 1])
                    if distances[lane] >= limit:
                        continue
                found[count] = _key(bits[r, lane], row + lane)
                count += 1
        counts[r], limits[r] = count, limit


@_compiled
def _key(bits: np.uint32, row: int) -> np.uint64:
    """(bits of a float32 distance, row) as an integer of the same order: negative floats are mirrored."""
    ordered = bits ^ np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else bits ^ np.uint32(0x80000000)
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(row)


@_compiled
def _key_distance(key: np.uint64) -> np.float32:
    ordered = np.uint32(key >> np.uint64(32))
    bits = ordered ^ np.uint32(0x80000000) if ordered >> np.uint32(31) else ordered ^ np.uint32(0xFFFFFFFF)
    return np.uint32(bits).view(np.float32)


def unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys -> (int64 gallery rows, float32 distances) of the same shape; -1 and inf for EMPTY."""
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    mirrored = np.where(ordered >> np.uint32(31), np.uint32(0x80000000), np.uint32(0xFFFFFFFF))
    rows = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    distances = (ordered ^ mirrored).view(np.float32)
    empty = keys == EMPTY
    rows[empty] = -1
    distances[empty] = np.inf
    return rows, distances


@_compiled
def _bring_smallest_forward(keys: np.ndarray, count: int, k: int) -> None:
    """Reorder keys[:count] so that the k smallest stand in front and the k-th smallest at k - 1 (Hoare's FIND).

    Keys are all different, so the middle of three is a pivot that both scans stop at.
    """
    low, high = 0, count - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@_compiled
def _k_smallest(keys: np.ndarray, counts: np.ndarray, k: int, n: int) -> np.ndarray:
    width = min(k, n)
    nearest = np.full((len(keys), width), EMPTY, np.uint64)
    for query in range(len(keys)):
        count = counts[query]
        if count > k:
            _bring_smallest_forward(keys[query], count, k)
            count = k
        nearest[query, :count] = keys[query, :count]
    return nearest
