"""The regions of a spatial pyramid (Lazebnik, Schmid and Ponce, CVPR 2006)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

MAX_LEVELS = 4
SIDE = 1024
"""Pixels of the longer side to which larger pictures are shrunk: statistics of more say the same, and each pixel takes
16 to 32 times its own memory while it is counted."""


def pyramid(pixels: np.ndarray, levels: int) -> list[np.ndarray]:
    """(h, w, ...) -> views of its 1 + 4 + 16 + ... regions, `levels` summands: level l has 2^l rows and columns.

    The regions of a level cover each pixel once; where there are fewer pixels than regions some are empty.
    """
    height, width = pixels.shape[:2]
    regions = []
    for level in range(levels):
        rows, columns = (np.arange(2**level + 1) * length // 2**level for length in (height, width))
        regions += [
            pixels[top:bottom, left:right] for top, bottom in pairwise(rows) for left, right in pairwise(columns)
        ]
    return regions
