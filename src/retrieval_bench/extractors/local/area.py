"""Shrinking by averages: the pixels of OpenCV's `INTER_AREA`, of three colours, in half of its time.

OpenCV adds up every pixel in turn. Here each new pixel is summed in registers, in the same order in float32, so that
the same pixels come out. Once a process noise is shrunk by both; where one pixel differs, OpenCV goes on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from retrieval_bench.images import resize

_TAPS = 4  # pixels of a line that are added up without a loop
_LEAST = 1e-3  # of a pixel; OpenCV leaves out what overlaps less
_PROBES = (((120, 87), 50), ((87, 120), 64), ((60, 64), 48), ((150, 33), 32))


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink the longer side; never enlarge. The pixels are those of `resize.shrunk`.

    Args:
        image: (h, w, 3) uint8.
        side: pixels of the longer side, from which on images are shrunk.

    Returns:
        (h', w', 3) uint8; the image itself where it is not larger.
    """
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    whole = image.shape[0] % height == 0 and image.shape[1] % width == 0  # OpenCV has a quicker way for these
    return resize.shrunk(image, side) if whole or not _is_opencvs() else _ours(image, height, width)


@functools.cache
def _is_opencvs() -> bool:
    """Whether OpenCV and the kernel below give the same pixels of noise, at sizes of all kinds."""
    rng = np.random.default_rng(0)
    for shape, side in _PROBES:
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = resize.shrunk(image, side)
        if not np.array_equal(_ours(image, *expected.shape[:2]), expected):
            return False
    return True


def _ours(image: np.ndarray, height: int, width: int) -> np.ndarray:
    small = np.empty((height, width, 3), np.uint8)
    across, across_shares, _ = _overlaps(image.shape[1], width)
    down, down_shares, counts = _overlaps(image.shape[0], height)
    _compiled()(np.ascontiguousarray(image), across, across_shares, down, down_shares, counts, small)
    return small


@functools.lru_cache(maxsize=256)
def _overlaps(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(after,) uint64, the first pixel of each new one; (after, m) float32, the shares of it and of those behind, zeros
    up to a multiple of _TAPS; (after,) int64, how many pixels have a share. As in OpenCV's `computeResizeAreaTab`."""
    scale = before / after
    first, parts = np.empty(after, np.uint64), []
    for place in range(after):
        begin = place * scale
        end = begin + scale
        cell = min(scale, before - begin)
        last = min(math.floor(end), before - 1)
        start = min(math.ceil(begin), last)
        shares = [(start - begin) / cell] if start - begin > _LEAST else []
        first[place] = start - len(shares)
        shares += [1.0 / cell] * (last - start)
        shares += [min(min(end - last, 1.0), cell) / cell] if end - last > _LEAST else []
        parts.append(shares)
    counts = np.array([len(shares) for shares in parts])
    most = -(-int(counts.max()) // _TAPS) * _TAPS
    table = np.array([[*shares, *[0.0] * (most - len(shares))] for shares in parts], np.float32)
    return first, table, counts


def _shrink(
    image: np.ndarray,
    across: np.ndarray,
    across_shares: np.ndarray,
    down: np.ndarray,
    down_shares: np.ndarray,
    counts: np.ndarray,
    small: np.ndarray,
) -> None:
    """(h, w, 3) -> (h', w', 3) uint8: every line across, then lines of the result down. Places have no sign: numba
    would look at each whether it counts from the end."""
    height, width = image.shape[:2]
    one, three, step = np.uint64(1), np.uint64(3), np.uint64(3 * _TAPS)
    line = np.zeros(3 * (width + across_shares.shape[1]), np.float32)  # what is behind the last pixel has no share
    between = np.empty((height, 3 * len(across)), np.float32)
    for y in range(height):
        pixels = image[y].reshape(-1)
        for x in range(3 * width):
            line[x] = pixels[x]
        after = between[y]
        for x in range(len(across)):
            place, shares = three * across[x], across_shares[x]
            red = green = blue = np.float32(0)
            for tap in range(0, len(shares), _TAPS):
                share = shares[tap]
                red += line[place] * share
                green += line[place + one] * share
                blue += line[place + np.uint64(2)] * share
                share = shares[tap + 1]
                red += line[place + np.uint64(3)] * share
                green += line[place + np.uint64(4)] * share
                blue += line[place + np.uint64(5)] * share
                share = shares[tap + 2]
                red += line[place + np.uint64(6)] * share
                green += line[place + np.uint64(7)] * share
                blue += line[place + np.uint64(8)] * share
                share = shares[tap + 3]
                red += line[place + np.uint64(9)] * share
                green += line[place + np.uint64(10)] * share
                blue += line[place + np.uint64(11)] * share
                place += step
            to = three * np.uint64(x)
            after[to], after[to + one], after[to + np.uint64(2)] = red, green, blue
    sums = np.empty(between.shape[1], np.float32)
    for y in range(len(small)):
        sums[:] = 0
        for tap in range(counts[y]):
            share, after = down_shares[y, tap], between[down[y] + np.uint64(tap)]
            for x in range(len(sums)):
                sums[x] += share * after[x]
        rounded = small[y].reshape(-1)
        for x in range(len(sums)):
            rounded[x] = np.int32(np.rint(sums[x]))


@functools.cache
def _compiled() -> Callable[..., None]:
    from numba import types

    from retrieval_bench.search import jit
    from retrieval_bench.search.kernels import array

    places, shares, pixels = array(types.uint64, 1), array(types.float32, 2), types.Array(types.uint8, 3, "C", True)
    signature = types.none(pixels, places, shares, places, shares, array(types.int64, 1), array(types.uint8, 3))
    compiled: Callable[..., None] = jit.compiled(_shrink, signature)
    return compiled
