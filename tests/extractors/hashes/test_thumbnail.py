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
    monkeypatch.setattr(thumbnail, "_known", {})


def pictures(shape: tuple[int, int], count: int, seed: int) -> list[np.ndarray]:
    """Noise of many and of two levels, and smooth ones, in turns."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        if number % 3 == 2:
            coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
            found.append(np.array(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)))
        else:
            noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
            found.append(noise if number % 3 == 0 else (noise >> 7) * 255)
    return found


@pytest.mark.parametrize("size", [(32, 32), (9, 8), (64, 3), (1, 1), (128, 128)])
@pytest.mark.parametrize("shape", [(97, 61), (61, 97), (8, 200), (5, 7), (1, 1), (32, 32), (128, 40)])
def test_every_bit_is_pillows(shape: tuple[int, int], size: tuple[int, int]) -> None:
    for image in pictures(shape, 12, seed=7):
        np.testing.assert_array_equal(grey_thumbnail(image, *size), of_pillow(image, *size))


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (90, 30), (97, 61)])
def test_pillow_is_asked_for_the_first_pictures_of_a_size_alone(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = thumbnail._of_pillow

    def counted(*words: object) -> np.ndarray:
        asked.append(1)
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(thumbnail, "_of_pillow", counted)
    for image in pictures(shape, 12, seed=1):
        grey_thumbnail(image, 32, 32)
    assert len(asked) == thumbnail._ENOUGH


def test_both_orders_occur() -> None:
    """Else nobody would know that either is right."""
    for shape, size in (((300, 200), (32, 32)), ((77, 63), (58, 11))):
        for image in pictures(shape, 4, seed=2):
            grey_thumbnail(image, *size)
    assert {left for _, left in thumbnail._known.values()} == {("across",), ("down",)}


def test_where_no_order_is_pillows_pillow_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "_ours", lambda image, width, height, order: np.full((height, width), 7, np.uint8))
    for image in pictures((50, 40), 6, seed=3):
        np.testing.assert_array_equal(grey_thumbnail(image, 9, 8), of_pillow(image, 9, 8))
    assert list(thumbnail._known.values()) == [(1, ())]


def test_pictures_that_cannot_tell_leave_it_to_pillow() -> None:
    plain = np.full((50, 40, 3), 90, np.uint8)
    for _ in range(thumbnail._MOST + 5):
        grey_thumbnail(plain, 9, 8)
    assert list(thumbnail._known.values()) == [(thumbnail._MOST, ("across", "down"))]
    for image in pictures((50, 40), 4, seed=4):
        np.testing.assert_array_equal(grey_thumbnail(image, 9, 8), of_pillow(image, 9, 8))


def test_sizes_beyond_those_that_are_remembered_are_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "_MOST_SIZES", 1)
    for image in pictures((50, 40), 5, seed=5):
        for size in ((9, 8), (32, 32)):
            np.testing.assert_array_equal(grey_thumbnail(image, *size), of_pillow(image, *size))
    assert len(thumbnail._known) == 1
