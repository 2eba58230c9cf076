from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.hashes.colorhash import color_counts, colorhash
from retrieval_bench.registry import EXTRACTORS, parse
from tests.support.pictures import flat_pictures, photos, pictures


def assert_bits_of_imagehash(binbits: int, images: list[np.ndarray]) -> None:
    codes = parse(EXTRACTORS, f"colorhash:binbits={binbits}").build(Setup()).transform(images)
    for code, image in zip(codes, images, strict=True):
        wanted = imagehash.colorhash(Image.fromarray(image), binbits).hash.ravel()
        np.testing.assert_array_equal(np.unpackbits(code, count=14 * binbits), wanted)


def every_kind() -> list[np.ndarray]:
    """Pictures of few colours, one for each pair of hue and saturation near the edges of the bins."""
    edges = [0, 1, 42, 43, 84, 85, 86, 127, 128, 169, 170, 171, 172, 212, 213, 254, 255]
    hsv = np.array([[(hue, saturation, 200) for hue in edges] for saturation in edges], np.uint8)
    palette = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
    return [palette, *(row[None] for row in palette), *(column[None] for column in palette.transpose(1, 0, 2))]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("binbits", [1, 2, 3, 4, 5, 8])
def test_the_bits_are_those_of_imagehash(binbits: int) -> None:
    assert_bits_of_imagehash(binbits, [*pictures(), *flat_pictures(), *every_kind()])


@pytest.mark.parametrize("binbits", [3, 8])
def test_so_they_are_for_photos(binbits: int) -> None:
    assert_bits_of_imagehash(binbits, photos(40))


def test_each_pixel_is_counted_once_at_most() -> None:
    image = pictures()[-1]
    counts = color_counts(image)
    assert counts.shape == (14,)
    assert 0.9 * image[:, :, 0].size < counts.sum() <= image[:, :, 0].size
    assert color_counts(np.zeros((3, 5, 3), np.uint8)).tolist() == [15, *[0] * 13]
    assert color_counts(np.full((3, 5, 3), 255, np.uint8)).tolist() == [0, 15, *[0] * 12]


def test_pixels_of_saturation_170_count_in_no_bin() -> None:
    image = np.array([[[120, 40, 40], [255, 0, 0]]], np.uint8)  # saturations 170 and 255
    assert np.asarray(Image.fromarray(image).convert("HSV"))[0, :, 1].tolist() == [170, 255]
    assert color_counts(image).tolist() == [*[0] * 8, 1, *[0] * 5]


def test_an_image_without_color_has_no_bit_in_the_hues() -> None:
    code = colorhash(Setup()).transform([np.full((9, 9, 3), 200, np.uint8)])
    assert code.shape == (1, 6)
    assert np.unpackbits(code)[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert not np.unpackbits(code)[6:].any()


@pytest.mark.parametrize("binbits", [-1, 0, 17])
def test_binbits_out_of_range_are_refused(binbits: int) -> None:
    with pytest.raises(BenchError, match=f"colorhash: binbits={binbits} "):
        colorhash(Setup(), binbits=binbits)
