"""Grey thumbnails have the bits of Pillow's, for any size, from the first picture of it on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.extractors.hashes import thumbnail
from retrieval_bench.extractors.hashes.thumbnail import grey_thumbnail


def of_pillow(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L").resize((width, height), Image.Resampling.LANCZOS))


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "_orders", {})
    monkeypatch.setattr(thumbnail, "_OFTEN", 2)


@pytest.mark.parametrize("size", [(32, 32), (9, 8), (64, 3), (1, 1), (128, 128)])
@pytest.mark.parametrize("shape", [(97, 61), (61, 97), (8, 200), (5, 7), (1, 1), (32, 32), (128, 40)])
def test_every_bit_is_pillows(shape: tuple[int, int], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for levels in (256, 2, 256, 2, 256):
        image = (rng.integers(0, levels, (*shape, 3)) * (255 // (levels - 1))).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(grey_thumbnail(image, *size)), of_pillow(image, *size))


def test_both_orders_are_met_and_found_out_once() -> None:
    rng = np.random.default_rng(1)
    for shape in ((300, 200), (200, 300), (90, 30), (97, 61)) * 4:
        grey_thumbnail(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), 32, 32)
    assert set(thumbnail._orders.values()) <= {"across", "down"}, "Pillow is imitated where pictures are of usual sizes"
    assert len(thumbnail._orders) == 4


def test_where_no_order_is_pillows_pillow_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(2).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    monkeypatch.setattr(thumbnail, "_ours", lambda image, width, height, order: Image.new("L", (width, height), 7))
    for _ in range(4):
        np.testing.assert_array_equal(np.asarray(grey_thumbnail(image, 9, 8)), of_pillow(image, 9, 8))
    assert list(thumbnail._orders.values()) == ["unknown"]


def test_sizes_beyond_those_that_are_remembered_are_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "_MOST_SIZES", 1)
    image = np.random.default_rng(3).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    for _ in range(4):
        for size in ((9, 8), (32, 32)):
            np.testing.assert_array_equal(np.asarray(grey_thumbnail(image, *size)), of_pillow(image, *size))
    assert len(thumbnail._orders) == 1
