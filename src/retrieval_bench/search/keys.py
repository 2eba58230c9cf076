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


def smallest(keys: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    nearest = np.empty((len(keys), k), np.uint64)
    for query in range(len(keys)):
        count = counts[query]
        if count > k:
            bring_smallest_forward(keys[query], count, k)
            count = k
        for place in range(k):  # written out: Numba takes seconds to compile slices that are filled
            nearest[query, place] = keys[query, place] if place < count else EMPTY
    return nearest


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
