from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import skew
from skimage.color import rgb2lab

from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.extractors.histograms.moments import lab_moments
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS


def noise(height: int, width: int) -> np.ndarray:
    return (np.random.default_rng(0).random((height, width, 3)) ** 2 * 255).astype(np.uint8)


def split_of(images: list[np.ndarray]) -> Split:
    names = tuple(map(str, range(len(images))))
    return Split(names, np.zeros(len(images), np.int64), ImageBytes([encode_png(image) for image in images]))


def test_moments_are_those_of_scipy_in_scikit_images_lab() -> None:
    image = noise(40, 50)
    pixels = rgb2lab(image).reshape(-1, 3)
    deviation = pixels.std(axis=0)
    expected = np.concatenate([pixels.mean(axis=0), deviation, np.cbrt(skew(pixels) * deviation**3)])
    np.testing.assert_allclose(lab_moments(image, 1), expected, atol=0.3)


def test_a_pyramid_holds_the_moments_of_its_regions() -> None:
    image = noise(40, 50)
    np.testing.assert_allclose(lab_moments(image, 2)[9:18], lab_moments(image[:20, :25], 1), atol=1e-9)


def test_a_pixel_has_its_colour_and_no_spread() -> None:
    described = lab_moments(np.full((1, 1, 3), 255, np.uint8), 2).reshape(5, 3, 3)
    np.testing.assert_allclose(described[:, 0], np.tile([100, 0, 0], (5, 1)), atol=0.05)
    assert not described[:, 1:].any()


def test_moments_are_scaled_to_their_spread_in_training_and_never_blown_up() -> None:
    images = [np.full((4, 4, 3), level, np.uint8) for level in (10, 120, 250)]
    extractor = EXTRACTORS["moments"].build(Setup(), levels=1).fit(split_of(images))
    rows = extractor.transform(images)
    assert rows[:, 0].std() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(extractor.scale_[3:], np.ones(6))


def test_refusals() -> None:
    with pytest.raises(BenchError, match="moments: there is no training image"):
        EXTRACTORS["moments"].build(Setup()).fit(split_of([]))
    with pytest.raises(BenchError, match="moments: levels=5 is not between 1 and 4"):
        EXTRACTORS["moments"].build(Setup(), levels=5)
