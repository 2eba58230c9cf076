"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): dense blocks, encoded, or the whole image as one."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.extractors.local.area import shrunk
from retrieval_bench.extractors.local.hog_kernel import dense_blocks, hog_blocks, hog_cells, opponent_cells
from retrieval_bench.extractors.local.pipeline import Describe, Described, encoded, local_features
from retrieval_bench.images.pictures import pictures
from retrieval_bench.registry import EXTRACTORS, Range, at_least_one

ORIENTATIONS = 9


def dense_hog(image: np.ndarray, *, side: int, cells: tuple[int, ...], block: int, opponent: bool) -> Described:
    """(h, w, 3) uint8 RGB -> Described, d = block * block * 9, times 3 with opponent colours: the blocks of cells of
    several sizes; flat blocks are left out. The three colours of a block are normalised together.

    opponent: each of the opponent colours votes; else the colour whose gradient is the largest at the pixel, as Dalal
    and Triggs have it. Large cells are made of small ones, of the size that divides all, so that each pixel votes once.
    """
    pixels, common = shrunk(image, side), math.gcd(*cells)
    if opponent:
        small = opponent_cells(pixels, ORIENTATIONS, common)
    else:
        small = hog_cells(pixels, ORIENTATIONS, (common, common), channel_axis=2)
    descriptors, seen = dense_blocks(small, [cell // common for cell in cells], block)
    places = _places(pixels.shape[0], pixels.shape[1], cells, block)
    return Described(descriptors, places) if seen.all() else Described(descriptors[seen], places[seen])


@functools.lru_cache(maxsize=256)
def _places(height: int, width: int, cells: tuple[int, ...], block: int) -> np.ndarray:
    """(n, 2) float32, not to be written: the places of all blocks, which pictures of one size share."""
    found = []
    for cell in cells:
        centres = (
            (np.arange(max(length // cell - block + 1, 0)) + block / 2) * cell / length - 0.5
            for length in (height, width)
        )
        found.append(np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2))
    places = np.concatenate(found).astype(np.float32)
    places.setflags(write=False)
    return places


@dataclass(eq=False)
class WholeImageHog:
    """All blocks of the image, resized to side x side pixels, one after the other."""

    side: int
    cell: int
    block: int
    distance: Distance = "cosine"
    serial: ClassVar[bool] = True

    @property
    def wanted(self) -> int:
        return self.side

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, blocks * blocks * block * block * 9) float32; a uniform image is a zero row."""
        import cv2

        blocks = max(self.side // self.cell - self.block + 1, 0)
        rows = np.zeros((len(images), (blocks * self.block) ** 2 * ORIENTATIONS), np.float32)
        for row, image in enumerate(pictures(images)):
            square = cv2.resize(image, (self.side, self.side), interpolation=cv2.INTER_AREA)
            cells = hog_cells(square, ORIENTATIONS, (self.cell, self.cell), channel_axis=2)
            rows[row] = hog_blocks(cells, (self.block, self.block)).ravel()
        return rows


@EXTRACTORS(
    "hog", family="gradient", about="dense HOG blocks in opponent colours, Fisher vector", shares=local_features
)
@encoded("hog", reduce=48, sample=75_000)
def hog(
    setup: Setup,
    *,
    encode: str = "fisher",
    side: Annotated[int, Range(1, 10_000)] = 224,
    cell: Annotated[int, Range(1, 1000)] = 8,
    scales: Annotated[int, Range(1, 16)] = 2,
    block: Annotated[int, Range(1, 64)] = 2,
    opponent: bool = True,
) -> Describe | Extractor:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), encoded.

    Args:
        setup: what the run fixes for every method.
        encode: how the blocks of an image become one vector: `fisher` (Fisher vector), `vlad`, `bow` (bag of
            words), or `global`: all blocks of the square image, one after the other
        side: the longer side of the image in pixels; larger images are shrunk to it, smaller ones stay as
            they are
        cell: pixels along a cell of the smallest size
        scales: sizes of cells; each is 1.5 times as large as the one before
        block: cells along a block; the gradients of a block are normalised together
        opponent: gradients in each of three opponent colours; `no` takes the channel of the strongest
            gradient at each pixel
    """
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    at_least_one("hog", side=side, cell=cell, scales=scales, block=block)
    if encode == "global":
        if side < cell * block:
            raise BenchError(f"hog: side={side} holds no block of {block} x {block} cells of {cell} pixels; raise side")
        return WholeImageHog(side, cell, block)
    cells = tuple(round(cell * 1.5**scale) for scale in range(scales))
    return functools.partial(dense_hog, side=side, cells=cells, block=block, opponent=opponent)
