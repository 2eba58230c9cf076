"""Local binary patterns (Ojala, Pietikainen and Maenpaa, PAMI 2002): which neighbours are at least as bright."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.extractors.histograms.regions import MAX_LEVELS, pyramid
from retrieval_bench.images.pictures import pictures
from retrieval_bench.images.resize import grey
from retrieval_bench.registry import EXTRACTORS, Range

POINTS = 8
PATTERNS = POINTS * (POINTS - 1) + 3
"""Bins: the uniform patterns (at most two changes around the circle) one by one, all others together."""


def binary_patterns(luma: np.ndarray, radius: float) -> np.ndarray:
    """(h, w) real -> (h, w) uint8: bit p is set where the point at angle 2 pi p / 8 on the circle is not darker.

    Points between pixels are interpolated linearly; beyond the border all is 0. Equal to scikit-image's
    `local_binary_pattern(luma, 8, radius)`.
    """
    angles = 2 * np.pi * np.arange(POINTS) / POINTS
    # Rounded as scikit-image does: points that lie on pixels are then exactly there.
    down, across = np.round(-radius * np.sin(angles), 5), np.round(radius * np.cos(angles), 5)
    margin = int(np.ceil(radius)) + 1
    codes = np.zeros(luma.shape, np.uint8)
    _compiled()(np.pad(luma.astype(np.float64), margin), margin, down, across, codes)
    return codes


@functools.cache
def uniform() -> np.ndarray:
    """(256,) uint8: the bin of each pattern, 0 to PATTERNS - 1; the last is that of all that are not uniform."""
    codes = np.arange(2**POINTS)
    turned = codes >> 1 | (codes & 1) << (POINTS - 1)
    changes = np.array([int(code).bit_count() for code in codes ^ turned])
    table = np.full(2**POINTS, PATTERNS - 1, np.uint8)
    table[changes <= 2] = np.arange(PATTERNS - 1)
    table.setflags(write=False)
    return table


@functools.cache
def _compiled() -> Any:
    from numba import types

    from retrieval_bench.search import jit

    image, points = types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C")
    signature = types.void(image, types.int64, points, points, types.Array(types.uint8, 2, "C"))
    return jit.compiled(_compare, signature)


def _compare(padded: np.ndarray, margin: int, down: np.ndarray, across: np.ndarray, codes: np.ndarray) -> None:
    height, width = codes.shape
    for point in range(len(down)):
        top, left = int(np.floor(down[point])), int(np.floor(across[point]))
        bottom, right = int(np.ceil(down[point])), int(np.ceil(across[point]))
        for y in range(height):
            # The fraction is taken of the whole coordinate, whose last bits decide on uniform ground.
            lower = (y + down[point]) - np.floor(y + down[point])
            for x in range(width):
                after = (x + across[point]) - np.floor(x + across[point])
                row, column = y + margin, x + margin
                above = (1 - after) * padded[row + top, column + left] + after * padded[row + top, column + right]
                below = (1 - after) * padded[row + bottom, column + left] + after * padded[row + bottom, column + right]
                value = (1 - lower) * above + lower * below
                codes[y, x] |= (1 if value >= padded[row, column] else 0) << point


@dataclass(eq=False)
class LbpHistogram:
    """Histograms of the uniform patterns at radii 1, 2, ... in each region of a pyramid; cosine of square roots."""

    side: int
    radii: int
    levels: int
    distance: Distance = "cosine"

    @property
    def wanted(self) -> int:
        return self.side

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, radii * regions * PATTERNS) float32 of norm 1: square roots of the shares of the pixels."""
        regions = sum(4**level for level in range(self.levels))
        rows = np.zeros((len(images), self.radii * regions * PATTERNS), np.float32)
        for row, image in enumerate(pictures(images)):
            luma = grey(image, self.side)
            shares = []
            for radius in range(1, self.radii + 1):
                bins = uniform()[binary_patterns(luma, radius)]
                for region in pyramid(bins, self.levels):
                    shares.append(np.bincount(region.ravel(), minlength=PATTERNS) / max(region.size, 1))
            rows[row] = np.sqrt(np.concatenate(shares))
            rows[row] /= np.linalg.norm(rows[row])
        return rows


@EXTRACTORS("lbp", family="texture", about="uniform local binary patterns at several radii in a spatial pyramid")
def lbp(
    setup: Setup,
    *,
    side: Annotated[int, Range(1, 10_000)] = 256,
    radii: Annotated[int, Range(1, 16)] = 3,
    levels: Annotated[int, Range(1, MAX_LEVELS)] = 2,
) -> Extractor:
    """Histograms of local binary patterns.

    Args:
        setup: what the run fixes for every method.
        side: the longer side of the image in pixels; larger images are shrunk to it, smaller ones stay as
            they are
        radii: radii of the circles of neighbours: 1, 2, ... up to this many pixels, 16 at most
        levels: levels of the spatial pyramid, 1 to 4; 1 is the whole image alone, each level halves both
            sides of the regions
    """
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    for option, value, most in (("side", side, 10_000), ("radii", radii, 16), ("levels", levels, MAX_LEVELS)):
        if not 1 <= value <= most:
            raise BenchError(f"lbp: {option}={value} is not between 1 and {most}")
    _compiled()
    return LbpHistogram(side, radii, levels)
