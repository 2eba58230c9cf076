"""Whatever a cache holds, or a disk does under it: one warning that names the file, and the right numbers."""

from __future__ import annotations

import errno
import io
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.datasets import products
from retrieval_bench.datasets.folder import folder
from retrieval_bench.experiment.prepare import Plan, prepare
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.system.cache import CACHE_VARIABLE, FeatureCache, recipe_key
from tests.support.faults import Disk, cut, every_step, failing, flip, instead

RECIPE = {"method": "sift"}
KEY = recipe_key(RECIPE)
LEARNED = {"words": np.arange(400, dtype=np.float32).reshape(20, 20)}
ROWS = {f"{number:064x}": np.arange(100, dtype=np.float32) for number in range(50)}
POSIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices are those of POSIX")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda file: cut(file, file.stat().st_size // 2),
    "empty": lambda file: cut(file, 0),
    "another kind of file": lambda file: file.write_bytes(b"<html>" * 1000),
    "its head": lambda file: flip(file, 1, 0xFF),
    "a pipe": instead(lambda file: os.mkfifo(file)),
    "an endless device": instead(lambda file: file.symlink_to("/dev/zero")),
    "a folder": instead(Path.mkdir),
}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@POSIX
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["fits", "features"])
def test_damage_is_told_with_the_file_and_made_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, damage: str
) -> None:
    def fill(cache: FeatureCache) -> None:
        if kind == "fits":
            cache.put_fit(KEY, RECIPE, LEARNED)
        else:
            cache.put(KEY, ROWS)

    def held(cache: FeatureCache) -> bool:
        return bool(cache.get_fit(KEY, RECIPE) if kind == "fits" else cache.get(KEY, ROWS))

    fill(FeatureCache(tmp_path))
    (file,) = (entry for entry in (tmp_path / kind).rglob("*") if entry.is_file())
    DAMAGE[damage](file)
    cache = FeatureCache(tmp_path)
    assert not held(cache)
    assert len(told(caplog)) == 1
    assert str(file) in told(caplog)[0]
    fill(cache)
    assert held(FeatureCache(tmp_path))


@POSIX
@pytest.mark.parametrize("more", ["-journal", "-wal"])
def test_a_pipe_beside_the_database_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more: str
) -> None:
    FeatureCache(tmp_path).put(KEY, ROWS)
    (file,) = tmp_path.rglob("*.sqlite")
    os.mkfifo(f"{file}{more}")
    assert len(FeatureCache(tmp_path).get(KEY, ROWS)) == len(ROWS)
    assert len(told(caplog)) == 1


def test_features_whose_bytes_changed_are_counted_and_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FeatureCache(tmp_path).put(KEY, ROWS)
    (file,) = tmp_path.rglob("*.sqlite")
    content = file.read_bytes()
    numbers = ROWS[f"{7:064x}"].tobytes()[:64]
    file.write_bytes(content.replace(numbers, bytes(64)))
    assert FeatureCache(tmp_path).get(KEY, ROWS) == {}
    (sentence,) = told(caplog)
    assert f"50 features in {file} are damaged" in sentence


def test_a_fit_that_promises_a_terabyte_takes_no_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = FeatureCache(tmp_path)
    cache.put_fit(KEY, RECIPE, LEARNED)
    (file,) = tmp_path.rglob("*.npz")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("words.npy", head.getvalue() + bytes(1600))
    assert cache.get_fit(KEY, RECIPE) is None
    assert "an array of 800,000,000,000 bytes is in it, and 1,600 are there" in told(caplog)[0]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_fit_is_kept_whole_or_not_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture, error: int) -> None:
    def work() -> None:
        FeatureCache(tmp_path / "cache").put_fit(KEY, RECIPE, LEARNED)

    number = 0
    for disk in every_step(tmp_path / "cache", work, error):
        number += disk.broken != "unlink"
        held = FeatureCache(tmp_path / "cache").get_fit(KEY, RECIPE)
        assert held is None or np.array_equal(held["words"], LEARNED["words"])
    assert 5 < number <= len(told(caplog))
    assert all(os.strerror(error) in sentence and "continuing without" in sentence for sentence in told(caplog))


def test_a_power_cut_leaves_a_whole_fit_or_none(tmp_path: Path) -> None:
    for _ in every_step(tmp_path, lambda: FeatureCache(tmp_path).put_fit(KEY, RECIPE, LEARNED), None):
        held = FeatureCache(tmp_path).get_fit(KEY, RECIPE)
        assert held is None or np.array_equal(held["words"], LEARNED["words"])


PICTURES = products.RenderedImages([b"one", b"three"], ["a", "b"], {"view": np.array([1, 2])})


@POSIX
@pytest.mark.parametrize("damage", DAMAGE)
def test_drawn_pictures_that_are_damaged_are_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    products._cached("drawn", lambda: PICTURES)
    file = tmp_path / "drawn.npz"
    DAMAGE[damage](file)
    drawn: list[int] = []
    found = products._cached("drawn", lambda: drawn.append(1) or PICTURES)  # type: ignore[func-returns-value]
    assert (found, drawn) == (PICTURES, [1])
    assert str(file) in told(caplog)[0]


def test_a_full_disk_under_drawn_pictures_is_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with failing(Disk(tmp_path, room=100)):
        products._cached("drawn", lambda: PICTURES)
    (sentence,) = told(caplog)
    assert "No space left on device" in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("look", [[], [40], [40, 60, 0, 0], [-1, -1, 0], [40, 60, 99], [2**30, 2**30, 0]])
def test_a_look_that_is_none_is_looked_at_again(shelf: Path, tmp_path: Path, look: list[int]) -> None:
    """Its checksum may be right: who can write to the cache can compute it."""
    cache = FeatureCache(tmp_path / "cache")
    plan = Plan((), parse(DATASETS, "folder"), root=shelf, cache=cache)
    whole = prepare(plan).fingerprint
    (file,) = (tmp_path / "cache").rglob("*.sqlite")
    digests = {split.images.digest(row) for split in folder(shelf).splits.values() for row in range(len(split))}
    cache.put(file.stem, dict.fromkeys(digests, np.array(look, np.int32)))
    assert prepare(plan).fingerprint == whole
