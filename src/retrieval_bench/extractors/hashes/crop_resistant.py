"""The crop-resistant hash (Steinebach, Liu and Yannikos, "Efficient cropping-resistant robust image hashing", ARES
2014): a dhash of every bright and dark segment, so that a crop keeps the hashes of the segments it leaves whole.

Segments and bits are those of imagehash's `crop_resistant_hash`, found by connected components instead of a flood fill
in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from PIL import Image, ImageFilter

from retrieval_bench.core import BenchError, Distance, Extractor, Searcher, Setup, Split
from retrieval_bench.extractors.hashes.imagehash import MAX_SIZE, UPRIGHT_RGB, checked_size
from retrieval_bench.extractors.hashes.multihash import MOST_SEGMENTS, SegmentIndex, row_bytes
from retrieval_bench.images.pictures import pictures
from retrieval_bench.registry import EXTRACTORS, Range

SIDE = 300
"""Pictures are segmented at SIDE x SIDE pixels."""
THRESHOLD = 128
SMALLEST = 500
"""Segments of so many pixels or fewer are dropped."""


def segment_boxes(grey: Image.Image, limit: int) -> np.ndarray:
    """The `limit` largest segments as (m, 4) int64 boxes left, top, right, bottom on a grid of SIDE x SIDE, the largest
    first, equal ones as imagehash finds them; the whole picture where no segment is large enough."""
    import cv2

    small = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur())
    bright = (cv2.medianBlur(np.asarray(small), 3) > THRESHOLD).astype(np.uint8)
    hills, valleys = _components(bright), _components(1 - bright)
    # imagehash stops looking for valleys once it has met SIDE * SIDE pixels, among which it counts the frame of
    # 4 * SIDE pixels around the picture, but no segment of a single pixel. So the last valleys can be missed.
    seen = 4 * SIDE + _met(hills).sum() + np.cumsum(_met(valleys)) - _met(valleys)
    found = np.concatenate([hills, valleys[seen < SIDE * SIDE]])
    found = found[found[:, 4] > SMALLEST]
    if not len(found):
        return np.array([[0, 0, SIDE, SIDE]])
    found = found[np.argsort(-found[:, 4], kind="stable")[:limit]]
    return np.column_stack([found[:, :2], found[:, :2] + found[:, 2:4]])


def _components(mask: np.ndarray) -> np.ndarray:
    """(m, 5) int64: left, top, width, height and pixels of each part that holds together along rows and columns, in the
    order of their first pixels, row by row."""
    import cv2

    n, labels, about, _ = cv2.connectedComponentsWithStats(mask, connectivity=4, ltype=cv2.CV_32S)
    first = np.zeros(n, np.int64)
    first[labels.ravel()[::-1]] = np.arange(labels.size)[::-1]  # the last to be written is the first pixel
    return about[1:].astype(np.int64)[np.argsort(first[1:])]


def _met(components: np.ndarray) -> np.ndarray:
    return np.where(components[:, 4] > 1, components[:, 4], 0)


def crops(grey: Image.Image, boxes: np.ndarray) -> list[Image.Image]:
    """The boxes cut from the picture at its own size, to whole pixels as Pillow rounds, one pixel at least."""
    across, down = grey.width / SIDE, grey.height / SIDE
    cut = []
    for left, top, right, bottom in boxes.tolist():
        x0, x1 = _at_least_one(round(left * across), round(right * across), grey.width)
        y0, y1 = _at_least_one(round(top * down), round(bottom * down), grey.height)
        cut.append(grey.crop((x0, y0, x1, y1)))
    return cut


def _at_least_one(start: int, stop: int, length: int) -> tuple[int, int]:
    """A picture smaller than the grid has segments of less than a pixel, where imagehash fails."""
    return (start, stop) if stop > start else (min(start, length - 1), min(start, length - 1) + 1)


@dataclass(eq=False)
class CropResistant:
    """A row is the number of segments, then their codes, the largest segment's first, then zeros.

    segments: how many are kept at most. size: a code has size * size bits. errors: the share of bits that may differ
    between segments that match.
    """

    segments: int
    size: int
    errors: float
    distance: Distance = "hamming"
    comparable: bool = False  # a distance runs up to the number of the query's own segments

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, 1 + segments * ceil(size * size / 8)) uint8. Rows are compared by `searcher` alone: the
        Hamming distance of whole rows means nothing."""
        import imagehash

        rows = np.zeros((len(images), row_bytes(self.segments, self.size * self.size)), np.uint8)
        for row, image in enumerate(pictures(images)):
            grey = Image.fromarray(image).convert("L")
            boxes = segment_boxes(grey, self.segments)
            bits = [imagehash.dhash(crop, hash_size=self.size).hash.ravel() for crop in crops(grey, boxes)]
            codes = np.packbits(np.array(bits), axis=1).ravel()
            rows[row, 0] = len(boxes)
            rows[row, 1 : 1 + len(codes)] = codes
        return rows

    def searcher(self, gallery: np.ndarray) -> Searcher:
        """What ranks such rows: by how many segments match."""
        return SegmentIndex(gallery, self.size * self.size, self.errors)


@EXTRACTORS(
    "crop-resistant",
    family="hash",
    about="a 64-bit dhash of each segment, bright or dark, of the upright RGB picture",
    note=UPRIGHT_RGB,
)
def crop_resistant(
    setup: Setup,
    *,
    segments: Annotated[int, Range(1, MOST_SEGMENTS)] = 16,
    size: Annotated[int, Range(2, MAX_SIZE)] = 8,
    errors: Annotated[float, Range(0, 1, below=True)] = 0.25,
) -> Extractor:
    """imagehash's crop_resistant_hash.

    Args:
        setup: what the run fixes for every method.
        segments: segments that are kept, the largest first
        size: a segment has size x size bits, 2 to 64
        errors: share of bits that may differ between segments that match, from 0 to below 1
    """
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads
    import imagehash  # noqa: F401

    if not 1 <= segments <= MOST_SEGMENTS:
        raise BenchError(f"crop-resistant: segments={segments} is not between 1 and {MOST_SEGMENTS}")
    if not 0 <= errors < 1:
        raise BenchError(f"crop-resistant: errors={errors} is not a share of bits; it must be at least 0 and below 1")
    return CropResistant(segments, checked_size("crop-resistant", size), errors)
