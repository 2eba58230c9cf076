"""Decoding: the same upright RGB pixels from every way to store them, and BadImage, nothing else, from damage."""

from __future__ import annotations

import io
import os
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin, features

from retrieval_bench.core import BadImage, printable
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.formats import FORMATS
from retrieval_bench.images.reading import ImageBytes, ImageFiles, _content, encode_png
from tests.support.nasty import BAD, huge_bmp, huge_png, not_utf8_name, photo, picture, truncated_jpeg

LOSSLESS = [
    ("PNG", {}),
    ("PPM", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
]


def encoded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def close(got: np.ndarray, truth: np.ndarray, mean: float) -> bool:
    assert got.shape == truth.shape
    return float(np.abs(got.astype(int) - truth.astype(int)).mean()) <= mean


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_give_back_the_pixels(kind: str, options: dict[str, object]) -> None:
    got = decode(encoded(picture(), kind, **options))
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, picture())


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_formats_come_close(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert close(decode(encoded(picture(), kind, quality=95)), picture(), mean=3)


def test_encode_png_is_undone_by_decode() -> None:
    np.testing.assert_array_equal(decode(encode_png(picture(3))), picture(3))


def turned(truth: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera with this EXIF orientation stores of the scene `truth`; from the definition in the standard."""
    return {
        1: lambda x: x,  # row 0 is the scene's top, column 0 its left side
        2: lambda x: x[:, ::-1],  # top, right
        3: lambda x: x[::-1, ::-1],  # bottom, right
        4: lambda x: x[::-1],  # bottom, left
        5: lambda x: x.transpose(1, 0, 2),  # left, top
        6: lambda x: x[:, ::-1].transpose(1, 0, 2),  # right, top
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: lambda x: x[::-1].transpose(1, 0, 2),  # left, bottom
    }[orientation](truth)


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (b"P1\n2 2\n1 0\n0 1\n", [[0, 255], [255, 0]]),
        (b"P2\n# a remark\n2 1\n15\n0 15\n", [[0, 255]]),
        (b"P5\n2 1\n65535\n\x00\x00\xff\xff", [[0, 255]]),
        (b"P4\n3 1\n\xa0", [[0, 255, 0]]),
    ],
)
def test_bitmaps_and_greys_of_the_portable_formats(data: bytes, pixels: list[list[int]]) -> None:
    np.testing.assert_array_equal(decode(data), np.repeat(np.array(pixels, np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("data", [b"P5\n2 2\n255\nab", b"P3\n1 1\n255\n1 2\n", b"P6\n9"])
def test_portable_files_that_were_cut_are_damaged(data: bytes) -> None:
    with pytest.raises(BadImage):
        decode(data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = np.ascontiguousarray(turned(picture(), orientation))
    got = decode(encoded(stored, kind, exif=exif, **options))
    assert close(got, picture(), mean=3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x05broken", b"Exif\0\0rubbish" * 9])
def test_damaged_exif_costs_the_turn_and_not_the_image(exif: bytes) -> None:
    assert decode(encoded(picture(), "JPEG", exif=exif)).shape == (40, 60, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(picture(), "PNG", exif=exif)), picture())


@pytest.mark.parametrize("values", [[0, 257, 32768, 65535], [1, 128, 129, 65278], [1000, 2000, 1500, 1000]])
def test_16_bit_grey_is_scaled_over_its_full_range(values: list[int]) -> None:
    grey = np.array([values], np.uint16)
    got = decode(encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(got[:, :, 0], np.rint(grey / 257))
    np.testing.assert_array_equal(got, got[:, :, :1].repeat(3, axis=2))


def test_float_grey_is_scaled_over_the_range_it_uses_and_holes_are_black() -> None:
    grey = np.array([[0.0, 0.25, 0.5], [1.0, np.nan, np.inf]], np.float32)
    got = decode(encoded(Image.fromarray(grey), "TIFF"))
    np.testing.assert_array_equal(got[:, :, 0], [[0, 64, 128], [255, 0, 0]])
    flat = decode(encoded(Image.fromarray(np.full((2, 3), 7, np.float32)), "TIFF"))
    assert not flat.any()


def test_32_bit_grey_is_scaled_over_the_range_it_uses() -> None:
    grey = np.array([[-100_000, 0, 100_000]], np.int32)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey), "TIFF"))[0, :, 0], [0, 128, 255])


def over_white(rgb: tuple[int, int, int], alpha: int) -> np.ndarray:
    return np.rint(np.array(rgb) * alpha / 255 + 255 * (1 - alpha / 255))


@pytest.mark.parametrize("alpha", [0, 100, 255])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(kind: str, alpha: int) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    got = decode(encoded(Image.new("RGBA", (5, 4), (200, 10, 50, alpha)), kind, **options))
    assert close(got, np.tile(over_white((200, 10, 50), alpha), (4, 5, 1)), mean=1)


def test_grey_with_alpha_is_laid_over_white() -> None:
    got = decode(encoded(Image.new("LA", (5, 4), (40, 100)), "PNG"))
    assert close(got, np.tile(over_white((40, 40, 40), 100), (4, 5, 1)), mean=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(decode(encoded(image, kind))[0], [[255, 0, 0], [0, 0, 255]])
    np.testing.assert_array_equal(decode(encoded(image, kind, transparency=0))[0], [[255, 255, 255], [0, 0, 255]])


def test_a_palette_with_an_alpha_per_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    got = decode(encoded(image, "PNG", transparency=bytes([100, 255])))
    assert close(got, np.array([[over_white((255, 0, 0), 100), (0, 0, 255)]]), mean=1)


def test_a_transparent_colour_without_alpha_channel_is_white() -> None:
    image = Image.fromarray(np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8))
    np.testing.assert_array_equal(
        decode(encoded(image, "PNG", transparency=(10, 20, 30)))[0], [[255, 255, 255], [40, 50, 60]]
    )


def test_one_bit() -> None:
    image = Image.fromarray(np.array([[True, False, True]]))
    np.testing.assert_array_equal(decode(encoded(image, "PNG"))[0, :, 0], [255, 0, 255])


INKS = {(0, 255, 255, 0): (255, 0, 0), (255, 0, 255, 0): (0, 255, 0), (0, 0, 0, 255): (0, 0, 0), (0,) * 4: (255,) * 3}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("ink", INKS)
def test_cmyk_gives_the_printed_colour(ink: tuple[int, int, int, int], kind: str) -> None:
    data = encoded(Image.new("CMYK", (16, 8), ink), kind)
    if kind == "JPEG":
        assert b"Adobe" in data  # stored inverted, as Adobe does and every reader expects
    assert close(decode(data), np.tile(np.array(INKS[ink]), (8, 16, 1)), mean=3)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.fromarray(picture(seed)).quantize(64) for seed in range(3)]
    for kind in ("GIF", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decode(data), np.array(frames[0].convert("RGB")))


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_damaged_in_every_format(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    decode(data)
    for size in (20, len(data) // 2):
        with pytest.raises(BadImage) as caught:
            decode(data[:size])
        assert caught.value.reason == "damaged"
        assert " at 0x" not in caught.value.detail  # the same file must give the same record


def test_other_formats_that_pillow_knows_are_not_taken() -> None:
    with pytest.raises(BadImage, match="no JPEG/PNG") as caught:
        decode(encoded(picture(), "SGI"))
    assert caught.value.reason == "not an image"


@pytest.mark.parametrize("kind", [b"Pf", b"PF"])
def test_a_portable_float_map_is_refused_by_its_name(kind: bytes) -> None:
    """Pillow reads a grey one: a flat one of 0.5 would become black."""
    data = kind + b"\n4 2\n-1.0\n" + np.full(4 * 2 * (1 if kind == b"Pf" else 3), 0.5, "<f4").tobytes()
    with pytest.raises(BadImage, match=r"an image of the format PFM, .*; save it as PNG or TIFF") as caught:
        decode(data)
    assert caught.value.reason == "PFM, which cannot be read here"


@pytest.mark.parametrize("write", [huge_png, huge_bmp])
def test_a_huge_header_is_refused_before_anything_is_allocated(write, tmp_path: Path) -> None:
    data = write(tmp_path).read_bytes()
    with pytest.raises(BadImage, match="at most 100,000,000 are decoded, --max-pixels"):
        decode(data)
    tracemalloc.start()
    try:
        with pytest.raises(BadImage):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("write", "reason"), BAD.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_file_has_its_reason_and_a_digest(write, reason: str, tmp_path: Path) -> None:
    images = ImageFiles([write(tmp_path)])
    with pytest.raises(BadImage) as caught:
        images[0]
    assert caught.value.reason == reason
    assert caught.value.detail == str(caught.value)
    assert len(images.digest(0)) == 64
    assert images.digest(0) == ImageFiles(images.paths).digest(0)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = photo(tmp_path / "secret.jpg")
    path.chmod(0)
    with pytest.raises(BadImage, match="Permission denied") as caught:
        ImageFiles([path])[0]
    assert caught.value.reason == "unreadable"


@pytest.mark.skipif(sys.platform == "win32", reason="files are not sparse, and 1 TiB is not there")
def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadImage) as caught:
        ImageFiles([path]).read(0)
    assert caught.value.reason == "too many bytes"


@pytest.mark.parametrize("size", [0, 1, 2999, 3000, 3001, 9000])
def test_a_file_that_changes_while_it_is_read_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    file = tmp_path / "growing.jpg"
    file.write_bytes(bytes(range(250)) * 12)
    assert _content(str(file), size) == file.read_bytes()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadImage) as caught:
        ImageFiles([tmp_path / "none.jpg"])[0]
    assert caught.value.reason == "missing file"


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = not_utf8_name(tmp_path)
    assert ImageFiles([path])[0].shape == (40, 60, 3)
    assert printable(path.name) == "caf\\xe9.jpg"
    printable(path.name).encode()


def test_files_and_bytes_are_the_same_images(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{seed}.png", seed) for seed in range(4)]
    files, held = ImageFiles(paths), ImageBytes([path.read_bytes() for path in paths])
    files.digest(3)
    for images in (files, held):
        taken = images.take([3, 1, 1])
        assert len(taken) == 3
        np.testing.assert_array_equal(taken[0], picture(3))
        assert [taken.digest(row) for row in range(3)] == [held.digest(row) for row in (3, 1, 1)]
        assert taken.read(2) == paths[1].read_bytes()
        assert len(images.take([])) == 0


def test_truncation_is_found_where_the_process_has_switched_it_off(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(encode_png(picture())).shape == (40, 60, 3)
    with pytest.raises(BadImage, match="truncated"):
        decode(truncated_jpeg(tmp_path).read_bytes())
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 10


BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x05broken"


def test_pillow_warns_nobody() -> None:
    data = encoded(picture(), "JPEG", exif=BROKEN_EXIF)
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(io.BytesIO(data)).getexif()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        decode(data)
    assert heard == []


def test_threads_leave_warning_filters_as_they_were() -> None:
    data = encoded(picture(), "JPEG", exif=BROKEN_EXIF)
    before = list(warnings.filters)

    def work() -> None:
        for _ in range(50):
            decode(data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def samples() -> list[bytes]:
    noise = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    return [
        encoded(noise, "JPEG", exif=exif),
        encoded(noise, "JPEG", progressive=True),
        encoded(noise, "PNG", exif=exif),
        encoded(Image.fromarray(noise).quantize(16), "PNG", transparency=bytes(range(16))),
        encoded(Image.fromarray(noise).quantize(16), "GIF", save_all=True, append_images=[Image.fromarray(noise)]),
        encoded(noise, "TIFF", tiffinfo=tags),
        encoded(noise, "TIFF", compression="tiff_lzw"),
        encoded(Image.fromarray(noise[:, :, 0].astype(np.float32)), "TIFF"),
        encoded(noise, "WEBP", exif=exif),
        encoded(noise, "BMP"),
    ]


SAMPLES = samples()


def decoded_or_bad(data: bytes) -> np.ndarray | BadImage:
    try:
        return decode(data)
    except BadImage as bad:
        return bad


@pytest.mark.slow(reason="six hundred damaged files")
@settings(max_examples=600, deadline=None, derandomize=True)
@given(data=st.data())
def test_damage_raises_bad_image_and_nothing_else(data: st.DataObject) -> None:
    sample = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 6))):
        sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(sample))))
    result = decoded_or_bad(bytes(sample[:cut]))
    if isinstance(result, BadImage):
        assert result.reason in ("empty file", "not an image", "damaged", "too many pixels")
        assert " at 0x" not in result.detail
    else:
        assert result.dtype == np.uint8
        assert result.ndim == 3
        assert result.shape[2] == 3
        assert result.size


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.sampled_from([sample[:8] for sample in SAMPLES]))
def test_rubbish_behind_a_signature_raises_bad_image(rubbish: bytes, signature: bytes) -> None:
    with pytest.raises(BadImage):
        decode(signature + rubbish)
