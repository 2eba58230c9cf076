"""The `hog` method; the kernel below it is tested in test_gradients.py."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.feature import hog as skimage_hog

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.local.hog import dense_hog
from retrieval_bench.extractors.local.hog_kernel import dense_blocks, hog_blocks, hog_cells, opponent_cells
from retrieval_bench.images.resize import OPPONENT
from retrieval_bench.registry import EXTRACTORS, parse

OPTIONS = {"side": 256, "cells": (8,), "block": 2, "opponent": True}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_global_descriptor_is_scikit_images() -> None:
    image = noise(96, 96)
    (row,) = parse(EXTRACTORS, "hog:encode=global:side=96:cell=8:block=2").build(Setup()).transform([image])
    expected = skimage_hog(image, 9, (8, 8), (2, 2), channel_axis=2)
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (300, 200)])
def test_the_global_descriptor_of_a_plain_image_is_zero(shape: tuple[int, int]) -> None:
    method = parse(EXTRACTORS, "hog:encode=global:side=64").build(Setup())
    rows = method.transform([np.full((*shape, 3), 90, np.uint8), noise(50, 60)])
    assert not rows[0].any()
    assert rows[1].any()
    assert np.isfinite(rows).all()


def test_opponent_cells_of_a_grey_image_hold_brightness_alone() -> None:
    grey = np.repeat(noise(32, 32)[:, :, :1], 3, axis=2)
    cells = opponent_cells(grey, 9, 8).reshape(4, 4, 3, 9)
    np.testing.assert_allclose(cells[:, :, :2], 0, atol=1e-4)
    assert (cells[:, :, 2].sum(axis=2) > 1).all()


def test_opponent_cells_have_the_bits_of_each_colour_by_itself() -> None:
    image = noise(37, 52)
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    planes = (red - green, red + green - 2 * blue, red + green + blue)
    each = [hog_cells(plane * OPPONENT[row, 0], 9, (4, 4)) for row, plane in enumerate(planes)]
    np.testing.assert_array_equal(opponent_cells(image, 9, 4), np.concatenate(each, axis=2))


def test_equal_brightness_hides_an_edge_from_grey_and_not_from_opponent_colours() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8], image[:, 8:] = (200, 0, 100), (0, 200, 100)
    cells = opponent_cells(image, 9, 8).reshape(2, 2, 3, 9)
    assert (cells[:, :, 0, 0] > 10).all()
    assert not cells[:, :, 2].any()


def merged(cells: np.ndarray, times: int) -> np.ndarray:
    """(r, c, o) -> (r // times, c // times, o): the means of times x times cells, added up line by line."""
    rows, columns = (length // times for length in cells.shape[:2])
    total = np.zeros((rows, columns, cells.shape[2]))
    for place in range(times * times):
        total += cells[place // times : rows * times : times, place % times : columns * times : times]
    return total / (times * times)


@pytest.mark.parametrize("shape", [(96, 120), (77, 53), (11, 40)])
def test_large_cells_are_what_their_pixels_vote_for(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    small = hog_cells(image, 9, (4, 4), channel_axis=2)
    for cell, times in ((8, 2), (12, 3)):
        np.testing.assert_allclose(merged(small, times), hog_cells(image, 9, (cell, cell), channel_axis=2), atol=1e-9)


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("shape", [(96, 120), (77, 53), (40, 9), (11, 40)])
def test_dense_blocks_have_the_bits_of_each_size_by_itself(shape: tuple[int, int], block: int) -> None:
    image = noise(*shape)
    image[: shape[0] // 2] = 90
    small = opponent_cells(image, 9, 4)
    found, seen = dense_blocks(small, (1, 3), block)
    each = [hog_blocks(merged(small, times), (block, block)) for times in (1, 3)]
    expected = np.concatenate([blocks.reshape(-1, block * block * 27) for blocks in each]).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(seen, expected.any(axis=1))


def test_an_image_smaller_than_a_block_has_no_descriptor() -> None:
    tiny = noise(15, 40)
    assert dense_hog(tiny, **OPTIONS).descriptors.shape == (0, 108)
    assert dense_hog(np.repeat(tiny, 2, axis=0), **OPTIONS).descriptors.shape == (2 * 4, 108)
    assert dense_hog(tiny, **(OPTIONS | {"opponent": False})).descriptors.shape == (0, 36)


def test_blocks_are_unit_vectors_and_flat_ones_are_left_out() -> None:
    image = np.full((64, 64, 3), 50, np.uint8)
    image[:20, :20] = noise(20, 20)
    found = dense_hog(image, **OPTIONS)
    assert found.descriptors.dtype == found.places.dtype == np.float32
    assert found.descriptors.shape == (3 * 3, 108)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=0.01)
    assert found.places.max() < 0


def test_each_size_of_cell_adds_its_blocks_and_a_large_image_is_shrunk() -> None:
    image = noise(64, 128)
    assert len(dense_hog(image, **(OPTIONS | {"cells": (8, 16)})).descriptors) == 7 * 15 + 3 * 7
    assert len(dense_hog(image, **(OPTIONS | {"side": 64})).descriptors) == 3 * 7


def test_places_are_the_centres_of_the_blocks() -> None:
    places = dense_hog(noise(32, 64), **OPTIONS).places.reshape(3, 7, 2)
    np.testing.assert_allclose(places[0, 0], (8 / 32 - 0.5, 8 / 64 - 0.5))
    np.testing.assert_allclose(places[1, 3], (0, 0), atol=1e-7)


@pytest.mark.parametrize("option", ["side", "cell", "scales", "block", "fit_images"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(BenchError, match=f"hog: {option}=0"):
        EXTRACTORS["hog"].build(Setup(), **{option: 0})


def test_a_side_that_holds_no_block_is_refused() -> None:
    with pytest.raises(BenchError, match="raise side"):
        EXTRACTORS["hog"].build(Setup(), encode="global", side=10, cell=6, block=2)
