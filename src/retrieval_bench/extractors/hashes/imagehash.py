"""Perceptual hashes: a few bits an image, compared by Hamming distance. The bits are those of the imagehash library."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Self

import numpy as np
from PIL import Image

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.extractors.hashes.thumbnail import grey_thumbnail
from retrieval_bench.images.pictures import pictures
from retrieval_bench.registry import EXTRACTORS, Range

MAX_SIZE = 64

UPRIGHT_RGB = (
    "Like every method, it sees the upright RGB picture: EXIF orientation is applied, transparent pixels are laid over "
    "white, 16-bit samples are scaled. A library such as imagehash does none of this to a raw file, so that its bits "
    "can differ."
)
"""What `list NAME` says of every hash, since hashes of one picture are compared across programs."""


@dataclass(eq=False)
class ImageHash:
    """bits_of: one image, (h, w, 3) uint8 -> its bits, a bool array of any shape with n_bits entries.

    wanted: the side in pixels to which it shrinks images first; None: it looks at every pixel.
    """

    bits_of: Callable[[np.ndarray], np.ndarray]
    n_bits: int
    wanted: int | None = None
    distance: Distance = "hamming"

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, ceil(n_bits / 8)) packed uint8, first bit highest; the last byte is padded with 0."""
        bits = np.zeros((len(images), self.n_bits), bool)
        for row, image in enumerate(pictures(images)):
            bits[row] = self.bits_of(image).ravel()
        return np.packbits(bits, axis=1)


def checked_size(name: str, size: int) -> int:
    if not 2 <= size <= MAX_SIZE:
        raise BenchError(f"{name}: size={size} is not between 2 and {MAX_SIZE}; a hash has size * size bits")
    return size


def _of_imagehash(compute: Callable[..., Any], size: int, width: int, height: int) -> ImageHash:
    """compute: imagehash's function. size: the hash has size * size bits. width, height: of the grey picture that it
    makes first, which is made for it: it takes most of the time."""
    return ImageHash(partial(_bits, compute, size, width, height), size * size, max(width, height))


def _bits(compute: Callable[..., Any], size: int, width: int, height: int, image: np.ndarray) -> np.ndarray:
    return compute(Image.fromarray(grey_thumbnail(image, width, height)), hash_size=size).hash


def frequency_bits(image: np.ndarray, size: int) -> np.ndarray:
    """(h, w, 3) uint8 -> (size, size) bool: imagehash's phash, the lowest frequencies against their median.

    Only frequencies beside the median can be rounded to the other side of it. Where it is nearer than any rounding
    reaches, imagehash is asked itself.
    """
    import imagehash

    grey = grey_thumbnail(image, 4 * size, 4 * size)
    cosines = _cosines(size)
    lows = cosines @ grey.astype(np.float64) @ cosines.T
    half = lows.size // 2
    middle = np.partition(lows.ravel(), range(half - 1, half + 2))[half - 1 : half + 2]
    reach = _ROUNDING * float(grey.sum(dtype=np.int64))
    below, median, above = middle
    if lows.size % 2 == 0:
        if median - below > reach:
            return lows >= median
    elif median - below > reach and above - median > reach:
        return lows > median
    return imagehash.phash(Image.fromarray(grey), hash_size=size).hash


_ROUNDING = 1e-11
"""Times the sum of all pixels: ten times what the sums of 256 x 256 pixels, the most, can be rounded by."""


@functools.cache
def _cosines(size: int) -> np.ndarray:
    """(size, 4 * size) float64: the lowest frequencies of the cosine transform as SciPy scales it."""
    places = 2 * np.arange(4 * size) + 1
    table: np.ndarray = 2 * np.cos(np.pi / (8 * size) * np.arange(size)[:, None] * places)
    return table


@EXTRACTORS(
    "phash",
    family="hash",
    about="64 bits of the upright RGB picture: signs of low DCT frequencies against their median",
    note=UPRIGHT_RGB,
)
def phash(setup: Setup, *, size: Annotated[int, Range(2, MAX_SIZE)] = 8) -> Extractor:
    """imagehash's phash.

    Args:
        setup: what the run fixes for every method.
        size: the hash has size x size bits, 2 to 64
    """
    import imagehash  # noqa: F401 - loaded here, so that no image waits for it

    return ImageHash(partial(frequency_bits, size=checked_size("phash", size)), size * size, 4 * size)


@EXTRACTORS(
    "dhash",
    family="hash",
    about="64 bits of the upright RGB picture at 9 x 8 pixels: each darker than its right neighbour?",
    note=UPRIGHT_RGB,
)
def dhash(setup: Setup, *, size: Annotated[int, Range(2, MAX_SIZE)] = 8) -> Extractor:
    """imagehash's dhash.

    Args:
        setup: what the run fixes for every method.
        size: the hash has size x size bits, 2 to 64
    """
    import imagehash

    return _of_imagehash(imagehash.dhash, checked_size("dhash", size), size + 1, size)


@EXTRACTORS(
    "ahash",
    family="hash",
    about="64 bits of the upright RGB picture: is each pixel brighter than the mean, at 8 x 8 pixels",
    note=UPRIGHT_RGB,
)
def ahash(setup: Setup, *, size: Annotated[int, Range(2, MAX_SIZE)] = 8) -> Extractor:
    """imagehash's average_hash.

    Args:
        setup: what the run fixes for every method.
        size: the hash has size x size bits, 2 to 64
    """
    import imagehash

    return _of_imagehash(imagehash.average_hash, checked_size("ahash", size), size, size)
