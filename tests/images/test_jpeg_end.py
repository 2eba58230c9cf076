"""JPEG files without their end marker are whole where every pixel is there, and damaged where one is missing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BadImage
from retrieval_bench.images.decoding import REPAIRED, Decoding, decode, decoded
from tests.support.nasty import picture

KINDS = [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}, {"quality": 100}]


def jpeg(seed: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, 61, 83)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("cut", [1, 2])
def test_without_its_end_it_is_whole(options: dict[str, object], cut: int) -> None:
    for seed in range(10):
        data = jpeg(seed, **options)
        got = decoded(data[:-cut])
        np.testing.assert_array_equal(got.pixels, decode(data))
        assert got.notes in ((REPAIRED,), ())  # Pillow itself takes some that hold a few bytes behind the last pixel


def test_most_are_counted() -> None:
    assert sum(decoded(jpeg(seed)[:-2]).notes == (REPAIRED,) for seed in range(10)) >= 7


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_where_pixels_are_missing_it_is_damaged(options: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for seed in range(30):
        data = jpeg(seed, **options)
        cut = int(rng.integers(3, len(data)))
        try:
            got = decode(data[:-cut])
        except BadImage:
            refused += 1
        else:  # all that was cut belongs to blocks beyond the border
            np.testing.assert_array_equal(got, decode(data))
    assert refused >= 29


def test_a_progressive_one_that_lacks_its_last_scans_is_damaged() -> None:
    data = jpeg(1, progressive=True)
    scans = [place for place in range(len(data) - 1) if data[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 3
    for scan in scans[1:]:
        before = data[:scan]
        before = before[: before.rfind(b"\xff\xc4")]  # without the tables that lead the scan
        with pytest.raises(BadImage):
            decode(before)


def test_the_pixel_limit_names_itself_and_can_be_changed() -> None:
    data = jpeg(1)
    with pytest.raises(
        BadImage, match=r"83 x 61 are 5,063 pixels; at most 5,000 are decoded, --max-pixels allows more"
    ):
        decode(data, Decoding(max_pixels=5_000))
    assert decode(data, Decoding(max_pixels=5_063)).shape == (61, 83, 3)
