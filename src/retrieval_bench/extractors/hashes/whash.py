"""The wavelet hash, with the bits of imagehash's `whash`, from sums of blocks instead of wavelets."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from PIL import Image

from retrieval_bench.core import BenchError, Extractor, Setup
from retrieval_bench.extractors.hashes.imagehash import MAX_SIZE, UPRIGHT_RGB, ImageHash, checked_size
from retrieval_bench.extractors.hashes.thumbnail import grey_thumbnail
from retrieval_bench.registry import EXTRACTORS, Range


def wavelet_bits(image: np.ndarray, size: int) -> np.ndarray:
    """(h, w, 3) uint8 -> (size, size) bool: the low band of the Haar transform against its median.

    That band holds the sums of size x size equal blocks, times a constant, less the mean of the picture: so the whole
    numbers that are the sums say which lie above the median. imagehash goes through every scale in floating point; its
    rounding decides only between sums that are equal, and then it is asked itself.
    """
    import imagehash

    scale = max(2 ** int(np.log2(min(image.shape[:2]))), size)
    grey = grey_thumbnail(image, scale, scale)
    sums = grey.reshape(size, scale // size, size, scale // size).sum(axis=(1, 3), dtype=np.int64)
    half = sums.size // 2
    below, above = np.partition(sums.ravel(), [half - 1, half])[[half - 1, half]]
    if below == above:
        return imagehash.whash(Image.fromarray(image), hash_size=size).hash
    return sums >= above


@EXTRACTORS(
    "whash",
    family="hash",
    about="64 bits of the upright RGB picture: low Haar wavelet coefficients against their median",
    note=UPRIGHT_RGB,
)
def whash(setup: Setup, *, size: Annotated[int, Range(2, MAX_SIZE)] = 8) -> Extractor:
    """imagehash's whash.

    Args:
        setup: what the run fixes for every method.
        size: the hash has size x size bits; a power of 2, 2 to 64
    """
    import imagehash  # noqa: F401 - loaded here, so that no image waits for it

    if checked_size("whash", size) & (size - 1):
        raise BenchError(f"whash: size={size} must be a power of 2, as wavelets halve")
    return ImageHash(partial(wavelet_bits, size=size), size * size)
