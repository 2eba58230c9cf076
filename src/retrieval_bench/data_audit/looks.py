"""What one look at each image tells, before any method: its size, its contrast, a thumbnail, a digest of its pixels.

It is kept in the cache by the digest of the file, so that a second run, or one that goes on after an interruption,
decodes nothing of what was seen.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from retrieval_bench.core import BadImage, Images
from retrieval_bench.images.reading import how_of
from retrieval_bench.images.screening import looked_at
from retrieval_bench.system.cache import FeatureCache, code_version, recipe_key

FLAT = 4.0
"""Standard deviation of the grey levels, 0 to 255, below which an image is called flat. Its hashes mean nothing."""

SIDE = 8
"""Pixels of a thumbnail's side."""

_HEAD = struct.Struct("<IIf16s")  # height, width, contrast, digest of the pixels
_HEADS = np.dtype([("height", "<u4"), ("width", "<u4"), ("contrast", "<f4"), ("pixels", "V16")])
_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Looks:
    """sizes: (n, 2) int64 height and width. contrast: (n,) float32. thumbnails: (n, SIDE * SIDE * 3) uint8.
    pixels: (n,) of 16 bytes, equal where the pixels are.
    """

    sizes: np.ndarray
    contrast: np.ndarray
    thumbnails: np.ndarray
    pixels: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        """(n,) bool."""
        return self.contrast < FLAT

    def same_pixels(self) -> np.ndarray:
        """(n,) int64: a number for each image, equal where the pixels are."""
        return np.unique(self.pixels, return_inverse=True)[1].reshape(-1)


def contrast_of(pixels: np.ndarray) -> float:
    """Standard deviation of the grey levels of (h, w, 3) uint8. A picture of one colour has 0, whichever that is."""
    counts = np.array(Image.fromarray(pixels).convert("L").histogram(), np.float64)
    levels = np.arange(256)
    mean = counts @ levels / counts.sum()
    return float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))


def thumbnail_of(pixels: np.ndarray) -> np.ndarray:
    """(SIDE * SIDE * 3,) uint8: means over SIDE x SIDE fields of the picture."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(-1)


def look_at(images: Images, row: int) -> np.ndarray:
    """All of it as uint8, fit for the cache. Raises BadImage."""
    pixels = images[row]
    digest = hashlib.sha256(f"{pixels.shape} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    head = _HEAD.pack(pixels.shape[0], pixels.shape[1], contrast_of(pixels), digest.digest()[:16])
    return np.concatenate([np.frombuffer(head, np.uint8), thumbnail_of(pixels)])


def _pixels(one: np.ndarray) -> int:
    height, width = _HEAD.unpack(one[: _HEAD.size].tobytes())[:2]
    return int(height * width)


def look_at_all(
    images: Images, cache: FeatureCache, threads: int, progress: Callable[[int, int], None]
) -> tuple[Looks, list[int], list[tuple[int, BadImage]]]:
    """Look at every image, some at a time. Returns what was seen, of which rows, and the others with their reasons."""
    key = recipe_key({"kind": "look", "code": code_version(__file__), "decoder": how_of(images).key})
    n, width = len(images), _HEAD.size + SIDE * SIDE * 3
    heads, thumbnails = np.zeros(n, _HEADS), np.zeros((n, SIDE * SIDE * 3), np.uint8)
    whole: list[int] = []
    bad: list[tuple[int, BadImage]] = []
    for start in range(0, n, _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, n))
        digests = {row: images.digest(row) for row in rows}
        known = {digest: one for digest, one in cache.get(key, digests.values()).items() if one.shape == (width,)}
        known = {digest: one for digest, one in known.items() if _pixels(one) <= how_of(images).max_pixels}
        missing = [row for row in rows if digests[row] not in known]
        done = start + len(rows) - len(missing)
        places: Sequence[tuple[Images, int]] = [(images, row) for row in missing]
        found = looked_at(places, look_at, threads, _from(done, n, progress))
        for row, one in zip(missing, found, strict=True):
            if isinstance(one, BadImage):
                bad.append((row, one))
            else:
                known[digests[row]] = one
        cache.put(key, {digests[row]: known[digests[row]] for row in missing if digests[row] in known})
        for row in rows:
            if digests[row] in known:
                heads[row] = known[digests[row]][: _HEAD.size].view(_HEADS)[0]
                thumbnails[row] = known[digests[row]][_HEAD.size :]
                whole.append(row)
        progress(start + len(rows), n)
    if bad:
        heads, thumbnails = heads[whole], thumbnails[whole]
    sizes = np.stack([heads["height"], heads["width"]], axis=1).astype(np.int64)
    pixels = np.ascontiguousarray(heads["pixels"]).view("S16")
    return Looks(sizes, heads["contrast"].copy(), thumbnails, pixels), whole, bad


def _from(done: int, n: int, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    return lambda here, _: progress(done + here, n)
