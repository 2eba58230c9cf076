"""What is listed as an image and what is passed over, by kind; formats with and without their codec."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BadImage
from retrieval_bench.images import formats, listing
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.formats import format_of, readable
from retrieval_bench.images.listing import PassedOver, image_files
from tests.support.nasty import photo, picture

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(40)


def listed(folder: Path) -> tuple[list[str], PassedOver]:
    passed_over = PassedOver()
    return [file.relative_to(folder).as_posix() for file in image_files(folder, passed_over)], passed_over


@pytest.fixture
def without_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "readable", lambda name: name not in formats.OPTIONAL or name == "AVIF")
    monkeypatch.setattr("retrieval_bench.images.decoding.readable", lambda name: name not in formats.OPTIONAL)
    monkeypatch.setattr(formats, "readable", lambda name: name not in formats.OPTIONAL)


def test_other_suffixes_of_jpeg_and_none_at_all(tmp_path: Path) -> None:
    content = photo(tmp_path / "a.jpg").read_bytes()
    for name in ("b.jfif", "c.JPE", "d.jif", "e"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "Makefile").write_text("all:\n")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").touch()
    names, passed_over = listed(tmp_path)
    assert names == ["a.jpg", "b.jfif", "c.JPE", "d.jif", "e"]
    assert passed_over.notices() == ["3 files are ignored: 1 .txt, 1 hidden, 1 without a suffix"]


@pytest.mark.usefixtures("without_codecs")
def test_formats_without_a_codec_are_named(tmp_path: Path) -> None:
    (tmp_path / "1.heic").write_bytes(HEIC)
    (tmp_path / "2").write_bytes(HEIC)
    (tmp_path / "3.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    (tmp_path / "4.heic").write_bytes(photo(tmp_path / "4.jpg").read_bytes())
    names, passed_over = listed(tmp_path)
    assert names == ["4.heic", "4.jpg"], "a JPEG is one whatever it is called"
    assert passed_over.unreadable == {"HEIF": 2, "JPEG XL": 1}
    (sentence,) = passed_over.notices()
    assert "2 HEIF (needs pip install 'retrieval-bench[heif]')" in sentence
    with pytest.raises(BadImage, match=r"format HEIF; it needs pip install 'retrieval-bench\[heif\]'") as caught:
        decode(HEIC)
    assert caught.value.reason == "HEIF, which cannot be read here"


@pytest.mark.parametrize(
    ("name", "kind"), [("HEIF", "HEIF"), ("JPEG XL", "JXL"), ("JPEG 2000", "JPEG2000"), ("AVIF", "AVIF")]
)
def test_formats_with_a_codec_are_read(tmp_path: Path, name: str, kind: str) -> None:
    if not readable(name):
        pytest.skip(f"no codec for {name}")
    pixels = picture(3, 64, 96)
    buffer = io.BytesIO()
    formats.opened_as(b"")
    if formats.OPTIONAL[name].plugin:
        formats._load(name)
    Image.fromarray(pixels).save(buffer, kind, quality=95)
    content = buffer.getvalue()
    assert format_of(content[: formats.HEAD]) == name
    back = decode(content)
    assert back.shape == pixels.shape
    assert np.abs(back.astype(int) - pixels).mean() < 6
    with pytest.raises(BadImage):
        decode(content[: len(content) // 2])
    (tmp_path / "no-suffix").write_bytes(content)
    assert listed(tmp_path)[0] == ["no-suffix"]


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_first_bytes_tell_the_format(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, kind)
    assert format_of(buffer.getvalue()[: formats.HEAD]) == kind


@pytest.mark.parametrize("head", [b"", b"BM", b"BMW is a car, no bitmap", b"\0\0\0\x18ftypmp42", b"PK\3\4", b"P4ss"])
def test_other_first_bytes_tell_none(head: bytes) -> None:
    assert format_of(head) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
def test_links_and_what_is_no_file(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    photo(tmp_path / "in" / "album.jpg" / "b.jpg")
    (tmp_path / "in" / "empty.jpg").mkdir()
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "nowhere.png").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "in" / "pipe")
    photo(tmp_path / "out" / "c.jpg")
    (tmp_path / "in" / "over").symlink_to(tmp_path / "out")
    names, passed_over = listed(tmp_path / "in")
    assert names == ["a.jpg", "album.jpg/b.jpg", "empty.jpg", "nowhere.png", "over/c.jpg"]
    assert passed_over.ignored == {"link to a folder that it lies in": 1, "without a suffix": 1}


def test_a_list_of_priorities_is_no_picture() -> None:
    assert formats.format_of(b"P1 todo: buy bread") == ""
    assert formats.format_of(b"P6\n# by a camera\n640 480\n255\n") == "PPM"
    assert formats.format_of(b"P4 3 1\n\xa0") == "PPM"
