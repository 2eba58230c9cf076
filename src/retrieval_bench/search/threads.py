"""Python threads around kernels that release the GIL, in place of Numba's own.

No threading layer that a fork or a second caller could upset, and threads that are there when a search begins.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.search.float_mode import keep_tiny_numbers


class _Pool:
    """Threads that stay: on a busy machine, a new one begins too late to help."""

    def __init__(self, workers: int) -> None:
        self._ids: list[int] = []
        self.executor = ThreadPoolExecutor(workers, "retrieval_bench-search", initializer=self._begin)
        self._placed: Any = None

    def _begin(self) -> None:
        self._ids.append(threading.get_native_id())
        keep_tiny_numbers()  # a thread inherits the mode of the one that makes it

    def keep_off(self) -> None:
        """Keep the workers off the core that the caller is running on, where the system can be told so.

        Linux wakes a thread where it slept last or where its waker runs, and on few cores does not look for an idle
        one. Two threads that met on one core while they waited for each other then share it for milliseconds, beside
        an idle core: a search of 4 ms took 2.4 or 4.8.
        """
        place = getattr(os, "sched_setaffinity", None)
        if _core is None or place is None or not hasattr(os, "sched_getaffinity"):
            return
        placed = len(self._ids), _core(), os.sched_getaffinity(0)
        _, here, allowed = placed
        if placed == self._placed or here not in allowed or len(allowed) == 1:
            return
        self._placed = placed
        for worker in self._ids:
            try:
                place(worker, allowed - {here})
            except OSError:  # not allowed in this sandbox: the placing is a favour, not a need
                return


def _core_number() -> Callable[[], int] | None:
    """The C library's sched_getcpu(), on systems that have it and can place threads."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        return ctypes.CDLL(None).sched_getcpu  # type: ignore[no-any-return]
    except (OSError, AttributeError):
        return None


_core = _core_number()


@functools.cache
def _pool(process: int, workers: int) -> _Pool:
    """A forked child gets its own."""
    return _Pool(workers)


def on_threads(tasks: Sequence[Callable[[], Any]], threads: int | None = None) -> list[Any]:
    """The results in order; of several errors, the first task's. threads: at most so many, by default one a task.

    The calling thread works too. Each takes the next task when it is done with its last.
    """
    threads = min(len(tasks), threads or len(tasks))
    if threads == 1:
        return [task() for task in tasks]
    results: list[Any] = [None] * len(tasks)
    errors: dict[int, BenchError] = {}
    numbered = iter(enumerate(tasks))  # taking the next is one step under the GIL

    def work() -> None:
        for number, task in numbered:
            try:
                results[number] = task()
            except BenchError as error:
                errors[number] = error

    running = start([work] * (threads - 1))
    try:
        work()
    finally:
        wait(running)
    if errors:
        raise errors[min(errors)]
    return results


def start(tasks: Sequence[Callable[[], Any]]) -> list[Future]:
    """Run the tasks on other threads, one each, as soon as these are free; for whoever goes on without the results."""
    pool = _pool(os.getpid(), len(tasks))
    pool.keep_off()
    return [pool.executor.submit(task) for task in tasks]


def wait(running: Sequence[Future]) -> None:
    """Until those that have begun are done; the others never begin."""
    for worker in running:
        if not worker.cancel():
            worker.result()


def finish_on_threads(finish: Callable[..., bool], threads: int, arguments: tuple[Any, ...]) -> None:
    """Call `finish(*arguments, place)` on so many threads, each with its number. Number 0 is this one, which says
    whether the others have come so far that it could do its part; where not, it is called again when they are done."""
    others = [functools.partial(finish, *arguments, place) for place in range(1, threads)]
    helpers = start(others) if others else []
    if not finish(*arguments, 0):
        wait(helpers)
        finish(*arguments, 0)
