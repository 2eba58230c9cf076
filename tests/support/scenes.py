"""Pictures with plenty of corners, and views of them, for tests of local features."""

from __future__ import annotations

import cv2
import numpy as np


def scene(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """(height, width, 3) uint8: discs, boxes and lines over each other, a little blurred and noisy, by seed."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(90, 170, 3), np.uint8)
    for _ in range(max(3, height * width // 900)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        colour = rng.integers(0, 256, 3).tolist()
        size = int(rng.integers(3, 22))
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.circle(image, (x, y), size, colour, -1)
        elif kind == 1:
            corners = cv2.boxPoints(((x, y), (2 * size, size), float(rng.uniform(0, 180))))
            cv2.fillPoly(image, [np.rint(corners).astype(np.int32)], colour)
        else:
            end = int(x + rng.integers(-40, 41)), int(y + rng.integers(-40, 41))
            cv2.line(image, (x, y), end, colour, int(rng.integers(1, 4)))
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8).astype(np.float64)
    return np.clip(smooth + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def view(image: np.ndarray, degrees: float, scale: float, keep: float = 1.0) -> np.ndarray:
    """The image turned and scaled, whole, on grey; then the share `keep` of each side is cut out of the middle."""
    height, width = image.shape[:2]
    turned = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    reach = np.abs(turned[:, :2])
    size = np.ceil(reach @ [width, height]).astype(int)
    turned[:, 2] += size / 2 - (width / 2, height / 2)
    whole = cv2.warpAffine(
        image, turned, size.tolist(), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR, borderValue=(128,) * 3
    )
    left, top = ((1 - keep) / 2 * size).astype(int)
    return np.ascontiguousarray(whole[top : size[1] - top, left : size[0] - left])
