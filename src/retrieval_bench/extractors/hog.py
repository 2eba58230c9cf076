"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): dense blocks, encoded, or the whole image as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.extractors.gradients import cell_histograms
from retrieval_bench.extractors.local import Described, local_features, nothing
from retrieval_bench.extractors.resize import shrunk
from retrieval_bench.registry import EXTRACTORS

EPS = 1e-5
ORIENTATIONS = 9


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


def dense_hog(image: np.ndarray, *, sides: tuple[int, ...], cell: int, block: int) -> Described:
    """(h, w, 3) uint8 RGB -> Described, d = block * block * 9: the blocks of the image at several sizes; flat blocks
    are left out."""
    found = []
    for side in sides:
        blocks = hog_blocks(cell_histograms(shrunk(image, side).astype(np.float64), cell, ORIENTATIONS), block=block)
        rows, columns = blocks.shape[:2]
        down, across = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        centres = np.stack([down.ravel() / max(rows - 1, 1), across.ravel() / max(columns - 1, 1)], axis=1) - 0.5
        flat = blocks.reshape(rows * columns, block * block * ORIENTATIONS)
        seen = flat.any(axis=1)
        found.append((flat[seen].astype(np.float32), centres[seen].astype(np.float32)))
    descriptors, places = (np.concatenate(each) for each in zip(*found, strict=True))
    return Described(descriptors, places) if len(descriptors) else nothing(block * block * ORIENTATIONS)


@dataclass(eq=False)
class WholeImageHog:
    """All blocks of the image, resized to side x side pixels, one after the other."""

    side: int
    cell: int
    block: int
    distance: Distance = "cosine"
    serial: ClassVar[bool] = True

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, blocks * blocks * block * block * 9) float32; a uniform image is a zero row."""
        import cv2

        rows = []
        for image in images:
            square = cv2.resize(image, (self.side, self.side), interpolation=cv2.INTER_AREA).astype(np.float64)
            blocks = hog_blocks(cell_histograms(square, self.cell, ORIENTATIONS), block=self.block)
            rows.append(blocks.ravel().astype(np.float32))
        return np.stack(rows)


@EXTRACTORS("hog", family="gradient", about="dense HOG blocks at several sizes, VLAD")
def hog(
    setup: Setup,
    *,
    encode: str = "vlad",
    words: int = 256,
    side: int = 256,
    cell: int = 8,
    block: int = 3,
    reduce: int = 32,
    place: float = 0.25,
    whiten: int = 0,
    soft: int = 1,
    fit_images: int = 1000,
) -> Extractor:
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    for option, value in {"side": side, "cell": cell, "block": block}.items():
        if value < 1:
            raise BenchError(f"hog: {option}={value} must be at least 1")
    if encode == "global":
        if side < cell * block:
            raise BenchError(f"hog: side={side} holds no block of {block} x {block} cells of {cell} pixels; raise side")
        return WholeImageHog(side, cell, block)
    sides = (side, round(side / 1.5), round(side / 2.25))
    return local_features(
        *("hog", setup, partial(dense_hog, sides=sides, cell=cell, block=block)),
        encode=encode,
        words=words,
        reduce=reduce,
        place=place,
        whiten=whiten,
        soft=soft,
        fit_images=fit_images,
    )
