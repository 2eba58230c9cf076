"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) in compiled code, equal to scikit-image's `hog`.

The direction of a gradient needs no arctangent: its bin is the number of bin borders that lie at or before it, and a
cross product tells on which side of a border a vector lies. That is a handful of multiplications a pixel, which the
processor does for many pixels at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from retrieval_bench.images.resize import OPPONENT

BlockNorm = Literal["L1", "L1-sqrt", "L2", "L2-Hys"]
BLOCK_NORMS: tuple[BlockNorm, ...] = get_args(BlockNorm)


def hog(
    image: np.ndarray,
    orientations: int = 9,
    pixels_per_cell: tuple[int, int] = (8, 8),
    cells_per_block: tuple[int, int] = (3, 3),
    block_norm: BlockNorm = "L2-Hys",
    transform_sqrt: bool = False,
    feature_vector: bool = True,
    *,
    channel_axis: int | None = None,
) -> np.ndarray:
    """scikit-image's `hog`, argument by argument, in float64 whatever the dtype of the image.

    image: (h, w) or, with channel_axis, (h, w, channels) in any order of axes; any real range, not negative with
        transform_sqrt. Of several channels the one with the largest gradient votes, the first of equals.
    Returns (h // cell - block + 1, w // cell - block + 1, block, block, orientations) float64, rows before columns, or
        the same raveled. Raises ValueError where the image has fewer cells than a block.
    """
    cells = hog_cells(image, orientations, pixels_per_cell, transform_sqrt, channel_axis=channel_axis)
    blocks = hog_blocks(cells, cells_per_block, block_norm)
    if not blocks.size:
        rows, columns = (cell * block for cell, block in zip(pixels_per_cell, cells_per_block, strict=True))
        raise ValueError(f"the image is too small: a block of cells takes {rows} rows and {columns} columns")
    return blocks.ravel() if feature_vector else blocks


