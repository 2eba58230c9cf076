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


def grey_thumbnail(image: np.ndarray, width: int, height: int) -> Image.Image:
    """Shrink, or enlarge, and forget the colours. Several threads may call this at once.

    Args:
        image: (h, w, 3) uint8 RGB.
        width: of the result, in pixels.
        height: of the result, in pixels.

    Returns:
        A picture of mode "L".
    """
    h, w = image.shape[:2]
    sizes = h, w, height, width
    pictures, left = _known.get(sizes, (0, ("across", "down")))
    one_side = h == height or w == width  # then there is no order
    if pictures >= _ENOUGH and (len(left) == 1 or (left and one_side)):
        return _ours(image, width, height, left[0])
    found = _of_pillow(image, width, height)
    if left and pictures < _MOST and (pictures or len(_known) < _MOST_SIZES):
        pixels = np.asarray(found)
        left = tuple(order for order in left if np.array_equal(np.asarray(_ours(image, width, height, order)), pixels))
        _known[sizes] = pictures + 1, left
    return found


def _of_pillow(image: np.ndarray, width: int, height: int) -> Image.Image:
    return Image.fromarray(image).convert("L").resize((width, height), Image.Resampling.LANCZOS)


def _ours(image: np.ndarray, width: int, height: int, order: Order) -> Image.Image:
    import cv2

    to_grey, shrink_rows, shrink_columns = _compiled()
    h, w = image.shape[:2]
    grey, small = np.empty((h, w), np.uint8), np.empty((height, width), np.uint8)
    to_grey(*cv2.split(image), grey)
    if order == "across":
        between = np.empty((h, width), np.uint8)
        shrink_rows(grey, *_weights(w, width), between)
        shrink_columns(between, *_weights(h, height), small)
    else:
        between = np.empty((height, w), np.uint8)
        shrink_columns(grey, *_weights(h, height), between)
        shrink_rows(between, *_weights(w, width), small)
    return Image.fromarray(small)


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


def _to_grey(red: np.ndarray, green: np.ndarray, blue: np.ndarray, grey: np.ndarray) -> None:
    """Pillow's luma, ITU-R 601-2, in 16 bits behind the point; (h, w) uint8 each."""
    for y in range(grey.shape[0]):
        for x in range(grey.shape[1]):
            luma = np.int32(red[y, x]) * 19595 + np.int32(green[y, x]) * 38470 + np.int32(blue[y, x]) * 7471
            grey[y, x] = np.int32(luma + 32768) >> 16


def _shrink_rows(before: np.ndarray, parts: np.ndarray, weights: np.ndarray, after: np.ndarray) -> None:
    """(h, w) -> (h, width) uint8."""
    line = np.empty(before.shape[1], np.int32)
    for y in range(len(before)):
        for x in range(len(line)):
            line[x] = before[y, x]
        for x in range(after.shape[1]):
            count, total = parts[x, 1], np.int32(_HALF)
            some, mine = line[parts[x, 0] : parts[x, 0] + count], weights[x, :count]
            for tap in range(count):
                total = np.int32(total + some[tap] * mine[tap])
            after[y, x] = min(max(total >> _BITS, 0), 255)


def _shrink_columns(before: np.ndarray, parts: np.ndarray, weights: np.ndarray, after: np.ndarray) -> None:
    """(h, w) -> (height, w) uint8."""
    sums = np.empty(before.shape[1], np.int32)
    for y in range(len(after)):
        sums[:] = _HALF
        for tap in range(parts[y, 1]):
            weight, line = weights[y, tap], before[parts[y, 0] + tap]
            for x in range(len(sums)):
                sums[x] = np.int32(sums[x] + np.int32(line[x]) * weight)
        for x in range(len(sums)):
            after[y, x] = min(max(sums[x] >> _BITS, 0), 255)


@functools.cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None], Callable[..., None]]:
    from numba import types

    from retrieval_bench.search import jit
    from retrieval_bench.search.kernels import array

    grey = array(types.uint8, 2)
    shrink = types.none(grey, array(types.int64, 2), array(types.int32, 2), grey)
    with jit.announced():
        return (
            jit.compiled(_to_grey, types.none(grey, grey, grey, grey)),
            jit.compiled(_shrink_rows, shrink),
            jit.compiled(_shrink_columns, shrink),
        )
