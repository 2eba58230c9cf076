"""Latency and throughput while several queries are under way at once, as a search service sees them."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from retrieval_bench.system.timing import Time, concurrency_name, percentiles, pinned

BUDGET_S = 4.0
"""Seconds that each number of queries at once is measured for, at most, and always through one query a thread."""


def concurrent(
    answer: Callable[[int], object],
    n: int,
    levels: Sequence[int],
    threads: int,
    *,
    serial: bool = False,
    budget_s: float = BUDGET_S,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Time]:
    """Answer queries by so many threads at once, each of which takes the next query when it is done with one.

    Args:
        answer: takes the number of a query, 0 to n - 1, and returns when it is answered. Called by several threads.
        n: queries; they come in turns, again from the first after the last.
        levels: how many queries at once, each at least 1.
        threads: of the machine, which the queries share: each has threads / level of them, at least one.
        serial: BLAS and OpenCV have one thread anyway.
        budget_s: seconds for each level; the queries that are under way then are finished and counted.
        progress: called with levels done and levels.

    Returns:
        For each level, in the unit ms, `concurrency_<level>_p50`, `_p95` and `_p99` of a query from start to end, and
        `concurrency_<level>_throughput` in queries/s.
    """
    times: dict[str, Time] = {}
    for done, level in enumerate(levels):
        share = max(1, threads // level)
        with pinned(share, 1 if serial else None):
            times |= _measure(answer, n, level, share, budget_s)
        progress(done + 1, len(levels))
    return times


def _measure(answer: Callable[[int], object], n: int, level: int, share: int, budget_s: float) -> dict[str, Time]:
    numbers = itertools.count()  # next() of it is one step of the interpreter: no two threads get the same

    def prepare() -> None:
        if "numba" in sys.modules:
            sys.modules["numba"].set_num_threads(share)  # numba keeps it for each thread

    def work(end: int) -> list[int]:
        spans = []
        while True:
            start = time.perf_counter_ns()
            answer(next(numbers) % n)
            now = time.perf_counter_ns()
            spans.append(now - start)
            if now >= end:
                return spans

    with ThreadPoolExecutor(level, initializer=prepare) as pool:
        list(pool.map(work, [0] * level))  # warms up: one query a thread
        begin = time.perf_counter_ns()
        end = begin + int(budget_s * 1e9)
        spans = [span for some in pool.map(work, [end] * level) for span in some]
        seconds = (time.perf_counter_ns() - begin) / 1e9
    name = concurrency_name(level)
    return percentiles(name, spans) | {f"{name}_throughput": Time(len(spans) / seconds, "queries/s", len(spans))}
