"""Colour histograms (Swain and Ballard, IJCV 1991) in HSV or Lab, square-rooted so that cosine is the Hellinger kernel,
over the regions of a spatial pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split
from retrieval_bench.extractors.histograms.regions import MAX_LEVELS, SIDE, pyramid
from retrieval_bench.images.pictures import pictures
from retrieval_bench.images.resize import shrunk
from retrieval_bench.registry import EXTRACTORS, Range


@dataclass(eq=False)
class ColorHistogram:
    """Joint histogram of the three channels of a colour space, with this many bins each, in each region.

    levels: of the pyramid; 1 is the whole image alone.
    """

    space: Literal["hsv", "lab"]
    bins: tuple[int, int, int]
    levels: int
    distance: Distance = "cosine"
    wanted: int = SIDE

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, regions * bins) float32 of norm 1: square roots of the shares of each region's pixels.

        Every level counts as much as any other.
        """
        size = int(np.prod(self.bins))
        regions = sum(4**level for level in range(self.levels))
        roots = np.zeros((len(images), regions * size), np.float32)
        for row, image in enumerate(pictures(images)):
            roots[row] = np.sqrt(
                np.concatenate([self._shares(part, size) for part in pyramid(self.bins_of(image), self.levels)])
            )
            roots[row] /= np.linalg.norm(roots[row])
        return roots

    def bins_of(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (h', w') int64, the bin of each pixel of the picture, shrunk."""
        import cv2

        image = shrunk(image, SIDE)
        code = cv2.COLOR_RGB2HSV_FULL if self.space == "hsv" else cv2.COLOR_RGB2LAB
        first, second, third = np.moveaxis(cv2.cvtColor(image, code).astype(np.int64) * self.bins >> 8, 2, 0)
        return (first * self.bins[1] + second) * self.bins[2] + third

    def _shares(self, region: np.ndarray, size: int) -> np.ndarray:
        counts = np.bincount(region.ravel(), minlength=size)
        return counts / max(region.size, 1)


def color_histogram(name: str, space: Literal["hsv", "lab"], bins: dict[str, int], levels: int) -> ColorHistogram:
    """The extractor of these options, or an error that names the wrong one."""
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    for option, count in bins.items():
        if not 1 <= count <= 256:
            raise BenchError(f"{name}: {option}={count} is not between 1 and 256")
    if not 1 <= levels <= MAX_LEVELS:
        raise BenchError(f"{name}: levels={levels} is not between 1 and {MAX_LEVELS}")
    first, second, third = bins.values()
    return ColorHistogram(space, (first, second, third), levels)


@EXTRACTORS("hsv", family="color", about="HSV histograms of a spatial pyramid, Hellinger kernel")
def hsv(
    setup: Setup,
    *,
    hues: Annotated[int, Range(1, 256)] = 24,
    saturations: Annotated[int, Range(1, 256)] = 8,
    values: Annotated[int, Range(1, 256)] = 4,
    levels: Annotated[int, Range(1, MAX_LEVELS)] = 1,
) -> Extractor:
    """Joint histogram of hue, saturation and value.

    Args:
        setup: what the run fixes for every method.
        hues: bins of the hue, 1 to 256
        saturations: bins of the saturation, 1 to 256
        values: bins of the value (brightness), 1 to 256
        levels: levels of the spatial pyramid, 1 to 4; 1 is the whole image alone, each level halves both
            sides of the regions
    """
    return color_histogram("hsv", "hsv", {"hues": hues, "saturations": saturations, "values": values}, levels)


@EXTRACTORS("lab", family="color", about="Lab histograms of a spatial pyramid, Hellinger kernel")
def lab(
    setup: Setup,
    *,
    lightness: Annotated[int, Range(1, 256)] = 8,
    reds: Annotated[int, Range(1, 256)] = 32,
    yellows: Annotated[int, Range(1, 256)] = 32,
    levels: Annotated[int, Range(1, MAX_LEVELS)] = 1,
) -> Extractor:
    """Joint histogram of L, a and b.

    Args:
        setup: what the run fixes for every method.
        lightness: bins of L (lightness), 1 to 256
        reds: bins of a (green to red), 1 to 256
        yellows: bins of b (blue to yellow), 1 to 256
        levels: levels of the spatial pyramid, 1 to 4; 1 is the whole image alone, each level halves both
            sides of the regions
    """
    return color_histogram("lab", "lab", {"lightness": lightness, "reds": reds, "yellows": yellows}, levels)
