from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.feature import hog as skimage_hog

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.gradients import cell_histograms
from retrieval_bench.extractors.hog import dense_hog, hog_blocks
from retrieval_bench.registry import EXTRACTORS, parse


@pytest.mark.parametrize(
    ("height", "width", "cell", "block", "orientations"),
    [(64, 64, 8, 2, 9), (50, 83, 8, 2, 9), (60, 40, 6, 3, 9), (48, 48, 8, 1, 12), (41, 97, 4, 4, 7)],
)
@pytest.mark.parametrize("kind", ["noise", "smooth", "blank"])
def test_blocks_equal_scikit_image(
    height: int, width: int, cell: int, block: int, orientations: int, kind: str
) -> None:
    grey = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.float64)
    if kind == "smooth":
        grey = np.cumsum(np.cumsum(grey - grey.mean(), axis=0), axis=1)
    elif kind == "blank":
        grey[:] = 77
    ours = hog_blocks(cell_histograms(grey[..., None], cell, orientations), block=block)
    theirs = skimage_hog(grey, orientations, (cell, cell), (block, block), block_norm="L2-Hys", feature_vector=False)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_blocks_of_a_colour_image_equal_scikit_image() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (70, 51, 3)).astype(np.float64)
    ours = hog_blocks(cell_histograms(colour, 8, 9), block=2)
    theirs = skimage_hog(colour, 9, (8, 8), (2, 2), block_norm="L2-Hys", feature_vector=False, channel_axis=-1)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def plain_histograms(channels: np.ndarray, cell: int, orientations: int) -> np.ndarray:
    """The slow obvious twin: pixel after pixel, with an arctangent."""
    height, width = channels.shape[:2]
    out = np.zeros((height // cell, width // cell, orientations))
    for row in range(out.shape[0] * cell):
        for column in range(out.shape[1] * cell):
            gradients = []
            for channel in channels.transpose(2, 0, 1):
                dx = channel[row, column + 1] - channel[row, column - 1] if 0 < column < width - 1 else 0.0
                dy = channel[row + 1, column] - channel[row - 1, column] if 0 < row < height - 1 else 0.0
                gradients.append((dx, dy))
            dx, dy = max(gradients, key=lambda gradient: np.hypot(*gradient))  # the first of equal ones
            angle = np.degrees(np.arctan2(dy, dx)) % 180
            out[row // cell, column // cell, int(angle // (180 / orientations)) % orientations] += np.hypot(dx, dy)
    return out / cell**2


@pytest.mark.parametrize("channels", [1, 3])
def test_histograms_equal_their_plain_twin(channels: int) -> None:
    image = np.random.default_rng(1).normal(size=(37, 29, channels))
    np.testing.assert_allclose(cell_histograms(image, 7, 8), plain_histograms(image, 7, 8), rtol=1e-12, atol=1e-12)


def test_a_vertical_edge_votes_for_one_direction() -> None:
    grey = np.zeros((16, 16))
    grey[:, 8:] = 100.0
    cells = cell_histograms(grey[..., None], 8, 9)
    # The gradient of an edge between columns 7 and 8 is 100 in both, over 8 rows, and points along x: direction 0.
    np.testing.assert_array_equal(cells[:, :, 0], np.full((2, 2), 8 * 100 / 64))
    assert not cells[:, :, 1:].any()


def count(image: np.ndarray, *sides: int) -> int:
    return len(dense_hog(image, sides=sides, cell=8, block=2).descriptors)


def test_an_image_smaller_than_a_block_has_no_descriptor() -> None:
    tiny = np.random.default_rng(0).integers(0, 256, (15, 40, 3), dtype=np.uint8)
    assert dense_hog(tiny, sides=(256,), cell=8, block=2).descriptors.shape == (0, 36)
    assert count(np.repeat(tiny, 2, axis=0), 256) == 2 * 4


def test_blocks_have_length_one_and_flat_ones_are_left_out() -> None:
    image = np.full((64, 64, 3), 50, np.uint8)
    image[:20, :20] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    found = dense_hog(image, sides=(256,), cell=8, block=2)
    assert len(found.descriptors) == 3 * 3
    assert np.linalg.norm(found.descriptors, axis=1) == pytest.approx(1, abs=1e-4)
    assert found.places.min() == -0.5
    assert found.places.max() < 0


def test_a_large_image_is_shrunk_and_a_small_one_is_not_enlarged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    assert count(image, 64) == 3 * 7
    assert count(image, 1000) == 7 * 15
    assert count(image, 64, 1000) == 3 * 7 + 7 * 15


def test_the_whole_image_as_one_descriptor() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    method = parse(EXTRACTORS, "hog:encode=global:side=64:cell=8:block=3").build(Setup())
    found = method.transform([image, np.full((5, 9, 3), 7, np.uint8)])
    square = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    peer = skimage_hog(square, 9, (8, 8), (3, 3), block_norm="L2-Hys", channel_axis=-1)
    np.testing.assert_allclose(found[0], peer, atol=1e-5)
    assert not found[1].any(), "a uniform image is a zero row"
    with pytest.raises(BenchError, match="side=16 holds no block"):
        parse(EXTRACTORS, "hog:encode=global:side=16").build(Setup())


def test_unknown_encoders_are_refused() -> None:
    with pytest.raises(BenchError, match="hog: encode=bows is not one of bow, vlad, fisher"):
        parse(EXTRACTORS, "hog:encode=bows").build(Setup())


@pytest.mark.parametrize("option", ["side", "cell", "block", "fit_images"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(BenchError, match=f"hog: {option}=0"):
        EXTRACTORS["hog"].build(Setup(), **{option: 0})
