"""Colour histograms (Swain and Ballard, IJCV 1991) in HSV, square-rooted so that cosine is the Hellinger kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.registry import EXTRACTORS


@dataclass(eq=False)
class HsvHistogram:
    """Joint histogram of hue, saturation and value with this many bins each."""

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


@EXTRACTORS("color", family="color", about="HSV histogram, Hellinger kernel")
def color(setup: Setup, *, hues: int = 24, saturations: int = 8, values: int = 4) -> Extractor:
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    for option, count in {"hues": hues, "saturations": saturations, "values": values}.items():
        if not 1 <= count <= 256:
            raise BenchError(f"color: {option}={count} is not between 1 and 256")
    return HsvHistogram(hues, saturations, values)
