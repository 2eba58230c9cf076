"""Threads of the search: every task once, errors in order, and workers that leave the caller its core."""

from __future__ import annotations

import os
import threading

import numba
import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.search import threads
from retrieval_bench.search.emit import take
from retrieval_bench.search.threads import on_threads


def test_every_task_once_and_in_order():
    for count in (1, 2, 5):
        assert on_threads([lambda i=i: i * i for i in range(20)], count) == [i * i for i in range(20)]


def test_first_error_of_several_is_raised_after_all_have_run():
    done = []

    def task(i):
        done.append(i)
        if i in (3, 5):
            raise BenchError(f"task {i}")

    with pytest.raises(BenchError, match="task 3"):
        on_threads([lambda i=i: task(i) for i in range(8)], 2)
    assert sorted(done) == list(range(8))


@pytest.mark.skipif(threads._core is None, reason="this system does not place threads")
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_workers_are_kept_off_the_core_of_the_caller():
    before = os.sched_getaffinity(0)
    seen = {}
    both = threading.Barrier(2)

    def task():
        both.wait()
        seen[threading.get_native_id()] = os.sched_getaffinity(0)

    on_threads([task, task], 2)
    on_threads([task, task], 2)  # from the second time on the worker is known
    worker = next(cores for thread, cores in seen.items() if thread != threading.get_native_id())
    assert worker < before
    assert len(worker) == len(before) - 1
    assert os.sched_getaffinity(0) == before, "the caller's own thread is left alone"


def test_tickets_are_taken_once_each():
    @numba.njit(nogil=True)
    def collect(work_counter, out):
        count = 0
        while True:
            number = take(work_counter, 1)
            if number >= len(out):
                return count
            out[number] += 1
            count += 1

    work_counter, out = np.zeros(1, np.int64), np.zeros(200_000, np.int64)
    counts = on_threads([lambda: collect(work_counter, out)] * 2, 2)
    assert sum(counts) == len(out)
    assert (out == 1).all()
