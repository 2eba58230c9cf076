"""Python threads around kernels that release the GIL, in place of Numba's own.

No threading layer that a fork or a second caller could upset, and threads that are there when a search begins.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from retrieval_bench.core import BenchError


@functools.cache
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Threads that stay: on a busy machine, a new one begins too late to help. A forked child gets its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="retrieval_bench-search")


def on_threads(tasks: Sequence[Callable[[], Any]], threads: int | None = None) -> list[Any]:
    """The results in order; of several errors, the first task's. threads: at most so many, by default one a task.

    The calling thread works too. Each takes the next task when it is done with its last.
    """
    threads = min(len(tasks), threads or len(tasks))
    if threads == 1:
        return [task() for task in tasks]
    results: list[Any] = [None] * len(tasks)
    errors: dict[int, BenchError] = {}
    waiting = iter(enumerate(tasks))  # taking the next is one step under the GIL

    def work() -> None:
        for number, task in waiting:
            try:
                results[number] = task()
            except BenchError as error:
                errors[number] = error

    pool = _pool(os.getpid(), threads - 1)
    running = [pool.submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for worker in running:
            if not worker.cancel():  # one that has not begun has nothing left to do
                worker.result()
    if errors:
        raise errors[min(errors)]
    return results
