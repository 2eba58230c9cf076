"""Cleanings: what may be done to a picture before a method looks at it, on every side of a search alike.

A cleaning is a function of the pixels alone. None is part of a method unless its name says so (`sift@trim`): whether
one helps is measured, row against row.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np

from retrieval_bench.core import BenchError, Images
from retrieval_bench.images.reading import encode_png
from retrieval_bench.registry import CLEANINGS, Range

Clean = Callable[[np.ndarray], np.ndarray]
"""(h, w, 3) uint8 RGB, not written to -> (h', w', 3) uint8 RGB, at least one pixel."""

STEEPEST, MOST_TILES = 40.0, 64


@CLEANINGS("denoise", about="smooths noise and keeps edges: a bilateral filter, or non-local means")
def denoise(
    *,
    by: Literal["bilateral", "nlmeans"] = "bilateral",
    strength: Annotated[float, Range(0, 255)] = 0.0,
    radius: Annotated[int, Range(1, 15)] = 3,
) -> Clean:
    """Smooth what differs little from its surroundings.

    The bilateral filter (Tomasi and Manduchi, ICCV 1998): each pixel becomes a mean of its neighbours, weighed by
    Gaussians of how far they lie and of how much they differ. Non-local means (Buades, Coll and Morel, CVPR 2005): each
    pixel becomes a mean of the pixels whose surroundings look like its own, lightness and colours apart.

    Args:
        by: `bilateral`, or `nlmeans` (non-local means), which takes thirty times as long.
        strength: differences that are smoothed away, in grey levels, up to 255: the deviation of the Gaussian, or the
            parameter h of `nlmeans`. 0 takes 20 for `bilateral` and 5 for `nlmeans`.
        radius: pixels around a pixel, 1 to 15. `bilateral`: neighbours that count. `nlmeans`: surroundings that are
            compared, looked for three times as far.
    """
    if not 0 <= strength <= 255:
        raise BenchError(f"denoise: strength={strength:g} is not between 0 and 255 grey levels")
    if not 1 <= radius <= 15:
        raise BenchError(f"denoise: radius={radius} is not between 1 and 15 pixels")
    if by == "bilateral":
        return functools.partial(_bilateral, strength=strength or 20.0, radius=radius)
    return functools.partial(_nlmeans, strength=strength or 5.0, radius=radius)


def _bilateral(pixels: np.ndarray, *, strength: float, radius: int) -> np.ndarray:
    import cv2

    return np.asarray(
        cv2.bilateralFilter(pixels, 2 * radius + 1, strength, radius / 2, borderType=cv2.BORDER_REFLECT_101)
    )


def _nlmeans(pixels: np.ndarray, *, strength: float, radius: int) -> np.ndarray:
    import cv2

    window, search = 2 * radius + 1, 6 * radius + 1
    # OpenCV's function takes BGR: it works in Lab.
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    return np.ascontiguousarray(
        cv2.fastNlMeansDenoisingColored(bgr, None, strength, strength, window, search)[..., ::-1]
    )


@CLEANINGS("contrast", about="evens out light and shade: CLAHE on the lightness of Lab")
def contrast(
    *, clip: Annotated[float, Range(1, STEEPEST)] = 2.0, tiles: Annotated[int, Range(1, MOST_TILES)] = 8
) -> Clean:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994) of L; colours stay.

    Args:
        clip: how many times its even share a lightness may have in the histogram of a tile, 1 to 40; the higher, the
            more contrast.
        tiles: tiles along each side of the image, 1 to 64; each has a histogram of its own.
    """
    if not 1 <= clip <= STEEPEST:
        raise BenchError(f"contrast: clip={clip:g} is not between 1 and {STEEPEST:g}")
    if not 1 <= tiles <= MOST_TILES:
        raise BenchError(f"contrast: tiles={tiles} is not between 1 and {MOST_TILES}")
    return functools.partial(_equalised, clip=clip, tiles=tiles)


def _equalised(pixels: np.ndarray, *, clip: float, tiles: int) -> np.ndarray:
    import cv2

    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    # Such an object is not safe to share between threads and costs nothing to make.
    lab[..., 0] = cv2.createCLAHE(clip, (tiles, tiles)).apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


