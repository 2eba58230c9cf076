"""Colour: local Lab statistics in a Fisher vector, or one histogram of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.extractors.grid import CELLS, joined, patches
from retrieval_bench.extractors.local import Described, local_features
from retrieval_bench.extractors.resize import shrunk
from retrieval_bench.registry import EXTRACTORS


def lab_statistics(image: np.ndarray, *, side: int, cells: tuple[int, ...], step: int) -> Described:
    """(h, w, 3) uint8 RGB -> Described, d = 96: mean and standard deviation of L, a and b, over 100, in the cells of a
    patch (Clinchant et al., ImageEval 2007). A plain patch counts as well: its colour is what it has to say."""
    import cv2

    pixels = shrunk(image, side).astype(np.float32) / np.float32(255)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB) / np.float32(100)
    parts = []
    for cell in cells:
        mean, square = (cv2.boxFilter(values, -1, (cell, cell)) for values in (lab, lab * lab))
        deviation = np.sqrt(np.maximum(square - mean * mean, 0))
        parts.append(patches(np.dstack([mean, deviation]), cell, step))
    descriptors, places = joined(parts)
    return Described(descriptors.reshape(len(descriptors), CELLS * CELLS * 6), places)


@dataclass(eq=False)
class HsvHistogram:
    """Joint histogram of hue, saturation and value with this many bins each (Swain and Ballard, IJCV 1991),
    square-rooted so that cosine is the Hellinger kernel."""

    hues: int
    saturations: int
    values: int
    distance: Distance = "cosine"

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, hues * saturations * values) float32: square roots of the shares of all pixels, norm 1."""
        import cv2

        size = self.hues * self.saturations * self.values
        roots = np.zeros((len(images), size), np.float32)
        for row, image in enumerate(images):
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL).reshape(-1, 3).astype(np.int64)
            hue, saturation, value = (hsv * (self.hues, self.saturations, self.values) >> 8).T
            counts = np.bincount((hue * self.saturations + saturation) * self.values + value, minlength=size)
            roots[row] = np.sqrt(counts / len(hsv))
        return roots


@EXTRACTORS("color", family="color", about="local Lab statistics, Fisher vector")
def color(
    setup: Setup,
    *,
    encode: str = "fisher",
    words: int = 0,
    side: int = 192,
    step: int = 8,
    reduce: int = 48,
    place: float = 0.5,
    whiten: int = 0,
    soft: int = 1,
    fit_images: int = 1000,
) -> Extractor:
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    for option, value in {"side": side, "step": step}.items():
        if value < 1:
            raise BenchError(f"color: {option}={value} must be at least 1")
    return local_features(
        *("color", setup, partial(lab_statistics, side=side, cells=(4, 6, 8), step=step)),
        encode=encode,
        words=words,
        reduce=reduce,
        place=place,
        whiten=whiten,
        soft=soft,
        fit_images=fit_images,
    )


@EXTRACTORS("hsv", family="color", about="HSV histogram, Hellinger kernel")
def hsv(setup: Setup, *, hues: int = 24, saturations: int = 8, values: int = 4) -> Extractor:
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    for option, count in {"hues": hues, "saturations": saturations, "values": values}.items():
        if not 1 <= count <= 256:
            raise BenchError(f"hsv: {option}={count} is not between 1 and 256")
    return HsvHistogram(hues, saturations, values)
