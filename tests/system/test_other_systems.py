"""What Linux has and others lack: each use has its branch, seen here by taking away what another system has not."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import typer

from benchmark import interrupt
from benchmark.app import say
from retrieval_bench.compare.ab_timing import argv_of
from retrieval_bench.core import BenchError
from retrieval_bench.data_audit.dedupe import of_folder
from retrieval_bench.datasets.folder import folder
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.records.environment import _processor
from retrieval_bench.registry import Registry, parse
from retrieval_bench.search import doctor, jit, threads
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.timing import release_memory, steady_allocator
from tests.support.nasty import photo, shop


@pytest.mark.parametrize("missing", ["preadv", "pwrite"])
def test_without_reads_and_writes_at_a_place_images_are_decoded_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    monkeypatch.delattr(os, missing, raising=False)
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    store = PixelStore(directory=str(tmp_path))
    once = DecodedOnce(ImageBytes([encode_png(image)]), store)
    for _ in range(2):
        np.testing.assert_array_equal(once[0], image)
    assert len(store) == 0
    assert list(tmp_path.iterdir()) == [], "no file that nobody reads"


@pytest.mark.parametrize("missing", ["sched_getaffinity", "sched_setaffinity"])
def test_threads_work_where_they_cannot_be_placed(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delattr(os, missing, raising=False)
    assert threads.on_threads([lambda i=i: i * i for i in range(20)], 3) == [i * i for i in range(20)]
    if missing == "sched_setaffinity":
        assert threads._core_number() is None


def test_a_c_library_without_sched_getcpu_places_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: None, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert threads._core_number() is None


def test_cores_are_counted_where_a_process_cannot_be_bound_to_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()
    assert doctor.report()["usable cores"] == os.cpu_count()


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_the_allocator_is_left_alone_where_it_is_not_glibc(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert steady_allocator() == "as the system sets it"
    release_memory()


def test_the_allocator_of_musl_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert steady_allocator() == "as the system sets it"
    release_memory()


def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Path, *args: Any, **options: Any) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", gone)


def test_macos_is_asked_for_the_processor_by_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proc(monkeypatch)
    asked = []

    def answer(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, "Apple M2 Pro\n", "")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", answer)
    assert _processor() == "Apple M2 Pro"
    assert asked == [["sysctl", "-n", "machdep.cpu.brand_string"]]


@pytest.mark.parametrize("system", ["Darwin", "Windows", "Linux"])
def test_a_processor_that_nobody_names_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    without_proc(monkeypatch)

    def fails(words: list[str], **options: Any) -> None:
        raise FileNotFoundError(words[0])

    monkeypatch.setattr(subprocess, "run", fails)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert _processor() == "arm64"


def test_ids_have_slashes_where_paths_have_backslashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop(tmp_path / "shop", {"mug": 12, "bag": 12})
    heap = tmp_path / "heap"
    for name in ("b/x.png", "C/y.png", "a/b.png", "a.png"):
        (heap / name).parent.mkdir(parents=True, exist_ok=True)
        photo(heap / name)

    def relative(self: Path, other: Path) -> PurePath:
        return PureWindowsPath(os.path.relpath(self, other))

    expected = folder(tmp_path / "shop", split="20/40/40"), of_folder(heap)
    monkeypatch.setattr(Path, "relative_to", relative)
    dataset, collection = folder(tmp_path / "shop", split="20/40/40"), of_folder(heap)
    assert {name: split.ids for name, split in dataset.splits.items()} == {
        name: split.ids for name, split in expected[0].splits.items()
    }
    assert dataset.fingerprint == expected[0].fingerprint
    assert collection.ids == expected[1].ids == ("C/y.png", "a/b.png", "a.png", "b/x.png")


def test_a_drive_is_part_of_a_path_in_an_option() -> None:
    registry = Registry("method")

    @registry("onnx", about="a file", argument="path")
    def onnx(setup: object, *, path: str, dims: int = 0) -> object:
        return path, dims

    @registry("net", about="a network")
    def net(setup: object, *, weights: str = "", dims: int = 0) -> object:
        return weights, dims

    for path in ("C:\\models\\a.onnx", "d:/models/a.onnx", "/models/a.onnx", "a.onnx", "models/a.onnx", "C\\a.onnx"):
        spec = parse(registry, f"onnx:{path}:dims=3")
        assert spec.build(None) == (path, 3)
        assert parse(registry, str(spec)) == spec
        assert parse(registry, f"net:dims=3:weights={path}").build(None) == (path, 3)
    with pytest.raises(BenchError, match="is not an option"):
        parse(registry, "net:weights=ab:/models")


def test_an_environment_of_windows_and_its_paths_can_be_raced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "Scripts").mkdir()
    with pytest.raises(BenchError, match=r"Scripts/python\.exe"):
        argv_of(str(tmp_path), [])
    (tmp_path / "Scripts" / "python.exe").touch()
    assert argv_of(str(tmp_path), [])[0] == str(tmp_path / "Scripts" / "python.exe")
    command = r'C:\venv\python.exe -m benchmark "C:\my shop" #1'
    monkeypatch.setattr(sys, "platform", "win32")
    assert argv_of(command, []) == ["C:\\venv\\python.exe", "-m", "benchmark", "C:\\my shop", "#1"]
    with pytest.raises(BenchError, match="in quotes"):
        argv_of('say "what', [])


@pytest.mark.parametrize(("system", "quiet"), [("win32", True), ("linux", False)])
def test_a_reader_that_went_away_on_windows_has_what_it_wanted(
    monkeypatch: pytest.MonkeyPatch, system: str, quiet: bool
) -> None:
    """Windows says "invalid argument" of a pipe that nobody reads, which elsewhere would be a mistake."""

    def fails(text: str, **options: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    redirected = []
    monkeypatch.setattr(typer, "echo", fails)
    monkeypatch.setattr(os, "dup2", lambda source, target: redirected.append(source))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
    monkeypatch.setattr(sys, "platform", system)
    with contextlib.nullcontext() if quiet else pytest.raises(BenchError, match="cannot be written"):
        say("a table")
    assert len(redirected) == 1
    os.close(redirected[0])


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="plays the signal that this system has under its own name")
def test_ctrl_break_keeps_what_was_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_stopping", stopping := threading.Event())
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    with interrupt.interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGUSR1)
    assert stopping.is_set()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_compiler_lock_needs_no_fork() -> None:
    """Where there is no fork, nothing has to be done about it: the module is loaded without the hook."""
    code = (
        "import os; del os.fork, os.register_at_fork; from retrieval_bench.search import jit; print(jit.lock.acquire())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert jit.lock.acquire(blocking=False)
    jit.lock.release()
