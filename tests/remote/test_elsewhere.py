"""The same pictures from a folder, archives, a web server and a store: the same dataset, and the same scores."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from retrieval_bench.datasets.folder import folder
from retrieval_bench.datasets.manifest import manifest
from retrieval_bench.remote.limits import TIMEOUT
from retrieval_bench.remote.place import HOSTS, root_of
from tests.support.command import call
from tests.support.web import web_folder

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def fresh_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Downloads of this test alone; features and kernels are those of all tests."""
    monkeypatch.setattr("retrieval_bench.remote.content_cache.cache_root", lambda: tmp_path / "downloads")
    monkeypatch.setattr("retrieval_bench.remote.limits.BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv(TIMEOUT, "0.2")
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
            record = json.loads((out / "record.json").read_text("utf-8") if out.is_dir() else out.read_text("utf-8"))
            found.append(record)
    assert found[0]["dataset"]["fingerprint"] == found[1]["dataset"]["fingerprint"]
    assert found[1]["dataset"]["root"].startswith("http://")
