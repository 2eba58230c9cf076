from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.registry import EXTRACTORS, parse


def histogram(image: np.ndarray, options: str = "") -> np.ndarray:
    """(hues, saturations, values) of the default 24 x 8 x 4, or flat."""
    return parse(EXTRACTORS, f"color{options}").build(Setup()).transform([image])[0]


def paint(*pixels: tuple[int, int, int]) -> np.ndarray:
    return np.array([pixels], np.uint8)


def test_one_colour_fills_one_bin_and_rows_have_norm_one() -> None:
    bins = histogram(paint((255, 0, 0))).reshape(24, 8, 4)
    assert bins[0, 7, 3] == 1
    assert np.count_nonzero(bins) == 1
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.linalg.norm(histogram(image)) == pytest.approx(1, abs=1e-6)


def test_hue_saturation_and_value_go_to_their_axes() -> None:
    green, pale, dark, grey = (0, 255, 0), (255, 128, 128), (100, 0, 0), (128, 128, 128)
    found = [np.argwhere(histogram(paint(pixel)).reshape(24, 8, 4))[0].tolist() for pixel in (green, pale, dark, grey)]
    assert found == [[7, 7, 3], [0, 3, 3], [0, 7, 1], [0, 0, 2]]


def test_cosine_is_the_bhattacharyya_coefficient() -> None:
    # Shares 3/4, 1/4 against 1/4, 3/4: the sum of sqrt(p q) is 2 sqrt(3) / 4.
    red, blue = (255, 0, 0), (0, 0, 255)
    cosine = histogram(paint(red, red, red, blue)) @ histogram(paint(red, blue, blue, blue))
    assert cosine == pytest.approx(np.sqrt(3) / 2, abs=1e-6)


def test_options_set_the_bins() -> None:
    assert histogram(paint((1, 2, 3)), ":hues=3:saturations=5:values=1").shape == (15,)
    for option in ("hues=0", "saturations=257", "values=-1"):
        with pytest.raises(BenchError, match=f"color: {option} is not between 1 and 256"):
            histogram(paint((1, 2, 3)), f":{option}")