def hog_cells(
    image: np.ndarray,
    orientations: int = 9,
    pixels_per_cell: tuple[int, int] = (8, 8),
    transform_sqrt: bool = False,
    *,
    channel_axis: int | None = None,
) -> np.ndarray:
    """An image as in `hog` -> (h // cell, w // cell, orientations) float64: mean gradient magnitude per direction.

    Central differences, 0 at the border; unsigned directions; each pixel votes for one bin of one cell. Pixels beyond
    the last whole cell vote for nothing. An image smaller than a cell has no cells: shape (0, ...) or (., 0, .).
    """
    if image.ndim != (2 if channel_axis is None else 3):
        raise ValueError(f"an image of {image.ndim} axes with channel_axis={channel_axis}")
    if orientations < 1 or min(pixels_per_cell) < 1:
        raise ValueError(f"orientations={orientations} and pixels_per_cell={pixels_per_cell} must be at least 1")
    planes = image[:, :, None] if channel_axis is None else np.moveaxis(image, channel_axis, -1)
    kind = np.uint8 if planes.dtype == np.uint8 else np.float64
    planes = np.ascontiguousarray(planes, kind)
    rows, columns = (length // cell for length, cell in zip(planes.shape, pixels_per_cell, strict=False))
    cells = np.zeros((rows, columns, orientations))
    _kernels()[kind](planes, transform_sqrt, *pixels_per_cell, *borders(orientations), 0, cells)
    return cells


def opponent_cells(image: np.ndarray, orientations: int, cell: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (h // cell, w // cell, 3 * orientations) float64: the cells of each opponent colour."""
    height, width = image.shape[:2]
    cells = np.zeros((height // cell, width // cell, 3 * orientations))
    _kernels()["opponent"](np.ascontiguousarray(image), OPPONENT, cell, *borders(orientations), cells)
    return cells


def hog_blocks(
    cells: np.ndarray, cells_per_block: tuple[int, int] = (3, 3), block_norm: BlockNorm = "L2-Hys"
) -> np.ndarray:
    """(r, c, o) float64 cells -> (r - block + 1, c - block + 1, block, block, o) float64, each block normalised.

    L1: v / (|v|_1 + eps). L1-sqrt: its square root. L2: v / sqrt(|v|_2^2 + eps^2). L2-Hys: L2, clipped at 0.2, L2.
    eps is 1e-5: a block without gradients stays 0. Empty where there are fewer cells than a block.
    """
    if block_norm not in BLOCK_NORMS:
        raise ValueError(f"block_norm={block_norm!r} is none of {', '.join(BLOCK_NORMS)}")
    if min(cells_per_block) < 1:
        raise ValueError(f"cells_per_block={cells_per_block} must be at least 1")
    rows, columns, orientations = cells.shape
    high, wide = cells_per_block
    blocks = np.empty((max(rows - high + 1, 0), max(columns - wide + 1, 0), high, wide, orientations))
    _kernels()["blocks"](np.ascontiguousarray(cells, np.float64), BLOCK_NORMS.index(block_norm), blocks)
    return blocks


def dense_blocks(cells: np.ndarray, times: Sequence[int], block: int) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of cells of several sizes, as of `hog_blocks`; a large cell is the mean of small ones.

    Args:
        cells: (r, c, o) float64, the small cells.
        times: how many of them a larger one has along each side.
        block: cells along a block.

    Returns:
        (n, block * block * o) float32, the blocks of one size behind those of another, each size line by line; and (n,)
        bool, whether anything in a block is not 0.
    """
    rows, columns, orientations = cells.shape
    sizes = np.array(times, np.int64)
    n = sum(max(rows // each - block + 1, 0) * max(columns // each - block + 1, 0) for each in times)
    blocks, seen = np.empty((n, block * block * orientations), np.float32), np.empty(n, np.bool_)
    _kernels()["dense"](cells, sizes, block, BLOCK_NORMS.index("L2-Hys"), blocks, seen)
    return blocks, seen


@functools.cache
def borders(orientations: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the borders between the bins, 180 / orientations degrees apart; (orientations - 1,) each.

    Borders at 45, 90 and 135 degrees are exact, because gradients of whole numbers lie on them.
    """
    degrees = [180 * border / orientations for border in range(1, orientations)]
    half = math.sqrt(0.5)
    exact = {45.0: (half, half), 90.0: (0.0, 1.0), 135.0: (-half, half)}
    pairs = [exact.get(angle) or (math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in degrees]
    table = np.array(pairs, np.float64).reshape(-1, 2).T.copy()
    table.setflags(write=False)
    return table[0], table[1]


@functools.cache
def _kernels() -> dict[Any, Any]:
    """The compiled kernels; from the second time on a machine they come from the cache on disk."""
    from numba import types

    from retrieval_bench.search import jit

    def array(dtype: Any, ndim: int, readonly: bool = False) -> Any:
        return types.Array(dtype, ndim, "C", readonly=readonly)

    table = array(types.float64, 1, readonly=True)
    kernels: dict[Any, Any] = {}
    for kind, dtype in ((np.uint8, types.uint8), (np.float64, types.float64)):
        planes = array(dtype, 3, readonly=True)
        sizes = (types.boolean, types.int64, types.int64)
        signature = types.void(planes, *sizes, table, table, types.int64, array(types.float64, 3))
        kernels[kind] = jit.compiled(_vote, signature)
    signature = types.void(array(types.float64, 3), types.int64, array(types.float64, 5))
    kernels["blocks"] = jit.compiled(_normalise, signature)
    cells = array(types.float64, 3)
    kernels["merge"] = jit.compiled(_merge, types.void(cells, types.int64, cells))
    pixels, factors = array(types.uint8, 3, readonly=True), array(types.float32, 2, readonly=True)
    signature = types.void(pixels, factors, types.int64, table, table, cells)
    kernels["opponent"] = jit.compiled(_opponent_votes(kernels[np.float64]), signature)
    signature = types.void(
        *(cells, array(types.int64, 1), types.int64, types.int64),
        *(array(types.float32, 2), array(types.bool_, 1)),
    )
    kernels["dense"] = jit.compiled(_dense(kernels["merge"], kernels["blocks"]), signature)
    return kernels


def _vote(
    planes: np.ndarray,
    root: bool,
    high: int,
    wide: int,
    cosines: np.ndarray,
    sines: np.ndarray,
    begin: int,
    cells: np.ndarray,
) -> None:
    """(h, w, channels): cells += votes, in place, bins from `begin` on. Every long loop runs along a row, so that it
    becomes vector code."""
    height, width, channels = planes.shape
    rows, columns = cells.shape[:2]
    used = columns * wide
    lines = np.zeros((3, channels, width))  # line y lies at y % 3, each channel by itself
    along, across, length = np.empty(used), np.empty(used), np.empty(used)
    bins = np.empty(used, np.uint64)  # without a sign: numba would look at each whether it counts from the end
    share = 1.0 / (high * wide)
    ready = 0
    for y in range(rows * high):
        while ready < min(y + 2, height):
            for channel in range(channels):
                line = lines[ready % 3, channel]
                for x in range(width):
                    line[x] = planes[ready, x, channel]
                if root:
                    for x in range(width):
                        line[x] = math.sqrt(line[x])
            ready += 1
        length[:] = -1.0
        vertical = 1.0 if 0 < y < height - 1 else 0.0
        for channel in range(channels):
            above, here, below = lines[(y + 2) % 3, channel], lines[y % 3, channel], lines[(y + 1) % 3, channel]
            for x in range(1, min(used, width - 1)):
                dx = here[x + 1] - here[x - 1]
                dy = (below[x] - above[x]) * vertical
                square = dx * dx + dy * dy
                larger = square > length[x]
                length[x] = square if larger else length[x]
                along[x] = dx if larger else along[x]
                across[x] = dy if larger else across[x]
            for x in (0, width - 1):
                dy = (below[x] - above[x]) * vertical
                if x < used and dy * dy > length[x]:
                    length[x], along[x], across[x] = dy * dy, 0.0, dy
        for x in range(used):
            # Opposite directions are one: turned into the half plane from 0 to, not including, 180 degrees.
            sign = -1.0 if (across[x] < 0) | ((across[x] == 0) & (along[x] < 0)) else 1.0
            along[x] *= sign
            across[x] *= sign
            length[x] = math.sqrt(length[x]) * share
            bins[x] = np.uint64(begin)
        for border in range(len(cosines)):
            cosine, sine = cosines[border], sines[border]
            for x in range(used):
                bins[x] += np.uint64(1) if cosine * across[x] - sine * along[x] >= 0 else np.uint64(0)
        votes = cells[y // high]
        for place in range(wide):  # cell by cell, since two votes in a row for one bin wait for each other
            for column in range(columns):
                x = column * wide + place
                votes[column, bins[x]] += length[x]


def _opponent_votes(vote: Callable[..., None]) -> Callable[..., None]:
    def opponent(
        image: np.ndarray, factors: np.ndarray, cell: int, cosines: np.ndarray, sines: np.ndarray, cells: np.ndarray
    ) -> None:
        """(h, w, 3) uint8 RGB; cells += the votes of each opponent colour, of the numbers that float32 gives.

        Whole numbers before factors: equal pixels have equal values to the last bit, wherever they lie, which a product
        of matrices does not promise. A plain area has no gradient then.
        """
        height, width = image.shape[:2]
        planes = np.empty((3, height, width, 1))
        for y in range(height):
            pixels = image[y].reshape(-1)
            first, second, third = planes[0, y].reshape(-1), planes[1, y].reshape(-1), planes[2, y].reshape(-1)
            for x in range(width):
                red, green, blue = np.int32(pixels[3 * x]), np.int32(pixels[3 * x + 1]), np.int32(pixels[3 * x + 2])
                first[x] = np.float32(np.int32(red - green)) * factors[0, 0]
                second[x] = np.float32(np.int32(red + green - 2 * blue)) * factors[1, 0]
                third[x] = np.float32(np.int32(red + green + blue)) * factors[2, 0]
        for place in range(3):
            vote(planes[place], False, cell, cell, cosines, sines, place * (len(cosines) + 1), cells)

    return opponent


def _dense(merge: Callable[..., None], normalise: Callable[..., None]) -> Callable[..., None]:
    def dense(cells: np.ndarray, times: np.ndarray, block: int, norm: int, found: np.ndarray, seen: np.ndarray) -> None:
        orientations = cells.shape[2]
        first = 0
        for each in times:
            rows, columns = cells.shape[0] // each, cells.shape[1] // each
            means = np.empty((rows, columns, orientations))
            merge(cells, each, means)
            high, wide = max(rows - block + 1, 0), max(columns - block + 1, 0)
            blocks = np.empty((high, wide, block, block, orientations))
            normalise(means, norm, blocks)
            numbers = blocks.reshape(-1)
            n, depth = high * wide, found.shape[1]
            for k in range(n):
                row, something = found[first + k], False
                for c in range(depth):
                    row[c] = numbers[k * depth + c]
                    something |= row[c] != 0
                seen[first + k] = something
            first += n

    return dense


def _merge(cells: np.ndarray, times: int, means: np.ndarray) -> None:
    rows, columns, depth = means.shape
    share = np.float64(times * times)
    for row in range(rows):
        for column in range(columns):
            mean = means[row, column]
            mean[:] = cells[row * times, column * times]
            for place in range(1, times * times):
                cell = cells[row * times + place // times, column * times + place % times]
                for k in range(depth):
                    mean[k] += cell[k]
            for k in range(depth):
                mean[k] /= share


def _normalise(cells: np.ndarray, norm: int, blocks: np.ndarray) -> None:
    rows, columns, high, wide, orientations = blocks.shape
    for row in range(rows):
        for column in range(columns):
            block = blocks[row, column]
            total = 0.0
            for i in range(high):
                for j in range(wide):
                    for k in range(orientations):
                        value = cells[row + i, column + j, k]
                        block[i, j, k] = value
                        total += value if norm < 2 else value * value
            scale = 1.0 / (total + 1e-5) if norm < 2 else 1.0 / math.sqrt(total + 1e-10)
            total = 0.0
            for i in range(high):
                for j in range(wide):
                    for k in range(orientations):
                        value = block[i, j, k] * scale
                        if norm == 1:
                            value = math.sqrt(value)
                        elif norm == 3:
                            value = min(value, 0.2)
                            total += value * value
                        block[i, j, k] = value
            if norm == 3:
                scale = 1.0 / math.sqrt(total + 1e-10)
                for i in range(high):
                    for j in range(wide):
                        for k in range(orientations):
                            block[i, j, k] *= scale
