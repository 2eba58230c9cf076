"""Our HOG and scikit-image's, side by side: run this file with `--benchmark-only`."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.feature import hog as skimage_hog

from retrieval_bench.extractors.local.hog_kernel import hog


@pytest.mark.parametrize("channels", ["grey", "colour"])
@pytest.mark.parametrize("name", ["ours", "skimage"])
def test_hog(benchmark, name, channels):
    shape = (348, 348) if channels == "grey" else (348, 348, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    function = hog if name == "ours" else skimage_hog
    benchmark.group = f"hog of one {'x'.join(map(str, shape))} image"
    found = benchmark(function, image, channel_axis=None if channels == "grey" else -1)
    assert found.shape == (41 * 41 * 3 * 3 * 9,)
