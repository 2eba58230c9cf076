from __future__ import annotations

import numpy as np
import pytest
from skimage.feature import hog as skimage_hog

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.aggregate import SCALE
from retrieval_bench.extractors.hog import dense_hog, hog_blocks, hog_cells
from retrieval_bench.registry import EXTRACTORS


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
    ours = hog_blocks(hog_cells(grey, cell=cell, orientations=orientations), block=block)
    theirs = skimage_hog(grey, orientations, (cell, cell), (block, block), block_norm="L2-Hys", feature_vector=False)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_a_vertical_edge_votes_for_one_direction() -> None:
    grey = np.zeros((16, 16))
    grey[:, 8:] = 100.0
    cells = hog_cells(grey, cell=8)
    # The gradient of an edge between columns 7 and 8 is 100 in both, over 8 rows, and points along x: direction 0.
    np.testing.assert_array_equal(cells[:, :, 0], np.full((2, 2), 8 * 100 / 64))
    assert not cells[:, :, 1:].any()


def test_an_image_smaller_than_a_block_has_no_descriptor() -> None:
    tiny = np.random.default_rng(0).integers(0, 256, (15, 40, 3), dtype=np.uint8)
    assert dense_hog(tiny, side=256, cell=8, block=2).shape == (0, 36)
    assert len(dense_hog(np.repeat(tiny, 2, axis=0), side=256, cell=8, block=2)) == 2 * 4


def test_blocks_are_whole_unit_vectors_and_flat_ones_are_left_out() -> None:
    image = np.full((64, 64, 3), 50, np.uint8)
    image[:20, :20] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    blocks = dense_hog(image, side=256, cell=8, block=2)
    assert blocks.dtype == np.int16
    assert len(blocks) == 3 * 3
    assert np.linalg.norm(blocks, axis=1) == pytest.approx(SCALE, rel=0.01)


def test_a_large_image_is_shrunk_and_a_small_one_is_not_enlarged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    assert len(dense_hog(image, side=64, cell=8, block=2)) == 3 * 7
    assert len(dense_hog(image, side=1000, cell=8, block=2)) == 7 * 15


@pytest.mark.parametrize("option", ["words", "side", "cell", "block", "fit_images"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(BenchError, match=f"hog: {option}=0"):
        EXTRACTORS["hog"].build(Setup(), **{option: 0})
