"""The compiled core of HOG: histograms of oriented gradients in cells (Dalal and Triggs, CVPR 2005)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


def cell_histograms(channels: np.ndarray, cell: int, orientations: int) -> np.ndarray:
    """(h, w, c) float64, any range -> (h // cell, w // cell, orientations) float64: mean gradient length by direction.

    Central differences, 0 at the border; of several channels, at each pixel the one whose gradient is longest (the
    first of equal ones). Directions are unsigned: bin b of o takes angles from b 180/o up to (b + 1) 180/o degrees.
    """
    out = np.zeros((channels.shape[0] // cell, channels.shape[1] // cell, orientations))
    angles = np.arange(1, orientations) * (np.pi / orientations)
    _compiled()(np.ascontiguousarray(channels), cell, np.cos(angles), np.sin(angles), out)
    return out


@functools.cache
def _compiled() -> Any:
    from numba import types

    from retrieval_bench.search import jit

    f64, i64 = types.float64, types.int64
    one, three = types.Array(f64, 1, "C"), types.Array(f64, 3, "C")
    read_only = types.Array(f64, 3, "C", readonly=True)
    return jit.compiled(_accumulate, types.none(read_only, i64, one, one, three))


def _accumulate(channels: np.ndarray, cell: int, cosines: np.ndarray, sines: np.ndarray, out: np.ndarray) -> None:
    """cosines, sines: of the angles between bins. The bin is the number of those angles that the gradient, turned into
    the upper half plane, lies at or beyond: that is the sign of a cross product, and no arctangent is needed."""
    height, width, count = channels.shape
    for row in range(out.shape[0] * cell):
        for column in range(out.shape[1] * cell):
            best, dx, dy = -1.0, 0.0, 0.0
            for channel in range(count):
                x, y = 0.0, 0.0
                if 0 < column < width - 1:
                    x = channels[row, column + 1, channel] - channels[row, column - 1, channel]
                if 0 < row < height - 1:
                    y = channels[row + 1, column, channel] - channels[row - 1, column, channel]
                if x * x + y * y > best:
                    best, dx, dy = x * x + y * y, x, y
            if best <= 0.0:
                continue
            if dy < 0.0 or (dy == 0.0 and dx < 0.0):
                dx, dy = -dx, -dy
            place = 0
            for edge in range(len(cosines)):
                place += int(cosines[edge] * dy - sines[edge] * dx >= 0.0)
            out[row // cell, column // cell, place] += np.sqrt(best)
    out /= cell * cell
