"""No list and no link leads out of the folder of a dataset; what a file that is no image holds is never told."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BadImage
from retrieval_bench.datasets.folder import folder
from retrieval_bench.datasets.manifest import manifest
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.fence import ALLOWED
from retrieval_bench.images.formats import FORMATS
from retrieval_bench.images.reading import OUTSIDE
from retrieval_bench.images.screening import screen
from tests.support.command import call
from tests.support.nasty import photo, picture

SECRET = b"root:x:0:0:secret:/root:/bin/sh\n"
LINKS = pytest.mark.skipif(os.name == "nt", reason="links need a right there")


def bad(dataset) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """id -> reason of what is left out."""
    _, skipped = screen(dataset)
    assert not any("secret" in f"{item}" for item in skipped)
    return {item.id: item.reason for item in skipped}


def listed(home: Path, *paths: str) -> Path:
    """A manifest of the images of a shelf, and of these files."""
    own = [f"{file.relative_to(home).as_posix()},{file.parent.name}" for file in sorted(home.rglob("*.png"))]
    split = {"train": "train", "gallery": "gallery", "query": "query"}
    lines = [f"{line},{split[line.split('/')[0]]}" for line in own]
    lines += [f"{path},product-1,train" for path in paths]
    (home / "manifest.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    return home


def test_a_list_names_what_lies_beside_it(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(SECRET)
    photo(tmp_path / "mine.png", 1)
    outside = [str(tmp_path / "passwd"), "../passwd", "../mine.png", str(tmp_path / "mine.png"), "train/../../mine.png"]
    outside += ["../nowhere.png", "/dev/zero"]
    found = bad(manifest(listed(shelf, *outside)))
    assert found == dict.fromkeys((Path(path).as_posix() for path in outside), OUTSIDE)
    photo(shelf / "more.jpg")
    assert bad(manifest(listed(shelf, "query/../train/product-1/../.././more.jpg"))) == {}


def test_what_the_user_allows_is_read(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "mine.png", 1)
    home = listed(shelf, "../mine.png")
    monkeypatch.setenv(ALLOWED, "1")
    assert bad(manifest(home)) == {}


@LINKS
def test_links_within_are_followed_and_links_out_are_not(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(SECRET)
    photo(tmp_path / "there" / "photo.png", 3)
    here = shelf / "train" / "product-1"
    (here / "passwd.png").symlink_to(tmp_path / "passwd")
    (here / "two-steps.png").symlink_to("passwd.png")
    (here / "within.png").symlink_to("0.png")
    (here / "down").symlink_to(tmp_path / "there")
    (shelf / "train" / "whole").symlink_to(tmp_path / "there")
    out = {"passwd.png", "two-steps.png", "down/photo.png"}
    expected = {f"train/product-1/{name}" for name in out} | {"train/whole/photo.png"}
    assert bad(folder(shelf)) == dict.fromkeys(expected, OUTSIDE)
    (tmp_path / "alias").symlink_to(shelf)  # the folder itself may be one
    assert bad(folder(tmp_path / "alias")) == dict.fromkeys(expected, OUTSIDE)
    assert bad(manifest(listed(shelf)))["train/product-1/passwd.png"] == OUTSIDE


@LINKS
def test_a_folder_beside_with_a_longer_name_is_outside(shelf: Path) -> None:
    beside = photo(Path(f"{shelf}2") / "photo.png")
    (shelf / "train" / "product-1" / "x.png").symlink_to(beside)
    assert bad(folder(shelf)) == {"train/product-1/x.png": OUTSIDE}


@LINKS
@pytest.mark.slow(reason="two runs")
def test_a_run_refuses_or_reads_as_it_is_told(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED, raising=False)
    home = listed(shelf, str(photo(tmp_path / "elsewhere" / "mine.png", 4)))
    words = ("run", "--dataset", "manifest", "--data-root", home, "--methods", "color", "--k", "1", "--recompute")
    refused = call(*words, "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "1 outside the data root" in refused.stderr
    allowed = call(*words, "--out", tmp_path / "out", "--allow-outside")
    assert allowed.exit_code == 0, allowed.stderr
    assert call(*words, "--out", tmp_path / "out").exit_code == 2  # told anew each time


def damaged() -> dict[str, bytes]:
    """Files that are no image, or no whole one, and hold SECRET where decoders look."""
    files = {"text": SECRET, "text later": b"\n" + SECRET * 20}
    for kind in FORMATS:
        buffer = io.BytesIO()
        try:
            Image.fromarray(picture()).save(buffer, kind)
        except (KeyError, OSError, ValueError):  # Pillow reads it and does not write it
            continue
        whole = buffer.getvalue()
        for place in (0, 2, 8, 12, 16, 20, 33, 37, 60, len(whole) // 2):
            files[f"{kind} at {place}"] = whole[:place] + SECRET + whole[place + len(SECRET) :]
            files[f"{kind} cut at {place}"] = whole[:place] + SECRET
    return files


def test_no_reason_quotes_a_file() -> None:
    told, files = [], damaged()
    for content in files.values():
        try:
            decode(content)
        except BadImage as why:
            told.append(f"{why.reason}: {why.detail}")
    assert len(told) > 50
    for sentence in told:
        pieces = [SECRET[start : start + 4].decode() for start in range(len(SECRET) - 4)]
        assert not any(piece in sentence for piece in pieces), sentence
        assert sentence.isascii()
        assert len(sentence) < 200
    assert np.unique(told).size > 4
