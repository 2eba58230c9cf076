"""Pictures with a colour profile: the same colours in sRGB, whatever the file says; what cannot be used is told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from retrieval_bench.core import Dataset, Split
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.images.colour_profiles import CONVERTED, IGNORED
from retrieval_bench.images.decoding import decoded
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.system.cache import FeatureCache
from tests.support.nasty import picture
from tests.support.profiles import ADOBE_RGB, PROPHOTO, SRGB, cmyk_profile, grey_profile, rgb_profile, srgb_of
from tests.support.runs import plan


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("primaries", "gamma"), [(ADOBE_RGB, 2.2), (PROPHOTO, 1.8), (SRGB, 1.0)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colours_are_those_of_the_definitions(kind: str, primaries: tuple, gamma: float) -> None:
    pixels = picture(1)
    options = {"lossless": True} if kind == "WEBP" else {}
    got = decoded(encoded(Image.fromarray(pixels), kind, icc_profile=rgb_profile(primaries, gamma), **options))
    assert got.notes == (CONVERTED,)
    off = np.abs(got.pixels - srgb_of(pixels, primaries, round(gamma * 256) / 256))
    assert np.quantile(off, 0.99) <= 2  # near black, littlecms interpolates curves
    assert np.abs(got.pixels.astype(int) - pixels).max() > 20


def test_a_jpeg_of_another_colour_space_is_converted_and_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(picture()), "JPEG", quality=95, icc_profile=rgb_profile(ADOBE_RGB, 2.2), exif=exif)
    got = decoded(data)
    assert got.notes == (CONVERTED,)
    truth = srgb_of(np.rot90(picture(), -1), ADOBE_RGB, 2.2)
    assert np.abs(got.pixels - truth).mean() < 4


def test_srgb_by_any_name_is_left_alone() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    got = decoded(encoded(Image.fromarray(picture()), icc_profile=profile))
    assert got.notes == ()
    np.testing.assert_array_equal(got.pixels, picture())


def test_grey_of_another_gamma_is_converted() -> None:
    grey = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    got = decoded(encoded(Image.fromarray(grey), icc_profile=grey_profile(1.0)))
    assert got.notes == (CONVERTED,)
    assert got.pixels[0, 55].tolist() == pytest.approx([128, 128, 128], abs=2)  # a fifth of the light is half the value


def test_alpha_is_kept_and_laid_over_white_after_the_conversion() -> None:
    image = Image.new("RGBA", (4, 3), (200, 30, 30, 255))
    image.putpixel((0, 0), (200, 30, 30, 0))
    got = decoded(encoded(image, icc_profile=rgb_profile(ADOBE_RGB, 2.2)))
    assert got.notes == (CONVERTED,)
    assert got.pixels[0, 0].tolist() == [255, 255, 255]
    truth = srgb_of(np.array([[[200, 30, 30]]]), ADOBE_RGB, 2.2)[0, 0]
    assert got.pixels[1, 1].tolist() == pytest.approx(truth.tolist(), abs=2)


def test_inks_are_converted_by_their_profile() -> None:
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 255))
    light = decoded(encoded(image, "TIFF", icc_profile=cmyk_profile(128)))
    assert light.notes == (CONVERTED,)
    plain = decoded(encoded(image, "TIFF"))
    assert plain.notes == ()
    assert plain.pixels.max() < 10


@pytest.mark.parametrize(
    "profile",
    [b"no profile at all", rgb_profile(ADOBE_RGB, 2.2)[:150], grey_profile(2.2), cmyk_profile()],
    ids=["rubbish", "cut", "of greys", "of inks"],
)
def test_a_profile_that_cannot_be_used_is_ignored_and_told(profile: bytes) -> None:
    got = decoded(encoded(Image.fromarray(picture()), icc_profile=profile))
    assert got.notes == (IGNORED,)
    np.testing.assert_array_equal(got.pixels, picture())


def test_a_dataset_counts_them(tmp_path: Path) -> None:
    profiles = [None, rgb_profile(ADOBE_RGB, 2.2), b"rubbish", rgb_profile(PROPHOTO, 1.8)]
    images = ImageBytes([encoded(Image.fromarray(picture(i)), icc_profile=profiles[i % 4]) for i in range(8)])
    split = Split(tuple("abcdefgh"), np.arange(8) % 2, images)
    dataset = Dataset("photos", split.take([]), split.take(range(4)), split.take(range(4, 8)), ("cup", "shoe"))
    photos = plan(dataset, cache=FeatureCache(tmp_path))
    for _ in range(2):  # the second time from the cache
        assert set(prepare(photos).dataset.notices) >= {f"4 images {CONVERTED}", f"2 images {IGNORED}"}
