"""Images of coloured blocks, and of one colour, for what must work on every image."""

from __future__ import annotations

import numpy as np


def scene(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """(height, width, 3) uint8: coloured rectangles and a little noise: structure for every method."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(25):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        image[top : top + rng.integers(4, 40), left : left + rng.integers(4, 40)] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def blank(height: int, width: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)
