from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.registry import EXTRACTORS, parse
from tests.support.pictures import flat_pictures, photos, pictures

REFERENCE: dict[str, Callable[..., Any]] = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "ahash": imagehash.average_hash,
    "whash": imagehash.whash,
}

pytestmark = pytest.mark.parametrize("name", REFERENCE)


def assert_bits_of_imagehash(name: str, size: int, images: list[np.ndarray]) -> None:
    codes = parse(EXTRACTORS, f"{name}:size={size}").build(Setup()).transform(images)
    assert codes.shape == (len(images), size * size // 8)
    for code, image in zip(codes, images, strict=True):
        wanted = REFERENCE[name](Image.fromarray(image), hash_size=size)
        np.testing.assert_array_equal(np.unpackbits(code).reshape(size, size), wanted.hash)


@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_the_bits_are_those_of_imagehash(name: str, size: int) -> None:
    assert_bits_of_imagehash(name, size, pictures())


@pytest.mark.parametrize("size", [8, 16])
def test_so_they_are_where_blocks_are_equal(name: str, size: int) -> None:
    assert_bits_of_imagehash(name, size, flat_pictures())


@pytest.mark.parametrize("size", [8, 16])
def test_so_they_are_for_photos(name: str, size: int) -> None:
    assert_bits_of_imagehash(name, size, photos(40))


def test_the_distance_of_packed_codes_is_that_of_imagehash(name: str) -> None:
    codes = EXTRACTORS[name].build(Setup()).transform(pictures())
    reference = [REFERENCE[name](Image.fromarray(picture)) for picture in pictures()]
    for row in range(len(codes) - 1):
        bits = np.unpackbits(codes[row] ^ codes[row + 1]).sum()
        assert bits == reference[row] - reference[row + 1]


def test_bits_that_fill_no_byte_are_padded_with_zeros(name: str) -> None:
    if name == "whash":
        pytest.skip("its sizes are powers of 2")
    codes = parse(EXTRACTORS, f"{name}:size=3").build(Setup()).transform(pictures())
    assert codes.shape == (32, 2)
    assert not np.unpackbits(codes, axis=1)[:, 9:].any()


@pytest.mark.parametrize("size", [-8, 0, 1, 65, 128])
def test_a_size_out_of_range_is_refused(name: str, size: int) -> None:
    with pytest.raises(BenchError, match=f"{name}: size={size} "):
        EXTRACTORS[name].build(Setup(), size=size)


def test_whash_takes_powers_of_two_only(name: str) -> None:
    if name != "whash":
        assert EXTRACTORS[name].build(Setup(), size=12).transform(pictures()[:1]).shape == (1, 18)
        return
    with pytest.raises(BenchError, match="power of 2"):
        EXTRACTORS[name].build(Setup(), size=12)


def test_whash_asks_the_library_only_where_sums_are_equal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "whash":
        pytest.skip("for whash")
    asked = []
    whole = imagehash.whash
    monkeypatch.setattr(imagehash, "whash", lambda image, **options: asked.append(image) or whole(image, **options))
    extractor = EXTRACTORS[name].build(Setup())
    extractor.transform([pictures()[-1]])
    assert not asked
    extractor.transform([np.zeros((20, 20, 3), np.uint8)])
    assert len(asked) == 1
