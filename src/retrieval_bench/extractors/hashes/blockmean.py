"""The block mean hash (Yang, Gu and Niu, "Block mean value based image perceptual hashing", IIH-MSP 2006).

Their first method: the grey picture is divided into blocks that do not overlap, and a bit says whether the mean of a
block lies above the median of all means. What differs between implementations is fixed here as follows:

- The blocks tile the picture itself. The paper and OpenCV scale it to 256 x 256 pixels first; here a pixel that lies in
  several blocks counts in each by the area that lies there, as in blockhash.io, so that nothing is interpolated. For
  sides that are multiples of `size` all of this is the same.
- The threshold is the median of the means (OpenCV's BlockMeanHash: the mean of the picture; blockhash.io: a median for
  each quarter of the height).
- Above means greater, as in imagehash, where the paper says greater or equal: so a picture of one colour has no bit.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from PIL import Image

from retrieval_bench.core import Extractor, Setup
from retrieval_bench.extractors.hashes.imagehash import MAX_SIZE, UPRIGHT_RGB, ImageHash, checked_size
from retrieval_bench.registry import EXTRACTORS, Range


def overlaps(length: int, size: int) -> np.ndarray:
    """(size, length) float64 whole numbers: how much of pixel j lies in part i when a line of pixels is cut into `size`
    equal parts, in units of 1 / size pixel. Every row adds up to `length`."""
    part = np.arange(size)[:, None] * length
    pixel = np.arange(length) * size
    shared = np.minimum(part + length, pixel + size) - np.maximum(part, pixel)
    return np.maximum(shared, 0).astype(np.float64)


def block_sums(grey: np.ndarray, size: int) -> np.ndarray:
    """(h, w) uint8 -> (size, size) float64: the mean of each block times h * w.

    Whole numbers far below 2 ** 53, so these are exact, in whatever order they are summed.
    """
    height, width = grey.shape
    down, across = overlaps(height, size), overlaps(width, size)
    sums = np.empty((size, size))
    for part in range(size):  # a band at a time: the whole picture in float64 takes eight times its size
        band = slice(part * height // size, -(-(part + 1) * height // size))
        sums[part] = across @ (down[part, band] @ grey[band].astype(np.float64))
    return sums


def block_bits(image: np.ndarray, size: int) -> np.ndarray:
    """(h, w, 3) uint8 -> (size, size) bool."""
    sums = block_sums(np.asarray(Image.fromarray(image).convert("L")), size)
    return sums > np.median(sums)


@EXTRACTORS(
    "block-mean",
    family="hash",
    about="256 bits of the upright RGB picture: is each of 16 x 16 blocks above their median",
    note=UPRIGHT_RGB,
)
def block_mean(setup: Setup, *, size: Annotated[int, Range(2, MAX_SIZE)] = 16) -> Extractor:
    """One bit a block.

    Args:
        setup: what the run fixes for every method.
        size: blocks along each side; the hash has size x size bits, 2 to 64
    """
    checked_size("block-mean", size)
    return ImageHash(partial(block_bits, size=size), size * size)
