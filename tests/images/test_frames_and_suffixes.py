"""Animations and files with the suffix of another format: read, counted, and told once."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.images.decoding import FIRST_FRAME, decoded
from retrieval_bench.images.formats import misnamed
from tests.support.blocks import scene
from tests.support.command import run


def encoded(kind: str, frames: int = 1, **options: object) -> bytes:
    pictures = [Image.fromarray(scene(seed, 24, 32)) for seed in range(frames)]
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(buffer, kind, **more, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "AVIF"])
def test_the_first_frame_is_taken_and_that_is_noted(kind: str) -> None:
    still, moving = encoded(kind), encoded(kind, 3)
    assert decoded(still).notes == ()
    assert decoded(moving).notes == (FIRST_FRAME,)
    if kind not in ("WEBP", "AVIF"):  # of which the first frame of an animation is encoded in another way
        np.testing.assert_array_equal(decoded(moving).pixels, decoded(still).pixels)


def test_what_phones_put_behind_a_jpeg_is_no_frame() -> None:
    assert decoded(encoded("MPO", 2)).notes == ()


def test_pages_are_not_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be as many as the file has room for."""
    from PIL.TiffImagePlugin import TiffImageFile

    monkeypatch.setattr(TiffImageFile, "n_frames", property(lambda self: pytest.fail("all pages were counted")))
    assert decoded(encoded("TIFF", 3)).notes == (FIRST_FRAME,)


def test_a_second_page_that_is_damaged_hurts_nothing() -> None:
    whole = encoded("TIFF", 2)
    content = bytearray(whole)
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, len(content) + 1000)
    np.testing.assert_array_equal(decoded(bytes(content)).pixels, decoded(whole).pixels)


@pytest.mark.parametrize(
    ("suffix", "kind", "wrong"),
    [
        *((".jpg", "PNG", True), (".jpg", "JPEG", False), (".jpeg", "JPEG", False), (".jfif", "JPEG", False)),
        *((".png", "WEBP", True), (".tif", "TIFF", False), (".gif", "PNG", True), ("", "PNG", False)),
        *((".xyz", "PNG", False), (".avif", "AVIF", False), (".heic", "JPEG", True)),
    ],
)
def test_suffix_and_content(suffix: str, kind: str, wrong: bool) -> None:
    assert misnamed(suffix, encoded(kind)[:64]) is wrong


def test_what_is_no_image_is_not_misnamed() -> None:
    assert not misnamed(".jpg", b"")
    assert not misnamed(".jpg", b"<html>")


@pytest.mark.slow(reason="two runs, the second with what the cache knows of the images")
def test_a_run_tells_each_once(shelf: Path, tmp_path: Path, own_cache: None) -> None:
    pictures = sorted(shelf.rglob("*.png"))
    for place in pictures[:3]:
        place.write_bytes(encoded("JPEG", quality=90))
    pictures[3].write_bytes(encoded("PNG", 3))
    for _ in range(2):
        done = run(shelf, tmp_path / "out", "--methods", "phash", "--overwrite")
        assert done.exit_code == 0, done.stderr
        text = " ".join(done.stdout.split())
        assert text.count("3 files are of another format than their suffix says, and read as what they are") == 1
        assert text.count(f"such as {pictures[0].name}, a JPEG") == 1
        assert text.count(f"1 image {FIRST_FRAME}") == 1
