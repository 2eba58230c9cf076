"""The small grey picture that hashes start from: Pillow's `convert("L").resize(size, LANCZOS)`, to the last bit.

Pillow works with whole numbers, so the same bits come from any order of the same sums; here vectors add them up. It
shrinks one side after the other, rounding in between, and which side comes first depends on the sizes and on its
version. So the first pictures of every size are Pillow's, and strike out the order that does not give the same; where
neither is left, or pictures cannot tell them apart, Pillow goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image

_SUPPORT = 3.0  # of Lanczos' window, in pixels of the smaller picture
_BITS = 22  # behind the point of a weight
_HALF = 1 << (_BITS - 1)
_MOST_SIZES = 4096  # that are remembered
_ENOUGH = 3  # pictures of one size that an order must have stood, alone in the end
_MOST = 20  # pictures that may leave both

Order = Literal["across", "down"]
"""Which side is shrunk first."""

_known: dict[tuple[int, int, int, int], tuple[int, tuple[Order, ...]]] = {}
"""By (h, w, height, width): pictures that were compared, and the orders that all of them have left."""


def grey_thumbnail(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrink, or enlarge, and forget the colours. Several threads may call this at once.

    Args:
        image: (h, w, 3) uint8 RGB.
        width: of the result, in pixels.
        height: of the result, in pixels.

    Returns:
        (height, width) uint8.
    """
    h, w = image.shape[:2]
    sizes = h, w, height, width
    pictures, left = _known.get(sizes, (0, ("across", "down")))
    one_side = h == height or w == width  # then there is no order
    if pictures >= _ENOUGH and (len(left) == 1 or (left and one_side)):
        return _ours(image, width, height, left[0])
    found = _of_pillow(image, width, height)
    if left and pictures < _MOST and (pictures or len(_known) < _MOST_SIZES):
        left = tuple(order for order in left if np.array_equal(_ours(image, width, height, order), found))
        _known[sizes] = pictures + 1, left
    return found


def _of_pillow(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L").resize((width, height), Image.Resampling.LANCZOS))


def _ours(image: np.ndarray, width: int, height: int, order: Order) -> np.ndarray:
    h, w = image.shape[:2]
    small = np.empty((height, width), np.uint8)
    _compiled()(np.ascontiguousarray(image), *_weights(w, width), *_weights(h, height), order == "across", small)
    return small


@functools.lru_cache(maxsize=256)
def _weights(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """(after, 2) int64, the first pixel and the number of pixels of each new one; (after, most) int32, their weights.

    As in Pillow's Resample.c. A side that keeps its length keeps its pixels.
    """
    if before == after:
        return np.stack([np.arange(after), np.ones(after, np.int64)], axis=1), np.full((after, 1), 1 << _BITS, np.int32)
    scale = before / after
    widened = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - _SUPPORT * widened + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + _SUPPORT * widened + 0.5).astype(np.int64), before)
    most = int((last - first).max())
    place = np.arange(most)
    x = (place + first[:, None] - centres[:, None] + 0.5) * (1.0 / widened)
    window = np.where(np.abs(x) < _SUPPORT, np.sinc(x) * np.sinc(x / _SUPPORT), 0.0)
    window[place[None] >= (last - first)[:, None]] = 0.0
    window /= window.sum(axis=1, keepdims=True)
    whole = np.trunc(window * (1 << _BITS) + np.where(window < 0, -0.5, 0.5)).astype(np.int32)
    return np.stack([first, last - first], axis=1), whole


def _thumbnail(to_grey: Callable, shrink_row: Callable, shrink_columns: Callable) -> Callable:
    """(h, w, 3) -> (height, width) uint8 in one function, since Python's lock is to be taken once a picture."""

    def thumbnail(
        image: np.ndarray,
        across: np.ndarray,
        across_weights: np.ndarray,
        down: np.ndarray,
        down_weights: np.ndarray,
        across_first: bool,
        small: np.ndarray,
    ) -> None:
        h, w = image.shape[:2]
        height, width = small.shape
        line = np.empty(w, np.int32)
        if across_first:
            between, sums = np.empty((h, width), np.uint8), np.empty(width, np.int32)
            for y in range(h):
                to_grey(image[y].reshape(-1), line)
                shrink_row(line, across, across_weights, between[y])
            for y in range(height):
                shrink_columns(between, down[y, 0], down_weights[y, : down[y, 1]], sums, small[y])
        else:
            grey, sums, shrunk = np.empty((h, w), np.uint8), np.empty(w, np.int32), np.empty(w, np.uint8)
            for y in range(h):
                to_grey(image[y].reshape(-1), line)
                for x in range(w):
                    grey[y, x] = line[x]
            for y in range(height):
                shrink_columns(grey, down[y, 0], down_weights[y, : down[y, 1]], sums, shrunk)
                for x in range(w):
                    line[x] = shrunk[x]
                shrink_row(line, across, across_weights, small[y])

    return thumbnail


def _to_grey(pixels: np.ndarray, line: np.ndarray) -> None:
    """(w * 3,) uint8 RGB -> (w,) int32: Pillow's luma, ITU-R 601-2, in 16 bits behind the point."""
    for x in range(len(line)):
        red, green, blue = np.int32(pixels[3 * x]), np.int32(pixels[3 * x + 1]), np.int32(pixels[3 * x + 2])
        line[x] = np.int32(red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def _shrink_row(line: np.ndarray, parts: np.ndarray, weights: np.ndarray, after: np.ndarray) -> None:
    """(w,) int32 -> (width,) uint8."""
    for x in range(len(after)):
        count, total = parts[x, 1], np.int32(_HALF)
        some, mine = line[parts[x, 0] : parts[x, 0] + count], weights[x, :count]
        for tap in range(count):
            total = np.int32(total + some[tap] * mine[tap])
        after[x] = min(max(total >> _BITS, 0), 255)


def _shrink_columns(before: np.ndarray, first: int, weights: np.ndarray, sums: np.ndarray, after: np.ndarray) -> None:
    """(h, w) uint8 -> one row of the fewer, (w,) uint8. sums: (w,) int32, room to add up in."""
    sums[:] = _HALF
    for tap in range(len(weights)):
        weight, line = weights[tap], before[first + tap]
        for x in range(len(sums)):
            sums[x] = np.int32(sums[x] + np.int32(line[x]) * weight)
    for x in range(len(sums)):
        after[x] = min(max(sums[x] >> _BITS, 0), 255)


@functools.cache
def _compiled() -> Callable[..., None]:
    import numba
    from numba import types

    from retrieval_bench.search import jit
    from retrieval_bench.search.kernels import array

    parts, weights = array(types.int64, 2), array(types.int32, 2)
    pixels = types.Array(types.uint8, 3, "C", readonly=True)
    signature = types.none(pixels, parts, weights, parts, weights, types.boolean, array(types.uint8, 2))
    inner = numba.njit(nogil=True, error_model="numpy")
    function = _thumbnail(inner(_to_grey), inner(_shrink_row), inner(_shrink_columns))
    compiled: Callable[..., None] = jit.compiled(function, signature)
    return compiled
