"""Hashes are of the upright RGB picture, which is not always what imagehash makes of a raw file; and they say so."""

from __future__ import annotations

import io

import imagehash
import numpy as np
import pytest
from PIL import Image

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import Setup
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.reading import encode_png
from retrieval_bench.registry import EXTRACTORS, Entry
from tests.support.command import call
from tests.support.paths import ROOT
from tests.support.photos import photo

HASHES = [entry for entry in EXTRACTORS.own() if entry.family == "hash"]


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def turned(pixels: np.ndarray) -> bytes:
    """A file whose pixels lie on their side, with the EXIF orientation that puts them upright."""
    image = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 270 degrees
    return saved(image, exif=exif)


def transparent(pixels: np.ndarray) -> bytes:
    """A file with a transparent half, below which there are other pixels than white."""
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    alpha[:, : pixels.shape[1] // 2] = 0
    return saved(Image.fromarray(np.concatenate([pixels, alpha], axis=2)))


def bits(entry: Entry, data: bytes) -> np.ndarray:
    return entry.build(Setup()).transform([decode(data)])


@pytest.mark.parametrize("entry", HASHES, ids=lambda entry: entry.name)
def test_a_turned_file_has_the_bits_of_the_upright_picture(entry: Entry) -> None:
    np.testing.assert_array_equal(bits(entry, turned(photo())), bits(entry, encode_png(photo())))


@pytest.mark.parametrize("change", [turned, transparent])
@pytest.mark.parametrize("entry", [entry for entry in HASHES if hasattr(imagehash, entry.name)], ids=lambda e: e.name)
def test_they_are_those_of_imagehash_for_the_picture_and_not_for_the_file(entry: Entry, change) -> None:
    data = change(photo())
    compute = getattr(imagehash, entry.name)
    mine = np.unpackbits(bits(entry, data))
    of_picture = compute(Image.fromarray(decode(data))).hash.ravel()
    of_file = compute(Image.open(io.BytesIO(data))).hash.ravel()
    np.testing.assert_array_equal(mine[: of_picture.size], of_picture)
    if (entry.name, change) != ("colorhash", turned):  # fractions of colours know no direction
        assert (of_file != of_picture).any()


def test_some_hashes_were_compared() -> None:
    assert {entry.name for entry in HASHES if hasattr(imagehash, entry.name)} == {
        "phash",
        "dhash",
        "whash",
        "colorhash",
    }
    assert {entry.name for entry in HASHES} >= {"ahash", "block-mean", "crop-resistant"}


@pytest.mark.parametrize("entry", HASHES, ids=lambda entry: entry.name)
def test_the_list_says_so(entry: Entry) -> None:
    assert "upright RGB picture" in entry.about
    told = " ".join(call("list", entry.name).stdout.split())
    assert f"{entry.about} {entry.facts['note']}" in told
    assert "EXIF orientation is applied" in told


def test_the_readme_and_the_page_of_methods_say_so() -> None:
    for page in ("README.md", "docs/methods.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert "EXIF orientation is applied" in text
        assert "`phash`" in text
        assert "raw file" in text
