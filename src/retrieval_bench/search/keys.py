"""What a scan remembers of the rows that are near: keys that order like (distance, row), and their k smallest.

A key is one uint64: the negated score or the count of bits in the upper half, the gallery row in the lower half. All
keys of one query are different.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

EMPTY = np.uint64(2**64 - 1)  # sorts behind every real key
MOST_ROWS = 2**32 - 1  # a row number has half a key
IN_ORDER = 64  # of so many keys, each is put in its place by insertion

_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it
_inlined = numba.njit(nogil=True, error_model="numpy", forceinline=True)


@_inlined
def key_of(distance, row):  # type: ignore[no-untyped-def]
    """(float32 distance, row) as an integer of the same order: negative floats are mirrored."""
    bits = np.float32(distance).view(np.uint32)
    ordered = bits ^ np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else bits ^ np.uint32(0x80000000)
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(row)


@_inlined
def key_distance(key):  # type: ignore[no-untyped-def]
    ordered = np.uint32(key >> np.uint64(32))
    bits = ordered ^ np.uint32(0x80000000) if ordered >> np.uint32(31) else ordered ^ np.uint32(0xFFFFFFFF)
    return np.uint32(bits).view(np.float32)


@_inner
def bring_smallest_forward(keys, count, k):  # type: ignore[no-untyped-def]
    """Reorder keys[:count] so that the k smallest stand in front and the k-th smallest at k - 1 (Hoare's FIND).

    The parting is Lomuto's, with every key exchanged, so that nothing is left to guess for the processor: on keys in
    random order that is three to four times as quick as scans from both ends that stop at unforeseeable places. Keys
    are all different and the pivot is the middle of three, so both parts get some.
    """
    low, high = 0, count
    while high - low > 2:
        a, b, c = keys[low], keys[(low + high) // 2], keys[high - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        edge: Any = low  # keys below the pivot stand in [low, edge), others from there on
        for i in range(low, high):
            key = keys[i]
            keys[i] = keys[edge]
            keys[edge] = key
            edge += np.int64(key < pivot)
        if k <= edge:
            high = edge
        else:
            low = edge
    if high - low == 2 and keys[low] > keys[low + 1]:
        keys[low], keys[low + 1] = keys[low + 1], keys[low]


def nearest(keys: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """The k smallest keys that several threads have found for the same queries.

    keys: (t, q, c), of which counts (t, q) say how many are there; they change places.

    Returns:
        (q, k), EMPTY where there are fewer; ascending for k up to IN_ORDER, else in any order.
    """
    threads, q = counts.shape
    found, some = np.empty((q, k), np.uint64), np.empty(threads * k, np.uint64)
    for query in range(q):
        total = 0
        for thread in range(threads):
            count = counts[thread, query]
            if count > k:
                bring_smallest_forward(keys[thread, query], count, k)
                count = k
            for place in range(count):
                some[total] = keys[thread, query, place]
                total += 1
        if total > k:
            bring_smallest_forward(some, total, k)
            total = k
        for place in range(k):  # written out: Numba takes seconds to compile slices that are filled
            key, at = some[place] if place < total else EMPTY, place
            if k <= IN_ORDER:
                while at > 0 and found[query, at - 1] > key:
                    found[query, at] = found[query, at - 1]
                    at -= 1
            found[query, at] = key
    return found


def spread(keys: np.ndarray, rows: np.ndarray, distances: np.ndarray) -> None:
    """Write what keys (q, k) say into rows (q, k) int64 and distances (q, k) float32; -1 and inf for EMPTY."""
    for query in range(len(keys)):
        for place in range(keys.shape[1]):
            key = keys[query, place]
            rows[query, place] = np.int64(key & np.uint64(0xFFFFFFFF)) if key != EMPTY else -1
            distances[query, place] = key_distance(key) if key != EMPTY else np.float32(np.inf)


@_inner
def leave_smallest(query, k, exclude, keys, counts, limits):  # type: ignore[no-untyped-def]
    """Leave of the keys of the query the k smallest of rows that are not excluded; with k of them, there is a limit."""
    count = counts[query]
    if exclude.shape[1] > 0:
        count = 0
        for place in range(counts[query]):
            key = keys[query, place]
            keys[query, count] = key
            count += int(not contains(exclude[query], np.int64(key & np.uint64(0xFFFFFFFF))))
    if count > k:
        bring_smallest_forward(keys[query], count, k)
        limits[query] = key_distance(keys[query, k - 1])
    elif count == k:
        largest = keys[query, 0]
        for place in range(1, k):
            largest = max(largest, keys[query, place])
        limits[query] = key_distance(largest)
    counts[query] = min(count, k)


@_inlined
def contains(ascending, row):  # type: ignore[no-untyped-def]
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low < len(ascending) and ascending[low] == row
