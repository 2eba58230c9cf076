from __future__ import annotations

import mmap
import sys
import time

import cv2
import numba
import pytest
from threadpoolctl import threadpool_info

from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.timing import PeakMemory, Stopwatch, latencies, percentiles, pinned


@pytest.mark.parametrize(
    ("n", "carried"), [(1, set()), (2, {50}), (19, {50}), (20, {50, 95}), (99, {50, 95}), (100, {50, 95, 99})]
)
def test_a_percentile_needs_a_sample_beyond_it(n: int, carried: set[int]) -> None:
    times = percentiles("x", [1_000_000] * n)
    assert {p for p in (50, 95, 99) if times[f"x_p{p}"].value is not None} == carried
    assert all(figure.n == n and figure.unit == "ms" for figure in times.values())


def test_percentiles_are_milliseconds() -> None:
    times = percentiles("x", [int(1e6 * value) for value in range(1, 201)])
    assert times["x_p50"].value == pytest.approx(100.5)
    assert times["x_p99"].value == pytest.approx(198.01)


def test_latencies_walk_the_phases_in_order_and_add_up() -> None:
    seen = []

    def first(item: int) -> str:
        seen.append(item)
        time.sleep(0.002)
        return f"pixels {item}"

    def second(value: str) -> str:
        time.sleep(0.004)
        return value.upper()

    def third(value: str) -> None:
        assert value.startswith("PIXELS")

    times = latencies([("decode", first), ("extract", second), ("search", third)], 8, warm_up=2)
    assert seen == [0, 1, *range(8)]
    decode, extract, whole = (times[f"{name}_p50"].value for name in ("decode", "extract", "end_to_end"))
    assert 1.9 < decode < extract < whole
    assert times["search_p50"].n == 8


def test_latencies_stop_at_the_budget_and_say_how_far_they_came() -> None:
    times = latencies([("extract", lambda item: time.sleep(0.01))], 1000, warm_up=0, budget_s=0.05)
    assert 2 <= times["extract_p50"].n < 100


def test_pinned_sets_reads_back_and_restores() -> None:
    import torch

    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = numba.get_num_threads(), cv2.getNumThreads(), torch.get_num_threads(), blas()
    with pinned(1) as counts:
        assert (numba.get_num_threads(), cv2.getNumThreads(), torch.get_num_threads()) == (1, 1, 1)
        assert set(blas()) == {1}
        assert counts["numba"] == counts["opencv"] == counts["torch"] == 1
    assert before == (numba.get_num_threads(), cv2.getNumThreads(), torch.get_num_threads(), blas())


def test_pinned_restores_after_an_error() -> None:
    before = cv2.getNumThreads()
    with pytest.raises(KeyError), pinned(1):
        raise KeyError
    assert cv2.getNumThreads() == before


def test_peak_memory_sees_what_was_freed_again() -> None:
    with PeakMemory() as quiet:
        pass
    # Not numpy, which may be given pages that were resident before.
    with PeakMemory() as busy, mmap.mmap(-1, 40 * 2**20) as fresh:
        fresh.write(b"x" * len(fresh))
        time.sleep(0.1)
    assert busy.mib >= quiet.mib + 30
    assert 30 < busy.added_mib < 120
    assert quiet.added_mib < 10


def test_stopwatch() -> None:
    with Stopwatch() as watch:
        time.sleep(0.01)
    assert 0.009 < watch.seconds < 5


def test_usable_cores_is_at_least_one() -> None:
    assert usable_cores() >= 1
    if sys.platform == "linux":
        import os

        assert usable_cores() == len(os.sched_getaffinity(0))
