"""The `color` method; the histograms have tests of their own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.color import rgb2lab

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.local.color import lab_statistics
from retrieval_bench.registry import EXTRACTORS, parse


def test_statistics_are_those_of_the_cells_in_scikit_images_lab() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = lab_statistics(image, side=100, cells=(4,), step=3).descriptors.reshape(5, 8, 2, 2, 6)
    lab = rgb2lab(image) / 100
    for row, column, down, across in [(0, 0, 0, 0), (2, 5, 1, 0), (4, 7, 1, 1)]:
        top, left = 3 * row + 4 * down, 3 * column + 4 * across
        pixels = lab[top : top + 4, left : left + 4].reshape(16, 3)
        expected = np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])
        np.testing.assert_allclose(found[row, column, down, across], expected, atol=0.003)


def statistics_by_opencv(image: np.ndarray, cells: tuple[int, ...], step: int) -> np.ndarray:
    """The slow, obvious twin: every box of the image by OpenCV, and of these the cells of each patch. (n, 24)."""
    lab = cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB) / np.float32(100)
    found = []
    for cell in cells:
        boxed = (cv2.boxFilter(values, -1, (cell, cell), anchor=(0, 0)) for values in (lab, lab * lab))
        mean, square = boxed
        deviation = np.sqrt(np.maximum(square - mean * mean, np.float32(0)))
        boxes = np.concatenate([mean, deviation], axis=2)
        for top in range(0, lab.shape[0] - 2 * cell + 1, step):
            for left in range(0, lab.shape[1] - 2 * cell + 1, step):
                four = [boxes[top + y, left + x] for y in (0, cell) for x in (0, cell)]
                found.append(np.concatenate(four))
    return np.array(found)


@pytest.mark.parametrize("step", [1, 3, 4, 50])
@pytest.mark.parametrize("cells", [(1,), (2, 5), (3, 6, 12), (4, 8, 16)])
def test_statistics_have_the_bits_of_opencvs_boxes(cells: tuple[int, ...], step: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (41, 70, 3), dtype=np.uint8)
    dark = (noise[:32, :32] // 64).repeat(2, axis=1)
    noise.setflags(write=False)
    for image in (noise, dark):
        found = lab_statistics(image, side=100, cells=cells, step=step).descriptors
        np.testing.assert_array_equal(found, statistics_by_opencv(image, cells, step))


def test_a_plain_image_is_described_by_its_colour() -> None:
    found = lab_statistics(np.full((40, 40, 3), 255, np.uint8), side=100, cells=(4, 8), step=4)
    cells = found.descriptors.reshape(-1, 4, 6)
    np.testing.assert_allclose(cells[..., 0], 1, atol=1e-3)
    np.testing.assert_allclose(cells[..., 1:], 0, atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (7, 400), (400, 7)])
def test_an_image_smaller_than_a_patch_is_one_patch_of_what_it_has(shape: tuple[int, int]) -> None:
    found = lab_statistics(np.full((*shape, 3), 30, np.uint8), side=400, cells=(4, 8), step=4)
    assert len(found.descriptors) > 0
    assert np.isfinite(found.descriptors).all()
    np.testing.assert_allclose(found.descriptors.std(axis=0), 0, atol=1e-3)


def test_encode_histogram_is_the_hsv_histogram() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    rows = [parse(EXTRACTORS, spec).build(Setup()).transform([image]) for spec in ("color:encode=histogram", "hsv")]
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize("option", ["side", "cell", "scales", "step"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(BenchError, match=f"color: {option}=0"):
        EXTRACTORS["color"].build(Setup(), **{option: 0})
