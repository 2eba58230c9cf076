from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.measure import block_reduce

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.hashes.blockmean import block_bits, block_mean, block_sums, overlaps
from tests.support.pictures import flat_pictures, photos, pictures


def slow_means(grey: np.ndarray, size: int) -> list[list[Fraction]]:
    """Pixel by pixel, in exact fractions: each counts in a block by the area that lies there."""
    height, width = grey.shape
    means = [[Fraction(0)] * size for _ in range(size)]
    for row in range(size):
        top, bottom = Fraction(row * height, size), Fraction((row + 1) * height, size)
        for column in range(size):
            left, right = Fraction(column * width, size), Fraction((column + 1) * width, size)
            total = Fraction(0)
            for y in range(int(top), min(height, int(bottom) + 1)):
                for x in range(int(left), min(width, int(right) + 1)):
                    across = max(Fraction(0), min(right, x + 1) - max(left, x))
                    down = max(Fraction(0), min(bottom, y + 1) - max(top, y))
                    total += across * down * int(grey[y, x])
            means[row][column] = total / ((bottom - top) * (right - left))
    return means


def grey_of(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_bits_are_those_of_exact_fractions(size: int) -> None:
    small = [picture for picture in [*pictures(), *flat_pictures()] if picture.size < 9000]
    assert len(small) > 10
    for picture in small:
        means = slow_means(grey_of(picture), size)
        ordered = sorted(mean for row in means for mean in row)
        median = (ordered[(size * size - 1) // 2] + ordered[size * size // 2]) / 2
        wanted = [[mean > median for mean in row] for row in means]
        np.testing.assert_array_equal(block_bits(picture, size), wanted)
        sums = block_sums(grey_of(picture), size)
        exact = [[mean * picture.shape[0] * picture.shape[1] for mean in row] for row in means]
        assert sums.tolist() == exact


@pytest.mark.parametrize("size", [4, 8, 16])
def test_whole_blocks_have_the_means_of_scikit_image(size: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (size * 7, size * 5), dtype=np.uint8)
    wanted = block_reduce(picture, (7, 5), np.mean)
    np.testing.assert_allclose(block_sums(picture, size) / picture.size, wanted, rtol=1e-12)


def test_blocks_of_any_size_have_the_means_of_opencvs_area_resize() -> None:
    for picture in pictures():
        grey = grey_of(picture).astype(np.float32)
        if min(grey.shape) >= 16:  # below, INTER_AREA interpolates
            wanted = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
            np.testing.assert_allclose(block_sums(grey_of(picture), 16) / grey.size, wanted, atol=0.01)


def test_at_256_pixels_the_bits_are_those_of_the_paper() -> None:
    for photo in photos(30):
        square = np.array(Image.fromarray(photo).resize((256, 256)))
        means = grey_of(square).reshape(16, 16, 16, 16).mean(axis=(1, 3))
        differ = block_bits(square, 16) != (means >= np.median(means))
        assert (means[differ] == np.median(means)).all()


def test_the_parts_of_a_line_share_all_of_it() -> None:
    for length, size in [(1, 8), (7, 3), (300, 16), (16, 16)]:
        shared = overlaps(length, size)
        assert (shared.sum(axis=1) == length).all()
        assert (shared.sum(axis=0) == size).all()


def test_an_image_of_one_color_has_no_bit() -> None:
    blank = [np.full(shape, value, np.uint8) for shape in [(1, 1, 3), (7, 50, 3)] for value in (0, 128, 255)]
    assert not block_mean(Setup()).transform(blank).any()


def test_half_of_the_bits_are_set_where_means_differ() -> None:
    for size, wanted in [(8, 32), (16, 128), (5, 12)]:
        noise = np.random.default_rng(0).integers(0, 256, (97, 101, 3), dtype=np.uint8)
        assert block_bits(noise, size).sum() == wanted


def test_size_and_packing() -> None:
    assert block_mean(Setup()).transform(pictures()).shape == (32, 32)
    assert block_mean(Setup(), size=8).transform(pictures()).shape == (32, 8)
    assert not np.unpackbits(block_mean(Setup(), size=3).transform(pictures()), axis=1)[:, 9:].any()


@pytest.mark.parametrize("size", [-1, 0, 1, 65])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(BenchError, match=f"block-mean: size={size} "):
        block_mean(Setup(), size=size)
