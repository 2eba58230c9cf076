"""How far ahead panels are fetched: measured where it pays, kept for the next process, and declined when told to."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval_bench.search import emit, fetch_ahead, widened_loops
from retrieval_bench.search.fetch_ahead import DISTANCES, LoopTrial, kernel_here, measured

USUAL = 300


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv(fetch_ahead.VARIABLE, "")


def files(place: Path) -> list[str]:
    return sorted(file.name for file in (place / "kernels" / "ahead").glob("*"))


def quick_at(distance: int, seconds: float) -> Callable[[Any], Any]:
    """In place of a compiled loop: takes 4 ms, and `seconds` at one distance."""
    return lambda _: lambda arguments: time.sleep(seconds if arguments[-1] == distance else 0.004)


def nothing() -> LoopTrial:
    loop: Any = None  # whatever is compiled in its place
    return LoopTrial(loop, (), ())


def test_the_quickest_distance_is_taken_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_ahead, "_compiled", quick_at(1024, 0.001))
    assert measured("some", USUAL, nothing) == 1024
    monkeypatch.setattr(fetch_ahead, "_compiled", quick_at(512, 0.001))
    assert measured("some", USUAL, nothing) == 1024
    assert measured("others", USUAL, nothing) == 512
    assert len(files(tmp_path)) == 2


def test_the_usual_distance_stays_where_another_is_hardly_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_ahead, "_compiled", quick_at(1024, 0.001))
    monkeypatch.setattr(fetch_ahead, "GAIN", 100.0)
    assert measured("some", USUAL, nothing) == USUAL


def test_it_can_be_declined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fetch_ahead.VARIABLE, "usual")
    assert measured("some", USUAL, nothing) == USUAL
    assert kernel_here(emit.KERNELS["avx2"]) is emit.KERNELS["avx2"]
    assert files(tmp_path) == []


def test_what_was_changed_on_disk_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_ahead, "_compiled", quick_at(1024, 0.001))
    assert measured("some", USUAL, nothing) == 1024
    (file,) = (tmp_path / "kernels" / "ahead").glob("*")
    file.write_bytes(b"4096")
    monkeypatch.setattr(fetch_ahead, "_compiled", quick_at(512, 0.001))
    assert measured("some", USUAL, nothing) == 512


@pytest.mark.skipif(emit.choose()[0].lanes == 1, reason="the plain loops fetch nothing ahead")
def test_the_loops_of_this_machine_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_ahead, "MEMORY", 1 << 20)
    kernel = emit.choose()[0]
    here = kernel_here(kernel)
    assert len(files(tmp_path)) == 3
    assert {here.ahead, here.ahead_few, here.ahead_bits} <= {
        *DISTANCES,
        *(kernel.ahead, kernel.ahead_few, kernel.ahead_bits),
    }
    assert (here.variant == kernel.variant) == (here == kernel)
    if "avx2" in emit.cpu_features():
        assert widened_loops.ahead_here() in (*DISTANCES, widened_loops.AHEAD)
        assert len(files(tmp_path)) == 4


def test_a_kernel_of_another_processor_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_ahead, "cpu_features", lambda: frozenset(("fma",)))
    assert kernel_here(emit.KERNELS["avx2"]) is emit.KERNELS["avx2"]
    assert files(tmp_path) == []
