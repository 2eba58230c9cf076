"""Dense SIFT: gradient histograms on a grid of patches in several sizes, in opponent colours or grey.

The histograms are those of Lowe (IJCV 2004) on a grid (Bosch, Zisserman and Munoz, ICCV 2007), computed as in DAISY
(Tola, Lepetit and Fua, PAMI 2010): one map for each direction, smoothed once for each patch size and then only read.
"""

from __future__ import annotations

import numpy as np

from retrieval_bench.extractors.local.area import shrunk
from retrieval_bench.extractors.local.grid import CELLS, joined, patches
from retrieval_bench.extractors.local.pipeline import Described, nothing
from retrieval_bench.images.resize import OPPONENT

DIRECTIONS = 8
FAINT = 0.05
"""A patch whose gradients add up to less, of brightness 0 to 1, shows nothing that could be recognised."""

_ANGLES = np.arange(DIRECTIONS, dtype=np.float32) * np.float32(2 * np.pi / DIRECTIONS)


def direction_maps(channels: np.ndarray) -> np.ndarray:
    """(h, w, c) float32 -> (h, w, c * DIRECTIONS) float32: how much the gradient points each way.

    A gradient of length m at an angle a to the direction counts m cos(a)^2, and nothing beyond a right angle.
    """
    height, width, count = channels.shape
    dx, dy = np.zeros_like(channels), np.zeros_like(channels)
    dx[:, 1:-1] = channels[:, 2:] - channels[:, :-2]
    dy[1:-1] = channels[2:] - channels[:-2]
    along = np.maximum(dx[..., None] * np.cos(_ANGLES) + dy[..., None] * np.sin(_ANGLES), 0)
    lengths = np.sqrt(dx * dx + dy * dy)[..., None] + np.float32(1e-6)
    maps: np.ndarray = (along * along / lengths).reshape(height, width, count * DIRECTIONS)
    return maps


def smoothed(maps: np.ndarray, sigma: float) -> np.ndarray:
    """Each map under a Gaussian; four at a time, as many as OpenCV takes."""
    import cv2

    four = [maps[..., first : first + 4] for first in range(0, maps.shape[2], 4)]
    return np.dstack([cv2.GaussianBlur(some, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for some in four])


def dense_sift(
    image: np.ndarray, *, side: int, cells: tuple[int, ...], step: int, opponent: bool, root: bool
) -> Described:
    """(h, w, 3) uint8 RGB -> Described, d = 128 for each channel, 3 in opponent colours, else 1.

    side: the longer side is shrunk to it. cells: pixels of a cell, one patch size each. step: pixels between patches.
    root: RootSIFT (Arandjelovic and Zisserman, CVPR 2012), else length 1.
    """
    import cv2

    pixels = shrunk(image, side).astype(np.float32) / np.float32(255)
    channels = pixels @ OPPONENT.T if opponent else pixels.mean(axis=2, keepdims=True)
    channels = cv2.GaussianBlur(channels, (0, 0), 0.8).reshape(channels.shape)
    maps = direction_maps(channels)
    parts = [patches(smoothed(maps, cell / 2), cell, step) for cell in cells]
    descriptors, places = joined(parts)
    descriptors = descriptors.reshape(len(descriptors), CELLS * CELLS * maps.shape[2])
    total = descriptors.sum(axis=1)
    descriptors, places, total = descriptors[total > FAINT], places[total > FAINT], total[total > FAINT, None]
    if not len(descriptors):
        return nothing(descriptors.shape[1])
    if root:
        return Described(np.sqrt(descriptors / total), places)
    return Described(descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True), places)
