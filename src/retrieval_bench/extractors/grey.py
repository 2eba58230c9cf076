"""The grey image that gradient methods look at."""

from __future__ import annotations

import numpy as np


def grey(image: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (h', w') uint8 luma, shrunk until the longer side is `side` pixels; never enlarged."""
    import cv2

    luma: np.ndarray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = side / max(luma.shape)
    if scale >= 1:
        return luma
    height, width = (max(1, round(length * scale)) for length in luma.shape)
    return cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)
