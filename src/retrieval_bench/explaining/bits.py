"""Perceptual hashes: the bits of two images side by side."""

from __future__ import annotations

import math

import numpy as np

from retrieval_bench.explaining.clues import BitPair, Unexplained
from retrieval_bench.extractors.hashes.colorhash import FRACTIONS
from retrieval_bench.extractors.hashes.imagehash import ImageHash

MEANINGS = {
    "phash": "frequencies of the grey picture, low ones at the top left: above the median or not",
    "dhash": "8 x 8 cells: darker than the cell to the right or not",
    "ahash": "8 x 8 cells: brighter than the mean or not",
    "whash": "8 x 8 cells: brighter than the median or not",
    "block-mean": "blocks of the picture: brighter than the median block or not",
    "colorhash": "rows: black, grey, six faint hues, six bright hues; columns: how much of each there is, in steps",
}


def about(name: str, size: int) -> str:
    """What the bits of this hash mean; size: places along each side."""
    return f"the bits: {MEANINGS.get(name, 'in their own order').replace('8 x 8', f'{size} x {size}')}"


def grid(n_bits: int, name: str) -> tuple[int, int]:
    """Rows and columns in which so many bits are shown: as they lie in the picture where they do."""
    side = math.isqrt(n_bits)
    if name == "colorhash":
        return FRACTIONS, n_bits // FRACTIONS
    return (side, side) if side * side == n_bits else (-(-n_bits // 16), 16)


def bit_pairs(extractor: ImageHash, name: str, query: np.ndarray, found: list[np.ndarray]) -> list[BitPair]:
    """query, found: images (h, w, 3) uint8. Raises Unexplained where the bits fill no grid."""
    rows, columns = grid(extractor.n_bits, name)
    if rows * columns != extractor.n_bits:
        raise Unexplained(f"{extractor.n_bits} bits have no grid")
    codes = np.unpackbits(extractor.transform([query, *found]), axis=1)[:, : extractor.n_bits].astype(bool)
    first = codes[0].reshape(rows, columns)
    pairs = []
    for code in codes[1:]:
        other = code.reshape(rows, columns)
        differ = int((first != other).sum())
        pairs.append(BitPair(first, other, f"{differ} of {extractor.n_bits} bits differ, marked by a ring", differ))
    return pairs
