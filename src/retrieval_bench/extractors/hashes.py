"""Perceptual hashes: a few bits an image, compared by Hamming distance. The bits are those of the imagehash library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.registry import EXTRACTORS


@dataclass(eq=False)
class ImageHash:
    """compute: imagehash's function. size: the hash has size * size bits."""

    compute: Callable[..., Any]
    size: int
    distance: Distance = "hamming"

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, ceil(size * size / 8)) packed uint8, first bit highest; the last byte is padded with 0."""
        bits = np.zeros((len(images), self.size * self.size), bool)
        for row, image in enumerate(images):
            bits[row] = self.compute(Image.fromarray(image), hash_size=self.size).hash.ravel()
        return np.packbits(bits, axis=1)


@EXTRACTORS("phash", family="hash", about="64 bits: signs of low DCT frequencies against their median")
def phash(setup: Setup, *, size: int = 8) -> Extractor:
    import imagehash

    return ImageHash(imagehash.phash, _checked("phash", size))


@EXTRACTORS("dhash", family="hash", about="64 bits: is each pixel darker than its right neighbour, at 9 x 8 pixels")
def dhash(setup: Setup, *, size: int = 8) -> Extractor:
    import imagehash

    return ImageHash(imagehash.dhash, _checked("dhash", size))


@EXTRACTORS("ahash", family="hash", about="64 bits: is each pixel brighter than the mean, at 8 x 8 pixels")
def ahash(setup: Setup, *, size: int = 8) -> Extractor:
    import imagehash

    return ImageHash(imagehash.average_hash, _checked("ahash", size))


@EXTRACTORS("whash", family="hash", about="64 bits: low Haar wavelet coefficients against their median")
def whash(setup: Setup, *, size: int = 8) -> Extractor:
    import imagehash

    if size & (size - 1):
        raise BenchError(f"whash: size={size} must be a power of 2, as wavelets halve")
    return ImageHash(imagehash.whash, _checked("whash", size))


def _checked(name: str, size: int) -> int:
    if not 2 <= size <= 64:
        raise BenchError(f"{name}: size={size} is not between 2 and 64; a hash has size * size bits")
    return size
