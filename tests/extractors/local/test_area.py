"""Images are shrunk to the pixels of OpenCV, whatever the sizes, or by OpenCV itself."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.extractors.local import area
from retrieval_bench.images import resize


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_kernel_is_used_here() -> None:
    """Else nothing below would be tested: OpenCV would be compared with itself."""
    assert area._is_opencvs()


@pytest.mark.parametrize("side", [1, 7, 50, 128, 199])
@pytest.mark.parametrize("shape", [(200, 200), (131, 200), (200, 3), (1, 200), (400, 150), (999, 20), (60, 60)])
def test_every_pixel_is_opencvs(shape: tuple[int, int], side: int) -> None:
    image = picture(*shape)
    np.testing.assert_array_equal(area.shrunk(image, side), resize.shrunk(image, side))


def test_images_of_any_layout_and_those_that_cannot_be_written_are_shrunk() -> None:
    image = picture(90, 70)
    image.setflags(write=False)
    for view in (image, image[:, ::-1], image[10:80, 5:], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(area.shrunk(view, 31), resize.shrunk(np.ascontiguousarray(view), 31))


def test_where_a_pixel_differs_opencv_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    real = area._ours
    monkeypatch.setattr(area, "_ours", lambda image, height, width: real(image, height, width) ^ 1)
    area._is_opencvs.cache_clear()
    try:
        image = picture(90, 70)
        np.testing.assert_array_equal(area.shrunk(image, 31), resize.shrunk(image, 31))
    finally:
        area._is_opencvs.cache_clear()
