"""The strongest SIFT keypoints of an image (Lowe, IJCV 2004) with their places, packed into one row of fixed width.

What the verification of a short list reads: unlike every other feature, two rows are not compared byte by byte.

A row: the number n of keypoints (2 bytes), x, y, scale and angle of each keypoint (2 bytes each), 128 bytes of
descriptor of each keypoint; numbers with the low byte first; keypoints beyond n are zeros. A row without keypoints is
all zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Split
from retrieval_bench.images.pictures import pictures
from retrieval_bench.images.resize import grey

COUNT_BYTES, PLACE_BYTES, DESCRIPTOR_BYTES = 2, 8, 128
KEYPOINT_BYTES = PLACE_BYTES + DESCRIPTOR_BYTES
STEPS = 64
"""Steps of a packed x, y or scale to a pixel of the shrunk image; 16 bits reach to 1,023 pixels."""
MOST_SIDE = 2**16 // STEPS - 1
TURN = 2**16
"""Steps of a packed angle to the whole turn."""
LENGTH = 512
"""Of a RootSIFT descriptor before its values are rounded to bytes; what exceeds 255 is cut, as in SIFT itself."""


class Keypoints(NamedTuple):
    """n keypoints, the strongest first.

    points: (n, 2) float32, x and y in pixels of the shrunk image. scales: (n,) float32, diameters in the same pixels.
    angles: (n,) float32, degrees, 0 to 360, turning from x to y.
    descriptors: (n, 128) uint8, RootSIFT (Arandjelovic and Zisserman, CVPR 2012) of length 512.
    """

    points: np.ndarray
    scales: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray


@dataclass(eq=False)
class KeypointBlocks:
    """side: the longer side is shrunk to it. keypoints: the strongest are kept. contrast: threshold of the detector.

    distance: for the type alone; how many bits two rows differ in means nothing.
    """

    side: int = 320
    keypoints: int = 256
    contrast: float = 0.02
    distance: Distance = "hamming"
    serial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value, most in (("side", self.side, MOST_SIDE), ("keypoints", self.keypoints, 2**16 - 1)):
            if not 1 <= value <= most:
                raise BenchError(f"keypoints to verify by: {name}={value} is not between 1 and {most}")
        if not 0 <= self.contrast < 1:
            raise BenchError(f"keypoints to verify by: contrast={self.contrast} is not at least 0 and below 1")
        import cv2  # noqa: F401  here, so that the runner finds it loaded and sets its threads

    @property
    def wanted(self) -> int:
        return self.side

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, 2 + 136 * keypoints) uint8."""
        rows = np.zeros((len(images), width(self.keypoints)), np.uint8)
        for row, image in zip(rows, pictures(images), strict=True):
            row[:] = pack(self.find(image), self.keypoints)
        return rows

    def find(self, image: np.ndarray) -> Keypoints:
        """(h, w, 3) uint8 RGB -> its keypoints, n <= self.keypoints."""
        import cv2

        # A detector is not safe to share between threads and costs nothing to make.
        detector = cv2.SIFT.create(nfeatures=self.keypoints, contrastThreshold=self.contrast)
        found, descriptors = detector.detectAndCompute(grey(image, self.side), None)
        if descriptors is None:
            nothing = np.empty(0, np.float32)
            return Keypoints(nothing.reshape(0, 2), nothing, nothing, np.empty((0, DESCRIPTOR_BYTES), np.uint8))
        facts = np.array([(*point.pt, point.size, point.angle, point.response) for point in found], np.float32)
        total = descriptors.sum(axis=1, keepdims=True)
        # OpenCV keeps all that are as strong as the last: places settle who goes, whatever order they came in.
        order = np.lexsort((facts[:, 3], facts[:, 2], facts[:, 1], facts[:, 0], -facts[:, 4]))
        order = order[total[order, 0] > 0][: self.keypoints]
        facts, roots = facts[order], np.sqrt(descriptors[order] / total[order])
        rounded = np.minimum(np.rint(roots * np.float32(LENGTH)), 255).astype(np.uint8)
        return Keypoints(facts[:, :2], facts[:, 2], facts[:, 3] % np.float32(360), rounded)


def width(keypoints: int) -> int:
    """Bytes of a row with room for so many keypoints."""
    return COUNT_BYTES + KEYPOINT_BYTES * keypoints


def room(bytes_: int) -> int | None:
    """Keypoints that a row of so many bytes has room for; None where no row is so long."""
    count, rest = divmod(bytes_ - COUNT_BYTES, KEYPOINT_BYTES)
    return count if count >= 0 and rest == 0 else None


def pack(found: Keypoints, keypoints: int) -> np.ndarray:
    """At most `keypoints` keypoints -> (2 + 136 * keypoints,) uint8; places are rounded to 1/64 pixel and 1/182 degree.

    Raises ValueError for more of them.
    """
    n = len(found.points)
    if n > keypoints:
        raise ValueError(f"{n} keypoints for a row with room for {keypoints}")
    lengths = np.column_stack([found.points, found.scales]).astype(np.float64)
    numbers = np.empty((n, 4), "<u2")
    numbers[:, :3] = np.clip(np.rint(lengths * STEPS), 0, 2**16 - 1)
    # A scale of 0 would have no ratio to another.
    numbers[:, 2] = np.maximum(numbers[:, 2], 1)
    numbers[:, 3] = np.rint(found.angles.astype(np.float64) * (TURN / 360)).astype(np.int64) % TURN
    row = np.zeros(width(keypoints), np.uint8)
    row[:COUNT_BYTES] = np.array([n], "<u2").view(np.uint8)
    row[COUNT_BYTES : COUNT_BYTES + PLACE_BYTES * n] = numbers.view(np.uint8).ravel()
    first = COUNT_BYTES + PLACE_BYTES * keypoints
    row[first : first + DESCRIPTOR_BYTES * n] = found.descriptors.ravel()
    return row


def unpack(row: np.ndarray) -> Keypoints:
    """What `pack` made of keypoints. Raises ValueError where the row is nothing that `pack` makes."""
    keypoints = room(len(row))
    n = int(row[:COUNT_BYTES].copy().view("<u2")[0]) if keypoints is not None else 0
    if keypoints is None or n > keypoints:
        raise ValueError(f"{len(row)} bytes that say {n} keypoints are no row of keypoints")
    numbers = row[COUNT_BYTES : COUNT_BYTES + PLACE_BYTES * n].copy().view("<u2").reshape(n, 4).astype(np.float32)
    first = COUNT_BYTES + PLACE_BYTES * keypoints
    descriptors = row[first : first + DESCRIPTOR_BYTES * n].reshape(n, DESCRIPTOR_BYTES)
    lengths, angles = numbers[:, :3] / np.float32(STEPS), numbers[:, 3] * np.float32(360 / TURN)
    return Keypoints(lengths[:, :2], lengths[:, 2], angles, descriptors)
