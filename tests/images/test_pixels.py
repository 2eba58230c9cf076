"""Pixels are decoded once, are one's own, and no disk stands in the way of a run."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.core import BadImage
from retrieval_bench.images import decoded_cache
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore, fresh
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.reading import ImageBytes, encode_png

pytestmark = pytest.mark.skipif(not hasattr(os, "preadv"), reason="this system has no preadv: nothing is stored")


class Counting(ImageBytes):
    """Counts what is decoded."""

    def __init__(self, encoded):
        super().__init__(encoded)
        self.decoded = []

    def __getitem__(self, row):
        self.decoded.append(row)
        return super().__getitem__(row)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (3, 50), (40, 40), (7, 9)]
    return Counting([encode_png(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes])


def test_each_image_is_decoded_once_and_every_access_gives_its_own_pixels(images):
    once = DecodedOnce(images, PixelStore())
    for _ in range(3):
        for row in range(len(images)):
            got = once[row]
            assert_array_equal(got, decode(images.read(row)))
            got[:] = 0  # a method that writes into its pixels harms nobody
    assert images.decoded == [0, 1, 2, 3]
    assert once.take([2, 0])[1].shape == (1, 1, 3)
    assert images.decoded == [0, 1, 2, 3]


def test_equal_images_share_their_pixels(images):
    twice = Counting([images.read(2), images.read(2)])
    once = DecodedOnce(twice, PixelStore())
    assert_array_equal(once[0], once[1])
    assert twice.decoded == [0]


def test_fresh_images_are_decoded_at_every_access(images):
    once = DecodedOnce(images, PixelStore())
    for _ in range(2):
        fresh(once)[1]
    assert images.decoded == [1, 1]
    assert fresh(images) is images


def test_what_does_not_fit_is_decoded_anew(images):
    store = PixelStore(most_bytes=40 * 40 * 3)
    once = DecodedOnce(images, store)
    for _ in range(2):
        assert_array_equal(once[2], decode(images.read(2)))
        assert_array_equal(once[3], decode(images.read(3)))
    assert images.decoded == [2, 3, 3]
    assert len(store) == 1


@pytest.mark.parametrize("broken", ["open", "write", "read", "short"])
def test_a_disk_that_fails_costs_time_only(images, monkeypatch, broken):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if broken == "open":
        monkeypatch.setattr(decoded_cache.tempfile, "mkstemp", fail)
    elif broken == "write":
        monkeypatch.setattr(decoded_cache.os, "pwrite", fail)
    elif broken == "read":
        monkeypatch.setattr(decoded_cache.os, "preadv", fail)
    else:
        monkeypatch.setattr(decoded_cache.os, "pwrite", lambda file, data, start: 5)
    once = DecodedOnce(images, PixelStore())
    for _ in range(2):
        assert_array_equal(once[2], decode(images.read(2)))
    assert images.decoded == [2, 2]


def test_bad_images_stay_bad():
    once = DecodedOnce(ImageBytes([b"no image"]), PixelStore())
    for _ in range(2):
        with pytest.raises(BadImage, match="image"):
            once[0]


def test_nothing_is_left_in_the_directory(images, tmp_path):
    once = DecodedOnce(images, PixelStore(directory=str(tmp_path)))
    once[2]
    assert list(tmp_path.iterdir()) == []
    assert_array_equal(once[2], decode(images.read(2)))


def test_many_threads(images):
    once = DecodedOnce(images, PixelStore())
    with ThreadPoolExecutor(8) as pool:
        for row, got in zip(range(400), pool.map(lambda row: once[row % 4], range(400)), strict=True):
            assert_array_equal(got, decode(images.read(row % 4)))


def test_another_store_goes_on_in_the_same_file(images, tmp_path):
    """As a worker process does after one that has crashed, maybe in the middle of storing."""
    with open(tmp_path / "pixels", "w+b") as file:
        first = PixelStore(file=file.fileno())
        once = DecodedOnce(images, first)
        expected = [once[row] for row in range(2)]
        known = first.index
        once[2]  # stored, and not told to anyone
        second = PixelStore(file=file.fileno())
        second.go_on_from(known)
        again = DecodedOnce(images, second)
        for row in (0, 1, 2, 3, 3, 2):
            assert_array_equal(again[row], expected[row] if row < 2 else decode(images.read(row)))
        assert images.decoded == [0, 1, 2, 2, 3]
        assert len(second) == 4
