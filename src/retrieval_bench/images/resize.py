"""How large and in which colours methods look at an image."""

from __future__ import annotations

import numpy as np

OPPONENT = np.array([[1, -1, 0], [1, 1, -2], [1, 1, 1]], np.float32) / np.sqrt(np.array([[2], [6], [3]], np.float32))
"""Rows: red against green, yellow against blue, brightness (van de Sande, Gevers and Snoek, PAMI 2010)."""


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """(h, w) or (h, w, 3) uint8, its longer side shrunk to `side` pixels by averaging; never enlarged."""
    import cv2

    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def grey(image: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (h', w') uint8 luma, shrunk."""
    import cv2

    return shrunk(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), side)
