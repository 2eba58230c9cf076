from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.registry import EXTRACTORS, parse


def histogram(image: np.ndarray, spec: str = "hsv") -> np.ndarray:
    return parse(EXTRACTORS, spec).build(Setup()).transform([image])[0]


def paint(*pixels: tuple[int, int, int]) -> np.ndarray:
    return np.array([pixels], np.uint8)


@pytest.mark.parametrize("spec", ["hsv", "lab", "hsv:levels=3", "lab:levels=2"])
def test_rows_have_norm_one_even_where_regions_are_empty(spec: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for picture in (image, image[:1, :1], image[:1], np.zeros_like(image)):
        assert np.linalg.norm(histogram(picture, spec)) == pytest.approx(1, abs=1e-6)


def test_hue_saturation_and_value_go_to_their_axes() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (255, 128, 128), (100, 0, 0), (128, 128, 128)]
    found = [np.argwhere(histogram(paint(pixel)).reshape(24, 8, 4))[0].tolist() for pixel in colours]
    assert found == [[0, 7, 3], [7, 7, 3], [0, 3, 3], [0, 7, 1], [0, 0, 2]]


def test_lab_goes_to_its_axes() -> None:
    pixel = (180, 40, 90)
    lightness, red, yellow = rgb2lab(paint(pixel))[0, 0]
    (where,) = np.argwhere(histogram(paint(pixel), "lab:lightness=4:reds=8:yellows=8").reshape(4, 8, 8))
    expected = [int(lightness * 4 / 100), int((red + 128) * 8 / 256), int((yellow + 128) * 8 / 256)]
    assert where.tolist() == expected


def test_cosine_is_the_bhattacharyya_coefficient() -> None:
    # Shares 3/4, 1/4 against 1/4, 3/4: the sum of sqrt(p q) is 2 sqrt(3) / 4.
    red, blue = (255, 0, 0), (0, 0, 255)
    cosine = histogram(paint(red, red, red, blue)) @ histogram(paint(red, blue, blue, blue))
    assert cosine == pytest.approx(np.sqrt(3) / 2, abs=1e-6)


def test_a_pyramid_tells_left_from_right() -> None:
    left = np.zeros((8, 8, 3), np.uint8)
    left[:, :4] = 255
    assert histogram(left) @ histogram(left[:, ::-1]) == pytest.approx(1, abs=1e-6)
    assert histogram(left, "hsv:levels=2") @ histogram(left[:, ::-1], "hsv:levels=2") < 0.6


def test_options_set_the_bins() -> None:
    assert histogram(paint((1, 2, 3)), "hsv:hues=3:saturations=5:values=1").shape == (15,)
    assert histogram(paint((1, 2, 3)), "lab:lightness=3:reds=5:yellows=1:levels=2").shape == (75,)
    for spec in ("hsv:hues=0", "hsv:saturations=257", "hsv:values=-1", "lab:reds=0", "lab:levels=9"):
        with pytest.raises(BenchError, match=f"{spec.replace(':', ': ', 1)} is not between 1 and"):
            histogram(paint((1, 2, 3)), spec)