@CLEANINGS("greyworld", about="white balance: red, green and blue get one mean, as if the scene were grey")
def greyworld(*, most: Annotated[float, Range(1)] = 4.0) -> Clean:
    """Grey-world white balance (Buchsbaum, Journal of the Franklin Institute 1980), on sRGB values.

    Each channel is multiplied so that its mean becomes the mean of all three. A channel without light stays as it is.

    Args:
        most: the largest factor, 1 and more, and one over it the smallest: a red wall is no red light.
    """
    if most < 1:
        raise BenchError(f"greyworld: most={most:g} must be at least 1, which changes nothing")
    return functools.partial(_balanced, most=most)


def _balanced(pixels: np.ndarray, *, most: float) -> np.ndarray:
    import cv2

    # Sums of whole numbers: the same to the last bit in whatever order they are added.
    sums = pixels.reshape(-1, 3).sum(axis=0, dtype=np.int64).tolist()
    mean = sum(sums) / 3
    factors = [min(max(mean / one, 1 / most), most) if one else 1.0 for one in sums]
    values = np.arange(256)[:, None] * np.array(factors)
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table[None]))


@CLEANINGS("trim", about="cuts off uniform borders: the white around a catalogue picture, black bars")
def trim(*, tolerance: Annotated[int, Range(0, 255)] = 12, least: Annotated[float, Range(0, 1)] = 0.2) -> Clean:
    """Cut off borders of one colour, side by side.

    The colour of a border is the median of the outermost row or column, channel by channel. Rows or columns are cut off
    from there as long as each of their values is within the tolerance of it. Top, bottom, left and right take turns
    until none changes, each with the colour that it had first. So a gradient is not followed, and a picture of one
    colour stays as it is.

    Args:
        tolerance: how far values may lie from the border's colour, in grey levels, 0 to 255; JPEG files need some.
        least: share of each side that must be left, 0 to 1; a picture of which less would be left stays as it is.
    """
    if not 0 <= tolerance <= 255:
        raise BenchError(f"trim: tolerance={tolerance} is not between 0 and 255 grey levels")
    if not 0 <= least <= 1:
        raise BenchError(f"trim: least={least:g} is no share of a side; it must be from 0 to 1")
    return functools.partial(_trimmed, tolerance=tolerance, least=least)


def _trimmed(pixels: np.ndarray, *, tolerance: int, least: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, bottom, left, right = 0, height, 0, width
    colours: dict[str, np.ndarray] = {}
    before = None
    while before != (top, bottom, left, right):
        before = top, bottom, left, right
        for side in ("top", "bottom", "left", "right"):
            inside = pixels[top:bottom, left:right]
            lines = inside if side in ("top", "bottom") else inside.transpose(1, 0, 2)
            lines = lines if side in ("top", "left") else lines[::-1]
            colour = colours.get(side, np.median(lines[0], axis=0))
            n = _like(lines, colour, tolerance)
            if n:
                colours[side] = colour
            if n == len(lines):
                return pixels  # of one colour
            top, bottom = top + n * (side == "top"), bottom - n * (side == "bottom")
            left, right = left + n * (side == "left"), right - n * (side == "right")
    if bottom - top < least * height or right - left < least * width:
        return pixels
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _like(lines: np.ndarray, colour: np.ndarray, tolerance: int) -> int:
    """How many of the first lines, (n, m, 3), are of this colour."""
    for n, line in enumerate(lines):
        if (np.abs(line - colour) > tolerance).any():
            return n
    return len(lines)


class CleanedImages:
    """The same images, each cleaned when it is read. Implements `core.Images`.

    Args:
        images: the images as they are.
        name: what is done to them, with all options; part of the digests.
        clean: what does it.
    """

    def __init__(self, images: Images, name: str, clean: Clean) -> None:
        self._images, self._name, self._clean = images, name, clean

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._clean(self._images[row])

    def read(self, row: int) -> bytes:
        """Encode the cleaned image as PNG, which is lossless."""
        return encode_png(self[row])

    def digest(self, row: int) -> str:
        """Hash the digest of the image as it is, together with what is done to it."""
        return hashlib.sha256(f"{self._images.digest(row)} {self._name}".encode()).hexdigest()

    def take(self, rows: Sequence[int]) -> CleanedImages:
        """Select images, in this order."""
        return CleanedImages(self._images.take(rows), self._name, self._clean)


def in_turn(cleanings: Sequence[Clean]) -> Clean:
    """One cleaning that does several, from the first to the last."""

    def clean(pixels: np.ndarray) -> np.ndarray:
        for one in cleanings:
            pixels = one(pixels)
        return pixels

    return clean


def load_opencv() -> None:
    """Loaded while a method is built, so that the runner finds it and sets its threads."""
    import cv2  # noqa: F401
