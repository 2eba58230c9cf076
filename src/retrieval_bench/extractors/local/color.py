"""Colour: what local patches look like in Lab, in one Fisher vector (Clinchant et al., ImageEval 2007)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np

from retrieval_bench.core import Extractor, Setup
from retrieval_bench.extractors.histograms.color import color_histogram
from retrieval_bench.extractors.local.area import shrunk
from retrieval_bench.extractors.local.pipeline import Describe, Described, encoded, local_features
from retrieval_bench.registry import EXTRACTORS, Range, at_least_one

SIDE = 2
"""Cells along each side of a patch: four tell left from right and up from down, which one does not; sixteen gain
nothing and take four times as long."""


def lab_statistics(image: np.ndarray, *, side: int, cells: tuple[int, ...], step: int) -> Described:
    """(h, w, 3) uint8 RGB -> Described, d = 24: mean and standard deviation of L, a and b, over 100, in the 2 x 2 cells
    of every patch.

    cells: pixels of a cell, one patch size each. step: pixels from patch to patch. A plain patch counts as well: its
    colour is what it has to say. An image smaller than a patch is continued beyond its border.
    """
    import cv2

    pixels = shrunk(image, side)
    short = [max(SIDE * max(cells) - length, 0) for length in pixels.shape[:2]]
    if any(short):
        pixels = cv2.copyMakeBorder(pixels, 0, short[0], 0, short[1], cv2.BORDER_REPLICATE)
    shares = np.empty(pixels.shape, np.float32)
    _kernels().shares(np.ascontiguousarray(pixels), shares)
    lab = cv2.cvtColor(shares, cv2.COLOR_RGB2LAB)
    places = _places(*lab.shape[:2], cells, step)
    descriptors = np.empty((len(places), 6 * SIDE * SIDE), np.float32)
    _kernels().patches(lab, np.array(cells, np.int64), step, descriptors)
    return Described(descriptors, places)


@functools.lru_cache(maxsize=256)
def _places(height: int, width: int, cells: tuple[int, ...], step: int) -> np.ndarray:
    """(n, 2) float32, not to be written: the places of all patches, which every picture of this size shares."""
    found = []
    for cell in cells:
        starts = ((np.arange(0, length - SIDE * cell + 1, step), length) for length in (height, width))
        centres = ((start + cell) / length - 0.5 for start, length in starts)
        found.append(np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2))
    places = np.concatenate(found).astype(np.float32)
    places.setflags(write=False)
    return places


def _shares(pixels: np.ndarray, shares: np.ndarray) -> None:
    """(h, w, 3) uint8 -> the same shape in float32, 0 to 1."""
    before, after = pixels.reshape(-1), shares.reshape(-1)
    for place in range(len(before)):
        after[place] = np.float32(before[place]) / np.float32(255)


def _patches(lab: np.ndarray, cells: np.ndarray, step: int, found: np.ndarray) -> None:
    """(h, w, 3) float32 Lab, (s,) int64 pixels of a cell -> (n, 24), the patches of one size behind those of another.

    Means are those of OpenCV's `boxFilter` to the last bit: running sums in float64, along each line and then down.
    Only where a cell begins they become means, and those a patch.
    """
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)  # with a sign, each place would be looked at first
    four, five, six = np.uint64(4), np.uint64(5), np.uint64(6)
    height, width = lab.shape[:2]
    values = np.empty((height, 6 * width))  # of each pixel L, a and b, over 100, and their squares
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                value = lab[y, x, channel] / np.float32(100)
                values[y, 6 * x + channel] = value
                values[y, 6 * x + 3 + channel] = np.float32(value * value)
    means = np.empty(6 * width, np.float32)
    first = 0
    for cell in cells:
        rows, columns = (height - SIDE * cell) // step + 1, (width - SIDE * cell) // step + 1
        boxes, share = width - cell + 1, 1.0 / (cell * cell)
        lines, down = np.empty((cell, 6 * boxes)), np.zeros(6 * boxes)
        for y in range(height):
            value, line = values[y], lines[y % cell]
            top = y - cell + 1  # of the boxes that end here
            if top > 0:
                for place in range(6 * boxes):
                    down[place] -= line[place]
            a = b = c = d = e = f = 0.0
            for x in range(cell):
                a, b, c = a + value[6 * x], b + value[6 * x + 1], c + value[6 * x + 2]
                d, e, f = d + value[6 * x + 3], e + value[6 * x + 4], f + value[6 * x + 5]
            line[0], line[1], line[2], line[3], line[4], line[5] = a, b, c, d, e, f
            leaves, comes = np.uint64(0), six * np.uint64(cell)
            for _ in range(1, boxes):
                a += value[comes] - value[leaves]
                b += value[comes + one] - value[leaves + one]
                c += value[comes + two] - value[leaves + two]
                d += value[comes + three] - value[leaves + three]
                e += value[comes + four] - value[leaves + four]
                f += value[comes + five] - value[leaves + five]
                leaves, comes = leaves + six, comes + six
                line[leaves], line[leaves + one], line[leaves + two] = a, b, c
                line[leaves + three], line[leaves + four], line[leaves + five] = d, e, f
            for place in range(6 * boxes):
                down[place] += line[place]
            made = False
            for part in range(SIDE):
                row = (top - part * cell) // step
                if top < part * cell or row >= rows or row * step + part * cell != top:
                    continue  # no patch has its cells here
                if not made:
                    made = True
                    for place in range(6 * boxes):
                        means[place] = down[place] * share
                    for x in range(boxes):
                        for channel in range(6 * x, 6 * x + 3):
                            variance = np.float32(means[channel + 3] - means[channel] * means[channel])
                            means[channel + 3] = np.sqrt(max(variance, np.float32(0)))
                for column in range(columns):
                    patch = found[first + row * columns + column]
                    for side in range(SIDE):
                        x = 6 * (column * step + side * cell)
                        for k in range(6):
                            patch[6 * (SIDE * part + side) + k] = means[x + k]
        first += rows * columns


class _ColorKernels(NamedTuple):
    shares: Callable[..., None]
    patches: Callable[..., None]


@functools.cache
def _kernels() -> _ColorKernels:
    from numba import types

    from retrieval_bench.search import jit
    from retrieval_bench.search.kernels import array

    pixels, picture = types.Array(types.uint8, 3, "C", readonly=True), array(types.float32, 3)
    shares = jit.compiled(_shares, types.none(pixels, picture))
    some = types.none(picture, array(types.int64, 1), types.int64, array(types.float32, 2))
    return _ColorKernels(shares, jit.compiled(_patches, some))


@EXTRACTORS("color", family="color", about="local Lab statistics, Fisher vector, whitened", shares=local_features)
@encoded("color", words=128, reduce=24, whiten=512, sample=75_000, level=1.0)
def color(
    setup: Setup,
    *,
    encode: str = "fisher",
    side: Annotated[int, Range(1, 10_000)] = 128,
    cell: Annotated[int, Range(1, 1000)] = 4,
    scales: Annotated[int, Range(1, 16)] = 3,
    step: Annotated[int, Range(1, 10_000)] = 4,
) -> Describe | Extractor:
    """Mean and deviation of Lab in the 2 x 2 cells of patches, encoded.

    Args:
        setup: what the run fixes for every method.
        encode: how the descriptors of an image become one vector: `fisher` (Fisher vector), `vlad`, `bow`
            (bag of words), or `histogram`: the HSV histogram of `hsv` in their place
        side: the longer side of the image in pixels; larger images are shrunk to it, smaller ones stay as
            they are
        cell: pixels along a cell of the smallest patch; a patch has 2 x 2 cells
        scales: sizes of patches; each is twice as large as the one before
        step: pixels from patch to patch
    """
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    if encode == "histogram":
        return color_histogram("color", "hsv", {"hues": 24, "saturations": 8, "values": 4}, levels=1)
    at_least_one("color", side=side, cell=cell, scales=scales, step=step)
    cells = tuple(cell * 2**scale for scale in range(scales))
    return partial(lab_statistics, side=side, cells=cells, step=step)
