"""OpenCV decodes plain pictures: the pixels and the verdicts are those of Pillow, for every mode and every damage."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BadImage
from retrieval_bench.images import jpeg_markers, plain_pictures
from retrieval_bench.images.decoding import Decoded, decoded
from tests.support.profiles import ADOBE_RGB, rgb_profile

OPTIONS: dict[str, list[dict[str, object]]] = {
    "JPEG": [
        {"subsampling": 0, "quality": 30},
        {"subsampling": 1, "progressive": True},
        {"subsampling": 2, "optimize": True, "quality": 97},
        {"restart_marker_blocks": 2},
    ],
    "PNG": [{}, {"compress_level": 1}],
    "WEBP": [{"quality": 30}, {"lossless": True}],
}
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "1", "P", "RGBA", "LA", "I;16"),
    "WEBP": ("RGB", "L", "RGBA"),
}


def picture(rng: np.random.Generator, mode: str, height: int, width: int) -> Image.Image:
    """Edges and plain areas, with noise on one side."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height))
    pixels = np.array(coarse)
    pixels[:, : width // 2] ^= rng.integers(0, 64, (height, width // 2, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    return image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def samples() -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    for kind, all_options in OPTIONS.items():
        for mode, options, (height, width) in itertools.product(MODES[kind], all_options, ((1, 1), (37, 53), (64, 17))):
            image = picture(rng, mode, height, width)
            yield f"{kind}-{mode}", encoded(image, kind, **options)
            exif = Image.Exif()
            exif[0x0112] = int(rng.integers(1, 9))
            if mode in ("RGB", "L"):
                yield f"{kind}-{mode}-turned", encoded(image, kind, exif=exif, **options)
            if mode == "RGB":
                profile = rgb_profile(ADOBE_RGB, 2.2)
                yield f"{kind}-profile", encoded(image, kind, exif=exif, icc_profile=profile, **options)


def both(data: bytes) -> list[Decoded | str]:
    """What OpenCV and Pillow together say, and what Pillow says alone."""
    found: list[Decoded | str] = []
    for alone in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if alone:
                patch.setattr(plain_pictures, "pixels_of", lambda data, image: None)
                patch.setattr(plain_pictures, "pixels_of_bare", lambda data, size: None)
            try:
                found.append(decoded(data))
            except BadImage as bad:
                found.append(f"{bad.reason}: {bad.detail}")
    return found


def assert_alike(data: bytes) -> None:
    one, other = both(data)
    if isinstance(one, Decoded) and isinstance(other, Decoded):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.pixels.flags.c_contiguous
        assert one.notes == other.notes
    else:
        assert one == other


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_both_agree_here(kind: str) -> None:
    """Else nothing below would be tested: `_agree` would leave everything to Pillow."""
    data = encoded(picture(np.random.default_rng(1), "RGB", 37, 53), kind)
    assert plain_pictures.pixels_of(data, Image.open(io.BytesIO(data))) is not None


def test_every_mode_has_the_pixels_of_pillow() -> None:
    for _, data in samples():
        assert_alike(data)


def test_a_jpeg_that_holds_nothing_but_pixels_is_not_opened_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(np.random.default_rng(1), "RGB", 37, 53)
    files = [encoded(image, "JPEG"), encoded(image.convert("L"), "JPEG", progressive=True, comment=b"as it was")]
    expected = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    assert all(jpeg_markers.bare_size(data) == (53, 37) for data in files)
    monkeypatch.setattr("PIL.Image.open", None)
    for data, pixels in zip(files, expected, strict=True):
        np.testing.assert_array_equal(decoded(data).pixels, pixels)


def test_a_jpeg_that_tells_more_is_opened_by_pillow() -> None:
    image = picture(np.random.default_rng(1), "RGB", 37, 53)
    exif = Image.Exif()
    exif[0x0112] = 6
    for more in ({"exif": exif}, {"icc_profile": rgb_profile(ADOBE_RGB, 2.2)}):
        assert jpeg_markers.bare_size(encoded(image, "JPEG", **more)) is None
    assert jpeg_markers.bare_size(encoded(image.convert("CMYK"), "JPEG")) is None
    assert jpeg_markers.bare_size(encoded(image, "PNG")) is None
    assert decoded(encoded(image, "JPEG", exif=exif)).pixels.shape == (53, 37, 3)


def headers(data: bytes) -> Iterator[bytes]:
    """A JPEG file in whose header one thing is not as usual."""
    places = [2]
    while data[places[-1] + 1] != 0xDA:
        places.append(places[-1] + 2 + int.from_bytes(data[places[-1] + 2 : places[-1] + 4], "big"))
    for place, end in itertools.pairwise(places):
        part = data[place:end]
        yield data[:place] + data[end:]  # without it
        yield data[:place] + part + data[place:]  # twice
        yield data[:place] + b"\x00\x17" + data[place:]  # something between
        yield data[:place] + b"\xff" + data[place:]  # a filling before it
        for change in range(2, min(len(part), 24)):
            for value in (0, 1, 2, 4, 16, 255):
                yield data[: place + change] + bytes([value]) + data[place + change + 1 :]


@pytest.mark.slow(reason="hundreds of unusual headers, each decoded four times")
def test_every_unusual_header_has_the_verdict_of_pillow() -> None:
    rng = np.random.default_rng(5)
    verdicts = set()
    for options in ({"subsampling": 2}, {"progressive": True}):
        for mode in ("RGB", "L"):
            for data in headers(encoded(picture(rng, mode, 8, 17), "JPEG", **options)):
                assert_alike(data)
                verdicts.add(type(both(data)[0]))
    assert verdicts == {Decoded, str}


@pytest.mark.slow(reason="thousands of damaged pictures")
def test_every_damage_has_the_verdict_of_pillow() -> None:
    rng = np.random.default_rng(2)
    verdicts = set()
    for _, data in samples():
        if len(data) > 3000:
            continue
        for _ in range(4):
            cut = data[: rng.integers(len(data))]
            flipped = bytearray(data)
            for place in rng.integers(len(data), size=rng.integers(1, 4)):
                flipped[place] = rng.integers(256)
            for damaged in (cut, bytes(flipped), data + rng.bytes(5)):
                assert_alike(damaged)
                verdicts.add(type(both(damaged)[0]))
    assert verdicts == {Decoded, str}


def test_of_several_pictures_in_one_jpeg_the_first_is_taken() -> None:
    rng = np.random.default_rng(3)
    first, second = (picture(rng, "RGB", 24, 32) for _ in range(2))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=95)
    assert_alike(buffer.getvalue())
    assert np.abs(both(buffer.getvalue())[0].pixels.astype(int) - np.array(first)).mean() < 12  # type: ignore[union-attr]


def test_a_library_that_gives_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(np.random.default_rng(1), "RGB", 37, 53), "JPEG")
    real = plain_pictures._decoded
    monkeypatch.setattr(plain_pictures, "_decoded", lambda data, size: real(data, size) ^ 1)
    plain_pictures._agree.cache_clear()
    try:
        assert plain_pictures.pixels_of(data, Image.open(io.BytesIO(data))) is None
    finally:
        plain_pictures._agree.cache_clear()
