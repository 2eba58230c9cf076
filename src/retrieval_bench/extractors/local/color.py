"""Colour: what local patches look like in Lab, in one Fisher vector (Clinchant et al., ImageEval 2007)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Annotated

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
    lab = cv2.cvtColor(pixels.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB) / np.float32(100)
    height, width = lab.shape[:2]
    squares = lab * lab
    described = []
    for cell in cells:
        # anchor (0, 0): the box that begins at a pixel is found at that pixel.
        mean, square = (
            cv2.boxFilter(values, -1, (cell, cell), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
            for values in (lab, squares)
        )
        rows, columns = ((length - SIDE * cell) // step + 1 for length in (height, width))
        found = np.empty((rows * columns, 6 * SIDE * SIDE), np.float32)
        _compiled()(mean, square, cell, step, columns, found)
        described.append(found)
    return Described(np.concatenate(described), _places(height, width, cells, step))


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


def _patches(mean: np.ndarray, square: np.ndarray, cell: int, step: int, columns: int, found: np.ndarray) -> None:
    """(h, w, 3) float32, of the box that begins at each pixel -> (n, 24). Boxes where no patch begins are not asked
    for."""
    for patch in range(len(found)):
        top, left = patch // columns * step, patch % columns * step
        for part in range(SIDE * SIDE):
            y, x = top + part // SIDE * cell, left + part % SIDE * cell
            for channel in range(3):
                average = mean[y, x, channel]
                variance = np.float32(square[y, x, channel] - average * average)
                found[patch, 6 * part + channel] = average
                found[patch, 6 * part + 3 + channel] = np.sqrt(max(variance, np.float32(0)))


@functools.cache
def _compiled() -> Callable[..., None]:
    from numba import types

    from retrieval_bench.search import jit
    from retrieval_bench.search.kernels import array

    boxes = array(types.float32, 3)
    signature = types.none(boxes, boxes, types.int64, types.int64, types.int64, array(types.float32, 2))
    compiled: Callable[..., None] = jit.compiled(_patches, signature)
    return compiled


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
