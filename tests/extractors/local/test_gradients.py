"""The compiled HOG against scikit-image's and against a slow twin; its speed is in test_gradients_benchmark.py."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import hog as skimage_hog

from retrieval_bench.extractors.local.hog_kernel import BLOCK_NORMS, borders, hog, hog_blocks, hog_cells

CLOSE = {"rtol": 0, "atol": 1e-5}


def slow_cells(image: np.ndarray, orientations: int, cell: tuple[int, int]) -> np.ndarray:
    """(h, w, channels) float64 -> cells, pixel by pixel, as the paper says it."""
    height, width, channels = image.shape
    rows, columns = height // cell[0], width // cell[1]
    cells = np.zeros((rows, columns, orientations))
    for y in range(rows * cell[0]):
        for x in range(columns * cell[1]):
            gradients = []
            for channel in range(channels):
                dy = image[y + 1, x, channel] - image[y - 1, x, channel] if 0 < y < height - 1 else 0.0
                dx = image[y, x + 1, channel] - image[y, x - 1, channel] if 0 < x < width - 1 else 0.0
                gradients.append((dy, dx))
            dy, dx = max(gradients, key=lambda gradient: math.hypot(*gradient))
            degrees = math.degrees(math.atan2(dy, dx)) % 180
            vote = int(degrees // (180 / orientations)) % orientations
            cells[y // cell[0], x // cell[1], vote] += math.hypot(dy, dx) / (cell[0] * cell[1])
    return cells


def slow_blocks(cells: np.ndarray, block: tuple[int, int], norm: str) -> np.ndarray:
    rows, columns, orientations = cells.shape
    found = np.zeros((rows - block[0] + 1, columns - block[1] + 1, *block, orientations))
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            values = cells[row : row + block[0], column : column + block[1]]
            if norm.startswith("L1"):
                values = values / (values.sum() + 1e-5)
                found[row, column] = np.sqrt(values) if norm == "L1-sqrt" else values
            else:
                values = values / math.sqrt((values**2).sum() + 1e-10)
                if norm == "L2-Hys":
                    values = np.minimum(values, 0.2)
                    values = values / math.sqrt((values**2).sum() + 1e-10)
                found[row, column] = values
    return found


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 256, (50, 83), dtype=np.uint8)
    yield "bytes", noise
    yield "floats", rng.random((41, 64))
    yield "float32", rng.random((41, 64), np.float32)
    yield "smooth", np.cumsum(np.cumsum(noise - noise.mean(), axis=0), axis=1)
    yield "blank", np.full((48, 48), 77, np.uint8)
    yield "few levels", (noise // 64).astype(np.uint8)  # gradients that lie on the borders between bins
    yield "not contiguous", noise[::2, ::-1]
    yield "read-only", np.frombuffer(noise.tobytes(), np.uint8).reshape(noise.shape)
    yield "one block exactly", noise[:24, :24]


@pytest.mark.parametrize("norm", BLOCK_NORMS)
@pytest.mark.parametrize(("name", "image"), list(pictures()), ids=lambda value: value if isinstance(value, str) else "")
def test_equals_scikit_image_and_the_slow_twin(name: str, image: np.ndarray, norm: str) -> None:
    ours = hog(image, block_norm=norm, feature_vector=False)
    np.testing.assert_allclose(ours, skimage_hog(image, block_norm=norm, feature_vector=False), **CLOSE)
    twin = slow_blocks(slow_cells(image.astype(np.float64)[:, :, None], 9, (8, 8)), (3, 3), norm)
    np.testing.assert_allclose(ours, twin, **CLOSE)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize(
    ("orientations", "cell", "block"),
    [(9, (8, 8), (2, 2)), (1, (4, 4), (1, 1)), (4, (5, 7), (2, 3)), (8, (6, 3), (3, 1)), (12, (1, 1), (2, 2))],
)
@pytest.mark.parametrize("channel_axis", [None, 0, 1, -1])
def test_every_argument_means_what_scikit_image_means(
    orientations: int, cell: tuple[int, int], block: tuple[int, int], channel_axis: int | None, root: bool
) -> None:
    image = np.random.default_rng(orientations).integers(0, 256, (45, 38, 3), dtype=np.uint8)
    image = image[:, :, 0] if channel_axis is None else np.moveaxis(image, 2, channel_axis)
    arguments = (orientations, cell, block, "L2-Hys")
    ours = hog(image, *arguments, transform_sqrt=root, channel_axis=channel_axis)
    theirs = skimage_hog(image, *arguments, transform_sqrt=root, channel_axis=channel_axis)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 13), st.integers(1, 9), st.integers(1, 9), st.data())
def test_cells_of_any_shape_equal_the_slow_twin(
    height: int, width: int, orientations: int, high: int, wide: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    image = rng.integers(0, data.draw(st.sampled_from([2, 5, 256])), (height, width, data.draw(st.integers(1, 3))))
    cells = hog_cells(image.astype(np.uint8), orientations, (high, wide), channel_axis=-1)
    np.testing.assert_allclose(cells, slow_cells(image.astype(np.float64), orientations, (high, wide)), atol=1e-9)


def test_a_vertical_edge_votes_for_one_direction() -> None:
    grey = np.zeros((16, 16))
    grey[:, 8:] = 100.0
    cells = hog_cells(grey)
    # The gradient of an edge between columns 7 and 8 is 100 in both, over 8 rows, and points along x: direction 0.
    np.testing.assert_array_equal(cells[:, :, 0], np.full((2, 2), 8 * 100 / 64))
    assert not cells[:, :, 1:].any()


def test_borders_are_exact_where_whole_numbers_lie_on_them() -> None:
    cosines, sines = borders(4)
    assert (cosines[1], sines[1]) == (0.0, 1.0)
    assert cosines[0] == sines[0] == sines[2] == -cosines[2]
    assert borders(1)[0].shape == (0,)


def test_too_small_an_image_has_no_cells_and_no_descriptor() -> None:
    assert hog_cells(np.ones((1, 1), np.uint8)).shape == (0, 0, 9)
    assert hog_cells(np.ones((1, 30), np.uint8)).shape == (0, 3, 9)
    assert hog_blocks(np.zeros((1, 3, 9)), (2, 2)).shape == (0, 2, 2, 2, 9)
    with pytest.raises(ValueError, match="24 rows and 24 columns"):
        hog(np.ones((23, 40), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"orientations": 0}, "orientations=0"),
        ({"pixels_per_cell": (0, 8)}, "must be at least 1"),
        ({"cells_per_block": (0, 1)}, "cells_per_block"),
        ({"block_norm": "L3"}, "L1, L1-sqrt, L2, L2-Hys"),
        ({"channel_axis": 0}, "2 axes with channel_axis=0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        hog(np.ones((40, 40), np.uint8), **arguments)


def test_the_image_is_left_as_it_was() -> None:
    image = np.random.default_rng(0).random((40, 40))
    before = image.copy()
    hog(image, transform_sqrt=True)
    np.testing.assert_array_equal(image, before)
