from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.extractors.histograms.regions import pyramid


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 7), (16, 16)])
def test_each_level_covers_each_pixel_once(shape: tuple[int, int]) -> None:
    pixels = np.arange(shape[0] * shape[1]).reshape(shape)
    regions = pyramid(pixels, 3)
    assert len(regions) == 1 + 4 + 16
    for first, last in ((0, 1), (1, 5), (5, 21)):
        covered = np.concatenate([region.ravel() for region in regions[first:last]])
        np.testing.assert_array_equal(np.sort(covered), pixels.ravel())
