"""A picture held another way and cut: turned by any angle, then cropped to 50 to 70 % of its area.

The crop lies inside the turned picture, so that no invented background tells the turn. A square turned by t degrees
holds an upright one of 1 / (1 + |sin 2t|) of its area: always half, more than 0.7 near the right angles only, which is
why the share that is kept is drawn after the angle.

The pixels are the same on every machine: coordinates are 16-bit and weights 8-bit fractions, in integers throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retrieval_bench.datasets.shop.drawing import Dice, turn
from retrieval_bench.datasets.shop.view import SIZE

SMALLEST, LARGEST = 159, 187
"""Sides of the crop in pixels: 50.4 % and 69.7 % of the picture's area."""

ONE = 1 << 16


@dataclass(frozen=True)
class Turn:
    """How a picture is turned and cut.

    turned_deg: in the image plane, clockwise, -180..180.
    side: of the square crop, in pixels.
    x, y: the crop's centre in the picture before it was turned, in pixels from the left and the top.
    """

    turned_deg: float
    side: int
    x: float
    y: float

    @property
    def kept(self) -> float:
        """The share of the picture's area that is left."""
        return self.side * self.side / (SIZE * SIZE)


def any_turn(dice: Dice) -> Turn:
    """One draw: any angle, then any crop that lies inside the picture, or leaves it by less than half a pixel."""
    degrees = round(dice.between(-180.0, 180.0), 1)
    c, s = turn(degrees)
    reach = abs(c) + abs(s)
    side = dice.whole(SMALLEST, max(SMALLEST, min(LARGEST, math.floor(SIZE / reach))))
    room = max(0.0, SIZE - side * reach) / 2.0
    x, y = (round(SIZE / 2.0 + dice.between(-room, room), 2) for _ in range(2))
    return Turn(degrees, side, x, y)


def turned(pixels: np.ndarray, by: Turn) -> np.ndarray:
    """(h, w, 3) uint8 -> (side, side, 3) uint8, bilinear; what lies outside the picture is its nearest pixel."""
    height, width = pixels.shape[:2]
    c, s = (math.floor(value * ONE + 0.5) for value in turn(by.turned_deg))
    twice = 2 * np.arange(by.side, dtype=np.int64) + 1 - by.side  # twice the way from the crop's centre
    across, down = twice[None, :], twice[:, None]
    x = math.floor(by.x * ONE + 0.5) - ONE // 2 + ((c * across + s * down) >> 1)
    y = math.floor(by.y * ONE + 0.5) - ONE // 2 + ((c * down - s * across) >> 1)
    x, y = np.clip(x, 0, (width - 1) * ONE), np.clip(y, 0, (height - 1) * ONE)
    left, top = np.minimum(x >> 16, width - 2), np.minimum(y >> 16, height - 2)
    right_share, low_share = (x - (left << 16)) >> 8, (y - (top << 16)) >> 8
    total = np.full((by.side, by.side, 3), ONE // 2, np.int64)
    for rows, row_share in ((top, 256 - low_share), (top + 1, low_share)):
        for columns, column_share in ((left, 256 - right_share), (left + 1, right_share)):
            total += pixels[rows, columns].astype(np.int64) * (row_share * column_share)[:, :, None]
    return (total >> 16).astype(np.uint8)
