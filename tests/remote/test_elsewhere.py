"""The same pictures from a folder, archives, a web server and a store: the same dataset, and the same scores."""

from __future__ import annotations

import importlib.util
import re
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval_bench.compare.reload import dataset_of
from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.datasets.folder import folder
from retrieval_bench.datasets.manifest import manifest
from retrieval_bench.images.screening import screen
from retrieval_bench.records.files import load
from retrieval_bench.remote.content_cache import ContentCache
from retrieval_bench.remote.limits import MOST_BYTES, REQUESTS, TIMEOUT
from retrieval_bench.remote.place import HOSTS, root_of
from tests.support.command import call
from tests.support.web import web_folder

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def fresh_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Downloads of this test alone; features and kernels are those of all tests."""
    monkeypatch.setattr("retrieval_bench.remote.content_cache.cache_root", lambda: tmp_path / "downloads")
    monkeypatch.setattr("retrieval_bench.remote.limits.BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv(TIMEOUT, "0.6")
    monkeypatch.setenv(HOSTS, "")


def zipped(shelf: Path, file: Path, packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", packing) as archive:
        for path in sorted([*shelf.glob("*.csv"), *shelf.rglob("*.png")]):
            archive.write(path, path.relative_to(shelf))
    return file


def tarred(shelf: Path, file: Path) -> Path:
    with tarfile.open(file, "w") as archive:
        for path in sorted([*shelf.glob("*.csv"), *shelf.rglob("*.png")]):
            archive.add(path, f"./{path.relative_to(shelf)}")
    return file


def listed(shelf: Path, prefix: str = "") -> Path:
    """A manifest of the shelf, beside its folders."""
    paths = [path.relative_to(shelf) for path in sorted(shelf.rglob("*.png"))]
    rows = [f"{prefix}{path.as_posix()},{path.parts[1]},{path.parts[0]},{path.as_posix()}" for path in paths]
    file = shelf / "manifest.csv"
    file.write_text("\n".join(["path,label,split,id", *rows, ""]), "utf-8")
    return file


def fingerprints(*roots: object, read: object = folder) -> set[str]:
    return {read(root_of(str(root))).fingerprint for root in roots}  # type: ignore[operator]


def test_a_folder_in_archives(shelf: Path, tmp_path: Path) -> None:
    archives = [
        zipped(shelf, tmp_path / "a.zip"),
        zipped(shelf, tmp_path / "b.zip", zipfile.ZIP_STORED),
        zipped(shelf, tmp_path / "c.zip", zipfile.ZIP_BZIP2),
        tarred(shelf, tmp_path / "d.tar"),
    ]
    inside = zipped(tmp_path / "shelf", tmp_path / "e.zip")
    assert len(fingerprints(shelf, *archives, f"zip://::{inside}", (tmp_path / "d.tar").as_uri())) == 1
    assert len(fingerprints(tarred(shelf, tmp_path / "d.tar"))) == 1  # from the list that is kept
    before, after = (folder(root).query.images for root in (shelf, tmp_path / "d.tar"))
    assert [before.read(row) for row in range(len(before))] == [after.read(row) for row in range(len(after))]


def test_a_web_server(shelf: Path, tmp_path: Path) -> None:
    file = listed(shelf)
    zipped(shelf, shelf / "x.zip")
    tarred(shelf, shelf / "x.tar")
    with web_folder(shelf) as web:
        roots = [
            f"{web.url}/manifest.csv",
            f"{web.url}/x.zip",
            f"{web.url}/x.tar",
            f"zip://manifest.csv::{web.url}/x.zip",
        ]
        assert len(fingerprints(shelf, file, *roots, read=manifest)) == 1
        assert len(fingerprints(shelf, *roots[1:3])) == 1
        sent = web.sent
        assert len(fingerprints(*roots, read=manifest)) == 1
        assert web.sent - sent < 1000  # the second time, nothing but what asks for the size


def test_scores_are_the_same(shelf: Path, tmp_path: Path) -> None:
    """And what a record says of its root can be opened again."""
    zipped(shelf, shelf / "x.zip")
    found = []
    with web_folder(shelf) as web:
        for number, root in enumerate((shelf, f"{web.url}/x.zip")):
            out = tmp_path / f"{number}.json"
            words = ("--methods", "phash")
            result = call("run", "--dataset", "folder", "--data-root", root, "--out", out, "--k", "1,3", *words)
            assert result.exit_code == 0, result.output
            record = load(out)
            found.append(record)
        here, there = found
        assert here.dataset.fingerprint == there.dataset.fingerprint == dataset_of(there).fingerprint
    assert here.rows[0].scores == there.rows[0].scores


def test_what_may_pass_is_asked_again(shelf: Path) -> None:
    listed(shelf)
    with web_folder(shelf) as web:
        root = f"{web.url}/manifest.csv"
        web.faults = {"manifest.csv": ["503", "truncate"], "query/product-0/0.png": ["stall", "503", "truncate"]}
        assert len(fingerprints(shelf, root, read=manifest)) == 1
        assert web.asked["query/product-0/0.png"] == 4


@pytest.mark.parametrize(
    ("fault", "told"),
    [("503", "it answers 503"), ("stall", "no byte for 0.6 s"), ("truncate", "it ends before its last")],
)
def test_a_server_that_stays_bad_ends_it_in_one_sentence(shelf: Path, fault: str, told: str) -> None:
    """What was finished is kept: the next attempt reads the rest alone."""
    listed(shelf)
    with web_folder(shelf) as web:
        web.faults = {"query/product-3/2.png": [fault] * 4}
        result = call("data", "prepare", "manifest", "--data-root", f"{web.url}/manifest.csv")
        assert result.exit_code == 2
        assert told in " ".join(result.output.split())
        assert "asked 4 times" in " ".join(result.output.split())
        web.faults, sent = {}, web.sent
        manifest(root_of(f"{web.url}/manifest.csv"))
        assert web.sent - sent < len((shelf / "query/product-3/2.png").read_bytes()) + 10


def test_nobody_is_there(shelf: Path) -> None:
    with web_folder(shelf) as web:
        gone = f"{web.url}/manifest.csv"
    began = time.monotonic()
    with pytest.raises(BenchError, match=r"gives no whole answer \(.*refused.*\), asked 4 times"):
        manifest(root_of(gone))
    with pytest.raises(BenchError, match="no whole answer"):
        manifest(root_of("http://no.such.host.invalid/manifest.csv"))
    assert time.monotonic() - began < 5


def test_pictures_that_cannot_be_read_say_why(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_folder(shelf) as web, web_folder(shelf) as other:
        text = listed(shelf).read_text("utf-8")
        text += "\n".join(
            [
                "gone.png,x,gallery,1",
                f"{other.url}/query/product-0/0.png,x,gallery,2",
                "moved.png,x,gallery,3",
                "../x.png,x,gallery,4",
                "file:///etc/passwd,x,gallery,5",
                "zip://a.png::/etc/x.zip,x,gallery,6",
                "endless.png,x,gallery,7",
                f"{web.url}/train/product-0/0.png,x,gallery,8",
            ]
        )
        (shelf / "manifest.csv").write_text(text, "utf-8")
        (shelf / "endless.png").write_bytes(b"")
        web.faults = {"moved.png": [f"redirect {other.url}/train/product-0/1.png"] * 9, "endless.png": ["endless"] * 9}
        monkeypatch.setenv(MOST_BYTES, "1000000")
        skipped = {bad.id: bad.reason for bad in screen(manifest(root_of(f"{web.url}/manifest.csv")))[1]}
        assert skipped == {
            "1": "missing file",
            "2": "missing file: the path is a URL",
            "3": "host not allowed",
            "4": "outside the data root",
            "5": "outside the data root",
            "6": "outside the data root",
            "7": "too many bytes",
        }
        assert not other.asked
        monkeypatch.setenv(HOSTS, "127.0.0.1")
        web.faults["moved.png"] = [f"redirect {other.url}/train/product-0/1.png"] * 9
        skipped = {bad.id: bad.reason for bad in screen(manifest(root_of(f"{web.url}/manifest.csv")))[1]}
        assert sorted(skipped) == ["1", "4", "5", "6", "7"]


def test_a_list_here_with_pictures_there(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_folder(shelf) as web:
        (tmp_path / "lists").mkdir()
        there = listed(shelf, f"{web.url}/").rename(tmp_path / "lists" / "manifest.csv")
        assert len(screen_all(there)) == 36
        assert not web.asked
        monkeypatch.setenv(HOSTS, "127.0.0.1")
        assert fingerprints(there, read=manifest) == fingerprints(listed(shelf), read=manifest)
        assert not screen_all(there)


def screen_all(file: Path) -> list[str]:
    """Why each image of a manifest is none; the last reason counts where nothing is left."""
    dataset = manifest(file)
    reasons = []
    for split in dataset.splits.values():
        for row in range(len(split)):
            try:
                split.images.read(row)
            except BadImage as bad:
                reasons.append(bad.reason)
    return reasons


def test_open_requests_are_bounded(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUESTS, "2")
    listed(shelf)
    with web_folder(shelf) as web:
        images = manifest(root_of(f"{web.url}/manifest.csv")).train.images
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(images.read, range(len(images))))) == 12
        assert web.most_at_once <= 2


def test_damaged_archives(shelf: Path, tmp_path: Path) -> None:
    whole = {"zip": zipped(shelf, tmp_path / "a.zip", zipfile.ZIP_STORED), "tar": tarred(shelf, tmp_path / "a.tar")}
    for kind, file in whole.items():
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(BenchError, match=f"is no whole {kind} file"):
            folder(file)
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512  # the last file, and then no mark of the end
    for damaged in (b"", content[:1024] + b"x" * 4096, content[:end], content[:end] + b"x" * 1024):
        whole["tar"].write_bytes(damaged)
        with pytest.raises(BenchError, match=r"is no whole tar file|no \.jpg"):
            folder(whole["tar"])
    file = zipped(shelf, tmp_path / "b.zip", zipfile.ZIP_STORED)
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    file.write_bytes(content)
    assert [bad.reason for bad in screen(folder(file))[1]] == ["damaged"]
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(BenchError, match="unpack it to"):
        folder(root_of((tmp_path / "x.tar.gz").as_uri()))


def test_a_server_without_ranges_or_lists(shelf: Path) -> None:
    zipped(shelf, shelf / "x.zip")
    with web_folder(shelf) as web:
        web.faults = {"x.zip": ["no ranges"]}
        with pytest.raises(BenchError, match="no part of a file, only the whole"):
            folder(root_of(f"{web.url}/x.zip"))
        with pytest.raises(BenchError, match="does not list its files"):
            folder(root_of(web.url))
        with pytest.raises(BenchError, match="the server has no such file"):
            manifest(root_of(f"{web.url}/gone.csv"))


def test_a_damaged_cache_is_read_again(shelf: Path) -> None:
    zipped(shelf, shelf / "x.zip")
    with web_folder(shelf) as web:
        images = folder(root_of(f"{web.url}/x.zip")).query.images
        before = [images.read(row) for row in range(len(images))]
        for file in ContentCache().root.rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-3] + b"xyz")
        images = folder(root_of(f"{web.url}/x.zip")).query.images
        assert [images.read(row) for row in range(len(images))] == before


@pytest.mark.parametrize(
    ("url", "package", "told"),
    [
        ("http://host/m.csv", "requests", r"needs requests.*'retrieval-bench\[remote\]'"),
        ("s3://bucket/m.csv", "fsspec", r"needs fsspec.*'retrieval-bench\[remote\]'"),
        ("s3://bucket/m.csv", "s3fs", "pip install s3fs"),
        ("gs://bucket/m.csv", "gcsfs", "pip install gcsfs"),
    ],
)
def test_a_missing_package(url: str, package: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == package else find(name, *more))
    with pytest.raises(BenchError, match=told):
        manifest(root_of(url))


def test_a_published_index(shelf: Path, tmp_path: Path) -> None:
    """It is copied once, checked by its own sums, and finds what it finds where it was built."""
    built = call(
        "index", "build", "--out", tmp_path / "index", "--dataset", "folder", "--data-root", shelf, "--methods", "color"
    )
    assert built.exit_code == 0, built.output
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        for path in (tmp_path / "index").rglob("*"):
            archive.write(path, path.relative_to(tmp_path / "index"))
    asked = next(shelf.glob("query/*/*.png"))
    here = call("index", "query", tmp_path / "index", asked, "--json")
    assert here.exit_code == 0, here.output
    with web_folder(tmp_path) as web:
        url = f"{web.url}/shop.zip"
        assert call("index", "verify", url).exit_code == 0
        sent = web.sent
        there = call("index", "query", url, asked, "--json")
        assert web.sent - sent < 1000
    assert found_in(there.output) == found_in(here.output)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../out.txt", "x")
    assert "leads out of its folder" in call("index", "info", tmp_path / "evil.zip").output.replace("\n", " ")


def found_in(text: str) -> object:
    """The answers, without the times and the place of the index."""
    return [line for line in text.splitlines() if not re.search(r'"index"|_ms"|"seconds"', line)]
