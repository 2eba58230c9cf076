"""Baseline JPEG in whole numbers: what a phone's compression leaves of a picture, the same on every machine.

Matrix products occur here alone; they are products and sums of whole numbers below 2**53, where every order of
summation, fused or not, gives the same float64.
"""

from __future__ import annotations

import numpy as np

# The 8-point DCT times 2**12, rounded: row k is cos((2 n + 1) k pi / 16) / 2 (row 0: / sqrt(8)).
_DCT = np.array(
    [
        [1448, 1448, 1448, 1448, 1448, 1448, 1448, 1448],
        [2009, 1703, 1138, 400, -400, -1138, -1703, -2009],
        [1892, 784, -784, -1892, -1892, -784, 784, 1892],
        [1703, -400, -2009, -1138, 1138, 2009, 400, -1703],
        [1448, -1448, -1448, 1448, 1448, -1448, -1448, 1448],
        [1138, -2009, 400, 1703, -1703, -400, 2009, -1138],
        [784, -1892, 1892, -784, -784, 1892, -1892, 784],
        [400, -1138, 1703, -2009, 2009, -1703, 1138, -400],
    ],
    np.float64,
)
# Annex K of ITU-T T.81.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """What baseline JPEG makes of the pixels: chroma halved both ways, Annex K tables, libjpeg's scale of quality.

    pixels: (3, h, w) uint8, h and w multiples of 16. Returns (h, w, 3) uint8.
    """
    r, g, b = pixels.astype(np.int32)
    luma = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    cb = _halved((-11059 * r - 21709 * g + 32768 * b + 32767) >> 16)
    cr = _halved((32768 * r - 27439 * g - 5329 * b + 32767) >> 16)
    luma = _through(luma - 128, _LUMA, quality) + 128
    cb, cr = _doubled(_through(cb, _CHROMA, quality)), _doubled(_through(cr, _CHROMA, quality))
    red = luma + ((91881 * cr + 32768) >> 16)
    green = luma - ((22554 * cb + 46802 * cr + 32768) >> 16)
    blue = luma + ((116130 * cb + 32768) >> 16)
    return np.clip(np.stack([red, green, blue], axis=2), 0, 255).astype(np.uint8)


def _halved(plane: np.ndarray) -> np.ndarray:
    """Means of 2 x 2, rounded down and up in alternate columns as libjpeg does."""
    bias = np.arange(plane.shape[1] // 2) % 2 + 1
    return (plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2] + bias) >> 2


def _doubled(plane: np.ndarray) -> np.ndarray:
    """libjpeg's "fancy" triangle filter: 3/4 of the nearer sample and 1/4 of the farther, along both axes."""
    wide = np.pad(plane, 1, mode="edge")
    h, w = plane.shape
    rows = np.empty((2 * h, w + 2), np.int32)
    rows[0::2] = 3 * wide[1:-1] + wide[:-2]
    rows[1::2] = 3 * wide[1:-1] + wide[2:]
    out = np.empty((2 * h, 2 * w), np.int32)
    out[:, 0::2] = (3 * rows[:, 1:-1] + rows[:, :-2] + 8) >> 4
    out[:, 1::2] = (3 * rows[:, 1:-1] + rows[:, 2:] + 7) >> 4
    return out


def _through(plane: np.ndarray, table: np.ndarray, quality: int) -> np.ndarray:
    """DCT, quantisation and back, (h, w) int32."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((table * percent + 50) // 100, 1, 255).astype(np.float64)
    h, w = plane.shape
    blocks = plane.reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3).astype(np.float64)
    levels = np.rint(_both_ways(blocks, _DCT.T) / (steps.T * float(1 << 24)))
    back = _both_ways(levels * steps.T, _DCT)
    whole = np.floor((back + float(1 << 23)) / float(1 << 24)).astype(np.int32)
    return whole.transpose(0, 2, 1, 3).reshape(h, w)


def _both_ways(blocks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """matrix applied along both axes of each 8 x 8 block; the result comes out transposed."""
    rows = (blocks.reshape(-1, 8) @ matrix).reshape(blocks.shape)
    return (rows.swapaxes(2, 3).reshape(-1, 8) @ matrix).reshape(blocks.shape)
