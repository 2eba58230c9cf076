"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), their blocks in a bag of visual words."""

from __future__ import annotations

from functools import partial

import numpy as np

from retrieval_bench.core import BenchError, Extractor, Setup
from retrieval_bench.extractors.aggregate import BagOfWords, whole
from retrieval_bench.extractors.grey import grey
from retrieval_bench.registry import EXTRACTORS

EPS = 1e-5


def hog_cells(luma: np.ndarray, *, cell: int, orientations: int = 9) -> np.ndarray:
    """(h, w) float, any range -> (h // cell, w // cell, orientations) float64: mean gradient magnitude per direction.

    Central differences, 0 at the border; unsigned directions, each pixel votes for one bin of one cell.
    """
    rows, columns = luma.shape[0] // cell, luma.shape[1] // cell
    dy, dx = np.zeros(luma.shape), np.zeros(luma.shape)
    dy[1:-1] = luma[2:] - luma[:-2]
    dx[:, 1:-1] = luma[:, 2:] - luma[:, :-2]
    dy, dx = dy[: rows * cell, : columns * cell], dx[: rows * cell, : columns * cell]
    direction = np.rad2deg(np.arctan2(dy, dx)) % 180
    bins = np.minimum((direction * (orientations / 180)).astype(np.int64), orientations - 1)
    cells = (np.arange(rows * cell) // cell)[:, None] * columns + np.arange(columns * cell) // cell
    votes = np.bincount(
        (cells * orientations + bins).ravel(), np.hypot(dy, dx).ravel(), minlength=rows * columns * orientations
    )
    return votes.reshape(rows, columns, orientations) / cell**2


def hog_blocks(cells: np.ndarray, *, block: int) -> np.ndarray:
    """(r, c, o) cells -> (r - block + 1, c - block + 1, block, block, o) float64, each block L2-Hys normalised.

    L2-Hys: to unit length, clipped at 0.2, to unit length again. Empty where the image has fewer cells than a block.
    """
    rows, columns, orientations = cells.shape
    if rows < block or columns < block:
        return np.empty((0, 0, block, block, orientations))
    windows = np.lib.stride_tricks.sliding_window_view(cells, (block, block), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    clipped = np.minimum(_unit(windows), 0.2)
    return _unit(clipped)


def _unit(blocks: np.ndarray) -> np.ndarray:
    return blocks / np.sqrt((blocks**2).sum(axis=(2, 3, 4), keepdims=True) + EPS**2)


def dense_hog(image: np.ndarray, *, side: int, cell: int, block: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (n, block * block * 9) int16 whole blocks (see aggregate.py); flat blocks are left out."""
    blocks = hog_blocks(hog_cells(grey(image, side).astype(np.float64), cell=cell), block=block)
    return whole(blocks.reshape(-1, block * block * 9))


@EXTRACTORS("hog", family="gradient", about="dense HOG blocks, bag of visual words with idf")
def hog(
    setup: Setup, *, words: int = 1024, side: int = 256, cell: int = 8, block: int = 2, fit_images: int = 1000
) -> Extractor:
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    options = {"words": words, "side": side, "cell": cell, "block": block, "fit_images": fit_images}
    for option, value in options.items():
        if value < 1:
            raise BenchError(f"hog: {option}={value} must be at least 1")
    return BagOfWords("hog", partial(dense_hog, side=side, cell=cell, block=block), words, fit_images, setup.seed)
