from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.color import lab_statistics
from retrieval_bench.registry import EXTRACTORS, parse


def histogram(image: np.ndarray, options: str = "") -> np.ndarray:
    """(hues, saturations, values) of the default 24 x 8 x 4, or flat."""
    return parse(EXTRACTORS, f"hsv{options}").build(Setup()).transform([image])[0]


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
        with pytest.raises(BenchError, match=f"hsv: {option} is not between 1 and 256"):
            histogram(paint((1, 2, 3)), f":{option}")


def test_lab_statistics_of_plain_and_striped_patches() -> None:
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    found = lab_statistics(red, side=64, cells=(4,), step=8)
    cells = found.descriptors.reshape(-1, 16, 6)
    np.testing.assert_allclose(
        cells[..., :3], np.broadcast_to([0.5324, 0.8009, 0.6720], cells[..., :3].shape), atol=2e-3
    )
    np.testing.assert_allclose(cells[..., 3:], 0, atol=2e-3)
    stripes = np.repeat(np.arange(60)[None, :, None] % 2 * 255, 40, axis=0).repeat(3, axis=2).astype(np.uint8)
    cells = lab_statistics(stripes, side=64, cells=(4,), step=8).descriptors.reshape(-1, 16, 6)
    np.testing.assert_allclose(cells[..., 0], 0.5, atol=0.01)  # half of the pixels are black, half white
    np.testing.assert_allclose(cells[..., 3], 0.5, atol=0.01)


def test_places_run_from_minus_a_half_to_a_half() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    found = lab_statistics(image, side=200, cells=(4, 8), step=4)
    assert found.places.shape == (len(found.descriptors), 2)
    np.testing.assert_allclose(found.places.min(axis=0), [8 / 100 - 0.5, 8 / 200 - 0.5], atol=1e-6)
    np.testing.assert_allclose(found.places.max(axis=0), [92 / 100 - 0.5, 192 / 200 - 0.5], atol=1e-6)


def test_an_image_smaller_than_a_patch_has_no_statistics() -> None:
    assert lab_statistics(np.zeros((15, 300, 3), np.uint8), side=300, cells=(4,), step=8).descriptors.shape == (0, 96)
