"""Pictures for the hashes: of many shapes, blank, noisy; and photos where the Grocery Store dataset is at hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import SHARED

REAL = SHARED / "data" / "grocery"


def pictures() -> list[np.ndarray]:
    """32 pictures, (h, w, 3) uint8: smooth, from 1 x 1 on; one black, one of noise."""
    rng = np.random.default_rng(0)
    pictures = []
    for height, width in [(1, 1), (7, 9), (64, 64), (100, 37), (33, 300)] * 6:
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        pictures.append(np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)))
    return [*pictures, np.zeros((20, 20, 3), np.uint8), rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)]


def flat_pictures() -> list[np.ndarray]:
    """Of one colour, or of few: many equal blocks, segments with straight edges."""
    rng = np.random.default_rng(1)
    blank = [np.full((height, 48, 3), value, np.uint8) for height in (1, 48, 100) for value in (0, 1, 128, 129, 255)]
    halves = np.zeros((64, 96, 3), np.uint8)
    halves[:, 48:] = 255
    coarse = [
        np.repeat(np.repeat(rng.integers(0, levels, (8, 8, 3), dtype=np.uint8) * (255 // levels), 16, 0), 16, 1)
        for levels in (2, 3, 5)
    ]
    shelf = np.full((200, 150, 3), 255, np.uint8)  # a product on white
    shelf[60:140, 40:100] = rng.integers(0, 256, (80, 60, 3), dtype=np.uint8)
    return [*blank, halves, halves.transpose(1, 0, 2), *coarse, shelf]


def photos(n: int) -> list[np.ndarray]:
    """n photos of the Grocery Store dataset's train list, evenly spread; skips the test where they are absent."""
    for root in (REAL, REAL / "dataset"):
        if (root / "train.txt").is_file():
            lines = (root / "train.txt").read_text("utf-8").splitlines()
            names = [line.split(",")[0] for line in lines if line.strip()]
            picked = names[:: -(-len(names) // n)]
            return [np.array(Image.open(root / name).convert("RGB")) for name in picked]
    pytest.skip(f"the Grocery Store dataset is not at {REAL}")


def photo_of(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth picture of that size, of random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
