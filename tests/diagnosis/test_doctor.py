"""What `doctor` says of codecs, libraries, caches and locks: made wrong here, one by one."""

from __future__ import annotations

import errno
import functools
import json
import os
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.diagnosis import codecs, libraries, storage
from retrieval_bench.diagnosis.condition import Condition
from retrieval_bench.images import formats
from retrieval_bench.images.formats import FORMATS, OPTIONAL
from retrieval_bench.search.jit import directory
from retrieval_bench.system import locks, sealed
from retrieval_bench.system.sealed import KEY_FILE, SealedFolder
from tests.support.command import call

needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="modes mean nothing there")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a state folder without a key."""
    sealed._key.cache_clear()
    monkeypatch.setenv("RETRIEVAL_BENCH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def found(cache: Path) -> dict[str, Condition]:
    return storage.storage(cache.parent / "results")


def test_every_format_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(codecs.codecs()) == {*FORMATS, *OPTIONAL}
    monkeypatch.setattr(codecs, "readable", lambda name: name != "HEIF")
    monkeypatch.setattr("PIL.features.check", lambda name: name != "webp")
    told = codecs.codecs()
    assert str(told["HEIF"]) == f"not read; {OPTIONAL['HEIF'].needs}"
    assert str(told["WEBP"]) == "not read; install a Pillow that is built with webp"
    assert not told["BMP"].advice
    formats.readable.cache_clear()


def test_a_sound_cache(cache: Path) -> None:
    SealedFolder(directory(), "").write("one.nbc", b"code")
    np.savez(cache / "fit.npz", a=np.arange(3))
    with sqlite3.connect(cache / "features.sqlite") as shelf:
        shelf.execute("CREATE TABLE t (a)")
    shelf.close()
    told = found(cache)
    assert told["cache health"].state.endswith("all checked, none damaged")
    assert "3 files" in told["cache health"].state
    assert told["cache key"].state.endswith("there, and yours alone")
    assert not any(condition.advice for condition in told.values())


def test_damaged_files_are_named_and_left(cache: Path) -> None:
    SealedFolder(directory(), "").write("one.nbc", b"code")
    kernel = directory() / "one.nbc"
    kernel.write_bytes(kernel.read_bytes()[:-1] + b"X")
    np.savez(cache / "fit.npz", a=np.arange(3))
    (cache / "fit.npz").write_bytes((cache / "fit.npz").read_bytes()[:100])
    (cache / "features.sqlite").write_bytes(b"no database" * 100)
    told = found(cache)["cache health"]
    for name in (str(kernel.relative_to(cache)).replace("\\", "/"), "fit.npz", "features.sqlite"):
        assert name in told.state.replace("\\", "/")
        assert (cache / name).exists()
    assert "3 damaged" in told.state
    assert "computed again" in told.advice


def test_kernels_of_other_versions_are_counted_and_not_judged(cache: Path) -> None:
    (cache / "kernels" / "another").mkdir(parents=True)
    (cache / "kernels" / "another" / "one.nbc").write_bytes(b"written before there were checksums")
    told = found(cache)["cache health"]
    assert "1 of kernels of other versions" in told.state
    assert told.state.endswith("none damaged")
    assert not told.advice


@needs_modes
def test_what_others_can_reach_is_told(cache: Path) -> None:
    assert "is not there yet" in found(cache)["cache key"].state
    SealedFolder(directory(), "").write("one.nbc", b"code")
    key = cache.parent / "state" / KEY_FILE
    key.chmod(0o644)
    told = found(cache)
    assert "can be read by others (mode 644)" in told["cache key"].state
    assert "chmod" in told["cache key"].advice
    assert "there is no key to check it by" in told["cache health"].state
    key.chmod(0o600)
    directory().chmod(0o777)
    assert "its folder can be written by others" in found(cache)["cache health"].state
    os.mkfifo(cache / "pipe.sqlite")
    assert "pipe.sqlite is no file" in found(cache)["cache health"].state


def test_a_cache_that_is_no_folder(cache: Path) -> None:
    cache.rmdir()
    assert "not there yet" in found(cache)["cache health"].state
    cache.write_text("")
    assert "name another" in found(cache)["cache health"].advice


@needs_modes
def test_a_file_system_without_locks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has locks" in found(cache)["results' disk"].state
    assert not (cache.parent / "results").exists()

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    told = found(cache)["results' disk"]
    assert "no locks" in told.state
    assert "no two runs" in told.advice
    assert locks.supported(cache) == "No locks available"


def test_two_packages_of_opencv() -> None:
    both = {"opencv-python-headless": "4.9", "opencv-python": "4.8"}
    told = libraries._of_cv2({"version": "4.9", "threads": 2}, both)
    assert "opencv-python 4.8" in told.state
    assert "keep one: pip uninstall -y opencv-python-headless opencv-python && pip install" in told.advice
    assert not libraries._of_cv2({"version": "4.9", "threads": 2}, {"opencv-python-headless": "4.9"}).advice


def test_what_a_library_does_as_it_loads() -> None:
    assert libraries._told("import os, signal; os.kill(os.getpid(), 9)") == "loading it ends the process by signal 9"
    assert libraries._told("raise ImportError('libtorch.so: broken')") == "ImportError: libtorch.so: broken"
    assert libraries._told("import os; os._exit(0)") == "it does not say its version"
    broken = libraries._of_torch("ImportError: libtorch.so: broken")
    assert "does not load: ImportError: libtorch.so: broken" in broken.state
    assert "rows of networks fail" in broken.advice
    assert "pip install" in libraries._of_cv2("ImportError: x", {}).advice


def test_what_torch_says_of_a_gpu() -> None:
    facts = {"version": "2.9", "torchvision": "0.24", "threads": 4, "built": "13.0", "gpu": "NVIDIA H200"}
    assert libraries._of_torch(facts).state.endswith("CUDA 13.0 on NVIDIA H200")
    assert libraries._of_torch({**facts, "gpu": ""}).state.endswith("of which no GPU is seen")
    assert libraries._of_torch({**facts, "gpu": "", "built": None}).state.endswith("without CUDA")


@pytest.mark.slow(reason="loads torch and OpenCV, each in a process of its own")
def test_the_command_says_it_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked once: each library is loaded by a process of its own.
    monkeypatch.setattr(libraries, "libraries", functools.cache(libraries.libraries))
    told = json.loads(call("doctor", "--json").stdout)
    assert set(told["libraries"]) == {"cv2", "torch"}
    assert "torchvision" in told["libraries"]["torch"]["state"]
    assert "cache health" in told["storage"]
    lines = call("doctor").stdout.splitlines()
    assert any(line.startswith("JPEG ") for line in lines)
    assert any(line.startswith("cache key") for line in lines)
