"""Colour moments (Stricker and Orengo, SPIE 1995): mean, deviation and skewness of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split, refuse_unfitted
from retrieval_bench.extractors.histograms.regions import MAX_LEVELS, SIDE, pyramid
from retrieval_bench.images.pictures import pictures
from retrieval_bench.images.resize import shrunk
from retrieval_bench.registry import EXTRACTORS, Range


def lab_moments(image: np.ndarray, levels: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (regions * 9,) float64: mean, standard deviation and cube root of the third central moment
    of L (0 to 100), a and b, region by region of the shrunk picture. A region without pixels has those of the whole."""
    import cv2

    image = shrunk(image, SIDE)
    pixels = cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB).astype(np.float64)
    described: list[np.ndarray] = []
    for region in pyramid(pixels, levels):
        if not region.size:
            described.append(described[0])
            continue
        mean = region.mean(axis=(0, 1))
        centred = region - mean
        squared = centred * centred
        skew = np.cbrt((squared * centred).mean(axis=(0, 1)))
        described.append(np.concatenate([mean, np.sqrt(squared.mean(axis=(0, 1))), skew]))
    return np.concatenate(described)


@dataclass(eq=False)
class ColorMoments:
    """Moments divided by their standard deviation over the training images, so that all of them count alike.

    scale_: (d,) float64.
    """

    levels: int
    distance: Distance = "euclidean"
    wanted: int = SIDE
    learned: ClassVar[tuple[str, ...]] = ("scale_",)
    scale_: np.ndarray = field(init=False)

    def fit(self, train: Split) -> Self:
        if not len(train):
            raise BenchError("moments: there is no training image; the spread of each moment is learned from some")
        described = np.stack([lab_moments(train.images[row], self.levels) for row in range(len(train))])
        # One unit of Lab can hardly be seen; a moment that varies less in training is not blown up.
        self.scale_ = 1 / np.maximum(described.std(axis=0), 1.0)
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, regions * 9) float32. The mean is not subtracted, as Euclidean distances do not see it."""
        refuse_unfitted(self, "moments")
        rows = np.zeros((len(images), len(self.scale_)), np.float32)
        for row, image in enumerate(pictures(images)):
            rows[row] = lab_moments(image, self.levels) * self.scale_
        return rows


@EXTRACTORS("moments", family="color", about="mean, deviation and skewness of Lab in a spatial pyramid")
def moments(setup: Setup, *, levels: Annotated[int, Range(1, MAX_LEVELS)] = 2) -> Extractor:
    """Colour moments, region by region.

    Args:
        setup: what the run fixes for every method.
        levels: levels of the spatial pyramid, 1 to 4; 1 is the whole image alone, each level halves both
            sides of the regions
    """
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    if not 1 <= levels <= MAX_LEVELS:
        raise BenchError(f"moments: levels={levels} is not between 1 and {MAX_LEVELS}")
    return ColorMoments(levels)
