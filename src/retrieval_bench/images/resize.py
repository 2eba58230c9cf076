"""How large and in which colours methods look at an image."""

from __future__ import annotations

import numpy as np

OPPONENT = np.array([[1, -1, 0], [1, 1, -2], [1, 1, 1]], np.float32) / np.sqrt(np.array([[2], [6], [3]], np.float32))
"""Rows: red against green, yellow against blue, brightness (van de Sande, Gevers and Snoek, PAMI 2010)."""

SHARP_BICUBIC = "sharp-bicubic"
"""What a network that wants `sharp_bicubic` calls its interpolation, beside the names that torchvision has."""


def opponent_planes(image: np.ndarray) -> list[np.ndarray]:
    """(h, w, 3) uint8 RGB -> the opponent colours as three (h, w) float32.

    Plane by plane, whole numbers before factors: equal pixels have equal values to the last bit, wherever they lie,
    which a product of matrices does not promise. A plain area has no gradient then.
    """
    red, green, blue = (np.ascontiguousarray(image[..., channel], np.float32) for channel in range(3))
    return [
        (red - green) * OPPONENT[0, 0],
        (red + green - 2 * blue) * OPPONENT[1, 0],
        (red + green + blue) * OPPONENT[2, 0],
    ]


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


def shorter_side(size: tuple[int, int], short: int) -> tuple[int, int]:
    """(width, height) of an image whose shorter side becomes `short` pixels; torchvision rounds the longer one down."""
    width, height = size
    return (short, short * height // width) if width <= height else (short * width // height, short)


def sharp_bicubic(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(h, w, 3) uint8 -> (height, width, 3): bicubic over 4 x 4 pixels however far it shrinks, as TensorFlow resizes.

    Pillow and torchvision widen the kernel as they shrink, which gives softer pictures than those networks saw. Beyond
    half the size whole blocks of pixels are averaged first, or large photos would keep one pixel of many.
    """
    import cv2
    from PIL import Image

    block = int(min(image.shape[0] / height, image.shape[1] / width))
    if block >= 2:
        image = np.asarray(Image.fromarray(image).reduce(block))
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_CUBIC)
