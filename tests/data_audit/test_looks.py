"""One look at each image: what it tells, and that it is kept and never believed where something differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BadImage
from retrieval_bench.data_audit import looks
from retrieval_bench.data_audit.looks import FLAT, contrast_of, look_at_all, thumbnail_of
from retrieval_bench.images import decoding
from retrieval_bench.images.reading import DecodedBy, ImageBytes, encode_png
from retrieval_bench.system.cache import FeatureCache
from tests.support.pictures import pictures


def test_what_is_seen(tmp_path: Path) -> None:
    pixels = [*pictures(), np.full((20, 30, 3), (0, 0, 128), np.uint8), np.full((20, 30, 3), (0, 0, 128), np.uint8)]
    encoded = [encode_png(one) for one in pixels]
    images = ImageBytes([*encoded[:-1], encoded[-1][:30], b"no image"], [*map(str, range(len(pixels) + 1))])
    calls: list[tuple[int, int]] = []
    seen, rows, bad = look_at_all(images, FeatureCache(None), 2, lambda *done: calls.append(done))
    n = len(pixels) - 1
    assert rows == list(range(n))
    assert [row for row, _ in bad] == [n, n + 1]
    assert calls[-1] == (n + 2, n + 2)
    assert seen.sizes.tolist() == [list(one.shape[:2]) for one in pixels[:n]]
    for row, one in enumerate(pixels[:n]):
        grey = np.asarray(Image.fromarray(one).convert("L"), np.float64)
        assert seen.contrast[row] == pytest.approx(grey.std(), abs=1e-3)
        assert seen.thumbnails[row].tolist() == thumbnail_of(one).tolist()
    assert seen.flat[-1], "one colour is flat, whichever it is"
    assert not seen.flat[2]
    same = seen.same_pixels()
    for a in range(n):
        for b in range(n):
            assert (same[a] == same[b]) == np.array_equal(pixels[a], pixels[b])


def test_it_is_looked_once_and_again_where_the_decoder_or_the_code_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    class Counted(ImageBytes):
        def __getitem__(self, row: int) -> np.ndarray:
            decoded.append(row)
            return super().__getitem__(row)

    images = Counted([encode_png(one) for one in pictures()[:5]])

    def look() -> int:
        decoded.clear()
        found = look_at_all(images, FeatureCache(tmp_path), 1, lambda done, total: None)[0]
        assert np.array_equal(found.sizes, first.sizes)
        assert np.array_equal(found.thumbnails, first.thumbnails)
        return len(decoded)

    first = look_at_all(images, FeatureCache(tmp_path), 1, lambda done, total: None)[0]
    assert look() == 0
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "DECODER_VERSION", "another")
        assert look() == 5
    with monkeypatch.context() as patch:
        patch.setattr(looks, "code_version", lambda file: "another")
        assert look() == 5
    assert look() == 0


def test_a_picture_above_the_limit_is_refused_although_it_was_seen(tmp_path: Path) -> None:
    images = ImageBytes([encode_png(one) for one in pictures()[:5]])
    for most, refused in ((10_000_000, []), (1, [1, 2, 3, 4]), (10_000_000, [])):
        some = DecodedBy(images, decoding.Decoding(max_pixels=most))
        bad = look_at_all(some, FeatureCache(tmp_path), 1, lambda done, total: None)[2]
        assert [row for row, _ in bad] == refused


def test_bad_images_are_not_kept(tmp_path: Path) -> None:
    images = ImageBytes([b"no image"])
    for _ in range(2):
        seen, rows, bad = look_at_all(images, FeatureCache(tmp_path), 1, lambda done, total: None)
        assert (len(seen.sizes), rows) == (0, [])
        assert isinstance(bad[0][1], BadImage)


def test_contrast() -> None:
    assert contrast_of(np.full((3, 4, 3), (255, 0, 0), np.uint8)) == 0
    assert contrast_of(np.array([[[0] * 3, [255] * 3]], np.uint8)) == 127.5
    assert contrast_of(np.array([[[100] * 3, [107] * 3]], np.uint8)) < FLAT
